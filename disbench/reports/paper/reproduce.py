"""`reproduce`: a table or figure of the paper from stored runs, by its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from disbench.core.errors import InputError
from disbench.core.figures import FORMS
from disbench.io import definitions
from disbench.reports.paper import (
    figures as paper_figures,
)
from disbench.reports.paper import (
    pictures as paper_pictures,
)
from disbench.reports.paper import (
    tables as paper_tables,
)
from disbench.reports.report import Report


@dataclass(frozen=True)
class Request:
    """What a table or figure is made from.

    Attributes:
        name: of the table or figure.
        runs: folders, each a run or with runs below it.
        out: folder for the files.
        formats: which files to write.
        rows: name of a table's row, and a folder whose runs belong to it whatever they are.
        data: root of the datasets, for figures that show images.
        samples: ids of those that such a figure shows; none: drawn by lot.
    """

    name: str
    runs: Sequence[Path]
    out: Path
    formats: Collection[str]
    rows: Sequence[tuple[str, Path]] = ()
    data: Path | None = None
    samples: Sequence[str] = ()


@dataclass(frozen=True)
class Maker:
    """What makes a table or a figure.

    Attributes:
        kind: what it is: a table, a figure of curves, or one of pictures.
        make: the function.
        formats: that it can write.
    """

    kind: str
    make: Callable[[Request], Report]
    formats: tuple[str, ...]


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
        name: of `MAKERS`, or the path of your own definition of a table (`.toml`).
        runs: folders, each a run or with runs below it; without any, everything is "not run".
        out: folder for the files; made if missing.
        rows: name of a table's row, and a folder whose runs belong to it whatever they are.
        formats: which files to write; none: all that there are.
        data: root of the datasets, for figures that show images.
        samples: ids of those that such a figure shows; none: drawn by lot.

    Raises:
        InputError: an unknown name, a format or an option that it does not have, or runs or images that cannot
            be read.
    """
    if name not in MAKERS and not name.endswith(".toml"):
        raise InputError(f"unknown table or figure {name!r}; there are {', '.join(MAKERS)}")
    maker = MAKERS.get(name, _TABLE)
    for form in formats:
        if form not in maker.formats:
            known = ", ".join(f"--{known}" for known in maker.formats)
            raise InputError(f"{name} is a {maker.kind} and has no --{form}; choose from {known}")
    if rows and maker is not _TABLE:
        raise InputError(f"{name} is a {maker.kind}, and --map is for tables; leave it out")
    if samples and maker.kind != _PICTURES:
        raise InputError(f"{name} is a {maker.kind} and shows no samples; leave --sample out")
    return maker.make(Request(name, runs, out, formats or maker.formats, rows, data, samples))


def _table(asked: Request) -> Report:
    return paper_tables.make_paper_table(asked.name, asked.runs, asked.out, rows=asked.rows, formats=asked.formats)


def _curves(asked: Request) -> Report:
    return paper_figures.make_curves_figure(asked.name, asked.runs, asked.out, formats=asked.formats)


def _pictures(asked: Request) -> Report:
    make = {"figure5": paper_pictures.reproduce_figure5, "figure6": paper_pictures.reproduce_figure6}
    paths = make[asked.name](asked.runs, asked.out, asked.data, asked.samples or None, forms=tuple(asked.formats))
    return Report(tuple(paths), tuple(f"look at: {path}" for path in paths))


_PICTURES = "figure of pictures"
_TABLE = Maker("table", _table, paper_tables.FORMATS)
MAKERS = {
    **dict.fromkeys(("table1", "table2", "table3", "table4", "table5"), _TABLE),
    "figure4": Maker("figure", _curves, paper_figures.FORMATS),
    **dict.fromkeys(("figure5", "figure6"), Maker(_PICTURES, _pictures, FORMS)),
}
"""Name -> what makes it."""


def reproducible() -> list[str]:
    """A line for each table and figure: its name and title."""
    lines = []
    for name in MAKERS:
        title = definitions.load(definitions.find("reports", name))["title"]
        lines.append(f"{name:<10} {title}")
    return lines
