"""One sample's loop: simulate a click, take the prediction, keep a candidate, measure (PROTOCOL "ritm")."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from disbench.core import masks
from disbench.core.arrays import BoolArray
from disbench.core.budgets import budget_points
from disbench.core.choices import Store
from disbench.core.clicks import Click
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.samples import Sample
from disbench.harness.candidates import Candidates, checked_candidates, choose
from disbench.harness.protocol import Protocol
from disbench.harness.store import CLICKS, SCHEMA, ClickRow, write_clicks
from disbench.harness.tasks import Loop


class SampleLoop(Loop):
    """The state of one sample while it is evaluated; the first click is made at once, the next by `take`."""

    def __init__(self, sample: Sample, protocol: Protocol, store: Store = "none", harness_seconds: float = 0.0) -> None:
        begun = time.perf_counter()
        super().__init__(sample.image, harness_seconds, _initial(sample, protocol))
        self.sample, self.protocol, self.store = sample, protocol, store
        self.clicks = []
        self._policy = protocol.click_policy
        if self._policy.recording is not None:
            self._policy.recording.check_inside(sample.id, sample.target.shape)
        self._boundary = TargetBoundary(sample.target)
        self._kept = first_mask(sample, protocol)
        self.pending = self._click()
        self.harness_seconds += time.perf_counter() - begun

    def take(self, prediction: object, keep: Callable[[int], None] = lambda _: None) -> ClickRow:
        """Check a prediction, keep one of its candidates, and measure it (`Loop.take`)."""
        begun, model_before = time.perf_counter(), self._model_seconds
        height, width = self.sample.target.shape
        found = checked_candidates(prediction, height, width, self.protocol.threshold)
        ious = tuple(iou(self.sample.target, mask) for mask in found.masks)
        kept = choose(self.protocol.selection, self.pending.click, found, ious, self._kept)
        keep(kept)
        self._kept = found.masks[kept]
        boundary_iou = self._boundary.iou(self._kept)
        mask, candidate_masks = self._stored(found, kept)
        stop_at = self.protocol.stop_at
        self.done = (
            self.pending.click >= self.protocol.max_clicks
            or (stop_at is not None and bool(np.float32(ious[kept]) >= np.float32(stop_at)))
            or self._policy.ends(self.sample.id, self.pending.click)
        )
        self.harness_seconds += time.perf_counter() - begun - (self._model_seconds - model_before)
        row: ClickRow = self._finished(
            self.pending,
            iou=ious[kept],
            boundary_iou=boundary_iou,
            kept=kept,
            candidates=len(found.masks),
            candidate_ious=ious,
            candidate_scores=found.scores,
            mask=mask,
            candidate_masks=candidate_masks,
        )
        if not self.done:
            begun = time.perf_counter()
            self.pending = self._click()
            self.harness_seconds += time.perf_counter() - begun
        return row

    def _click(self) -> ClickRow:
        """Make the next click, or all points of a budget, of which the row shows the first."""
        height, width = self.sample.target.shape
        if self.protocol.budget:
            self.clicks = budget_points(self.protocol.budget, self.sample.target)
            click, number = self.clicks[0], 1
        else:
            click, number = self._simulated(), len(self.clicks) + 1
            self.clicks.append(click)
        return ClickRow(self.sample.id, number, click.x, click.y, click.positive, height=height, width=width)

    def _simulated(self) -> Click:
        if self.sample.first_click is not None and not self.clicks:
            return self.sample.first_click
        return self._policy.simulate(
            self.sample.target, self._kept, self.clicks, seed=self.protocol.seed, sample=self.sample.id
        )

    def _stored(self, found: Candidates, kept: int) -> tuple[bytes | None, tuple[bytes, ...] | None]:
        if self.store == "none":
            return None, None
        if self.store == "kept":
            return masks.encode(found.masks[kept])["counts"], None
        every = tuple(masks.encode(mask)["counts"] for mask in found.masks)
        return every[kept], every


def first_mask(sample: Sample, protocol: Protocol) -> BoolArray:
    """The mask that the first click corrects, boolean (height, width): empty unless the sample has an initial one."""
    initial = _initial(sample, protocol)
    return np.zeros(sample.target.shape, dtype=bool) if initial is None else initial


def _initial(sample: Sample, protocol: Protocol) -> BoolArray | None:
    return sample.initial if protocol.initial_masks and not protocol.budget else None


@dataclass(frozen=True)
class TargetsTask:
    """The benchmark's own task, clicks on one target (`disbench.harness.tasks.Task`)."""

    protocol: Protocol
    store: Store = "none"

    schema = SCHEMA

    def begin(self, sample: Sample, harness_seconds: float) -> SampleLoop:
        """The loop of a sample."""
        return SampleLoop(sample, self.protocol, self.store, harness_seconds)

    def unread(self, sample: str, reason: str) -> ClickRow:
        """The only row of a sample that cannot be read."""
        return ClickRow(sample, 1, 0, 0, positive=False, failure=reason)

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `clicks.parquet`."""
        write_clicks(folder / CLICKS, tables)
