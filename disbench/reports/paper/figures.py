"""The paper's figures from stored runs: mean IoU by click (4), the output of each stage (5), the first click (6).

`reproduce` makes any table or figure by name; `build_leaderboard` adds some of them to a report.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from disbench.core.errors import InputError
from disbench.core.sheets import FIGURE_FORMATS, Strip, draw_sheet, make_sheet, window_around
from disbench.io import definitions
from disbench.io.files import write_files
from disbench.reports.curves import Panel, draw_curves
from disbench.reports.entries import Entry, by_dataset, by_setting, find_runs, read_entries
from disbench.reports.paper.definitions import Dataset, PaperCurves, PaperPictures, is_method, read_definition
from disbench.reports.paper.tables import FORMATS as TABLE_FORMATS
from disbench.reports.paper.tables import (
    changed_settings,
    make_paper_table,
    not_shown,
    notes_on_samples,
    read_paper_runs,
)
from disbench.reports.render import Footnotes, counted, plain
from disbench.reports.report import Report, make_report, run_curve
from disbench.reports.samples import (
    RunSample,
    candidate_panels,
    first_click_column,
    mask_panel,
    open_same_dataset,
    read_samples,
)
from disbench.reports.tables import curves_csv, deviation, most_common_opencv, reference

FORMATS = (*FIGURE_FORMATS, "csv")
"""Formats of a figure of curves; `csv` has the values."""
LEGEND = (
    "Blue area: a mask. Dashed line, yellow and black: the target. Grey stripes: ignored pixels. Yellow dot: the first "
    "click; white disc: positive click, black square: negative click, the last one larger. Frame: the kept candidate. "
    "Rectangle on an image: the part enlarged in the other panels."
)


def make_curves_figure(name: str, runs: Sequence[Path], out: Path, *, formats: Collection[str] = FORMATS) -> Report:
    """Draw a figure of curves (`figure4`) from folders of runs, in some of `FORMATS`; lines name what is left out."""
    definition = read_definition(PaperCurves, name)
    entries = read_paper_runs(runs).entries
    shown, remarks = shown_runs(definition, entries)
    panels = [_panel(dataset, entries, shown) for dataset in definition.panels]
    drawn = draw_curves(panels, [form for form in FIGURE_FORMATS if form in formats], columns=2)
    contents: dict[str, bytes | None] = {f"{definition.name}.{form}": content for form, content in drawn.items()}
    if "csv" in formats:
        curves = [entry for members in shown for entry in members]
        contents[f"{definition.name}.csv"] = curves_csv(curves).encode() if curves else None
    paths = write_files(contents, out)
    without = [panel.title for panel in panels if not panel.curves]
    lines = [
        *map(str, paths),
        f"{definition.title}: {counted(len(shown), 'method')}",
        *([f"not run: {', '.join(without)}"] if without else []),
        *remarks,
        *definition.remarks,
    ]
    return Report(tuple(paths), tuple(lines))


def shown_runs(definition: PaperCurves, entries: Sequence[Entry]) -> tuple[list[list[Entry]], list[str]]:
    """The runs to draw, grouped by method and setting, and sentences on the others."""
    cards = {dataset.card for dataset in definition.panels}
    elsewhere = [entry for entry in entries if entry.dataset not in cards]
    here = [entry for entry in entries if entry.dataset in cards]
    stopped = [entry for entry in here if entry.rows.miou is None]
    settings = list(by_setting([entry for entry in here if entry.rows.miou is not None]).values())
    settings.sort(key=lambda members: [not is_method(members[0], [pattern]) for pattern in definition.order])
    shown, more = settings[: definition.most_methods], settings[definition.most_methods :]
    hidden = [entry for members in more for entry in members]
    remarks = [
        not_shown(elsewhere, "since the figure has no panel for their datasets"),
        not_shown(stopped, "since their samples end early"),
        not_shown(hidden, f"since the figure has at most {definition.most_methods} methods"),
    ]
    return shown, [text for text in remarks if text]


def _panel(dataset: Dataset, entries: Sequence[Entry], shown: Sequence[Sequence[Entry]]) -> Panel:
    """The curves of one dataset; a method has the same style in all panels."""
    notes = Footnotes()
    curves = []
    for style, members in enumerate(shown):
        for entry in members:
            if entry.dataset == dataset.card:
                texts = (*changed_settings(entry), *notes_on_samples(entry, dataset, most_common_opencv(entries)))
                curves.append(run_curve(entry, notes.marks(*texts), style))
    marked = tuple(f"[{mark}] {text}" for mark, text in notes.by_mark().items())
    return Panel(dataset.title, tuple(curves), marked)


_Figure = tuple[str, Sequence[str], Sequence[Strip]]
"""Heading, texts and strips of a sheet."""


def make_pictures_figure(
    name: str,
    runs: Sequence[Path],
    out: Path,
    *,
    data: Path | None = None,
    samples: Sequence[str] = (),
    formats: Collection[str] = FIGURE_FORMATS,
) -> Report:
    """Draw a figure of pictures from runs of any method.

    Figure 5 is drawn once per run that stored its candidates (`--store all`), with one row per sample: image and first
    click, the candidates of stage 1, the refined masks, the target. Figure 6 is drawn once per dataset with runs that
    stored masks (`--store kept` or `all`), on samples common to these runs: image, target, and the first masks of each
    method, other candidates below the kept one.

    Args:
        name: `figure5` or `figure6`.
        runs: runs, or folders that contain runs at any depth.
        out: folder for `figure5.png` and so on, or `figure5-1.png` and so on if there are several.
        data: root of the datasets.
        samples: sample ids; if empty, drawn with the seed of the figure's definition.
        formats: some of `disbench.core.sheets.FIGURE_FORMATS`.

    Raises:
        InputError: no run with the samples stored its masks, or a dataset is missing or differs from a run's.
    """
    definition = read_definition(PaperPictures, name)
    make, store, what = (_stages, "all", "all candidates") if name == "figure5" else (_methods, "kept", "masks")
    entries = read_entries(find_runs(runs))
    usable = [
        entry
        for entry in entries
        if entry.record.execution.store in (store, "all") and set(samples) <= set(entry.rows.samples)
    ]
    if not usable:
        named = f" and has the samples {', '.join(map(plain, samples))}" if samples else ""
        raise InputError(
            f"none of {counted(len(entries), 'run')} stored {what}{named}; make one with disbench run --store {store}"
        )
    figures = make(definition, entries, usable, data, samples)
    contents: dict[str, bytes | None] = {}
    for number, (heading, texts, strips) in enumerate(figures, start=1):
        stem = name if len(figures) == 1 else f"{name}-{number}"
        explained = (*texts, LEGEND, *definition.remarks)
        sheet = make_sheet(heading, explained, strips, cell_width=1.3, dpi=220, font_size=7.5)
        drawn = draw_sheet(sheet, [form for form in FIGURE_FORMATS if form in formats])
        contents |= {f"{stem}.{form}": content for form, content in drawn.items()}
    paths = write_files(contents, out)
    return Report(tuple(paths), tuple(f"look at: {path}" for path in paths))


def _stages(
    definition: PaperPictures, _: Sequence[Entry], usable: Sequence[Entry], data: Path | None, samples: Sequence[str]
) -> list[_Figure]:
    figures: list[_Figure] = []
    for entry in usable:
        names, how = _names(entry.rows.samples, definition, samples)
        found = read_samples(entry.run, open_same_dataset(entry.run, data), names)
        heading = f"{definition.title}, {entry.label} on {entry.dataset} ({entry.short_hash})"
        figures.append((heading, (f"{entry.protocol}; {how}.",), _stage_strips(definition, found)))
    return figures


def _stage_strips(definition: PaperPictures, samples: Sequence[RunSample]) -> list[Strip]:
    last = max(definition.refined, default=1)
    windows = [window_around(found.sample.target, found.clicks(last), margin=2) for found in samples]
    offered = [
        candidate_panels(found, definition.candidates, window) for found, window in zip(samples, windows, strict=True)
    ]
    strips = []
    for found, panels, window in zip(samples, offered, windows, strict=True):
        refined = [
            mask_panel(found, number, window, target=False) if number <= len(found.rows) else None
            for number in definition.refined
        ]
        empty = [None] * (max(map(len, offered)) - len(panels))
        row = (found.first_click_panel(window), *panels, *empty, *refined, found.target_panel(window))
        strips.append(Strip(plain(found.sample.id), (row,)))
    return strips


def _methods(
    definition: PaperPictures,
    entries: Sequence[Entry],
    usable: Sequence[Entry],
    data: Path | None,
    samples: Sequence[str],
) -> list[_Figure]:
    figures: list[_Figure] = []
    for group in by_dataset(entries).values():
        shown = [entry for entry in group if any(entry is one for one in usable)]
        if not shown:
            continue
        known = [frozenset(entry.rows.samples) for entry in shown]
        common = [name for name in shown[0].rows.samples if all(name in own for own in known)]
        if not common:
            raise InputError(
                f"{shown[0].run.folder} and {shown[1].run.folder}: no sample in common; name runs made with "
                "the same --every and --limit"
            )
        names, how = _names(common, definition, samples)
        source, shared = open_same_dataset(shown[0].run, data), reference(shown)
        found = [read_samples(entry.run, source, names) for entry in shown]
        notes = [f"{entry.label}: {text}." for entry in shown if (text := deviation(entry, shared))]
        if hidden := [entry.label for entry in group if not any(entry is one for one in usable)]:
            notes.append(f"Without stored masks, and so not shown: {', '.join(hidden)}.")
        labels = [entry.label for entry in shown]
        strips = [_method_strip(labels, sample, definition.candidates) for sample in zip(*found, strict=True)]
        heading = f"{definition.title}, on {shown[0].dataset} ({shown[0].short_hash})"
        figures.append((heading, (f"{how[:1].upper()}{how[1:]}.", *notes), strips))
    return figures


def _method_strip(labels: Sequence[str], samples: Sequence[RunSample], candidates: int) -> Strip:
    first = samples[0]
    window = window_around(first.sample.target, first.clicks(1), margin=3)
    columns = [
        first_click_column(found, label, candidates, window) for label, found in zip(labels, samples, strict=True)
    ]
    columns = [[first.first_click_panel(window)], [first.target_panel(window)], *columns]
    rows = range(max(map(len, columns)))
    return Strip(
        plain(first.sample.id),
        tuple(tuple(column[row] if row < len(column) else None for column in columns) for row in rows),
    )


def _names(ids: Sequence[str], definition: PaperPictures, samples: Sequence[str]) -> tuple[list[str], str]:
    """The samples to show, and how they were chosen."""
    if samples:
        return list(samples), "samples named by the user"
    order = np.random.default_rng(definition.seed).permutation(len(ids))[: definition.samples]
    how = f"{counted(len(order), 'sample')} of {len(ids):,}, drawn with seed {definition.seed}"
    return [ids[number] for number in order], how


_TABLE, _FIGURE, _PICTURES = "table", "figure", "figure of pictures"
_FORMATS = {_TABLE: tuple(TABLE_FORMATS), _FIGURE: FORMATS, _PICTURES: FIGURE_FORMATS}
KINDS = {
    **dict.fromkeys(("table1", "table2", "table3", "table4", "table5"), _TABLE),
    "figure4": _FIGURE,
    **dict.fromkeys(("figure5", "figure6"), _PICTURES),
}


def reproduce(
    name: str,
    runs: Sequence[Path],
    out: Path,
    *,
    rows: Sequence[tuple[str, Path]] = (),
    formats: Collection[str] = (),
    data: Path | None = None,
    samples: Sequence[str] = (),
) -> Report:
    """Make a table or figure of the paper from stored runs.

    Args:
        name: one of `KINDS`, or the path of a table's definition (`.toml`).
        runs: runs, or folders that contain runs; if empty, everything is "not run".
        out: created if missing.
        rows: (name of a table's row, folder whose runs belong to it) pairs.
        formats: formats to write; if empty, all.
        data: root of the datasets, for figures that show images.
        samples: sample ids for such a figure; if empty, drawn at random.

    Raises:
        InputError: an unknown name, a format or option that does not apply, or unreadable runs or images.
    """
    if name not in KINDS and not name.endswith(".toml"):
        raise InputError(f"unknown table or figure {name!r}; choose from {', '.join(KINDS)}")
    kind = KINDS.get(name, _TABLE)
    for form in formats:
        if form not in _FORMATS[kind]:
            known = ", ".join(f"--{known}" for known in _FORMATS[kind])
            raise InputError(f"{name} is a {kind} and has no --{form}; choose from {known}")
    if rows and kind != _TABLE:
        raise InputError(f"{name} is a {kind}, and --map is only for tables; leave it out")
    if samples and kind != _PICTURES:
        raise InputError(f"{name} is a {kind} and shows no samples; leave out --sample")
    formats = formats or _FORMATS[kind]
    if kind == _TABLE:
        return make_paper_table(name, runs, out, rows=rows, formats=formats)
    if kind == _FIGURE:
        return make_curves_figure(name, runs, out, formats=formats)
    return make_pictures_figure(name, runs, out, data=data, samples=samples, formats=formats)


def reproducible() -> list[str]:
    """One line per table and figure: name and title."""
    titles = {name: definitions.load(definitions.find("reports", name))["title"] for name in KINDS}
    return [f"{name:<10} {title}" for name, title in titles.items()]


def build_leaderboard(runs: Sequence[Path], out: Path, names: Sequence[str] = ("table1", "figure4")) -> list[str]:
    """Write a report with `leaderboard.html`, and the paper's tables and figures (PNG) in `paper/`; returns lines.

    Args:
        runs: runs (packed or not), or folders that contain runs.
        out: created if missing; the same runs give the same bytes.
        names: as in `reproduce`; raises its errors and those of `make_report`.
    """
    looped = any(not run.protocol.budget for run in find_runs(runs))  # the page shows only these
    lines = list(make_report(runs, out, page=looped).lines)
    for name in names:
        lines += reproduce(name, runs, out / "paper", formats=["png"] if KINDS.get(name) == _FIGURE else ()).lines
    return lines
