"""How a method's numbers move with the depth of its clicks: the standard click, and the slices D1 to D10."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from disbench.core.arrays import FloatArray
from disbench.core.metrics import difference_of_groups, difference_to_base, spread
from disbench.core.statistics import bootstrap_interval
from disbench.harness.measures import MEASURES, SOLVED, Measure, UnavailableError
from disbench.reports.curves import Curve, Panel
from disbench.reports.entries import Entry, alike
from disbench.reports.render.table import DASH, Cell, Column, Table

CAPTION = (
    "The standard click (the deepest error), and clicks drawn from slices of equal mass of the error's distance "
    "transform, the shallowest first; one run each. Mean ±: mean over samples of the mean and of the population "
    "deviation over the slices. To standard: their mean less the standard click's number; the next column: the "
    "shallowest slice less the deepest; NoC as a share of what is subtracted, mean over samples; in brackets 95 % "
    "bootstrap intervals over samples. NSR: deviation over mean, mean over samples. The slices show how sensitive a "
    "method is to the depth of clicks, not how people click."
)
_SHOWN = (f"noc_{SOLVED}", f"nof_{SOLVED}_ritm", "auc", "boundary_auc")
_DRAWN = (f"noc_{SOLVED}", "auc")


@dataclass(frozen=True)
class Series:
    """A method's run with the standard click, and those with every slice, the shallowest first."""

    base: Entry
    slices: tuple[Entry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """D1, D2, ..."""
        return tuple(entry.conditions["click policy"] for entry in self.slices)

    def values(self, measure: Measure) -> tuple[FloatArray, FloatArray]:
        """A measure of the standard click, (samples,), and of the slices, (slices, samples); may be unavailable."""
        assert measure.by_sample is not None
        base, *slices = (np.asarray(measure.by_sample(run.rows), np.float64) for run in (self.base, *self.slices))
        if not all(np.isfinite(values).all() for values in (base, *slices)):
            raise UnavailableError("the value of some sample is not a number")
        return base, np.stack(slices)


def depth_series(entries: Sequence[Entry]) -> list[Series]:
    """The complete series among runs: all slices and the standard click, on the same samples under one protocol."""
    found = []
    for runs in alike(entries, setting_but_policy).values():
        base = next((run for run in runs if run.record.protocol.policy == "center"), None)
        sliced = [run for run in runs if run.record.protocol.click_policy.name == "slice"]
        for of_kind in alike(sliced, lambda run: (_option(run, "of"), _option(run, "power"), _seed(run))).values():
            by_group = {_option(run, "group"): run for run in of_kind}
            if base is not None and len(by_group) == _option(of_kind[0], "of"):
                found.append(Series(base, tuple(by_group[group] for group in sorted(by_group))))
    return found


def depth_tables(series: Sequence[Series]) -> list[Table]:
    """A table for each set of slices: a row a measure of each method on each dataset."""
    tables: list[Table] = []
    for names, alike_ones in alike(series, lambda one: one.names).items():
        before = ("Dataset", "Method", "Measure")
        after = ("mean ±", "to standard", f"{names[0]} − {names[-1]}", "NSR")
        columns = (*(Column(name, number=False) for name in before), *map(Column, ("standard", *names, *after)))
        rows = [row for one in alike_ones for row in _rows(one)]
        name = "depth" if not tables else f"depth-{len(tables) + 1}"
        tables.append(Table(name, "Depth of clicks", CAPTION, columns, tuple(rows), {}))
    return tables


def depth_panels(series: Sequence[Series]) -> list[Panel]:
    """NoC and AuC against the depth of clicks, two panels a dataset."""
    panels = []
    for (dataset, *_), ones in alike(
        series, lambda one: (one.base.dataset_name, one.base.content_hash, one.names)
    ).items():
        for measure in map(MEASURES.__getitem__, _DRAWN):
            curves = []
            for style, one in enumerate(ones):
                numbers = [run.values[measure.name].number for run in (*one.slices, one.base)]
                values = np.array([np.nan if number is None else number for number in numbers])
                curves.append(Curve(one.base.label, "", values, style))
            names = (*ones[0].names, "std")
            title = f"{dataset}: {measure.title}"
            panels.append(
                Panel(title, tuple(curves), (), "Depth of clicks (std: the standard click)", measure.title, names)
            )
    return panels


def _rows(series: Series) -> list[tuple[Cell, ...]]:
    rows = []
    for measure in map(MEASURES.__getitem__, _SHOWN):
        head = (Cell(series.base.dataset_name), Cell(series.base.label), Cell(measure.title))
        try:
            base, slices = series.values(measure)
        except UnavailableError:
            rows.append((*head, *[Cell(DASH)] * (5 + len(series.slices))))
            continue
        counts = measure.unit == "samples"
        relative, scale = measure.unit == "clicks", len(base) if counts else 1

        def text(value: float, measure: Measure = measure, counts: bool = counts) -> str:
            return measure.text(round(value)) if counts else measure.text(value)

        means = [float(scale * values.mean()) for values in (base, *slices)]
        over = spread(scale * slices.mean(axis=1, keepdims=True) if counts else slices)
        shown = (
            f"{over.mean.mean():.1f} ± {over.deviation.mean():.1f}"
            if counts
            else " ± ".join(measure.text(float(part.mean())) for part in over[:2])
        )
        apart = (difference_to_base(slices, base, relative=relative), difference_of_groups(slices, relative=relative))
        nsr = over.nsr[np.isfinite(over.nsr)]
        rows.append(
            (
                *head,
                *(Cell(text(mean), value=mean) for mean in means),
                Cell(shown),
                *(_difference(scale * values, measure, relative) for values in apart),
                Cell(DASH if counts or not len(nsr) else f"{nsr.mean():.3f}"),
            )
        )
    return rows


def _difference(values: FloatArray, measure: Measure, relative: bool) -> Cell:
    """The mean of differences, with its interval."""
    form: Callable[[float], str] = (
        (lambda value: f"{100 * value:+.1f} %")
        if relative
        else (lambda value: f"{value:+.1f}" if measure.unit else f"{value:+.3f}")
    )
    mean, ends = float(values.mean()), bootstrap_interval(values)
    return Cell(form(mean), interval=", ".join(map(form, ends)), value=mean, ends=ends)


def setting_but_policy(run: Entry) -> tuple[Any, ...]:
    """What two runs share that differ in the click policy alone."""
    conditions = [value for name, value in run.conditions.items() if name not in ("click policy", "seed")]
    rest = (run.label, run.build, run.dataset_key, run.threshold, run.stop_at, run.record.protocol.preset)
    return (*rest, *conditions, tuple(run.rows.samples))


def _option(run: Entry, name: str) -> float:
    return run.record.protocol.click_policy.options[name]


def _seed(run: Entry) -> int:
    return run.record.protocol.seed
