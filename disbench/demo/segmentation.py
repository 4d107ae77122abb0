"""The demo's photos, and segmenting one by clicks: candidates, choice, refinement, undo and saving."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np

from disbench.core import masks
from disbench.core.arrays import BoolArray
from disbench.core.choices import Exif
from disbench.core.clicks import Click
from disbench.core.errors import InputError, quote, unknown_name
from disbench.core.limits import MAX_SHOWN_PIXELS, MAX_UPLOAD_BYTES
from disbench.core.painting import encode_png
from disbench.core.prediction import Method, MethodError, RgbImage, call_method
from disbench.datasets.images import SWAPPED, open_image, open_image_bytes, orientation, rgb_pixels
from disbench.datasets.photos import open_photos, photo_path
from disbench.harness.tasks import Candidates, checked_candidates, choose, notify_kept, predicted
from disbench.io.files import atomic_write
from disbench.io.recorded_clicks import ClickSequence, add_sequence, check_name, to_parquet

FileKind = Literal["mask.png", "mask.json", "clicks.parquet"]
FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)
RECORDED_CLICKS = "recorded-clicks.parquet"  # the clicks of all photos and users, in the format of the policy `replay`
MAX_CLICKS = 200  # per photo


class MethodFailedError(Exception):
    """The method failed on a click; the message is shown in the page."""


class Segmentation:
    """One photo, the clicks so far, and the method's prediction for the last click.

    The method is called as in `disbench predict`: once per click, then `keep` with the kept candidate. Sessions cannot
    undo a click, so undo opens a new session and replays the remaining clicks.

    Attributes:
        candidates: candidates for the last click; None before the first.
        kept: index of the current mask among the candidates.
        chosen: index the user chose at the first click; None: use the highest score.
        first_kept: index kept at the first click.
    """

    def __init__(self, method: Method, image: RgbImage, threshold: float) -> None:
        self._method, self._image, self._threshold = method, image, threshold
        self._session: Any = None
        self.reset()

    def reset(self) -> None:
        """Discard all clicks and the choice."""
        self.clicks: list[Click] = []
        self.candidates: Candidates | None = None
        self.kept = 0
        self.chosen: int | None = None
        self.first_kept = 0
        self._session = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photo."""
        return self._image.shape[0], self._image.shape[1]

    @property
    def mask(self) -> BoolArray:
        """The kept mask, bool (height, width); all False before the first click."""
        if self.candidates is None:
            return np.zeros(self.size, dtype=bool)
        return np.asarray(self.candidates.masks[self.kept], dtype=bool)

    @property
    def can_choose(self) -> bool:
        """True if a candidate can be chosen: after the first click, before the second."""
        return len(self.clicks) == 1

    def click(self, click: Click) -> None:
        """Add a click."""
        height, width = self.size
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise InputError(f"the click at {click.x}, {click.y} is outside the photo of {width} x {height} pixels")
        if not self.clicks and not click.positive:
            raise InputError("the first click must be on the object")
        if len(self.clicks) == MAX_CLICKS:
            raise InputError(f"there are {MAX_CLICKS} clicks already; undo some or reset")
        if self._session is None:
            self._replay(self.clicks)
        self._advance(click)

    def choose(self, candidate: int) -> None:
        """Choose a candidate of the first click; `InputError` for an unknown index or after the second click."""
        if self.candidates is None or not self.can_choose:
            raise InputError(
                "candidates can be chosen only after the first click and before the second; undo later clicks first"
            )
        if not 0 <= candidate < len(self.candidates.masks):
            raise InputError(f"there is no candidate {candidate + 1}; the method offers {len(self.candidates.masks)}")
        self.chosen = self.kept = self.first_kept = candidate

    def undo(self) -> None:
        """Undo the last click; undoing the first also discards the choice. May raise `MethodFailedError`."""
        if len(self.clicks) > 1:
            self._replay(self.clicks[:-1])
        else:
            self.reset()

    def _replay(self, clicks: list[Click]) -> None:
        """Open a new session and repeat these clicks."""
        previous = self.clicks, self.candidates, self.kept
        try:
            with self._method_errors():
                if make_ready := getattr(self._method, "make_ready", None):
                    call_method("make_ready", make_ready)
                self._session = call_method("open", lambda: self._method.open(self._image.copy()))
            self.clicks, self.candidates = [], None
            for click in clicks:
                self._advance(click)
        except MethodFailedError:
            self.clicks, self.candidates, self.kept = previous
            raise

    def _advance(self, click: Click) -> None:
        with self._method_errors():
            if self.clicks:
                notify_kept(self._session, self.kept)
            candidates = checked_candidates(
                predicted(self._session, [*self.clicks, click]), *self.size, self._threshold
            )
            kept = self._select(candidates)
        self.clicks, self.candidates, self.kept = [*self.clicks, click], candidates, kept
        if self.can_choose:
            self.first_kept = kept

    def _select(self, candidates: Candidates) -> int:
        if self.clicks:
            return choose("oracle-first", len(self.clicks) + 1, candidates, (), self.mask)
        if self.chosen is not None and self.chosen < len(candidates.masks):
            return self.chosen
        return 0 if candidates.scores is None else int(np.argmax(np.asarray(candidates.scores)))

    @contextmanager
    def _method_errors(self) -> Iterator[None]:
        """Turn a method's error into a message and drop its session."""
        try:
            yield
        except MethodError as error:
            self._session = None
            name = type(self._method).__name__
            raise MethodFailedError(f"{name} failed: {error}; earlier clicks are kept") from error


