"""False positive rate of the paired test, and its cost compared with scipy.stats.

    python benchmarks/paired_tests.py
    python benchmarks/paired_tests.py --scipy

Clicks of both methods are drawn from the same skewed distribution, 1 to 20, so every "p <= 0.05" is a false positive.
`--scipy` prints p-value, interval and CPU seconds of `disbench.core.statistics` and of `scipy.stats`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from disbench.core.arrays import FloatArray
from disbench.core.statistics import RESAMPLES, bootstrap_interval, sign_flip_p

EXPERIMENTS, FEW_RESAMPLES = 2000, 999
AT_ONCE = 1 << 22
"""Random numbers that scipy may hold at a time, the same as disbench."""


def print_errors() -> None:
    """Print the false positive rate by number of samples."""
    print("samples  errors")
    for samples in (10, 20, 50, 100):
        noise = np.random.default_rng(samples)
        wrong = 0
        for experiment in range(EXPERIMENTS):
            a, b = np.clip(np.ceil(noise.exponential(5, (2, samples))), 1, 20)
            wrong += sign_flip_p(a - b, FEW_RESAMPLES, seed=experiment) <= 0.05
        print(f"{samples:7}  {wrong / EXPERIMENTS:6.3f}")


def print_scipy() -> None:
    """Print the results and CPU seconds of both libraries."""
    for module in ("disbench.core.statistics", "scipy.stats"):
        code = f"import time; begun = time.process_time(); import {module}; print(time.process_time() - begun)"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        print(f"loading {module}: {float(done.stdout):.2f} s of CPU")
    for samples in (50, 500, 6671):
        noise = np.random.default_rng(samples)
        for kind, pair in (
            ("clicks", np.clip(np.ceil(noise.exponential(5, (2, samples))), 1, 20)),
            ("IoUs", noise.uniform(0.5, 1, (2, samples))),
        ):
            differences = pair[0] - pair[1]
            print(f"{samples} samples, differences of {kind}")
            for name, ours, scipys in (
                ("interval", bootstrap_interval, scipy_interval),
                ("p", sign_flip_p, scipy_sign_flip_p),
            ):
                results = [time_call(function, differences) for function in (ours, scipys)]
                print(f"  {name:<8} disbench {results[0]}, scipy {results[1]}")


def time_call(function: Callable[[FloatArray], Any], differences: FloatArray) -> str:
    """The result and the CPU seconds, best of three calls."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        found = function(differences)
        seconds.append(time.process_time() - start)
    return f"{np.round(found, 4)} in {min(seconds):.3f} s"


def scipy_interval(differences: FloatArray) -> tuple[float, float]:
    """The percentile interval."""
    found = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=AT_ONCE // len(differences),
        method="percentile",
        rng=generator(),
    )
    return found.confidence_interval.low, found.confidence_interval.high


def scipy_sign_flip_p(differences: FloatArray) -> float:
    """`scipy.stats.permutation_test` for paired samples, which flips signs."""
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=AT_ONCE // len(differences),
        rng=generator(),
    )
    return float(found.pvalue)


def generator() -> np.random.Generator:
    """The generator that disbench uses."""
    return np.random.Generator(np.random.PCG64(0))


def main() -> None:
    """Print the false positive rates or the comparison."""
    parser = argparse.ArgumentParser(description="Paired test: false positive rate, or cost compared with scipy.")
    parser.add_argument("--scipy", action="store_true", help="compare with scipy.stats")
    if parser.parse_args().scipy:
        print_scipy()
    else:
        print_errors()


if __name__ == "__main__":
    main()
