"""`disbench sample` on different engines: wall time, memory, and whether the output is identical.

Makes an LVIS file of many copies of a real one (as in `throughput.py`), samples it with each recipe on each engine in a
new process, and compares the folders. The efficiency of n workers is the time of one worker over n times that of n
workers, both without the time to read the JSON. `ray` starts and stops a cluster for the command; `cluster` uses a Ray
cluster that is already running on this machine (`--address auto`).

    python benchmarks/engines.py [LVIS.json] [--copies 1000] [--recipes lvis-hierarchy coco-lvis-proximity]
                                 [--engines local:1 local:2 ray:2 cluster:2]

Without a file: `lvis/lvis_val_100.json` under DISBENCH_DATA.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from inputs import default_annotations, write_scaled
from throughput import measure_command

from disbench.datasets.instances import open_annotations


def folder_hash(folder: Path) -> str:
    """A hash of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def running_cluster(workers: int) -> Iterator[None]:
    """A Ray cluster on this machine with one core per worker; stops all Ray processes on this machine at the end."""
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = [*ray, "start", "--head", "--num-cpus", str(workers), "--include-dashboard", "false"]
    subprocess.run([*start, "--disable-usage-stats"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([*ray, "stop"], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare engines on the same work.")
    parser.add_argument("annotations", nargs="?", type=Path, default=default_annotations())
    parser.add_argument("--copies", type=int, default=1000)
    parser.add_argument("--recipes", nargs="+", default=["lvis-hierarchy", "coco-lvis-proximity"])
    parser.add_argument("--engines", nargs="+", default=["local:1", "local:2", "ray:2", "cluster:2"])
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as scratch:
        annotations = Path(scratch, "lvis.json")
        write_scaled(arguments.annotations, arguments.copies, annotations)
        start = time.perf_counter()
        images = len(open_annotations(annotations, "lvis").images)
        reading = time.perf_counter() - start
        print(f"{images:,} images, {annotations.stat().st_size / 2**30:.2f} GiB of JSON, read in {reading:.1f} s")
        print("| recipe | engine | workers | wall s | images/s | peak GiB, all processes | efficiency | same bytes |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for recipe in arguments.recipes:
            one_worker, first_hash = 0.0, ""
            for engine in arguments.engines:
                name, workers = engine.split(":")
                out = Path(scratch, f"{recipe}-{name}-{workers}")
                engine_options = ["ray", "--address", "auto"] if name == "cluster" else [name]
                cluster = running_cluster(int(workers)) if name == "cluster" else contextlib.nullcontext()
                with cluster:
                    wall, peak = measure_command(
                        [
                            *(sys.executable, "-m", "disbench", "sample", recipe, "--set", "sources=lvis"),
                            *("--lvis", str(annotations), "--out", str(out)),
                            *("--workers", workers, "--engine", *engine_options),
                        ]
                    )
                one_worker, first_hash = one_worker or wall, first_hash or folder_hash(out)
                efficiency = (one_worker - reading) / (int(workers) * (wall - reading))
                same = "yes" if folder_hash(out) == first_hash else "NO"
                print(
                    f"| {recipe} | {name} | {workers} | {wall:.1f} | {images / wall:.0f} | {peak:.2f} | "
                    f"{efficiency:.0%} | {same} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
