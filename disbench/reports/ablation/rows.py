"""The measured rows of an ablation: means over seeds and samples, with both intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import Float32Array, FloatArray
from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach
from disbench.core.statistics import bootstrap_interval
from disbench.harness.store import RUN, StoredRun
from disbench.reports.ablation.plans import RUNS, RowRecord, read_record, recorded
from disbench.reports.entries import Entry, find_runs, read_entries


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is compared: clicks or failures (RITM's rule) to an IoU of `percent`, or the IoU at click 1."""

    kind: Literal["noc", "nof", "iou"]
    percent: int = 0

    @property
    def title(self) -> str:
        """The heading of its column."""
        return {"noc": f"NoC@{self.percent}", "nof": f"NoF@{self.percent}", "iou": "mIoU@1"}[self.kind]

    @property
    def key(self) -> str:
        """As in published columns: `noc90`."""
        return f"{self.kind}{self.percent}" if self.percent else "iou1"

    @property
    def better(self) -> int:
        """The sign of an improvement."""
        return 1 if self.kind == "iou" else -1

    def text(self, value: float, *, sign: bool = False) -> str:
        """A value, or with `sign` a difference, as tables print it."""
        places = {"noc": 2, "nof": 1, "iou": 3}[self.kind]
        size = f"{abs(value):.{places}f}"
        before = "−" if value < 0 else "+" if sign else ""
        return f"{before}{size}" if float(size) else size


@dataclass(frozen=True)
class CellRun:
    """The run of a row and seed; `ious`: sample -> IoU after each click."""

    record: RowRecord
    run: StoredRun
    entry: Entry
    ious: Mapping[str, Float32Array | FloatArray]

    def values(self, quantity: Quantity) -> FloatArray:
        """The quantity of each sample, float64 (samples,); 1 for a failure, else 0."""
        rows = list(self.ious.values())
        if quantity.kind == "iou":
            return np.array([row[0] for row in rows], dtype=np.float64)
        clicks = clicks_to_reach(rows, quantity.percent / 100, self.entry.max_clicks)
        return np.asarray(clicks == self.entry.max_clicks if quantity.kind == "nof" else clicks, dtype=np.float64)

    def missing(self, quantity: Quantity) -> str:
        """Why there are no values; "" if there are."""
        if quantity.percent and not self.entry.rows.reaches(quantity.percent):
            return self.entry.rows.without_curves
        if quantity.kind == "iou" and any(math.isnan(row[0]) for row in self.ious.values()):
            return "not available: the value of some sample is not a number"
        return ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and samples (for failures, their number).

    Attributes:
        samples: 95 % percentile bootstrap interval over samples of the seeds' mean; exact for clicks and failures.
        seeds: 95 % t interval over the seeds' means; None for one seed.
    """

    mean: float
    samples: tuple[float, float]
    seeds: tuple[float, float] | None

    @property
    def side(self) -> int:
        """The sign of the mean if every interval excludes 0, else 0."""
        if all(low > 0 for low, _ in self.intervals):
            return 1
        return -1 if all(high < 0 for _, high in self.intervals) else 0

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """The interval over samples and, with several seeds, the one over seeds."""
        return [self.samples, *([self.seeds] if self.seeds else [])]


Results = Mapping[tuple[str, str], Mapping[int, CellRun]]
"""(row, dataset) -> seed -> its run."""


def read_results(folder: Path) -> dict[tuple[str, str], dict[int, CellRun]]:
    """The finished runs in an ablation's folder.

    Raises:
        InputError: nothing is finished, a run or record is damaged, or budgets, samples or protocols differ.
    """
    records = {
        run.parent: read_record(cell) for cell in recorded(folder) for run in sorted(cell.glob(f"{RUNS}/*/{RUN}"))
    }
    if not records:
        raise InputError(f"{folder}: no row of an ablation is finished here; run disbench ablate to the end")
    runs = find_runs(list(records))
    found: dict[tuple[str, str], dict[int, CellRun]] = {}
    for run, entry in zip(runs, read_entries(runs), strict=True):
        record = records[run.folder]
        _check_options(run, record)
        own = CellRun(record, run, entry, dict(zip(entry.rows.samples, entry.rows.ious, strict=True)))
        found.setdefault((record.row, entry.dataset), {})[record.seed] = own
    _check_comparable([run for seeds in found.values() for run in seeds.values()])
    return found


def _check_options(run: StoredRun, record: RowRecord) -> None:
    options = run.record.method.options
    for name, value in record.method.items():
        if options.get(name) != value:
            raise InputError(
                f"{run.folder}: its run is not of the row beside it ({name} = {options.get(name)!r}, not {value!r}); "
                "run the ablation again with --existing overwrite"
            )


def _check_comparable(runs: Sequence[CellRun]) -> None:
    """Check that all rows have one budget, and all runs on a dataset one protocol and the same samples."""
    first_of: dict[str, CellRun] = {}
    for own in runs:
        first = first_of.setdefault(own.entry.dataset, own)
        if own.record.length != runs[0].record.length:
            raise InputError(
                f"{own.run.folder} is trained for {own.record.budget} and {runs[0].run.folder} for "
                f"{runs[0].record.budget}; rows are compared at one budget: name another --out for the other"
            )
        if _how(own) != _how(first) or list(own.ious) != list(first.ious):
            raise InputError(
                f"{own.run.folder} and {first.run.folder} differ in samples or protocol; measure all rows "
                "with the same --every, --limit and --stop-at"
            )


def _how(own: CellRun) -> tuple[object, ...]:
    entry = own.entry
    return entry.content_hash, dict(entry.conditions), entry.threshold, entry.stop_at


def estimate(values: npt.ArrayLike, quantity: Quantity) -> Estimate:
    """Mean and intervals of finite values or differences (seeds, samples); for failures, of their sum over samples."""
    given = np.asarray(values, dtype=np.float64)
    seeds, samples = given.shape
    scale = samples if quantity.kind == "nof" else 1
    low, high = bootstrap_interval(given.sum(axis=0))  # sums of whole numbers, unlike means, are exact
    by_seed = given.mean(axis=1) * scale
    return Estimate(float(by_seed.mean()), (low * scale / seeds, high * scale / seeds), _t_interval(by_seed))


def _t_interval(means: FloatArray) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None for one number."""
    from scipy.special import stdtrit  # noqa: PLC0415  (slow to load)

    if len(means) < 2:
        return None
    half = float(stdtrit(len(means) - 1, 0.975) * means.std(ddof=1) / math.sqrt(len(means)))
    return float(means.mean()) - half, float(means.mean()) + half
