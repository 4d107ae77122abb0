"""Sensitivity of methods to the choice of clicks: slices of depth, worst and best candidates, recorded first clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from disbench.core.arrays import BoolArray, FloatArray
from disbench.core.click_policies import EXTREMES
from disbench.core.errors import InputError
from disbench.core.metrics import difference_of_groups, difference_to_base, spread
from disbench.core.statistics import bootstrap_interval
from disbench.harness.measures import MEASURES, SOLVED, Measure, UnavailableError
from disbench.harness.sample_loop import FIRST, StoredFirstClicks, read_trials
from disbench.reports.curves import Curve, Panel
from disbench.reports.entries import Entry, alike, run_label
from disbench.reports.render import DASH, Cell, Column, Footnotes, Table, counted, number_cell, plain

_DEPTH = (
    "Standard: the protocol's click, in the middle of the largest error. D1 to D10: clicks drawn from ten slices of "
    "equal mass of the error's distance transform, shallowest first. Mean ±: mean and population standard deviation "
    "over slices, averaged over samples. To standard: mean of the slices minus the standard click; D1 − D10: the "
    "shallowest minus the deepest; for NoC, relative to the subtrahend, per sample. NSR: deviation over mean, "
    "averaged over samples. In brackets: 95 % bootstrap intervals over samples. Slices show how sensitive a method is "
    "to click depth, not how people click."
)
_EXTREMES = (
    "Standard: the protocol's click. Worst, best: of several candidate clicks spread over the error, including the "
    "standard one, the click with the lowest (highest) resulting IoU. The results bound the clicks tried, not all "
    "possible clicks; after click 1 each choice is greedy. Δ: AuC of best minus worst, x 100, mean over samples with "
    "its 95 % bootstrap interval. IoU@1 ±: population standard deviation over the candidates of the first click, "
    "averaged over samples."
)
_FIRST_CLICKS = (
    "IoU after one click: the protocol's standard click, and each recorded first click of a sample. The candidate "
    "with the highest score counts; best: the one with the highest IoU. other@t: share of clicks where the candidate "
    "with the highest score has an IoU below t % and another one reaches it. Recorded clicks: mean over a sample's "
    "clicks, averaged over samples; ±: population standard deviation over clicks, averaged over samples; NSR: that "
    "deviation over the mean (where it is not 0), averaged over samples. Difference: recorded minus standard. In "
    "brackets: 95 % bootstrap intervals over samples. Off target: recorded clicks outside the object; they count like "
    "the others."
)
_TABLE_MEASURES = (f"noc_{SOLVED}", f"nof_{SOLVED}_ritm", "auc", "boundary_auc")
_PANEL_MEASURES = (f"noc_{SOLVED}", "auc")
_PERCENTS = (75, 90)
_IOU, _SIGNED = "{:.3f}".format, "{:+.3f}".format


@dataclass(frozen=True)
class Series:
    """A method's run with the standard click, and its runs with every slice, or with the worst and best clicks."""

    base: Entry
    slices: tuple[Entry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """D1, D2, ..."""
        return tuple(entry.conditions["click policy"] for entry in self.slices)

    def values(self, measure: Measure) -> tuple[FloatArray, FloatArray]:
        """A measure with the standard click (samples,) and the slices (slices, samples); raises `UnavailableError`."""
        assert measure.by_sample is not None
        base, *slices = (np.asarray(measure.by_sample(run.rows), np.float64) for run in (self.base, *self.slices))
        if not all(np.isfinite(values).all() for values in (base, *slices)):
            raise UnavailableError("the value of some sample is not a number")
        return base, np.stack(slices)


def _complete_series(
    entries: Sequence[Entry],
    policies: Sequence[str],
    same: Callable[[Entry], object],
    place: Callable[[Entry], float],
    count: Callable[[Entry], float],
) -> list[Series]:
    """The series with the standard click and all `count` runs, on the same samples under one protocol."""
    found = []
    for runs in alike(entries, _setting_but_policy).values():
        base = next((run for run in runs if run.record.protocol.policy == "center"), None)
        others = [run for run in runs if run.record.protocol.click_policy.name in policies]
        for group in alike(others, same).values():
            by_place = {place(run): run for run in group}
            if base is not None and len(by_place) == count(group[0]):
                found.append(Series(base, tuple(by_place[at] for at in sorted(by_place))))
    return found


def _setting_but_policy(run: Entry) -> tuple[Any, ...]:
    """Key of runs that differ only in the click policy."""
    conditions = [value for name, value in run.conditions.items() if name not in ("click policy", "seed")]
    protocol = run.record.protocol
    rest = (run.label, run.build, run.dataset_key, protocol.threshold, run.rows.stop_at, protocol.preset)
    return (*rest, *conditions, tuple(run.rows.samples))


def _option(name: str, run: Entry) -> float:
    return run.record.protocol.click_policy.options[name]


def depth_series(entries: Sequence[Entry]) -> list[Series]:
    """The complete series of slices among runs, shallowest slice first."""

    def same(run: Entry) -> tuple[float, ...]:
        return _option("of", run), _option("power", run), run.record.protocol.seed

    return _complete_series(entries, ("slice",), same, partial(_option, "group"), partial(_option, "of"))


def depth_tables(series: Sequence[Series]) -> list[Table]:
    """One table per set of slices, one row per dataset, method and measure."""
    tables: list[Table] = []
    for names, ones in alike(series, lambda one: one.names).items():
        after = ("mean ±", "to standard", f"{names[0]} − {names[-1]}", "NSR")
        columns = [Column(name, number=False) for name in ("Dataset", "Method", "Measure")]
        columns += map(Column, ("standard", *names, *after))
        rows = [_depth_row(one, MEASURES[name]) for one in ones for name in _TABLE_MEASURES]
        name = "depth" if not tables else f"depth-{len(tables) + 1}"
        tables.append(Table(name, "Depth of clicks", _DEPTH, tuple(columns), tuple(rows), {}))
    return tables


def depth_panels(series: Sequence[Series]) -> list[Panel]:
    """NoC and AuC against the depth of clicks, two panels per dataset."""
    panels = []
    for (name, _, policies), ones in alike(series, lambda one: (*one.base.dataset_key, one.names)).items():
        for measure in map(MEASURES.__getitem__, _PANEL_MEASURES):
            curves = []
            for style, one in enumerate(ones):
                numbers = [run.values[measure.name].number for run in (*one.slices, one.base)]
                values = np.array([np.nan if number is None else number for number in numbers])
                curves.append(Curve(one.base.label, "", values, style))
            labels = ("Depth of clicks (std: the standard click)", measure.title, (*policies, "std"))
            panels.append(Panel(f"{name}: {measure.title}", tuple(curves), (), *labels))
    return panels


def _depth_row(series: Series, measure: Measure) -> tuple[Cell, ...]:
    head = (Cell(series.base.dataset_name), Cell(series.base.label), Cell(measure.title))
    try:
        base, slices = series.values(measure)
    except UnavailableError:
        return (*head, *[Cell(DASH)] * (5 + len(series.slices)))
    relative = measure.unit == "clicks"
    apart = (difference_to_base(slices, base, relative=relative), difference_of_groups(slices, relative=relative))
    if measure.unit == "samples":
        sums = np.concatenate([base.sum(keepdims=True), slices.sum(axis=1)])
        numbers = [number_cell(float(value), lambda value: measure.text(round(value))) for value in sums]
        over = f"{sums[1:].mean():.1f} ± {sums[1:].std():.1f}"
        return (*head, *numbers, Cell(over), *(_mean(len(base) * one, "{:+.1f}".format) for one in apart), Cell(DASH))
    numbers = [number_cell(float(values.mean()), measure.text) for values in (base, *slices)]
    found = spread(slices)
    over = " ± ".join(measure.text(float(part.mean())) for part in found[:2])
    form: Callable[[float], str] = (lambda value: f"{100 * value:+.1f} %") if relative else _SIGNED
    nsr = found.nsr[np.isfinite(found.nsr)]
    return (*head, *numbers, Cell(over), *(_mean(one, form) for one in apart), _plain_mean(nsr))


def _mean(values: FloatArray, text: Callable[[float], str] = _IOU) -> Cell:
    """A mean over samples with its interval."""
    return number_cell(float(values.mean()), text, bootstrap_interval(values))


def _plain_mean(values: FloatArray) -> Cell:
    return Cell(_IOU(values.mean()) if len(values) else DASH)


def extremes(entries: Sequence[Entry]) -> list[Series]:
    """Series of the standard click with the worst and best of the same number of candidates, in this order."""

    def place(run: Entry) -> int:
        return EXTREMES[run.record.protocol.click_policy.name]

    return _complete_series(entries, tuple(EXTREMES), partial(_option, "candidates"), place, lambda _: len(EXTREMES))


def extremes_table(found: Sequence[Series]) -> Table:
    """One row per series."""
    heads = ("worst", "standard", "best")
    columns = [Column(name, number=False) for name in ("Dataset", "Method", "Candidates")]
    columns += [Column(name, group) for group in ("AuC", f"NoC@{SOLVED}") for name in heads]
    columns += [Column("Δ"), Column("IoU@1 ±")]
    return Table("extremes", "Extreme clicks", _EXTREMES, tuple(columns), tuple(map(_extremes_row, found)), {})


def _extremes_row(series: Series) -> tuple[Cell, ...]:
    worst, best = series.slices
    cells = [Cell(series.base.dataset_name), Cell(series.base.label), Cell(f"{_option('candidates', worst):g}")]
    for name in ("auc", f"noc_{SOLVED}"):
        numbers = [run.values[name].number for run in (worst, series.base, best)]
        cells += [Cell(DASH) if one is None else number_cell(one, MEASURES[name].text) for one in numbers]
    if any(run.values["auc"].number is None for run in (worst, best)):
        return (*cells, Cell(DASH), Cell(DASH))
    _, (low, high) = series.values(MEASURES["auc"])
    first = [row["trials"] for row in read_trials(best.run) if row["click"] == 1]
    ious = [[trial["iou"] for trial in trials if trial["iou"] is not None] for trials in first]
    deviations = np.array([np.std(own) for own in ious if own])
    return (*cells, _mean(100 * (high - low), "{:.1f}".format), _plain_mean(deviations))


@dataclass(frozen=True)
class FirstClickNumbers:
    """Measures of a run; arrays are float64 (samples,), pairs are (standard click, mean over recorded clicks).

    `others` is, for each of `_PERCENTS`, the share of clicks where a candidate reaches it but the chosen one does not.
    """

    label: str
    dataset: str
    command: str
    clicks: int
    off_target: int
    failed: int
    candidates: int
    standard: FloatArray
    recorded: FloatArray
    deviation: FloatArray
    nsr: FloatArray
    best: tuple[FloatArray, FloatArray]
    others: tuple[tuple[FloatArray, FloatArray], ...]


def read_first_click_numbers(run: StoredFirstClicks) -> FirstClickNumbers:
    """Compute the measures of a run; a sample with a failure has an IoU of 0 at every click.

    Raises:
        InputError: a file is damaged or does not match `run.json`.
    """
    columns = ["sample", "user", "iou", "on_target", "kept", "candidate_ious", "failure"]
    rows = run.rows().select(columns).to_pylist()
    samples = alike(rows, lambda row: row["sample"])
    if len(samples) != run.record.result.samples or not samples:
        raise InputError(f"{run.folder / FIRST}: {len(samples)} samples, which does not match run.json; run it again")
    failed = {row["sample"] for row in rows if row["failure"] is not None}
    chosen = np.array([0.0 if row["sample"] in failed else row["iou"] for row in rows])
    best = np.array([0.0 if row["sample"] in failed else max(row["candidate_ious"]) for row in rows])
    ends = np.cumsum([len(own) for own in samples.values()])[:-1]

    def both(values: FloatArray | BoolArray) -> tuple[FloatArray, FloatArray]:
        """Per sample: the value of the standard click, and the mean over recorded clicks."""
        parts = np.split(values.astype(np.float64), ends)
        real = [part[1:] if len(part) > 1 else np.zeros(1) for part in parts]  # a failure may leave only the first row
        return np.array([part[0] for part in parts]), np.array([part.mean() for part in real])

    def by_another(percent: int) -> BoolArray:
        goal = np.float32(percent / 100)
        return (chosen.astype(np.float32) < goal) & (best.astype(np.float32) >= goal)

    spreads = [spread(part[1:]) for part in np.split(chosen, ends) if len(part) > 1]
    standard, recorded = both(chosen)
    dataset, real = run.record.dataset, [row for row in rows if row["user"] is not None]
    return FirstClickNumbers(
        label=run_label(run.record),
        dataset=plain(f"{dataset.name} ({dataset.content_hash[:8]})"),
        command=run.record.command,
        clicks=len(real),
        off_target=sum(not row["on_target"] for row in real),
        failed=len(failed),
        candidates=max(len(row["candidate_ious"]) for row in rows),
        standard=standard,
        recorded=recorded,
        deviation=np.array([float(one.deviation) for one in spreads]),
        nsr=np.array([float(one.nsr) for one in spreads if one.mean]),
        best=both(best),
        others=tuple(both(by_another(percent)) for percent in _PERCENTS),
    )


def first_clicks_table(runs: Sequence[FirstClickNumbers]) -> Table:
    """One row per run."""
    notes, names = Footnotes(), ("IoU@1", "best", *(f"other@{percent}" for percent in _PERCENTS))
    columns = (
        *(Column(name, number=False) for name in ("Dataset", "Method")),
        *(Column(name) for name in ("Samples", "Clicks", "Off target")),
        *(Column(name, "Standard click") for name in names),
        *(Column(name, "Recorded clicks") for name in (names[0], "±", "NSR", *names[1:])),
        Column("Difference"),
    )
    rows = []
    for run in runs:
        failure = (
            f"the method failed on {counted(run.failed, 'sample')}, or they cannot be read; they count with an IoU of 0"
        )
        pairs = (run.best, *run.others)
        rest = [[_mean(one) if run.candidates > 1 else Cell(DASH) for one in ones] for ones in zip(*pairs, strict=True)]
        rows.append(
            (
                Cell(run.dataset),
                Cell(run.label, notes.marks(failure if run.failed else "")),
                *(number_cell(count, "{:,}".format) for count in (len(run.standard), run.clicks, run.off_target)),
                _mean(run.standard),
                *rest[0],
                _mean(run.recorded),
                *map(_plain_mean, (run.deviation, run.nsr)),
                *rest[1],
                _mean(run.recorded - run.standard, _SIGNED),
            )
        )
    return Table("first-clicks", "First clicks of people", _FIRST_CLICKS, columns, tuple(rows), notes.by_mark())
