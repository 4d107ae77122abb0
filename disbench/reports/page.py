"""The leaderboard as one self-contained HTML file, whose tables work without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disbench.harness.measures import MEASURES, SOLVED, measures_in, significant
from disbench.reports.curves import COLOURS, LINES, MARKERS
from disbench.reports.entries import Entry, by_dataset, curve_styles
from disbench.reports.render import Cell, Picture, Table, counted, plain, template, text_of, visible
from disbench.reports.tables import deviation, failures, leaderboard_table, most_common, ran_out, reference

if TYPE_CHECKING:
    from markupsafe import Markup

_SORTED_BY = f"noc_{SOLVED}"
_FILTERS = {"dataset": "Dataset", "training": "Training data", "selection": "Selection", "policy": "Click policy"}


@dataclass(frozen=True)
class _Row:
    """A run; `bars` has each cell's low end, value and high end in percent of the bar width, or None."""

    number: int
    entry: Entry
    cells: tuple[Cell, ...]
    bars: tuple[tuple[float, float, float] | None, ...]
    deviation: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class _Group:
    """The runs on one dataset, fewest clicks first; `machine` is the most common one."""

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
    """Render the page: leaderboard, curves, clicks against seconds, pictures, and the command of each run.

    Args:
        entries: at least one.
        pictures: `Entry.folder` -> small images to embed.
        tables: tables of other runs (fixed budgets of points, the diverse task).
        figures: shown below these tables.
    """
    groups = _groups(entries)
    measures = {measure.headings["leaderboard"][1]: measure for measure in measures_in("leaderboard")}
    columns = []
    for column in groups[0].table.columns:  # with the sort order that puts the best first, and a tooltip
        measure = measures.get(column.name)
        hint = ", ".join(filter(None, (measure.unit, f"{measure.better} is better"))) if measure else ""
        columns.append((column, "descending" if measure and measure.better == "higher" else "ascending", hint))
    shown = {number: (pictures or {}).get(entry.folder, ()) for number, entry in enumerate(entries)}
    return _filled(
        {
            "summary": f"{counted(len(entries), 'run')} on {counted(len(groups), 'dataset')}",
            "columns": columns,
            "sorted_by": MEASURES[_SORTED_BY].title,
            "groups": groups,
            "choices": [
                (key, label, list(dict.fromkeys(_filtered_by(entry)[key] for entry in entries)))
                for key, label in _FILTERS.items()
            ],
            "plain_tables": tables,
            "figures": [(caption, _data_uri(image)) for caption, image in figures],
            "pictures": [
                (number, entries[number], [(caption, _data_uri(image)) for caption, image in own])
                for number, own in shown.items()
                if own
            ],
            "data": _data(entries, groups),
        },
    )


def _filled(values: Mapping[str, Any]) -> str:
    """Fill the template; its policy allows only this style and script, and values are escaped and visible."""
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    style, script = text_of("page.css"), text_of("page.js")
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; script-src 'sha256-{digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = template(
        "page.html.jinja", autoescape=True, finalize=lambda v: v if isinstance(v, Markup) else visible(str(v))
    )
    return page.render(values, policy=policy, style=Markup(style), script=Markup(script))


def _data_uri(image: bytes) -> Markup:
    """An image as a data URI."""
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    kind = "png" if image.startswith(b"\x89PNG") else "webp"
    return Markup(f"data:image/{kind};base64,{base64.b64encode(image).decode()}")


def _groups(entries: Sequence[Entry]) -> list[_Group]:
    numbers = {entry.folder: number for number, entry in enumerate(entries)}
    groups = []
    for members in by_dataset(entries).values():
        table, shared = leaderboard_table(members), reference(members)
        bars = zip(*map(_bars, zip(*table.rows, strict=True)), strict=True)
        rows = [
            _Row(numbers[entry.folder], entry, cells, of_run, deviation(entry, shared), run_facts(entry))
            for entry, cells, of_run in zip(members, table.rows, bars, strict=True)
        ]
        rows.sort(key=lambda row: row.entry.values[_SORTED_BY].number or math.inf)
        machine = most_common(entry.execution for entry in members)
        groups.append(_Group(table, dataset_facts(members[0]), machine, tuple(rows)))
    return groups


def _bars(column: Sequence[Cell]) -> list[tuple[float, float, float] | None]:
    """The intervals of a column, in percent of the column's range."""
    ends = [end for cell in column for end in cell.ends]
    least, width = (min(ends), max(ends) - min(ends) or 1.0) if ends else (0.0, 1.0)

    def bar(cell: Cell) -> tuple[float, float, float] | None:
        if not cell.ends or cell.value is None:
            return None
        low, mean, high = (round(100 * (v - least) / width, 1) for v in (cell.ends[0], cell.value, cell.ends[1]))
        return low, mean, high

    return list(map(bar, column))


def _filtered_by(entry: Entry) -> dict[str, str]:
    return {
        "dataset": entry.dataset_name,
        "training": entry.training_data or "none stated",
        "selection": entry.conditions["selection"],
        "policy": entry.conditions["click policy"],
    }


def _data(entries: Sequence[Entry], groups: Sequence[_Group]) -> dict[str, Any]:
    """Data for the script."""
    styles = curve_styles(entries)
    runs: dict[int, dict[str, Any]] = {}
    for place, group in enumerate(groups):
        for row in group.rows:
            entry, clicks = row.entry, row.entry.values[_SORTED_BY]
            interval = [round(v, 2) for v in (clicks.number, clicks.low, clicks.high) if v is not None]
            seconds = entry.values["model_seconds"].number or 0.0
            curve = None if entry.rows.miou is None else entry.rows.miou.tolist()
            runs[row.number] = {
                **_filtered_by(entry),
                "group": place,
                "label": entry.label,
                "marks": ", ".join(row.cells[0].marks),
                "style": styles[entry.setting],
                "standard": not row.deviation,
                "comparable": not row.deviation and entry.execution == group.machine and entry.rows.stop_at is None,
                "noc": interval or None,
                "seconds": float(f"{seconds:.4g}"),
                "secondsText": significant(seconds),
                "curve": curve and [None if math.isnan(value) else round(value, 3) for value in curve],
            }
    return {
        "runs": [runs[number] for number in range(len(entries))],
        "colours": COLOURS,
        "markers": [marker for marker, _ in MARKERS],
        "lines": LINES,
        "solved": SOLVED,
    }


def dataset_facts(entry: Entry) -> str:
    """A run's dataset in words: title, samples, content hash, options."""
    dataset = entry.record.dataset
    parts = [
        str(dataset.facts.get("title", "")),
        counted(entry.record.dataset.samples, "sample"),
        f"content hash {entry.content_hash}",
        f"options {_pairs(dataset.options)}" if dataset.options else "",
    ]
    return plain("; ".join(filter(None, parts)))


def run_facts(entry: Entry) -> list[tuple[str, str]]:
    """Facts of a run as (heading, printable line), without the command."""
    record, method, card = entry.record, entry.record.method, entry.record.method.facts
    samples = counted(record.dataset.samples, "sample")
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
        "Dataset": f"{entry.dataset}, {samples}, content hash {entry.content_hash}",
        "Protocol": ", ".join(f"{key} {value}" for key, value in entry.conditions.items()),
        "Threshold": f"{record.protocol.threshold:g}",
        "Protocol of": entry.preset,
        "Stop": "" if entry.rows.stop_at is None else f"at an IoU of {entry.rows.stop_at:g}",
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
