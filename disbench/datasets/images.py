"""Find and read image files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING
from unicodedata import normalize
from urllib.parse import unquote

import numpy as np

from disbench.core.arrays import ByteArray
from disbench.core.choices import Exif
from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_PIXELS
from disbench.io import addresses
from disbench.io.files import open_regular, unicode_forms

if TYPE_CHECKING:
    from PIL.Image import Image

RgbImage = ByteArray
SUBFOLDERS = ("images", "train2017", "val2017", "train2014", "val2014", "img", "JPEGImages", "data")
# Accepted formats, by Pillow's names, with any file suffix; some others start programs (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
_REASONS = {  # messages for two of Pillow's errors
    "UnidentifiedImageError": "cut off, or not a JPEG, PNG, BMP, WebP, PPM, GIF, or TIFF of up to 32 bits",
    "DecompressionBombError": f"more than {MAX_PIXELS} pixels",
}
_FILE_ENDING = re.compile(r"\.[^./]+$")
_NAME_OF_2014 = re.compile(r"(?<![^/])COCO_[^/]*(?=\d{12}(\.|$))")  # COCO 2014's prefix of a COCO 2017 name
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow's grey modes of more than 8 bits
_ORIENTATION = 0x0112  # EXIF tag
SWAPPED = 5  # EXIF orientations >= 5 swap height and width
# TIFF tags BitsPerSample, PhotometricInterpretation, PlanarConfiguration; Pillow misreads some of their values.
_BITS, PHOTOMETRIC, _PLANES = 258, 262, 284


class ImageFinder:
    """Finds a dataset's image files by their names in annotations or shards.

    A name is a path relative to one of the folders or to a usual subfolder (`SUBFOLDERS`). If no such file exists, the
    path is shortened from the left down to the file name ("train/a/1.jpg", "a/1.jpg", "1.jpg"), and COCO 2014 names to
    those of COCO 2017. For each path, the exact spelling is tried first, then the other Unicode normal form, a suffix
    in lower or upper case, and the URL-unquoted name. Picklable.

    Args:
        folders: searched in order; remote files are fetched one at a time.
        names: returns (image id, file name) of all images; called if a name was not found as written, to check that
            the file does not belong to another image.
        source: the file or folder with the names, for error messages.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        names: Callable[[], Iterable[tuple[object, str]]] | None = None,
        source: object = "",
    ) -> None:
        self._roots, self._names, self._source = tuple(folders), names, source
        # (folder to search, prefix that the path must have there, whether the folder is one of SUBFOLDERS)
        self._places: list[tuple[str, str, bool]] = []
        for root in folders:
            self._places += [(str(root), "", False), (str(root.parent), f"{root.name}/", False)]
            self._places += [(str(root / part), "", True) for part in SUBFOLDERS]
        self._folders: dict[str, tuple[bool, bool]] = {}
        self._ambiguous: dict[int, dict[str, dict[str, object]]] = {}

    def __str__(self) -> str:
        return " or ".join(map(str, self._roots))

    def __call__(self, file_name: str) -> Path | None:
        """The file for a name returned by `relative_path`, or None; `InputError` if it could be another image's."""
        name = "/".join(_parts(file_name))
        path, spelling, is_usual = self._find(name)
        if path is not None and (spelling != name or is_usual):
            self._check_unambiguous(name, path, spelling)
        return path

    def _find(self, name: str) -> tuple[Path | None, str, bool]:
        """The file for a name, the spelling found, and whether it is in one of `SUBFOLDERS`."""
        parts = _parts(name)
        for first in range(len(parts)):
            for spelling in _spellings(parts[first:]):
                for place, begin, is_usual in self._places:
                    if spelling.startswith(begin) and self._is_file(f"{place}/{spelling}"):
                        return Path(place, spelling), spelling, is_usual
        return None, "", False

    def _check_unambiguous(self, name: str, path: Path, spelling: str) -> None:
        """Raise `InputError` if another image's path has the same ending or resolves to the same file."""
        ambiguous = self._same_ending(spelling)
        for other, image_id in ambiguous.items():
            if other != name and (spelling != name or self._find(other)[0] == path):
                both = f"image {ambiguous.get(name)} ({quote(name)}) and image {image_id} ({quote(other)})"
                fix = "put each into the subfolder given by its file_name"
                raise InputError(f"{self._source}: {both} would both be read from {path}; {fix}")

    def _is_file(self, path: str) -> bool:
        """True if a file exists locally; copies it first if its folder is remote."""
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            is_root = Path(folder) in self._roots
            is_remote = addresses.address_of(Path(folder)) is not None
            self._folders[folder] = is_root or addresses.folder_exists(Path(folder)), is_remote
        is_there, is_remote = self._folders[folder]
        if is_there and is_remote:
            addresses.local_copy(Path(path), optional=True)
        return is_there and os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises if a name is too long)

    def _same_ending(self, spelling: str) -> dict[str, object]:
        """Paths with this ending and the first image id of each; empty if there is only one."""
        length = len(_parts(spelling))
        if length not in self._ambiguous:
            paths = [("/".join(_parts(path)), image_id) for image_id, path in (self._names() if self._names else ())]
            ends = [_key("/".join(path.split("/")[-length:])) for path, _ in paths]
            counts = Counter(ends)
            self._ambiguous[length] = {}
            for end, (path, image_id) in zip(ends, paths, strict=True):
                if counts[end] > 1:
                    self._ambiguous[length].setdefault(end, {}).setdefault(path, image_id)
        return self._ambiguous[length].get(_key(spelling), {})


