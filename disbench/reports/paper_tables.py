"""The paper's tables, filled from stored runs: printed and measured numbers under each other, with the difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from disbench.reports import latex, markdown
from disbench.reports.entries import Entry
from disbench.reports.paper_definitions import Label, Row, TableDefinition, read_table_definition
from disbench.reports.paper_runs import (
    PaperRuns,
    assign,
    departures,
    early_stop,
    is_comparable,
    is_method,
    method_options,
    not_shown,
    notes_on_samples,
    read_paper_runs,
)
from disbench.reports.published import Measure, Printed, Published, read_published
from disbench.reports.report import Report, write_files
from disbench.reports.spreadsheet import csv_text
from disbench.reports.table import (
    Cell,
    Column,
    Emphasis,
    Footnotes,
    Table,
    by_setting,
    most_common_opencv,
    stopped,
)
from disbench.reports.text import counted, option_value, plain

FORMATS = ("markdown", "latex", "csv")
NOT_RUN, NOT_PRINTED, NOT_AVAILABLE = "not run", "not printed", "not available"
_SUFFIXES = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}


@dataclass(frozen=True)
class Value:
    """One number of a row: as printed, and as measured by one run.

    Attributes:
        measure: of what.
        published: as printed, or "".
        elsewhere: other numbers that other sources print for the same.
        published_notes: footnotes on the printed number.
        measured: by the run, or None.
        interval: its 95 % bootstrap interval, or None.
        missing: why there is no measured number, or "".
        measured_notes: footnotes on the measured number.
        comparable: the run followed the paper's protocol on all samples.
    """

    measure: Measure
    published: str
    elsewhere: tuple[str, ...]
    published_notes: tuple[str, ...]
    measured: float | None
    interval: tuple[float, float] | None
    missing: str
    measured_notes: tuple[str, ...]
    comparable: bool

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.measured is None or not self.published else self.measured - float(self.published)


@dataclass(frozen=True)
class Block:
    """A row of the paper with one method that was run for it, or with none.

    Attributes:
        group: number of the group.
        row: its name, or "" for a run without a row.
        entry: what is printed, or None.
        labels: a text a label column.
        first: of the row's blocks; it has the printed numbers.
        runs: of one method and setting, by dataset; none if the row was not run.
        row_notes: footnotes on the printed row.
        run_notes: footnotes on the runs.
        values: one a column of numbers.
    """

    group: int
    row: str
    entry: Printed | None
    labels: tuple[str, ...]
    first: bool
    runs: tuple[Entry, ...]
    row_notes: tuple[str, ...]
    run_notes: tuple[str, ...]
    values: tuple[Value, ...]


def make_paper_table(
    name: str,
    runs: Sequence[Path],
    out: Path,
    *,
    rows: Sequence[tuple[str, Path]] = (),
    formats: Iterable[str] = FORMATS,
) -> Report:
    """Write a table of the paper: what is printed, what stored runs measured, and the difference.

    Args:
        name: of the table's definition (`table1`), or the path of one.
        runs: folders, each a run or with runs below it; without any, every row is "not run".
        out: folder for the files; made if missing.
        rows: name of a row, and a folder whose runs belong to it whatever they are.
        formats: of `FORMATS`.

    Returns:
        The files, and a line for each number that was measured. The same runs give the same bytes.

    Raises:
        InputError: an unknown table or row, or a run that cannot be read.
    """
    published = read_published()
    definition = read_table_definition(name, published)
    found = read_paper_runs(runs, rows)
    blocks, remarks = paper_blocks(definition, published, found)
    table = paper_table(definition, published, blocks, remarks)
    texts = {
        "markdown": f"# {markdown.escape(table.title)}\n\n{markdown.table(table)}\n",
        "latex": f"% Needs the packages booktabs and graphicx.\n{latex.table(table, table.name)}\n",
        "csv": csv_text([record for block in blocks for record in _records(definition, block)]),
    }
    chosen: dict[str, bytes | None] = {
        f"{definition.name}{_SUFFIXES[form]}": texts[form].encode() for form in FORMATS if form in formats
    }
    paths = write_files(chosen, out)
    return Report(tuple(paths), tuple(_lines(definition, blocks, remarks, paths)))


def paper_blocks(
    definition: TableDefinition, published: Published, runs: PaperRuns
) -> tuple[list[Block], list[str]]:
    """The rows of a table with the runs that belong to them; then the runs without a row, and what is not shown.

    Raises:
        InputError: the user named a row that there is not.
    """
    by_row, rest = assign(runs, definition.patterns)
    cards = {measure.dataset.card for measure in definition.columns}
    extra = [entry for entry in rest if is_method(entry, definition.runs_without_a_row)]
    others = [entry for entry in rest if not is_method(entry, definition.runs_without_a_row)]
    elsewhere = [entry for entry in chain(extra, *by_row.values()) if entry.dataset not in cards]
    opencv = most_common_opencv(runs.entries) if runs.entries else ""
    blocks = []
    for group, content in enumerate(definition.groups):
        for row in content.rows:
            settings = by_setting([entry for entry in by_row[row.name] if entry.dataset in cards]).values()
            for number, entries in enumerate(settings or [[]]):
                blocks.append(_block(definition, published, group, row, entries, number == 0, opencv))
    last = len(definition.groups) - 1
    for entries in by_setting([entry for entry in extra if entry.dataset in cards]).values():
        blocks.append(_block(definition, published, last, None, entries, True, opencv))
    remarks = [
        not_shown(others, "since the table is about other methods"),
        not_shown(elsewhere, "since the table has no column for their datasets"),
    ]
    return blocks, [text for text in remarks if text]


def paper_table(
    definition: TableDefinition, published: Published, blocks: Sequence[Block], remarks: Sequence[str]
) -> Table:
    """Blocks as a table: lines for the printed and the measured numbers, and for their difference."""
    notes = Footnotes()
    columns = (
        *(Column(label.heading, number=False) for label in definition.labels),
        Column("Number", number=False),
        *(Column(measure.title, measure.dataset.title) for measure in definition.columns),
    )
    rows: list[tuple[Cell, ...]] = []
    groups: dict[int, str] = {}
    for number, group in enumerate(definition.groups):
        members = [block for block in blocks if block.group == number]
        if not members:
            continue
        groups[len(rows)] = group.title
        own = all(block.entry and block.entry.file == definition.file for block in members)
        for block, best in zip(members, _emphases(members, definition.set_off_best and own), strict=True):
            rows += _block_lines(block, best, notes)
    caption = _caption(definition, published, remarks)
    return Table(definition.name, definition.title, caption, columns, tuple(rows), notes.by_mark(), groups)


def _block(
    definition: TableDefinition,
    published: Published,
    group: int,
    row: Row | None,
    entries: Sequence[Entry],
    first: bool,
    opencv: str,
) -> Block:
    entry = row.entry if row else None
    by_card = {run.dataset: run for run in entries}
    remarks = published.remarks_on(entry) if entry else []
    return Block(
        group=group,
        row=row.name if row else "",
        entry=entry,
        labels=tuple(_label(label, entry, entries, published) for label in definition.labels),
        first=first,
        runs=tuple(entries),
        row_notes=tuple(remark.text for remark in remarks if not remark.columns),
        run_notes=tuple(filter(None, (*departures(entries[0], published), early_stop(entries[0]))))
        if entries
        else (),
        values=tuple(
            _value(measure, entry, by_card.get(measure.dataset.card), published, opencv)
            for measure in definition.columns
        ),
    )


def _label(label: Label, entry: Printed | None, entries: Sequence[Entry], published: Published) -> str:
    """As printed; of a run without a row, its own."""
    if entry is not None:
        text = entry.labels.get(label.published, "")
        return (_method_title(entry) if label.published == "method" else text) or "none"
    run = entries[0]
    if label.run in ("label", "training_data", "backbone"):
        return str(getattr(run, label.run)) or "none"
    full = next((o for p, o in published.full_models.items() if is_method(run, [p])), {})
    value = method_options(run).get(label.run, full.get(label.run))
    if value is None:
        return "no such option"
    return ("yes" if value else "no") if isinstance(value, bool) else plain(option_value(value))


def _method_title(entry: Printed) -> str:
    """With the citation and the marks of the paper's Table 1."""
    labels = entry.labels
    citation = labels.get("citation", "")
    return "".join(
        (
            entry.method,
            " (ours, in the paper)" if citation == "ours" else f" [{citation}]" if citation else "",
            " ↑" if labels.get("first_click") == "yes" else "",
            " ↓" if labels.get("diverse_output") == "yes" else "",
        )
    )


