"""Whether a sample's clicks and IoUs follow from its target and the masks that were kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal

import numpy as np

from disbench.core import masks
from disbench.core.arrays import BoolArray, Float32Array
from disbench.core.budgets import budget_points
from disbench.core.click_policies import REPLAY, ClickPolicy
from disbench.core.clicks import Click, error_masks
from disbench.core.depths import Depth, transform
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.samples import Sample, Target
from disbench.harness.candidates import Candidates, choose
from disbench.harness.problems import Problems
from disbench.harness.protocol import Protocol
from disbench.harness.row_checks import Row, same

TOLERANCE = 1e-3
"""Pixels by which the distance at a click may be below the largest: OpenCV's releases differ in the last bits."""
_CENTRES = 100
"""Centres within the tolerance that a jittered click is tried around."""

Judgement = Literal["same", "moved", "wrong"]


def judge_click(
    policy: ClickPolicy,
    target: Target,
    prediction: BoolArray,
    before: Sequence[Click],
    click: Click,
    *,
    seed: int = 0,
    sample: str = "",
) -> Judgement:
    """Hold a click against the policy.

    Args:
        policy: that made the click.
        target: int8 (height, width): 1 object, 0 background, -1 ignored.
        prediction: boolean (height, width), what the click corrects.
        before: clicks made before.
        click: within the image.
        seed: of the policy.
        sample: id of the sample.

    Returns:
        `same`: the click that is simulated here. `moved`: another, whose distance is within `TOLERANCE` of the
        largest over both kinds of error, at a pixel of the kind that its sign says (for `jitter`: the click
        around another centre of that kind). `wrong`: neither.
    """
    if policy.simulate(target, prediction, before, seed=seed, sample=sample) == click:
        return "same"
    if policy.name in ("random", "removed-center"):
        return "wrong"  # a draw decides it
    missed, excess = error_masks(target, prediction)
    distances = {True: _distances(missed, before), False: _distances(excess, before)}
    largest = max(float(of_kind.max()) for of_kind in distances.values())
    if largest == 0:
        return "wrong"
    own, least = distances[click.positive], largest - TOLERANCE
    if policy.name in ("center", "scipy-center", "scipy-restart"):
        return "moved" if own[click.y, click.x] >= least else "wrong"
    errors = missed if click.positive else excess
    for y, x in islice(np.argwhere(own >= least).tolist(), _CENTRES):
        center = Depth(float(own[y, x]), x, y, click.positive)
        if policy.jittered(errors, center, before, seed=seed, sample=sample) == click:
            return "moved"
    return "wrong"


