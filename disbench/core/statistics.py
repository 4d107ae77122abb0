"""Bootstrap intervals, and a paired test of two methods on the same samples.

`scipy.stats` is not used: its permutation test takes 5 to 10 times as long, importing it takes over a second, and it
samples even where all resamples of integers can be counted exactly; where both sample, results are equal
(`benchmarks/paired_tests.py --scipy`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import FloatArray, IntArray

RESAMPLES = 10_000  # resamples of an interval or a test; the smallest p-value is 1 / (RESAMPLES + 1)
_CHUNK = 1 << 22  # numbers in memory at a time
_MAX_SUM_RANGE = 1 << 22  # largest range of a sum of integers whose distribution is computed instead of sampled
_QUANTILE_ROUNDING = 1e-9  # rounding error of cumulative probabilities
_SUM_ROUNDING = 1e-12  # sums that differ by less, relative to the sum of magnitudes, differ only by rounding


@dataclass(frozen=True, slots=True)
class Difference:
    """Comparison of two methods on the same samples, A minus B.

    `low` and `high` are the 95 % bootstrap interval of `mean`, the mean difference; `p` is two-sided (`sign_flip_p`);
    `a_better`, `ties` and `b_better` are numbers of samples.
    """

    mean_a: float
    mean_b: float
    mean: float
    low: float
    high: float
    p: float
    a_better: int
    ties: int
    b_better: int


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike, *, lower_is_better: bool, seed: int = 0) -> Difference:
    """Compare two methods' values `a` and `b` on the same samples, (samples,) each.

    Resamples whole samples, so that sample difficulty common to both methods cancels. ValueError for no samples, arrays
    of different shapes, or a value that is not finite.
    """
    of_a, of_b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if of_a.shape != of_b.shape:
        raise ValueError(f"values of shapes {of_a.shape} and {of_b.shape}; pairs need the same samples")
    differences = _checked(of_a - of_b)
    low, high = bootstrap_interval(differences, seed=seed)
    below, above = int((differences < 0).sum()), int((differences > 0).sum())
    return Difference(
        mean_a=float(of_a.mean()),
        mean_b=float(of_b.mean()),
        mean=float(differences.mean()),
        low=low,
        high=high,
        p=sign_flip_p(differences, seed=seed),
        a_better=below if lower_is_better else above,
        ties=len(differences) - below - above,
        b_better=above if lower_is_better else below,
    )


def bootstrap_interval(
    values: npt.ArrayLike,
    statistic: Callable[[FloatArray], FloatArray] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) over samples (Efron), deterministic for a seed.

    For the mean of integers, such as clicks, the interval is exact: the distribution over all resamples is computed by
    convolution.

    Args:
        values: (samples,) finite; ValueError otherwise.
        statistic: maps (resamples, samples) to (resamples,); None is the mean.
        level: share of the resampled statistics within the interval, in (0, 1).
        resamples: number of resamples.
        seed: seed of the generator.
    """
    data = _checked(values)
    ends = ((1 - level) / 2, (1 + level) / 2)
    if statistic is None and (data == np.rint(data)).all() and len(data) * float(np.ptp(data)) < _MAX_SUM_RANGE:
        return _exact_quantiles(data.astype(np.int64), ends)
    reduce = statistic or (lambda drawn: np.asarray(drawn.mean(axis=-1)))

    def reduced(draws: np.random.Generator, rows: int) -> FloatArray:
        return reduce(data[draws.integers(0, len(data), (rows, len(data)))])

    found = _resampled_statistics(len(data), resamples, seed, reduced)
    low, high = np.quantile(found, ends)
    return float(low), float(high)


def sign_flip_p(differences: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference by a permutation test that swaps A and B in random pairs, in (0, 1].

    b is the number of sign draws whose mean is at least as far from 0 as the observed mean; p = (b + 1) / (B + 1)
    (Phipson and Smyth, Permutation p-values should never be zero, 2010), with B `resamples`. Valid for any number of
    samples n; p is not expected below 2 to the power of 1 - n. `differences` are (samples,) finite; ValueError
    otherwise.
    """
    data = _checked(differences)

    def sums(draws: np.random.Generator, rows: int) -> FloatArray:
        signs = draws.integers(0, 2, (rows, len(data)), dtype=np.int8) * 2 - 1
        return np.asarray(signs @ data)

    found = _resampled_statistics(len(data), resamples, seed, sums)
    reached = abs(float(data.sum())) - _SUM_ROUNDING * float(np.abs(data).sum())
    return (int((np.abs(found) >= reached).sum()) + 1) / (len(found) + 1)


def _resampled_statistics(
    samples: int, count: int, seed: int, statistic_of: Callable[[np.random.Generator, int], FloatArray]
) -> FloatArray:
    """Statistics (resamples,), computed in parts that fit memory: `draw` gets a generator and a number of resamples."""
    draws = np.random.Generator(np.random.PCG64(seed))
    step = max(1, _CHUNK // samples)
    return np.concatenate([statistic_of(draws, min(step, count - begin)) for begin in range(0, count, step)])


def _exact_quantiles(values: IntArray, shares: tuple[float, float]) -> tuple[float, float]:
    """Quantiles of the mean over all resamples, from the distribution of the sum of n drawn values."""
    from scipy import fft  # noqa: PLC0415  (slow to load)

    count, least = len(values), int(values.min())
    of_one = np.bincount(values - least) / count
    length = count * (len(of_one) - 1) + 1
    padded = fft.next_fast_len(length, real=True)
    of_sum = fft.irfft(fft.rfft(of_one, padded) ** count, padded)[:length]
    below = np.cumsum(of_sum)
    low, high = (min(int((below < share - _QUANTILE_ROUNDING).sum()), length - 1) for share in shares)
    return least + low / count, least + high / count


def _checked(values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"values of shape {array.shape}; expected one number per sample, and at least one sample")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(array)))} is not finite; leave such samples out first")
    return array
