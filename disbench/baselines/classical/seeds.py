"""What the methods without training share: images of bounded size, and clicks that become seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import Float32Array
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.opencv import opencv
from disbench.core.prediction import Prediction, RgbImage
from disbench.io.settings import Bounds, check_fields

SignMap = npt.NDArray[np.int8]
FloatMap = npt.NDArray[np.floating[Any]]
Frame = Literal["until-negative", "always", "never"]

Side = Annotated[int, Bounds(0)]
"""Long side of the working image, pixels: 0 for the image's own size, or at least 16."""
Radius = Annotated[float, Bounds(0, 100)]
"""Of the seed discs, pixels of the working image."""
Bandwidth = Annotated[float, Bounds(1, 255)]
"""Standard deviation of the colour models' kernel, 8-bit levels."""


def check_options(method: Any) -> None:
    """Check a method's fields.

    Raises:
        InputError: one of the wrong kind or out of its range.
    """
    check_fields(method)
    if 0 < getattr(method, "max_side", 0) < 16:
        raise InputError(f"max_side = {method.max_side}: give 0 (the image's own size) or at least 16 pixels")


def checked_image(image: RgbImage) -> RgbImage:
    """The image, if it is uint8 (height, width, 3) and not empty.

    Raises:
        InputError: it is not.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an image of kind {image.dtype} and shape {image.shape}; give uint8 (height, width, 3)")
    return image


def checked_clicks(clicks: Sequence[Click], height: int, width: int) -> None:
    """Nothing, if all clicks are on the image.

    Raises:
        InputError: a click is not.
    """
    for click in clicks:
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise InputError(f"a click at x={click.x}, y={click.y} is not on the image of {width} x {height} pixels")


def shrink(image: RgbImage, max_side: int) -> RgbImage:
    """The working image: the long side at most `max_side` pixels, by area interpolation.

    Args:
        image: uint8 (height, width, 3).
        max_side: pixels; 0 leaves the image as it is. An image is never enlarged.

    Returns:
        uint8 (rows, columns, 3), contiguous; each side at least one pixel.
    """
    height, width = image.shape[:2]
    if not max_side or max(height, width) <= max_side:
        return np.ascontiguousarray(image)
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    cv2 = opencv()
    small: RgbImage = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small


def enlarge(values: FloatMap, height: int, width: int) -> Float32Array:
    """A map of the working image at the image's own size, by bilinear interpolation.

    Args:
        values: (rows, columns) in [0, 1].
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        float32 (height, width) in [0, 1].
    """
    single = np.ascontiguousarray(values, dtype=np.float32)
    if single.shape != (height, width):
        cv2 = opencv()
        single = cv2.resize(single, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(single, 0, 1)


def to_working(click: Click, size: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """The (row, column) of the working pixel that a click of the image falls into.

    Args:
        click: on the image.
        size: (height, width) of the image.
        rows: of the working image.
        columns: of the working image.
    """
    height, width = size
    return (2 * click.y + 1) * rows // (2 * height), (2 * click.x + 1) * columns // (2 * width)


def seed_discs(clicks: Sequence[Click], size: tuple[int, int], rows: int, columns: int, radius: float) -> SignMap:
    """Discs around the clicks, on the working image.

    Every pixel no farther than `radius` from a click belongs to the nearest one; of clicks that are equally
    near, and so of those in one working pixel, to the latest. No click is lost but to a later one in the same
    working pixel.

    Args:
        clicks: all so far, on the image.
        size: (height, width) of the image.
        rows: of the working image.
        columns: of the working image.
        radius: pixels of the working image, >= 0; 0 marks the clicked pixels alone.

    Returns:
        int8 (rows, columns): 1 on positive clicks' discs, -1 on negative ones', 0 elsewhere.

    Raises:
        InputError: a click is not on the image.
    """
    checked_clicks(clicks, *size)
    nearest = np.full((rows, columns), float(radius) ** 2)
    signs = np.zeros((rows, columns), dtype=np.int8)
    reach = int(radius)
    for click in clicks:
        row, column = to_working(click, size, rows, columns)
        window = (
            slice(max(0, row - reach), row + reach + 1),
            slice(max(0, column - reach), column + reach + 1),
        )
        y, x = np.ogrid[
            window[0].start : min(rows, row + reach + 1), window[1].start : min(columns, column + reach + 1)
        ]
        squares = (y - row) ** 2 + (x - column) ** 2
        nearer = squares <= nearest[window]
        nearest[window][nearer] = squares[nearer]
        signs[window][nearer] = 1 if click.positive else -1
    return signs


def add_frame(seeds: SignMap, frame: Frame) -> SignMap:
    """The seeds, with the image's outermost pixels as background where no click says otherwise.

    Args:
        seeds: int8 (rows, columns), as `seed_discs` gives them.
        frame: `until-negative`: only while there is no negative seed; `always`; or `never`.

    Returns:
        int8 (rows, columns): -1 also on those pixels of the first and last row and column that were 0.
    """
    if frame == "never" or (frame == "until-negative" and (seeds < 0).any()):
        return seeds
    framed = seeds.copy()
    edge = np.ones(seeds.shape, dtype=bool)
    edge[1:-1, 1:-1] = False
    framed[edge & (seeds == 0)] = -1
    return framed


class SeededSession:
    """An image being segmented by a method that looks at all seeds anew at each click.

    Args:
        size: (height, width) of the image.
        working: (rows, columns) of the working image.
        radius: of the discs, pixels of the working image.
        frame: when the outermost pixels count as background.
        solve: from seeds of both signs, int8 (rows, columns), to the object's labels or probabilities,
            (rows, columns) in [0, 1].
    """

    def __init__(
        self,
        size: tuple[int, int],
        working: tuple[int, int],
        radius: float,
        frame: Frame,
        solve: Callable[[SignMap], npt.NDArray[Any]],
    ) -> None:
        self._size, self._working = size, working
        self._radius, self._frame, self._solve = radius, frame, solve

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One candidate for all clicks so far, float32 (1, height, width) in [0, 1], or bool where `solve` labels.

        Without a positive click nothing is object; without any background seed everything is.

        Raises:
            InputError: a click is not on the image.
        """
        seeds = seed_discs(clicks, self._size, *self._working, self._radius)
        if not (seeds > 0).any():
            return Prediction(np.zeros((1, *self._size), dtype=bool))
        seeds = add_frame(seeds, self._frame)
        if not (seeds < 0).any():
            return Prediction(np.ones((1, *self._size), dtype=bool))
        return Prediction(at_image_size(self._solve(seeds), *self._size)[None])


def at_image_size(values: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Labels or probabilities of the working image at the image's own size.

    Args:
        values: bool or floating point (rows, columns); probabilities in [0, 1].
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        (height, width): bool for labels (interpolated, and object where more than 0.5), float32 in [0, 1] for
        probabilities.
    """
    if values.dtype != np.bool_:
        return enlarge(values, height, width)
    labels: npt.NDArray[Any] = enlarge(values.astype(np.float32), height, width) > 0.5
    return labels
