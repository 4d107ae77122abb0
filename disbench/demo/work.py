"""A photo being segmented by a person's clicks: candidates, a choice, refinement, undo; and what can be saved of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from disbench.core import masks
from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError, unknown_name
from disbench.core.prediction import Method, MethodError, RgbImage, called
from disbench.demo.pictures import Picture, mask_png
from disbench.harness.tasks import Candidates, checked_candidates, choose, predicted, tell_kept
from disbench.io.files import whole_file
from disbench.io.recorded_clicks import Sequenced, add_sequence, as_parquet, check_name

Kind = Literal["mask.png", "mask.json", "clicks.parquet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RECORDED = "recorded-clicks.parquet"
"""In the folder of `--out`: all clicks of all photos and users, as the policy `replay` reads them."""
MOST_CLICKS = 200
"""Clicks on one photo."""


class MethodFailedError(Exception):
    """The method failed on a click; the message is for the person who clicked."""


class Work:
    """One photo, the clicks so far, and the method's answer to the last of them.

    The method is called as in `disbench predict`: each click once, and after each answer `keep` with the candidate that
    was kept. A session cannot take a click back, so undoing opens a new one with the remaining clicks.

    Attributes:
        found: candidates for the last click; None before the first.
        kept: index of the candidate that is the mask.
        chosen: index that the person chose at the first click; None: the highest score decides.
        meant: index that was kept at the first click.
    """

    def __init__(self, method: Method, image: RgbImage, threshold: float) -> None:
        self._method, self._image, self._threshold = method, image, threshold
        self._session: Any = None
        self.reset()

    def reset(self) -> None:
        """Take back all clicks and the choice."""
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
        """The kept mask, boolean (height, width); empty before the first click."""
        if self.found is None:
            return np.zeros(self.size, dtype=bool)
        return np.asarray(self.found.masks[self.kept], dtype=bool)

    @property
    def choosing(self) -> bool:
        """Whether a candidate can be chosen: after the first click, before the second."""
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
        """Choose a candidate of the first click; `InputError` after the second click or for an unknown index."""
        if self.found is None or not self.choosing:
            raise InputError(
                "candidates can be chosen only after the first click and before the second; undo the others first"
            )
        if not 0 <= index < len(self.found.masks):
            raise InputError(f"there is no candidate {index + 1}; the method offers {len(self.found.masks)}")
        self.chosen = self.kept = self.meant = index

    def undo(self) -> None:
        """Take back the last click, and with the first click the choice; may raise `MethodFailedError`."""
        left = self.clicks[:-1]
        if left:
            self._replay(left)
        else:
            self.reset()

    def _replay(self, clicks: list[Click]) -> None:
        """Open a session and repeat these clicks."""
        before = self.clicks, self.found, self.kept
        try:
            with self._complaining():
                make_ready = getattr(self._method, "make_ready", None)
                if make_ready is not None:
                    called("make_ready", make_ready)
                self._session = called("open", lambda: self._method.open(self._image.copy()))
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
        """Turn an error of the method into a message, and drop its session."""
        try:
            yield
        except MethodError as error:
            self._session = None
            name = type(self._method).__name__
            raise MethodFailedError(f"{name} failed: {error}; earlier clicks are kept") from error


def saved(kind: str, work: Work, sample: str, user: str) -> bytes:
    """The bytes of a file to download; `InputError` before the first click.

    It has the mask as a PNG of 0 and 255, the mask as COCO compressed run lengths in JSON (`size`, `counts`), or the
    clicks, with the sample's id and the user's name, as Parquet (`disbench.io.recorded_clicks.SCHEMA`).
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
    """Write the mask in both forms under new names, add the clicks to the folder's recording; the files' names."""
    recorded = _sequence(work, sample, user)
    folder.mkdir(parents=True, exist_ok=True)
    stems = (f"{picture.stem}-{number}" for number in count(1))
    stem = next(one for one in stems if not any((folder / f"{one}{end}").exists() for end in (".png", ".json")))
    for kind in ("mask.png", "mask.json"):
        with whole_file(folder / f"{stem}{Path(kind).suffix}") as file:
            file.write(saved(kind, work, sample, user))
    add_sequence(folder / RECORDED, recorded)
    return [f"{stem}.png", f"{stem}.json", RECORDED]


def command(picture: Picture, work: Work, asked: str, overrides: Sequence[str]) -> str:
    """The `disbench predict` command that gives the same mask; an uploaded photo appears by its name only."""
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
