"""Measures of the benchmark, as pure functions of arrays, exactly as the field computes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, Float32Array, FloatArray, IntArray
from disbench.core.clicks import checked_mask, checked_target, error_masks
from disbench.core.depths import squares_of
from disbench.core.errors import unknown_name

FailureRule = Literal["strict", "ritm"]
IoUs = Sequence[Sequence[float] | npt.NDArray[np.floating[Any]]] | npt.NDArray[np.floating[Any]]
"""One sequence per sample, or an array (samples, clicks)."""


def iou(target: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Intersection over union of target and prediction, over pixels that are not ignored.

    Args:
        target: integers (height, width): 1 object, 0 background, -1 ignored.
        prediction: booleans, or integers 0 and 1, (height, width).

    Returns:
        In [0, 1], rounded to float32 as in stored results; nan if both are empty.

    Raises:
        ValueError: wrong shapes, types or values.

    >>> iou([[1, 1, 0, -1]], [[True, False, False, True]])
    0.5
    """
    missed, excess = (int(np.count_nonzero(errors)) for errors in error_masks(target, prediction))
    inside = int(np.count_nonzero(np.asarray(target) == 1))
    union = inside + excess
    return float(np.float32((inside - missed) / union)) if union else math.nan


def noc(ious: IoUs, threshold: float, max_clicks: int = 20) -> float:
    """Number of clicks to reach an IoU (NoC@threshold), mean over samples.

    IoUs and threshold are compared as float32; nan never reaches it. A sample that never does counts `max_clicks`.

    Args:
        ious: one sequence per sample: the IoU after click 1, 2, ..., of which the first `max_clicks` are used. A
            shorter sequence must reach the threshold, since later IoUs are unknown.
        threshold: in (0, 1].
        max_clicks: at least 1.

    Raises:
        ValueError: no samples, a sequence that ends early below the threshold, or an IoU or threshold out of range.

    >>> noc([[0.5, 0.95], [0.2, 0.3]], 0.9, max_clicks=2)
    2.0
    """
    return float(np.mean(clicks_to_reach(ious, threshold, max_clicks)))


def clicks_to_reach(ious: IoUs, threshold: float, max_clicks: int = 20) -> IntArray:
    """NoC of each sample, int64 (samples,); arguments and errors as for `noc`."""
    return np.minimum(_first_clicks(ious, threshold, max_clicks), max_clicks)


def nof(ious: IoUs, threshold: float, max_clicks: int = 20, rule: FailureRule = "strict") -> int:
    """Number of samples that fail to reach an IoU (NoF@threshold); other arguments and errors as for `noc`.

    `rule` is `strict`: samples that never reach the threshold, or `ritm`: samples whose NoC equals `max_clicks`,
    including those that succeed at the very last click. Published numbers follow `ritm`.

    >>> [nof([[0.5, 0.95], [0.2, 0.3]], 0.9, max_clicks=2, rule=rule) for rule in ("strict", "ritm")]
    [1, 2]
    """
    if rule not in get_args(FailureRule):
        raise unknown_name("rule", str(rule), get_args(FailureRule))
    firsts = _first_clicks(ious, threshold, max_clicks)
    return int(np.count_nonzero(firsts > max_clicks if rule == "strict" else firsts >= max_clicks))


def miou_curve(ious: IoUs, max_clicks: int = 20) -> FloatArray:
    """Mean IoU over samples after each click: float64 (max_clicks,), nan if any sample's IoU is.

    Arguments are as for `noc`.

    Raises:
        ValueError: no samples, a sample with fewer than `max_clicks` IoUs (it ended early), or an IoU outside [0, 1].

    >>> miou_curve([[0.5, 1.0], [0.25, 0.5]], max_clicks=2).tolist()
    [0.375, 0.75]
    """
    values, lengths = _padded(ious, max_clicks)
    short = np.flatnonzero(lengths < max_clicks)
    if len(short):
        raise ValueError(
            f"sample {short[0]} has {lengths[short[0]]} clicks, shorter than {max_clicks}: it ended early, so there "
            "is no curve"
        )
    return np.asarray(np.mean(values, axis=0, dtype=np.float64))


def area_under_curve(ious: IoUs, max_clicks: int = 20) -> FloatArray:
    """Area under each sample's curve of IoU over clicks (AuC), by the trapezoidal rule, divided by the number of steps.

    float64 (samples,) in [0, 1]; nan if an IoU is nan; the IoU itself for one click. Arguments and errors as for
    `miou_curve`.

    >>> area_under_curve([[0.8] * 20, [0.5] * 10 + [1.0] * 10]).round(4).tolist()
    [0.8, 0.75]
    """
    miou_curve(ious, max_clicks)  # raises if there is no curve
    values = _padded(ious, max_clicks)[0].astype(np.float64)
    return np.asarray(np.trapezoid(values, axis=1) / (max_clicks - 1) if max_clicks > 1 else values[:, 0])


class Spread(NamedTuple):
    """Mean, standard deviation and their quotient (nan if the mean is 0) over groups of clicks, (samples,) each."""

    mean: FloatArray
    deviation: FloatArray
    nsr: FloatArray


def spread(values: npt.ArrayLike) -> Spread:
    """Spread of each sample's values, (groups, samples), such as its IoU after each of many first clicks.

    >>> [part.round(4).tolist() for part in spread([[0.9], [0.9], [0.6], [0.6]])]
    [[0.75], [0.15], [0.2]]
    """
    found = np.asarray(values, dtype=np.float64)
    mean, deviation = found.mean(axis=0), found.std(axis=0)
    return Spread(mean, deviation, np.divide(deviation, mean, out=np.full_like(mean, np.nan), where=mean != 0))