def _value(
    measure: Measure, entry: Printed | None, run: Entry | None, published: Published, opencv: str
) -> Value:
    others, notes = [], []
    number = entry.numbers.get(measure.column, "") if entry else ""
    if entry:
        notes += [remark.text for remark in published.remarks_on(entry) if measure.column in remark.columns]
        for other in published.elsewhere(entry):
            if measure.column in other.numbers:
                others.append(other.numbers[measure.column])
                notes.append(published.sentence(entry, other))
    measured, interval, missing = _measured(measure, run)
    return Value(
        measure=measure,
        published=number,
        elsewhere=tuple(dict.fromkeys(others)),
        published_notes=tuple(notes),
        measured=measured,
        interval=interval,
        missing=missing,
        measured_notes=notes_on_samples(run, measure.dataset, opencv) if run else (),
        comparable=run is not None and is_comparable(run, measure.dataset, published),
    )


def _measured(measure: Measure, run: Entry | None) -> tuple[float | None, tuple[float, float] | None, str]:
    """A run's number, its interval, and why there is none."""
    if run is None:
        return None, None, NOT_RUN
    if measure.percent not in run.summary.noc:
        return None, None, stopped(run)
    if measure.kind == "nof":
        return float(run.summary.nof[measure.percent].ritm), None, ""
    estimate = run.summary.noc[measure.percent]
    return estimate.mean, (estimate.low, estimate.high), ""


