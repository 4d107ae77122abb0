"""The paper's tables from stored runs: printed numbers, measured numbers, and their difference.

Each row is matched with its stored runs; their deviations from the paper's protocol are noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError, unknown_name
from disbench.harness.measures import Value
from disbench.io import addresses
from disbench.io.files import write_files
from disbench.reports.entries import Entry, by_setting, find_runs, read_entries
from disbench.reports.paper.definitions import (
    Dataset,
    Label,
    Measure,
    PaperTable,
    Pattern,
    PublishedRow,
    is_method,
    read_definition,
    read_published,
)
from disbench.reports.render import (
    Cell,
    Column,
    Emphasis,
    Footnotes,
    Table,
    counted,
    csv_text,
    latex,
    markdown,
    option_value,
    plain,
)
from disbench.reports.report import Report
from disbench.reports.tables import deviation, most_common_opencv, notes_on_dataset

FORMATS = {"markdown": "md", "latex": "tex", "csv": "csv"}
_NOT_AVAILABLE = "not available"
NOT_RUN, NOT_PRINTED = "not run", "not printed"


@dataclass(frozen=True)
class PaperRuns:
    """Runs, and the rows that the user assigned to some of them: `Entry.folder` -> name of the row."""

    entries: tuple[Entry, ...]
    named: Mapping[str, str]


def read_paper_runs(folders: Sequence[Path], rows: Sequence[tuple[str, Path]] = ()) -> PaperRuns:
    """Read the runs in `folders` (may be empty) and in the folders assigned to `rows`.

    Raises:
        InputError: a folder without runs, or a run that is damaged, unfinished or assigned to two rows.
    """
    if not folders and not rows:
        return PaperRuns((), {})
    wanted: dict[Path, str] = {}
    for name, folder in rows:
        for run in find_runs([folder]):
            if wanted.setdefault(run.folder.resolve(), name) != name:
                other = wanted[run.folder.resolve()]
                raise InputError(f"{run.folder}: assigned to the rows {other!r} and {name!r}; assign it to one")
    entries = read_entries(find_runs([*folders, *(folder for _, folder in rows)]))
    named = {entry.folder: wanted.get(entry.run.folder.resolve(), "") for entry in entries}
    return PaperRuns(tuple(entries), {folder: row for folder, row in named.items() if row})


def parse_rows(texts: Iterable[str]) -> list[tuple[str, Path]]:
    """Parse each `ROW=FOLDER` into row name and folder; `InputError` if malformed."""
    found = []
    for text in texts:
        name, _, folder = map(str.strip, text.partition("="))
        if not (name and folder):
            raise InputError(f"--map {text!r}: write it as ROW=FOLDER, the name of a row and the folder of a run")
        found.append((name, addresses.local_copy(addresses.path_of(folder))))
    return found


def assign(runs: PaperRuns, patterns: Mapping[str, Pattern]) -> tuple[dict[str, list[Entry]], list[Entry]]:
    """Assign runs to rows (the user's choice, else the first that fits); also returns the runs without a row."""
    for name in runs.named.values():
        if name not in patterns:
            raise unknown_name("row", name, patterns)
    found: dict[str, list[Entry]] = {name: [] for name in patterns}
    rest: list[Entry] = []
    for entry in runs.entries:
        fitting = (name for name, pattern in patterns.items() if pattern.fits(entry))
        row = runs.named.get(entry.folder) or next(fitting, None)
        (rest if row is None else found[row]).append(entry)
    return found, rest


@dataclass(frozen=True)
class Number:
    """A number as printed (or ""), with differing numbers printed `elsewhere`, and as measured by a run.

    `comparable`: whether the run followed the paper's protocol on all samples.
    """

    measure: Measure
    published: str
    elsewhere: tuple[str, ...]
    published_notes: tuple[str, ...]
    measured: Value
    measured_notes: tuple[str, ...]
    comparable: bool

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        number = self.measured.number
        return None if number is None or not self.published else number - float(self.published)


@dataclass(frozen=True)
class Block:
    """A row of the paper with at most one measured method.

    `group` is its index, `row` its name ("" for a run without a row), `first` whether it shows the row's printed
    numbers, `runs` one method and setting on each dataset.
    """

    group: int
    row: str
    entry: PublishedRow | None
    labels: tuple[str, ...]
    first: bool
    runs: tuple[Entry, ...]
    row_notes: tuple[str, ...]
    run_notes: tuple[str, ...]
    numbers: tuple[Number, ...]


def paper_blocks(table: PaperTable, runs: PaperRuns) -> tuple[list[Block], list[str]]:
    """The rows of a table with their runs, then the runs without a row; also sentences on the runs left out.

    Raises:
        InputError: the user named an unknown row.
    """
    by_row, rest = assign(runs, {name: table.pattern(name) for name in table.rows})
    cards = {measure.dataset.card for measure in table.measures}
    extra: dict[int, list[Entry]] = {number: [] for number in range(-1, len(table.groups))}  # -1: other methods
    for entry in rest:
        extra[next((n for n, group in enumerate(table.groups) if is_method(entry, group.runs)), -1)].append(entry)
    others = extra.pop(-1)
    elsewhere = [entry for entry in chain(*extra.values(), *by_row.values()) if entry.dataset not in cards]
    opencv = most_common_opencv(runs.entries) if runs.entries else ""
    blocks = []
    for group, content in enumerate(table.groups):
        for row in content.rows:
            settings = by_setting([entry for entry in by_row[row.name] if entry.dataset in cards]).values()
            blocks += [
                _block(table, group, row.name, entries, number == 0, opencv)
                for number, entries in enumerate(settings or [[]])
            ]
        settings = by_setting([entry for entry in extra[group] if entry.dataset in cards]).values()
        blocks += [_block(table, group, "", entries, True, opencv) for entries in settings]
    remarks = [
        not_shown(others, "since the table is about other methods"),
        not_shown(elsewhere, "since the table has no column for their datasets"),
    ]
    return blocks, [text for text in remarks if text]


def _block(table: PaperTable, group: int, row: str, runs: Sequence[Entry], first: bool, opencv: str) -> Block:
    entry = table.printed(row) if row else None
    by_card = {run.dataset: run for run in runs}
    remarks = read_published().remarks_on(entry) if entry else []
    run_notes = changed_settings(runs[0]) if runs else ()
    if runs and runs[0].rows.stop_at is not None:
        end = f"samples end at an IoU of {runs[0].rows.stop_at:g}"
        run_notes += (f"{end}, which changes no number of clicks up to it",)
    return Block(
        group=group,
        row=row,
        entry=entry,
        labels=tuple(_label(label, entry, runs) for label in table.labels),
        first=first,
        runs=tuple(runs),
        row_notes=tuple(remark.text for remark in remarks if not remark.columns),
        run_notes=run_notes,
        numbers=tuple(_number(measure, entry, by_card.get(measure.dataset.card), opencv) for measure in table.measures),
    )


def _label(label: Label, entry: PublishedRow | None, runs: Sequence[Entry]) -> str:
    """The printed label (methods with citation and marks as in the paper's Table 1); without a row, the run's own."""
    if entry is not None and label.published == "method":
        citation = entry.labels.get("citation", "")
        named = " (ours, in the paper)" if citation == "ours" else f" [{citation}]" if citation else ""
        marks = {"first_click": " ↑", "diverse_output": " ↓"}
        return entry.method + named + "".join(mark for key, mark in marks.items() if entry.labels.get(key) == "yes")
    if entry is not None:
        return entry.labels.get(label.published) or "none"
    run = runs[0]
    if label.run in ("label", "training_data", "backbone"):
        return str(getattr(run, label.run)) or "none"
    full = next((o for p, o in read_published().sources.full_models.items() if is_method(run, [p])), {})
    value = run.record.method.options.get(label.run, full.get(label.run))
    if value is None:
        return "no such option"
    return ("yes" if value else "no") if isinstance(value, bool) else plain(option_value(value))


def _number(measure: Measure, entry: PublishedRow | None, run: Entry | None, opencv: str) -> Number:
    published, others, notes, printed = read_published(), [], [], ""
    if entry:
        printed = entry.numbers.get(measure.column, "")
        for other, numbers in published.elsewhere(entry):
            if measure.column in numbers:
                others.append(numbers[measure.column])
                notes.append(published.sentence(entry, other, numbers))
        notes += [remark.text for remark in published.remarks_on(entry) if measure.column in remark.columns]
    return Number(
        measure=measure,
        published=printed,
        elsewhere=tuple(dict.fromkeys(others)),
        published_notes=tuple(notes),
        measured=run.values[measure.name] if run else Value(missing=NOT_RUN),
        measured_notes=notes_on_samples(run, measure.dataset, opencv) if run else (),
        comparable=run is not None
        and run.conditions["samples"] == "all"
        and not (_other_data(run, measure.dataset) or changed_settings(run)),
    )


def changed_settings(entry: Entry) -> tuple[str, ...]:
    """How a run deviates from the paper's protocol, whatever the dataset."""
    usual, own = entry.record.method.facts.threshold, entry.record.protocol.threshold
    other = f"threshold {own:g} instead of the method's own {usual:g}" if own != usual else ""
    return tuple(filter(None, (deviation(entry, read_published().sources.protocol), other)))


def notes_on_samples(entry: Entry, dataset: Dataset, opencv: str) -> tuple[str, ...]:
    """Notes on a run's samples, OpenCV version (`opencv` is the most common one) and failures."""
    return tuple(filter(None, (_other_data(entry, dataset), *notes_on_dataset(entry, opencv))))


def not_shown(entries: Sequence[Entry], why: str) -> str:
    """A sentence on runs that are left out; "" if there are none."""
    if not entries:
        return ""
    datasets: dict[str, list[str]] = {}
    for entry in entries:
        datasets.setdefault(entry.label, []).append(entry.dataset)
    names = [f"{label} on {', '.join(dict.fromkeys(where))}" for label, where in datasets.items()]
    return f"Not shown, {why}: {counted(len(entries), 'run')} ({'; '.join(names)})."


def _other_data(entry: Entry, dataset: Dataset) -> str:
    if dataset.content_hash in ("", entry.content_hash):
        return ""
    return f"another {dataset.title}: content hash {entry.short_hash} instead of the card's {dataset.content_hash[:8]}"


def make_paper_table(
    name: str,
    runs: Sequence[Path],
    out: Path,
    *,
    rows: Sequence[tuple[str, Path]] = (),
    formats: Iterable[str] = FORMATS,
) -> Report:
    """Write a table of the paper: printed numbers, measured numbers, and their difference; arguments as in `reproduce`.

    Raises:
        InputError: an unknown table or row, or a run that cannot be read.
    """
    definition = read_definition(PaperTable, name)
    blocks, remarks = paper_blocks(definition, read_paper_runs(runs, rows))
    table = paper_table(definition, blocks, remarks)
    texts: dict[str, bytes | None] = {
        "md": f"# {markdown.escape(table.title)}\n\n{markdown.table(table)}\n".encode(),
        "tex": latex.document({table.name: table}).encode(),
        "csv": csv_text([record for block in blocks for record in _records(definition, block)]).encode(),
    }
    paths = write_files({f"{definition.name}.{FORMATS[form]}": texts[FORMATS[form]] for form in formats}, out)
    return Report(tuple(paths), tuple(_lines(definition, blocks, remarks, paths)))


def paper_table(definition: PaperTable, blocks: Sequence[Block], remarks: Sequence[str]) -> Table:
    """Lay out blocks as a table: rows of printed numbers, measured numbers and differences."""
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
"""Emphasis of the printed and the measured number in each column of a block."""


def _emphases(blocks: Sequence[Block], set_off: bool) -> list[_Emphases]:
    """The best and second best of a group, separately for printed and measured numbers; ties share a rank."""
    columns = []
    for numbers in zip(*(block.numbers for block in blocks), strict=True):
        printed, measured = [], []
        for block, number in zip(blocks, numbers, strict=True):
            found = number.measured.number if number.comparable else None
            measured.append(None if found is None else round(found, 2))
            printed.append(float(number.published) if block.first and number.published else None)
        columns.append(list(zip(_ranks(printed, set_off), _ranks(measured, set_off), strict=True)))
    return list(zip(*columns, strict=True))


def _ranks(numbers: Sequence[float | None], set_off: bool) -> list[Emphasis]:
    """Ranks of numbers; a single number gets none."""
    known = [number for number in numbers if number is not None]
    order = sorted(set(known)) if set_off and len(known) > 1 else []
    marks: dict[float | None, Emphasis] = dict(zip(order, ("best", "second"), strict=False))
    return [marks.get(number, "") for number in numbers]


def _block_lines(block: Block, best: _Emphases, notes: Footnotes, labelled: bool) -> list[tuple[Cell, ...]]:
    """Lines of printed numbers, measured numbers and differences, where there are any.

    `measured` is followed by the run's label, unless a column shows it (`labelled`) and there is no printed row.
    """
    labels = tuple(map(Cell, block.labels))
    lines: list[tuple[Cell, ...]] = []
    both = list(zip(block.numbers, best, strict=True))
    if block.entry and block.first:
        head, printed = Cell("published", notes.marks(*block.row_notes)), []
        for number, (mark, _) in both:
            behind = f"/ {' / '.join(number.elsewhere)}" if number.elsewhere else ""
            marks = notes.marks(*number.published_notes)
            printed.append(Cell(number.published or NOT_PRINTED, marks, emphasis=mark, behind=behind))
        lines.append((*labels, head, *printed))
    bare = not block.runs or (labelled and not block.entry)
    head = Cell("measured" if bare else f"measured: {block.runs[0].label}", notes.marks(*block.run_notes))
    lines.append((*labels, head, *(_measured_cell(number, mark, notes) for number, (_, mark) in both)))
    if block.entry and block.runs:
        lines.append((*labels, Cell("difference"), *map(_difference_cell, block.numbers)))
    return lines


def _measured_cell(number: Number, emphasis: Emphasis, notes: Footnotes) -> Cell:
    found = number.measured
    if found.number is None:
        return Cell(NOT_RUN) if found.missing == NOT_RUN else Cell(_NOT_AVAILABLE, notes.marks(found.missing))
    interval = "" if found.low is None or found.high is None else f"{found.low:.2f}, {found.high:.2f}"
    return Cell(_text(number.measure, found.number), notes.marks(*number.measured_notes), interval, emphasis)


def _difference_cell(number: Number) -> Cell:
    if number.difference is not None:
        return Cell(_signed(number.measure, number.difference))
    missing = number.measured.missing
    return Cell(NOT_RUN if missing == NOT_RUN else _NOT_AVAILABLE if missing else NOT_PRINTED)


def _text(measure: Measure, number: float) -> str:
    return f"{number:.2f}" if measure.kind == "noc" else f"{number:.0f}"


def _signed(measure: Measure, difference: float) -> str:
    """Format a difference: `+0.04`, `−3`, `0.00`."""
    size = _text(measure, abs(difference))
    return f"{'+' if difference > 0 else '−'}{size}" if float(size) else size


def _caption(definition: PaperTable, remarks: Sequence[str]) -> str:
    published = read_published()
    protocol = ", ".join(f"{key} {value}" for key, value in published.sources.protocol.items() if value != "none")
    has_failures = any(measure.kind == "nof" for measure in definition.measures)
    has_methods = any(label.published == "method" for label in definition.labels)
    parts = [
        f"Published: as printed ({definition.source}); a number after a stroke is from another source, see the mark; "
        f"{NOT_PRINTED}: not published. Measured: from stored runs, with the 95 % bootstrap interval over samples; "
        f"{NOT_RUN}: no stored run. Difference: measured minus published (the number before a stroke).",
        "NoF follows RITM's rule (samples whose NoC equals 20), as published numbers do." if has_failures else "",
        "↑: uses the first click; ↓: diverse output." if has_methods else "",
        "In each group of the paper's table the best number is bold and the second best underlined, separately for "
        "published numbers (before a stroke) and for measured ones, if at least two runs have no mark for their "
        "protocol or samples."
        if definition.set_off_best
        else "",
        f"Protocol, unless marked: {protocol}, samples all.",
        *published.remarks_on_table(definition.published),
        *remarks,
    ]
    return " ".join(filter(None, parts))


def _records(definition: PaperTable, block: Block) -> list[dict[str, Any]]:
    """One CSV row per number, unrounded."""
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
    shown, without = (
        list(dict.fromkeys(block.row for block in blocks if block.row and bool(block.runs) == run))
        for run in (True, False)
    )
    lines = [*map(str, paths), f"{definition.title}: {len(shown)} of {counted(len(shown + without), 'row')} with a run"]
    listed = (("with a run", shown), ("not run", without))
    return [*lines, *(f"{what}: {'; '.join(rows)}" for what, rows in listed if rows), *remarks]
