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
from disbench.core.painting import png
from disbench.core.prediction import Method, MethodError, RgbImage, call_method
from disbench.datasets.images import SWAPPED, checked_image, opened_image, orientation, rgb_pixels
from disbench.datasets.photos import open_photos, photo_path
from disbench.harness.tasks import Candidates, checked_candidates, choose, predicted, tell_kept
from disbench.io.files import atomic_write
from disbench.io.recorded_clicks import Sequenced, add_sequence, as_parquet, check_name

Kind = Literal["mask.png", "mask.json", "clicks.parquet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RECORDED = "recorded-clicks.parquet"
"""File in the `--out` folder with the clicks of all photos and users, in the format of the policy `replay`."""
MOST_CLICKS = 200
"""Maximum number of clicks per photo."""


class MethodFailedError(Exception):
    """The method failed on a click; the message is shown in the page."""


class Work:
    """One photo, the clicks so far, and the method's prediction for the last click.

    The method is called as in `disbench predict`: once per click, then `keep` with the kept candidate. Sessions cannot
    undo a click, so undo opens a new session and replays the remaining clicks.

    Attributes:
        found: candidates for the last click; None before the first.
        kept: index of the current mask among the candidates.
        chosen: index the user chose at the first click; None: use the highest score.
        meant: index kept at the first click.
    """

    def __init__(self, method: Method, image: RgbImage, threshold: float) -> None:
        self._method, self._image, self._threshold = method, image, threshold
        self._session: Any = None
        self.reset()

    def reset(self) -> None:
        """Discard all clicks and the choice."""
        self.clicks: list[Click] = []
        self.found: Candidates | None = None
        self.kept = 0
        self.chosen: int | None = None
        self.meant = 0
        self._session = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photo."""
        return self._image.shape[0], self._image.shape[1]

    @property
    def mask(self) -> BoolArray:
        """The kept mask, bool (height, width); all False before the first click."""
        if self.found is None:
            return np.zeros(self.size, dtype=bool)
        return np.asarray(self.found.masks[self.kept], dtype=bool)

    @property
    def choosing(self) -> bool:
        """True if a candidate can be chosen: after the first click, before the second."""
        return len(self.clicks) == 1

    def click(self, click: Click) -> None:
        """Add a click."""
        height, width = self.size
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise InputError(f"the click at {click.x}, {click.y} is outside the photo of {width} x {height} pixels")
        if not self.clicks and not click.positive:
            raise InputError("the first click must be on the object")
        if len(self.clicks) == MOST_CLICKS:
            raise InputError(f"there are {MOST_CLICKS} clicks already; undo some or reset")
        if self._session is None:
            self._replay(self.clicks)
        self._advance(click)

    def choose(self, index: int) -> None:
        """Choose a candidate of the first click; `InputError` for an unknown index or after the second click."""
        if self.found is None or not self.choosing:
            raise InputError(
                "candidates can be chosen only after the first click and before the second; undo later clicks first"
            )
        if not 0 <= index < len(self.found.masks):
            raise InputError(f"there is no candidate {index + 1}; the method offers {len(self.found.masks)}")
        self.chosen = self.kept = self.meant = index

    def undo(self) -> None:
        """Undo the last click; undoing the first also discards the choice. May raise `MethodFailedError`."""
        left = self.clicks[:-1]
        if left:
            self._replay(left)
        else:
            self.reset()

    def _replay(self, clicks: list[Click]) -> None:
        """Open a new session and repeat these clicks."""
        before = self.clicks, self.found, self.kept
        try:
            with self._complaining():
                make_ready = getattr(self._method, "make_ready", None)
                if make_ready is not None:
                    call_method("make_ready", make_ready)
                self._session = call_method("open", lambda: self._method.open(self._image.copy()))
            self.clicks, self.found = [], None
            for click in clicks:
                self._advance(click)
        except MethodFailedError:
            self.clicks, self.found, self.kept = before
            raise

    def _advance(self, click: Click) -> None:
        with self._complaining():
            if self.clicks:
                tell_kept(self._session, self.kept)
            found = checked_candidates(predicted(self._session, [*self.clicks, click]), *self.size, self._threshold)
            kept = self._kept(found)
        self.clicks, self.found, self.kept = [*self.clicks, click], found, kept
        if self.choosing:
            self.meant = kept

    def _kept(self, found: Candidates) -> int:
        if self.clicks:
            return choose("oracle-first", len(self.clicks) + 1, found, (), self.mask)
        if self.chosen is not None and self.chosen < len(found.masks):
            return self.chosen
        return 0 if found.scores is None else int(np.argmax(np.asarray(found.scores)))

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Turn a method's error into a message and drop its session."""
        try:
            yield
        except MethodError as error:
            self._session = None
            name = type(self._method).__name__
            raise MethodFailedError(f"{name} failed: {error}; earlier clicks are kept") from error


def saved(kind: str, work: Work, sample: str, user: str) -> bytes:
    """The bytes of a file to save; `InputError` before the first click.

    `kind` is the mask as a PNG of 0 and 255 or as COCO compressed RLE in JSON (`size`, `counts`), or the clicks, with
    sample id and user name, as Parquet (`disbench.io.recorded_clicks.SCHEMA`).
    """
    if kind not in KINDS:
        raise unknown_name("kind of file", kind, KINDS)
    if kind == "clicks.parquet":
        return as_parquet([_sequence(work, sample, user)])
    _check_begun(work)
    if kind == "mask.png":
        return mask_png(work.mask)
    rle = masks.encode(work.mask)
    return (json.dumps({"size": rle["size"], "counts": rle["counts"].decode("ascii")}) + "\n").encode()


def save_into(folder: Path, picture: Picture, work: Work, sample: str, user: str) -> list[str]:
    """Save the mask in both formats under new names, append the clicks to the recording, and return the file names."""
    recorded = _sequence(work, sample, user)
    folder.mkdir(parents=True, exist_ok=True)
    stems = (f"{picture.stem}-{number}" for number in count(1))
    stem = next(one for one in stems if not any((folder / f"{one}{end}").exists() for end in (".png", ".json")))
    for kind in ("mask.png", "mask.json"):
        with atomic_write(folder / f"{stem}{Path(kind).suffix}") as file:
            file.write(saved(kind, work, sample, user))
    add_sequence(folder / RECORDED, recorded)
    return [f"{stem}.png", f"{stem}.json", RECORDED]


def command(picture: Picture, work: Work, asked: str, overrides: Sequence[str]) -> str:
    """The `disbench predict` command for the same mask; an uploaded photo is given by name only."""
    clicks = [f"{click.x},{click.y},{'+' if click.positive else '-'}" for click in work.clicks]
    keep = [] if work.chosen is None else ["--keep", str(work.chosen)]
    words = ["disbench", "predict", str(picture.path or picture.name), "--method", asked]
    for option, values in (("--set", overrides), ("--click", clicks)):
        words += [word for value in values for word in (option, value)]
    return shlex.join([*words, *keep, "--out", f"{picture.stem}-mask.png"])


def _sequence(work: Work, sample: str, user: str) -> Sequenced:
    _check_begun(work)
    return Sequenced(check_name(sample, "sample"), check_name(user, "user"), tuple(work.clicks))


def _check_begun(work: Work) -> None:
    if not work.clicks:
        raise InputError("nothing to save yet; click on the photo first")


_MISSING = "image not found; check its path"
_MOST_UPLOADS = 8
_DECODED = 2
"""Number of photos whose pixels are cached."""
_THUMBNAIL = 160
"""Long side in pixels."""
_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Picture:
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


class Pictures:
    """All photos of a demo (the embedded ones by default), optionally rotated by EXIF orientation; thread-safe."""

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
        """The photos in the order they were added."""
        with self._lock:
            return list(self._all.values())

    def find(self, number: int) -> Picture:
        """The photo with this number; `InputError` if it does not exist or was dropped for later uploads."""
        with self._lock:
            found = self._all.get(number)
        if found is None:
            raise InputError("this photo is no longer available; open it again")
        return found

    def add_upload(self, name: str, content: bytes) -> Picture:
        """Add an uploaded photo, in memory only; drops the oldest upload if there are too many."""
        if not name or len(name) > 255 or re.search(r"[/\\\0-\x1f]", name) or name in (".", ".."):
            raise InputError(f"{quote(name)} is not a file name; open the photo in the page")
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
        """The photo's pixels, as displayed and segmented; `InputError` as `find`, or if the file has changed."""
        return self._pixels(self.find(number), self._exif)

    def _add(self, name: str, stem: str, height: int, width: int, **more: object) -> Picture:
        with self._lock:
            plain = _PLAIN.sub("_", stem)[:60] or "photo"
            picture = Picture(self._next, name, plain, height, width, **more)  # type: ignore[arg-type]
            self._all[picture.number] = picture
            self._next += 1
            return picture


def too_many_bytes(name: str) -> str:
    """Error message for a file that is too large."""
    return f"{quote(name)}: more than {MAX_UPLOAD_BYTES // 2**20} MiB; make the photo smaller"


def thumbnail_png(pixels: RgbImage) -> bytes:
    """PNG thumbnail of a photo."""
    from PIL import Image  # noqa: PLC0415

    small = Image.fromarray(pixels)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), reducing_gap=2.0)
    return png(np.asarray(small))


def mask_png(mask: BoolArray) -> bytes:
    """A mask as a PNG of 0 and 255, like those of `disbench predict`."""
    return png(mask.astype(np.uint8) * np.uint8(255))


def _embedded() -> Iterator[tuple[Path, tuple[tuple[str, str], ...]]]:
    """Paths of the embedded photos with the (id, category) of each object."""
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
