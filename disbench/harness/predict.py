"""One image: the mask of a method for a person's own clicks, and whether an installed system works at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from disbench.baselines.cards import load_card, method_spec
from disbench.baselines.installs import overrides, require_installed
from disbench.core.arrays import BoolArray
from disbench.core.budgets import BUDGETS
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.painting import png
from disbench.core.prediction import Method, MethodError, RgbImage, called
from disbench.datasets.cards import open_dataset
from disbench.harness.candidates import Candidates, checked_candidates, choose, predicted, tell_kept
from disbench.harness.evaluation import evaluate
from disbench.io.files import whole_file

_CLICKS = 3  # of `check_method`


@dataclass(frozen=True, slots=True)
class Answer:
    """The candidates of the last click, and the index of the one that is kept."""

    candidates: Candidates
    kept: int

    @property
    def mask(self) -> BoolArray:
        """The mask, boolean (height, width)."""
        mask: BoolArray = self.candidates.masks[self.kept]
        return mask


def parse_click(text: str) -> Click:
    """A click from `x,y,+` (on the object) or `x,y,-` (on the background); InputError for any other text."""
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
    """Segment an image by clicks, which the method gets one by one, as in a benchmark.

    Args:
        method: any object with `open(image)`.
        image: uint8 (height, width, 3), RGB.
        clicks: at least one; all points of a `budget` (one of `disbench.core.budgets.BUDGETS`).
        threshold: probabilities strictly above it belong to a mask.
        keep: index of the candidate that is meant at the first click; None takes the highest score, or the first
            candidate where there are no scores.
        budget: of a method that gets all points at once.

    Raises:
        InputError: no click, another number than the budget's, one outside the image, an unknown candidate, or the
            method failed.
    """
    height, width = image.shape[:2]
    if not clicks:
        raise InputError("no clicks; give at least one")
    if budget and len(clicks) != BUDGETS[budget].count:
        raise InputError(
            f"{len(clicks)} clicks, but this method gets {BUDGETS[budget].words} at once; give as many --click"
        )
    for click in clicks:
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise InputError(f"the click at {click.x},{click.y} is outside the image ({width} x {height} pixels)")
    previous = np.zeros((height, width), dtype=bool)
    try:
        session = called("open", lambda: method.open(image.copy()))
        for number, given in enumerate([clicks] if budget else accumulate([click] for click in clicks), 1):
            found = checked_candidates(predicted(session, given), height, width, threshold)
            kept = _kept(found, number, previous, keep)
            tell_kept(session, kept)
            previous = found.masks[kept]
    except MethodError as failure:
        raise InputError(f"{type(method).__name__}: {failure}; the method is at fault") from failure
    return Answer(found, kept)


def write_png(path: Path, pixels: BoolArray | RgbImage) -> None:
    """Write a mask (0 and 255) or a picture as a PNG."""
    with whole_file(path) as file:
        file.write(png(pixels.astype(np.uint8) * np.uint8(255 if pixels.dtype == np.bool_ else 1)))


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
    """Whether a method works, and the lines that say so."""

    works: bool
    lines: tuple[str, ...]


def check_method(name: str, variant: str = "", settings: Sequence[str] = ()) -> Verdict:
    """Run a method on the first object of the embedded photos; what is missing or goes wrong is in the verdict's lines.

    Args:
        name: a card's name or path (`.toml`), or a class.
        variant: of a bridged system that is installed; "" for its first, or for `settings` that name its places.
        settings: `option=value` each, over those of the variant.
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
