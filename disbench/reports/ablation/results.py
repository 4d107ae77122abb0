"""The measured rows of an ablation, and the signs of its contrasts beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import FloatArray
from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach
from disbench.core.statistics import bootstrap_interval
from disbench.harness.measures import NOT_A_NUMBER
from disbench.harness.store import RUN, StoredRun
from disbench.reports.ablation.plans import RUNS, AblationPlan, Contrast, RowRecord, read_record, recorded
from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.paper.definitions import PaperTable
from disbench.reports.paper.rows import NOT_PRINTED, NOT_RUN

HOW = (
    "Measured: after less before on the same samples, mean over seeds. Over samples: 95 % percentile bootstrap of the "
    "paired differences (exact for clicks and failures). Over seeds: 95 % t interval of the seeds' differences; of one "
    "seed there is none, and no interval then tells how another training would have come out. Finding: holds, against: "
    "every interval that there is excludes 0, on the paper's side or on the other; better, worse: likewise, where the "
    "paper prints no difference or 0; not decided: some interval has 0 in it. Nothing is corrected for the number of "
    "differences. Of NoC and NoF less is better, of mIoU@1 (after the first click) more; NoF counts by RITM's rule."
)


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
    """The run of a row and seed."""

    record: RowRecord
    entry: Entry

    def values(self, quantity: Quantity) -> FloatArray:
        """The quantity of each sample, float64 (samples,); 1 for a failure, else 0."""
        rows = self.entry.rows
        if quantity.kind == "iou":
            return np.array([row[0] for row in rows.ious], dtype=np.float64)
        clicks = clicks_to_reach(rows.ious, quantity.percent / 100, rows.max_clicks)
        return np.asarray(clicks == rows.max_clicks if quantity.kind == "nof" else clicks, dtype=np.float64)

    def missing(self, quantity: Quantity) -> str:
        """Why there are no values; "" if there are."""
        if quantity.percent and not self.entry.rows.reaches(quantity.percent):
            return self.entry.rows.without_curves
        if quantity.kind == "iou" and any(math.isnan(row[0]) for row in self.entry.rows.ious):
            return NOT_A_NUMBER
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
    found: dict[tuple[str, str], dict[int, CellRun]] = {}
    for entry in read_entries(find_runs(list(records))):
        record = records[entry.run.folder]
        _check_options(entry.run, record)
        found.setdefault((record.row, entry.dataset), {})[record.seed] = CellRun(record, entry)
    _check_comparable([run for seeds in found.values() for run in seeds.values()])
    return found


def _check_options(run: StoredRun, record: RowRecord) -> None:
    options = run.record.method.options
    for name, value in record.method.items():
        if options.get(name) != value:
            raise InputError(
                f"{run.folder}: {name} = {options.get(name)!r}, where its row has {value!r}; run the ablation again "
                "with --existing overwrite"
            )


def _check_comparable(runs: Sequence[CellRun]) -> None:
    """Check that all rows have one budget, and all runs on a dataset one protocol and the same samples."""
    first_of: dict[str, CellRun] = {}
    for own in runs:
        first = first_of.setdefault(own.entry.dataset, own)
        if own.record.length != runs[0].record.length:
            raise InputError(
                f"{own.entry.run.folder} is trained for {own.record.budget} and {runs[0].entry.run.folder} for "
                f"{runs[0].record.budget}; rows are compared at one budget: name another --out for the other"
            )
        if _how(own.entry) != _how(first.entry):
            raise InputError(
                f"{own.entry.run.folder} and {first.entry.run.folder} differ in samples or protocol; measure all rows "
                "with the same --every, --limit and --stop-at"
            )


def _how(entry: Entry) -> tuple[object, ...]:
    return entry.content_hash, dict(entry.conditions), entry.threshold, entry.stop_at, list(entry.rows.samples)


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


@dataclass(frozen=True, slots=True)
class PaperDifference:
    """The paper's numbers of a contrast or "", after minus before, and the source if that is not the table."""

    before: str = ""
    after: str = ""
    difference: Decimal | None = None
    source: str = ""

    @property
    def side(self) -> int:
        """The sign of the difference; 0 if none is printed."""
        return 0 if self.difference is None else (self.difference > 0) - (self.difference < 0)

    @property
    def text(self) -> str:
        """As tables print it."""
        if self.difference is None:
            return NOT_PRINTED
        return f"{self.difference:+}".replace("-", "−") if self.difference else str(self.difference)


