"""How often the paired tests call a difference where there is none: python benchmarks/paired_tests.py.

Both methods' clicks are drawn from one skewed distribution, 1 to 20, so that every "p <= 0.05" is an error.
"""

from __future__ import annotations

import numpy as np

from disbench.core.statistics import bootstrap_p, sign_flip_p

EXPERIMENTS, RESAMPLES = 2000, 999


def main() -> None:
    """Print the share of errors by the number of samples."""
    print("samples  bootstrap  signs")
    for samples in (10, 20, 50, 100):
        noise = np.random.default_rng(samples)
        wrong = np.zeros(2)
        for experiment in range(EXPERIMENTS):
            a, b = np.clip(np.ceil(noise.exponential(5, (2, samples))), 1, 20)
            tests = (bootstrap_p, sign_flip_p)
            wrong += [test(a - b, RESAMPLES, seed=experiment) <= 0.05 for test in tests]
        print(f"{samples:7}  {wrong[0] / EXPERIMENTS:9.3f}  {wrong[1] / EXPERIMENTS:5.3f}")


if __name__ == "__main__":
    main()
