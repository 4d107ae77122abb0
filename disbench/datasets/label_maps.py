"""Label maps: PNGs whose pixels are numbers, and scenes whose objects are the numbers of one map."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from disbench import masks
from disbench.errors import InputError
from disbench.scenes import SceneObject

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


def read_label_png(path: Path, channels: int = 1) -> npt.NDArray[np.uint8]:
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


def read_label_map(path: Path) -> npt.NDArray[np.int64]:
    """The numbers of a label image of any kind, up to 32 bits a pixel; transparency is dropped.

    Returns:
        int64 (height, width) of palette numbers or grey values, or (height, width, 3) of colours.

    Raises:
        InputError: missing, damaged, not an image, or of a kind that holds no whole numbers.
    """
    with _opened(path, (*_ONE_CHANNEL, "LA", "PA", "RGB", "RGBA")) as image:
        values = np.array(image).astype(np.int64)
    if values.ndim == 2:
        return values
    return values[..., 0] if values.shape[2] == 2 else values[..., :3]


def read_palette(path: Path) -> npt.NDArray[np.int64]:
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
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  (not needed to say --help)

    try:
        with Image.open(path) as image:
            if image.mode not in modes:
                raise InputError(
                    f"{path}: pixels of mode {image.mode}, where {' or '.join(modes)} is expected"
                )
            yield image
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; the dataset is incomplete, get it again") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a whole image ({error}); get it again") from None


def read_split(path: Path) -> list[str]:
    """The image names of a split list, in order, blank lines left out.

    Raises:
        InputError: missing, not text, or empty.
    """
    try:
        names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise InputError(f"{path}: there is no such list; splits here: {known}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; get it again") from None
    if not names:
        raise InputError(f"{path}: the list is empty; choose another split or get it again")
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
    for value, rle in masks.from_label_map(labels, ignored).items():
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
        try:
            with path.open("rb") as file:
                joint.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except FileNotFoundError:
            raise InputError(
                f"{path}: there is no such file; the dataset is incomplete, get it again"
            ) from None
    return joint.hexdigest()
