"""Limit the threads of numeric libraries.

Each worker process keeps to its share of the cores, so that timings are comparable and the order of floating-point
sums, and with it every result, does not depend on the machine's load.
"""

from __future__ import annotations

import os
import sys

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def limit(threads: int) -> None:
    """Limit numeric libraries to `threads` threads: those imported later, and OpenCV and torch if already imported."""
    for variable in _VARIABLES:
        os.environ[variable] = str(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def allowed() -> int:
    """Threads that this process may use, for libraries that need an explicit number (ONNX Runtime, OpenCV)."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
