"""The speed suite: each part of disbench against the bare work under it, as ratios measured alternately in one run.

    python benchmarks/suite.py [--only NAME ...] [--compare] [--fail]

Uses real data if DISBENCH_DATA is set, otherwise the embedded photos. Each run adds a line to
`benchmarks/history.jsonl`. `--compare` also shows the last record of the same processor and data, and marks ratios that
grew beyond both spreads; with `--fail` the exit code is then 1. docs/performance.md explains each figure.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import history
from paired_timing import ROUNDS, Pair, Ratio, measure

from disbench import __version__
from disbench.core.errors import InputError
from disbench.workers import threads

HISTORY = Path(__file__).with_name("history.jsonl")
_LIBRARIES = ("numpy", "opencv-python", "opencv-python-headless", "orjson", "pillow", "pyarrow", "pycocotools")
_LIBRARIES += ("rlemasklib", "torch", "typer")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and record; returns the exit code."""
    arguments = _parser().parse_args(argv)
    threads.limit(1)  # before any numeric library is loaded
    import workloads  # noqa: PLC0415

    data = Path(os.environ["DISBENCH_DATA"]) if os.environ.get("DISBENCH_DATA") else None
    before = os.getloadavg()[0]
    ratios: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as folder:
        for pair in workloads.pairs(workloads.Workload(data, Path(folder)), arguments.only):
            ratios[pair.name] = measure(pair)
            print(_table_row(pair, ratios[pair.name]), flush=True)
    record = _record(ratios, data, (before, os.getloadavg()[0]))
    earlier = history.read_history(arguments.history)
    slower = _print_comparison(history.changes(record, earlier)) if arguments.compare else False
    if not arguments.no_history:
        history.append(arguments.history, record)
    return int(slower and arguments.fail)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only figures whose names start with NAME")
    parser.add_argument("--history", type=Path, default=HISTORY, help="file of records")
    parser.add_argument("--no-history", action="store_true", help="do not record this run")
    parser.add_argument("--compare", action="store_true", help="mark what became slower since the last record")
    parser.add_argument("--fail", action="store_true", help="with --compare: exit with 1 if anything did")
    return parser


def _table_row(pair: Pair, ratio: Ratio) -> str:
    spread = f"{_format(ratio.median)} ({_format(ratio.low)} to {_format(ratio.high)})"
    return f"{pair.name:<18} {spread:<26} {ratio.seconds * 1e3:9.3f} ms / {pair.item:<6} against {pair.against}"


def _format(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _print_comparison(changes: dict[str, history.Change]) -> bool:
    """Print the comparison; returns whether anything is slower."""
    print(f"\n{'':<18} {'now':<26} {'before':<26} commit")
    for name, (now, before, commit) in changes.items():
        cells = [f"{_format(r.median)} ({_format(r.low)} to {_format(r.high)})" if r else "-" for r in (now, before)]
        mark = "  SLOWER" if changes[name].slower else ""
        print(f"{name:<18} {cells[0]:<26} {cells[1]:<26} {commit[:10]}{mark}")
    return any(change.slower for change in changes.values())


def _record(ratios: dict[str, Ratio], data: Path | None, load: tuple[float, float]) -> history.Record:
    from disbench.harness.run import processor  # noqa: PLC0415

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"disbench": __version__, "python": platform.python_version(), **_versions()},
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in load],
        "data": "real" if data else "photos",
        "rounds": ROUNDS,
        "ratios": history.rounded_ratios(ratios),
    }


def _versions() -> dict[str, str]:
    changes = {}
    for name in _LIBRARIES:
        try:
            changes[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return changes


def _commit() -> str:
    """The measured commit, with a + if files differ from it; "" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.strip() + ("+" if changed.stdout.strip() else "")


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
