"""`make_report`: tables, curves and the page from stored runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from disbench.files import whole_file
from disbench.reports import latex, markdown
from disbench.reports.curves import Curve, Panel, draw_curves
from disbench.reports.entries import Entry, by_dataset, find_runs, read_entries
from disbench.reports.spreadsheet import curves_csv, results_csv
from disbench.reports.summary import SOLVED
from disbench.reports.table import (
    Table,
    clicks_table,
    failures,
    overview_table,
    quality_table,
    reference,
)
from disbench.reports.text import counted, plain

PAGE, RESULTS, CURVES, TABLES = "report.md", "results.csv", "curves.csv", "tables.tex"
PNG, SVG = "curves.png", "curves.svg"


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        paths: of the files, the page first.
        lines: what to tell the user.
    """

    paths: tuple[Path, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Section:
    """The part of the page that a dataset has."""

    heading: str
    facts: str
    clicks: Table
    quality: Table


def make_report(folders: Sequence[Path], out: Path) -> Report:
    """Write tables, curves and the page that joins them; only stored runs are read.

    Args:
        folders: each a run, or a folder with runs below it, at any depth.
        out: folder for the report; made if missing. Files of an earlier report are replaced.

    Returns:
        The files: `report.md`, `results.csv`, `tables.tex`, and, where a run has curves, `curves.csv`,
        `curves.png` and `curves.svg`. The same runs give the same bytes.

    Raises:
        InputError: no run in a folder, or one that is not finished or damaged.
    """
    entries = read_entries(find_runs(folders))
    sections = [_section(group) for group in by_dataset(entries).values()]
    overview = overview_table(entries)
    panels = _panels(entries, sections)
    contents: dict[str, bytes | None] = {
        PAGE: _page(entries, overview, sections, panels).encode(),
        RESULTS: results_csv(entries).encode(),
        TABLES: _tables(overview, sections).encode(),
        **dict.fromkeys((CURVES, PNG, SVG)),
    }
    if panels:
        contents[CURVES] = curves_csv(entries).encode()
        contents[PNG], contents[SVG] = draw_curves(panels)
    return Report(tuple(write_files(contents, out)), tuple(_lines(entries, out)))


def _section(entries: Sequence[Entry]) -> _Section:
    first = entries[0]
    facts = first.description["dataset"].get("facts", {})
    options = facts.get("options", "")
    parts = [
        str(facts.get("title", "")),
        counted(first.dataset_samples, "sample"),
        f"content hash {first.content_hash}",
        f"options {_pairs(options) if isinstance(options, Mapping) else options}" if options else "",
    ]
    return _Section(
        f"{first.dataset} ({first.short_hash})",
        "; ".join(filter(None, parts)),
        clicks_table(entries),
        quality_table(entries),
    )


def _panels(entries: Sequence[Entry], sections: Sequence[_Section]) -> list[Panel]:
    """A panel a dataset; marks are those of the dataset's first table."""
    styles: dict[tuple[str, ...], int] = {}
    panels = []
    for group, section in zip(by_dataset(entries).values(), sections, strict=True):
        curves: list[Curve] = []
        used: set[str] = set()
        for entry, row in zip(group, section.clicks.rows, strict=True):
            if entry.summary.miou is None:
                continue
            used.update(row[0].marks)
            marks = f"[{', '.join(row[0].marks)}] " if row[0].marks else ""
            remark = f"{marks}NoC@{SOLVED} {entry.summary.noc[SOLVED].mean:.2f}"
            curves.append(
                Curve(entry.label, remark, entry.summary.miou, styles.setdefault(entry.setting, len(styles)))
            )
        notes = [f"[{mark}] {text}" for mark, text in section.clicks.footnotes.items() if mark in used]
        left_out = [entry.label for entry in group if entry.summary.miou is None]
        if left_out:
            notes.append(f"Without curves, since their samples end early: {', '.join(left_out)}")
        if curves:
            subset = reference(group)["samples"]
            title = section.heading if subset == "all" else f"{section.heading}, samples: {subset}"
            panels.append(Panel(title, tuple(curves), tuple(notes)))
    return panels


def _page(
    entries: Sequence[Entry], overview: Table, sections: Sequence[_Section], panels: Sequence[Panel]
) -> str:
    import jinja2  # noqa: PLC0415  (heavy)

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(md=markdown.escape, table=markdown.table, code=markdown.code_block)
    template = resources.files("disbench.reports").joinpath("report.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        overview=overview,
        sections=sections,
        panels=panels,
        stopped=[entry for entry in entries if entry.summary.miou is None],
        png=PNG,
        svg=SVG,
        curves=CURVES,
        results=RESULTS,
        tables=TABLES,
        runs=[(entry, _facts(entry)) for entry in entries],
    )


def _facts(entry: Entry) -> list[tuple[str, str]]:
    """What the page says of a run, beside its command."""
    description = entry.description
    method, card, result = description["method"], description["method"]["card"], description["result"]
    repeated = result.get("batches_repeated", {}).get("count", 0)
    weights = [f"{weight.get('file')}: SHA-256 {weight.get('sha256')}" for weight in card.get("weights", [])]
    facts = {
        "Method": f"{card.get('title', entry.method)}, {method['entry']}",
        "Source": f"SHA-256 {method['source_sha256']}" if method.get("source_sha256") else "",
        "Options": _pairs(method["options"]),
        "Citation": card.get("citation", ""),
        "Code": card.get("code", ""),
        "Licence": card.get("licence", ""),
        "Weights": "; ".join(weights),
        "Dataset": f"{entry.dataset}, {counted(entry.dataset_samples, 'sample')}, content hash {entry.content_hash}",
        "Protocol": ", ".join(f"{key} {value}" for key, value in entry.conditions.items()),
        "Threshold": f"{entry.threshold:g}",
        "Stop": "" if entry.stop_at is None else f"at an IoU of {entry.stop_at:g}",
        "Result": f"{counted(entry.summary.samples, 'sample')}, {counted(entry.summary.clicks, 'click')}, "
        f"{result['wall_seconds']:.1f} s of wall time",
        "Failed": failures(entry),
        "Batches": f"{repeated} failed and were asked again one by one" if repeated else "",
        "Versions": _pairs(description["versions"], " "),
        "Machine": f"{description['machine']['system']}, {entry.execution}",
    }
    return [(name, plain(text)) for name, text in facts.items() if text]


def _pairs(values: Mapping[str, Any], between: str = "=") -> str:
    return ", ".join(f"{key}{between}{value}" for key, value in values.items())


def _tables(overview: Table, sections: Sequence[_Section]) -> str:
    tables = [latex.table(overview, overview.name)]
    for number, section in enumerate(sections, start=1):
        tables += [latex.table(part, f"{part.name}-{number}") for part in (section.clicks, section.quality)]
    return "% Needs the packages booktabs and graphicx.\n" + "\n\n".join(tables) + "\n"


def write_files(contents: Mapping[str, bytes | None], out: Path) -> list[Path]:
    """Write what there is; what there is not goes away, so that no earlier report's part stays.

    Args:
        contents: name of a file -> its bytes, or None for one that there shall not be.
        out: folder; made if missing.

    Returns:
        The files that were written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in contents.items():
        if content is None:
            (out / name).unlink(missing_ok=True)
            continue
        with whole_file(out / name) as file:
            file.write(content)
        written.append(out / name)
    return written


def _lines(entries: Sequence[Entry], out: Path) -> list[str]:
    groups = by_dataset(entries)
    lines = [f"{out / PAGE}: {counted(len(entries), 'run')} on {counted(len(groups), 'dataset')}"]
    for entry in entries:
        estimate = entry.summary.noc.get(SOLVED)
        value = "not available" if estimate is None else f"{estimate.mean:.2f}"
        lines.append(f"  {entry.label} on {entry.dataset} ({entry.short_hash}): NoC@{SOLVED} {value}")
    return lines
