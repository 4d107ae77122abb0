"""`reproduce`: a table or figure of the paper from stored runs, by its name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from disbench import definitions
from disbench.errors import InputError
from disbench.reports import paper_figures, paper_tables
from disbench.reports.report import Report


class Make(Protocol):
    """Makes one table or figure."""

    def __call__(
        self,
        name: str,
        runs: Sequence[Path],
        out: Path,
        *,
        rows: Sequence[tuple[str, Path]],
        formats: Collection[str],
    ) -> Report:
        """See `make_paper_table`."""


@dataclass(frozen=True)
class Maker:
    """What makes a table or a figure.

    Attributes:
        kind: what it is.
        make: the function.
        formats: that it can write.
    """

    kind: str
    make: Make
    formats: tuple[str, ...]


_TABLE = Maker("table", paper_tables.make_paper_table, paper_tables.FORMATS)
MAKERS = {
    **dict.fromkeys(("table1", "table2", "table3", "table4", "table5"), _TABLE),
    "figure4": Maker("figure", paper_figures.make_curves_figure, paper_figures.FORMATS),
}
"""Name -> what makes it."""


def reproduce(
    name: str,
    runs: Sequence[Path],
    out: Path,
    *,
    rows: Sequence[tuple[str, Path]] = (),
    formats: Collection[str] = (),
) -> Report:
    """Make a table or figure of the paper from stored runs.

    Args:
        name: of `MAKERS`, or the path of your own definition of a table (`.toml`).
        runs: folders, each a run or with runs below it; without any, everything is "not run".
        out: folder for the files; made if missing.
        rows: name of a table's row, and a folder whose runs belong to it whatever they are.
        formats: which files to write; none: all that there are.

    Raises:
        InputError: an unknown name, a format that there is not of it, or runs that cannot be read.
    """
    if name not in MAKERS and not name.endswith(".toml"):
        raise InputError(f"unknown table or figure {name!r}; there are {', '.join(MAKERS)}")
    maker = MAKERS.get(name, _TABLE)
    for form in formats:
        if form not in maker.formats:
            known = ", ".join(f"--{known}" for known in maker.formats)
            raise InputError(f"{name} is a {maker.kind} and has no --{form}; choose from {known}")
    return maker.make(name, runs, out, rows=rows, formats=formats or maker.formats)


def reproducible() -> list[str]:
    """A line for each table and figure: its name and title."""
    lines = []
    for name in MAKERS:
        title = definitions.load(definitions.find("reports", name))["title"]
        lines.append(f"{name:<10} {title}")
    return lines
