"""Frames: masks to the grid and back, and clicks where the image's own resize puts their pixels."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.baselines.sam.session import padded_input
from disbench.core.arrays import BoolArray
from disbench.disnet.batches import STRIDE, Frame
from disbench.disnet.network import stretched

Kind = Literal["stretched", "padded"]
KINDS: tuple[Kind, ...] = ("stretched", "padded")
fewer = settings(max_examples=60)
SIZES = st.tuples(st.integers(5, 150), st.integers(5, 150))


@st.composite
def rectangles(draw: st.DrawFn) -> BoolArray:
    """A rectangle in an image of any size."""
    height, width = draw(SIZES)
    mask = np.zeros((height, width), dtype=bool)
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    mask[top : draw(st.integers(top + 1, height)), left : draw(st.integers(left + 1, width))] = True
    return mask


def shares(mask: BoolArray, size: tuple[int, int]) -> Any:
    """Every cell's share of the mask, pixel by pixel, in whole numbers until the end.

    Each pixel is cut into as many parts as there are cells along an axis; each cell is then a number of parts.
    """
    fine = mask.repeat(size[0], axis=0).repeat(size[1], axis=1)
    cells = fine.reshape(size[0], mask.shape[0], size[1], mask.shape[1])
    return cells.mean(axis=(1, 3))


@fewer
@given(st.tuples(st.integers(1, 24), st.integers(1, 24)), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_a_cell_is_the_masks_if_at_least_half_of_it_is(size: tuple[int, int], kind: Kind, seed: int) -> None:
    """Where the image shrinks, where it grows, and where one axis does this and the other that."""
    frame, noise = Frame(kind, 48), np.random.default_rng(seed)
    mask = noise.random(size) < 0.5
    found = frame.masks(mask[None])[0]
    height, width = frame.inner(size)
    expected = shares(mask, (height, width))
    sure = np.abs(expected - 0.5) > 1e-5
    assert np.array_equal(found[:height, :width][sure], (expected > 0.5)[sure])
    assert not found[height:].any() and not found[:, width:].any()


@fewer
@given(rectangles(), st.sampled_from(KINDS))
def test_a_mask_comes_back_but_for_the_cells_on_its_edge(mask: BoolArray, kind: Kind) -> None:
    frame = Frame(kind, 128)
    cells = frame.masks(mask[None])[0]
    back = frame.to_image(np.where(cells, 10, -10).astype(np.float32), mask.shape)
    assert back.shape == mask.shape and back.dtype == np.float32
    pixels = max(1 / scale for scale in frame.scale(mask.shape)) * STRIDE  # a cell's, at most
    beyond = np.pad(mask, 1).astype(np.uint8)  # the image's border is an edge too, as what lies beyond has a say
    distances = cv2.distanceTransform(beyond, cv2.DIST_L2, 5) + cv2.distanceTransform(1 - beyond, cv2.DIST_L2, 5)
    far = distances[1:-1, 1:-1] > 2 * pixels + 1
    assert np.array_equal((back > 0)[far], mask[far])


def placed(frame: Frame, size: tuple[int, int], x: float, y: float) -> tuple[float, float]:
    """Where a click goes in the input."""
    (scale_x, scale_y), (shift_x, shift_y) = frame.scale(size), frame.offset(size)
    return x * scale_x + shift_x, y * scale_y + shift_y


def center(bright: Any) -> tuple[float, float]:
    """The centre of what is bright: x, y."""
    rows, columns = np.mgrid[: bright.shape[0], : bright.shape[1]]
    weights = np.asarray(bright, dtype=np.float64)
    return float((columns * weights).sum() / weights.sum()), float((rows * weights).sum() / weights.sum())


SPOTS = st.tuples(st.integers(60, 200), st.integers(60, 200), st.floats(0.3, 0.7), st.floats(0.3, 0.7))


def spot(height: int, width: int, right: float, down: float) -> tuple[Any, int, int]:
    """A black image with a smooth bright spot, and the pixel in its middle."""
    x, y = int(right * width), int(down * height)
    rows, columns = np.mgrid[:height, :width]
    levels = 250 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 50.0)
    return np.repeat(levels.round().astype(np.uint8)[..., None], 3, axis=2), x, y


@fewer
@given(SPOTS)
def test_a_click_lies_where_the_stretched_image_has_its_pixel(given_: tuple[int, int, float, float]) -> None:
    image, x, y = spot(*given_)
    frame = Frame("stretched", 128)
    found = stretched(image, 128)
    assert found.shape == (3, 128, 128) and found.dtype == np.uint8
    assert np.allclose(center(found[0]), placed(frame, image.shape[:2], x, y), atol=0.3)


@fewer
@given(SPOTS)
def test_a_click_lies_where_sam_has_it(given_: tuple[int, int, float, float]) -> None:
    """SAM scales the pixel's corner and adds half a pixel of the input; the image scales the pixel's centre."""
    image, x, y = spot(*given_)
    size = (image.shape[0], image.shape[1])
    frame, scale = Frame("padded", 128), 128 / max(size)
    red = padded_input(image, 128)[0, 0]
    inner = [round(own * scale) for own in size]
    bright = (red - red[0, 0])[: inner[0], : inner[1]]  # zeros beyond the image are not black
    assert placed(frame, size, x, y) == (x * scale, y * scale)
    rounding = 0.5 * max(1, scale) + 0.5  # of the inner part to whole pixels
    assert np.allclose(center(bright), placed(frame, size, x, y), atol=abs(scale - 1) / 2 + rounding)


def test_a_stripe_of_pixels_is_seen_where_one_axis_shrinks_and_the_other_grows() -> None:
    """One white column of two is grey, not white or black as its single pixels are."""
    image = np.zeros((40, 200, 3), dtype=np.uint8)
    image[:, ::2] = 254
    assert np.ptp(stretched(image, 100)) == 0
