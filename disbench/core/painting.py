"""Masks painted on photographs, in Okabe and Ito's colours, which the colour-blind can tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, ByteArray, FloatArray

RgbImage = ByteArray
Colour = tuple[int, int, int]

BLUE: Colour = (0, 114, 178)
ORANGE: Colour = (230, 159, 0)
YELLOW: Colour = (240, 228, 66)
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
_SMALL = 40


def fitted(width: int, height: int, cell: float, tallest: float) -> tuple[int, int]:
    """(width, height) in pixels of an image that fills its cell as far as it can, nothing cut off.

    Args:
        width: of the image, pixels.
        height: of the image, pixels.
        cell: width of the cell, pixels.
        tallest: height of the picture over the width of the cell, at most.
    """
    scale = min(cell / width, tallest * cell / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resized(rgb: RgbImage, size: tuple[int, int]) -> RgbImage:
    """An image at another (width, height)."""
    from PIL import Image  # noqa: PLC0415

    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def coverage(mask: BoolArray, size: tuple[int, int]) -> FloatArray:
    """Share of each picture's pixel that a mask covers, at another (width, height)."""
    from PIL import Image  # noqa: PLC0415

    whole = Image.fromarray(mask.astype(np.float32))
    return np.array(whole.resize(size, Image.Resampling.BOX), dtype=np.float64)


def inside(shares: FloatArray) -> BoolArray:
    """The picture's pixels that belong to a mask: half covered; of a mask of a few pixels, touched at all."""
    half = shares >= 0.5
    return half if half.sum() >= _SMALL else shares > 0


def tinted(picture: npt.NDArray[Any], shares: FloatArray, colour: Colour, *, around: Colour) -> RgbImage:
    """A mask filled with a colour, edged with the same colour, and a thin line around the edge.

    Args:
        picture: (height, width, 3) in [0, 255].
        shares: (height, width) in [0, 1], how much of each pixel the mask covers.
        colour: of the mask.
        around: colour of the line.

    Returns:
        uint8 (height, width, 3).
    """
    from scipy import ndimage  # noqa: PLC0415

    within = inside(shares)
    square = np.ones((3, 3), dtype=bool)
    alpha = (0.4 * shares)[..., None]
    painted = (1 - alpha) * picture + alpha * np.array(colour)
    painted[ndimage.binary_dilation(within, square) & ~within] = around
    painted[within & ~ndimage.binary_erosion(within, square, iterations=2)] = colour
    return np.asarray(np.rint(painted), dtype=np.uint8)


def dashed(picture: RgbImage, shares: FloatArray, dash: int) -> RgbImage:
    """A mask's outline in yellow and black dashes, which stand out on every photograph.

    Args:
        picture: uint8 (height, width, 3).
        shares: (height, width) in [0, 1], how much of each pixel the mask covers.
        dash: length of a dash, pixels.

    Returns:
        uint8 (height, width, 3).
    """
    from scipy import ndimage  # noqa: PLC0415

    within = inside(shares)
    square = np.ones((3, 3), dtype=bool)
    line = ndimage.binary_dilation(within, square) & ~ndimage.binary_erosion(
        within, square, iterations=2, border_value=1
    )
    rows, columns = np.indices(within.shape)
    yellow = (rows // dash + columns // dash) % 2 == 0
    painted = picture.copy()
    painted[line & yellow], painted[line & ~yellow] = YELLOW, BLACK
    return painted


def hatched(picture: RgbImage, shares: FloatArray) -> RgbImage:
    """A region under grey diagonal lines.

    Args:
        picture: uint8 (height, width, 3).
        shares: (height, width) in [0, 1], how much of each pixel the region covers.

    Returns:
        uint8 (height, width, 3).
    """
    rows, columns = np.indices(shares.shape)
    within = shares >= 0.5
    stripe = (rows + columns) % 6
    painted = picture.copy()
    painted[within & (stripe < 2)] = 235
    painted[within & (stripe >= 3)] = 90
    return painted
