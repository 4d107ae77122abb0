"""`make_ambiguity_report`: the ambiguity of a first click, from stored runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError
from disbench.reports.ambiguity.numbers import Numbers, read_intents, read_numbers
from disbench.reports.ambiguity.pictures import PictureOptions, pictures_by_name
from disbench.reports.ambiguity.tables import FIGURE, by_sets, csv_rows, draw_ambiguity, tables_of
from disbench.reports.entries import split_runs
from disbench.reports.render import latex, markdown
from disbench.reports.render.html import content_policy, embedded, page, render, table_section, text_of
from disbench.reports.render.text import counted, csv_text
from disbench.reports.report import write_files

PAGE, HTML, NUMBERS, TABLES = "ambiguity.md", "ambiguity.html", "ambiguity.csv", "tables.tex"
PNG, SVG = "ambiguity.png", "ambiguity.svg"
SHEET = "Clicks, the masks that they may mean, and the candidates nearest to them"


def make_ambiguity_report(folders: Sequence[Path], out: Path, pictures: PictureOptions | None = None) -> list[str]:
    """Write tables, a figure, pictures and the text that joins them; only stored runs are read.

    Args:
        folders: each a run of the diverse task or on each intent, or a folder with such runs below it. Other runs are
            ignored.
        out: created if missing; files of an earlier report are replaced.
        pictures: where the shards and images of the runs are; without shards there are no pictures.

    Returns:
        Lines for the user about each file and run. The same runs give the same bytes.

    Raises:
        InputError: no such run in the folders, an unfinished or damaged run, or shards or images that are not those of
            the runs.
    """
    targets, answers = split_runs(folders)
    numbers = [read_numbers(run) for run in answers]
    intents = [read_intents(run) for run in targets if run.record.dataset.has_sets]
    if not numbers and not intents:
        raise InputError(
            f"{', '.join(map(str, folders))}: no run of --task diverse or --task intents; make one with disbench run"
        )
    groups = [
        [(one, run) for one, run in zip(numbers, answers, strict=True) if one in group] for group in by_sets(numbers)
    ]
    sheets = pictures_by_name(groups, pictures or PictureOptions())
    tables = tables_of(numbers, intents)
    drawn = draw_ambiguity(numbers, intents)
    shown = {
        "tables": tables,
        "figure": FIGURE,
        "sheet": SHEET,
        "runs": [*(run.who for run in numbers), *(run.who for run in intents)],
    }
    contents: dict[str, bytes | None] = {
        PAGE: _page(shown, list(sheets)).encode(),
        HTML: _html(shown, drawn["png"], list(sheets.values())).encode(),
        NUMBERS: csv_text(csv_rows([*numbers, *intents])).encode(),
        TABLES: latex.document({table.name: table for table in tables}).encode(),
        PNG: drawn["png"],
        SVG: drawn["svg"],
        **{path.name: None for path in out.glob("pictures-*.png")},
        **sheets,
    }
    write_files(contents, out)
    return _lines(numbers, intents, sheets, out)


def _page(shown: Mapping[str, Any], pictures: Sequence[str]) -> str:
    names = {"png": PNG, "svg": SVG, "numbers": NUMBERS, "latex": TABLES, "pictures": pictures}
    filters: dict[str, Any] = {"md": markdown.escape, "table": markdown.table, "code": markdown.code_block}
    return render("ambiguity.md.jinja", {**shown, **names}, filters=filters)


def _html(shown: Mapping[str, Any], figure: bytes, pictures: Sequence[bytes]) -> str:
    """The report as one HTML file that embeds its pictures."""
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    style = text_of("page.css")
    parts = {
        "policy": content_policy(style),
        "style": Markup(style),
        "figure": embedded((FIGURE, figure), "the report"),
        "pictures": [embedded((SHEET, picture), "the report") for picture in pictures],
        "sections": [table_section(table) for table in shown["tables"]],
    }
    return page("ambiguity.html.jinja", {**shown, **parts})


def _lines(numbers: Sequence[Numbers], intents: Sequence[Numbers], sheets: Mapping[str, bytes], out: Path) -> list[str]:
    lines = [f"{out / PAGE}: {counted(len(numbers) + len(intents), 'run')}"]
    for run in numbers:
        own = run.value("coverage_own_choice")
        chosen = "no choice of its own" if math.isnan(own) else f"by its own choice alone {own:.3f}"
        lines.append(f"  {run.who.label} on {run.who.dataset}: coverage {run.value('coverage'):.3f}, {chosen}")
    for one in intents:
        noc = one.value("noc_90", "any")
        lines.append(f"  {one.who.label} ({one.selection}) on {one.who.dataset}: NoC@90 {noc:.2f}")
    lines.append(f"{out / HTML}: the same for a browser, in one file")
    return [*lines, *(f"{out / name}: pictures" for name in (PNG, *sheets))]
