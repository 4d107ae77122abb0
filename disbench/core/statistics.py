"""Statistics of two methods on the same samples: the difference, its interval, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import FloatArray
from disbench.core.metrics import bootstrap_interval

RESAMPLES = 10_000
"""Draws of each test; the smallest p-value is 1 / (RESAMPLES + 1)."""
_AT_ONCE = 1 << 22
"""Drawn numbers in memory at a time."""
_ROUNDING = 1e-12
"""Sums that differ by less, relative to the sum of all sizes, are equal: they were added in another order."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Two methods on the same samples, A less B.

    Attributes:
        mean_a: mean over samples.
        mean_b: mean over samples.
        mean: of the differences.
        low: lower end of the 95 % bootstrap interval of the mean difference.
        high: upper end.
        p: two-sided p-value of the bootstrap under the null (`bootstrap_p`).
        p_signs: two-sided p-value of sign flips (`sign_flip_p`), the second opinion.
        a_better: samples on which A is better.
        ties: samples on which they are equal.
        b_better: samples on which B is better.
    """

    mean_a: float
    mean_b: float
    mean: float
    low: float
    high: float
    p: float
    p_signs: float
    a_better: int
    ties: int
    b_better: int


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike, *, lower_is_better: bool, seed: int = 0) -> Difference:
    """All statistics of two methods' values on the same samples.

    The interval is the percentile interval of `bootstrap_interval` on the differences: whole samples are drawn
    again, so that what makes a sample hard for both methods cancels.

    Args:
        a: (samples,) finite, one value a sample.
        b: (samples,) finite, of the same samples in the same order.
        lower_is_better: as of clicks; not of IoUs.
        seed: of the draws.

    Raises:
        ValueError: no samples, other shapes than these, or a value that is not finite.
    """
    of_a, of_b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if of_a.shape != of_b.shape:
        raise ValueError(f"values of shapes {of_a.shape} and {of_b.shape}; a pair needs the same samples")
    differences = _checked(of_a - of_b)
    low, high = bootstrap_interval(differences, seed=seed)
    below, above = int((differences < 0).sum()), int((differences > 0).sum())
    return Difference(
        mean_a=float(of_a.mean()),
        mean_b=float(of_b.mean()),
        mean=float(differences.mean()),
        low=low,
        high=high,
        p=bootstrap_p(differences, seed=seed),
        p_signs=sign_flip_p(differences, seed=seed),
        a_better=below if lower_is_better else above,
        ties=len(differences) - below - above,
        b_better=above if lower_is_better else below,
    )


def bootstrap_p(differences: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference by the bootstrap under the null hypothesis of no difference.

    The differences are centred on their mean, which makes the null true, and resampled with replacement; b
    counts the resamples whose mean is at least as far from 0 as the mean that was found; p = (b + 1) / (B + 1)
    (Efron and Tibshirani, An Introduction to the Bootstrap, section 16.4; Davison and Hinkley, Bootstrap
    Methods, section 4.2). Of few samples it is somewhat too small; `sign_flip_p` is not.

    Args:
        differences: (samples,) finite.
        resamples: B, at least 1.
        seed: of the draws.

    Returns:
        In (0, 1]; 1 where all differences are 0.

    Raises:
        ValueError: as `paired_difference`, or no resamples.
    """
    given = _checked(differences)
    count, total = len(given), float(given.sum())

    def sums(draws: np.random.Generator, rows: int) -> FloatArray:
        drawn = given[draws.integers(0, count, (rows, count))]
        return np.asarray(drawn.sum(axis=1) - total)  # centred afterwards: whole numbers stay exact

    return _share_as_far(given, sums, resamples, seed)


def sign_flip_p(differences: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference by a permutation test: in each pair A and B change places by lot.

    If the methods are exchangeable, each difference is as likely to have the other sign; b counts the draws of
    signs whose mean is at least as far from 0 as the mean that was found; p = (b + 1) / (B + 1) (Phipson and
    Smyth, Permutation p-values should never be zero, 2010). It holds for any number of samples; of n, no p
    can be expected below 2 to the power of 1 - n.

    Args:
        differences: (samples,) finite.
        resamples: B, at least 1.
        seed: of the draws.

    Returns:
        In (0, 1]; 1 where all differences are 0.

    Raises:
        ValueError: as `paired_difference`, or no resamples.
    """
    given = _checked(differences)

    def sums(draws: np.random.Generator, rows: int) -> FloatArray:
        signs = draws.integers(0, 2, (rows, len(given)), dtype=np.int8) * 2 - 1
        return np.asarray(signs @ given)

    return _share_as_far(given, sums, resamples, seed)


def _share_as_far(
    given: FloatArray, sums: Callable[[np.random.Generator, int], FloatArray], resamples: int, seed: int
) -> float:
    if resamples < 1:
        raise ValueError(f"resamples = {resamples}: at least one")
    draws = np.random.Generator(np.random.PCG64(seed))
    reached = abs(float(given.sum())) - _ROUNDING * float(np.abs(given).sum())
    step = max(1, _AT_ONCE // len(given))
    found = sum(
        int((np.abs(sums(draws, min(step, resamples - begin))) >= reached).sum()) for begin in range(0, resamples, step)
    )
    return (found + 1) / (resamples + 1)


def _checked(differences: npt.ArrayLike) -> FloatArray:
    given = np.asarray(differences, dtype=np.float64)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"values of shape {given.shape}; give one number for each of one sample or more")
    if not np.isfinite(given).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(given)))} is not finite; leave such samples out first")
    return given
