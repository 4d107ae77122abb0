"""Speed of the simulated click compared with the literal restatement of the protocol, on predictions of stored runs.

    python benchmarks/clicks.py RUN... --data DIR
    python benchmarks/clicks.py --stand-in --data DIR

Runs must be stored with their kept masks (`disbench run ... --store kept`): click k of a sample sees the mask kept
after click k - 1 and the earlier clicks. `--stand-in` instead makes ragged predictions from the masks of GrabCut and
DAVIS. Targets and predictions are resized to each of three sizes (nearest pixel, transposed for portrait images)
unless they have that size already.

Both sides are timed alternately for each click, best of `--repeats` (up to five times as many if ours is not twice as
fast, to exclude interruptions). Ratios are per click, above 1 if ours is faster. Both sides must give the same click.
Both use OpenCV's own distance transform, which is faster and the only one with deterministic ties (see docs/clicks.md).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))

import click_restatement  # the same statement that the tests compare with
from inputs import Array, ClickState, simulated_states

from disbench.core import clicks as ours
from disbench.core import masks
from disbench.core.samples import SampleSource
from disbench.datasets.cards import open_dataset
from disbench.harness.store import read_run

SIZES = ((375, 500), (480, 854), (1080, 1920))


class ClickTimes(NamedTuple):
    """Seconds of one click on both sides; `first` is True for a sample's first click."""

    first: bool
    ours: float
    literal: float


def stored_states(run_folder: Path, data: Path, every: int) -> Iterator[ClickState]:
    """The states before all clicks of a stored run, sample by sample."""
    run = read_run(run_folder)
    source = open_dataset(run.dataset, data)
    index = {sample: number for number, sample in enumerate(source.ids)}
    rows = run.rows(["sample", "click", "x", "y", "positive", "height", "width", "mask"]).to_pylist()
    by_sample: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_sample.setdefault(row["sample"], []).append(row)
    for sample in list(by_sample)[::every]:
        target = source.read(index[sample]).target
        prediction, clicks = np.zeros(target.shape, dtype=bool), []
        for row in by_sample[sample]:
            yield ClickState(target, prediction, list(clicks))
            clicks.append(ours.Click(row["x"], row["y"], row["positive"]))
            if row["mask"] is None:
                raise SystemExit(f"{run_folder}: {sample} has no mask at click {row['click']}; store kept masks")
            prediction = masks.decode({"size": [row["height"], row["width"]], "counts": row["mask"]})


def targets(source: SampleSource, every: int) -> Iterator[Array]:
    """Targets of every n-th sample of a dataset."""
    return (source.read(index).target for index in range(0, len(source.ids), every))


def time_click(state: ClickState, repeats: int) -> ClickTimes:
    best = [float("inf"), float("inf")]
    sides: tuple[Callable[..., Any], ...] = (ours.next_click, click_restatement.next_click)
    for repeat in range(5 * repeats):
        if repeat >= repeats and best[1] > 2 * best[0]:
            break
        results = []
        for side, click in enumerate(sides):
            begun = time.perf_counter()
            results.append(click(*state))
            best[side] = min(best[side], time.perf_counter() - begun)
        if tuple(results[0]) != results[1]:
            raise SystemExit(f"ours {results[0]}, the restatement's {results[1]}: the clicks differ")
    return ClickTimes(not state.clicks, *best)


def table_row(size: tuple[int, int], label: str, results: Sequence[ClickTimes]) -> str:
    ratios = np.array([result.literal / result.ours for result in results])
    quantiles = np.quantile(ratios, [0, 0.01, 0.05, 0.25, 0.5, 0.75, 1])
    medians = (1e3 * np.median([getattr(result, side) for result in results]) for side in ("ours", "literal"))
    cells = [f"{size[0]} x {size[1]}", label, str(len(results)), *(f"{q:.2f}" for q in quantiles)]
    return "| " + " | ".join([*cells, *(f"{m:.2f}" for m in medians), str(int((ratios < 1).sum()))]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the simulated click against the literal restatement.")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, default=os.environ.get("DISBENCH_DATA"))
    parser.add_argument("--stand-in", action="store_true", help="use ragged predictions instead of a run's")
    parser.add_argument("--every", type=int, default=1, help="use every n-th sample only")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="OpenCV threads; OpenCV's own choice by default")
    arguments = parser.parse_args()
    if bool(arguments.runs) == arguments.stand_in or not arguments.data:
        parser.error("name stored runs or --stand-in, and the datasets by --data or DISBENCH_DATA")
    if arguments.threads:
        cv2.setNumThreads(arguments.threads)
    data = Path(arguments.data)
    if arguments.stand_in:
        sources = [open_dataset(name, data) for name in ("grabcut", "davis")]
        streams = [simulated_states(targets(source, arguments.every)) for source in sources]
    else:
        streams = [stored_states(run, data, arguments.every) for run in arguments.runs]
    results: dict[tuple[int, int], list[ClickTimes]] = {size: [] for size in SIZES}
    unscaled = dict.fromkeys(SIZES, 0)
    for stream in streams:
        for state in stream:
            for size in SIZES:
                resized = state.resized(size)
                unscaled[size] += resized is state
                results[size].append(time_click(resized, arguments.repeats))
    print(f"OpenCV {ours.opencv_version()}, {cv2.getNumThreads()} threads, best of {arguments.repeats}")
    print("| size | clicks | n | min | 1% | 5% | 25% | median | 75% | max | ours, ms | literal, ms | slower |")
    print("| --- " * 13 + "|")
    for size, timings in results.items():
        print(table_row(size, "2 to 20", [result for result in timings if not result.first]))
        print(table_row(size, "1", [result for result in timings if result.first]))
    scaled = ", ".join(f"{s[0]} x {s[1]}: {len(results[s]) - unscaled[s]} of {len(results[s])}" for s in SIZES)
    print(f"taken to this size from another (nearest pixel): {scaled}")


if __name__ == "__main__":
    main()