def encode_file(kind: str, segmentation: Segmentation, sample: str, user: str) -> bytes:
    """The bytes of a file to save; `InputError` before the first click.

    `kind` is the mask as a PNG of 0 and 255 or as COCO compressed RLE in JSON (`size`, `counts`), or the clicks, with
    sample id and user name, as Parquet (`disbench.io.recorded_clicks.SCHEMA`).
    """
    if kind not in FILE_KINDS:
        raise unknown_name("kind of file", kind, FILE_KINDS)
    if kind == "clicks.parquet":
        return to_parquet([_sequence(segmentation, sample, user)])
    _check_has_clicks(segmentation)
    if kind == "mask.png":
        return encode_png(segmentation.mask.astype(np.uint8) * np.uint8(255))  # as `disbench predict` writes it
    rle = masks.encode(segmentation.mask)
    return (json.dumps({"size": rle["size"], "counts": rle["counts"].decode("ascii")}) + "\n").encode()


def save_files(folder: Path, photo: Photo, segmentation: Segmentation, sample: str, user: str) -> list[str]:
    """Save the mask in both formats under new names, append the clicks to the recording, and return the file names."""
    sequence = _sequence(segmentation, sample, user)
    folder.mkdir(parents=True, exist_ok=True)
    stems = (f"{photo.stem}-{number}" for number in count(1))
    stem = next(name for name in stems if not any((folder / f"{name}{end}").exists() for end in (".png", ".json")))
    for kind in ("mask.png", "mask.json"):
        with atomic_write(folder / f"{stem}{Path(kind).suffix}") as file:
            file.write(encode_file(kind, segmentation, sample, user))
    add_sequence(folder / RECORDED_CLICKS, sequence)
    return [f"{stem}.png", f"{stem}.json", RECORDED_CLICKS]


def predict_command(photo: Photo, segmentation: Segmentation, method_argument: str, overrides: Sequence[str]) -> str:
    """The `disbench predict` command for the same mask; an uploaded photo is given by name only."""
    clicks = [f"{click.x},{click.y},{'+' if click.positive else '-'}" for click in segmentation.clicks]
    keep = [] if segmentation.chosen is None else ["--keep", str(segmentation.chosen)]
    arguments = ["disbench", "predict", str(photo.path or photo.name), "--method", method_argument]
    for option, values in (("--set", overrides), ("--click", clicks)):
        arguments += [argument for value in values for argument in (option, value)]
    return shlex.join([*arguments, *keep, "--out", f"{photo.stem}-mask.png"])


def _sequence(segmentation: Segmentation, sample: str, user: str) -> ClickSequence:
    _check_has_clicks(segmentation)
    return ClickSequence(check_name(sample, "sample"), check_name(user, "user"), tuple(segmentation.clicks))


def _check_has_clicks(segmentation: Segmentation) -> None:
    if not segmentation.clicks:
        raise InputError("nothing to save yet; click on the photo first")


_MISSING = "image not found; check its path"
_MAX_UPLOADS = 8
_CACHED_PHOTOS = 2  # whose decoded pixels are kept
_THUMBNAIL_SIDE = 160  # long side in pixels
_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Photo:
    """A photo offered by the demo.

    Attributes:
        number: id in the page; `name` is displayed, `stem` is the prefix of saved files.
        path: path of the file; None for an upload, which is in `content`.
        samples: (id, category) of each annotated object, for embedded photos.
    """

    number: int
    name: str
    stem: str
    height: int
    width: int
    path: Path | None = None
    content: bytes = b""
    samples: tuple[tuple[str, str], ...] = ()


