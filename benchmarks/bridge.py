"""Overhead per click of a method in a child process, beyond its model.

    python benchmarks/bridge.py

The model answers immediately, so all time is the bridge's. On a busy machine use the CPU time (of both processes, for a
predict and its keep) and the minimum, on a quiet machine the median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from disbench.baselines.bridge.method import Bridge, BridgeSession
from disbench.core.clicks import Click

ADAPTER = """
import time
import numpy as np

def load(repo, checkpoint, options, device):
    return Model(options)

class Model:
    def __init__(self, options):
        self.kind, self.candidates = options["kind"], options["candidates"]
    def open(self, image):
        masks = np.full((self.candidates,) + image.shape[:2], 0.25, dtype=np.float32)
        return Session(masks > 0.5 if self.kind == "bool" else masks)

class Session:
    def __init__(self, masks):
        self.masks = masks
    def predict(self, clicks):
        return self.masks, [time.process_time()] * len(self.masks)
"""


def milliseconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def cpu_seconds(session: BridgeSession, clicks: list[Click]) -> float:
    """CPU time used so far by both processes."""
    scores = session.predict(clicks).scores
    assert scores is not None
    return time.process_time() + float(scores[0])


def measure_calls(method: Bridge, image: np.ndarray, repeats: int) -> tuple[dict[str, list[float]], float]:
    """Milliseconds of each call by its name, and CPU milliseconds of a predict with its keep."""
    clicks = [Click(n, n, n % 2 == 0) for n in range(20)]
    times: dict[str, list[float]] = {"predict": [], "keep (a round trip alone)": [], "open": []}
    predicted, kept, opened = times.values()
    opened += [milliseconds(lambda: method.open(image)) for _ in range(20)]
    session = method.open(image)
    start = cpu_seconds(session, clicks)
    for _ in range(repeats):
        predicted.append(milliseconds(lambda: session.predict(clicks)))
        kept.append(milliseconds(lambda: session.keep(0)))
    return times, 1000 * (cpu_seconds(session, clicks) - start) / (repeats + 1)


def summary(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f}, {sorted(times)[int(0.9 * len(times))]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    image = np.zeros((arguments.height, arguments.width, 3), dtype=np.uint8)
    print(f"{arguments.height} x {arguments.width}, {arguments.repeats} calls each; ms a call: median (least, 90 %)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.py"
        path.write_text(ADAPTER)
        for kind, candidates in (("bool", 1), ("bool", 7), ("float32", 1), ("float32", 3), ("float32", 7)):
            method = Bridge(adapter=str(path), repo=folder, python=sys.executable, kind=kind, candidates=candidates)
            times, processor = measure_calls(method, image, arguments.repeats)
            method.close()
            parts = ", ".join(f"{name} {summary(values)}" for name, values in times.items())
            print(f"{candidates} x {kind}: {parts}; processor {processor:.2f}")


if __name__ == "__main__":
    main()
