"""A photo being segmented by a person's clicks: candidates, a choice, refinement, undo."""

from __future__ import annotations

from typing import Any

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.prediction import Method, RgbImage
from disbench.harness.candidates import Candidates, MethodError, checked_candidates, choose
from disbench.harness.tasks import reason

MOST_CLICKS = 200
"""Clicks on one photo: far more than any task asks for."""


class MethodFailedError(Exception):
    """The method failed on a click; the message is a sentence for the person who clicked."""


class Work:
    """One photo, the clicks so far, and what the method answered to the last of them.

    The method hears exactly what it hears from `disbench predict` and from the benchmark: each click once, and after
    each answer which candidate was kept. Nothing can be taken back in a session; so undoing opens a new one, which gets
    the clicks that are left and the same choice.

    Attributes:
        clicks: so far.
        found: candidates for the last click; None before the first.
        kept: index of the one that is the mask.
        chosen: index of the candidate that is meant at the first click; None where the method's highest score decides.
        meant: index of the candidate that was kept at the first click, by either.

    Args:
        method: any object with `open(image)`.
        image: uint8 (height, width, 3), RGB.
        threshold: probabilities strictly above it belong to a mask.
    """

    def __init__(self, method: Method, image: RgbImage, threshold: float) -> None:
        self._method, self._image, self._threshold = method, image, threshold
        self._session: Any = None
        self.reset()

    def reset(self) -> None:
        """Take all clicks and the choice back."""
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
        """Whether another candidate can be chosen: as long as there is one click."""
        return len(self.clicks) == 1

    def click(self, click: Click) -> None:
        """Let the method answer to one click more.

        Raises:
            InputError: outside the photo, on the background before anything is on the object, or one too many.
            MethodFailedError: the method failed; the clicks before stand.
        """
        height, width = self.size
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise InputError(f"the click at {click.x}, {click.y} is outside the photo of {width} x {height} pixels")
        if not self.clicks and not click.positive:
            raise InputError("the first click says what is meant: make it on the object")
        if len(self.clicks) == MOST_CLICKS:
            raise InputError(f"there are {MOST_CLICKS} clicks already; undo some, or begin again")
        if self._session is None:
            self._replay(self.clicks)
        self._advance(click)

    def choose(self, index: int) -> None:
        """Say which candidate the first click means.

        Raises:
            InputError: there is none of that index, or more clicks than one were made.
        """
        if self.found is None or not self.choosing:
            raise InputError("a candidate is chosen after the first click and before the second; undo the others first")
        if not 0 <= index < len(self.found.masks):
            raise InputError(f"there is no candidate {index + 1}; the method offers {len(self.found.masks)}")
        self.chosen = self.kept = self.meant = index

    def undo(self) -> None:
        """Take the last click back, if there is one; with the first goes the choice.

        Raises:
            MethodFailedError: the method failed on what it had answered to before; the clicks before stand.
        """
        left = self.clicks[:-1]
        if left:
            self._replay(left)
        else:
            self.reset()

    def _replay(self, clicks: list[Click]) -> None:
        """Open a session and let it come to where these clicks lead."""
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
                make_ready()
            return self._method.open(self._image)
        except Exception as error:
            raise self._failure("open", error) from error

    def _advance(self, click: Click) -> None:
        try:
            if self.clicks and hasattr(self._session, "keep"):
                self._session.keep(self.kept)
            answer = self._session.predict([*self.clicks, click])
            found = checked_candidates(answer, *self.size, self._threshold)
            kept = self._kept(found)
        except Exception as error:
            raise self._failure("predict", error) from error
        self.clicks, self.found, self.kept = [*self.clicks, click], found, kept
        if self.choosing:
            self.meant = kept

    def _kept(self, found: Candidates) -> int:
        if self.clicks:
            return choose("oracle-first", len(self.clicks) + 1, found, (), self.mask)
        if self.chosen is not None and self.chosen < len(found.masks):
            return self.chosen
        return 0 if found.scores is None else int(np.argmax(np.asarray(found.scores)))

    def _failure(self, verb: str, error: Exception) -> MethodFailedError:
        """The sentence for an error of the method, whose session is not used any more."""
        self._session = None
        words = str(error) if isinstance(error, MethodError) else reason(verb, error)
        return MethodFailedError(f"{type(self._method).__name__} failed: {words}; the clicks before stand")
