"""Rows of the paper's tables with the stored runs that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from disbench.harness.measures import Value
from disbench.reports.entries import Entry
from disbench.reports.paper.definitions import Label, PaperTable
from disbench.reports.paper.published import Measure, Printed, read_published
from disbench.reports.paper.runs import (
    PaperRuns,
    assign,
    departures,
    is_comparable,
    is_method,
    method_options,
    not_shown,
    notes_on_samples,
)
from disbench.reports.render.text import option_value, plain
from disbench.reports.tables import by_setting, most_common_opencv

NOT_RUN, NOT_PRINTED = "not run", "not printed"


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

    Attributes:
        group: index of the group.
        row: its name, or "" for a run without a row.
        first: whether it is the row's first block, which has the printed numbers.
        runs: one method and setting on each dataset.
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
    value = method_options(run).get(label.run, full.get(label.run))
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
        comparable=run is not None and is_comparable(run, measure.dataset),
    )
