"""Shared by the training-free methods: working images of bounded size, clicks as seeds, and colour models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, FloatArray
from disbench.core.clicks import Click
from disbench.core.errors import opencv
from disbench.core.prediction import Prediction, RgbImage
from disbench.io.settings import Bounds, check_fields

SignMap = npt.NDArray[np.int8]  # seeds of a working image, (rows, columns): 1 object, -1 background, 0 neither
Solver = Callable[[SignMap], npt.NDArray[Any]]
"""Maps seeds of both signs to the object's labels (bool) or probabilities in [0, 1], (rows, columns)."""

Side = Annotated[int, Bounds(0)]  # long side of the working image, pixels; 0 for the image's own size
Radius = Annotated[float, Bounds(0, 100)]  # of the seed discs, pixels of the working image
Bandwidth = Annotated[float, Bounds(1, 255)]  # standard deviation of the colour models' kernel, 8-bit levels
Frame = Literal["until-negative", "always", "never"]
"""When the image's outermost pixels are background seeds; `until-negative`: until the first negative click."""

BINS = 32
FLOOR = 0.05


def shrink(image: RgbImage, max_side: int) -> RgbImage:
    """The working image: long side at most `max_side` pixels (0: no limit), by area interpolation.

    uint8 (rows, columns, 3), contiguous; each side at least one pixel. Images are never enlarged.
    """
    height, width = image.shape[:2]
    if not max_side or max(height, width) <= max_side:
        return np.ascontiguousarray(image)
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: RgbImage = opencv().resize(image, size, interpolation=opencv().INTER_AREA)
    return small


def seed_discs(clicks: Sequence[Click], size: tuple[int, int], rows: int, columns: int, radius: float) -> SignMap:
    """Discs around clicks on an image of `size` (height, width), drawn on the working image of rows x columns.

    Each pixel within `radius` working pixels of a click belongs to the nearest click, with ties to the latest; a radius
    of 0 marks only the clicked pixels.
    """
    height, width = size
    nearest = np.full((rows, columns), float(radius) ** 2)
    signs = np.zeros((rows, columns), dtype=np.int8)
    reach = int(radius)
    for click in clicks:
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
    """Mark the unmarked outermost rows and columns as background, depending on `frame`."""
    if frame == "never" or (frame == "until-negative" and (seeds < 0).any()):
        return seeds
    edge = np.ones(seeds.shape, dtype=bool)
    edge[1:-1, 1:-1] = False
    return np.where(edge & (seeds == 0), np.int8(-1), seeds)


def at_image_size(values: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Resize labels or probabilities, (rows, columns), to the image's size by bilinear interpolation.

    bool (height, width) for labels (object above 0.5), float32 in [0, 1] for probabilities.
    """
    single = np.ascontiguousarray(values, dtype=np.float32)
    if single.shape != (height, width):
        single = opencv().resize(single, (width, height))
    single = np.clip(single, 0, 1)
    return single > 0.5 if values.dtype == np.bool_ else single


class SeededMethod(ABC):
    """A method that solves for all seeds again at each click; subclasses are dataclasses with these fields."""

    max_side: Side
    radius: Radius
    frame: Frame

    def __post_init__(self) -> None:
        check_fields(self)

    def open(self, image: RgbImage) -> SeededSession:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return SeededSession(self, image)

    @abstractmethod
    def prepared(self, working: RgbImage) -> Solver:
        """The solver for a working image."""


class SeededSession:
    """One image being segmented by a seeded method."""

    def __init__(self, method: SeededMethod, image: RgbImage) -> None:
        self._size, working = image.shape[:2], shrink(image, method.max_side)
        self._rows, self._columns = working.shape[:2]
        self._method, self._solve = method, method.prepared(working)

    def restart(self) -> None:
        """Do nothing: each prediction is computed from all clicks."""

    undo = restart

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One candidate for all clicks so far, float32 (1, height, width) in [0, 1], or bool for label solvers.

        Without a positive click the mask is empty; without a background seed it is full.
        """
        seeds = seed_discs(clicks, self._size, self._rows, self._columns, self._method.radius)
        if not (seeds > 0).any():
            return Prediction(np.zeros((1, *self._size), dtype=bool))
        seeds = add_frame(seeds, self._method.frame)
        if not (seeds < 0).any():
            return Prediction(np.ones((1, *self._size), dtype=bool))
        return Prediction(at_image_size(self._solve(seeds), *self._size)[None])


def lab(image: RgbImage) -> npt.NDArray[np.uint8]:
    """The image in CIE L*a*b*, each channel scaled to 8 bits as in OpenCV."""
    cv2 = opencv()
    converted: npt.NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    return converted


def colour_bins(image: RgbImage) -> npt.NDArray[np.intp]:
    """The bin of each pixel's colour in 32 x 32 x 32 L*a*b* bins: (height, width), from 0 to 32 ** 3 - 1."""
    quantised = lab(image).astype(np.intp) * BINS // 256
    return (quantised[..., 0] * BINS + quantised[..., 1]) * BINS + quantised[..., 2]


def log_likelihood(bins: npt.NDArray[np.intp], chosen: BoolArray, bandwidth: float) -> FloatArray:
    """Each pixel's log-likelihood under the colours of the `chosen` pixels (at least one): float64 (height, width).

    The natural logarithm of the bin's probability in a kernel density estimate: the histogram smoothed by a Gaussian
    of `bandwidth` 8-bit levels and mixed with a uniform density (0.05), so that unseen colours have a likelihood.
    """
    from scipy import ndimage  # noqa: PLC0415  (slow to load)

    counts = np.bincount(bins[chosen], minlength=BINS**3).reshape(BINS, BINS, BINS) / chosen.sum()
    smooth = ndimage.gaussian_filter(counts, bandwidth * BINS / 256, mode="nearest").ravel()
    density: FloatArray = np.log((1 - FLOOR) * smooth + FLOOR / BINS**3)
    found: FloatArray = density[bins]
    return found


def log_likelihood_ratio(bins: npt.NDArray[np.intp], seeds: SignMap, bandwidth: float) -> FloatArray:
    """ln(Pr(colour | object) / Pr(colour | background)) for each pixel; `seeds` contains both signs."""
    return log_likelihood(bins, seeds > 0, bandwidth) - log_likelihood(bins, seeds < 0, bandwidth)
