"""RITM's COCO+LVIS annotation as a source of scenes: `hannotation.pickle` and `masks/ID.pickle`.

The format is described in docs/hierarchy.md. A pickle can run code when it is read,
and these files come from strangers; they are read here by an unpickler that knows containers, numbers,
text, bytes and arrays of numbers, and refuses the rest.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import ByteArray
from disbench.core.errors import InputError
from disbench.core.limits import MAX_PIXELS
from disbench.core.masks import Rle, areas, boxes, check_total, encode
from disbench.core.scenes import Scene, SceneObject
from disbench.io.files import open_regular

ANNOTATION = "hannotation.pickle"
MASKS = "masks"

_CURE = "get the file again from a source that you trust, or make it with `disbench export`"
_LONGEST_NAME = 200
"""Characters of an image's id: with its ending it must be a name that a file can have."""
_NDARRAY = object()  # stands for numpy.ndarray in a pickle; the class itself could be called there
_PNG_HEAD = struct.Struct(">8s4x4sIIBB")  # signature, length of the first chunk, its name, width, height, ...
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_GREY_8_BIT = (8, 0)

Place = tuple[int, int]


def load_plain_pickle(path: Path) -> object:
    """The content of a pickle, without running any code that it brings.

    Allowed are dictionaries (keyed by numbers and text), lists, tuples, numbers, text, bytes, and arrays,
    scalars and dtypes of numbers as NumPy 1 and 2 pickle them. Memory: 128 bytes a byte of the file at most.

    Args:
        path: a pickle of protocol 0 to 5.

    Raises:
        InputError: the file is missing, empty, truncated or no pickle, or it wants to load something else;
            nothing of it has been run then.
    """
    with open_regular(path, "there is no such file; check the path") as file:
        data = file.read()
    if not data:
        raise InputError(f"{path}: the file is empty; {_CURE}")
    try:
        content: object = _PlainUnpickler(path, data).load()
    except InputError:
        raise
    except Exception as error:  # bytes that are no pickle fail in any way: key, index, overflow, memory ...
        name = type(error).__name__
        raise InputError(f"{path}: the file is truncated or not a pickle ({name}); {_CURE}") from error
    return content


class HannotationSource:
    """The scenes of one split of RITM's COCO+LVIS, in ascending image id.

    The first `num_instance_masks` objects of an image are things, related by the file's own tree; the others
    are stuff. The file names no categories: things are "object", stuff is "stuff". Its `node_level` is not
    read, for it follows from the parents. An object without a pixel has area 0.

    Args:
        folder: of the split; holds `hannotation.pickle` and `masks/ID.pickle` for every image in it.

    Raises:
        InputError: another folder, a file that `load_plain_pickle` refuses, or an annotation that
            contradicts itself.
    """

    name = "hannotation"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / ANNOTATION
        if not path.is_file():
            raise _wrong_folder(self.folder)
        images = load_plain_pickle(path)
        if not isinstance(images, dict):
            raise InputError(f"{path}: not a dictionary of images but a {type(images).__name__}; {_CURE}")
        named = _by_name(path, images)
        trees = [_parents(f"{path}: image {name}", entry) for name, entry in named]
        # Flat arrays instead of the dictionaries: this object travels to every worker process.
        self._names = [name for name, _ in named]
        self._starts = np.cumsum([0, *map(len, trees)])
        self._parents = np.fromiter((parent for tree in trees for parent in tree), dtype=np.int32)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._names)

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        """The scenes of these numbers, in this order.

        Raises:
            InputError: a file of masks that is missing, refused, or does not fit the annotation.
        """
        for index in indices:
            first, end = int(self._starts[index]), int(self._starts[index + 1])
            yield self._scene(self._names[index], self._parents[first:end].tolist())

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the annotation, and one of all its files of masks.

        The latter is that of the text which `sha256sum` prints for the files of `masks` that the annotation
        names, sorted by name: a line "HASH  ID.pickle" a file.
        """
        names = sorted(f"{name}.pickle" for name in self._names)
        lines = "".join(f"{_sha256(self.folder / MASKS / name)}  {name}\n" for name in names)
        return {
            ANNOTATION: _sha256(self.folder / ANNOTATION),
            MASKS: hashlib.sha256(lines.encode()).hexdigest(),
        }

    def _scene(self, name: str, parents: list[int]) -> Scene:
        path = self.folder / MASKS / f"{name}.pickle"
        (height, width), rles = _read_masks(path)
        if len(parents) > len(rles):
            raise InputError(f"{path}: {len(rles)} masks, where {ANNOTATION} has {len(parents)} instances; {_CURE}")
        return Scene(
            image_id=name,
            file_name=f"images/{name}.jpg",
            height=height,
            width=width,
            source=self.name,
            objects=_scene_objects(rles, len(parents)),
            parents=(*parents, *(-1 for _ in rles[len(parents) :])),
        )


def is_file_name(name: str) -> bool:
    """Whether an image's id can name its file of masks, and only a file in that folder."""
    plain = name.isprintable() and Path(name).name == name and "\\" not in name
    return 0 < len(name) <= _LONGEST_NAME and plain


