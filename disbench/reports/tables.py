"""Tables and CSV files of runs: measures, with footnotes on how runs differ."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from disbench.harness.measures import MEASURES, SOLVED, Measure, Place, measures_in
from disbench.reports.entries import Entry, by_dataset, by_setting
from disbench.reports.render import (
    DASH,
    Cell,
    Column,
    Footnotes,
    Table,
    counted,
    csv_text,
    listed,
    number_cell,
    plain,
)

_Value = TypeVar("_Value")
_EVERY_RUN = ("samples", "OpenCV")
"""Conditions that may differ within a row of the overview; cells are marked instead."""
_RUN = ("Method", "Protocol", "Samples", "Failed")
_METHOD = ("Training data", "Backbone")


def clicks_table(entries: Sequence[Entry]) -> Table:
    """NoC and NoF of runs on the same samples."""
    caption = "Number of clicks with its 95 % interval, and number of failures."
    return _table("noc", f"{entries[0].dataset_name}: clicks", caption, entries, "clicks", _RUN)


def quality_table(entries: Sequence[Entry]) -> Table:
    """Mean IoU after several clicks, share of samples never solved, and time of runs on the same samples."""
    caption = (
        "Mean IoU and mean boundary IoU, area under their curves (AuC), share of samples that never reach an IoU of "
        f"{SOLVED / 100:.2f}, and seconds per click (opening the image is part of the first)."
    )
    return _table("quality", f"{entries[0].dataset_name}: quality and time", caption, entries, "quality", _RUN)


def leaderboard_table(entries: Sequence[Entry]) -> Table:
    """The leaderboard of runs on the same samples: measures, then descriptions of each run."""
    after = (*_METHOD, "Dataset", "Samples", "Failed", "Selection", "Click policy")
    return _table("leaderboard", entries[0].dataset_name, "", entries, "leaderboard", ("Method",), after)


def budget_table(entries: Sequence[Entry]) -> Table:
    """IoU of methods with a fixed budget of points, on all datasets."""
    caption = (
        "Mean IoU with its 95 % interval, for methods that get all points at once and so have no number of clicks."
    )
    before = ("Dataset", "Method", "Budget", "Samples", "Failed")
    return _table("budgets", "Fixed budgets", caption, entries, "budgets", before, _METHOD)


def overview_table(entries: Sequence[Entry]) -> Table:
    """Methods by datasets, as in the paper's Table 1: NoC at two IoUs for each dataset."""
    notes, shared, opencv = Footnotes(), reference(entries, _EVERY_RUN), most_common_opencv(entries)
    datasets, measures = by_dataset(entries), measures_in("overview")
    before = ("Method", "Protocol", *_METHOD)
    rows = []
    for runs in by_setting(entries).values():
        by_key = {entry.dataset_key: entry for entry in runs}
        described = _described(runs[0], notes.marks(deviation(runs[0], shared)))
        cells = [described[name] for name in before]
        for key in datasets:
            if key in by_key:
                texts = notes_on_dataset(by_key[key], opencv)
                cells += [_cell(by_key[key], measure, notes, texts, interval=False) for measure in measures]
            else:
                cells += [Cell(DASH)] * len(measures)
        rows.append(tuple(cells))
    names = [runs[0].dataset_name for runs in datasets.values()]
    columns = (
        *(Column(name, number=False) for name in before),
        *(Column(measure.headings["overview"][1], name) for name in names for measure in measures),
    )
    caption = (
        f"Mean number of clicks to reach an IoU of 0.85 and 0.90; {DASH}: no run, or see the mark. "
        f"{_shared(shared, opencv)}"
    )
    return Table("overview", f"Overview: {', '.join(names)}", caption, columns, tuple(rows), notes.by_mark())


def results_csv(entries: Sequence[Entry]) -> str:
    """One row per run: description, conditions and every measure; missing measures are empty."""
    groups = by_dataset(entries)
    return csv_text([_record(entry, groups[entry.dataset_key]) for entry in entries])


