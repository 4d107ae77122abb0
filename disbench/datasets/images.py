"""Finding and reading the photographs that annotations belong to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from disbench.errors import InputError

RgbImage = npt.NDArray[np.uint8]

SUBFOLDERS = ("images", "train2017", "val2017", "train2014", "val2014", "img", "JPEGImages")
"""Where datasets keep their images below the folder that people name."""
_NEW_COCO_NAME = 16
"""Characters of a name of COCO 2017: twelve digits and ".jpg"."""


def find_image(root: Path, file_name: str) -> Path | None:
    """The file of an image below a folder, whatever the dataset's habit of laying it out.

    Tried in this order, first in the folder itself, then in each of its `SUBFOLDERS`: the name as given,
    its last part, and for a name of COCO 2014 ("COCO_val2014_000000266409.jpg") the name that the same image
    has in COCO 2017 ("000000266409.jpg").

    Args:
        root: the folder of images, or the dataset's folder.
        file_name: as the annotations tell it, with forward slashes, relative.

    Returns:
        The path, or None if there is no such file.
    """
    names = list(_names(file_name))
    for folder in (root, *(root / name for name in SUBFOLDERS)):
        for name in names:
            path = folder / name
            if path.is_file():
                return path
    return None


def read_rgb(path: Path) -> RgbImage:
    """The pixels of an image file.

    The EXIF orientation is left alone, as COCO's annotators did: masks are in the coordinates of the stored
    pixels. Grey, palette and CMYK images are converted; transparency is dropped.

    Returns:
        uint8 (height, width, 3), RGB, row-major, y down.

    Raises:
        InputError: the file is missing, truncated or not an image.
    """
    from PIL import Image  # noqa: PLC0415  (only what draws or trains needs it)

    try:
        with Image.open(path) as image:
            # Converting would copy what is RGB already.
            return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such image; check the folder of images") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        # PIL tells a damaged file by any of these; only an error of the system has words worth repeating.
        reason = getattr(error, "strerror", None) or "truncated, or of another kind"
        raise InputError(f"{path}: not a whole image ({reason}); get the file again") from error


def _names(file_name: str) -> Iterator[str]:
    base = PurePosixPath(file_name).name
    yield file_name
    if base != file_name:
        yield base
    short = base[-_NEW_COCO_NAME:]
    if base.startswith("COCO_") and short.partition(".")[0].isdigit():
        yield short
