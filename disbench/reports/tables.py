"""Tables and CSV of runs: what stands in each cell, and the footnotes that keep it honest."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from disbench.core.arrays import FloatArray
from disbench.reports.entries import Entry, by_dataset
from disbench.reports.render.table import Cell, Column, Footnotes, Table
from disbench.reports.render.text import DASH, counted, csv_text, listed, plain, seconds
from disbench.reports.summary import AT_CLICKS, PERCENTS, SOLVED, Estimate, Seconds, Summary

OVERVIEW = (85, 90)
"""IoUs of the overview, those of the paper's Table 1."""
NOF = (90, 95)
_EVERY_RUN = ("samples", "OpenCV")
"""Conditions that may differ within a row of the overview, so that its cells are marked instead."""


def reference(entries: Sequence[Entry], leave_out: Sequence[str] = ()) -> dict[str, str]:
    """The conditions that most runs share; of equally many, those that stand first."""
    found = Counter(tuple(_conditions(entry, leave_out).items()) for entry in entries)
    return dict(found.most_common(1)[0][0])


def reference_machine(entries: Sequence[Entry]) -> str:
    """Machine, processes and threads of most runs; of equally many, those that stand first."""
    return Counter(entry.execution for entry in entries).most_common(1)[0][0]


def clicks_table(entries: Sequence[Entry]) -> Table:
    """NoC and NoF of runs on the same samples."""
    notes, shared = Footnotes(), reference(entries)
    columns = (
        *_HEADINGS,
        *(Column(f"NoC@{percent}") for percent in PERCENTS),
        *(Column(rule, f"NoF@{percent}") for percent in NOF for rule in ("ritm", "strict")),
    )
    rows = tuple(
        (
            *_heading(entry, shared, notes),
            *(_noc(entry, percent, notes) for percent in PERCENTS),
            *(_nof(entry, percent, rule, notes) for percent in NOF for rule in ("ritm", "strict")),
        )
        for entry in entries
    )
    caption = f"Number of clicks with its 95 % interval, and number of failures. {_shared(shared)}"
    return Table("noc", _title(entries[0], "clicks"), caption, columns, rows, notes.by_mark())


def quality_table(entries: Sequence[Entry]) -> Table:
    """Mean IoUs after some clicks, samples never solved, and time of runs on the same samples."""
    notes, shared, machine = Footnotes(), reference(entries), reference_machine(entries)
    columns = (
        *_HEADINGS,
        *(Column(str(click), "mean IoU at click") for click in AT_CLICKS),
        *(Column(str(click), "boundary IoU at click") for click in AT_CLICKS),
        Column("never solved"),
        *(Column(which, "method s/click") for which in ("all", "first", "later")),
        Column("harness s/click"),
    )
    rows = tuple(
        (
            *_heading(entry, shared, notes),
            *_curve_cells(entry, entry.summary.miou, notes),
            *_curve_cells(entry, entry.summary.boundary, notes),
            _never_solved(entry, notes),
            *_times(entry, machine, notes),
        )
        for entry in entries
    )
    caption = (
        f"Mean IoU and mean boundary IoU, share of samples that never reach an IoU of {SOLVED / 100:.2f}, seconds a "
        f"click (opening the image is part of the first). {_shared(shared)} Seconds on {machine}."
    )
    return Table("quality", _title(entries[0], "quality and time"), caption, columns, rows, notes.by_mark())


