"""A leaderboard: the report of a folder of runs, with its page, and the paper's tables and figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from disbench.reports.entries import find_runs
from disbench.reports.paper.reproduce import FIGURE, KINDS, reproduce
from disbench.reports.report import make_report

PAPER = "paper"
"""Folder of a leaderboard for tables and figures of the paper."""
TABLES = ("table1", "figure4")


def build_leaderboard(runs: Sequence[Path], out: Path, tables: Sequence[str] = TABLES) -> list[str]:
    """Write the report of runs, `leaderboard.html`, and in `paper/` tables and figures of the paper; lines that tell.

    Args:
        runs: each a run, packed or not, or a folder with runs below it.
        out: created if missing; the same runs give the same bytes.
        tables: as for `reproduce`.

    Raises:
        InputError: as for `make_report` and `reproduce`.
    """
    looped = any(not run.protocol.budget for run in find_runs(runs))  # the page is about these
    lines = list(make_report(runs, out, page=looped).lines)
    for name in tables:
        lines += reproduce(name, runs, out / PAPER, formats=["png"] if KINDS.get(name) == FIGURE else ()).lines
    return lines
