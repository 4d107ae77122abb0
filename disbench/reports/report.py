"""`make_report`: tables, curves and pages from stored runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from disbench.core.errors import InputError
from disbench.harness.measures import SOLVED
from disbench.harness.store import StoredRun
from disbench.io.files import write_files
from disbench.reports.ambiguity.intents import read_intents
from disbench.reports.ambiguity.numbers import Numbers, read_numbers
from disbench.reports.ambiguity.report import FIGURE, draw_ambiguity
from disbench.reports.ambiguity.report import overview as overview_of_sets
from disbench.reports.curves import Curve, Panel, draw_curves
from disbench.reports.entries import Entry, by_dataset, curve_styles, read_entries, split_runs
from disbench.reports.page import dataset_facts, page_html, run_facts
from disbench.reports.render import Picture, Table, counted, latex, markdown
from disbench.reports.samples import failure_pictures
from disbench.reports.sensitivity import (
    FirstClickNumbers,
    depth_panels,
    depth_series,
    depth_tables,
    extremes,
    extremes_table,
    first_clicks_table,
    read_first_click_numbers,
)
from disbench.reports.tables import (
    budget_table,
    clicks_table,
    curves_csv,
    overview_table,
    quality_table,
    reference,
    results_csv,
)

PAGE, RESULTS, CURVES, TABLES = "report.md", "results.csv", "curves.csv", "tables.tex"
LEADERBOARD = "leaderboard.html"
PNG, SVG = "curves.png", "curves.svg"
DEPTH_PNG, DEPTH_SVG = "depth.png", "depth.svg"
FILES = (PAGE, RESULTS, CURVES, TABLES, LEADERBOARD, PNG, SVG, DEPTH_PNG, DEPTH_SVG)


@dataclass(frozen=True)
class Report:
    """The files written, page first, and lines for the terminal."""

    paths: tuple[Path, ...]
    lines: tuple[str, ...]


def make_report(
    folders: Sequence[Path], out: Path, *, page: bool = False, failures: int = 0, data: Path | None = None
) -> Report:
    """Write a report with tables and curves from stored runs; the same runs give the same bytes.

    Args:
        folders: runs (packed or not), or folders that contain runs at any depth. Runs of the diverse task get one
            table; `disbench.reports.ambiguity.report` makes the others.
        out: created if missing; files of an earlier report are replaced.
        page: also write the leaderboard, one HTML file.
        failures: number of unsolved samples, and of samples solved late, to draw per run in the leaderboard.
        data: root of the datasets, for the drawn samples.

    Returns:
        `report.md`, `results.csv`, `tables.tex`; `curves.csv`, `curves.png` and `curves.svg` if a run has curves;
        `depth.png` and `depth.svg` for `--policy slices:10`; `leaderboard.html` with `page`.

    Raises:
        InputError: a folder without runs, an unfinished or damaged run, or a dataset to draw that is missing or
            differs from the run's.
    """
    found = split_runs(folders)
    runs = found.required()
    entries = read_entries(runs) if runs else []
    once = [entry for entry in entries if entry.budget]
    series = depth_series([entry for entry in entries if not entry.budget])
    apart = {entry.folder for entry in once} | {entry.folder for one in series for entry in one.slices}
    clicked = [entry for entry in entries if entry.folder not in apart]  # depth tables show the slices
    if page and not clicked:
        raise InputError("no run uses the click loop, which the leaderboard needs; leave out --page")
    numbers = [read_numbers(run) for run in found.answers]
    first = [read_first_click_numbers(run) for run in found.first_clicks]
    tried = extremes(clicked)
    plain = [
        *([budget_table(once)] if once else []),
        *([overview_of_sets(numbers)] if numbers else []),
        *depth_tables(series),
        *([extremes_table(tried)] if tried else []),
        *([first_clicks_table(first)] if first else []),
    ]
    overview = [overview_table(clicked)] if clicked else []
    groups = list(by_dataset(clicked).values())
    sections = [(group[0], clicks_table(group), quality_table(group)) for group in groups]
    tables = {table.name: table for table in (*overview, *plain)}
    for number, (_, *parts) in enumerate(sections, start=1):
        tables |= {f"{part.name}-{number}": part for part in parts}
    styles = curve_styles(clicked)
    panels = [_panel(group, section[1], styles) for group, section in zip(groups, sections, strict=True)]
    drawn = [panel for panel in panels if panel.curves]
    curves = draw_curves(drawn) if drawn else {}
    depths = draw_curves(depth_panels(series), columns=2) if series else {}
    figures = [*_ambiguity_figure(numbers, runs)] if page else []
    pictures = failure_pictures(clicked, data, failures) if failures else {}
    if page and series:
        figures.append(("NoC and AuC against the depth of clicks", depths["png"]))
    text = markdown.render(
        "report.md.jinja",
        files={"png": PNG, "svg": SVG, "curves": CURVES, "results": RESULTS, "tables": TABLES, "depth": DEPTH_PNG},
        overview=overview,
        plain_tables=plain,
        sections=[(entry.dataset_name, dataset_facts(entry), *parts) for entry, *parts in sections],
        drawn=bool(drawn),
        depth=bool(series),
        first_clicks=first,
        runs=[(entry, run_facts(entry)) for entry in entries],
    )
    contents: dict[str, bytes | None] = {
        PAGE: text.encode(),
        RESULTS: results_csv(entries).encode(),
        TABLES: latex.document(tables).encode(),
        CURVES: curves_csv(clicked).encode() if drawn else None,
        PNG: curves.get("png"),
        SVG: curves.get("svg"),
        DEPTH_PNG: depths.get("png"),
        DEPTH_SVG: depths.get("svg"),
        LEADERBOARD: page_html(clicked, pictures, plain, figures).encode() if page else None,
    }
    lines = _lines(entries, first, out)
    if page:
        lines.append(f"{out / LEADERBOARD}: the same for a browser, in one file")
    return Report(tuple(write_files(contents, out)), tuple(lines))


def _ambiguity_figure(numbers: Sequence[Numbers], runs: Sequence[StoredRun]) -> Iterator[Picture]:
    """The leaderboard's ambiguity figure; it skips packed runs, which have no table of sets."""
    on_sets = [run for run in runs if run.record.dataset.has_sets and run.archive is None]
    intents = [read_intents(run) for run in on_sets if run.protocol.stop_at is None]
    if numbers or intents:
        yield FIGURE, draw_ambiguity(numbers, intents)["png"]


