"""Label maps (images whose pixels are integer labels), the layouts of SBD and PascalVOC, and their scenes."""

from __future__ import annotations

import hashlib
import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from disbench.core import masks
from disbench.core.arrays import ByteArray, IntArray
from disbench.core.errors import InputError
from disbench.core.limits import MAX_LIST_BYTES, MAX_PIXELS
from disbench.core.scenes import KeyedScenes, Scene, scene_objects
from disbench.datasets.images import PHOTOMETRIC, eight_bits, image_errors, open_image, orientation, rgb_pixels
from disbench.datasets.matlab import read_struct, whole_numbers
from disbench.io.archives import safe_path
from disbench.io.files import MISSING, file_sha256, is_inside_folder, read_bounded, unicode_forms

if TYPE_CHECKING:
    from PIL.Image import Image

Labels = npt.NDArray[np.integer]
Number = TypeVar("Number", bound=np.integer[Any])
_LINE_END = re.compile("\r\n|\n|\r")
_PLAIN = re.compile("[A-Za-z0-9_-]+")  # unambiguous names, which need no file lookup
_SEPARATOR = re.compile(r"[\s,;]+")
_IMAGE_ENDINGS = ("JPG", "jpeg", "JPEG", "png", "PNG", "bmp", "BMP", "tif", "tiff", "webp")
_ENDING = re.compile(r"\.(jpe?g|png|bmp|tiff?|mat)$", re.IGNORECASE)

VOC_CATEGORIES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car",
    "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike",
    "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
