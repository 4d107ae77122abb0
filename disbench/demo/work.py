"""A photo being segmented by a person's clicks: candidates, a choice, refinement, undo."""

from __future__ import annotations

from typing import Any

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.prediction import Method, MethodError, RgbImage, called
from disbench.harness.tasks import Candidates, checked_candidates, choose, predicted, tell_kept

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
        mask: BoolArray = self.found.masks[self.kept]
        return mask

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
            self._session = self._open()
            self.clicks, self.found = [], None
            for click in clicks:
                self._advance(click)
        except MethodFailedError:
            self.clicks, self.found, self.kept = before
            raise

    def _open(self) -> Any:
        try:
            make_ready = getattr(self._method, "make_ready", None)
            if make_ready is not None:
                called("make_ready", make_ready)
            return called("open", lambda: self._method.open(self._image.copy()))
        except MethodError as error:
            raise self._failure(error) from error

    def _advance(self, click: Click) -> None:
        try:
            if self.clicks:
                tell_kept(self._session, self.kept)
            found = checked_candidates(predicted(self._session, [*self.clicks, click]), *self.size, self._threshold)
            kept = self._kept(found)
        except MethodError as error:
            raise self._failure(error) from error
        self.clicks, self.found, self.kept = [*self.clicks, click], found, kept
        if self.choosing:
            self.meant = kept

    def _kept(self, found: Candidates) -> int:
        if self.clicks:
            return choose("oracle-first", len(self.clicks) + 1, found, (), self.mask)
        if self.chosen is not None and self.chosen < len(found.masks):
            return self.chosen
        return 0 if found.scores is None else int(np.argmax(np.asarray(found.scores)))

    def _failure(self, error: MethodError) -> MethodFailedError:
        """The message for an error of the method; its session is dropped."""
        self._session = None
        return MethodFailedError(f"{type(self._method).__name__} failed: {error}; earlier clicks are kept")
