"""Label maps: PNGs whose pixels are numbers, and scenes whose objects are the numbers of one map."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from disbench.core import masks
from disbench.core.arrays import ByteArray, IntArray
from disbench.core.errors import InputError, shown
from disbench.core.limits import MAX_LIST_BYTES, MAX_PIXELS
from disbench.core.scenes import SceneObject
from disbench.datasets.images import opened_image, whole_image
from disbench.datasets.matlab import read_struct, whole_numbers
from disbench.io.files import MISSING, open_regular, stays_inside

if TYPE_CHECKING:
    from PIL.Image import Image

VOC_CATEGORIES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
"""Names of PascalVOC's and SBD's category numbers."""
_ONE_CHANNEL = ("P", "L", "1", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes with one whole number a pixel."""
_LONGEST_NAME = 200
"""Characters of a name in a list: with its ending it must be one that a file can have."""


def read_label_png(path: Path, channels: int = 1) -> ByteArray:
    """The numbers of a label PNG.

    Args:
        path: of the PNG.
        channels: 1 for palette numbers or grey values, 3 for colours.

    Returns:
        uint8 (height, width), or (height, width, 3).

    Raises:
        InputError: missing, damaged, not an image, or with other channels than asked for.
    """
    modes = ("P", "L", "1") if channels == 1 else ("RGB",)
    with _opened(path, modes) as image:
        return np.array(image, dtype=np.uint8)


def read_label_map(path: Path) -> npt.NDArray[np.integer]:
    """The numbers of a label image of any kind, up to 32 bits a pixel; transparency is dropped.

    Memory: 24 bytes a pixel, of `MAX_PIXELS` at most.

    Returns:
        (height, width) of palette numbers or grey values, or (height, width, 3) of colours, in the file's own
        kind of whole numbers.

    Raises:
        InputError: missing, damaged, not an image, or of a kind that holds no whole numbers.
    """
    with _opened(path, (*_ONE_CHANNEL, "LA", "PA", "RGB", "RGBA")) as image:
        values = np.array(image)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.ndim == 2:
        return values
    return values[..., 0] if values.shape[2] == 2 else values[..., :3]


def read_palette(path: Path) -> IntArray:
    """The colours of a palette PNG: int64 (256, 3) of red, green, blue; numbers beyond its palette are black.

    Raises:
        InputError: missing, damaged, or without a palette.
    """
    with _opened(path, ("P",)) as image:
        colours = image.getpalette("RGB") or []
    palette = np.zeros((256, 3), dtype=np.int64)
    palette[: len(colours) // 3] = np.reshape(colours, (-1, 3))
    return palette


@contextmanager
def _opened(path: Path, modes: Sequence[str]) -> Iterator[Image]:
    """An image file of one of Pillow's modes, its errors made sentences."""
    with opened_image(path, MISSING) as image, whole_image(path):
        if image.mode not in modes:
            raise InputError(f"{path}: pixels of mode {image.mode}, where {' or '.join(modes)} is expected")
        yield image


def read_split(path: Path) -> list[str]:
    """The image names of a split list, in order, blank lines left out.

    Memory: 64 bytes a byte of the list, of `MAX_LIST_BYTES` at most.

    Raises:
        InputError: missing, not text, too large, empty, or with a name that leads out of its folder.
    """
    known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
    with open_regular(path, f"there is no such list; splits here: {known}") as file:
        data = file.read(MAX_LIST_BYTES + 1)
    if len(data) > MAX_LIST_BYTES:
        raise InputError(f"{path}: more than {MAX_LIST_BYTES} bytes; is this a list of names?")
    try:
        names = [line.split()[0] for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; get it again") from None
    if not names:
        raise InputError(f"{path}: the list is empty; choose another split or get it again")
    for name in names:
        if not (stays_inside(name) and name.isprintable() and len(name) <= _LONGEST_NAME):
            raise InputError(f"{path}: {shown(name)} is not the name of an image; mend the list")
    return names


def objects_of_labels(
    labels: npt.NDArray[np.integer], categories: Mapping[int, str], source: str, ignored: Sequence[int] = (0,)
) -> tuple[SceneObject, ...]:
    """One object for each number of a map, in ascending order.

    Args:
        labels: integer (height, width).
        categories: number -> category name.
        source: of the objects.
        ignored: numbers that are no objects (background, void).
    """
    objects = []
    found = masks.from_label_map(labels, ignored)
    for value, rle in found.items():
        x, y, width, height = masks.boxes([rle])[0].tolist()
        objects.append(
            SceneObject(
                rle=rle,
                area=int(masks.areas([rle])[0]),
                box=(x, y, width, height),
                category=categories[value],
                annotation_id=value,
                source=source,
            )
        )
    return tuple(objects)


def joint_sha256(paths: Iterable[Path]) -> str:
    """One SHA-256 of several files: of the lines `name sha256`, in the order given.

    Raises:
        InputError: a file is missing.
    """
    joint = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            joint.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return joint.hexdigest()


def read_instances(path: Path) -> tuple[IntArray, list[int]]:
    """The instance map of an SBD file and the category number of each instance.

    Memory: twice the decompressed variable, and 24 bytes a pixel.

    Returns:
        int64 (height, width), 0 for background, k for the k-th instance; category numbers 1..20.

    Raises:
        InputError: missing, damaged, without `GTinst`, or with instances that have no category.
    """
    try:
        found = read_struct(path, "GTinst", ("Segmentation", "Categories"))
        if found is None:
            raise InputError(f"{path}: there is no 'GTinst' in it; is this a file of SBD's folder inst/?")
        if found["Segmentation"].size > MAX_PIXELS:
            raise ValueError(f"its map has more than {MAX_PIXELS} pixels")
        labels = whole_numbers(found["Segmentation"])
        numbers = whole_numbers(found["Categories"]).ravel(order="F").tolist()
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: its 'GTinst' is not as in SBD ({error}); get it again") from None
    if labels.ndim != 2 or labels.size == 0 or labels.min() < 0 or labels.max() > len(numbers):
        raise InputError(f"{path}: an instance of its map has no category; get the file again")
    return labels, numbers
