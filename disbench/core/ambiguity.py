"""Measures of ambiguity: how well a method's candidates for one click cover the set of masks that the click may mean.

Pure functions of arrays (definitions: docs/ambiguity.md). `ious` is float (members, candidates) in [0, 1]: the IoU of
each mask of the set, inner to outer, with each candidate for one click; (members, 0) if the method failed. nan counts
as 0. `scores` is one number per candidate, the method's own, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, FloatArray, IntArray
from disbench.core.masks import Rle, contained_shares
from disbench.core.metrics import clicks_to_reach
from disbench.core.statistics import bootstrap_interval

Scores = Sequence[float] | npt.NDArray[np.floating[Any]] | None
THRESHOLDS = (0.5, 0.75, 0.9)  # IoUs at which a member counts as found
MATCH_THRESHOLD = 0.5  # a candidate that reaches this IoU with no member is wasted
MAX_EXACT = 10  # up to this number of candidates the oracle is exact, beyond it greedy
GRANULARITIES = tuple(number / 10 for number in range(1, 11))  # sizes of a wanted mask relative to its whole
BINS = 10  # of equal width, for score calibration


def best_ious(ious: npt.ArrayLike) -> FloatArray:
    """IoU of each member with its best candidate: float64 (members,); 0 without candidates.

    >>> best_ious([[0.9, 0.2], [0.4, 0.5]]).tolist()
    [0.9, 0.5]
    """
    return np.asarray(_checked(ious).max(axis=1, initial=0.0))


def coverage(ious: npt.ArrayLike) -> float:
    """Mean over members of the best candidate's IoU; 1 if the candidates include the whole set.

    >>> coverage([[0.9, 0.2], [0.4, 0.5]])
    0.7
    """
    return float(best_ious(ious).mean())


def recall(ious: npt.ArrayLike, threshold: float) -> float:
    """Share of the members whose best IoU reaches a threshold; compared as float32.

    >>> recall([[0.9, 0.2], [0.4, 0.5]], 0.75)
    0.5
    """
    return float(np.mean(_reached(best_ious(ious), threshold)))


def score_order(scores: Scores, candidates: int) -> IntArray | None:
    """Candidates ordered by score, best first: int64 (candidates,); ties by lower index, nan last.

    None if a method offers several candidates without scores. ValueError for a wrong number of scores.
    """
    if scores is None:
        return np.arange(candidates) if candidates < 2 else None
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (candidates,):
        raise ValueError(f"scores of shape {values.shape} for {candidates} candidates")
    return np.argsort(-np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf), kind="stable")


def coverage_by_score(ious: npt.ArrayLike, scores: Scores) -> FloatArray | None:
    """Coverage by the first 1, 2, ... candidates in `score_order`: float64 (candidates,); None without an order."""
    values = _checked(ious)
    order = score_order(scores, values.shape[1])
    if order is None:
        return None
    return np.asarray(np.maximum.accumulate(values[:, order], axis=1).mean(axis=0))


def coverage_by_oracle(ious: npt.ArrayLike, max_exact: int = MAX_EXACT) -> FloatArray:
    """Largest coverage by any 1, 2, ... candidates: float64 (candidates,).

    Exhaustive for up to `max_exact` candidates, greedy for more (ties by lower index): coverage is submodular, so
    greedy reaches at least 1 - 1/e of the largest.
    """
    values = _checked(ious)
    count = values.shape[1]
    if count > max_exact:
        return _greedy(values)
    return np.array(
        [
            max(values[:, chosen].max(axis=1).mean() for chosen in combinations(range(count), size))
            for size in range(1, count + 1)
        ],
        dtype=np.float64,
    )


def redundancy(agreement: npt.ArrayLike) -> float:
    """Mean IoU over the pairs of candidates of one click; nan for fewer than two candidates."""
    values = np.asarray(agreement, dtype=np.float64)
    return float(values.mean()) if values.size else math.nan


def waste(ious: npt.ArrayLike, threshold: float = MATCH_THRESHOLD) -> float:
    """Share of the candidates whose IoU reaches the threshold with no member; nan without candidates.

    >>> waste([[0.9, 0.2], [0.4, 0.3]])
    0.5
    """
    values = _checked(ious)
    if not values.shape[1]:
        return math.nan
    return float(np.mean(~_reached(values.max(axis=0), threshold)))


def top1(scores: Scores, candidates: int) -> int | None:
    """Index of the candidate with the best score; None without candidates or without an order."""
    order = score_order(scores, candidates)
    return None if order is None or not len(order) else int(order[0])


def intended_member(ious: npt.ArrayLike, candidate: int, threshold: float = MATCH_THRESHOLD) -> int | None:
    """Index of the member with the largest IoU, ties to the inner one; None if that IoU is below the threshold."""
    column = _checked(ious)[:, candidate]
    member = int(column.argmax())
    return member if bool(_reached(column, threshold)[member]) else None


def calibration_sums(scores: npt.ArrayLike, ious: npt.ArrayLike, bins: int = BINS) -> FloatArray:
    """Sums for the calibration error: float64 (bins, 3) of candidates, scores and IoUs per bin of the score.

    Scores (n,) are clipped to [0, 1], nan excluded; `ious` (n,) are with the member nearest to each candidate.
    """
    predicted, actual = np.asarray(scores, dtype=np.float64), np.nan_to_num(np.asarray(ious, dtype=np.float64))
    known = ~np.isnan(predicted)
    predicted, actual = np.clip(predicted[known], 0.0, 1.0), actual[known]
    place = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    columns = (np.bincount(place, weights, bins) for weights in (np.ones_like(predicted), predicted, actual))
    return np.stack(list(columns), axis=1)


def calibration_error(sums: FloatArray) -> Any:
    """Expected calibration error: mean over candidates of |mean score - mean IoU| of their bin; nan without candidates.

    `sums` are (..., bins, 3): `calibration_sums`, added over clicks.
    """
    count = sums[..., 0].sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(sums[..., 1] - sums[..., 2]).sum(axis=-1) / count


def rank_correlation(scores: npt.ArrayLike, ious: npt.ArrayLike) -> float:
    """Spearman's rank correlation; nan for fewer than two scores, or if all scores or all IoUs are equal."""
    from scipy.stats import rankdata  # noqa: PLC0415  (slow to load)

    predicted, actual = np.asarray(scores, dtype=np.float64), np.asarray(ious, dtype=np.float64)
    known = ~np.isnan(predicted)
    if known.sum() < 2:
        return math.nan
    a, b = (rankdata(values[known]) for values in (predicted, np.nan_to_num(actual)))
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else math.nan