def leaderboard_table(entries: Sequence[Entry]) -> Table:
    """The page's rows of runs on the same samples: the numbers first, then what each run is and how it was made."""
    notes, shared, machine = Footnotes(), reference(entries), reference_machine(entries)
    columns = (
        Column("Method", number=False),
        *(Column(f"NoC@{percent}") for percent in PERCENTS),
        *(Column(f"NoF@{SOLVED} {rule}") for rule in ("ritm", "strict")),
        Column("mIoU@1"),
        Column("never solved"),
        Column("s/click"),
        Column("Training data", number=False),
        Column("Backbone", number=False),
        Column("Dataset", number=False),
        Column("Samples"),
        Column("Failed"),
        Column("Selection", number=False),
        Column("Click policy", number=False),
    )
    rows = []
    for entry in entries:
        method, _, samples, failed = _heading(entry, shared, notes)
        rows.append(
            (
                method,
                *(_noc(entry, percent, notes) for percent in PERCENTS),
                *(_nof(entry, SOLVED, rule, notes) for rule in ("ritm", "strict")),
                _curve_cell(entry, entry.summary.miou, 1, notes),
                _never_solved(entry, notes),
                _times(entry, machine, notes)[0],
                Cell(entry.training_data or DASH),
                Cell(entry.backbone or DASH),
                Cell(_dataset(entry)),
                samples,
                failed,
                Cell(entry.conditions["selection"]),
                Cell(_policy(entry)),
            )
        )
    caption = f"{_shared(shared)} Seconds on {machine}."
    return Table("leaderboard", _dataset(entries[0]), caption, columns, tuple(rows), notes.by_mark())


def overview_table(entries: Sequence[Entry]) -> Table:
    """Methods by datasets, built as the paper's Table 1: NoC at two IoUs for each dataset."""
    notes, shared = Footnotes(), reference(entries, _EVERY_RUN)
    opencv = most_common_opencv(entries)
    datasets = by_dataset(entries)
    columns = (
        Column("Method", number=False),
        Column("Protocol", number=False),
        Column("Training data", number=False),
        Column("Backbone", number=False),
        *(Column(f"NoC@{p}", _dataset(runs[0])) for runs in datasets.values() for p in OVERVIEW),
    )
    rows = []
    for runs in by_setting(entries).values():
        first, by_key = runs[0], {entry.dataset_key: entry for entry in runs}
        cells = [
            Cell(first.label, notes.marks(deviation_from(first, shared))),
            Cell(first.protocol),
            Cell(first.training_data or DASH),
            Cell(first.backbone or DASH),
        ]
        for key in datasets:
            cells += _overview_cells(by_key.get(key), opencv, notes)
        rows.append(tuple(cells))
    title = "Overview: " + ", ".join(_dataset(runs[0]) for runs in datasets.values())
    caption = (
        f"Mean number of clicks to reach an IoU of 0.85 and 0.90; {DASH}: no run, or see the mark. "
        f"{_shared(shared, opencv)}"
    )
    return Table("overview", title, caption, columns, tuple(rows), notes.by_mark())


def budget_table(entries: Sequence[Entry]) -> Table:
    """IoU of methods that get a fixed budget of points, on all datasets; the number of clicks is no measure of them."""
    notes, shared, machine = Footnotes(), reference(entries), reference_machine(entries)
    columns = (
        Column("Dataset", number=False),
        Column("Method", number=False),
        Column("Budget", number=False),
        Column("Samples"),
        Column("Failed"),
        Column("IoU at the budget"),
        Column("boundary IoU"),
        Column("method s"),
        Column("Training data", number=False),
        Column("Backbone", number=False),
    )
    rows = []
    for entry in entries:
        method, _, samples, failed = _heading(entry, shared, notes)
        rows.append(
            (
                Cell(_dataset(entry)),
                method,
                Cell(entry.budget),
                samples,
                failed,
                *(_estimate(value, notes) for value in (entry.summary.at_budget, entry.summary.boundary_at_budget)),
                _times(entry, machine, notes)[0],
                Cell(entry.training_data or DASH),
                Cell(entry.backbone or DASH),
            )
        )
    caption = (
        "Mean IoU with its 95 % interval of methods that get all their points at once; they have no number of clicks. "
        f"{_shared(shared)} Seconds on {machine}."
    )
    return Table("budgets", "Fixed budgets", caption, columns, tuple(rows), notes.by_mark())


def deviation(entry: Entry, entries: Sequence[Entry]) -> str:
    """How a run was made otherwise than most of some runs; "" if it was not."""
    return deviation_from(entry, reference(entries))