_Emphases = tuple[tuple[Emphasis, Emphasis], ...]
"""Of a block: for each column, of the printed and of the measured number."""


def _emphases(blocks: Sequence[Block], set_off: bool) -> list[_Emphases]:
    """The best and the second best of a group, for printed and measured numbers apart; equal numbers are equal."""
    columns = range(len(blocks[0].values))
    printed = [
        _ranks([float(b.values[c].published) if b.first and b.values[c].published else None for b in blocks])
        for c in columns
    ]
    measured = [
        _ranks(
            [
                round(value.measured, 2) if value.measured is not None and value.comparable else None
                for value in (block.values[c] for block in blocks)
            ]
        )
        for c in columns
    ]
    if not set_off:
        return [tuple(("", "") for _ in columns) for _ in blocks]
    return [tuple((printed[c][at], measured[c][at]) for c in columns) for at in range(len(blocks))]


def _ranks(numbers: Sequence[float | None]) -> list[Emphasis]:
    """Nothing is set off where there is one number alone."""
    known = [number for number in numbers if number is not None]
    if len(known) < 2:
        return [""] * len(numbers)
    order = sorted(set(known))
    marks: dict[float | None, Emphasis] = {order[0]: "best"}
    if len(order) > 1:
        marks[order[1]] = "second"
    return [marks.get(number, "") for number in numbers]


def _block_lines(block: Block, best: _Emphases, notes: Footnotes) -> list[tuple[Cell, ...]]:
    """Printed numbers, measured numbers, difference: those lines that have something to say."""
    labels = tuple(map(Cell, block.labels))
    lines: list[tuple[Cell, ...]] = []
    if block.entry and block.first:
        head = Cell("published", notes.marks(*block.row_notes))
        numbers = (_printed_cell(v, b[0], notes) for v, b in zip(block.values, best, strict=True))
        lines.append((*labels, head, *numbers))
    shown = "measured" if not block.runs or not block.entry else f"measured: {block.runs[0].label}"
    head = Cell(shown, notes.marks(*block.run_notes))
    numbers = (_measured_cell(v, b[1], notes) for v, b in zip(block.values, best, strict=True))
    lines.append((*labels, head, *numbers))
    if block.entry and block.runs:
        lines.append((*labels, Cell("difference"), *map(_difference_cell, block.values)))
    return lines


def _printed_cell(value: Value, emphasis: Emphasis, notes: Footnotes) -> Cell:
    others = " / ".join(value.elsewhere)
    return Cell(
        value.published or NOT_PRINTED,
        notes.marks(*value.published_notes),
        emphasis=emphasis,
        behind=f"/ {others}" if others else "",
    )


def _measured_cell(value: Value, emphasis: Emphasis, notes: Footnotes) -> Cell:
    if value.measured is None:
        return _no_number(value, notes)
    interval = f"{value.interval[0]:.2f}, {value.interval[1]:.2f}" if value.interval else ""
    marks = notes.marks(*value.measured_notes)
    return Cell(_number(value.measure, value.measured), marks, interval, emphasis)


def _no_number(value: Value, notes: Footnotes) -> Cell:
    return Cell(NOT_RUN) if value.missing == NOT_RUN else Cell(NOT_AVAILABLE, notes.marks(value.missing))


def _difference_cell(value: Value) -> Cell:
    if value.difference is None:
        missing = NOT_RUN if value.missing == NOT_RUN else NOT_AVAILABLE
        return Cell(missing if value.missing else NOT_PRINTED)
    return Cell(signed(value.measure, value.difference))