def held_top1(before: Scores, after: Scores, between: npt.ArrayLike) -> float:
    """IoU of the top-scored candidates before and after moving a click; nan if either is missing.

    `between` is (candidates before, candidates after): their IoUs.
    """
    values = np.asarray(between, dtype=np.float64)
    first, second = top1(before, values.shape[0]), top1(after, values.shape[1])
    return math.nan if first is None or second is None else float(values[first, second])


def held_best(before: npt.ArrayLike, after: npt.ArrayLike, between: npt.ArrayLike) -> float:
    """Mean over members of the IoU between their best candidates before and after moving a click; nan without any.

    `before` and `after` are `ious`; `between` is (candidates before, candidates after): their IoUs.
    """
    a, b = _checked(before), _checked(after)
    if not a.shape[1] or not b.shape[1]:
        return math.nan
    return float(np.asarray(between, dtype=np.float64)[a.argmax(axis=1), b.argmax(axis=1)].mean())


def granularity_of(area: int, whole: int) -> float:
    """Granularity of a mask, one of `GRANULARITIES`: max(round(area / whole, 1), 0.1) (GraCo, training).

    >>> granularity_of(3, 100), granularity_of(26, 100)
    (0.1, 0.3)
    """
    return min(max(round(area / whole, 1), GRANULARITIES[0]), GRANULARITIES[-1])


def best_loop(ious: Sequence[FloatArray] | FloatArray, threshold: float, max_clicks: int = 20) -> int:
    """Index of the best of several click sequences on one target (GraCo's granularity oracle).

    The one with the fewest clicks to reach the threshold; ties by the higher IoU after click 1, then by order. `ious`
    has one sequence per item; arguments and errors are as for `disbench.core.metrics.noc`.

    >>> best_loop(np.array([[0.1, 0.9, 0.9], [0.2, 0.9, 0.9], [0.8, 0.8, 0.9]]), 0.9, max_clicks=3)
    1
    """
    clicks = clicks_to_reach(ious, threshold, max_clicks).tolist()
    first = np.nan_to_num(np.array([np.asarray(loop, dtype=np.float32)[0] for loop in ious])).tolist()
    return min(range(len(ious)), key=lambda loop: (clicks[loop], -first[loop]))


