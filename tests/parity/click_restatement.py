"""Literal restatements of the simulated click and of the measures, written from the protocol's text alone.

Full frames, plain loops, nothing shared with the package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
AnyClick = tuple[int, int, bool]


def next_click(
    target: Array, prediction: Array, clicks: Sequence[AnyClick] = (), *, as_set_up: bool = False
) -> AnyClick:
    """The protocol's click by two distance transforms of the padded frame.

    Args:
        target: 1 object, 0 background, -1 ignored.
        prediction: booleans.
        clicks: (x, y, positive).
        as_set_up: leave OpenCV as it is set up; otherwise its own transform is used, whatever the number of
            threads and the size of the image.
    """
    import cv2

    missed = np.logical_and(target == 1, np.logical_not(prediction))
    excess = np.logical_and(target == 0, prediction)
    padded_missed = np.pad(missed, ((1, 1), (1, 1)), "constant").astype(np.uint8)
    padded_excess = np.pad(excess, ((1, 1), (1, 1)), "constant").astype(np.uint8)
    with _unchanged() if as_set_up else own_transform():
        missed_distance = cv2.distanceTransform(padded_missed, cv2.DIST_L2, 0)[1:-1, 1:-1]
        excess_distance = cv2.distanceTransform(padded_excess, cv2.DIST_L2, 0)[1:-1, 1:-1]
    not_clicked = np.ones(target.shape, dtype=bool)
    for x, y, _ in clicks:
        not_clicked[y, x] = False
    missed_distance = missed_distance * not_clicked
    excess_distance = excess_distance * not_clicked
    return _first_maximum(missed_distance, excess_distance)


def next_click_without_opencv(target: Array, prediction: Array, clicks: Sequence[AnyClick] = ()) -> AnyClick:
    """The same by SciPy's nearest zeros: distances are the float32 roots of whole numbers."""
    maps = []
    for errors in (np.logical_and(target == 1, ~prediction), np.logical_and(target == 0, prediction)):
        distance = exact_distances(np.pad(errors, 1))[1:-1, 1:-1].copy()
        for x, y, _ in clicks:
            distance[y, x] = 0
        maps.append(distance)
    return _first_maximum(maps[0], maps[1])


def scipy_click(target: Array, prediction: Array, clicks: Sequence[AnyClick] = ()) -> AnyClick:
    """The click of f-BRS and FCANet: SciPy's transform of the padded frame, in float64."""
    from scipy.ndimage import distance_transform_edt

    missed = distance_transform_edt(np.pad(np.logical_and(target == 1, ~prediction), 1))[1:-1, 1:-1]
    excess = distance_transform_edt(np.pad(np.logical_and(target == 0, prediction), 1))[1:-1, 1:-1]
    for x, y, _ in clicks:
        missed[y, x] = excess[y, x] = 0
    return _first_maximum(missed, excess)


def restarting_click(target: Array, prediction: Array, clicks: Sequence[AnyClick] = ()) -> AnyClick:
    """The click of FocusCut: the same, but where nothing is left, that on an empty prediction without clicks."""
    left = np.logical_or(np.logical_and(target == 1, ~prediction), np.logical_and(target == 0, prediction))
    for x, y, _ in clicks:
        left[y, x] = False
    if left.any():
        return scipy_click(target, prediction, clicks)
    return scipy_click(target, np.zeros_like(prediction))


def tied_clicks(target: Array, prediction: Array, clicks: Sequence[AnyClick] = ()) -> set[AnyClick]:
    """The clicks of InterFormer, of which one is drawn: clicked pixels are no errors, ignored ones are background."""
    import cv2

    errors = [np.logical_and(target == 1, ~prediction), np.logical_and(target != 1, prediction)]
    for of_kind in errors:
        for x, y, _ in clicks:
            of_kind[y, x] = False
    with own_transform():
        maps = [
            cv2.distanceTransform(np.pad(of_kind, 1).astype(np.uint8), cv2.DIST_L2, 0)[1:-1, 1:-1] for of_kind in errors
        ]
    if maps[0].max() == maps[1].max() == 0:
        return {(0, 0, False)}
    positive = bool(maps[0].max() > maps[1].max())
    found = maps[0] if positive else maps[1]
    ys, xs = np.where(found == found.max())
    return {(int(x), int(y), positive) for x, y in zip(xs, ys, strict=True)}


def exact_distances(mask: Array) -> Array:
    """float32 root of the whole squared distance from each pixel to the nearest zero."""
    from scipy import ndimage

    if not mask.any():
        return np.zeros(mask.shape, dtype=np.float32)
    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    squared = ((nearest - np.indices(mask.shape)) ** 2).sum(axis=0)
    return np.sqrt(squared.astype(np.float32))


@contextmanager
def own_transform() -> Iterator[None]:
    """OpenCV's own transform, not Intel's: the last bits of the latter depend on where the result lies."""
    import cv2

    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(before)


@contextmanager
def _unchanged() -> Iterator[None]:
    yield


def _first_maximum(missed_distance: Array, excess_distance: Array) -> AnyClick:
    missed_max, excess_max = np.max(missed_distance), np.max(excess_distance)
    positive = bool(missed_max > excess_max)
    if positive:
        ys, xs = np.where(missed_distance == missed_max)
    else:
        ys, xs = np.where(excess_distance == excess_max)
    return int(xs[0]), int(ys[0]), positive


def iou(target: Array, prediction: Array) -> float:
    both = either = 0
    for wanted, given in zip(target.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if wanted == -1:
            continue
        both += wanted == 1 and bool(given)
        either += wanted == 1 or bool(given)
    return float(np.float32(both / either)) if either else math.nan


def noc_of(row: Sequence[float], threshold: float, max_clicks: int) -> int:
    for number, value in enumerate(row[:max_clicks], start=1):
        if np.float32(value) >= np.float32(threshold):
            return number
    return max_clicks


def noc(ious: Sequence[Sequence[float]], threshold: float, max_clicks: int = 20) -> float:
    return sum(noc_of(row, threshold, max_clicks) for row in ious) / len(ious)


def nof(ious: Sequence[Sequence[float]], threshold: float, max_clicks: int, rule: str) -> int:
    failed = 0
    for row in ious:
        if rule == "ritm":
            failed += noc_of(row, threshold, max_clicks) == max_clicks
        else:
            failed += not any(np.float32(value) >= np.float32(threshold) for value in row[:max_clicks])
    return failed


def miou_curve(ious: Sequence[Sequence[float]], max_clicks: int = 20) -> list[float]:
    return [sum(float(np.float32(row[k])) for row in ious) / len(ious) for k in range(max_clicks)]


def boundary(mask: Array, distance: int) -> Array:
    """Pixels of the mask with a pixel outside it, or outside the image, within the square around them."""
    height, width = mask.shape
    found = np.zeros(mask.shape, dtype=bool)
    for y in range(height):
        for x in range(width):
            if not mask[y, x]:
                continue
            inside = y >= distance and x >= distance and y + distance < height and x + distance < width
            around = mask[max(y - distance, 0) : y + distance + 1, max(x - distance, 0) : x + distance + 1]
            found[y, x] = not (inside and around.all())
    return found


def boundary_iou(target: Array, prediction: Array, ratio: float = 0.02) -> float:
    height, width = target.shape
    distance = max(1, round(ratio * math.sqrt(height**2 + width**2)))
    wanted, given = boundary(target == 1, distance), boundary(prediction, distance)
    counts = target != -1
    both, either = (wanted & given & counts).sum(), ((wanted | given) & counts).sum()
    return float(np.float32(both / either)) if either else math.nan
