"""Methods that behave in a known way, good and bad; named on the command line by this file's path."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core.clicks import Click
from disbench.core.prediction import Prediction


class Discs:
    """Discs of a radius around positive clicks, less those around negative ones; three sizes as candidates."""

    def __init__(self, radius: float = 12.0, candidates: int = 1, scores: bool = True) -> None:
        self.radius, self.candidates, self.scores = radius, candidates, scores

    def open(self, image: np.ndarray) -> DiscsSession:
        return DiscsSession(self, image)

    def predict_batch(self, sessions: Sequence[DiscsSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        return [session.predict(of_session) for session, of_session in zip(sessions, clicks, strict=True)]


class DiscsSession:
    def __init__(self, method: Discs, image: np.ndarray) -> None:
        self.method = method
        self.kept: list[int] = []
        self.started: np.ndarray | None = None
        self.rows, self.columns = np.mgrid[: image.shape[0], : image.shape[1]]

    def start(self, mask: np.ndarray) -> None:
        self.started = mask

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        masks = [self._discs(clicks, self.method.radius * (i + 1)) for i in range(self.method.candidates)]
        scores = [1.0 / (i + 1) for i in range(len(masks))] if self.method.scores else None
        return Prediction(np.stack(masks), scores)

    def keep(self, index: int) -> None:
        self.kept.append(index)

    def _discs(self, clicks: Sequence[Click], radius: float) -> np.ndarray:
        mask = np.zeros(self.rows.shape, dtype=bool) if self.started is None else self.started.copy()
        for click in clicks:
            disc = (self.rows - click.y) ** 2 + (self.columns - click.x) ** 2 <= radius**2
            mask = mask | disc if click.positive else mask & ~disc
        return mask


class Answers(Discs):
    """Discs whose sessions answer by a function of themselves and the clicks, and that writes down what it is told.

    A session is asked for each click once, unless it is restarted or clicks are undone.
    """

    def __init__(self, answer: Callable[..., Prediction] | None = None, verb: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.answer, self.verb = answer or DiscsSession.predict, verb
        self.told: list[Any] = []

    @property
    def opened(self) -> int:
        return self.told.count("open")

    def open(self, image: np.ndarray) -> AnswersSession:
        self.told.append("open")
        session = AnswersSession(self, image)
        if self.verb:
            setattr(session, self.verb, getattr(session, f"_{self.verb}"))
        return session


class AnswersSession(DiscsSession):
    method: Answers

    def __init__(self, method: Answers, image: np.ndarray) -> None:
        super().__init__(method, image)
        self.number, self.asked = method.opened, 0

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        self.asked += 1
        assert self.asked == len(clicks)
        self.method.told.append(len(clicks))
        return self.method.answer(self, clicks)

    def keep(self, index: int) -> None:
        self.method.told.append(f"keep {index}")
        super().keep(index)

    def _restart(self) -> None:
        self.method.told.append("restart")
        self.asked, self.kept = 0, []

    def _undo(self) -> None:
        self.asked -= 1


def _writes(masks: np.ndarray, clicks: list[Click]) -> Prediction:
    """Changes what it was given, and NumPy's error handling and the folder of its process."""
    clicks[:] = clicks[:1] * 5
    np.seterr(all="raise")
    os.chdir("/")
    return Prediction(masks)


class _Raises:
    def __array__(self, *_: object) -> np.ndarray:
        raise SystemExit(4)


def _raise(error: BaseException) -> Any:
    raise error


