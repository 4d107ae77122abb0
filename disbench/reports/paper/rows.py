"""Rows of the paper's tables with the stored runs that belong to them, and their departures from its protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from disbench.core.errors import InputError, unknown_name
from disbench.harness.measures import Value
from disbench.io import addresses
from disbench.reports.entries import Entry, by_setting, find_runs, read_entries
from disbench.reports.paper.definitions import Label, PaperTable, Pattern, is_method
from disbench.reports.paper.published import Dataset, Measure, Printed, read_published
from disbench.reports.render.table import counted, option_value, plain
from disbench.reports.tables import deviation, most_common_opencv, notes_on_dataset

NOT_RUN, NOT_PRINTED = "not run", "not printed"


@dataclass(frozen=True)
class PaperRuns:
    """Runs, and the rows that the user named for some of them: folder of an entry -> name of its row."""

    entries: tuple[Entry, ...]
    named: Mapping[str, str]


def read_paper_runs(folders: Sequence[Path], rows: Sequence[tuple[str, Path]] = ()) -> PaperRuns:
    """The runs of folders (each a run, or with runs below it), which may be none, and of the folders named for a row.

    Raises:
        InputError: no run in a folder, or one that is damaged, unfinished or named for two rows.
    """
    if not folders and not rows:
        return PaperRuns((), {})
    wanted: dict[Path, str] = {}
    for name, folder in rows:
        for run in find_runs([folder]):
            place = run.folder.resolve()
            if wanted.setdefault(place, name) != name:
                raise InputError(f"{run.folder}: named for the rows {wanted[place]!r} and {name!r}; name one")
    entries = read_entries(find_runs([*folders, *(folder for _, folder in rows)]))
    places = {entry.folder: entry.run.folder.resolve() for entry in entries}
    return PaperRuns(tuple(entries), {name: wanted[place] for name, place in places.items() if place in wanted})


def parse_rows(texts: Iterable[str]) -> list[tuple[str, Path]]:
    """Name of a row and folder from each `ROW=FOLDER`; `InputError` for another form."""
    found = []
    for text in texts:
        name, sign, folder = text.partition("=")
        if not (sign and name.strip() and folder.strip()):
            raise InputError(f"--map {text!r}: give the name of a row and the folder of a run as ROW=FOLDER")
        found.append((name.strip(), addresses.here(addresses.path_of(folder.strip()))))
    return found


def assign(runs: PaperRuns, patterns: Mapping[str, Pattern]) -> tuple[dict[str, list[Entry]], list[Entry]]:
    """The runs of each row (the one that the user named, else the first that fits), and those without a row."""
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
    """A number of a row as printed (or "") and as measured by a run.

    Attributes:
        elsewhere: different numbers in other sources.
        comparable: whether the run followed the paper's protocol on all samples.
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
    """A row of the paper with at most one method that was run for it.

    `group` is its index, `row` its name ("" for a run without a row), `first` whether it has the row's printed numbers,
    `runs` one method and setting on each dataset.
    """

    group: int
    row: str
    entry: Printed | None
    labels: tuple[str, ...]
    first: bool
    runs: tuple[Entry, ...]
    row_notes: tuple[str, ...]
    run_notes: tuple[str, ...]
    numbers: tuple[Number, ...]


def paper_blocks(table: PaperTable, runs: PaperRuns) -> tuple[list[Block], list[str]]:
    """The rows of a table with their runs, then the runs without a row; and sentences on runs that are not shown.

    Raises:
        InputError: the user named an unknown row.
    """
    by_row, rest = assign(runs, {name: table.pattern(name) for name in table.rows})
    cards = {measure.dataset.card for measure in table.measures}
    extra = [entry for entry in rest if is_method(entry, table.runs_without_a_row)]
    others = [entry for entry in rest if not is_method(entry, table.runs_without_a_row)]
    elsewhere = [entry for entry in chain(extra, *by_row.values()) if entry.dataset not in cards]
    opencv = most_common_opencv(runs.entries) if runs.entries else ""
    blocks = []
    for group, content in enumerate(table.groups):
        for row in content.rows:
            settings = by_setting([entry for entry in by_row[row.name] if entry.dataset in cards]).values()
            for number, entries in enumerate(settings or [[]]):
                blocks.append(_block(table, group, row.name, entries, number == 0, opencv))
    for entries in by_setting([entry for entry in extra if entry.dataset in cards]).values():
        blocks.append(_block(table, len(table.groups) - 1, "", entries, True, opencv))
    remarks = [
        not_shown(others, "since the table is about other methods"),
        not_shown(elsewhere, "since the table has no column for their datasets"),
    ]
    return blocks, [text for text in remarks if text]


def _block(table: PaperTable, group: int, row: str, runs: Sequence[Entry], first: bool, opencv: str) -> Block:
    entry = table.printed(row) if row else None
    by_card = {run.dataset: run for run in runs}
    remarks = read_published().remarks_on(entry) if entry else []
    run_notes: tuple[str, ...] = ()
    if runs:
        run_notes = departures(runs[0])
        if runs[0].stop_at is not None:
            end = f"samples end at an IoU of {runs[0].stop_at:g}"
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


def _label(label: Label, entry: Printed | None, runs: Sequence[Entry]) -> str:
    """As printed, or the run's own if it has no row."""
    if entry is not None:
        text = _method_title(entry) if label.published == "method" else entry.labels.get(label.published, "")
        return text or "none"
    run = runs[0]
    if label.run in ("label", "training_data", "backbone"):
        return str(getattr(run, label.run)) or "none"
    full = next((o for p, o in read_published().sources.full_models.items() if is_method(run, [p])), {})
    value = run.record.method.options.get(label.run, full.get(label.run))
    if value is None:
        return "no such option"
    return ("yes" if value else "no") if isinstance(value, bool) else plain(option_value(value))


def _method_title(entry: Printed) -> str:
    """The method with citation and marks as in the paper's Table 1."""
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


def _number(measure: Measure, entry: Printed | None, run: Entry | None, opencv: str) -> Number:
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
        and not (_other_data(run, measure.dataset) or departures(run)),
    )


def departures(entry: Entry) -> tuple[str, ...]:
    """How a run departs from the paper's protocol, on any dataset."""
    usual = entry.record.method.facts.threshold
    found = (
        deviation(entry, read_published().sources.protocol),
        f"threshold {entry.threshold:g} instead of the method's own {usual:g}" if entry.threshold != usual else "",
    )
    return tuple(filter(None, found))


def notes_on_samples(entry: Entry, dataset: Dataset, opencv: str) -> tuple[str, ...]:
    """Notes on a run's samples, version of OpenCV (`opencv` is that of most runs) and failures."""
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
