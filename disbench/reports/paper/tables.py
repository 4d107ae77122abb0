"""The paper's tables from stored runs: printed numbers, measured numbers, and their difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from disbench.io.files import write_files
from disbench.reports.paper.definitions import PaperTable, read_definition
from disbench.reports.paper.published import Measure, read_published
from disbench.reports.paper.rows import NOT_PRINTED, NOT_RUN, Block, Number, paper_blocks, read_paper_runs
from disbench.reports.render import latex, markdown
from disbench.reports.render.table import Cell, Column, Emphasis, Footnotes, Table, counted, csv_text
from disbench.reports.report import Report

FORMATS = ("markdown", "latex", "csv")
_NOT_AVAILABLE = "not available"
_SUFFIXES = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}


def make_paper_table(
    name: str,
    runs: Sequence[Path],
    out: Path,
    *,
    rows: Sequence[tuple[str, Path]] = (),
    formats: Iterable[str] = FORMATS,
) -> Report:
    """Write a table of the paper: printed numbers, measured numbers, and their difference; arguments as `reproduce`.

    Raises:
        InputError: an unknown table or row, or a run that cannot be read.
    """
    definition = read_definition(PaperTable, name)
    blocks, remarks = paper_blocks(definition, read_paper_runs(runs, rows))
    table = paper_table(definition, blocks, remarks)
    texts = {
        "markdown": f"# {markdown.escape(table.title)}\n\n{markdown.table(table)}\n",
        "latex": latex.document({table.name: table}),
        "csv": csv_text([record for block in blocks for record in _records(definition, block)]),
    }
    chosen: dict[str, bytes | None] = {
        f"{definition.name}{_SUFFIXES[form]}": texts[form].encode() for form in FORMATS if form in formats
    }
    paths = write_files(chosen, out)
    return Report(tuple(paths), tuple(_lines(definition, blocks, remarks, paths)))


def paper_table(definition: PaperTable, blocks: Sequence[Block], remarks: Sequence[str]) -> Table:
    """Blocks as a table: rows of printed numbers, of measured numbers, and of their difference."""
    notes = Footnotes()
    columns = (
        *(Column(label.heading, number=False) for label in definition.labels),
        Column("Number", number=False),
        *(Column(measure.title, measure.dataset.title) for measure in definition.measures),
    )
    rows: list[tuple[Cell, ...]] = []
    groups: dict[int, str] = {}
    labelled = any(label.run == "label" for label in definition.labels)
    for number, group in enumerate(definition.groups):
        members = [block for block in blocks if block.group == number]
        if not members:
            continue
        groups[len(rows)] = group.title
        own = all(block.entry and block.entry.file == definition.published for block in members)
        for block, best in zip(members, _emphases(members, definition.set_off_best and own), strict=True):
            rows += _block_lines(block, best, notes, labelled)
    caption = _caption(definition, remarks)
    return Table(definition.name, definition.title, caption, columns, tuple(rows), notes.by_mark(), groups)


_Emphases = Sequence[tuple[Emphasis, Emphasis]]
"""Emphasis of the printed and of the measured number in each column of a block."""


def _emphases(blocks: Sequence[Block], set_off: bool) -> list[_Emphases]:
    """The best and second best of a group, separately for printed and for measured numbers; equal ones share a rank."""
    if not set_off:
        return [[("", "")] * len(block.numbers) for block in blocks]
    columns = []
    for numbers in zip(*(block.numbers for block in blocks), strict=True):
        printed = [
            float(number.published) if block.first and number.published else None
            for block, number in zip(blocks, numbers, strict=True)
        ]
        found = [number.measured.number if number.comparable else None for number in numbers]
        measured = [None if value is None else round(value, 2) for value in found]
        columns.append(list(zip(_ranks(printed), _ranks(measured), strict=True)))
    return list(zip(*columns, strict=True))


def _ranks(numbers: Sequence[float | None]) -> list[Emphasis]:
    """A single number has no rank."""
    known = [number for number in numbers if number is not None]
    if len(known) < 2:
        return [""] * len(numbers)
    order = sorted(set(known))
    marks: dict[float | None, Emphasis] = {order[0]: "best"}
    if len(order) > 1:
        marks[order[1]] = "second"
    return [marks.get(number, "") for number in numbers]


def _block_lines(block: Block, best: _Emphases, notes: Footnotes, labelled: bool) -> list[tuple[Cell, ...]]:
    """Printed numbers, measured numbers, difference; only lines that have numbers.

    A run's label is beside its numbers, unless a column has it (`labelled`) and no printed row is above.
    """
    labels = tuple(map(Cell, block.labels))
    lines: list[tuple[Cell, ...]] = []
    if block.entry and block.first:
        head = Cell("published", notes.marks(*block.row_notes))
        cells = (_printed_cell(number, mark, notes) for number, (mark, _) in zip(block.numbers, best, strict=True))
        lines.append((*labels, head, *cells))
    bare = not block.runs or (labelled and not block.entry)
    shown = "measured" if bare else f"measured: {block.runs[0].label}"
    head = Cell(shown, notes.marks(*block.run_notes))
    cells = (_measured_cell(number, mark, notes) for number, (_, mark) in zip(block.numbers, best, strict=True))
    lines.append((*labels, head, *cells))
    if block.entry and block.runs:
        lines.append((*labels, Cell("difference"), *map(_difference_cell, block.numbers)))
    return lines


def _printed_cell(number: Number, emphasis: Emphasis, notes: Footnotes) -> Cell:
    behind = f"/ {' / '.join(number.elsewhere)}" if number.elsewhere else ""
    marks = notes.marks(*number.published_notes)
    return Cell(number.published or NOT_PRINTED, marks, emphasis=emphasis, behind=behind)


def _measured_cell(number: Number, emphasis: Emphasis, notes: Footnotes) -> Cell:
    found = number.measured
    if found.number is None:
        return Cell(NOT_RUN) if found.missing == NOT_RUN else Cell(_NOT_AVAILABLE, notes.marks(found.missing))
    interval = "" if found.low is None or found.high is None else f"{found.low:.2f}, {found.high:.2f}"
    return Cell(_text(number.measure, found.number), notes.marks(*number.measured_notes), interval, emphasis)


def _difference_cell(number: Number) -> Cell:
    if number.difference is not None:
        return Cell(signed(number.measure, number.difference))
    missing = number.measured.missing
    return Cell(NOT_RUN if missing == NOT_RUN else _NOT_AVAILABLE if missing else NOT_PRINTED)


def _text(measure: Measure, number: float) -> str:
    return f"{number:.2f}" if measure.kind == "noc" else f"{number:.0f}"


def signed(measure: Measure, difference: float) -> str:
    """A difference as tables print it: `+0.04`, `−3`, `0.00`."""
    size = _text(measure, abs(difference))
    if not float(size):
        return size
    return f"{'+' if difference > 0 else '−'}{size}"


def _caption(definition: PaperTable, remarks: Sequence[str]) -> str:
    published = read_published()
    protocol = ", ".join(f"{key} {value}" for key, value in published.sources.protocol.items() if value != "none")
    has_failures = any(measure.kind == "nof" for measure in definition.measures)
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
        *published.remarks_on_table(definition.published),
        *remarks,
    ]
    return " ".join(filter(None, parts))


def _records(definition: PaperTable, block: Block) -> list[dict[str, Any]]:
    """A CSV row for each number, unrounded."""
    by_card = {run.dataset: run for run in block.runs}
    records = []
    for number in block.numbers:
        run = by_card.get(number.measure.dataset.card)
        not_printed = "" if number.published else NOT_PRINTED if block.entry else "no row in the paper's table"
        own = (*block.run_notes, *number.measured_notes) if run else ()
        measured = number.measured
        records.append(
            {
                "table": definition.name,
                "group": definition.groups[block.group].title,
                "row": block.row,
                **{label.heading: text for label, text in zip(definition.labels, block.labels, strict=True)},
                "dataset": number.measure.dataset.title,
                "measure": number.measure.title,
                "published": number.published,
                "published_source": block.entry.source if block.entry else "",
                "published_elsewhere": " / ".join(number.elsewhere),
                "measured": None if measured.number is None else float(measured.number),
                "low": measured.low,
                "high": measured.high,
                "difference": number.difference,
                "reason": "; ".join(filter(None, (measured.missing, not_printed))),
                "run": run.folder if run else "",
                "label": run.label if run else "",
                "protocol": run.protocol if run else "",
                "notes": ". ".join((*block.row_notes, *number.published_notes, *own)),
            }
        )
    return records


def _lines(definition: PaperTable, blocks: Sequence[Block], remarks: Sequence[str], paths: Sequence[Path]) -> list[str]:
    filled = [block for block in blocks if block.runs]
    rows = {block.row for block in blocks if block.row}
    run = {block.row for block in filled if block.row}
    lines = [str(path) for path in paths]
    lines.append(f"{definition.title}: {len(run)} of {counted(len(rows), 'row')} with a run")
    for block in filled:
        for number in block.numbers:
            if number.measured.number is not None:
                lines.append(_line(block, number, number.measured.number))
    without = [block.row for block in blocks if block.row and not block.runs]
    if without:
        lines.append(f"not run: {'; '.join(without)}")
    return [*lines, *remarks]


def _line(block: Block, number: Number, measured: float) -> str:
    text = (
        f"  {block.row or block.runs[0].label} on {number.measure.dataset.title}: {number.measure.title} "
        f"measured {_text(number.measure, measured)}"
    )
    if number.difference is None:
        return f"{text}, {NOT_PRINTED}" if block.entry else text
    return f"{text}, published {number.published} ({signed(number.measure, number.difference)})"
