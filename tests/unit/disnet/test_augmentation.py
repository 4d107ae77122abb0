"""Views: image and masks move together. Training clicks: they lie where they should, as many of each as RITM draws."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from disbench.core.clicks import Click
from disbench.disnet.training.augmentation import (
    BORDER_SHARE,
    GAMMA,
    MOST,
    NEGATIVE_KINDS,
    NEGATIVE_SHARES,
    View,
    draw_view,
    fixed_view,
    random_clicks,
)
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


SIZE = (60, 80)


def planes(seed: int = 0) -> tuple[Any, Any, Any]:
    """A target, the valid cells, other objects: boxes that overlap, and a frame padded at the bottom and right."""
    noise = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        mask = np.zeros(SIZE, dtype=bool)
        top, left = noise.integers(0, 40), noise.integers(0, 60)
        mask[top : top + noise.integers(1, 20), left : left + noise.integers(1, 20)] = True
        found.append(mask)
    valid = np.zeros(SIZE, dtype=bool)
    valid[: noise.integers(41, 60), : noise.integers(61, 80)] = True
    return found[0], valid, found[1]


def clicked(seed: int, target: Any, valid: Any, others: Any, most: int = MOST) -> list[Click]:
    return random_clicks(target, valid, others, np.random.default_rng(seed), most)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_positive_clicks_lie_on_the_object_and_negative_ones_do_not(seed: int) -> None:
    target, valid, others = planes(seed)
    for click in clicked(seed, target, valid, others):
        assert valid[click.y, click.x]
        assert target[click.y, click.x] == click.positive
        assert all(type(value) is int for value in click[:2]), "not NumPy's"


def counts(most: int = MOST, draws: int = 1000) -> dict[bool, list[int]]:
    """By sign, how many clicks of it each draw has; every kind of negative click has its place."""
    target, valid = np.zeros((12, 12), dtype=bool), np.ones((12, 12), dtype=bool)
    target[4:8, 4:8] = True
    others = np.zeros((12, 12), dtype=bool)
    others[:2] = True
    clicks = [clicked(seed, target, valid, others, most) for seed in range(draws)]
    return {sign: [sum(c.positive == sign for c in own) for own in clicks] for sign in (True, False)}


def test_each_further_click_is_four_fifths_as_likely() -> None:
    assert counts(most=0, draws=20) == {True: [0] * 20, False: [0] * 20}
    shares = np.array([GAMMA**number for number in range(MOST + 1)])
    expected = 1000 * shares / shares.sum()
    for found in counts().values():
        assert max(found) <= MOST
        observed = np.bincount(found, minlength=MOST + 1)
        few = 12  # beyond, few are expected of each: they count together
        cells = [np.append(values[:few], values[few:].sum()) for values in (observed, expected)]
        assert chisquare(*cells).pvalue > 1e-4


def test_the_kinds_of_negative_clicks() -> None:
    """Far from the object, in another object, in a band around it: a tenth, four, five tenths."""
    target, valid = np.zeros(SIZE, dtype=bool), np.ones(SIZE, dtype=bool)
    target[20:40, 20:40] = True
    others = np.zeros(SIZE, dtype=bool)
    others[:2, :2] = True
    band = round(BORDER_SHARE * 20)
    near = np.zeros(SIZE, dtype=bool)
    near[20 - band : 40 + band, 20 - band : 40 + band] = True
    found: Counter[str] = Counter()
    for seed in range(400):
        for click in clicked(seed, target, valid, others):
            if not click.positive:
                place = (click.y, click.x)
                kind = "border" if near[place] else "other" if others[place] else "background"
                found[kind] += 1
    total = sum(found.values())
    everywhere = NEGATIVE_SHARES[0]
    by_chance = {"border": everywhere * (near & ~target).sum() / (~target).sum(), "other": 0.0}
    for kind, share in zip(NEGATIVE_KINDS, NEGATIVE_SHARES, strict=True):
        expected = everywhere - by_chance["border"] if kind == "background" else share + by_chance[kind]
        assert found[kind] / total == pytest.approx(expected, abs=0.03)


def test_a_kind_without_a_place_is_left_out() -> None:
    whole, nothing = np.ones(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    for seed in range(30):
        assert all(click.positive for click in clicked(seed, whole, whole, nothing))
        assert not any(click.positive for click in clicked(seed, nothing, whole, nothing))
        assert clicked(seed, whole, nothing, whole) == []
