"""Segment one image by given clicks, measure a method's speed on it, and check that an installed method works."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from disbench.baselines.cards import load_card, method_spec
from disbench.baselines.installs import overrides, require_installed
from disbench.core.arrays import BoolArray
from disbench.core.click_policies import BUDGETS
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.painting import encode_png
from disbench.core.prediction import Method, MethodError, RgbImage, call_method
from disbench.datasets.cards import open_dataset
from disbench.harness.evaluation import evaluate
from disbench.harness.tasks import Candidates, checked_candidates, choose, notify_kept, predicted
from disbench.io.files import atomic_write

GRID = 16  # points per side
_WARM_UP = 3
_STRIDE = 37  # grid points between successive clicks of the loop, which spreads them over the image


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of a method on one image, one per repeat: `open`, 256 first clicks, and each click of a loop.

    `reopens`: the session has no `restart`, so `points` includes opening the image again for each.
    """

    opened: tuple[float, ...]
    points: tuple[float, ...]
    clicks: tuple[tuple[float, ...], ...]
    reopens: bool

    def lines(self) -> list[str]:
        """Medians, with the minimum and maximum of the repeats."""
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
    """Positive clicks at the cell centres of a 16 x 16 grid over the image, in row-major order, rounded down."""
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
    """Time a method on one image, after a warm-up of `open` and 3 points; waits for GPU work to finish.

    Each repeat opens a copy of the image with a different corner pixel, so that no cache answers, makes 256 first
    clicks (`sat_points`), restarting the session in between, and then one loop of clicks of alternating sign.

    Args:
        method: any object with `open(image)`; InputError if it fails.
        image: uint8 (height, width, 3), RGB.
        repeats: at least 1.
        clicks: number of clicks in the loop, at most 256.
        clock: returns seconds.
    """
    points = sat_points(image.shape[0], image.shape[1])
    along = [points[_STRIDE * number % len(points)]._replace(positive=number % 2 == 0) for number in range(clicks)]

    def timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
        _synchronize()
        begun = clock()
        found = call_method("the method", lambda: call(*arguments))
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
        notify_kept(session, 0 if scores is None else int(np.argmax(np.asarray(scores))))

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


def pixel_hash(image: RgbImage) -> str:
    """SHA-256 (hex) of an image's pixels, in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def _synchronize() -> None:
    """Wait for this process's GPU work; the child process of a bridge waits for its own before it answers."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


_CLICKS = 3  # of `check_method`


@dataclass(frozen=True, slots=True)
class Answer:
    """Candidates after the last click, and the index of the selected one."""

    candidates: Candidates
    kept: int

    @property
    def mask(self) -> BoolArray:
        """The selected mask, boolean (height, width)."""
        mask: BoolArray = self.candidates.masks[self.kept]
        return mask


def parse_click(text: str) -> Click:
    """Parse `x,y,+` (on the object) or `x,y,-` (on the background); InputError for other text."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or parts[2] not in ("+", "-") or not all(part.isdecimal() for part in parts[:2]):
        raise InputError(f"--click {text}: write it as x,y,+ or x,y,- in whole pixels from the top left corner")
    return Click(int(parts[0]), int(parts[1]), parts[2] == "+")


def predict(
    method: Method,
    image: RgbImage,
    clicks: Sequence[Click],
    *,
    threshold: float = 0.49,
    keep: int | None = None,
    budget: str = "",
) -> Answer:
    """Segment an image by clicks, passed to the method one by one, as in a benchmark.

    Args:
        method: any object with `open(image)`.
        image: uint8 (height, width, 3), RGB.
        clicks: at least one; all points of a `budget` (one of `disbench.core.click_policies.BUDGETS`).
        threshold: probabilities strictly above it belong to a mask.
        keep: index of the candidate to select at the first click; None selects the highest score, or the first
            candidate if there are no scores.
        budget: for a method that gets all points at once.

    Raises:
        InputError: no clicks, a number other than the budget's, a click outside the image, an unknown candidate, or a
            failure of the method.
    """
    height, width = image.shape[:2]
    if not clicks:
        raise InputError("no clicks; give at least one")
    if budget and len(clicks) != BUDGETS[budget].count:
        raise InputError(f"{len(clicks)} clicks, but this method gets {BUDGETS[budget].title} at once; give as many")
    for click in clicks:
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise InputError(f"the click at {click.x},{click.y} is outside the image ({width} x {height} pixels)")
    previous = np.zeros((height, width), dtype=bool)
    try:
        session = call_method("open", lambda: method.open(image.copy()))
        for number, given in enumerate([clicks] if budget else accumulate([click] for click in clicks), 1):
            found = checked_candidates(predicted(session, given), height, width, threshold)
            kept = _kept(found, number, previous, keep)
            notify_kept(session, kept)
            previous = found.masks[kept]
    except MethodError as failure:
        raise InputError(f"{type(method).__name__}: {failure}; the method is at fault") from failure
    return Answer(found, kept)


def write_png(path: Path, pixels: BoolArray | RgbImage) -> None:
    """Write a mask (as 0 and 255) or a picture as a PNG."""
    with atomic_write(path) as file:
        file.write(encode_png(pixels.astype(np.uint8) * np.uint8(255 if pixels.dtype == np.bool_ else 1)))


def _kept(found: Candidates, number: int, previous: BoolArray, keep: int | None) -> int:
    if number > 1:
        return choose("oracle-first", number, found, (), previous)
    if keep is None:
        return 0 if found.scores is None else int(np.argmax(np.asarray(found.scores)))
    if not 0 <= keep < len(found.masks):
        raise InputError(f"candidate {keep} is unknown; the method offers {len(found.masks)}, from 0")
    return keep


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a method works, and lines that explain it."""

    works: bool
    lines: tuple[str, ...]


def check_method(name: str, variant: str = "", settings: Sequence[str] = ()) -> Verdict:
    """Run a method on the first object of the embedded photos; problems are in the verdict's lines.

    Args:
        name: name or path (`.toml`) of a card, or a class.
        variant: variant of an installed bridged system; "" for its first, or if `settings` give its places.
        settings: `option=value` each, overriding those of the variant.
    """
    label = f"{name} {variant}".rstrip()
    try:
        bridged = ":" not in name and load_card(name).status == "bridge"
        own = {setting.partition("=")[0].strip() for setting in settings}
        given = overrides(require_installed(name, variant)) if bridged and not own & {"repo", "command"} else []
        spec = method_spec(name, [*given, *settings])
        begun = time.perf_counter()
        method = spec.build()
        ready = time.perf_counter()
        photo = open_dataset("photos", None).read(0)
        results = evaluate(method, [photo], max_clicks=_CLICKS, threshold=spec.threshold, budget=spec.budget)
    except InputError as error:
        return Verdict(False, (f"{label}: does not work: {error}",))
    seconds = (time.perf_counter() - ready) / len(results.rows)
    for sample, reason in results.failures.items():
        return Verdict(False, (f"{label}: does not work: on {sample}, {reason}",))
    ((sample, ious),) = results.ious.items()
    said = f"{label}: works: IoU {', '.join(f'{iou:.2f}' for iou in ious)} on {sample}"
    return Verdict(True, (f"{said}; ready in {ready - begun:.1f} s, {seconds:.2f} s a click",))
