"""Compare the rows of the same run made in several ways: one worker, two, killed and resumed, in batches.

    python benchmarks/repeatability.py --method mobilesam --dataset grabcut --every 5 --data DIR

The others are compared with the first way, one worker, in all columns but the seconds. `killed` is ended by SIGKILL,
including its workers, after a third of the first way's time, and resumed, until it finishes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from disbench.core.metrics import noc
from disbench.harness.store import SECONDS, StoredRun, read_run

Ways = dict[str, tuple[str, ...]]


def run(arguments: list[str], seconds: float | None) -> int:
    """Run the command and kill all its processes after `seconds`; returns the exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "disbench", "run", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def comparison_row(first: StoredRun, other: StoredRun) -> str:
    """A table row: the number of clicks, IoUs and rows that differ, and NoC@90 of both."""
    tables = [run.rows() for run in (first, other)]
    if tables[0].num_rows != tables[1].num_rows:
        return f"| {tables[0].num_rows} and {tables[1].num_rows} rows | | | | |"
    clicks = count_differing(tables, ("x", "y", "positive"))
    ious = np.abs(np.subtract(*(table["iou"].to_numpy() for table in tables)))
    columns = tuple(name for name in tables[0].column_names if name not in SECONDS)
    values = [noc(list(run.by_sample().values()), 0.9) for run in (first, other)]
    return (
        f"| {tables[0].num_rows} | {clicks} | {int((ious > 0).sum())} (at most {ious.max():.4f}) "
        f"| {count_differing(tables, columns)} | {values[0]:.3f}, {values[1]:.3f} |"
    )


def count_differing(tables: list[pa.Table], columns: tuple[str, ...]) -> int:
    """Number of rows that differ in any of the columns."""
    rows = [table.select(columns).to_pylist() for table in tables]
    return sum(one != other for one, other in zip(*rows, strict=True))


def main() -> None:
    """Make the runs and print the table."""
    parser = argparse.ArgumentParser(description="Compare the same run made in several ways.")
    parser.add_argument("--method", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--every", default="1")
    parser.add_argument("--data", default=os.environ.get("DISBENCH_DATA", ""))
    parser.add_argument("--batch", help="also run in batches of this size, for a method with predict_batch")
    arguments = parser.parse_args()
    job = ["--method", arguments.method, "--dataset", arguments.dataset, "--every", arguments.every]
    job += ["--data", arguments.data] if arguments.data else []
    variants: Ways = {"one worker": ("--workers", "1"), "two workers": ("--workers", "2")}
    variants["killed and resumed"] = ("--workers", "2")
    if arguments.batch:
        variants[f"batches of {arguments.batch}"] = ("--workers", "1", "--batch", arguments.batch)
    print("| way | kills | rows | clicks that differ | IoUs that differ | rows that differ | NoC@90 |")
    print("| --- " * 7 + "|")
    with tempfile.TemporaryDirectory() as folder:
        first: StoredRun | None = None
        first_seconds = 0.0
        for number, (name, options) in enumerate(variants.items()):
            command = [*job, "--out", f"{folder}/{number}", *options]
            begun, kills = time.monotonic(), 0
            limit = first_seconds / 3 + 2 if name.startswith("killed") else None
            while (code := run(command, limit)) == -signal.SIGKILL:
                kills += 1
            if code not in (0, 1):
                raise SystemExit(f"{name}: exit code {code}")
            stored = read_run(Path(folder) / str(number))
            first_seconds = first_seconds or time.monotonic() - begun
            print(f"| {name} | {kills} {comparison_row(first or stored, stored)}", flush=True)
            first = first or stored


if __name__ == "__main__":
    main()
