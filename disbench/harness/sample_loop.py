"""One sample's loop: simulate a click, take the prediction, keep a candidate, measure (PROTOCOL "ritm")."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from disbench.core import masks
from disbench.core.arrays import BoolArray
from disbench.core.budgets import budget_points
from disbench.core.choices import Store
from disbench.core.clicks import Click
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.prediction import RgbImage, Session
from disbench.core.samples import Sample
from disbench.harness.candidates import Candidates, checked_candidates, choose
from disbench.harness.protocol import Protocol
from disbench.harness.store import CLICKS, SCHEMA, ClickRow, to_table, write_clicks


class SampleLoop:
    """The state of one sample while it is evaluated (`disbench.harness.tasks.Loop`).

    The first click is made at once. The caller runs the method on `clicks` and passes the outcome to `take` or `fail`;
    each returns the finished row, and `take` makes the next click unless the sample is done. `harness_seconds` were
    spent on the sample before (reading it).
    """

    def __init__(self, sample: Sample, protocol: Protocol, store: Store = "none", harness_seconds: float = 0.0) -> None:
        self.sample, self.protocol, self.store = sample, protocol, store
        self.clicks: list[Click] = []
        self.session: Session | None = None
        self.done = False
        begun = time.perf_counter()
        self._policy = protocol.click_policy
        if self._policy.recording is not None:
            self._policy.recording.check_inside(sample.id, sample.target.shape)
        self._boundary = TargetBoundary(sample.target)
        self._kept = first_mask(sample, protocol)
        self._model_seconds = 0.0
        self._harness_seconds = harness_seconds
        self.pending = self._click()
        self._harness_seconds += time.perf_counter() - begun

    @property
    def image(self) -> RgbImage:
        """The sample's image."""
        return self.sample.image

    @property
    def initial(self) -> BoolArray | None:
        """The mask that the user corrects from, where the protocol uses it."""
        return _initial(self.sample, self.protocol)

    def spend(self, seconds: float) -> None:
        """Account for time that the method took for the pending click."""
        self._model_seconds += seconds

    def take(self, prediction: object, keep: Callable[[int], None] | None = None) -> ClickRow:
        """Check a prediction, keep one of its candidates (`keep` is called with its index), and measure it.

        Raises:
            MethodError: the prediction is malformed.
        """
        begun, model_before = time.perf_counter(), self._model_seconds
        height, width = self.sample.target.shape
        found = checked_candidates(prediction, height, width, self.protocol.threshold)
        ious = tuple(iou(self.sample.target, mask) for mask in found.masks)
        kept = choose(self.protocol.selection, self.pending.click, found, ious, self._kept)
        if keep is not None:
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
        self._harness_seconds += time.perf_counter() - begun - (self._model_seconds - model_before)
        row = self._finish(
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
            self._harness_seconds += time.perf_counter() - begun
        return row

    def fail(self, reason: str) -> ClickRow:
        """End the sample: the method failed on this click."""
        self.done = True
        return self._finish(failure=reason)

    def _click(self) -> ClickRow:
        """Make the next click, or all points of a budget, of which the row shows the first."""
        height, width = self.sample.target.shape
        if self.protocol.budget:
            self.clicks = budget_points(self.protocol.budget, self.sample.target)
            click, number = self.clicks[0], 1
        else:
            click, number = self._simulated(), len(self.clicks) + 1
            self.clicks.append(click)
        return ClickRow(
            sample=self.sample.id,
            click=number,
            x=click.x,
            y=click.y,
            positive=click.positive,
            height=height,
            width=width,
        )

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

    def _finish(self, **values: object) -> ClickRow:
        row = replace(
            self.pending,
            model_seconds=self._model_seconds,
            harness_seconds=self._harness_seconds,
            **values,  # type: ignore[arg-type]
        )
        self._model_seconds = self._harness_seconds = 0.0
        return row


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

    @property
    def schema(self) -> pa.Schema:
        """Schema of `clicks.parquet`."""
        return SCHEMA

    def begin(self, sample: Sample, harness_seconds: float) -> SampleLoop:
        """The loop of a sample."""
        return SampleLoop(sample, self.protocol, self.store, harness_seconds)

    def unread(self, sample: str, reason: str) -> ClickRow:
        """The only row of a sample that cannot be read."""
        return ClickRow(sample, 1, 0, 0, positive=False, failure=reason)

    def table(self, rows: Sequence[ClickRow]) -> pa.Table:
        """Rows as an Arrow table."""
        return to_table(rows)

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `clicks.parquet`."""
        write_clicks(folder / CLICKS, tables)