def curves_csv(entries: Sequence[Entry]) -> str:
    """One row per click of each run with curves; nan is empty."""
    records = []
    for entry in entries:
        curves = {"mean_iou": entry.rows.miou, "mean_boundary_iou": entry.rows.boundary_miou}
        for click in range(entry.rows.max_clicks if entry.rows.miou is not None else 0):
            values = {name: math.nan if curve is None else float(curve[click]) for name, curve in curves.items()}
            records.append(
                {
                    "run": entry.folder,
                    "label": entry.label,
                    "dataset": entry.dataset,
                    "content_hash": entry.content_hash,
                    "click": click + 1,
                    **{name: None if math.isnan(value) else value for name, value in values.items()},
                }
            )
    return csv_text(records)


def reference(entries: Sequence[Entry], leave_out: Sequence[str] = ()) -> dict[str, str]:
    """The most common combination of conditions."""
    conditions = (tuple(item for item in entry.conditions.items() if item[0] not in leave_out) for entry in entries)
    return dict(most_common(conditions))


def most_common(values: Iterable[_Value]) -> _Value:
    """The most frequent value; ties go to the first."""
    return Counter(values).most_common(1)[0][0]


def most_common_opencv(entries: Iterable[Entry]) -> str:
    """The most common OpenCV version."""
    return most_common(entry.conditions["OpenCV"] for entry in entries)


def deviation(entry: Entry, shared: Mapping[str, str]) -> str:
    """How a run's conditions differ from `shared`, such as `reference`; "" if they do not."""
    differing = [
        f"{key} {entry.conditions[key]} instead of {value}"
        for key, value in shared.items()
        if entry.conditions[key] != value
    ]
    return f"another protocol: {'; '.join(differing)}" if differing else ""


def notes_on_dataset(entry: Entry, opencv: str) -> tuple[str, ...]:
    """Footnotes on a run's numbers in a row of several datasets; each may be ""."""
    subset, version = entry.conditions["samples"], entry.conditions["OpenCV"]
    return (
        ""
        if subset == "all"
        else f"samples: {subset} ({len(entry.rows.samples):,} of {entry.record.dataset.samples:,})",
        "" if version == opencv else f"OpenCV {version} instead of {opencv}",
        *_remarks(entry),
    )


def failures(entry: Entry) -> str:
    """The number of samples that failed or cannot be read, and the first reasons; "" if none."""
    unread, texts = set(entry.rows.unread), []
    for is_unread, head in (
        (False, "the method failed on {}, whose IoU counts as 0 from that click on"),
        (True, "{} whose IoU counts as 0"),
    ):
        reasons = [plain(reason) for name, reason in entry.rows.failures if (name in unread) == is_unread]
        if reasons:
            share = f"{len(reasons):,} of {counted(len(entry.rows.samples), 'sample')}"
            said = [f"{count} × {reason}" for reason, count in Counter(reasons).items()]
            texts.append(f"{head.format(share)}: {listed(said)}")
    return "; ".join(texts)


def undefined(entry: Entry) -> str:
    """The samples with an IoU over an empty union; "" if none."""
    names = [plain(name) for name in entry.rows.undefined]
    if not names:
        return ""
    return (
        f"{counted(len(names), 'sample')} with an IoU over an empty union, which is not a number: it reaches nothing, "
        f"and there is no mean at that click: {listed(names)}"
    )


def ran_out(entry: Entry) -> str:
    """The number of samples with fewer than `max_clicks` recorded clicks; "" if none."""
    few, most = entry.rows.ran_out, entry.rows.max_clicks
    if not few:
        return ""
    return (
        f"{few:,} of {counted(len(entry.rows.samples), 'sample')} with fewer than {most} recorded clicks: "
        f"an IoU not reached by the last of them counts {most}, and the last mask is kept for later clicks"
    )


def _remarks(entry: Entry) -> tuple[str, ...]:
    return failures(entry), undefined(entry), ran_out(entry)