def all_within(ious: npt.ArrayLike, clicks: int, threshold: float) -> bool:
    """True if all targets of a set reach a threshold within a number of clicks; `ious` is (members, clicks).

    >>> [all_within([[0.5, 0.9], [0.9, 0.4]], clicks, 0.85) for clicks in (1, 2)]
    [False, True]
    """
    return bool(_reached(_checked(ious)[:, :clicks].max(axis=1), threshold).all())


def containment(inner: Rle, outer: Rle) -> float:
    """Share of a mask's pixels that lie in another, |inner and outer| / |inner|; 0 for an empty inner mask.

    A mask of the whole image scores 1, so report the IoU with it. ValueError for masks of different sizes.

    >>> from disbench.core.masks import encode
    >>> containment(encode(np.array([[True, True, False]])), encode(np.array([[True, False, True]])))
    0.5
    """
    if inner["size"] != outer["size"]:
        raise ValueError(f"masks of sizes {inner['size']} and {outer['size']}")
    return float(contained_shares(inner, [outer])[0])


def granularity_gap(sums: FloatArray) -> Any:
    """Largest minus smallest mean number of clicks over levels; levels without targets are ignored.

    `sums` are (..., levels, 2): clicks and number of targets per level.

    >>> float(granularity_gap(np.array([[30.0, 3], [8, 4], [0, 0]])))
    8.0
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[..., 0] / sums[..., 1]
    return np.nanmax(means, axis=-1) - np.nanmin(means, axis=-1)


def grouped_interval(
    sums: npt.ArrayLike,
    groups: npt.ArrayLike,
    statistic: Callable[[FloatArray], FloatArray],
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval that resamples whole groups (images), with the draws of `bootstrap_interval`.

    `sums` (n, ...) are added within each group, `groups` (n,) are the images; `statistic` maps resampled sums,
    (resamples, ...), to (resamples,).
    """
    values = np.asarray(sums, dtype=np.float64)
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    whole = np.zeros((len(names), *values.shape[1:]))
    np.add.at(whole, place, values)
    flat = whole.reshape(len(names), -1)

    def of_drawn(drawn: FloatArray) -> FloatArray:
        rows, count = drawn.shape
        at = drawn.astype(np.int64) + np.arange(rows)[:, None] * count
        counts = np.bincount(at.ravel(), minlength=rows * count).reshape(rows, count)
        return statistic(np.asarray((counts @ flat).reshape(rows, *values.shape[1:]), dtype=np.float64))

    return bootstrap_interval(np.arange(len(names), dtype=np.float64), of_drawn, resamples=resamples, seed=seed)


def mean_interval(values: npt.ArrayLike, groups: npt.ArrayLike) -> tuple[float, float]:
    """95 % interval of a mean, resampling groups (images)."""
    given = np.asarray(values, dtype=np.float64)
    sums = np.stack([given, np.ones_like(given)], axis=1)
    return grouped_interval(sums, groups, lambda found: found[:, 0] / found[:, 1])


def _greedy(values: FloatArray) -> FloatArray:
    best, left, found = np.zeros(len(values)), list(range(values.shape[1])), []
    while left:
        gains = [np.maximum(best, values[:, candidate]).mean() for candidate in left]
        best = np.maximum(best, values[:, left.pop(int(np.argmax(gains)))])
        found.append(best.mean())
    return np.array(found, dtype=np.float64)


def _reached(values: FloatArray, threshold: float) -> BoolArray:
    return np.asarray(values.astype(np.float32) >= np.float32(threshold))


def _checked(ious: npt.ArrayLike) -> FloatArray:
    """Convert to float64 (members, candidates) without nan; ValueError for another shape or values outside [0, 1]."""
    values = np.nan_to_num(np.asarray(ious, dtype=np.float64))
    if values.ndim != 2 or not values.shape[0]:
        raise ValueError(f"IoUs of shape {values.shape}; expected (members, candidates) with at least one member")
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"IoUs from {values.min():g} to {values.max():g}; an IoU lies in [0, 1]")
    return values