def read_rgb(path: Path, exif: Exif = "ignore") -> RgbImage:
    """Read an image as uint8 RGB (height, width, 3).

    Grey, palette and CMYK images are converted, transparency is dropped, and only the first page or frame is read.
    16-bit values lose their lower byte, as in OpenCV; floats from 0 to 1 are multiplied by 255. The EXIF orientation is
    ignored, as COCO's annotations require, or applied; TIFF's is always applied, as in Pillow and OpenCV. Memory: 24
    bytes per pixel, at most `MAX_PIXELS`. `InputError` for a missing or damaged file, or values out of range.
    """
    with open_image(path, "no such image; check the folder of images") as image:
        return rgb_pixels(image, path, exif)


def rgb_pixels(image: Image, place: object, exif: Exif = "ignore") -> RgbImage:
    """The pixels of an image from `open_image` or `open_image_bytes`, as `read_rgb` returns them."""
    from PIL import ImageOps  # noqa: PLC0415

    with image_errors(place):
        if exif == "apply" and orientation(image) > 1:
            image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP:
            return np.repeat(eight_bits(image, place)[..., np.newaxis], 3, axis=2)
        if image.mode == "LAB":
            raise InputError(f"{place}: colours in CIE Lab; save it in RGB")
        return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)  # avoids a copy


def eight_bits(image: Image, place: object) -> ByteArray:
    """Convert grey values of more than 8 bits like `read_rgb`, uint8 (height, width)."""
    values = np.array(image)
    low, high = values.min(), values.max()
    if image.mode == "F" and low >= 0 and high <= 1:
        return np.asarray(np.rint(values * 255), dtype=np.uint8)
    # PNG and PGM have 16 bits, though some versions of Pillow decode them to 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF"):
        return np.asarray(values >> 8, dtype=np.uint8)
    if image.mode == "I" and low >= 0 and high <= 255:
        return np.asarray(values, dtype=np.uint8)
    raise InputError(f"{place}: grey values from {low:g} to {high:g}; save it with 8 bits, 16 bits, or from 0.0 to 1.0")