class ClickChecks:
    """Follows samples click by click and counts what it finds.

    Attributes:
        clicks: how many clicks were looked at.
        moved: how many of them are within the tolerance, and not where they are simulated here.
        measured: how many rows had their IoUs recomputed.

    Args:
        protocol: of the run.
        problems: added to.
    """

    def __init__(self, protocol: Protocol, problems: Problems) -> None:
        self._protocol, self._problems = protocol, problems
        self._policy = protocol.click_policy
        self.clicks = self.moved = self.measured = 0

    def add(self, sample: Sample, rows: Sequence[Row]) -> None:
        """Follow one sample as far as its masks allow; without masks that is its first click.

        Args:
            sample: of the rows.
            rows: that `RowChecks.add` let pass.
        """
        size = sample.target.shape
        if size != (rows[0]["height"], rows[0]["width"]):
            found = f"{rows[0]['height']} x {rows[0]['width']}, not {size[0]} x {size[1]}"
            self._problems.add("sample of another size than in the dataset", f"{sample.id!r} ({found})")
            return
        boundary = TargetBoundary(sample.target)
        kept: BoolArray | None = self._first_mask(sample)
        before: list[Click] = []
        for row in rows:
            assert kept is not None
            click = Click(row["x"], row["y"], row["positive"])
            self._judge(sample, kept, before, click)
            before.append(click)
            previous, kept = kept, _decoded(row)
            if kept is None:
                return
            self._measure(sample, boundary, row, kept, previous)

    def _first_mask(self, sample: Sample) -> BoolArray:
        if self._protocol.initial_masks and sample.initial is not None and not self._protocol.budget:
            return sample.initial
        return np.zeros(sample.target.shape, dtype=bool)

    def _judge(self, sample: Sample, kept: BoolArray, before: Sequence[Click], click: Click) -> None:
        if self._policy.name == REPLAY:
            self._judge_recorded(sample.id, before, click)
            return
        self.clicks += 1
        if self._protocol.budget:
            expected = budget_points(self._protocol.budget, sample.target)[0]
            if click != expected:
                self._problems.add(
                    "point that does not follow from the target",
                    f"{sample.id!r} ({_text(click)}, not {_text(expected)})",
                )
            return
        if sample.first_click is not None and not before:
            if click != sample.first_click:
                self._problems.add(
                    "first click that is not the sample's own",
                    f"{sample.id!r} ({_text(click)}, not {_text(sample.first_click)})",
                )
            return
        judgement = judge_click(
            self._policy,
            sample.target,
            kept,
            before,
            click,
            seed=self._protocol.seed,
            sample=sample.id,
        )
        if judgement == "moved":
            self.moved += 1
        elif judgement == "wrong":
            expected = self._policy.simulate(sample.target, kept, before, seed=self._protocol.seed, sample=sample.id)
            self._problems.add(
                "click that does not follow from the mask before it",
                f"{sample.id!r}, click {len(before) + 1} ({_text(click)}, not {_text(expected)})",
            )

    def _judge_recorded(self, sample: str, before: Sequence[Click], click: Click) -> None:
        """Hold a click against the recording; without one there is nothing to hold it against."""
        recording = self._protocol.recording
        if recording is None:
            return
        self.clicks += 1
        recorded = recording.clicks.get(sample, ())[len(before) : len(before) + 1]
        if list(recorded) != [click]:
            said = f"not {_text(recorded[0])}" if recorded else "after the last recorded one"
            example = f"{sample!r}, click {len(before) + 1} ({_text(click)}, {said})"
            self._problems.add("click that is not the recorded one", example)

    def _measure(
        self, sample: Sample, boundary: TargetBoundary, row: Row, kept: BoolArray, previous: BoolArray
    ) -> None:
        self.measured += 1
        where = f"{sample.id!r}, click {row['click']}"
        for name, found in (("iou", iou(sample.target, kept)), ("boundary_iou", boundary.iou(kept))):
            if not same(row[name], found):
                self._problems.add(f"{name} that its mask does not have", f"{where} ({row[name]}, {found})")
        if row["candidate_masks"] is None:
            return
        every = np.stack([_mask(counts, row) for counts in row["candidate_masks"]])
        ious = [iou(sample.target, mask) for mask in every]
        for number, (said, found) in enumerate(zip(row["candidate_ious"], ious, strict=True)):
            if not same(said, found):
                example = f"{where}, candidate {number} ({said}, {found})"
                self._problems.add("candidate's IoU that its mask does not have", example)
        if not np.array_equal(every[row["kept"]], kept):
            self._problems.add("mask that is not its kept candidate's", where)
        chosen = choose(
            self._protocol.selection,
            row["click"],
            Candidates(every, row["candidate_scores"]),
            ious,
            previous,
        )
        if chosen != row["kept"]:
            kind = f"candidate that the selection '{self._protocol.selection}' does not keep, by its masks"
            self._problems.add(kind, f"{where} ({row['kept']}, not {chosen})")


def _distances(errors: BoolArray, clicked: Sequence[Click]) -> Float32Array:
    """Distance of every error to what is none; 0 where it was clicked before. float32 (height, width)."""
    found = transform(np.pad(errors, 1).astype(np.uint8))[1:-1, 1:-1].copy()
    for click in clicked:
        found[click.y, click.x] = 0
    return found


def _decoded(row: Row) -> BoolArray | None:
    return None if row["mask"] is None else _mask(row["mask"], row)


def _mask(counts: bytes, row: Row) -> BoolArray:
    return masks.decode({"size": [row["height"], row["width"]], "counts": counts})


def _text(click: Click) -> str:
    return f"{click.x},{click.y},{'+' if click.positive else '-'}"
