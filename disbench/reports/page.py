"""The leaderboard as one HTML file that needs nothing else: no network, and for its tables no script either."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from disbench.reports.curves import COLOURS, LINES, MARKERS
from disbench.reports.entries import Entry, by_dataset, curve_styles
from disbench.reports.render.html import Picture, content_policy, embedded, page, table_section, text_of
from disbench.reports.render.table import Cell, Column, Table
from disbench.reports.render.text import counted, plain, seconds
from disbench.reports.summary import PERCENTS, SOLVED, Estimate
from disbench.reports.tables import deviation, failures, leaderboard_table, ran_out, reference_machine


@dataclass(frozen=True)
class _Field:
    """A cell of the page.

    Attributes:
        cell: what stands in it.
        value: by which it is sorted; None where there is no number, or where the text itself is sorted.
        bar: the ends of the interval and the mean, per cent of the width of the cell's bar; None without.
    """

    cell: Cell
    value: float | None
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class _Row:
    """A run.

    Attributes:
        number: of the run in the report, from 0.
        entry: the run.
        fields: one a column.
        deviation: how its protocol differs from that of most runs on its dataset, or "".
        facts: heading and text of each.
    """

    number: int
    entry: Entry
    fields: tuple[_Field, ...]
    deviation: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class _Group:
    """The runs on one dataset, the fewest clicks first.

    Attributes:
        table: its cells, and the footnotes that its rows point to.
        facts: of the dataset.
        machine: on which most of its runs were made.
        rows: the runs.
    """

    table: Table
    facts: str
    machine: str
    rows: tuple[_Row, ...]


def page_html(
    entries: Sequence[Entry],
    pictures: Mapping[str, Sequence[Picture]] | None = None,
    tables: Sequence[Table] = (),
    figures: Sequence[Picture] = (),
) -> str:
    """The page of some runs: leaderboard, curves, clicks against seconds, pictures, and how to make each run again.

    Args:
        entries: at least one.
        pictures: folder of an entry -> images to show of it; small, since the page holds them.
        tables: of other runs (methods with a fixed budget of points, the diverse task), shown as they are.
        figures: to show below those tables.

    Returns:
        HTML. The same entries and pictures give the same text.

    Raises:
        InputError: a picture that is neither PNG nor JPEG nor WebP.
    """
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    groups = _groups(entries)
    style, script = text_of("page.css"), text_of("page.js")
    return page(
        "page.html.jinja",
        {
            "policy": content_policy(style, script),
            "style": Markup(style),
            "script": Markup(script),
            "summary": f"{counted(len(entries), 'run')} on {counted(len(groups), 'dataset')}",
            "columns": [(column, _order(column)) for column in groups[0].table.columns],
            "sorted_by": f"NoC@{SOLVED}",
            "groups": groups,
            "choices": _choices(entries),
            "plain_tables": [table_section(table) for table in tables],
            "figures": [embedded(figure, "the report") for figure in figures],
            "pictures": [
                (number, entry, [embedded(picture, entry.folder) for picture in pictures[entry.folder]])
                for number, entry in enumerate(entries)
                if pictures and pictures.get(entry.folder)
            ],
            "data": _data(entries, groups),
        },
    )


def _groups(entries: Sequence[Entry]) -> list[_Group]:
    numbers = {id(entry): number for number, entry in enumerate(entries)}
    groups = []
    for members in by_dataset(entries).values():
        table, ranges = leaderboard_table(members), _ranges(members)
        rows = [
            _Row(
                numbers[id(entry)],
                entry,
                _fields(entry, cells, ranges),
                deviation(entry, members),
                run_facts(entry),
            )
            for entry, cells in zip(members, table.rows, strict=True)
        ]
        rows.sort(key=lambda row: _clicks(row.entry))
        groups.append(_Group(table, dataset_facts(members[0]), reference_machine(members), tuple(rows)))
    return groups


def _clicks(entry: Entry) -> float:
    found = entry.summary.noc.get(SOLVED)
    return float("inf") if found is None else found.mean


def _ranges(entries: Sequence[Entry]) -> dict[int, tuple[float, float]]:
    """Percent -> the lowest and the highest end of an interval of NoC, for the bars of a column."""
    found: dict[int, list[Estimate]] = {percent: [] for percent in PERCENTS}
    for entry in entries:
        for percent, estimate in entry.summary.noc.items():
            found[percent].append(estimate)
    return {
        percent: (min(e.low for e in estimates), max(e.high for e in estimates))
        for percent, estimates in found.items()
        if estimates
    }


def _fields(entry: Entry, cells: Sequence[Cell], ranges: Mapping[int, tuple[float, float]]) -> tuple[_Field, ...]:
    summary = entry.summary
    fails = summary.nof.get(SOLVED)
    first = None if summary.miou is None or math.isnan(summary.miou[0]) else float(summary.miou[0])
    clicks = [summary.noc.get(percent) for percent in PERCENTS]
    bars = [
        None if estimate is None else _bar(estimate, *ranges[percent])
        for percent, estimate in zip(PERCENTS, clicks, strict=True)
    ]
    values = (
        None,
        *(None if estimate is None else estimate.mean for estimate in clicks),
        *((None, None) if fails is None else (fails.ritm, fails.strict)),
        first,
        summary.never_solved,
        summary.model.every,
        *(None, None, None),
        summary.samples,
        len(summary.failures),
        *(None, None),
    )
    drawn = (None, *bars, *[None] * (len(values) - 1 - len(bars)))
    return tuple(_Field(*parts) for parts in zip(cells, values, drawn, strict=True))


def _bar(estimate: Estimate, least: float, most: float) -> tuple[float, float, float]:
    width = (most - least) or 1.0
    low, mean, high = (100 * (end - least) / width for end in (estimate.low, estimate.mean, estimate.high))
    return round(low, 1), round(mean, 1), round(high, 1)


def _order(column: Column) -> str:
    """What a first click on a heading does: the best first."""
    return "descending" if column.name == "mIoU@1" else "ascending"


def _choices(entries: Sequence[Entry]) -> list[tuple[str, str, list[str]]]:
    """Filters: key in the data, label, what can be chosen."""
    labels = {
        "dataset": "Dataset",
        "training": "Training data",
        "selection": "Selection",
        "policy": "Click policy",
    }
    return [
        (key, label, list(dict.fromkeys(_filtered_by(entry)[key] for entry in entries)))
        for key, label in labels.items()
    ]


def _filtered_by(entry: Entry) -> dict[str, str]:
    return {
        "dataset": f"{entry.dataset} ({entry.short_hash})",
        "training": entry.training_data or "none stated",
        "selection": entry.conditions["selection"],
        "policy": entry.conditions["click policy"],
    }


def _data(entries: Sequence[Entry], groups: Sequence[_Group]) -> dict[str, Any]:
    """What the script draws, rounded to what it shows."""
    styles = curve_styles(entries)
    runs: dict[int, dict[str, Any]] = {}
    for place, group in enumerate(groups):
        for row in group.rows:
            entry, summary = row.entry, row.entry.summary
            found = summary.noc.get(SOLVED)
            alike = not row.deviation and entry.execution == group.machine and entry.stop_at is None
            runs[row.number] = {
                **_filtered_by(entry),
                "group": place,
                "label": entry.label,
                "marks": ", ".join(row.fields[0].cell.marks),
                "style": styles[entry.setting],
                "standard": not row.deviation,
                "comparable": alike,
                "noc": None if found is None else [round(v, 2) for v in (found.mean, found.low, found.high)],
                "seconds": float(f"{summary.model.every:.4g}"),
                "secondsText": seconds(summary.model.every),
                "curve": None
                if summary.miou is None
                else [None if math.isnan(value) else round(float(value), 3) for value in summary.miou],
            }
    return {
        "runs": [runs[number] for number in range(len(entries))],
        "colours": COLOURS,
        "markers": [marker for marker, _ in MARKERS],
        "lines": LINES,
        "solved": SOLVED,
    }


def dataset_facts(entry: Entry) -> str:
    """Of a run's dataset: title, samples, whole content hash, options."""
    dataset = entry.record.dataset
    parts = [
        str(dataset.facts.get("title", "")),
        counted(entry.dataset_samples, "sample"),
        f"content hash {entry.content_hash}",
        f"options {_pairs(dataset.options)}" if dataset.options else "",
    ]
    return plain("; ".join(filter(None, parts)))