def _table(
    name: str,
    title: str,
    caption: str,
    entries: Sequence[Entry],
    place: Place,
    before: Sequence[str],
    after: Sequence[str] = (),
) -> Table:
    """One row per run: descriptions, measures, more descriptions."""
    notes, shared, machine = Footnotes(), reference(entries), most_common(entry.execution for entry in entries)
    measures = [
        measure
        for measure in measures_in(place)
        if not measure.optional or any(entry.values[measure.name].number is not None for entry in entries)
    ]
    rows = []
    for entry in entries:
        cells = _described(entry, notes.marks(deviation(entry, shared), *_remarks(entry)))
        few = "" if entry.rows.stop_at is None else "of the clicks before the stop alone"
        timing = ("" if entry.execution == machine else f"seconds on {entry.execution}", few)
        numbers = [_cell(entry, m, notes, timing if m.group == "seconds" else ()) for m in measures]
        rows.append((*(cells[key] for key in before), *numbers, *(cells[key] for key in after)))
    ours, theirs = ([Column(name, number=name in ("Samples", "Failed")) for name in own] for own in (before, after))
    columns = (*ours, *(Column(m.headings[place][1], m.headings[place][0]) for m in measures), *theirs)
    timed = f"Seconds on {machine}." if any(measure.group == "seconds" for measure in measures) else ""
    text = " ".join(filter(None, (caption, _shared(shared), timed)))
    return Table(name, title, text, columns, tuple(rows), notes.by_mark())


def _described(entry: Entry, marks: tuple[str, ...]) -> dict[str, Cell]:
    """Descriptions of a run: heading -> cell."""
    samples, subset = f"{len(entry.rows.samples):,}", entry.conditions["samples"]
    if subset != "all":
        samples = f"{samples} of {entry.record.dataset.samples:,} ({subset})"
    policy, seed = entry.conditions["click policy"], entry.conditions["seed"]
    policies = (policy, "" if seed == "none" else f"seed {seed}", f"protocol of {entry.preset}" if entry.preset else "")
    texts = {
        "Protocol": entry.protocol,
        "Budget": entry.budget,
        "Dataset": entry.dataset_name,
        "Training data": entry.training_data or DASH,
        "Backbone": entry.backbone or DASH,
        "Selection": entry.conditions["selection"],
        "Click policy": ", ".join(filter(None, policies)),
    }
    return {
        "Method": Cell(entry.label, marks),
        "Samples": Cell(samples, value=len(entry.rows.samples)),
        "Failed": Cell(f"{len(entry.rows.failures):,}", value=len(entry.rows.failures)),
        **{heading: Cell(text) for heading, text in texts.items()},
    }


def _cell(
    entry: Entry, measure: Measure, notes: Footnotes, texts: Sequence[str] = (), *, interval: bool = True
) -> Cell:
    """A measure with footnotes, or a dash and the reason."""
    value = entry.values[measure.name]
    if value.number is None:
        return Cell(DASH, notes.marks(value.missing))
    ends = (value.low, value.high) if interval and value.low is not None and value.high is not None else ()
    return number_cell(value.number, measure.text, ends, notes.marks(*texts))


def _shared(shared: Mapping[str, str], opencv: str = "") -> str:
    values = {**shared, **({"OpenCV": opencv} if opencv else {})}
    conditions = ", ".join(f"{key} {value}" for key, value in values.items() if (key, value) != ("seed", "none"))
    return f"Protocol, unless marked: {conditions}."


def _record(entry: Entry, group: Sequence[Entry]) -> dict[str, Any]:
    record, machine, execution = entry.record, entry.record.machine, entry.record.execution
    conditions = entry.conditions
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
        "dataset_samples": record.dataset.samples,
        "every": record.every,
        "limit": record.limit,
        **_numbers(entry, counts=True),
        "loop": conditions["loop"],
        "selection": conditions["selection"],
        "policy": conditions["click policy"],
        "seed": record.protocol.seed,
        "threshold": record.protocol.threshold,
        "max_clicks": entry.rows.max_clicks,
        "stop_at": entry.rows.stop_at,
        "budget": record.protocol.budget,
        "preset": entry.preset,
        "initial_masks": conditions["initial masks"],
        **_numbers(entry, counts=False),
        "disbench": record.versions["disbench"],
        "opencv": conditions["OpenCV"],
        "processor": machine.processor,
        "cores": machine.cores,
        "workers": execution.workers,
        "threads": execution.threads,
        "batch": execution.batch,
        "notes": ". ".join(filter(None, (deviation(entry, reference(group)), *_remarks(entry)))),
    }


def _numbers(entry: Entry, *, counts: bool) -> dict[str, float | None]:
    """Columns of measures and their intervals."""
    found: dict[str, float | None] = {}
    for measure in MEASURES.values():
        if measure.in_csv and (measure.group == "counts") == counts:
            value = entry.values[measure.name]
            found[measure.name] = value.number
            if measure.interval:
                found |= {f"{measure.name}_low": value.low, f"{measure.name}_high": value.high}
    return found
