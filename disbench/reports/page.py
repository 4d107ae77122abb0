"""The leaderboard as one HTML file that needs no network, and whose tables need no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from disbench.harness.measures import MEASURES, SOLVED, Measure, measures_in, significant
from disbench.reports.curves import COLOURS, LINES, MARKERS
from disbench.reports.entries import Entry, by_dataset, curve_styles
from disbench.reports.render.html import Picture, content_policy, embedded, page, table_section, text_of
from disbench.reports.render.table import Cell, Table, counted, plain
from disbench.reports.tables import deviation, failures, leaderboard_table, most_common, ran_out, reference

_SORTED_BY = f"noc_{SOLVED}"


@dataclass(frozen=True)
class _Row:
    """A run; `bars` has low end, number and high end of each cell in percent of the bar's width, or None."""

    number: int
    entry: Entry
    cells: tuple[Cell, ...]
    bars: tuple[tuple[float, float, float] | None, ...]
    deviation: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class _Group:
    """The runs on one dataset, the fewest clicks first; most of them were made on `machine`."""

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
        pictures: folder of an entry -> small images, which the page embeds.
        tables: of other runs (methods with a fixed budget of points, the diverse task).
        figures: shown below those tables.

    Raises:
        InputError: a picture that is neither PNG nor JPEG nor WebP.
    """
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    groups = _groups(entries)
    measures = {measure.headings["leaderboard"][1]: measure for measure in measures_in("leaderboard")}
    style, script = text_of("page.css"), text_of("page.js")
    return page(
        "page.html.jinja",
        {
            "policy": content_policy(style, script),
            "style": Markup(style),
            "script": Markup(script),
            "summary": f"{counted(len(entries), 'run')} on {counted(len(groups), 'dataset')}",
            "columns": [(column, *_order_and_hint(measures.get(column.name))) for column in groups[0].table.columns],
            "sorted_by": MEASURES[_SORTED_BY].title,
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


def _order_and_hint(measure: Measure | None) -> tuple[str, str]:
    """The order that puts a column's best first, and the heading's tooltip."""
    if measure is None:
        return "ascending", ""
    order = "descending" if measure.better == "higher" else "ascending"
    return order, ", ".join(filter(None, (measure.unit, f"{measure.better} is better")))


def _groups(entries: Sequence[Entry]) -> list[_Group]:
    numbers = {id(entry): number for number, entry in enumerate(entries)}
    groups = []
    for members in by_dataset(entries).values():
        table, shared = leaderboard_table(members), reference(members)
        machine = most_common(entry.execution for entry in members)
        bars = zip(*map(_bars, zip(*table.rows, strict=True)), strict=True)
        rows = [
            _Row(numbers[id(entry)], entry, cells, of_run, deviation(entry, shared), run_facts(entry))
            for entry, cells, of_run in zip(members, table.rows, bars, strict=True)
        ]
        rows.sort(key=lambda row: row.entry.values[_SORTED_BY].number or math.inf)
        groups.append(_Group(table, dataset_facts(members[0]), machine, tuple(rows)))
    return groups


def _bars(column: Sequence[Cell]) -> list[tuple[float, float, float] | None]:
    """The intervals of a column, scaled to its lowest and highest end."""
    ends = [end for cell in column for end in cell.ends]
    least, width = (min(ends), max(ends) - min(ends) or 1.0) if ends else (0.0, 1.0)

    def bar(cell: Cell) -> tuple[float, float, float] | None:
        if not cell.ends or cell.value is None:
            return None
        low, mean, high = (round(100 * (v - least) / width, 1) for v in (cell.ends[0], cell.value, cell.ends[1]))
        return low, mean, high

    return list(map(bar, column))


def _choices(entries: Sequence[Entry]) -> list[tuple[str, str, list[str]]]:
    """Filters: key in the data, label, choices."""
    labels = {"dataset": "Dataset", "training": "Training data", "selection": "Selection", "policy": "Click policy"}
    return [
        (key, label, list(dict.fromkeys(_filtered_by(entry)[key] for entry in entries)))
        for key, label in labels.items()
    ]


def _filtered_by(entry: Entry) -> dict[str, str]:
    return {
        "dataset": entry.dataset_name,
        "training": entry.training_data or "none stated",
        "selection": entry.conditions["selection"],
        "policy": entry.conditions["click policy"],
    }


def _data(entries: Sequence[Entry], groups: Sequence[_Group]) -> dict[str, Any]:
    """What the script draws."""
    styles = curve_styles(entries)
    runs: dict[int, dict[str, Any]] = {}
    for place, group in enumerate(groups):
        for row in group.rows:
            entry = row.entry
            clicks, curve = entry.values[_SORTED_BY], entry.rows.miou
            interval = [round(v, 2) for v in (clicks.number, clicks.low, clicks.high) if v is not None]
            seconds = entry.values["model_seconds"].number or 0.0
            alike = not row.deviation and entry.execution == group.machine and entry.stop_at is None
            runs[row.number] = {
                **_filtered_by(entry),
                "group": place,
                "label": entry.label,
                "marks": ", ".join(row.cells[0].marks),
                "style": styles[entry.setting],
                "standard": not row.deviation,
                "comparable": alike,
                "noc": interval or None,
                "seconds": float(f"{seconds:.4g}"),
                "secondsText": significant(seconds),
                "curve": None
                if curve is None
                else [None if math.isnan(value) else round(float(value), 3) for value in curve],
            }
    return {
        "runs": [runs[number] for number in range(len(entries))],
        "colours": COLOURS,
        "markers": [marker for marker, _ in MARKERS],
        "lines": LINES,
        "solved": SOLVED,
    }


def dataset_facts(entry: Entry) -> str:
    """The dataset of a run: title, samples, content hash, options."""
    dataset = entry.record.dataset
    parts = [
        str(dataset.facts.get("title", "")),
        counted(entry.dataset_samples, "sample"),
        f"content hash {entry.content_hash}",
        f"options {_pairs(dataset.options)}" if dataset.options else "",
    ]
    return plain("; ".join(filter(None, parts)))


def run_facts(entry: Entry) -> list[tuple[str, str]]:
    """Heading and text (one printable line) of what a report says of a run, except its command."""
    record, method, card = entry.record, entry.record.method, entry.record.method.facts
    repeated = record.result.batches_repeated.count
    weights = [f"{weight.get('file')}: SHA-256 {weight.get('sha256')}" for weight in card.weights]
    facts = {
        "Method": f"{card.title or entry.method}, {method.entry}",
        "Imported": str(record.imported or ""),
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
        "Result": f"{counted(len(entry.rows.samples), 'sample')}, {counted(entry.rows.clicks, 'click')}, "
        f"{'unknown' if record.imported else f'{record.result.wall_seconds:.1f} s of'} wall time",
        "Failed": failures(entry),
        "Recorded clicks": ran_out(entry),
        "Batches": f"{repeated} failed and were asked again one by one" if repeated else "",
        "Versions": _pairs(record.versions, " "),
        "Machine": f"{record.machine.system}, {entry.execution}" if not record.imported else entry.execution,
    }
    return [(name, plain(text)) for name, text in facts.items() if text]


def _pairs(values: Mapping[str, Any], between: str = "=") -> str:
    return ", ".join(f"{key}{between}{value}" for key, value in values.items())
