"""Scenes from RITM's COCO+LVIS annotation: `hannotation.pickle` and `masks/ID.pickle`.

docs/hierarchy.md describes the format. Unpickling can run code, so this unpickler accepts only containers, numbers,
strings, bytes and numeric arrays. Overriding `find_class` of the C unpickler is not enough: 1 MB of nested tuples as a
key crashes the process, and 7 bytes make it allocate 4 GiB.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import ByteArray
from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_FILE_NAME
from disbench.core.masks import Rle, check_mask_bytes, encode
from disbench.core.scenes import KeyedScenes, Scene, on_cycles, scene_objects
from disbench.datasets.images import image_errors, open_image_bytes
from disbench.io.files import file_sha256, has_control_character, open_regular

ANNOTATION = "hannotation.pickle"
MASKS = "masks"

_FIX = "get the file again from a source that you trust, or make it with `disbench export`"
_NDARRAY = object()  # stands for numpy.ndarray, which a pickle could call
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def load_plain_pickle(path: Path, fix: str = _FIX) -> object:
    """Load a pickle of protocol 0 to 5 without running any code in it; errors end with `fix`.

    Accepts dictionaries (keyed by numbers and strings), lists, tuples, numbers, strings, bytes, and numeric arrays,
    scalars and dtypes as pickled by NumPy 1 and 2; `InputError` for anything else. Memory: at most 128 times the file.
    """
    with open_regular(path, "no such file; check the path") as file:
        data = file.read()
    try:
        content: object = _PlainUnpickler(path, data, fix).load()
    except InputError:
        raise
    except Exception as error:  # damaged data can raise anything: KeyError, IndexError, MemoryError ...
        said = f"truncated or not a pickle ({type(error).__name__})" if data else "the file is empty"
        raise InputError(f"{path}: {said}; {fix}") from error
    return content


class HannotationSource(KeyedScenes):
    """The scenes of one split of RITM's COCO+LVIS, sorted by image id.

    The first `num_instance_masks` objects of an image are things, related by the file's own tree; the others are stuff.
    The file has no categories: things are "object", stuff is "stuff". `node_level` follows from the parents and is
    ignored. Empty masks have area 0.

    `folder` is the split's folder, with `hannotation.pickle` and `masks/ID.pickle` for each image.
    """

    name = "hannotation"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / ANNOTATION
        if not path.is_file():
            splits = sorted(found.parent.name for found in self.folder.glob(f"*/{ANNOTATION}"))
            known = ", ".join(splits) or "none here"
            raise InputError(f"{folder}: no {ANNOTATION} and {MASKS}; give the folder of one split ({known})")
        images = load_plain_pickle(path)
        if not isinstance(images, dict):
            raise InputError(f"{path}: a {type(images).__name__} instead of a dictionary of images; {_FIX}")
        named = _by_name(path, images)
        trees = [_parents(f"{path}: image {name}", entry) for name, entry in named]
        # Flat arrays instead of dictionaries, because this object is pickled to every worker process.
        self._names = [name for name, _ in named]
        self.keys = range(len(named))
        self._starts = np.cumsum([0, *map(len, trees)])
        self._parents = np.fromiter((parent for tree in trees for parent in tree), dtype=np.int32)

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the annotation, and of the output of `sha256sum` for the mask files, sorted by name."""
        names = sorted(f"{name}.pickle" for name in self._names)
        lines = "".join(f"{file_sha256(self.folder / MASKS / name)}  {name}\n" for name in names)
        return {ANNOTATION: file_sha256(self.folder / ANNOTATION), MASKS: hashlib.sha256(lines.encode()).hexdigest()}

    def _scene(self, key: int) -> Scene:
        name, parents = self._names[key], self._parents[self._starts[key] : self._starts[key + 1]].tolist()
        path = self.folder / MASKS / f"{name}.pickle"
        (height, width), rles = _read_masks(path)
        if len(parents) > len(rles):
            raise InputError(f"{path}: {len(rles)} masks, but {ANNOTATION} has {len(parents)} instances; {_FIX}")
        kinds = [("object", "thing") if index < len(parents) else ("stuff", "stuff") for index in range(len(rles))]
        objects = scene_objects(rles, ((category, None, None, self.name, kind) for category, kind in kinds))
        above = (*parents, *(-1 for _ in rles[len(parents) :]))
        return Scene(name, f"images/{name}.jpg", height, width, self.name, objects, above)


