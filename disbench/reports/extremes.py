"""How far the choice of clicks moves a method: the worst and the best of several, beside the standard click."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from disbench.core.click_policies import EXTREMES
from disbench.core.statistics import bootstrap_interval
from disbench.harness.measures import MEASURES, SOLVED
from disbench.harness.sample_loop import read_trials
from disbench.reports.depth import Series, setting_but_policy
from disbench.reports.entries import Entry, alike
from disbench.reports.render.table import DASH, Cell, Column, Table

CAPTION = (
    "Standard: the protocol's click. Worst, best: at each click the candidate after which the method's IoU is smallest "
    "(largest), of several that are spread over the error, the standard click among them. Bounds of what was tried, "
    "not of what exists; beyond click 1 each choice is greedy. Δ: AuC of the best less that of the worst, x 100, mean "
    "over samples with its 95 % bootstrap interval. IoU@1 ±: mean over samples of the population deviation over all "
    "candidates of the first click."
)


def extremes(entries: Sequence[Entry]) -> list[Series]:
    """Runs with the standard click, and those with the worst and the best of equally many candidates, in this order."""
    found = []
    for runs in alike(entries, setting_but_policy).values():
        base = next((run for run in runs if run.record.protocol.policy == "center"), None)
        tried = [run for run in runs if run.record.protocol.click_policy.name in EXTREMES]
        for pair in alike(tried, lambda run: run.record.protocol.click_policy.options["candidates"]).values():
            by_name = {run.record.protocol.click_policy.name: run for run in pair}
            if base is not None and len(by_name) == len(EXTREMES):
                found.append(Series(base, tuple(by_name[name] for name in EXTREMES)))
    return found


def extremes_table(found: Sequence[Series]) -> Table:
    """A row for each series."""
    heads = ("worst", "standard", "best")
    columns = [Column(name, number=False) for name in ("Dataset", "Method", "Candidates")]
    columns += [Column(name, group) for group in ("AuC", f"NoC@{SOLVED}") for name in heads]
    columns += [Column("Δ"), Column("IoU@1 ±")]
    return Table("extremes", "Extreme clicks", CAPTION, tuple(columns), tuple(map(_row, found)), {})


def _row(series: Series) -> tuple[Cell, ...]:
    worst, best = series.slices
    count = worst.record.protocol.click_policy.options["candidates"]
    cells = [Cell(series.base.dataset_name), Cell(series.base.label), Cell(f"{count:g}")]
    for name in ("auc", f"noc_{SOLVED}"):
        values = [run.values[name] for run in (worst, series.base, best)]
        cells += [Cell(DASH if v.number is None else MEASURES[name].text(v.number), value=v.number) for v in values]
    if any(run.values["auc"].number is None for run in (worst, best)):
        return (*cells, Cell(DASH), Cell(DASH))
    _, (low, high) = series.values(MEASURES["auc"])
    ends = bootstrap_interval(100 * (high - low))
    mean = float(100 * (high - low).mean())
    cells.append(Cell(f"{mean:.1f}", interval=", ".join(f"{end:.1f}" for end in ends), value=mean, ends=ends))
    first = [
        [t["iou"] for t in row["trials"] if t["iou"] is not None] for row in read_trials(best.run) if row["click"] == 1
    ]
    spreads = [np.std(ious) for ious in first if ious]
    return (*cells, Cell(f"{np.mean(spreads):.3f}" if spreads else DASH))