def _panel(group: Sequence[Entry], table: Table, styles: Mapping[tuple[str, ...], int]) -> Panel:
    """The curves of runs on one dataset, with the marks of its clicks table."""
    marks = {entry.folder: row[0].marks for entry, row in zip(group, table.rows, strict=True)}
    whole = [entry for entry in group if entry.rows.miou is not None]
    curves = [run_curve(entry, marks[entry.folder], styles[entry.setting]) for entry in whole]
    used = {mark for entry in whole for mark in marks[entry.folder]}
    notes = [f"[{mark}] {text}" for mark, text in table.footnotes.items() if mark in used]
    if left_out := [entry.label for entry in group if entry.rows.miou is None]:
        notes.append(f"Without curves, since their samples end early: {', '.join(left_out)}")
    name, subset = group[0].dataset_name, reference(group)["samples"]
    return Panel(name if subset == "all" else f"{name}, samples: {subset}", tuple(curves), tuple(notes))


def run_curve(entry: Entry, marks: Sequence[str], style: int) -> Curve:
    """The curve of a run without early stopping, with marks and NoC in the legend."""
    assert entry.rows.miou is not None  # checked by the caller
    before = f"[{', '.join(marks)}] " if marks else ""
    return Curve(entry.label, f"{before}{entry.measured(f'noc_{SOLVED}')}", entry.rows.miou, style)


def _lines(entries: Sequence[Entry], first: Sequence[FirstClickNumbers], out: Path) -> list[str]:
    datasets = {entry.dataset_name for entry in entries} | {run.dataset for run in first}
    lines = [f"{out / PAGE}: {counted(len(entries) + len(first), 'run')} on {counted(len(datasets), 'dataset')}"]
    for entry in entries:
        found = entry.measured("iou_at_budget" if entry.budget else f"noc_{SOLVED}")
        points = f" ({entry.budget})" if entry.budget else ""
        policy = entry.conditions["click policy"]
        clicks = "" if policy == "center" else f", {policy}"
        lines.append(f"  {entry.label}{clicks} on {entry.dataset_name}: {found}{points}")
    for run in first:
        numbers = f"{run.recorded.mean():.3f}, of the standard click {run.standard.mean():.3f}"
        lines.append(f"  {run.label} on {run.dataset}: IoU of {run.clicks:,} recorded first clicks {numbers}")
    return lines
