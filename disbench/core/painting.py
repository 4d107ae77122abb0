"""Paint masks and clicks on photographs, in Okabe and Ito's colour-blind safe colours.

Pictures are uint8 (height, width, 3), RGB. `shares` is float (height, width) in [0, 1]: the share of each pixel that a
mask covers.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from disbench.core.arrays import BoolArray, ByteArray, FloatArray
from disbench.core.clicks import Click
from disbench.core.errors import opencv
from disbench.core.prediction import RgbImage

Colour = tuple[int, int, int]

BLUE: Colour = (0, 114, 178)
SKY: Colour = (86, 180, 233)
GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
ORANGE: Colour = (230, 159, 0)
VERMILLION: Colour = (213, 94, 0)
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
CANDIDATES = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION)
"""Colours of the candidates of one click, repeated if there are more."""
_FEW_PIXELS = 40
_OPACITY = 120  # alpha inside the mask in `overlay_png`, of 255


def encode_png(pixels: ByteArray, compression: int = 6) -> bytes:
    """Encode a PNG without metadata."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=compression)
    return file.getvalue()


def fit_to_cell(width: int, height: int, cell: float, tallest: float) -> tuple[int, int]:
    """Size (width, height) of an image scaled to fit a cell `cell` pixels wide and `tallest * cell` high."""
    scale = min(cell / width, tallest * cell / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(picture: RgbImage, size: tuple[int, int]) -> RgbImage:
    """Resize a picture to (width, height)."""
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def pixel_coverage(mask: BoolArray, size: tuple[int, int]) -> FloatArray:
    """Share of each pixel that a mask covers after resizing to (width, height)."""
    whole = Image.fromarray(mask.astype(np.float32))
    return np.array(whole.resize(size, Image.Resampling.BOX), dtype=np.float64)


def tint(picture: npt.NDArray[Any], shares: FloatArray, colour: Colour = BLUE, rim: Colour = WHITE) -> RgbImage:
    """Fill and outline a mask in one colour, with a thin rim around the outline."""
    from scipy import ndimage  # noqa: PLC0415

    inside, square = _inside(shares), np.ones((3, 3), dtype=bool)
    alpha = (0.4 * shares)[..., None]
    result = (1 - alpha) * picture + alpha * np.array(colour)
    result[ndimage.binary_dilation(inside, square) & ~inside] = rim
    result[inside & ~ndimage.binary_erosion(inside, square, iterations=2)] = colour
    return np.asarray(np.rint(result), dtype=np.uint8)


def desaturate(picture: RgbImage) -> RgbImage:
    """Desaturate a photograph, so that a mask stands out."""
    grey = picture.mean(axis=2, keepdims=True)
    return np.asarray(np.rint(0.75 * grey + 0.25 * picture), dtype=np.uint8)


def paint_on_grey(picture: RgbImage, shares: FloatArray) -> RgbImage:
    """Paint a mask in blue with a white rim on a faded photograph."""
    return tint(desaturate(picture), shares)


def spotlight(picture: RgbImage, shares: FloatArray) -> RgbImage:
    """Paint a mask in orange with a black rim; the photograph outside it is darkened and faded."""
    lit = shares[..., None]
    return tint(lit * picture + (1 - lit) * 0.5 * desaturate(picture), shares, ORANGE, BLACK)


def dash_outline(picture: RgbImage, shares: FloatArray, dash: int) -> RgbImage:
    """Outline a mask in yellow and black dashes of `dash` pixels, visible on any photograph."""
    from scipy import ndimage  # noqa: PLC0415

    inside, square = _inside(shares), np.ones((3, 3), dtype=bool)
    eroded = ndimage.binary_erosion(inside, square, iterations=2, border_value=1)
    line = ndimage.binary_dilation(inside, square) & ~eroded
    rows, columns = np.indices(inside.shape)
    yellow = (rows // dash + columns // dash) % 2 == 0
    result = picture.copy()
    result[line & yellow], result[line & ~yellow] = YELLOW, BLACK
    return result


def hatch(picture: RgbImage, shares: FloatArray) -> RgbImage:
    """Cover a region with grey diagonal stripes."""
    rows, columns = np.indices(shares.shape)
    inside, stripe = shares >= 0.5, (rows + columns) % 6
    result = picture.copy()
    result[inside & (stripe < 2)] = 235
    result[inside & (stripe >= 3)] = 90
    return result


def overlay(image: RgbImage, masks: Sequence[BoolArray], clicks: Sequence[Click]) -> RgbImage:
    """Paint masks in the colours of `CANDIDATES`, then clicks, on an image, uint8 (height, width, 3).

    Positive clicks are green with a plus, negative ones red with a minus.
    """
    drawn = image.astype(np.float32)
    for number, mask in enumerate(masks):
        colour = np.asarray(CANDIDATES[number % len(CANDIDATES)], dtype=np.float32)
        drawn[mask] += np.float32(0.45) * (colour - drawn[mask])
    picture = Image.fromarray(drawn.round().astype(np.uint8))
    pen, radius = ImageDraw.Draw(picture), max(3, round(min(image.shape[:2]) / 80))
    for x, y, positive in clicks:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), GREEN if positive else VERMILLION, WHITE)
        pen.line((x - radius // 2, y, x + radius // 2, y), WHITE)
        if positive:
            pen.line((x, y - radius // 2, x, y + radius // 2), WHITE)
    return np.asarray(picture, dtype=np.uint8)


def overlay_png(mask: BoolArray, number: int) -> bytes:
    """PNG of a candidate to overlay on a photograph: transparent outside the mask, tinted inside, with a solid edge."""
    thickness = max(1, round(max(mask.shape) / 250))
    inside = np.ascontiguousarray(mask, dtype=np.uint8)
    inner = opencv().erode(inside, np.ones((2 * thickness + 1, 2 * thickness + 1), np.uint8))
    picture = Image.fromarray(np.where(inside > inner, np.uint8(2), inside))
    colour = CANDIDATES[number % len(CANDIDATES)]
    picture.putpalette([*BLACK, *colour, *colour])
    file = io.BytesIO()
    picture.save(file, format="PNG", transparency=bytes((0, _OPACITY, 255)), compress_level=4)
    return file.getvalue()


def _inside(shares: FloatArray) -> BoolArray:
    """Pixels that are at least half covered; for a mask of few pixels, all that are touched."""
    half = shares >= 0.5
    return half if half.sum() >= _FEW_PIXELS else shares > 0
