"""The report on an ablation: its measured rows, and the signs of its contrasts beside the paper's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from disbench.io.files import write_files
from disbench.reports.ablation.plans import AblationPlan
from disbench.reports.ablation.results import (
    HOW,
    CellRun,
    MeasuredAblation,
    Quantity,
    Sign,
    estimate,
    read_results,
    values_of,
)
from disbench.reports.paper.definitions import PaperTable, read_definition
from disbench.reports.paper.rows import NOT_RUN
from disbench.reports.render import markdown
from disbench.reports.render.table import DASH, Cell, Column, Footnotes, Table, counted, csv_text
from disbench.reports.report import Report
from disbench.reports.tables import notes_on_dataset

_ROWS = (
    "Mean over seeds and samples; in brackets the 95 % interval over samples and, after a stroke, the one over "
    "seeds where there are several."
)


def report_ablation(plan: AblationPlan, folder: Path, out: Path) -> Report:
    """Write `signs-NAME.md`, `signs-NAME.csv` and `rows-NAME.csv` from the results in a folder.

    `InputError` if nothing is finished, or rows cannot be compared.
    """
    paper = read_definition(PaperTable, plan.table) if plan.table else None
    ablation = MeasuredAblation(plan, paper, read_results(folder))
    contents: dict[str, bytes | None] = {
        f"signs-{plan.name}.md": _page(ablation).encode(),
        f"signs-{plan.name}.csv": csv_text([_sign_record(plan.name, sign) for sign in ablation.signs]).encode(),
        f"rows-{plan.name}.csv": csv_text(list(_row_records(ablation))).encode(),
    }
    paths = write_files(contents, out)
    return Report(tuple(paths), (*map(str, paths), *_lines(ablation.signs)))


def _page(ablation: MeasuredAblation) -> str:
    budget = next(iter(next(iter(ablation.results.values())).values())).record.budget
    printed = [measure.dataset for measure in ablation.paper.measures] if ablation.paper else []
    unmeasured = dict.fromkeys(dataset.title for dataset in printed if dataset.card not in ablation.datasets)
    facts = [
        f"Every row is trained for {budget}.",
        f"The paper also prints numbers on {', '.join(unmeasured)}, where nothing was run." if unmeasured else "",
        _unmeasured(ablation.signs),
        f"{_tally(ablation.signs)}.",
    ]
    paragraphs = [
        f"# {markdown.escape(ablation.plan.title)}",
        markdown.escape(" ".join(filter(None, facts))),
        "## Rows",
        markdown.table(_rows_table(ablation)),
        "## Signs",
        markdown.table(_signs_table(ablation)),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _measured(signs: Sequence[Sign]) -> list[Sign]:
    """The signs of contrasts with a difference on some dataset."""
    contrasts = [sign.contrast for sign in signs if sign.ours is not None]
    return [sign for sign in signs if sign.contrast in contrasts]


def _unmeasured(signs: Sequence[Sign]) -> str:
    """A sentence on the contrasts without a difference."""
    measured = [sign.contrast for sign in _measured(signs)]
    names = dict.fromkeys(sign.contrast.name for sign in signs if sign.contrast not in measured)
    return f"Without a difference, since a row of theirs was not run: {'; '.join(names)}." if names else ""


def _tally(signs: Sequence[Sign]) -> str:
    counts = Counter(sign.finding for sign in signs if sign.paper.side and sign.ours is not None)
    if not counts:
        return "No sign that the paper prints was measured"
    parts = [f"{counts[finding]} {finding}" for finding in ("holds", "against", "not decided")]
    return f"Of {counted(sum(counts.values()), 'sign')} that the paper prints: {', '.join(parts)}"


def _rows_table(ablation: MeasuredAblation) -> Table:
    plan, notes = ablation.plan, Footnotes()
    columns = [Column(name, number=False) for name in ("Row", "Seeds")]
    columns += [Column(quantity.title, dataset) for dataset in ablation.datasets for quantity in ablation.quantities]
    rows = []
    for row in plan.rows:
        runs = [ablation.results.get((row.name, dataset), {}) for dataset in ablation.datasets]
        seeds = sorted({seed for own in runs for seed in own})
        cells = [_row_cell(own, quantity, notes) for own in runs for quantity in ablation.quantities]
        rows.append((Cell(row.name), Cell(", ".join(map(str, seeds)) or NOT_RUN), *cells))
    return Table(f"rows-{plan.name}", plan.title, _ROWS, tuple(columns), tuple(rows), notes.by_mark())


def _row_cell(runs: Mapping[int, CellRun], quantity: Quantity, notes: Footnotes) -> Cell:
    if not runs:
        return Cell(NOT_RUN)
    own = [runs[seed] for seed in sorted(runs)]
    if missing := next(filter(None, (run.missing(quantity) for run in own)), ""):
        return Cell(DASH, notes.marks(missing))
    found = estimate(values_of(own, quantity), quantity)
    text = " / ".join(", ".join(quantity.text(end) for end in ends) for ends in found.intervals)
    first = own[0].entry
    note = notes_on_dataset(first, first.conditions["OpenCV"])[0]
    failed = sum(len(run.entry.rows.failures) for run in own)
    fault = f"the method failed on {counted(failed, 'sample')}, which count with an IoU of 0" if failed else ""
    return Cell(quantity.text(found.mean), notes.marks(note, fault), text)


def _signs_table(ablation: MeasuredAblation) -> Table:
    plan, notes = ablation.plan, Footnotes()
    columns = (
        *(Column(name, number=False) for name in ("Dataset", "Measure")),
        *(Column(name) for name in ("Paper", "Measured", "over samples", "over seeds")),
        *(Column(name, number=False) for name in ("Sign", "Finding")),
    )
    titles: dict[str, int] = {}
    rows: list[tuple[Cell, ...]] = []
    for sign in _measured(ablation.signs):
        titles.setdefault(f"{sign.contrast.name}: {sign.contrast.after} against {sign.contrast.before}", len(rows))
        rows.append(_sign_line(sign, notes))
    groups = {at: title for title, at in titles.items()}
    return Table(f"signs-{plan.name}", plan.title, HOW, columns, tuple(rows), notes.by_mark(), groups)


def _sign_line(sign: Sign, notes: Footnotes) -> tuple[Cell, ...]:
    head = (Cell(sign.dataset), Cell(sign.quantity.title), Cell(sign.paper.text, notes.marks(sign.paper.source)))
    if sign.ours is None:
        shown = Cell(NOT_RUN) if sign.missing == NOT_RUN else Cell(DASH, notes.marks(sign.missing))
        return (*head, shown, *[Cell(DASH)] * 4)
    ends = [
        ", ".join(sign.quantity.text(end, sign=True) for end in interval) if interval else DASH
        for interval in (sign.ours.samples, sign.ours.seeds)
    ]
    texts = (sign.quantity.text(sign.ours.mean, sign=True), *ends, sign.agreement or DASH, sign.finding)
    return (*head, *map(Cell, texts))


def _sign_record(ablation: str, sign: Sign) -> dict[str, Any]:
    ours = sign.ours
    low, high = ours.samples if ours else (None, None)
    seeds_low, seeds_high = ours.seeds if ours and ours.seeds else (None, None)
    return {
        "ablation": ablation,
        "contrast": sign.contrast.name,
        "before": sign.contrast.before,
        "after": sign.contrast.after,
        "dataset": sign.dataset,
        "measure": sign.quantity.key,
        "paper_before": sign.paper.before,
        "paper_after": sign.paper.after,
        "paper_difference": None if sign.paper.difference is None else float(sign.paper.difference),
        "paper_source": sign.paper.source,
        "measured_before": sign.before,
        "measured_after": sign.after,
        "difference": ours.mean if ours else None,
        "samples_low": low,
        "samples_high": high,
        "seeds_low": seeds_low,
        "seeds_high": seeds_high,
        "seeds": " ".join(map(str, sign.seeds)),
        "samples": sign.samples,
        "sign": sign.agreement,
        "finding": sign.finding,
    }


def _row_records(ablation: MeasuredAblation) -> Iterator[dict[str, Any]]:
    """A record for each row, seed, dataset and measure."""
    for (row, dataset), runs in ablation.results.items():
        for seed, run in sorted(runs.items()):
            for quantity in ablation.quantities:
                missing = run.missing(quantity)
                yield {
                    "ablation": ablation.plan.name,
                    "row": row,
                    "seed": seed,
                    "dataset": dataset,
                    "measure": quantity.key,
                    "value": None if missing else estimate([run.values(quantity)], quantity).mean,
                    "samples": len(run.entry.rows.samples),
                    "run": run.entry.folder,
                    "reason": missing,
                }


def _lines(signs: Sequence[Sign]) -> list[str]:
    """NoC@90 of each contrast and dataset, what was not measured, and how many signs hold."""
    lines = []
    for sign in _measured(signs):
        if sign.quantity == Quantity("noc", 90):
            measured = sign.missing if sign.ours is None else sign.quantity.text(sign.ours.mean, sign=True)
            found = "" if sign.ours is None else f" ({sign.finding})"
            paper = f"paper {sign.paper.text}"
            lines.append(f"  {sign.contrast.name} on {sign.dataset}: NoC@90 {measured}, {paper}{found}")
    return [*lines, *filter(None, [_unmeasured(signs)]), _tally(signs)]