def is_file_name(name: str) -> bool:
    """True if an image id can be a file name."""
    plain = not has_control_character(name) and Path(name).name == name and "\\" not in name
    return 0 < len(name) <= MAX_FILE_NAME and plain


def is_number(name: str) -> bool:
    """True if an image id is a non-negative 64-bit integer."""
    return name.isascii() and name.isdigit() and len(name) < 19


class _PlainUnpickler(pickle._Unpickler):
    """Unpickles plain data, and numeric arrays through checked replacements of NumPy's reconstruction functions.

    Based on the pure Python unpickler, where BUILD and SETITEM can be checked and a forged memo index does not allocate
    memory.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, path: Path, data: bytes, fix: str) -> None:
        super().__init__(io.BytesIO(data))
        self._path, self._fix = path, fix
        # The arrays of a genuine file are at most as large as the file; old protocols copy each of them twice.
        self._bytes_left = 2 * len(data)
        self._known = {
            ("numpy", "ndarray"): _NDARRAY,
            ("numpy", "dtype"): self._dtype,
            ("numpy", "frombuffer"): self._array,
            ("numpy.core.multiarray", "_reconstruct"): self._empty_array,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._array,
            ("_codecs", "encode"): self._latin1,
        }

    def find_class(self, module: str, name: str) -> Any:
        """The replacement for a global name."""
        key = (module.replace("numpy._core.", "numpy.core.", 1), name)  # NumPy 2's module name
        if key not in self._known:
            raise self._refusal(f"loads {f'{module}.{name}'[:80]!a}")
        return self._known[key]

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, np.dtype):
            self._set_byte_order(target, state)
        elif isinstance(target, np.ndarray) and target.size == 0:
            self._fill(target, state)
        else:
            raise self._refusal(f"sets the state of a {type(target).__name__}")

    def load_setitem(self) -> None:
        self._set_items([self.stack.pop(-2), self.stack.pop()])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def load_bytearray8(self) -> None:
        """A bytearray; allocates memory only for bytes that exist."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def load_set(self) -> None:
        raise self._refusal("has a set")

    def _set_items(self, items: list[Any]) -> None:
        # Hashing deeply nested tuples overflows the interpreter's stack and crashes the process.
        if any(not isinstance(key, int | float | str | np.generic) for key in items[::2]):
            raise self._refusal("has a dictionary whose keys are neither numbers nor strings")
        target = self.stack[-1]
        if type(target) is not dict:
            raise self._refusal(f"sets items of a {type(target).__name__}")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _dtype(self, name: object, align: object = False, copy: object = True) -> np.dtype[Any]:
        """A new dtype, since its byte order is set later."""
        if not isinstance(name, str) or not name.strip("<>|=").isalnum() or len(name) > 12:
            raise self._refusal("has a dtype that is not numeric")
        dtype = np.dtype(name)
        if dtype.kind not in "biuf":
            raise self._refusal(f"has an array of {dtype.name}")
        return np.dtype(dtype, copy=True)

    def _set_byte_order(self, dtype: np.dtype[Any], state: Any) -> None:
        """Change only the byte order: a dtype's flags could turn numbers into pointers."""
        own: tuple[Any, ...] = dtype.__reduce__()[2]  # type: ignore[assignment]
        known = type(state) is tuple and (*state[:1], *state[2:]) == (own[0], *own[2:])
        if not known or not isinstance(state[1], str) or state[1] not in tuple("<>|="):
            raise self._refusal("has a dtype that is not numeric")
        dtype.__setstate__((own[0], state[1], *own[2:]))  # type: ignore[attr-defined]

    def _empty_array(self, kind: object, shape: object, code: object) -> npt.NDArray[Any]:
        if kind is not _NDARRAY or shape != (0,) or code not in ("b", b"b"):
            raise self._refusal("makes an array in a way that NumPy never does")
        return np.empty(0, dtype=np.int8)

    def _fill(self, array: npt.NDArray[Any], state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self._check_array(raw, dtype, shape)
        self._spend(len(raw))
        array.__setstate__((1, shape, dtype, bool(fortran), bytes(raw)))  # type: ignore[arg-type]

    def _array(self, buffer: Any, dtype: Any, shape: Any = None, order: Any = "C") -> npt.NDArray[Any]:
        known = dtype if isinstance(dtype, np.dtype) else self._dtype(dtype)
        shape = (len(buffer) // known.itemsize,) if shape is None else shape
        self._check_array(buffer, known, shape)
        return np.frombuffer(buffer, known).reshape(shape, order="F" if order == "F" else "C")

    def _scalar(self, dtype: Any, raw: Any) -> Any:
        return self._array(raw, dtype, ())[()]

    def _check_array(self, buffer: Any, dtype: Any, shape: Any) -> None:
        """Check that a numeric array has exactly the bytes of its shape, so it cannot be larger than the file."""
        if not isinstance(dtype, np.dtype) or type(buffer) not in (bytes, bytearray):
            raise self._refusal("has an array that is not numeric")
        sides_whole = type(shape) is tuple and len(shape) <= 8 and all(type(side) is int for side in shape)
        if not sides_whole or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(buffer):
            raise self._refusal("has an array whose shape does not match its bytes")

    def _latin1(self, text: object, encoding: object) -> bytes:
        """Bytes, which protocols 0 to 2 store as text."""
        if not isinstance(text, str) or encoding != "latin1":
            raise self._refusal("encodes text in a way that NumPy never does")
        self._spend(len(text))
        return text.encode("latin1")

    def _spend(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise self._refusal("copies the same bytes repeatedly")

    def _refusal(self, what: str) -> InputError:
        return InputError(f"{self._path}: the pickle {what}, which this format never does (an attack?); {self._fix}")


_STEPS = {
    pickle.BUILD: _PlainUnpickler.load_build,
    pickle.SETITEM: _PlainUnpickler.load_setitem,
    pickle.SETITEMS: _PlainUnpickler.load_setitems,
    pickle.DICT: _PlainUnpickler.load_dict,
    pickle.BYTEARRAY8: _PlainUnpickler.load_bytearray8,
    **dict.fromkeys((pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET), _PlainUnpickler.load_set),
}
_PlainUnpickler.dispatch.update({code[0]: step for code, step in _STEPS.items()})


def _by_name(path: Path, images: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Entries by image id as a string: numbers in ascending order, then other names in alphabetical order."""
    named: dict[str, Any] = {}
    for key, entry in images.items():
        name = str(int(key)) if _is_integer(key) and 0 <= key < 2**63 else key
        if not isinstance(name, str) or not is_file_name(name) or name in named:
            raise InputError(f"{path}: {quote(key)} is not an image id, or occurs twice; {_FIX}")
        named[name] = entry
    numbers = {name: int(name) for name in named if is_number(name)}
    return sorted(named.items(), key=lambda item: (item[0] not in numbers, numbers.get(item[0], 0), item[0]))


def _parents(where: str, entry: Any) -> list[int]:
    """Check an image's entry in `hannotation.pickle` and return the instances' parents, -1 for a root."""
    count, nodes = (
        (entry.get(key) for key in ("num_instance_masks", "hierarchy")) if isinstance(entry, dict) else (0, 0)
    )
    if not _is_integer(count) or not isinstance(nodes, dict):
        raise InputError(f"{where}: 'num_instance_masks' or 'hierarchy' is missing; {_FIX}")
    if len(nodes) != count or any(index not in nodes for index in range(len(nodes))):
        raise InputError(f"{where}: the hierarchy needs one entry for each instance mask; {_FIX}")
    related = [_relations(f"{where}, mask {index}", nodes[index]) for index in range(len(nodes))]
    parents = [parent for parent, _ in related]
    listed = [(child, parent) for parent, (_, children) in enumerate(related) for child in children]
    expected = [(child, parent) for child, parent in enumerate(parents) if parent >= 0]
    if sorted(listed) != expected or on_cycles(parents):
        raise InputError(f"{where}: the hierarchy's parents and children contradict each other; {_FIX}")
    return parents


def _relations(where: str, node: Any) -> tuple[int, list[int]]:
    if node is None:
        return -1, []
    if not isinstance(node, dict) or not isinstance(node.get("children"), list | tuple) or "parent" not in node:
        raise InputError(f"{where}: 'parent' or 'children' is missing; {_FIX}")
    parent, children = node["parent"], node["children"]
    if (parent is not None and not (_is_integer(parent) and parent >= 0)) or not all(map(_is_integer, children)):
        raise InputError(f"{where}: its parent or a child is not a mask index; {_FIX}")
    return -1 if parent is None else int(parent), [int(child) for child in children]


def _read_masks(path: Path) -> tuple[tuple[int, int], list[Rle]]:
    """Read the size (height, width) and masks of a `masks/ID.pickle`, decoding one layer at a time."""
    content: Any = load_plain_pickle(path)
    try:
        layers, mapping = content
        places = [tuple(mapping[index]) for index in range(len(mapping))]
        in_layer: list[list[tuple[int, int]]] = [[] for _ in layers]
    except (TypeError, ValueError, LookupError):
        raise InputError(f"{path}: not a pair of layers and a mapping of masks from 0 on; {_FIX}") from None
    for index, place in enumerate(places):
        known = len(place) == 2 and all(map(_is_integer, place))
        if not known or not 0 <= place[0] < len(in_layer) or not 1 <= place[1] <= 255:
            raise InputError(f"{path}: mask {index} is not a value from 1 to 255 in one of the layers; {_FIX}")
        in_layer[place[0]].append((index, place[1]))
    if len(set(places)) < len(places):
        raise InputError(f"{path}: two masks have the same value in one layer; {_FIX}")
    found: dict[int, Rle] = {}
    sizes = set()
    for number, (layer, wanted) in enumerate(zip(layers, in_layer, strict=True)):
        labels = np.asfortranarray(_decode_layer(f"{path}, layer {number}", layer))  # RLEs are column-major
        sizes.add((labels.shape[0], labels.shape[1]))
        found.update((index, encode(labels == value)) for index, value in wanted)
        try:
            check_mask_bytes(sum(len(rle["counts"]) for rle in found.values()))
        except ValueError as error:
            raise InputError(f"{path}: {error}; {_FIX}") from None
    if len(sizes) != 1:
        raise InputError(f"{path}: no layers, or layers of different sizes; {_FIX}")
    return sizes.pop(), [found[index] for index in range(len(places))]


def _decode_layer(where: str, layer: Any) -> ByteArray:
    """Decode a layer to its label map, uint8 (height, width)."""
    if not isinstance(layer, np.ndarray) or layer.dtype != np.uint8:
        raise InputError(f"{where}: not an encoded image; {_FIX}")
    png = np.ascontiguousarray(layer).tobytes()
    with open_image_bytes(io.BytesIO(png), where) as image, image_errors(where):
        if image.format != "PNG" or image.mode != "L" or not png.endswith(_PNG_END):  # Pillow accepts a missing end
            raise InputError(f"{where}: not a complete 8-bit grey PNG; {_FIX}")
        return np.array(image)


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