def orientation(image: Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 for TIFF, which Pillow rotates itself, or if no tag can be read."""
    from PIL.Image import Image as AnyImage  # noqa: PLC0415

    try:  # PngImageFile.getexif would decode all pixels to look for a tag after them
        number = 1 if image.format == "TIFF" else AnyImage.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # damaged metadata can raise anything
        return 1
    return number if number in range(1, 9) else 1


def exif_note(paths: Iterable[Path], fix: str = "set exif=apply to turn them") -> str:
    """A note on readable images with an EXIF orientation, naming the first and the fix; "" if there are none."""
    found = [(path.name, number) for path in paths if (number := _read_orientation(path)) > 1]
    if not found:
        return ""
    count, which = f"{len(found)} photo{'s'[: len(found) > 1]}", f"{found[0][0]}: {found[0][1]}"
    return f"{count} with an EXIF orientation ({which}): viewers turn them, here the pixels are as stored; {fix}"


def size_hint(path: Path) -> str:
    """Suffix for a size mismatch message if EXIF swaps the image's height and width, else ""."""
    if (number := _read_orientation(path)) < SWAPPED:
        return ""
    with open_image(path, "") as image:
        return (
            f" (the photo has EXIF orientation {number}: stored {image.width} x {image.height}, in viewers "
            f"{image.height} x {image.width}; exif=ignore or exif=apply decides, where it is an option)"
        )


def _read_orientation(path: Path) -> int:
    try:
        with open_image(path, "") as image:
            return orientation(image)
    except (InputError, OSError):
        return 1


@contextmanager
def open_image(path: Path, missing: str, most: int = MAX_PIXELS) -> Iterator[Image]:
    """Open an image file, reading only its header, and check its size (at most `most` pixels).

    `InputError` if the file is missing (the message ends with `missing`), not one of `FORMATS`, empty or too large.
    """
    with open_regular(path, missing) as file, open_image_bytes(file, path, most) as image:
        yield image


@contextmanager
def open_image_bytes(file: IO[bytes], place: object, most: int = MAX_PIXELS) -> Iterator[Image]:
    """`open_image` for an open file or bytes in memory; errors name `place`."""
    from PIL import Image  # noqa: PLC0415  (only drawing and training need it)

    with image_errors(place):
        image = Image.open(file, formats=FORMATS)
    with image:
        width, height = image.size
        if not 0 < width * height <= most:
            raise InputError(f"{place}: {width} x {height} pixels, but images must have 1 to {most} pixels")
        tags = getattr(image, "tag_v2", {})
        if max(tags.get(_BITS, (8,))) > 8 and (tags.get(_PLANES, 1) > 1 or tags.get(PHOTOMETRIC) == 0):
            raise InputError(f"{place}: a 16-bit TIFF with separate planes or with 0 as white; save it as PNG")
        yield image


@contextmanager
def image_errors(path: object) -> Iterator[None]:
    """Turn any Pillow error on a damaged file into an `InputError` that names the path."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # can be anything: struct.error, KeyError, DecompressionBombError ...
        # Only operating system errors have a useful message.
        reason = getattr(error, "strerror", None) or _REASONS.get(type(error).__name__, "damaged or cut off")
        raise InputError(f"{path}: not a whole image ({reason}); get it again") from error


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".", "..")]


def _spellings(parts: Sequence[str]) -> Iterator[str]:
    """Distinct spellings of a path to try on disk, the exact one first."""
    name = "/".join(parts)
    yield name
    readings = (name, _short(name) if len(parts) == 1 else name, "/".join(_parts(unquote(name))))
    forms = [form for reading in readings for form in unicode_forms(reading)]
    forms += [_ending(form, change) for form in forms for change in (str.lower, str.upper)]
    yield from list(dict.fromkeys(forms))[1:]


def _key(path: str) -> str:
    """A key shared by all spellings of a path."""
    return _short(_ending(normalize("NFC", unquote(path)), str.lower))


def _ending(path: str, change: Callable[[str], str]) -> str:
    return _FILE_ENDING.sub(lambda found: change(found[0]), path)


def _short(name: str) -> str:
    """The COCO 2017 name of a COCO 2014 image ("COCO_val2014_000000266409.jpg"); other names unchanged."""
    return _NAME_OF_2014.sub("", name)
