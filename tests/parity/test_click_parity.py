"""Every simulated click against the literal restatement: the same pixel, the same sign."""

from __future__ import annotations

from typing import Any

import click_restatement as literal
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core import depths
from disbench.core.clicks import NO_ERROR, Click, next_click

Array = npt.NDArray[Any]


def agree(target: Array, prediction: Array, clicks: list[Click] | None = None) -> Click:
    click = next_click(target, prediction, clicks or ())
    assert tuple(click) == literal.next_click(target, prediction, clicks or ())
    return click


def smooth(noise: np.random.Generator, height: int, width: int, scale: float) -> Array:
    return np.asarray(cv2.GaussianBlur(noise.standard_normal((height, width)).astype(np.float32), (0, 0), scale))


def blob(noise: np.random.Generator, height: int, width: int) -> Array:
    field = smooth(noise, height, width, float(noise.uniform(0.5, 9)))
    return field > noise.normal() * field.std()


def disc(noise: np.random.Generator, height: int, width: int) -> Array:
    y, x = np.mgrid[:height, :width]
    radius = noise.integers(1, max(height, width))
    return (y - noise.integers(height)) ** 2 + (x - noise.integers(width)) ** 2 <= radius**2 // 4


def rectangles(noise: np.random.Generator, height: int, width: int) -> Array:
    """One to nine rectangles of one size, so that maxima tie."""
    mask = np.zeros((height, width), dtype=bool)
    tall, wide = noise.integers(1, height + 1), noise.integers(1, width + 1)
    for _ in range(noise.integers(1, 10)):
        top, left = noise.integers(height), noise.integers(width)
        mask[top : top + tall // 2 + 1, left : left + wide // 2 + 1] = True
    return mask


def speckle(noise: np.random.Generator, height: int, width: int) -> Array:
    return noise.random((height, width)) < noise.choice([0.01, 0.5, 0.95, 0.999])


def nothing(noise: np.random.Generator, height: int, width: int) -> Array:
    return np.zeros((height, width), dtype=bool)


def everything(noise: np.random.Generator, height: int, width: int) -> Array:
    return np.ones((height, width), dtype=bool)


SHAPES = (blob, disc, rectangles, speckle, nothing, everything)


def drawn_target(noise: np.random.Generator, height: int, width: int) -> Array:
    target = SHAPES[noise.integers(len(SHAPES))](noise, height, width).astype(np.int8)
    if noise.random() < 0.4:
        target[SHAPES[noise.integers(4)](noise, height, width)] = -1
    return target


def drawn_clicks(noise: np.random.Generator, height: int, width: int) -> list[Click]:
    count = int(noise.choice([0, 1, 5, 40]))
    return [Click(int(noise.integers(width)), int(noise.integers(height)), True) for _ in range(count)]


@pytest.mark.parametrize("seed", range(6))
def test_thousands_of_drawn_masks(seed: int) -> None:
    noise = np.random.default_rng(seed)
    for _ in range(500):
        height, width = (int(side) for side in noise.integers(1, 130, 2))
        target = drawn_target(noise, height, width)
        prediction = SHAPES[noise.integers(len(SHAPES))](noise, height, width)
        agree(target, prediction, drawn_clicks(noise, height, width))


@pytest.mark.parametrize(
    ("radius", "sample", "precision", "lookups", "block"), [(128, 1, 1, 10**9, 8), (3, 1, 100, 2, 8), (6, 99, 4, 0, 64)]
)
def test_whatever_is_thought_to_be_cheaper(
    monkeypatch: pytest.MonkeyPatch, radius: int, sample: int, precision: int, lookups: int, block: int
) -> None:
    """The figures that choose between looking at neighbours and transforming change no click."""
    figures = {"RADIUS": radius, "SAMPLE": sample, "PRECISION": precision, "LOOKUPS": lookups, "BLOCK": block}
    for name, value in figures.items():
        monkeypatch.setattr(depths, f"_{name}", value)
    depths._neighbours.cache_clear()
    try:
        for seed in range(2):
            test_thousands_of_drawn_masks(seed)
    finally:
        depths._neighbours.cache_clear()


@settings(max_examples=300)
@given(data=st.data(), height=st.integers(1, 12), width=st.integers(1, 12))
def test_any_small_image(data: st.DataObject, height: int, width: int) -> None:
    pixels = height * width
    target = np.array(data.draw(st.lists(st.sampled_from((1, 1, 0, -1)), min_size=pixels, max_size=pixels)))
    prediction = np.array(data.draw(st.lists(st.booleans(), min_size=pixels, max_size=pixels)))
    places = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    clicks = [Click(x, y, True) for x, y in data.draw(st.lists(places, max_size=pixels))]
    agree(target.reshape(height, width), prediction.reshape(height, width), clicks)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 17), (23, 1), (2, 2), (2, 40), (150, 1)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(1)
    for _ in range(150):
        agree(noise.integers(-1, 2, shape), noise.random(shape) < 0.5, drawn_clicks(noise, *shape))


