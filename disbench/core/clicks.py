"""Clicks, and the protocol's simulated click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray
from disbench.core.depths import deepest
from disbench.core.errors import opencv


class Click(NamedTuple):
    """One click: pixel coordinates from the top left corner, counted from 0; positive means on the object."""

    x: int
    y: int
    positive: bool


NO_ERROR = Click(0, 0, False)  # the protocol's click if there is no error left to click


def next_click(target: npt.ArrayLike, prediction: npt.ArrayLike, clicks: Sequence[Click] = ()) -> Click:
    """The click of the standard protocol: the centre of the largest error.

    False negatives (object, not predicted) and false positives (predicted, background) each get a map of Euclidean
    distances to the nearest pixel that is not an error of their kind, with no errors beyond the image. Pixels clicked
    before have distance 0. The click is at the first pixel, in row-major order, of the largest distance, and is
    positive if a false negative's distance is strictly larger. Ignored pixels are not errors. If no unclicked error is
    left, returns `Click(0, 0, False)`.

    Distances are those of OpenCV's precise transform (`disbench.core.depths.transform`), so ties are exact.

    Args:
        target: integers (height, width): 1 object, 0 background, -1 ignored; row-major, y down.
        prediction: booleans, or integers 0 and 1, (height, width).
        clicks: earlier clicks, in any order.

    Raises:
        ValueError: wrong shapes, types or values, or a click outside the image.
        InputError: OpenCV cannot be imported.
    """
    opencv()  # not needed for every click; if it is missing, fail on the first one
    missed, excess = error_masks(target, prediction)
    check_clicks(clicks, missed.shape)
    depth = deepest(missed, excess, clicks)
    return NO_ERROR if depth is None else Click(depth.x, depth.y, depth.missed)


def error_masks(target: npt.ArrayLike, prediction: npt.ArrayLike) -> tuple[BoolArray, BoolArray]:
    """False negatives and false positives of a prediction, boolean (height, width) each, without ignored pixels.

    Arguments and errors are as for `next_click`.
    """
    goal, guess = _row_major(checked_target(target)), _row_major(checked_mask(prediction))
    if goal.shape != guess.shape:
        raise ValueError(f"the target is {_size(goal)} pixels and the prediction {_size(guess)}; they must agree")
    # As signed bytes 1 > 0 > -1, as unsigned bytes 255 > 1 > 0: an ignored pixel is neither missed nor in excess.
    return goal > guess.view(np.int8), guess.view(np.uint8) > goal.view(np.uint8)


def checked_target(target: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """Convert a target to int8 (height, width); ValueError for other shapes, types, or values than 1, 0 and -1."""
    array = _map(target, "target")
    if array.dtype.kind not in "biu":
        raise ValueError(f"a target must be integers (1 object, 0 background, -1 ignored), not {array.dtype}")
    if array.dtype.kind != "b" and (array.min() < -1 or array.max() > 1):
        raise ValueError(f"a target must be 1, 0 and -1 only, not {array.min()} to {array.max()}")
    return array.astype(np.int8, copy=False)


def checked_mask(mask: npt.ArrayLike) -> BoolArray:
    """Convert a mask to bool (height, width); ValueError unless it has two axes of booleans, or of 0 and 1."""
    array = _map(mask, "prediction")
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind not in "iu":
        raise ValueError(f"a prediction must be booleans, or 0 and 1, not {array.dtype}; threshold it first")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"a prediction of integers must be 0 and 1 only, not {array.min()} to {array.max()}")
    return array.astype(np.bool_)


def opencv_version() -> str:
    """Version of OpenCV, whose distance transform places the clicks; errors as for `opencv`."""
    return str(opencv().__version__)


def check_clicks(clicks: Sequence[Click], shape: tuple[int, ...]) -> None:
    """Raise ValueError unless all clicks lie in an image of `shape` (height, width)."""
    for click in clicks:
        if not (0 <= click.x < shape[1] and 0 <= click.y < shape[0]):
            raise ValueError(f"the click at x={click.x}, y={click.y} is outside an image of {shape[1]} x {shape[0]}")


def _row_major(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert to row-major memory: RLE decoding is column-major, and everything else is slower on that."""
    if array.flags.c_contiguous or not array.flags.f_contiguous:
        return array
    return np.asarray(opencv().transpose(array.T.view(np.uint8))).view(array.dtype)


def _map(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"a {name} must have two axes (height, width) and at least one pixel, not shape {array.shape}")
    return array


def _size(array: npt.NDArray[Any]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