class Photos:
    """All photos of a demo (the embedded ones by default), optionally rotated by EXIF orientation; thread-safe."""

    def __init__(self, paths: Sequence[Path] = (), exif: Exif = "ignore") -> None:
        self._exif = exif
        self._all: dict[int, Photo] = {}
        self._pixels = lru_cache(_CACHED_PHOTOS)(_pixels)
        self._lock = Lock()
        self._next = 0
        for path, samples in [(path, ()) for path in paths] or _embedded_photos():
            height, width = _size(path, exif)
            self._add(path.name, path.stem, height, width, path=path, samples=samples)

    def all(self) -> list[Photo]:
        """The photos in the order they were added."""
        with self._lock:
            return list(self._all.values())

    def find(self, number: int) -> Photo:
        """The photo with this number; `InputError` if it does not exist or was dropped for later uploads."""
        with self._lock:
            photo = self._all.get(number)
        if photo is None:
            raise InputError("this photo is no longer available; open it again")
        return photo

    def add_upload(self, name: str, content: bytes) -> Photo:
        """Add an uploaded photo, in memory only; drops the oldest upload if there are too many."""
        if not name or len(name) > 255 or re.search(r"[/\\\0-\x1f]", name) or name in (".", ".."):
            raise InputError(f"{quote(name)} is not a file name; open the photo in the page")
        if len(content) > MAX_UPLOAD_BYTES:
            raise InputError(too_many_bytes(name))
        pixels = _decode(content, name, self._exif)
        with self._lock:
            uploads = [photo.number for photo in self._all.values() if photo.path is None]
            for number in uploads[: max(0, len(uploads) + 1 - _MAX_UPLOADS)]:
                del self._all[number]
        height, width = pixels.shape[:2]
        return self._add(name, f"upload-{self._next}", height, width, content=content)

    def pixels(self, number: int) -> RgbImage:
        """The photo's pixels, as displayed and segmented; `InputError` as `find`, or if the file has changed."""
        return self._pixels(self.find(number), self._exif)

    def _add(self, name: str, stem: str, height: int, width: int, **fields: object) -> Photo:
        with self._lock:
            safe_stem = _PLAIN.sub("_", stem)[:60] or "photo"
            photo = Photo(self._next, name, safe_stem, height, width, **fields)  # type: ignore[arg-type]
            self._all[photo.number] = photo
            self._next += 1
            return photo


def too_many_bytes(name: str) -> str:
    """Error message for a file that is too large."""
    return f"{quote(name)}: more than {MAX_UPLOAD_BYTES // 2**20} MiB; make the photo smaller"


def thumbnail_png(pixels: RgbImage) -> bytes:
    """PNG thumbnail of a photo."""
    from PIL import Image  # noqa: PLC0415

    small = Image.fromarray(pixels)
    small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), reducing_gap=2.0)
    return encode_png(np.asarray(small))


def _embedded_photos() -> Iterator[tuple[Path, tuple[tuple[str, str], ...]]]:
    """Paths of the embedded photos with the (id, category) of each object."""
    file = open_photos()
    for image_id, image in file.images.items():
        path = photo_path(image.file_name)
        categories = [
            (annotation["id"], file.categories[annotation["category_id"]].name)
            for annotation in file.annotations(image_id)
        ]
        yield path, tuple((f"{path.stem}/{number}", name) for number, name in categories)


def _size(path: Path, exif: Exif) -> tuple[int, int]:
    with open_image(path, _MISSING, MAX_SHOWN_PIXELS) as image:
        swapped = exif == "apply" and orientation(image) >= SWAPPED
        return (image.width, image.height) if swapped else (image.height, image.width)


def _pixels(photo: Photo, exif: Exif) -> RgbImage:
    if photo.path is None:
        return _decode(photo.content, photo.name, exif)
    with open_image(photo.path, _MISSING, MAX_SHOWN_PIXELS) as image:
        pixels = rgb_pixels(image, photo.path, exif)
    if pixels.shape[:2] != (photo.height, photo.width):
        raise InputError(f"{photo.name}: the file has changed; start the demo again")
    return pixels


def _decode(content: bytes, name: str, exif: Exif) -> RgbImage:
    with open_image_bytes(io.BytesIO(content), name, MAX_SHOWN_PIXELS) as image:
        return rgb_pixels(image, name, exif)