FAULTS: dict[int, Callable[..., Any]] = {
    2: lambda masks, clicks: _raise(ValueError("a bad day")),
    3: lambda masks, clicks: Prediction(np.full(masks.shape, np.nan, dtype=np.float32)),
    4: lambda masks, clicks: Prediction(masks[:, 1:]),
    5: lambda masks, clicks: time.sleep(3600),
    6: lambda masks, clicks: os._exit(9),
    11: lambda masks, clicks: sys.exit(3),
    12: lambda masks, clicks: signal.raise_signal(signal.SIGABRT),
    13: lambda masks, clicks: _raise(KeyboardInterrupt()),
    14: lambda masks, clicks: None,
    15: lambda masks, clicks: Prediction([masks[0], masks[0, 1:]], None),
    16: lambda masks, clicks: Prediction(_Raises(), None),
    20: _writes,
    21: lambda masks, clicks: Prediction(list(masks.astype(float) * 1.0000002)),
}
"""Fault -> what is answered in place of these masks; from 20 on the answer is right. 1 and 10: `open`; 7: batches."""


class Misbehaves(Discs):
    """Well behaved but on images whose top left pixel's red says otherwise, from the third click on."""

    @property
    def versions(self) -> dict[str, str]:
        raise SystemExit(2)

    def open(self, image: np.ndarray) -> DiscsSession:
        if image[0, 0, 0] == 1:
            raise RuntimeError("cannot open\nthis one")
        if image[0, 0, 0] == 10:
            return None  # type: ignore[return-value]
        return MisbehavingSession(self, image)

    def predict_batch(self, sessions: Sequence[DiscsSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        if any(s.fault == 7 for s in sessions if isinstance(s, MisbehavingSession)):
            raise RuntimeError("the batch does not work")
        return super().predict_batch(sessions, clicks)


class MisbehavingSession(DiscsSession):
    def __init__(self, method: Discs, image: np.ndarray) -> None:
        super().__init__(method, image)
        self.fault = int(image[0, 0, 0])

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        found = super().predict(clicks)
        return FAULTS[self.fault](found.masks, clicks) if len(clicks) >= 3 and self.fault in FAULTS else found


class Counted(Discs):
    """Writes a line into a file for each image that it opens."""

    def __init__(self, radius: float = 12.0, marker: str = os.devnull) -> None:
        super().__init__(radius)
        self.marker = marker

    def open(self, image: np.ndarray) -> DiscsSession:
        with Path(self.marker).open("a") as file:
            file.write("open\n")
        return super().open(image)


class Interrupted(Discs):
    """Takes its time to open an image: for tests of resuming."""

    def __init__(self, radius: float = 12.0, seconds: float = 0.0) -> None:
        super().__init__(radius)
        self.seconds = seconds

    def open(self, image: np.ndarray) -> DiscsSession:
        time.sleep(self.seconds)
        return super().open(image)


class NotMade:
    """A method that cannot be made."""

    def __init__(self) -> None:
        raise OSError("no weights here")


class Exits(Discs):
    """Ends the process that asks it."""

    def open(self, image: np.ndarray) -> DiscsSession:
        sys.exit(3)


class NoOpen:
    """Not a method."""


class NoBatch:
    """A method without predict_batch."""

    def open(self, image: np.ndarray) -> DiscsSession:
        return DiscsSession(Discs(), image)


class BoxOfPoints:
    """The box around all points that it gets at once, as DEXTR and IOG get theirs."""

    budget = "extreme-points"

    def __init__(self, margin: int = 0) -> None:
        self.margin = margin

    def open(self, image: np.ndarray) -> BoxSession:
        return BoxSession(image.shape[:2], self.margin)


class BoxSession:
    def __init__(self, size: tuple[int, ...], margin: int) -> None:
        self.size, self.margin = size, margin

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        assert len(clicks) in (3, 4), "all points at once"
        xs, ys = [click.x for click in clicks], [click.y for click in clicks]
        mask = np.zeros((1, *self.size), dtype=bool)
        rows = slice(max(min(ys) - self.margin, 0), max(ys) + 1 + self.margin)
        mask[0, rows, max(min(xs) - self.margin, 0) : max(xs) + 1 + self.margin] = True
        return Prediction(mask)


class BoxOfCorners(BoxOfPoints):
    """The same of a point inside and two corners."""

    budget = "inside-and-corners"