def difference_to_base(values: npt.ArrayLike, base: npt.ArrayLike, *, relative: bool) -> FloatArray:
    """Mean over groups minus the value of the standard click (RClicks' dSB), float64 (samples,).

    `values` are (groups, samples) of NoC, AuC, or failures as 0 and 1; `base` (samples,) are those of the standard
    click; `relative` divides by `base`, as for NoC.

    >>> float(difference_to_base([[3, 4], [3, 4]], [2, 4], relative=True).mean())
    0.25
    """
    return _difference(np.asarray(values, dtype=np.float64).mean(axis=0), base, relative)


def difference_of_groups(values: npt.ArrayLike, *, relative: bool) -> FloatArray:
    """First group's value minus the last's (RClicks' dGR), float64 (samples,); arguments as `difference_to_base`.

    >>> float(difference_of_groups([[4, 4], [2, 4]], relative=True).mean())
    0.5
    """
    found = np.asarray(values, dtype=np.float64)
    return _difference(found[0], found[-1], relative)


def _difference(value: FloatArray, base: npt.ArrayLike, relative: bool) -> FloatArray:
    subtrahend = np.asarray(base, dtype=np.float64)
    return np.asarray((value - subtrahend) / subtrahend if relative else value - subtrahend)


class TargetBoundary:
    """Boundary IoU of many predictions with one target (Cheng et al., Boundary IoU, CVPR 2021).

    A mask's boundary is its pixels within d pixels (a square of side 2d + 1) of a pixel outside the mask, or of the
    image border; d is `dilation_ratio` (0.02 in the paper) of the image diagonal, at least 1 pixel. Ignored pixels
    count in neither intersection nor union. Target and errors are as for `iou`.
    """

    def __init__(self, target: npt.ArrayLike, dilation_ratio: float = 0.02) -> None:
        goal = checked_target(target)
        self._distance = max(1, round(dilation_ratio * math.hypot(*goal.shape)))
        self._counts = goal >= 0
        self._band = boundary(goal == 1, self._distance) & self._counts
        self._size = int(np.count_nonzero(self._band))

    def iou(self, prediction: npt.ArrayLike) -> float:
        """Boundary IoU of a prediction, bool (height, width): in [0, 1] as float32; nan if both are empty."""
        guess = checked_mask(prediction)
        if guess.shape != self._band.shape:
            raise ValueError(f"the prediction has shape {guess.shape}, the target {self._band.shape}")
        box, band = _band_in_box(guess, self._distance)
        band &= self._counts[box]
        intersection = int(np.count_nonzero(band & self._band[box]))
        union = self._size + int(np.count_nonzero(band)) - intersection
        return float(np.float32(intersection / union)) if union else math.nan


def boundary(mask: BoolArray, distance: int) -> BoolArray:
    """Pixels of a mask within `distance` (>= 1, along rows and columns) of its outside, boolean."""
    box, band = _band_in_box(mask, distance)
    whole = np.zeros_like(mask)
    whole[box] = band
    return whole


def _band_in_box(mask: BoolArray, distance: int) -> tuple[tuple[slice, slice], BoolArray]:
    """Bounding box of a mask, and its boundary in the box."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return (slice(0), slice(0)), np.zeros((0, 0), dtype=bool)
    columns = np.flatnonzero(mask.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    band = mask[box].copy()
    inner = squares_of(band, 2 * distance + 1)
    if inner.size:
        height, width = inner.shape
        band[distance : distance + height, distance : distance + width] &= ~inner
    return box, band


def _first_clicks(ious: IoUs, threshold: float, max_clicks: int) -> IntArray:
    """First click of each sample that reaches the threshold; max_clicks + 1 if none does."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold = {threshold}: must be above 0 and at most 1")
    values, lengths = _padded(ious, max_clicks)
    reached = values >= np.float32(threshold)
    firsts = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, max_clicks + 1)
    unknown = np.flatnonzero((firsts > max_clicks) & (lengths < max_clicks))
    if len(unknown):
        raise ValueError(
            f"sample {unknown[0]} ends after {lengths[unknown[0]]} of {max_clicks} clicks, below {threshold}: whether "
            "it would have reached it is unknown"
        )
    return firsts.astype(np.int64)


def _padded(ious: IoUs, max_clicks: int) -> tuple[Float32Array, IntArray]:
    """First `max_clicks` IoUs of each sample, float32 (samples, max_clicks), padded with nan, and how many each has."""
    if max_clicks < 1:
        raise ValueError(f"max_clicks = {max_clicks}: must be at least 1")
    if not len(ious):
        raise ValueError("there are no samples")
    values = np.full((len(ious), max_clicks), np.nan, dtype=np.float32)
    if isinstance(ious, np.ndarray) and ious.ndim == 2:  # a hundred times faster than row by row
        whole = ious[:, :max_clicks]
        lengths = np.full(len(whole), whole.shape[1], dtype=np.int64)
        values[:, : whole.shape[1]] = whole
    else:
        rows = [np.asarray(row, dtype=np.float32)[:max_clicks] for row in ious]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        values[np.arange(max_clicks) < lengths[:, None]] = np.concatenate(rows)
    outside = np.argwhere((values < 0) | (values > 1))
    if len(outside):
        number, at = outside[0]
        raise ValueError(f"sample {number} has IoU {values[number, at]:g} after click {at + 1}; must be in [0, 1]")
    return values, lengths