def deviation_from(entry: Entry, shared: Mapping[str, str]) -> str:
    """How a run was made otherwise than some conditions ask; "" if it was not."""
    differing = [
        f"{key} {entry.conditions[key]} instead of {value}"
        for key, value in shared.items()
        if entry.conditions[key] != value
    ]
    return f"another protocol: {'; '.join(differing)}" if differing else ""


def notes_on_dataset(entry: Entry, opencv: str) -> tuple[str, ...]:
    """What concerns a run on one dataset alone, of those that share a row; a text may be "".

    Args:
        entry: the run.
        opencv: the version that most runs of the table have.
    """
    subset, version = entry.conditions["samples"], entry.conditions["OpenCV"]
    return (
        "" if subset == "all" else f"samples: {subset} ({entry.summary.samples:,} of {entry.dataset_samples:,})",
        "" if version == opencv else f"OpenCV {version} instead of {opencv}",
        failures(entry),
        undefined(entry),
        ran_out(entry),
    )


def most_common_opencv(entries: Sequence[Entry]) -> str:
    """The version that most runs were made with; of equally many, the first."""
    return Counter(entry.conditions["OpenCV"] for entry in entries).most_common(1)[0][0]


def by_setting(entries: Sequence[Entry]) -> dict[tuple[str, ...], list[Entry]]:
    """Runs that share a row together, in the order of their first."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.setting, []).append(entry)
    return groups


def stopped(entry: Entry) -> str:
    """Why a run whose samples end early, or whose method answers once, has no number."""
    if entry.budget:
        return f"not available: the method gets {entry.budget} and answers once"
    return f"not available: samples of this run end at an IoU of {entry.stop_at:g}"


def failures(entry: Entry) -> str:
    """How many samples of a run failed, and the first reasons; "" if none did."""
    failed = entry.summary.failures
    if not failed:
        return ""
    reasons = Counter(plain(failure.reason) for failure in failed)
    texts = [f"{count} × {reason}" for reason, count in reasons.items()]
    return (
        f"the method failed on {len(failed):,} of {counted(entry.summary.samples, 'sample')}, which count with an IoU "
        f"of 0 from that click on: {listed(texts)}"
    )


def undefined(entry: Entry) -> str:
    """Which samples of a run have an IoU over an empty union; "" if none has."""
    names = [plain(name) for name in entry.summary.undefined]
    if not names:
        return ""
    return (
        f"{counted(len(names), 'sample')} with an IoU over an empty union, which is not a number: it reaches nothing, "
        f"and where it stands there is no mean: {listed(names)}"
    )


_HEADINGS = (
    Column("Method", number=False),
    Column("Protocol", number=False),
    Column("Samples"),
    Column("Failed"),
)


def ran_out(entry: Entry) -> str:
    """How many samples of a run have fewer recorded clicks than they may have; "" if none has."""
    few = entry.summary.ran_out
    if not few:
        return ""
    return (
        f"{few:,} of {counted(entry.summary.samples, 'sample')} with fewer than {entry.max_clicks} recorded clicks: "
        f"what is not reached by the last of them counts {entry.max_clicks}, and the last mask stands from there on"
    )


def _heading(entry: Entry, shared: Mapping[str, str], notes: Footnotes) -> tuple[Cell, ...]:
    """What a row says of the run before its numbers."""
    samples, subset = f"{entry.summary.samples:,}", entry.conditions["samples"]
    if subset != "all":
        samples = f"{samples} of {entry.dataset_samples:,} ({subset})"
    marks = notes.marks(deviation_from(entry, shared), failures(entry), undefined(entry), ran_out(entry))
    return (
        Cell(entry.label, marks),
        Cell(entry.protocol),
        Cell(samples),
        Cell(f"{len(entry.summary.failures):,}"),
    )


def _noc(entry: Entry, percent: int, notes: Footnotes) -> Cell:
    found = entry.summary.noc.get(percent)
    if found is None:
        return _missing(stopped(entry), notes)
    return Cell(f"{found.mean:.2f}", interval=f"{found.low:.2f}, {found.high:.2f}")


def _estimate(found: Estimate | None, notes: Footnotes) -> Cell:
    if found is None or math.isnan(found.mean):
        return _missing("not available: the value of some sample is not a number", notes)
    return Cell(f"{found.mean:.3f}", interval=f"{found.low:.3f}, {found.high:.3f}")


def _nof(entry: Entry, percent: int, rule: str, notes: Footnotes) -> Cell:
    found = entry.summary.nof.get(percent)
    if found is None:
        return _missing(stopped(entry), notes)
    return Cell(f"{found.ritm if rule == 'ritm' else found.strict:,}")


def _curve_cells(entry: Entry, curve: FloatArray | None, notes: Footnotes) -> list[Cell]:
    return [_curve_cell(entry, curve, click, notes) for click in AT_CLICKS]


def _curve_cell(entry: Entry, curve: FloatArray | None, click: int, notes: Footnotes) -> Cell:
    if curve is None:
        return _missing(stopped(entry), notes)
    if click > len(curve):
        return _missing(f"not available: the run has {counted(entry.max_clicks, 'click')} a sample", notes)
    if math.isnan(curve[click - 1]):
        return _missing("not available: the value of some sample is not a number", notes)
    return Cell(f"{curve[click - 1]:.3f}")


def _never_solved(entry: Entry, notes: Footnotes) -> Cell:
    share = entry.summary.never_solved
    return _missing(stopped(entry), notes) if share is None else Cell(f"{100 * share:.1f} %")


def _times(entry: Entry, machine: str, notes: Footnotes) -> list[Cell]:
    elsewhere = "" if entry.execution == machine else f"seconds on {entry.execution}"
    few = "" if entry.stop_at is None else "of the clicks before the stop alone"
    model, harness = entry.summary.model, entry.summary.harness
    return [
        _missing("not available: the run has no later clicks", notes)
        if value is None
        else Cell(seconds(value), notes.marks(elsewhere, few))
        for value in (model.every, model.first, model.later, harness.every)
    ]


def _overview_cells(entry: Entry | None, opencv: str, notes: Footnotes) -> list[Cell]:
    if entry is None:
        return [Cell(DASH)] * len(OVERVIEW)
    texts = notes_on_dataset(entry, opencv)
    cells = []
    for percent in OVERVIEW:
        found = entry.summary.noc.get(percent)
        if found is None:
            cells.append(_missing(stopped(entry), notes))
        else:
            cells.append(Cell(f"{found.mean:.2f}", notes.marks(*texts)))
    return cells


def _policy(entry: Entry) -> str:
    policy, seed = entry.conditions["click policy"], entry.conditions["seed"]
    preset = f"protocol of {entry.preset}" if entry.preset else ""
    return ", ".join(filter(None, (policy, "" if seed == "none" else f"seed {seed}", preset)))


def _missing(why: str, notes: Footnotes) -> Cell:
    return Cell(DASH, notes.marks(why))


def _conditions(entry: Entry, leave_out: Sequence[str]) -> dict[str, str]:
    return {key: value for key, value in entry.conditions.items() if key not in leave_out}


def _shared(shared: Mapping[str, str], opencv: str = "") -> str:
    values = {**shared, **({"OpenCV": opencv} if opencv else {})}
    conditions = ", ".join(f"{key} {value}" for key, value in values.items() if (key, value) != ("seed", "none"))
    return f"Protocol where no mark says otherwise: {conditions}."


def _dataset(entry: Entry) -> str:
    return f"{entry.dataset} ({entry.short_hash})"


def _title(entry: Entry, what: str) -> str:
    return f"{_dataset(entry)}: {what}"


def results_csv(entries: Sequence[Entry]) -> str:
    """One row a run: who it is, how it was made, every number; an empty field where there is none."""
    groups = by_dataset(entries)
    return csv_text([_result(entry, groups[entry.dataset_key]) for entry in entries])


def curves_csv(entries: Sequence[Entry]) -> str:
    """One row a click of each run that has curves."""
    return csv_text(
        [
            {
                "run": entry.folder,
                "label": entry.label,
                "dataset": entry.dataset,
                "content_hash": entry.content_hash,
                "click": click + 1,
                "mean_iou": _point(entry.summary.miou, click),
                "mean_boundary_iou": _point(entry.summary.boundary, click),
            }
            for entry in entries
            if entry.summary.miou is not None
            for click in range(entry.max_clicks)
        ]
    )


def _result(entry: Entry, group: Sequence[Entry]) -> dict[str, Any]:
    record, summary = entry.record, entry.summary
    machine, execution = record.machine, record.execution
    return {
        "run": entry.folder,
        "method": entry.method,
        "label": entry.label,
        "options": json.dumps(record.method.options, sort_keys=True),
        "resolution": entry.resolution,
        "training_data": entry.training_data,
        "backbone": entry.backbone,
        "dataset": entry.dataset,
        "content_hash": entry.content_hash,
        "dataset_samples": entry.dataset_samples,
        "every": record.every,
        "limit": record.limit,
        "samples": summary.samples,
        "clicks": summary.clicks,
        "failed": len(summary.failures),
        "not_a_number": len(summary.undefined),
        "loop": entry.conditions["loop"],
        "selection": entry.conditions["selection"],
        "policy": entry.conditions["click policy"],
        "seed": record.protocol.seed,
        "threshold": entry.threshold,
        "max_clicks": entry.max_clicks,
        "stop_at": entry.stop_at,
        "budget": record.protocol.budget,
        "preset": entry.preset,
        "initial_masks": entry.conditions["initial masks"],
        **_csv_budget(summary),
        **_reached(entry),
        **{f"mean_iou_{click}": _point(summary.miou, click - 1) for click in AT_CLICKS},
        **{f"mean_boundary_iou_{click}": _point(summary.boundary, click - 1) for click in AT_CLICKS},
        "never_solved_90": summary.never_solved,
        **_csv_seconds("model", summary.model),
        **_csv_seconds("harness", summary.harness),
        "disbench": record.versions["disbench"],
        "opencv": entry.conditions["OpenCV"],
        "processor": machine.processor,
        "cores": machine.cores,
        "workers": execution.workers,
        "threads": execution.threads,
        "batch": execution.batch,
        "notes": ". ".join(
            filter(None, (deviation(entry, group), failures(entry), undefined(entry), ran_out(entry))),
        ),
    }


def _csv_budget(summary: Summary) -> dict[str, float | None]:
    found = summary.at_budget
    values = (None, None, None) if found is None else (found.mean, found.low, found.high)
    return dict(zip(("iou_at_budget", "iou_at_budget_low", "iou_at_budget_high"), values, strict=True))


def _reached(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for percent in PERCENTS:
        estimate, fails = entry.summary.noc.get(percent), entry.summary.nof.get(percent)
        found[f"noc_{percent}"] = None if estimate is None else estimate.mean
        found[f"noc_{percent}_low"] = None if estimate is None else estimate.low
        found[f"noc_{percent}_high"] = None if estimate is None else estimate.high
        found[f"nof_{percent}_ritm"] = None if fails is None else fails.ritm
        found[f"nof_{percent}_strict"] = None if fails is None else fails.strict
    return found


def _csv_seconds(whose: str, found: Seconds) -> dict[str, Any]:
    return {
        f"{whose}_seconds": found.every,
        f"{whose}_seconds_first_click": found.first,
        f"{whose}_seconds_later_clicks": found.later,
    }


def _point(curve: FloatArray | None, index: int) -> float | None:
    """A value of a curve; None beyond its end or where it is not a number."""
    if curve is None or index >= len(curve) or curve[index] != curve[index]:
        return None
    return float(curve[index])
