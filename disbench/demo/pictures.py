"""The demo's photos: from the command line, and uploaded in the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.choices import Exif
from disbench.core.errors import InputError, shown
from disbench.core.limits import MAX_SHOWN_PIXELS, MAX_UPLOAD_BYTES
from disbench.core.painting import png
from disbench.core.prediction import RgbImage
from disbench.datasets.images import SWAPPED, checked_image, opened_image, orientation, rgb_pixels
from disbench.datasets.photos import open_photos, photo_path

_MISSING = "there is no such image; check its path"
_MOST_UPLOADS = 8
_DECODED = 2
"""Photos whose pixels stay in memory."""
_THUMBNAIL = 160
"""Long side, pixels."""
_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Picture:
    """A photo that can be chosen.

    Attributes:
        number: its id in the page; `name` is shown, `stem` begins the names of saved files.
        path: of the file; None if it was uploaded, as `content`.
        samples: (id, category) of the embedded photos' objects on it.
    """

    number: int
    name: str
    stem: str
    height: int
    width: int
    path: Path | None = None
    content: bytes = b""
    samples: tuple[tuple[str, str], ...] = ()


class Pictures:
    """All photos of a demo (default: the embedded ones), turned by their EXIF orientation or not; thread-safe."""

    def __init__(self, paths: Sequence[Path] = (), exif: Exif = "ignore") -> None:
        self._exif = exif
        self._all: dict[int, Picture] = {}
        self._pixels = lru_cache(_DECODED)(_pixels)
        self._lock = Lock()
        self._next = 0
        for path, samples in [(path, ()) for path in paths] or _embedded():
            height, width = _size(path, exif)
            self._add(path.name, path.stem, height, width, path=path, samples=samples)

    def all(self) -> list[Picture]:
        """The photos in the order in which they were added."""
        with self._lock:
            return list(self._all.values())

    def find(self, number: int) -> Picture:
        """The photo of a number; `InputError` if it does not exist or was dropped for later uploads."""
        with self._lock:
            found = self._all.get(number)
        if found is None:
            raise InputError("this photo is no longer available; open it again")
        return found

    def add_upload(self, name: str, content: bytes) -> Picture:
        """Add an uploaded photo, in memory only; the oldest of too many uploads is dropped."""
        if not name or len(name) > 255 or re.search(r"[/\\\0-\x1f]", name) or name in (".", ".."):
            raise InputError(f"{shown(name)} is not the name of a file; open the photo itself in the page")
        if len(content) > MAX_UPLOAD_BYTES:
            raise InputError(too_many_bytes(name))
        pixels = _decoded(content, name, self._exif)
        with self._lock:
            uploads = [picture.number for picture in self._all.values() if picture.path is None]
            for number in uploads[: max(0, len(uploads) + 1 - _MOST_UPLOADS)]:
                del self._all[number]
        height, width = pixels.shape[:2]
        return self._add(name, f"upload-{self._next}", height, width, content=content)

    def pixels(self, number: int) -> RgbImage:
        """The pixels that are shown and segmented; `InputError` as `find`, or if the file has changed."""
        return self._pixels(self.find(number), self._exif)

    def _add(self, name: str, stem: str, height: int, width: int, **more: object) -> Picture:
        with self._lock:
            plain = _PLAIN.sub("_", stem)[:60] or "photo"
            picture = Picture(self._next, name, plain, height, width, **more)  # type: ignore[arg-type]
            self._all[picture.number] = picture
            self._next += 1
            return picture


def too_many_bytes(name: str) -> str:
    """The message for a file that is too large."""
    return f"{shown(name)}: more than {MAX_UPLOAD_BYTES // 2**20} MiB; make the photo smaller"


def thumbnail_png(pixels: RgbImage) -> bytes:
    """A small copy of a photo."""
    from PIL import Image  # noqa: PLC0415

    small = Image.fromarray(pixels)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), reducing_gap=2.0)
    return png(np.asarray(small))


def mask_png(mask: BoolArray) -> bytes:
    """A mask as a PNG of 0 and 255, as `disbench predict` writes it."""
    return png(mask.astype(np.uint8) * np.uint8(255))


def _embedded() -> Iterator[tuple[Path, tuple[tuple[str, str], ...]]]:
    """The embedded photos, each with the ids and categories of its objects."""
    file = open_photos()
    for image_id, image in file.images.items():
        path = photo_path(image.file_name)
        named = [(one["id"], file.categories[one["category_id"]].name) for one in file.annotations(image_id)]
        yield path, tuple((f"{path.stem}/{number}", name) for number, name in named)


def _size(path: Path, exif: Exif) -> tuple[int, int]:
    with opened_image(path, _MISSING, MAX_SHOWN_PIXELS) as image:
        swapped = exif == "apply" and orientation(image) >= SWAPPED
        return (image.width, image.height) if swapped else (image.height, image.width)


def _pixels(picture: Picture, exif: Exif) -> RgbImage:
    if picture.path is None:
        return _decoded(picture.content, picture.name, exif)
    with opened_image(picture.path, _MISSING, MAX_SHOWN_PIXELS) as image:
        found = rgb_pixels(image, picture.path, exif)
    if found.shape[:2] != (picture.height, picture.width):
        raise InputError(f"{picture.name}: the file has changed; start the demo again")
    return found


def _decoded(content: bytes, name: str, exif: Exif) -> RgbImage:
    with checked_image(io.BytesIO(content), name, MAX_SHOWN_PIXELS) as image:
        return rgb_pixels(image, name, exif)