def _number(measure: Measure, number: float) -> str:
    return f"{number:.2f}" if measure.kind == "noc" else f"{number:.0f}"


def signed(measure: Measure, difference: float) -> str:
    """A difference as tables print it: `+0.04`, `−3`, `0.00`."""
    size = _number(measure, abs(difference))
    if not float(size):
        return size
    return f"{'+' if difference > 0 else '−'}{size}"


def _caption(definition: TableDefinition, published: Published, remarks: Sequence[str]) -> str:
    protocol = ", ".join(f"{key} {value}" for key, value in published.protocol.items() if value != "none")
    has_failures = any(measure.kind == "nof" for measure in definition.columns)
    has_methods = any(label.published == "method" for label in definition.labels)
    parts = [
        f"Published: as printed ({definition.source}); a number behind a stroke is another source's, see the mark; "
        f"{NOT_PRINTED}: there is none. Measured: from the stored runs, with the 95 % bootstrap interval over samples; "
        f"{NOT_RUN}: no stored run belongs to the row. Difference: measured minus published, before a stroke.",
        "NoF is counted by RITM's rule (samples whose NoC equals 20), as published numbers are."
        if has_failures
        else "",
        "↑: uses the first click; ↓: diverse output." if has_methods else "",
        "In each group of the paper's table the best number is bold, the second best underlined: among published "
        "numbers (those before a stroke), and apart from them among measured ones of at least two runs without a mark "
        "for their protocol or samples."
        if definition.set_off_best
        else "",
        f"Protocol where no mark says otherwise: {protocol}, samples all.",
        *published.remarks_on_table(definition.file),
        *remarks,
    ]
    return " ".join(filter(None, parts))


def _records(definition: TableDefinition, block: Block) -> list[dict[str, Any]]:
    """A row of the CSV for each number, unrounded."""
    by_card = {run.dataset: run for run in block.runs}
    records = []
    for value in block.values:
        run = by_card.get(value.measure.dataset.card)
        low, high = value.interval or (None, None)
        records.append(
            {
                "table": definition.name,
                "group": definition.groups[block.group].title,
                "row": block.row,
                **{label.heading: text for label, text in zip(definition.labels, block.labels, strict=True)},
                "dataset": value.measure.dataset.title,
                "measure": value.measure.title,
                "published": value.published,
                "published_source": block.entry.source if block.entry else "",
                "published_elsewhere": " / ".join(value.elsewhere),
                "measured": value.measured,
                "low": low,
                "high": high,
                "difference": value.difference,
                "reason": _reason(block, value),
                "run": run.folder if run else "",
                "label": run.label if run else "",
                "protocol": run.protocol if run else "",
                "notes": ". ".join(_notes(block, value, run)),
            }
        )
    return records


def _reason(block: Block, value: Value) -> str:
    """Why a number is missing; never empty where one is."""
    printed = "" if value.published else NOT_PRINTED if block.entry else "no row in the paper's table"
    return "; ".join(filter(None, (value.missing, printed)))


def _notes(block: Block, value: Value, run: Entry | None) -> list[str]:
    own = (*block.run_notes, *value.measured_notes) if run else ()
    return [*block.row_notes, *value.published_notes, *own]


def _lines(
    definition: TableDefinition, blocks: Sequence[Block], remarks: Sequence[str], paths: Sequence[Path]
) -> list[str]:
    filled = [block for block in blocks if block.runs]
    rows = {block.row for block in blocks if block.row}
    run = {block.row for block in filled if block.row}
    lines = [str(path) for path in paths]
    lines.append(f"{definition.title}: {len(run)} of {counted(len(rows), 'row')} with a run")
    for block in filled:
        for value in block.values:
            if value.measured is not None:
                lines.append(f"  {_line(block, value)}")
    without = [block.row for block in blocks if block.row and not block.runs]
    if without:
        lines.append(f"not run: {'; '.join(without)}")
    return [*lines, *remarks]


def _line(block: Block, value: Value) -> str:
    assert value.measured is not None  # the caller's condition
    text = (
        f"{block.row or block.runs[0].label} on {value.measure.dataset.title}: {value.measure.title} "
        f"measured {_number(value.measure, value.measured)}"
    )
    if value.difference is None:
        return f"{text}, {NOT_PRINTED}" if block.entry else text
    return f"{text}, published {value.published} ({signed(value.measure, value.difference)})"