VOID = 255  # PascalVOC's palette index of void pixels
HALF = 127  # threshold for grey values and opacities
UNDECIDED = 128  # GrabCut's grey value of unlabelled pixels
_CODE = np.array([1 << 16, 1 << 8, 1])  # colour @ _CODE packs RGB into one integer
# PascalVOC's palette: bits of the index, lowest first, go to red, green and blue in turn, from the highest bit down.
_VOC_CODES = np.sum([(np.arange(256) >> bit & 1) << 7 - bit // 3 + (16, 8, 0)[bit % 3] for bit in range(8)], axis=0)
_VOC_ORDER = np.argsort(_VOC_CODES)
_ONE_CHANNEL = ("P", "L", "1", "I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's integer modes


def read_label_png(path: Path, channels: int = 1, size: tuple[int, ...] | None = None) -> ByteArray:
    """Read a label PNG: palette indices, grey values or indices of PascalVOC's colours, uint8 (height, width).

    With `channels` 3, its colours, uint8 (height, width, 3). `size` is the required (height, width), if any.
    """
    with open_mask(path, ("P", "L", "1", "RGB") if channels == 1 else ("RGB",), size) as image:
        values = np.array(image, dtype=np.uint8)
    return voc_numbers(values, path) if values.ndim > 2 > channels else values


def voc_numbers(colours: Labels, path: Path) -> ByteArray:
    """Map colours (height, width, 3), as written by CVAT, to PascalVOC palette indices, uint8 (height, width)."""
    numbers = np.empty(colours.shape[:2], dtype=np.uint8)
    for row, line in zip(numbers, colours, strict=True):  # row by row to save memory
        codes = line.astype(np.int64) @ _CODE
        row[:] = _VOC_ORDER[np.searchsorted(_VOC_CODES, codes, sorter=_VOC_ORDER).clip(max=VOID)]
        if (wrong := _VOC_CODES[row] != codes).any():
            colour = tuple(line[wrong][0].tolist())
            raise InputError(f"{path}: the colour {colour} is not in PascalVOC's palette; save one channel of integers")
    return numbers


def read_label_map(path: Path) -> Labels:
    """Read a label image of any kind, up to 32 bits per pixel, dropping transparency.

    Palette indices or grey values (height, width), or colours (height, width, 3), in the file's own integer type; int64
    for floats. Memory: 24 bytes per pixel.
    """
    with open_mask(path, (*_ONE_CHANNEL, "F", "LA", "PA", "RGB", "RGBA")) as image:
        values = np.array(image)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind in "if" and not np.array_equal(values, np.rint(values).clip(0, 2**53)):
        raise InputError(f"{path}: values from {values.min():g} to {values.max():g}; save integers from 0")
    if values.dtype == np.float32:
        return values.astype(np.int64)
    if values.ndim == 2:
        return values
    return values[..., 0] if values.shape[2] == 2 else values[..., :3]


def read_palette(path: Path) -> IntArray:
    """The palette of a PNG, int64 (256, 3) of red, green, blue; missing entries are black."""
    with open_mask(path, ("P",)) as image:
        colours = image.getpalette("RGB") or []
    palette = np.zeros((256, 3), dtype=np.int64)
    palette[: len(colours) // 3] = np.reshape(colours, (-1, 3))
    return palette


def read_displayed(path: Path) -> tuple[ByteArray, ByteArray | None]:
    """The displayed colours (palette applied) and opacity of a mask of any kind.

    Colours uint8 (height, width, 3) or grey (height, width); opacity uint8 (height, width), or None if constant.
    Integers of more than 8 bits are shifted right by whole bytes until the largest fits; nonzero stays nonzero.
    """
    with open_mask(path) as image:
        if image.mode[0] not in "IF":
            grey = image.mode in ("1", "L", "LA")
            colours = np.array(image.convert("L")) if grey else rgb_pixels(image, path)
            alpha = np.array(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
            return colours, None if alpha is None or alpha.min() == alpha.max() else alpha
        if image.mode == "F" and np.array(image).max() <= 1:
            return eight_bits(image, path), None
    numbers = read_label_map(path)
    shift = max(0, -(-int(numbers.max()).bit_length() // 8) * 8 - 8)
    return np.asarray(np.maximum(numbers.astype(np.int64) >> shift, numbers != 0), dtype=np.uint8), None


def on_black(colours: ByteArray, alpha: ByteArray | None) -> ByteArray:
    """Minimum of brightest channel and opacity, uint8 (height, width); opacity alone if the colour is constant."""
    light = brightest(colours)
    if alpha is None:
        return light
    return alpha if one_colour(colours) else np.minimum(light, alpha)


def one_colour(colours: ByteArray) -> bool:
    """True if all pixels of (height, width) or (height, width, channels) are equal."""
    return all(channel.min() == channel.max() for channel in np.moveaxis(np.atleast_3d(colours), 2, 0))


def distinct(values: Labels) -> Labels:
    """Sorted distinct values."""
    few = values.size and values.min() >= 0 and values.max() < 2**16  # counting is much faster than sorting
    return np.flatnonzero(np.bincount(values.ravel())) if few else np.unique(values)


def brightest(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The largest channel of each pixel, (height, width); maps without channels are returned unchanged."""
    if values.ndim == 2:
        return values
    red, green, blue = np.moveaxis(values, 2, 0)  # 100 times faster than max over an axis of length 3
    largest: npt.NDArray[Number] = np.maximum(np.maximum(red, green), blue)
    return largest


@contextmanager
def open_mask(path: Path, modes: Sequence[str] = (), size: tuple[int, ...] | None = None) -> Iterator[Image]:
    """Open a mask file, checking its Pillow mode and (height, width) if given."""
    with open_image(path, MISSING) as image, image_errors(path):
        if size not in (None, (image.height, image.width)):
            raise InputError(f"{path}: {image.width} x {image.height} pixels, its image {size[1]} x {size[0]}; fix one")
        if modes and image.mode not in modes:
            raise InputError(f"{path}: pixels of mode {image.mode}; save it with mode {' or '.join(modes)}")
        if getattr(image, "is_animated", False):
            raise InputError(f"{path}: several pages or frames, but a mask must have one; save each as a PNG")
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:
            raise InputError(f"{path}: a TIFF with 0 as white, which programs read differently; save it as PNG")
        if (number := orientation(image)) > 1:
            raise InputError(f"{path}: a mask with EXIF orientation {number}; save it as its photo is read")
        yield image


def read_instances(path: Path) -> tuple[IntArray, list[int]]:
    """Read the instance map of an SBD file and the category number of each instance.

    int64 (height, width), 0 for background, k for the k-th instance; category numbers 1..20. `InputError` if the file
    is missing or damaged, has no `GTinst`, or an instance has no category.
    """
    try:
        found = read_struct(path, "GTinst", ("Segmentation", "Categories"))
        if found["Segmentation"].size > MAX_PIXELS:
            raise ValueError(f"its map has more than {MAX_PIXELS} pixels")
        labels = whole_numbers(found["Segmentation"])
        numbers = whole_numbers(found["Categories"]).ravel(order="F").tolist()
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: no 'GTinst' as in SBD's folder inst/ ({error}); get the file again") from None
    if labels.ndim != 2 or labels.size == 0 or labels.min() < 0 or labels.max() > len(numbers):
        raise InputError(f"{path}: an instance of its map has no category; get the file again")
    return labels, numbers


@dataclass(frozen=True, slots=True)
class MapLayout:
    """Paths of a dataset's split lists, images and label maps, and how to read the maps.

    Attributes:
        name: the dataset ("sbd").
        split_list: path of a list, `{}` for the split's name.
        image: path of an image, `{}` for a name in the list.
        maps: paths of the label maps, `{}` for a name in the list; the first holds the instances.
        read: maps' paths -> instance labels (height, width), and label -> category name.
        ignored: labels that are not instances.
    """

    name: str
    split_list: str
    image: str
    maps: tuple[str, ...]
    read: Callable[[Sequence[Path]], tuple[Labels, Mapping[int, str]]]
    ignored: tuple[int, ...] = (0,)

    def image_of(self, folder: Path, name: str) -> str:
        """The path of an image, with another common suffix if only that file exists."""
        usual = self.image.format(name)
        paths = (usual, *(f"{usual.rpartition('.')[0]}.{ending}" for ending in _IMAGE_ENDINGS))
        return next((path for path in paths if os.path.isfile(folder / path)), usual)  # noqa: PTH113

    def names(self, folder: Path, split: str) -> tuple[list[str], Counter[str]]:
        """The distinct image names of a split, in list order, and the number of dropped lines by reason.

        A whole line, including spaces, is an image name if that file exists. Otherwise the name ends at a space, comma
        or semicolon. Suffixes, this layout's folders and backslashes are accepted; lines that begin with # and name no
        file are skipped. `InputError` as `read_lines`, for a path outside the folder, or an empty list.
        """
        path = folder / self.split_list.format(split)
        counts: Counter[str] = Counter()
        for number, line in read_lines(path):
            name = line if _PLAIN.fullmatch(line) else self._named(folder, line)
            if name or not line.lstrip().startswith("#"):
                safe_path(name or line.strip(), f"{path}: line {number}")
                counts[name or line.strip()] += 1
        if not counts:
            raise InputError(f"{path}: the list is empty; choose another split or get it again")
        again = counts.total() - len(counts)
        return list(counts), Counter({"image that the list names again": again} if again else {})

    def _named(self, folder: Path, line: str) -> str:
        """The name of the file that a line, or its part before a separator, refers to; "" if none exists."""
        patterns = (*self.maps, self.image)
        stripped = line.strip()
        for text in (line, *(stripped[: space.start()] for space in _SEPARATOR.finditer(stripped))):
            path = text.strip().replace("\\", "/")
            for start in (pattern.partition("{")[0] for pattern in patterns):
                path = f"/{path}".rpartition(f"/{start}")[2].lstrip("/")
            readings = (text, text.strip(), path, _ENDING.sub("", path))
            for name in dict.fromkeys(form for reading in readings for form in unicode_forms(reading)):
                files = (folder / pattern.format(name) for pattern in patterns)
                if is_inside_folder(name) and any(map(os.path.isfile, files)):  # Path.is_file raises on long names
                    return name
        return ""


class MapScenes(KeyedScenes):
    """Scenes of one split of SBD or PascalVOC (a `SceneSource`), in list order; keys are image names.

    `split` is the name of a list, such as `train` or `val`; `dropped` counts its dropped lines.
    """

    def __init__(self, layout: MapLayout, folder: Path, split: str = "train") -> None:
        self.layout, self.folder, self.split, self.name = layout, folder, split, layout.name
        self.keys, self.dropped = layout.names(folder, split)

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the list, and a joint one over all files of each kind of map."""
        split_list = Path(self.layout.split_list.format(self.split))
        found = {f"{self.name}:{split_list.name}": joint_sha256([self.folder / split_list])}
        for path in self.layout.maps:
            files = (self.folder / path.format(name) for name in self.keys)
            found[f"{self.name}:{path.partition('/')[0]}"] = joint_sha256(files)
        return found

    def _scene(self, key: str) -> Scene:
        """One object per label of the map, in ascending order."""
        labels, categories = self.layout.read([self.folder / path.format(key) for path in self.layout.maps])
        found = masks.from_label_map(labels, self.layout.ignored)
        about = ((categories[number], None, number, self.name) for number in found)
        objects, (height, width) = scene_objects(list(found.values()), about), labels.shape
        return Scene(key, self.layout.image_of(self.folder, key), height, width, self.name, objects)


def _read_sbd(paths: Sequence[Path]) -> tuple[Labels, Mapping[int, str]]:
    labels, numbers = read_instances(paths[0])
    return labels, {instance: _category(number, first=1) for instance, number in enumerate(numbers, start=1)}


def _read_voc(paths: Sequence[Path]) -> tuple[Labels, Mapping[int, str]]:
    instances = read_label_png(paths[0])
    classes = read_label_png(paths[1], size=instances.shape)
    return instances, instance_categories(instances, classes)


SBD = MapLayout("sbd", "{}.txt", "img/{}.jpg", ("inst/{}.mat",), _read_sbd)
VOC = MapLayout(
    "voc",
    "ImageSets/Segmentation/{}.txt",
    "JPEGImages/{}.jpg",
    ("SegmentationObject/{}.png", "SegmentationClass/{}.png"),
    _read_voc,
    ignored=(0, VOID),
)


def instance_categories(instances: ByteArray, classes: ByteArray) -> dict[int, str]:
    """The category of each instance, by the most frequent class of its pixels (0 to 20, 255 void)."""
    return {
        number: _category(int(np.bincount(classes[instances == number]).argmax()))
        for number in np.unique(instances).tolist()
    }


def _category(number: int, first: int = 0) -> str:
    return VOC_CATEGORIES[number] if first <= number < len(VOC_CATEGORIES) else f"category {number}"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) for non-blank lines of a list in UTF-8, or UTF-16 with a BOM."""
    known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
    data = read_bounded(path, MAX_LIST_BYTES, "give a list of image names", f"no such list; splits here: {known}")
    try:
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    yield from ((number, line) for number, line in enumerate(_LINE_END.split(text), 1) if line.strip())


def joint_sha256(paths: Iterable[Path]) -> str:
    """One SHA-256 over existing files: of the lines `name sha256`, in the given order."""
    joint = hashlib.sha256()
    for path in paths:
        joint.update(f"{path.name} {file_sha256(path)}\n".encode())
    return joint.hexdigest()
