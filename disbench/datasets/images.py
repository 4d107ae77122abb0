"""Finding and reading image files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np

from disbench.core.arrays import ByteArray
from disbench.core.errors import InputError, shown
from disbench.core.limits import MAX_PIXELS
from disbench.io import addresses
from disbench.io.files import open_regular, stays_inside

if TYPE_CHECKING:
    from PIL.Image import Image

RgbImage = ByteArray

SUBFOLDERS = ("images", "train2017", "val2017", "train2014", "val2014", "img", "JPEGImages")
"""Usual subfolders of images."""
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
"""Pillow's names of the formats that are read, with any file ending; some others start programs (EPS)."""
_REASONS = {
    "UnidentifiedImageError": "cut off, or of an unknown format",
    "DecompressionBombError": f"more than {MAX_PIXELS} pixels",
}
"""The meaning of two of Pillow's errors."""
_NEW_COCO_NAME = 16
"""Characters of a name of COCO 2017: twelve digits and ".jpg"."""


def find_image(root: Path, file_name: str) -> Path | None:
    """The file of an image below a folder, or None.

    Looked for in the folder itself, then in each of its `SUBFOLDERS`: the name as given, its last part, and for a name
    of COCO 2014 ("COCO_val2014_000000266409.jpg") the name of the same image in COCO 2017 ("000000266409.jpg").

    Args:
        root: the folder of images, or the dataset's folder.
        file_name: relative path from the annotations, with forward slashes.

    Raises:
        InputError: a name that leads out of the folder.
    """
    if not stays_inside(file_name):
        raise InputError(
            f"{root}: the annotations name an image {shown(file_name)} outside of the folder; fix its file_name"
        )
    names = list(_names(file_name))
    for folder in (root, *(root / name for name in SUBFOLDERS)):
        for name in names:
            path = addresses.here(folder / name, optional=True)  # from a remote folder only this file is copied
            if os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises where a name is too long)
                return path
    return None


def read_rgb(path: Path) -> RgbImage:
    """The pixels of an image file.

    The EXIF orientation is ignored, as in COCO: masks are in the coordinates of the stored pixels. Grey, palette and
    CMYK images are converted; transparency is dropped. Memory: 24 bytes per pixel, of `MAX_PIXELS` at most.

    Returns:
        uint8 (height, width, 3), RGB, row-major, y down.

    Raises:
        InputError: the file is missing, truncated, too large or not an image.
    """
    with opened_image(path, "no such image; check the folder of images") as image:
        return rgb_pixels(image, path)


def rgb_pixels(image: Image, place: object) -> RgbImage:
    """The pixels of an image from `opened_image` or `checked_image`, as `read_rgb` returns them."""
    with whole_image(place):
        # Converting would copy an image that is already RGB.
        return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


@contextmanager
def opened_image(path: Path, missing: str, most: int = MAX_PIXELS) -> Iterator[Image]:
    """An image file with its head read and its size checked; the first picture of an animation.

    Args:
        path: the image file.
        missing: the end of the message if there is no such file.
        most: maximum number of pixels.

    Raises:
        InputError: missing, not an image of one of the `FORMATS`, empty, or with too many pixels.
    """
    with open_regular(path, missing) as file, checked_image(file, path, most) as image:
        yield image


@contextmanager
def checked_image(file: IO[bytes], place: object, most: int = MAX_PIXELS) -> Iterator[Image]:
    """`opened_image` for an open file or bytes in memory; errors name `place`."""
    from PIL import Image  # noqa: PLC0415  (only what draws or trains needs it)

    with whole_image(place):
        image = Image.open(file, formats=FORMATS)
    with image:
        width, height = image.size
        if not 0 < width * height <= most:
            raise InputError(f"{place}: {width} x {height} pixels; images of 1 to {most} pixels are read")
        yield image


@contextmanager
def whole_image(path: object) -> Iterator[None]:
    """Turn any error that Pillow raises on a damaged file into an `InputError` that names the path."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # nearly anything: struct.error, KeyError, DecompressionBombError ...
        # Only errors of the operating system have a useful text.
        reason = getattr(error, "strerror", None) or _REASONS.get(type(error).__name__, "damaged or cut off")
        raise InputError(f"{path}: not a whole image ({reason}); get it again") from error


def _names(file_name: str) -> Iterator[str]:
    base = PurePosixPath(file_name).name
    yield file_name
    if base != file_name:
        yield base
    short = base[-_NEW_COCO_NAME:]
    if base.startswith("COCO_") and short.partition(".")[0].isdigit():
        yield short
