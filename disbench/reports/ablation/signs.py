"""The sign of each component's difference in an ablation, as measured and as printed in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import product

import numpy as np

from disbench.core.arrays import FloatArray
from disbench.core.errors import InputError
from disbench.reports.ablation.plans import AblationPlan, Contrast
from disbench.reports.ablation.rows import CellRun, Estimate, Quantity, Results, estimate
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