class _PlainUnpickler(pickle._Unpickler):
    """Reads plain data from a pickle, and of NumPy the few functions that rebuild arrays of numbers.

    Those functions are replaced by methods of this class that check what they are given. It is the
    unpickler written in Python, not the faster one in C: here the steps that set an object's state and
    that fill a dictionary can be checked, and a forged memo index does not reserve memory.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path
        # Honest arrays are together no larger than the file; old protocols copy each of them twice.
        self._bytes_left = 2 * len(data)
        self._known = {
            ("numpy", "ndarray"): _NDARRAY,
            ("numpy", "dtype"): self._dtype,
            ("numpy", "frombuffer"): self._flat_array,
            ("numpy.core.multiarray", "_reconstruct"): self._empty_array,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._array,
            ("_codecs", "encode"): self._latin1,
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global name; NumPy 2 calls `numpy.core` `numpy._core`."""
        key = (module.replace("numpy._core.", "numpy.core.", 1), name)
        if key not in self._known:
            wanted = ascii(f"{module}.{name}"[:80])  # quoted: the name is a stranger's, and is printed
            raise self._refusal(f"wants to load {wanted}")
        return self._known[key]

    def load_build(self) -> None:
        """Set the state of the object on top of the stack, which must be one that was made above."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, np.dtype):
            self._set_byte_order(target, state)
        elif isinstance(target, np.ndarray) and target.size == 0:
            self._fill(target, state)
        else:
            raise self._refusal(f"sets the state of a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    def load_setitem(self) -> None:
        """One entry of a dictionary."""
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        """Several entries of a dictionary."""
        self._set_items(self.pop_mark())

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        """A dictionary with its entries."""
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    dispatch[pickle.DICT[0]] = load_dict

    def load_bytearray8(self) -> None:
        """Bytes that can change; none are reserved before they are there."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_set(self) -> None:
        """Sets have no place in the format."""
        raise self._refusal("holds a set")

    for _code in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):
        dispatch[_code[0]] = load_set

    def _set_items(self, items: list[Any]) -> None:
        # Hashing a tuple of tuples of tuples ... overflows the interpreter's stack and ends the process.
        if any(not isinstance(key, int | float | str | np.generic) for key in items[::2]):
            raise self._refusal("holds a dictionary whose keys are neither numbers nor text")
        target = self.stack[-1]
        if type(target) is not dict:
            raise self._refusal(f"sets items of a {type(target).__name__}")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _dtype(self, name: object, align: object = False, copy: object = True) -> np.dtype[Any]:
        """A dtype of its own, for its byte order is set later."""
        if not isinstance(name, str) or not name.strip("<>|=").isalnum() or len(name) > 12:
            raise self._refusal("holds a dtype that is not one of plain numbers")
        dtype = np.dtype(name)
        if dtype.kind not in "biuf":
            raise self._refusal(f"holds an array of {dtype.name}")
        return np.dtype(dtype, copy=True)

    def _set_byte_order(self, dtype: np.dtype[Any], state: Any) -> None:
        """Nothing but the byte order may change: a dtype's flags could make pointers of numbers."""
        own: tuple[Any, ...] = dtype.__reduce__()[2]  # type: ignore[assignment]
        if type(state) is not tuple or (*state[:1], *state[2:]) != (own[0], *own[2:]):
            raise self._refusal("holds a dtype that is not one of plain numbers")
        if not isinstance(state[1], str) or state[1] not in tuple("<>|="):
            raise self._refusal("holds a dtype of an unknown byte order")
        dtype.__setstate__((own[0], state[1], *own[2:]))  # type: ignore[attr-defined]

    def _empty_array(self, kind: object, shape: object, code: object) -> npt.NDArray[Any]:
        if kind is not _NDARRAY or shape != (0,) or code not in ("b", b"b"):
            raise self._refusal("makes an array in a way that NumPy does not")
        return np.empty(0, dtype=np.int8)

    def _fill(self, array: npt.NDArray[Any], state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self._check_array(raw, dtype, shape)
        self._spend(len(raw))
        array.__setstate__((1, shape, dtype, bool(fortran), bytes(raw)))  # type: ignore[arg-type]

    def _array(self, buffer: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
        self._check_array(buffer, dtype, shape)
        return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")

    def _flat_array(self, buffer: Any, dtype: Any) -> npt.NDArray[Any]:
        known = dtype if isinstance(dtype, np.dtype) else self._dtype(dtype)
        self._check_array(buffer, known, (len(buffer) // known.itemsize,))
        return np.frombuffer(buffer, known)

    def _scalar(self, dtype: Any, raw: Any) -> Any:
        self._check_array(raw, dtype, ())
        return np.frombuffer(raw, dtype)[0]

    def _check_array(self, buffer: Any, dtype: Any, shape: Any) -> None:
        """An array of numbers has as many bytes as its shape says, and so cannot be a gigantic one."""
        if not isinstance(dtype, np.dtype) or type(buffer) not in (bytes, bytearray):
            raise self._refusal("holds an array that is not one of plain numbers")
        sides_whole = type(shape) is tuple and len(shape) <= 8 and all(type(side) is int for side in shape)
        if not sides_whole or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(buffer):
            raise self._refusal("holds an array whose shape does not fit its bytes")

    def _latin1(self, text: object, encoding: object) -> bytes:
        """Bytes, which protocols 0 to 2 write as text."""
        if not isinstance(text, str) or encoding != "latin1":
            raise self._refusal("encodes text in a way that NumPy does not")
        self._spend(len(text))
        return text.encode("latin1")

    def _spend(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise self._refusal("copies the same bytes again and again")

    def _refusal(self, what: str) -> InputError:
        return InputError(
            f"{self._path}: the pickle {what}, which files of masks never do and which can be an attack; "
            f"it was not read: {_CURE}"
        )


def _wrong_folder(folder: Path) -> InputError:
    """An error that names the splits in the folder, if that is what they are."""
    splits = sorted(path.parent.name for path in folder.glob(f"*/{ANNOTATION}")) if folder.is_dir() else []
    hint = f"name one of its splits: {', '.join(splits)}" if splits else "name the folder of one split"
    return InputError(f"{folder}: no {ANNOTATION} here; {hint}, which holds {ANNOTATION} and {MASKS}/ID.pickle")


def _by_name(path: Path, images: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """The entries under their images' ids in text: numbers ascending, then other names in their order."""
    named = {_image_name(path, key): entry for key, entry in images.items()}
    if len(named) < len(images):
        raise InputError(f"{path}: an image is there twice, as a number and as text; {_CURE}")
    return sorted(named.items(), key=lambda item: _numbers_first(item[0]))


def _numbers_first(name: str) -> tuple[bool, int, str]:
    digits = name.isascii() and name.isdigit() and len(name) < 19
    return (not digits, int(name) if digits else 0, name)


def _image_name(path: Path, key: Any) -> str:
    if _is_whole(key) and 0 <= key < 2**63:
        return str(int(key))
    if isinstance(key, str) and is_file_name(key):
        return key
    shown = ascii(key[:80]) if isinstance(key, str) else f"a key of type {type(key).__name__}"
    raise InputError(f"{path}: {shown} is not the id of an image; {_CURE}")


def _parents(where: str, entry: Any) -> list[int]:
    """The parents of an image's instances, -1 for a root; the whole entry is checked.

    Args:
        where: file and image, for errors.
        entry: the image's value in `hannotation.pickle`.
    """
    count = entry.get("num_instance_masks") if isinstance(entry, dict) else None
    nodes = entry.get("hierarchy") if isinstance(entry, dict) else None
    if not _is_whole(count) or not isinstance(nodes, dict):
        raise InputError(f"{where}: no 'num_instance_masks' and 'hierarchy' there; {_CURE}")
    if len(nodes) != count or any(index not in nodes for index in range(len(nodes))):
        raise InputError(f"{where}: the hierarchy has not one entry for each instance mask; {_CURE}")
    related = [_relations(where, index, nodes[index]) for index in range(len(nodes))]
    parents = [parent for parent, _ in related]
    listed = [(child, parent) for parent, (_, children) in enumerate(related) for child in children]
    if sorted(listed) != [(child, parent) for child, parent in enumerate(parents) if parent >= 0]:
        raise InputError(f"{where}: the hierarchy's parents and children contradict each other; {_CURE}")
    _check_acyclic(where, parents)
    return parents


def _relations(where: str, index: int, node: Any) -> tuple[int, list[int]]:
    """Parent (-1 for none) and children of one mask."""
    if node is None:
        return -1, []
    if not isinstance(node, dict) or not isinstance(node.get("children"), list | tuple) or "parent" not in node:
        raise InputError(f"{where}, mask {index}: no 'parent' and 'children' there; {_CURE}")
    parent, children = node["parent"], node["children"]
    if (parent is not None and not (_is_whole(parent) and parent >= 0)) or not all(map(_is_whole, children)):
        raise InputError(f"{where}, mask {index}: its parent or a child is not the number of a mask; {_CURE}")
    return -1 if parent is None else int(parent), [int(child) for child in children]


def _check_acyclic(where: str, parents: Sequence[int]) -> None:
    """Every mask has a root above it: what is left when all that hang on roots are taken away is a circle."""
    children: list[list[int]] = [[] for _ in parents]
    for child, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(child)
    reached = [node for node, parent in enumerate(parents) if parent < 0]
    for node in reached:  # grows while it is walked
        reached.extend(children[node])
    if len(reached) < len(parents):
        raise InputError(f"{where}: the hierarchy goes round in a circle; {_CURE}")


def _read_masks(path: Path) -> tuple[tuple[int, int], list[Rle]]:
    """All masks of a `masks/ID.pickle`, and their size (height, width); one layer is decoded at a time."""
    layers, places = _packed_masks(path)
    in_layer: list[list[tuple[int, int]]] = [[] for _ in layers]
    for index, (layer, value) in enumerate(places):
        in_layer[layer].append((index, value))
    found: dict[int, Rle] = {}
    sizes = set()
    for number, (layer, wanted) in enumerate(zip(layers, in_layer, strict=True)):
        labels = np.asfortranarray(_decode_layer(f"{path}, layer {number}", layer))  # run lengths go down columns
        sizes.add((labels.shape[0], labels.shape[1]))
        found.update((index, encode(labels == value)) for index, value in wanted)
        try:
            check_total(sum(len(rle["counts"]) for rle in found.values()))
        except ValueError as error:
            raise InputError(f"{path}: {error}; {_CURE}") from None
    if len(sizes) != 1:
        raise InputError(f"{path}: {'layers of different sizes' if sizes else 'no layers'}; {_CURE}")
    return sizes.pop(), [found[index] for index in range(len(places))]


def _packed_masks(path: Path) -> tuple[list[Any], list[Place]]:
    """The layers as they are in the file, and the layer and value of each mask, checked."""
    content = load_plain_pickle(path)
    if not isinstance(content, tuple | list) or len(content) != 2 or not isinstance(content[0], list | tuple):
        raise InputError(f"{path}: not a pair of layers and a mapping; {_CURE}")
    layers, mapping = list(content[0]), content[1]
    if isinstance(mapping, dict) and all(index in mapping for index in range(len(mapping))):
        mapping = [mapping[index] for index in range(len(mapping))]
    if not isinstance(mapping, list | tuple):
        raise InputError(f"{path}: the mapping does not number the masks from 0 on; {_CURE}")
    places = [_place(path, index, place, len(layers)) for index, place in enumerate(mapping)]
    again = [place for place, times in Counter(places).items() if times > 1]
    if again:
        raise InputError(f"{path}: two masks are both value {again[0][1]} of layer {again[0][0]}; {_CURE}")
    return layers, places


def _place(path: Path, index: int, place: Any, layers: int) -> Place:
    pair = isinstance(place, tuple | list) and len(place) == 2 and all(map(_is_whole, place))
    if not pair or not 0 <= place[0] < layers or not 1 <= place[1] <= 255:
        raise InputError(
            f"{path}: mask {index} is mapped to no value of 1 to 255 in one of the {layers} layers; {_CURE}"
        )
    return int(place[0]), int(place[1])


def _decode_layer(where: str, layer: Any) -> ByteArray:
    """The label map of a layer: uint8 (height, width)."""
    from PIL import Image  # noqa: PLC0415  (not needed to say --help)

    if not isinstance(layer, np.ndarray) or layer.dtype != np.uint8:
        raise InputError(f"{where}: not an encoded image; {_CURE}")
    png = np.ascontiguousarray(layer).reshape(-1)
    _check_png_head(where, png[: _PNG_HEAD.size].tobytes())
    try:
        with Image.open(io.BytesIO(png.tobytes()), formats=["PNG"]) as image:
            labels = np.array(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        raise InputError(f"{where}: damaged, it cannot be decoded to a grey image; {_CURE}") from error
    whole = png[-len(_PNG_END) :].tobytes() == _PNG_END  # Pillow reads on where only the end is missing
    if not whole or labels.ndim != 2 or labels.dtype != np.uint8:
        raise InputError(f"{where}: damaged, it cannot be decoded to a grey image; {_CURE}")
    return labels


def _check_png_head(where: str, head: bytes) -> None:
    """Look at kind and size before anything is decoded."""
    if len(head) < _PNG_HEAD.size or not head.startswith(b"\x89PNG\r\n\x1a\n") or head[12:16] != b"IHDR":
        raise InputError(f"{where}: not a PNG image; {_CURE}")
    *_, width, height, depth, colour = _PNG_HEAD.unpack(head)
    if (depth, colour) != _GREY_8_BIT:
        raise InputError(f"{where}: not a grey PNG image of 8 bits; {_CURE}")
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(f"{where}: {width} x {height} pixels, where 1 to {MAX_PIXELS} are read; {_CURE}")


def _scene_objects(rles: Sequence[Rle], things: int) -> tuple[SceneObject, ...]:
    rows = zip(rles, areas(rles).tolist(), boxes(rles).tolist(), strict=True)
    return tuple(
        SceneObject(
            rle=rle,
            area=area,
            box=(box[0], box[1], box[2], box[3]),
            category="object" if index < things else "stuff",
            source=HannotationSource.name,
            kind="thing" if index < things else "stuff",
        )
        for index, (rle, area, box) in enumerate(rows)
    )


def _sha256(path: Path) -> str:
    with open_regular(path, f"there is no such file; {_CURE}") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
