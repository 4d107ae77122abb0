"""`disbench sample lvis-hierarchy`: time by size, memory, and scenes per second.

Makes LVIS files of growing size from a real one (each copy is shifted by hundredths of a pixel, so that caches do not
help), runs the command on each in a separate process, and reports wall time, the sum of all processes' peak memory, and
how time grows with size. Reading the JSON is measured separately, in one process.

    python benchmarks/throughput.py [LVIS.json] [--copies 100 300 1000] [--workers 2]

Without a file: `lvis/lvis_val_100.json` under DISBENCH_DATA. x 1000 has the size of LVIS v1 train and needs 1 GB of
disk.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from inputs import default_annotations, write_scaled

from disbench.datasets.instances import open_annotations


def measure_command(command: list[str]) -> tuple[float, float]:
    """Wall seconds of a command, and the sum of the peak memory of all its processes in GiB."""
    begun = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for member in [process, *_children(process)]:
            try:
                status = Path(f"/proc/{member.pid}/status").read_text(encoding="ascii")
            except OSError:
                continue
            lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
            if lines:
                peaks[member.pid] = int(lines[0].split()[1]) * 1024
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(1)  # polling more often would use much of a core
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with code {process.returncode}")
    return time.perf_counter() - begun, sum(peaks.values()) / 2**30


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of `disbench sample lvis-hierarchy`.")
    parser.add_argument("annotations", nargs="?", type=Path, default=default_annotations())
    parser.add_argument("--copies", nargs="+", type=int, default=[100, 300, 1000])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print(
        f"{'copies':>6} {'MB':>6} {'images':>8} {'JSON s':>7} {'command s':>10} {'ms an image':>12} "
        f"{'images/s, JSON apart':>21} {'peak GiB, all processes':>24}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for copies in arguments.copies:
            path = Path(folder) / f"lvis_x{copies}.json"
            write_scaled(arguments.annotations, copies, path)
            begun = time.perf_counter()
            images = len(open_annotations(path, "lvis").images)
            reading = time.perf_counter() - begun
            out = Path(folder) / f"shards_x{copies}"
            wall, peak = measure_command(
                [
                    sys.executable,
                    "-m",
                    "disbench",
                    "sample",
                    "lvis-hierarchy",
                    "--lvis",
                    str(path),
                    "--out",
                    str(out),
                    "--workers",
                    str(arguments.workers),
                ]
            )
            print(
                f"{copies:>6} {path.stat().st_size / 1e6:>6.0f} {images:>8} {reading:>7.1f} {wall:>10.1f} "
                f"{wall / images * 1e3:>12.3f} {images / (wall - reading):>21.0f} {peak:>24.2f}"
            )
            path.unlink()


if __name__ == "__main__":
    main()
