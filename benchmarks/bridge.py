"""What a method in a child process costs a click beyond its model.

    python benchmarks/bridge.py

A model that answers at once, in this process and through the bridge, in turns; so the difference is the bridge's.
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

from disbench.baselines.bridge.method import Bridge
from disbench.clicks import Click

ADAPTER = """
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
        return self.masks, None
"""


def milliseconds(call: Callable[[], object]) -> float:
    """Of one call."""
    begun = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - begun)


def times_of(method: Bridge, image: np.ndarray, repeats: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of open, predict and keep."""
    clicks = [Click(n, n, n % 2 == 0) for n in range(20)]
    opened = [milliseconds(lambda: method.open(image)) for _ in range(20)]
    session = method.open(image)
    asked, kept = [], []
    for _ in range(repeats):
        asked.append(milliseconds(lambda: session.predict(clicks)))
        kept.append(milliseconds(lambda: session.keep(0)))
    return opened, asked, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    image = np.zeros((arguments.height, arguments.width, 3), dtype=np.uint8)
    print(f"{arguments.height} x {arguments.width}, {arguments.repeats} calls each; ms a call: median (90 %)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.py"
        path.write_text(ADAPTER)
        for kind, candidates in (("bool", 1), ("float32", 1), ("float32", 3), ("float32", 7)):
            method = Bridge(
                adapter=str(path), repo=folder, python=sys.executable, kind=kind, candidates=candidates
            )
            opened, asked, kept = times_of(method, image, arguments.repeats)
            method.close()
            parts = {"predict": asked, "keep (a round trip alone)": kept, "open": opened}
            told = ", ".join(
                f"{name} {statistics.median(times):.2f} ({sorted(times)[int(0.9 * len(times))]:.2f})"
                for name, times in parts.items()
            )
            print(f"{candidates} x {kind}: {told}")


if __name__ == "__main__":
    main()
