"""Shared by the methods without training: images of bounded size, and clicks as seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.opencv import opencv
from disbench.core.prediction import Prediction, RgbImage
from disbench.io.settings import Bounds, check_fields

SignMap = npt.NDArray[np.int8]
"""Seeds of a working image, (rows, columns): 1 object, -1 background, 0 neither."""
Solver = Callable[[SignMap], npt.NDArray[Any]]
"""From seeds of both signs to the object's labels (bool) or probabilities in [0, 1], (rows, columns)."""

Side = Annotated[int, Bounds(0)]
"""Long side of the working image, pixels: 0 for the image's own size, or at least 16."""
Radius = Annotated[float, Bounds(0, 100)]
"""Radius of the seed discs, pixels of the working image."""
Bandwidth = Annotated[float, Bounds(1, 255)]
"""Standard deviation of the colour models' kernel, 8-bit levels."""
Frame = Literal["until-negative", "always", "never"]
"""When the image's outermost pixels are background seeds: `until-negative` is while there is no negative click."""


def check_options(method: Any) -> None:
    """Check that a method's fields are of the right kind and in range, with `InputError` otherwise."""
    check_fields(method)
    if 0 < getattr(method, "max_side", 0) < 16:
        raise InputError(f"max_side = {method.max_side}: give 0 (the image's own size) or at least 16 pixels")


def checked_image(image: RgbImage) -> RgbImage:
    """The image, or `InputError` if it is not uint8 (height, width, 3) or empty."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an image of kind {image.dtype} and shape {image.shape}; give uint8 (height, width, 3)")
    return image


def shrink(image: RgbImage, max_side: int) -> RgbImage:
    """The working image: the long side at most `max_side` pixels (0: no limit), by area interpolation.

    uint8 (rows, columns, 3), contiguous; each side at least one pixel. An image is never enlarged.
    """
    height, width = image.shape[:2]
    if not max_side or max(height, width) <= max_side:
        return np.ascontiguousarray(image)
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    cv2 = opencv()
    small: RgbImage = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small


def seed_discs(clicks: Sequence[Click], size: tuple[int, int], rows: int, columns: int, radius: float) -> SignMap:
    """Discs around the clicks, on the working image.

    Every pixel no farther than `radius` from a click belongs to the nearest one, and among equally near clicks to the
    latest.

    Args:
        clicks: all so far, on the image.
        size: (height, width) of the image.
        rows: height of the working image.
        columns: width of the working image.
        radius: pixels of the working image, >= 0; 0 marks the clicked pixels alone.

    Raises:
        InputError: a click is not on the image.
    """
    height, width = size
    nearest = np.full((rows, columns), float(radius) ** 2)
    signs = np.zeros((rows, columns), dtype=np.int8)
    reach = int(radius)
    for click in clicks:
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise InputError(f"a click at x={click.x}, y={click.y} is not on the image of {width} x {height} pixels")
        row = (2 * click.y + 1) * rows // (2 * height)
        column = (2 * click.x + 1) * columns // (2 * width)
        top, left = max(0, row - reach), max(0, column - reach)
        bottom, right = min(rows, row + reach + 1), min(columns, column + reach + 1)
        y, x = np.ogrid[top:bottom, left:right]
        squares = (y - row) ** 2 + (x - column) ** 2
        window = slice(top, bottom), slice(left, right)
        nearer = squares <= nearest[window]
        nearest[window][nearer] = squares[nearer]
        signs[window][nearer] = 1 if click.positive else -1
    return signs


def add_frame(seeds: SignMap, frame: Frame) -> SignMap:
    """The seeds, with unmarked pixels of the outermost rows and columns as background, if `frame` says so."""
    if frame == "never" or (frame == "until-negative" and (seeds < 0).any()):
        return seeds
    framed = seeds.copy()
    edge = np.ones(seeds.shape, dtype=bool)
    edge[1:-1, 1:-1] = False
    framed[edge & (seeds == 0)] = -1
    return framed


def at_image_size(values: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Labels or probabilities, (rows, columns), at the image's own size, by bilinear interpolation.

    bool (height, width) for labels (object where more than 0.5), float32 in [0, 1] for probabilities.
    """
    single = np.ascontiguousarray(values, dtype=np.float32)
    if single.shape != (height, width):
        cv2 = opencv()
        single = cv2.resize(single, (width, height), interpolation=cv2.INTER_LINEAR)
    single = np.clip(single, 0, 1)
    return single > 0.5 if values.dtype == np.bool_ else single


class SeededSession:
    """An image being segmented by a method that solves all seeds again at each click.

    `prepare` makes the solver of a working image, whose long side is at most `max_side`.
    """

    def __init__(
        self, image: RgbImage, max_side: int, radius: float, frame: Frame, prepare: Callable[[RgbImage], Solver]
    ) -> None:
        self._size, working = checked_image(image).shape[:2], shrink(image, max_side)
        self._rows, self._columns = working.shape[:2]
        self._solve = prepare(working)
        self._radius, self._frame = radius, frame

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One candidate for all clicks so far, float32 (1, height, width) in [0, 1], or bool where labels are solved.

        Without a positive click nothing is object; without any background seed everything is.

        Raises:
            InputError: a click is not on the image.
        """
        seeds = seed_discs(clicks, self._size, self._rows, self._columns, self._radius)
        if not (seeds > 0).any():
            return Prediction(np.zeros((1, *self._size), dtype=bool))
        seeds = add_frame(seeds, self._frame)
        if not (seeds < 0).any():
            return Prediction(np.ones((1, *self._size), dtype=bool))
        return Prediction(at_image_size(self._solve(seeds), *self._size)[None])