@dataclass(frozen=True, slots=True)
class Sign:
    """A measured difference beside the printed one.

    Attributes:
        dataset: name of its card.
        before: mean of the row without the component, or None.
        after: mean of the row with it, or None.
        ours: after minus before, or None.
        seeds: those that both rows have.
        missing: why there is no difference, or "".
    """

    contrast: Contrast
    dataset: str
    quantity: Quantity
    paper: PaperDifference
    before: float | None = None
    after: float | None = None
    ours: Estimate | None = None
    seeds: tuple[int, ...] = ()
    samples: int = 0
    missing: str = ""

    @property
    def agreement(self) -> str:
        """Whether the mean has the printed sign, significant or not; "" where one of the two is missing."""
        side = 0 if self.ours is None else (self.ours.mean > 0) - (self.ours.mean < 0)
        return "" if not side or not self.paper.side else "same" if side == self.paper.side else "opposite"

    @property
    def finding(self) -> str:
        """As `HOW` explains."""
        if self.ours is None:
            return self.missing
        if not self.ours.side:
            return "not decided"
        if self.paper.side:
            return "holds" if self.ours.side == self.paper.side else "against"
        return "better" if self.ours.side == self.quantity.better else "worse"


@dataclass(frozen=True)
class MeasuredAblation:
    """A plan with its measured rows, and the paper's table if there is one."""

    plan: AblationPlan
    paper: PaperTable | None
    results: Results

    @cached_property
    def quantities(self) -> list[Quantity]:
        """The measures of the paper's table, NoC@90, NoF@90, and the IoU at the first click."""
        printed = {Quantity(measure.kind, measure.percent) for measure in self.paper.measures} if self.paper else set()
        wanted = printed | {Quantity("noc", 90), Quantity("nof", 90)}
        return [*sorted(wanted, key=lambda quantity: quantity.key), Quantity("iou")]

    @cached_property
    def datasets(self) -> list[str]:
        """The measured datasets, the plan's first."""
        measured = [dataset for _, dataset in self.results]
        return list(dict.fromkeys([*(d.name for d in self.plan.datasets if d.name in measured), *measured]))

    @cached_property
    def signs(self) -> list[Sign]:
        """Every contrast, dataset and quantity; `InputError` if the plan names a row that the paper's table lacks."""
        places = product(self.plan.contrasts, self.datasets, self.quantities)
        return [self._sign(contrast, dataset, quantity) for contrast, dataset, quantity in places]

    def _sign(self, contrast: Contrast, dataset: str, quantity: Quantity) -> Sign:
        paper = self._printed(contrast, dataset, quantity)
        before, after = (self.results.get((row, dataset), {}) for row in contrast.rows)
        seeds = tuple(sorted(before.keys() & after.keys()))
        runs = [runs[seed] for runs in (before, after) for seed in seeds]
        missing = next(filter(None, (run.missing(quantity) for run in runs)), "") if runs else NOT_RUN
        if missing:
            return Sign(contrast, dataset, quantity, paper, missing=missing)
        of_before, of_after = (values_of([runs[seed] for seed in seeds], quantity) for runs in (before, after))
        return Sign(
            contrast,
            dataset,
            quantity,
            paper,
            before=estimate(of_before, quantity).mean,
            after=estimate(of_after, quantity).mean,
            ours=estimate(of_after - of_before, quantity),
            seeds=seeds,
            samples=of_before.shape[1],
        )

    def _printed(self, contrast: Contrast, dataset: str, quantity: Quantity) -> PaperDifference:
        if contrast.noc is not None and quantity == Quantity("noc", 90):
            return PaperDifference(difference=Decimal(str(contrast.noc)), source=contrast.source)
        before, after = (self._number(self.plan.row(row).paper, dataset, quantity) for row in contrast.rows)
        return PaperDifference(before, after, Decimal(after) - Decimal(before) if before and after else None)

    def _number(self, row: str, dataset: str, quantity: Quantity) -> str:
        if self.paper is None or not row:
            return ""
        if row not in self.paper.rows:
            raise InputError(f"{self.paper.name}: no row {row!r}; correct the ablation that names it")
        columns = [
            measure.column
            for measure in self.paper.measures
            if measure.dataset.card == dataset and (measure.kind, measure.percent) == (quantity.kind, quantity.percent)
        ]
        return self.paper.printed(row).numbers.get(columns[0], "") if columns else ""


def values_of(runs: Sequence[CellRun], quantity: Quantity) -> FloatArray:
    """The quantity for each seed and sample: (seeds, samples)."""
    return np.stack([run.values(quantity) for run in runs])