def run_facts(entry: Entry) -> list[tuple[str, str]]:
    """Of a run, beside its command: heading and text of each fact, in one printable line."""
    record, method, card = entry.record, entry.record.method, entry.record.method.facts
    repeated = record.result.batches_repeated.count
    weights = [f"{weight.get('file')}: SHA-256 {weight.get('sha256')}" for weight in card.weights]
    facts = {
        "Method": f"{card.title or entry.method}, {method.entry}",
        "Source": f"SHA-256 {method.source_sha256}" if method.source_sha256 else "",
        "Options": _pairs(method.options),
        "Citation": card.citation,
        "Code": card.code,
        "Licence": card.licence,
        "Weights": "; ".join(weights),
        "Dataset": f"{entry.dataset}, {counted(entry.dataset_samples, 'sample')}, content hash {entry.content_hash}",
        "Protocol": ", ".join(f"{key} {value}" for key, value in entry.conditions.items()),
        "Threshold": f"{entry.threshold:g}",
        "Protocol of": entry.preset,
        "Stop": "" if entry.stop_at is None else f"at an IoU of {entry.stop_at:g}",
        "Result": f"{counted(entry.summary.samples, 'sample')}, {counted(entry.summary.clicks, 'click')}, "
        f"{record.result.wall_seconds:.1f} s of wall time",
        "Failed": failures(entry),
        "Recorded clicks": ran_out(entry),
        "Batches": f"{repeated} failed and were asked again one by one" if repeated else "",
        "Versions": _pairs(record.versions, " "),
        "Machine": f"{record.machine.system}, {entry.execution}",
    }
    return [(name, plain(text)) for name, text in facts.items() if text]


def _pairs(values: Mapping[str, Any], between: str = "=") -> str:
    return ", ".join(f"{key}{between}{value}" for key, value in values.items())
