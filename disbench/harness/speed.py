"""How fast a method answers: SAT latency (SegNext's protocol, with repeats), and seconds by the number of the click."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.prediction import Method, MethodError, RgbImage, called
from disbench.harness.candidates import predicted, tell_kept

GRID = 16  # points a side
_WARM_UP = 3
_STRIDE = 37  # successive clicks of the loop are this many grid points apart, so that they spread over the image


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of a method on one image, a number a repeat: of `open`, of 256 first clicks, of each click of a loop.

    `reopens`: the session has no `restart`, so that `points` include opening the image again for each.
    """

    opened: tuple[float, ...]
    points: tuple[float, ...]
    clicks: tuple[tuple[float, ...], ...]
    reopens: bool

    def lines(self) -> list[str]:
        """Medians, with the lowest and highest of the repeats."""
        total = [opened + points for opened, points in zip(self.opened, self.points, strict=True)]
        again = ", the image opened again for each" if self.reopens else ""
        a_point = 1e3 * median(self.points) / GRID**2
        by_click = [f"{1e3 * median(of_click):.1f}" for of_click in zip(*self.clicks, strict=True)]
        return [
            f"SAT latency: {_seconds(total)}",
            f"  open: {_seconds(self.opened)}",
            f"  {GRID**2} first clicks{again}: {_seconds(self.points)}, {a_point:.1f} ms each",
            f"click 1 to {len(by_click)}, ms: {', '.join(by_click)}",
        ]


def sat_points(height: int, width: int) -> list[Click]:
    """Positive clicks at the centres of the cells of a 16 x 16 grid over the image, row by row, cut to whole pixels."""
    places = [2 * i + 1 for i in range(GRID)]
    return [Click(i * width // (2 * GRID), j * height // (2 * GRID), True) for j in places for i in places]


def measure_speed(
    method: Method,
    image: RgbImage,
    *,
    repeats: int = 5,
    clicks: int = 20,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Time a method on one image, after a warm-up of `open` and 3 points; a GPU's work is waited for.

    Each repeat opens the image anew, with one pixel of its own in a corner so that no cache answers, asks 256 first
    clicks (`sat_points`), between which the session is restarted, and then one loop of clicks of alternating sign.

    Args:
        method: any object with `open(image)`; InputError if it fails.
        image: uint8 (height, width, 3), RGB.
        repeats: at least 1.
        clicks: of the loop, at most 256.
        clock: seconds.
    """
    points = sat_points(image.shape[0], image.shape[1])
    along = [points[_STRIDE * number % len(points)]._replace(positive=number % 2 == 0) for number in range(clicks)]

    def timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
        _synchronize()
        begun = clock()
        found = called("the method", lambda: call(*arguments))
        _synchronize()
        return found, clock() - begun

    def restarted(session: Any, own: RgbImage) -> Any:
        if not hasattr(session, "restart"):
            return method.open(own.copy())
        session.restart()
        return session

    def ask(session: Any, own: RgbImage, asked: Sequence[Click]) -> Any:
        for number, point in enumerate(asked):
            session = restarted(session, own) if number else session
            predicted(session, [point])
        return session

    def click(session: Any, given: Sequence[Click]) -> None:
        scores = predicted(session, given).scores
        tell_kept(session, 0 if scores is None else int(np.argmax(np.asarray(scores))))

    found: list[tuple[float, float, tuple[float, ...]]] = []
    try:
        for number in (repeats, *range(repeats)):  # the first is the warm-up
            own = image.copy()
            own[-1, -1] ^= np.uint8(number + 1)
            session, open_seconds = timed(method.open, own.copy())
            session, seconds = timed(ask, session, own, points[:_WARM_UP] if number == repeats else points)
            if number < repeats:
                session = restarted(session, own)
                by_click = tuple(timed(click, session, along[:count])[1] for count in range(1, clicks + 1))
                found.append((open_seconds, seconds, by_click))
    except MethodError as failure:
        raise InputError(f"{type(method).__name__}: {failure}; the method is at fault") from failure
    opens, sums, loops = zip(*found, strict=True)
    return Speed(opens, sums, loops, not hasattr(session, "restart"))


def picture_hash(image: RgbImage) -> str:
    """SHA-256 (hex) of an image's pixels, row by row."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def _synchronize() -> None:
    """Wait for a GPU that this process uses; a bridge's child waits for its own before it answers."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
