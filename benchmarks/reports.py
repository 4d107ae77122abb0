"""Time and memory of a report on many stored runs of random numbers.

    python benchmarks/reports.py --runs 200 --samples 1000 --page

Each run has 20 clicks per sample, stored as by `disbench run`; runs are spread over five datasets. Making them is not
counted. The report is made in a separate process, whose CPU time and peak memory are printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from disbench import __version__
from disbench.harness.store import CLICKS, FORMAT, RUN, SCHEMA, write_clicks, write_json

CLICKS_A_SAMPLE = 20


def write_run(folder: Path, samples: int, number: int) -> None:
    """Write a finished run of random numbers."""
    noise = np.random.default_rng(number)
    goal, start = noise.uniform(0.85, 0.99, (samples, 1)), noise.uniform(0.1, 0.8, (samples, 1))
    speed = noise.uniform(0.1, 0.6) * noise.uniform(0.3, 2.0, (samples, 1))
    ious = goal - (goal - start) * np.exp(-speed * np.arange(CLICKS_A_SAMPLE))
    ious = np.clip(ious + noise.normal(0, 0.02, ious.shape), 0, 1).astype(np.float32).reshape(-1)
    rows = len(ious)
    columns = {
        "sample": np.repeat([f"sample-{i:05}" for i in range(samples)], CLICKS_A_SAMPLE),
        "click": np.tile(np.arange(1, CLICKS_A_SAMPLE + 1), samples),
        "x": noise.integers(0, 500, rows),
        "y": noise.integers(0, 375, rows),
        "positive": noise.random(rows) < 0.6,
        "iou": ious,
        "boundary_iou": ious * np.float32(0.9),
        "kept": np.zeros(rows),
        "candidates": np.ones(rows),
        "candidate_ious": ious.reshape(-1, 1).tolist(),
        "model_seconds": noise.gamma(2, 0.05, rows) * 10 ** noise.uniform(-1.5, 1),
        "harness_seconds": noise.gamma(2, 0.002, rows),
        "height": np.full(rows, 375),
        "width": np.full(rows, 500),
    }
    arrays = {
        field.name: pa.array(columns[field.name]).cast(field.type)
        if field.name in columns
        else pa.nulls(rows, field.type)
        for field in SCHEMA
    }
    folder.mkdir(parents=True)
    write_clicks(folder / CLICKS, [pa.table(arrays, schema=SCHEMA)])
    dataset = f"drawn-{number % 5}"
    write_json(folder / RUN, _description(dataset, samples, number))


def _description(dataset: str, samples: int, number: int) -> dict[str, object]:
    return {
        "format": FORMAT,
        "method": {
            "name": f"method-{number // 5}",
            "entry": "nowhere:Method",
            "options": {},
            "card": {"title": "Drawn numbers", "status": "native", "training_data": ["SBD", "C+L"][number % 2 :]},
            "source_sha256": None,
        },
        "dataset": {
            "name": dataset,
            "samples": samples,
            "content_hash": f"{number % 5:064x}",
            "facts": {"title": dataset},
        },
        "protocol": {
            "max_clicks": CLICKS_A_SAMPLE,
            "threshold": 0.49,
            "selection": "oracle-first",
            "policy": "center",
            "seed": 0,
            "stop_at": None,
            "initial_masks": True,
            "name": "ritm",
            "every": 1,
            "limit": None,
        },
        "versions": {"disbench": __version__, "python": "3.11", "opencv": "5.0.0"},
        "execution": {"workers": 2, "threads": 1, "batch": 1, "timeout": 60.0, "store": "none"},
        "machine": {"system": "Linux", "processor": "A processor", "cores": 2},
        "command": f"disbench run --method method-{number // 5} --dataset {dataset} --out runs/{number}",
        "result": {
            "samples": samples,
            "clicks": samples * CLICKS_A_SAMPLE,
            "failed": [],
            "batches_repeated": {"count": 0, "first_reason": None},
            "wall_seconds": 100.0,
            "model_seconds": 90.0,
            "harness_seconds": 5.0,
        },
    }


def main() -> None:
    """Make the runs, then the report."""
    parser = argparse.ArgumentParser(description="Time and memory of a report on many stored runs.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="make the runs in this folder, or use existing ones")
    parser.add_argument("--page", action="store_true", help="also make the leaderboard page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "runs"
        if not folder.exists():
            for number in range(arguments.runs):
                write_run(folder / f"run-{number:04}", arguments.samples, number)
        out = Path(temporary) / "report"
        command = [sys.executable, "-m", "disbench", "report", str(folder), "--out", str(out)]
        command += ["--page"] if arguments.page else []
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    print(f"{arguments.runs} runs of {arguments.samples} samples, {CLICKS_A_SAMPLE} clicks each:")
    print(f"CPU {used.ru_utime + used.ru_stime:.1f} s, wall {wall:.1f} s, peak {used.ru_maxrss / 2**20:.2f} GiB")
    print(json.dumps(sizes))


if __name__ == "__main__":
    main()