@pytest.mark.parametrize("period", [1, 2, 3, 7, 20, 41, 130])
@pytest.mark.parametrize("shape", [(97, 120), (240, 333)])
def test_boards_and_stripes_where_all_is_wrong(period: int, shape: tuple[int, int]) -> None:
    y, x = np.indices(shape) // period
    for pattern in ((y + x) % 2 == 1, y % 2 == 1, x % 2 == 1):
        for wrong in (~pattern, np.zeros_like(pattern), np.ones_like(pattern)):
            click = agree(pattern.astype(np.int8), wrong)
            agree(pattern.astype(np.int8), wrong, [click])


@pytest.mark.parametrize("radius", [1, 2, 5, 12, 31, 47, 63, 64, 65, 90])
def test_equal_discs_of_both_signs(radius: int) -> None:
    """Four equal discs, two missed and two in excess: the tie gives a negative click on the upper one."""
    side = 2 * radius + 3
    y, x = np.indices((side, side)) - side // 2
    one = y * y + x * x <= radius * radius
    empty = np.zeros_like(one)
    target = np.block([[one, empty], [empty, one]]).astype(np.int8)
    prediction = np.block([[empty, one], [one, empty]])
    click = agree(target, prediction)
    assert not click.positive and click.y < side <= click.x
    clicks = [click]
    for _ in range(6):
        clicks.append(agree(target, prediction, clicks))
    assert not all(click.positive for click in clicks)


@pytest.mark.parametrize("size", [(30, 40), (375, 500)])
def test_objects_at_borders(size: tuple[int, int]) -> None:
    height, width = size
    for rows in ((0, height // 3), (height // 2, height), (0, height)):
        for columns in ((0, width // 3), (width // 2, width), (0, width)):
            target = np.zeros(size, dtype=np.int8)
            target[slice(*rows), slice(*columns)] = 1
            agree(target, np.zeros(size, dtype=bool))
            agree(1 - target, target == 0)
            agree(target, target == 0)


def test_until_every_error_was_clicked() -> None:
    target = np.zeros((6, 9), dtype=np.int8)
    target[1:5, 2:5], target[2:4, 6:8], target[0] = 1, -1, -1
    prediction = np.zeros((6, 9), dtype=bool)
    prediction[4:6, 4:9] = True
    clicks: list[Click] = []
    while (click := agree(target, prediction, clicks)) != NO_ERROR:
        assert click not in clicks
        clicks.append(click)
    wrong = ((target == 1) & ~prediction) | ((target == 0) & prediction)
    assert len(clicks) == wrong.sum()
    assert agree(target, prediction, [*clicks, NO_ERROR]) == NO_ERROR


def test_twenty_clicks_on_evolving_predictions() -> None:
    noise = np.random.default_rng(5)
    for _ in range(25):
        height, width = (int(side) for side in noise.integers(40, 200, 2))
        target = drawn_target(noise, height, width)
        prediction, clicks = np.zeros((height, width), dtype=bool), []
        for number in range(20):
            clicks.append(agree(target, prediction, clicks))
            ragged = smooth(noise, height, width, 1 + 20 / (number + 1))
            prediction = (target == 1) ^ (np.abs(ragged) > 2 * ragged.std())


def test_without_opencv_the_same() -> None:
    """The distances are exact, so an exact transform of another library gives the same clicks."""
    noise = np.random.default_rng(6)
    for _ in range(300):
        height, width = (int(side) for side in noise.integers(1, 90, 2))
        target, prediction = drawn_target(noise, height, width), blob(noise, height, width)
        clicks = drawn_clicks(noise, height, width)
        assert tuple(next_click(target, prediction, clicks)) == literal.next_click_without_opencv(
            target, prediction, clicks
        )


@pytest.mark.parametrize("shape", [(300, 1100), (1100, 300), (130, 5000)])
def test_distances_are_exact(shape: tuple[int, int]) -> None:
    field = smooth(np.random.default_rng(7), *shape, scale=30)
    mask = np.pad(field > -1.5 * field.std(), 1)
    assert np.array_equal(depths.transform(mask.astype(np.uint8)), literal.exact_distances(mask))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_intel_change_nothing(threads: int) -> None:
    noise = np.random.default_rng(8)
    before, intel = cv2.getNumThreads(), cv2.ipp.useIPP()
    cv2.setNumThreads(threads)
    try:
        for _ in range(100):
            target, prediction = drawn_target(noise, 140, 150), blob(noise, 140, 150)
            agree(target, prediction)
            if threads > 1:  # with one thread, or on smaller images, OpenCV may hand over to Intel's library
                assert tuple(next_click(target, prediction)) == literal.next_click(target, prediction, as_set_up=True)
        assert cv2.ipp.useIPP() == intel
    finally:
        cv2.setNumThreads(before)


def test_inputs_of_any_layout() -> None:
    noise = np.random.default_rng(9)
    for _ in range(40):
        target, prediction = drawn_target(noise, 60, 70), blob(noise, 60, 70)
        click = agree(target, prediction)
        for kind in (np.int16, np.int64):
            assert next_click(np.asfortranarray(target.astype(kind)), prediction.astype(np.uint8)) == click
        wide = np.repeat(np.repeat(target, 2, axis=0), 3, axis=1)[::2, ::3]
        assert next_click(wide, np.asfortranarray(prediction)) == click
        assert next_click(target.tolist(), prediction.tolist()) == click
