"""Views: image and masks move together, crops stay within the image, the seed decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.disnet.training.augmentation import View, draw_view, fixed_view
from disbench.disnet.training.settings import Augmentation

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))
AUGMENTATIONS = st.builds(
    Augmentation,
    smallest_crop=st.floats(0.05, 1.0),
    horizontal_flip=st.sampled_from([0.0, 0.5, 1.0]),
    vertical_flip=st.sampled_from([0.0, 0.5, 1.0]),
    brightness=st.just(0.0),
    contrast=st.just(0.0),
)
SEEDS = st.integers(0, 2**32 - 1)
DEFAULT = Augmentation()


def drawn(size: tuple[int, int], augmentation: Augmentation, seed: int) -> View:
    return draw_view(size, augmentation, np.random.default_rng(seed))


def coordinates(size: tuple[int, int]) -> Any:
    """An image that says of each pixel where it is: red the row, green the column."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)


@settings(max_examples=60)
@given(SIZES, AUGMENTATIONS, SEEDS)
def test_image_and_masks_move_together(size: tuple[int, int], augmentation: Augmentation, seed: int) -> None:
    view, image = drawn(size, augmentation, seed), coordinates(size)
    masks = np.random.default_rng(seed).random((3, *size)) < 0.5
    seen, planes = view.image(image), view.planes(masks)
    assert seen.shape == (view.height, view.width, 3) and planes.shape == (3, view.height, view.width)
    assert seen.dtype == np.uint8 and planes.dtype == np.bool_
    assert np.array_equal(planes, masks[:, seen[..., 0], seen[..., 1]])


@settings(max_examples=60)
@given(SIZES, AUGMENTATIONS, SEEDS)
def test_a_crop_is_one_piece_of_the_image_perhaps_flipped(
    size: tuple[int, int], augmentation: Augmentation, seed: int
) -> None:
    view = drawn(size, augmentation, seed)
    assert view.top >= 0 and view.top + view.height <= size[0]
    assert view.left >= 0 and view.left + view.width <= size[1]
    for side, own in ((view.height, size[0]), (view.width, size[1])):
        assert max(1, round(augmentation.smallest_crop * own)) <= side
    seen = view.image(coordinates(size))
    rows, columns = seen[:, 0, 0].astype(int), seen[0, :, 1].astype(int)
    assert (np.diff(rows) == (-1 if view.upside_down else 1)).all()
    assert (np.diff(columns) == (-1 if view.mirrored else 1)).all()
    assert rows.min() == view.top and columns.min() == view.left
    for probability, flipped in (
        (augmentation.horizontal_flip, view.mirrored),
        (augmentation.vertical_flip, view.upside_down),
    ):
        assert probability == 0.5 or flipped == bool(probability)


def test_crops_reach_every_border_and_all_flips_come() -> None:
    views = [drawn((100, 60), DEFAULT, seed) for seed in range(400)]
    assert min(v.top for v in views) == min(v.left for v in views) == 0
    assert max(v.top + v.height for v in views) == 100 and max(v.left + v.width for v in views) == 60
    for name in ("mirrored", "upside_down"):
        assert 0.4 < np.mean([getattr(view, name) for view in views]) < 0.6
    heights = [view.height for view in views]
    assert min(heights) < 55 and max(heights) > 95 and 70 < np.mean(heights) < 80
    assert {np.sign(view.brightness) for view in views} == {-1, 1}
    assert max(abs(view.brightness) for view in views) <= 0.2
    factors = [view.contrast for view in views]
    assert 0.8 <= min(factors) < 0.85 and 1.15 < max(factors) <= 1.2


def test_the_seed_decides() -> None:
    assert drawn((50, 70), DEFAULT, 1) == drawn((50, 70), DEFAULT, 1) != drawn((50, 70), DEFAULT, 2)


def test_brightness_and_contrast_by_hand() -> None:
    """0.5 * (level - 127.5) + 127.5 + 0.2 * 255, cut off at 255; masks know nothing of it."""
    levels = np.array([[0, 100, 127, 128, 255]], dtype=np.uint8)
    image = np.repeat(levels[..., None], 3, axis=2)
    view = View(0, 0, 1, 5, brightness=0.2, contrast=0.5)
    expected = [[round(0.5 * (int(level) - 127.5) + 127.5 + 51) for level in levels[0]]]
    assert view.image(image)[..., 1].tolist() == expected
    assert View(0, 0, 1, 5, brightness=1.0).image(image)[0, :, 0].tolist() == [255] * 5
    assert View(0, 0, 1, 5, brightness=-1.0).image(image)[0, :, 0].tolist() == [0] * 5
    mask = np.ones((1, 1, 5), dtype=bool)
    assert np.array_equal(view.planes(mask), mask)


@pytest.mark.parametrize("number", range(5))
def test_fixed_views(number: int) -> None:
    size, image = (40, 50), coordinates((40, 50))
    view = fixed_view(size, DEFAULT, number, (3, 77))
    assert view == fixed_view(size, DEFAULT, number, (3, 77))
    if number == 0:
        assert np.array_equal(view.image(image), image)
    elif number == 1:
        assert np.array_equal(view.image(image), image[:, ::-1])
    else:
        others = [fixed_view(size, DEFAULT, n, seed) for n, seed in ((number + 1, (3, 77)), (number, (3, 78)))]
        assert view not in others


def test_a_view_leaves_the_image_as_it_was() -> None:
    image = coordinates((8, 9))
    before = image.copy()
    seen = View(0, 0, 8, 9, mirrored=True).image(image)
    seen[:] = 0
    assert np.array_equal(image, before)
