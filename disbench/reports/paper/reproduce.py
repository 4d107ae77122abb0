"""A table or figure of the paper from stored runs, by its name; and a leaderboard, which has some beside its report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from disbench.core.errors import InputError
from disbench.core.figures import FORMS
from disbench.io import definitions
from disbench.reports.entries import find_runs
from disbench.reports.paper import figures, tables
from disbench.reports.report import Report, make_report

_TABLE, _FIGURE, _PICTURES = "table", "figure", "figure of pictures"
_FORMATS = {_TABLE: tuple(tables.FORMATS), _FIGURE: figures.FORMATS, _PICTURES: FORMS}
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
        name: of `KINDS`, or the path of a table's definition (`.toml`).
        runs: folders, each a run or with runs below it; without any, everything is "not run".
        out: created if missing.
        rows: name of a table's row, and a folder whose runs belong to it.
        formats: files to write; none writes all.
        data: root of the datasets, for figures that show images.
        samples: ids for such a figure; none draws them at random.

    Raises:
        InputError: an unknown name, a format or option that it does not have, or runs or images that cannot be read.
    """
    if name not in KINDS and not name.endswith(".toml"):
        raise InputError(f"unknown table or figure {name!r}; there are {', '.join(KINDS)}")
    kind = KINDS.get(name, _TABLE)
    for form in formats:
        if form not in _FORMATS[kind]:
            known = ", ".join(f"--{known}" for known in _FORMATS[kind])
            raise InputError(f"{name} is a {kind} and has no --{form}; choose from {known}")
    if rows and kind != _TABLE:
        raise InputError(f"{name} is a {kind}, and --map is for tables; leave it out")
    if samples and kind != _PICTURES:
        raise InputError(f"{name} is a {kind} and shows no samples; leave --sample out")
    formats = formats or _FORMATS[kind]
    if kind == _TABLE:
        return tables.make_paper_table(name, runs, out, rows=rows, formats=formats)
    if kind == _FIGURE:
        return figures.make_curves_figure(name, runs, out, formats=formats)
    return figures.make_pictures_figure(name, runs, out, data=data, samples=samples, formats=formats)


def reproducible() -> list[str]:
    """A line for each table and figure: its name and title."""
    titles = {name: definitions.load(definitions.find("reports", name))["title"] for name in KINDS}
    return [f"{name:<10} {title}" for name, title in titles.items()]


def build_leaderboard(runs: Sequence[Path], out: Path, names: Sequence[str] = ("table1", "figure4")) -> list[str]:
    """Write the report of runs, `leaderboard.html`, and tables and figures (PNG) of the paper in `paper/`; lines tell.

    Args:
        runs: each a run, packed or not, or a folder with runs below it.
        out: created if missing; the same runs give the same bytes.
        names: as for `reproduce`, whose errors and those of `make_report` are raised.
    """
    looped = any(not run.protocol.budget for run in find_runs(runs))  # the page is about these
    lines = list(make_report(runs, out, page=looped).lines)
    for name in names:
        lines += reproduce(name, runs, out / "paper", formats=["png"] if KINDS.get(name) == _FIGURE else ()).lines
    return lines
