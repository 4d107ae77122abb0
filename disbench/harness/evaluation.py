"""`evaluate`: run a method on samples in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from disbench.core import metrics
from disbench.core.arrays import Float32Array, FloatArray
from disbench.core.choices import Selection, Store
from disbench.core.click_policies import is_replay
from disbench.core.errors import InputError
from disbench.core.prediction import Method
from disbench.core.samples import Sample, SampleSource
from disbench.harness.protocol import Protocol, check_samples, with_recording
from disbench.harness.sample_loop import TargetsTask
from disbench.harness.store import ClickRow, split_by_sample, to_table
from disbench.harness.tasks import Reader, RowFinished, run_chunk


@dataclass(frozen=True)
class Results:
    """The outcome of an evaluation: one row per click, in the order of the samples."""

    rows: tuple[ClickRow, ...]
    protocol: Protocol

    @property
    def ious(self) -> dict[str, Float32Array]:
        """Sample -> IoU after each click; samples that ended early are padded as in `StoredRun.by_sample`."""
        protocol = self.protocol
        found = split_by_sample(self.to_table(), "iou", protocol.max_clicks, replayed=is_replay(protocol.policy))
        return {sample: ious.astype(np.float32) for sample, ious in found.items()}

    @property
    def failures(self) -> dict[str, str]:
        """Sample on which the method failed -> reason."""
        return {row.sample: row.failure for row in self.rows if row.failure is not None}

    def noc(self, threshold: float) -> float:
        """Mean number of clicks to reach an IoU (`disbench.core.metrics.noc`); IoU is 0 from a failed click on.

        ValueError for a run with a budget, which has no number of clicks.
        """
        return metrics.noc(self._by_click(), threshold, self.protocol.max_clicks)

    def nof(self, threshold: float, rule: metrics.FailureRule = "strict") -> int:
        """Number of samples that fail to reach an IoU (`disbench.core.metrics.nof`); errors as for `noc`."""
        return metrics.nof(self._by_click(), threshold, self.protocol.max_clicks, rule)

    def _by_click(self) -> list[Float32Array]:
        if budget := self.protocol.budget:
            raise ValueError(f"with a budget ({budget}) there is one IoU a sample, and no number of clicks")
        return list(self.ious.values())

    def miou_curve(self) -> FloatArray:
        """Mean IoU after each click (`disbench.core.metrics.miou_curve`); ValueError if samples ended early."""
        return metrics.miou_curve(list(self.ious.values()), self.protocol.max_clicks)

    def to_table(self) -> pa.Table:
        """The rows as an Arrow table with the schema of a stored run."""
        return to_table(self.rows)


def evaluate(
    method: Method,
    samples: SampleSource | Iterable[Sample],
    *,
    max_clicks: int = 20,
    threshold: float = 0.49,
    selection: Selection = "oracle-first",
    policy: str = "center",
    seed: int = 0,
    stop_at: float | None = None,
    initial_masks: bool = True,
    budget: str = "",
    store: Store = "none",
    batch: int = 1,
) -> Results:
    """Evaluate a method on samples, in this process, without a time limit.

    `disbench.harness.run_benchmark` does the same with worker processes, time limits and a stored run. See
    `disbench.harness.Protocol` for settings not described here.

    Args:
        method: any object with `open(image)`; see `disbench.core.prediction`.
        samples: a dataset (`disbench.datasets.cards.open_dataset`) or any iterable of samples with different ids.
        max_clicks: maximum number of clicks per sample; ignored with a budget.
        threshold: probabilities strictly above it belong to a mask.
        selection: how one of several candidates is selected: `oracle-first`, `oracle-all` or `score`.
        policy: how clicks are simulated; `replay:FILE,user=NAME` skips samples without recorded clicks.
        seed: seed of random policies.
        stop_at: end a sample at the first IoU that reaches this.
        initial_masks: start from a sample's initial mask if it has one.
        budget: for a method that gets all points at once and answers once per sample.
        store: which masks the rows contain, as run-length encodings: `none`, `kept` or `all`.
        batch: samples in lockstep, for a method with `predict_batch`.

    Returns:
        One row per click. A sample that cannot be read, or on which the method raises or returns a malformed
        prediction, fails; its row says why.

    Raises:
        InputError: duplicate sample ids, an unknown selection or policy, a batch for a method without
            `predict_batch`, or recorded clicks on an unknown sample or outside its image.
    """
    clicks = 1 if budget else max_clicks
    asked = Protocol(clicks, threshold, selection, policy, seed, stop_at, initial_masks, budget=budget)
    check_batch(method, batch)
    protocol = with_recording(asked)
    rows: dict[int, list[ClickRow]] = {}
    seen: list[str] = []
    readers, task = _readers(samples, protocol, seen), TargetsTask(protocol, store)
    while chunk := list(islice(readers, batch)):
        for event in run_chunk(method, chunk, task, batched=batch > 1):
            if isinstance(event, RowFinished) and isinstance(event.row, ClickRow):
                rows.setdefault(event.number, []).append(event.row)
    check_ids([of_sample[0].sample for of_sample in rows.values()])
    check_samples(protocol, seen)
    return Results(tuple(row for number in sorted(rows) for row in rows[number]), protocol)


def check_batch(method: Any, batch: int) -> None:
    """Raise InputError for a batch below 1, or above 1 for a method without `predict_batch`."""
    if batch < 1:
        raise InputError(f"batch = {batch}: must be at least 1")
    if batch > 1 and not hasattr(method, "predict_batch"):
        raise InputError(f"{type(method).__name__} has no 'predict_batch'; leave the batch at 1")


def _readers(samples: SampleSource | Iterable[Sample], protocol: Protocol, seen: list[str]) -> Iterator[Reader]:
    """Readers of the samples, with a recording only of those that have clicks; appends all ids to `seen`."""
    named: Iterable[tuple[str, Callable[[], Sample]]]
    if isinstance(samples, Iterable):
        named = ((sample.id, partial(lambda one: one, sample)) for sample in samples)
    else:
        named = ((name, partial(samples.read, number)) for number, name in enumerate(samples.ids))
    for number, (name, read) in enumerate(named):
        seen.append(name)
        if protocol.recording is None or name in protocol.recording.clicks:
            yield Reader(number, name, read)


def check_ids(ids: Sequence[str], where: str = "") -> None:
    """Raise InputError if two samples share an id."""
    shared = [name for name, count in Counter(ids).items() if count > 1]
    if shared:
        raise InputError(f"{where}two samples have the id {shared[0]!r}; give each its own")
