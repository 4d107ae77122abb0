"""The measures against plain loops."""

from __future__ import annotations

import math
from typing import Any

import click_restatement as literal
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.metrics import TargetBoundary, boundary, clicks_to_reach, iou, miou_curve, noc, nof

Array = npt.NDArray[Any]

IOUS = st.one_of(
    st.floats(0, 1),
    st.sampled_from((0.9, 0.8999999999, float(np.float32(0.9)), 0.85, float(np.float32(0.85)), 1.0, math.nan)),
)
TABLES = st.integers(1, 8).flatmap(
    lambda cap: st.tuples(
        st.just(cap),
        st.lists(st.lists(IOUS, min_size=cap, max_size=cap + 3), min_size=1, max_size=6),
        st.sampled_from((0.5, 0.8, 0.85, 0.9, 0.95, 1.0)),
    )
)


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@given(TABLES)
def test_counts_of_clicks(table: tuple[int, list[list[float]], float]) -> None:
    cap, ious, threshold = table
    assert noc(ious, threshold, cap) == pytest.approx(literal.noc(ious, threshold, cap), abs=1e-12)
    assert clicks_to_reach(ious, threshold, cap).tolist() == [literal.noc_of(row, threshold, cap) for row in ious]
    for rule in ("strict", "ritm"):
        assert nof(ious, threshold, cap, rule=rule) == literal.nof(ious, threshold, cap, rule)  # type: ignore[arg-type]


@given(TABLES)
def test_curve(table: tuple[int, list[list[float]], float]) -> None:
    cap, ious, _ = table
    np.testing.assert_allclose(miou_curve(ious, cap), literal.miou_curve(ious, cap), rtol=0, atol=1e-12)


def drawn(noise: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    target = (noise.random((height, width)) < noise.choice([0, 0.5, 0.9, 1])).astype(np.int8)
    top, left = noise.integers(height), noise.integers(width)
    target[top:, left:] = noise.integers(-1, 2)
    prediction = (target == 1) ^ (noise.random((height, width)) < noise.choice([0, 0.02, 0.5]))
    return target, prediction


@pytest.mark.parametrize("seed", range(4))
def test_overlaps(seed: int) -> None:
    noise = np.random.default_rng(seed)
    for _ in range(100):
        target, prediction = drawn(noise, *(int(side) for side in noise.integers(1, 25, 2)))
        assert same(iou(target, prediction), literal.iou(target, prediction))
        assert same(iou(np.asfortranarray(target), prediction.tolist()), literal.iou(target, prediction))


@pytest.mark.parametrize("seed", range(4))
def test_boundaries(seed: int) -> None:
    noise = np.random.default_rng(seed)
    for _ in range(40):
        target, prediction = drawn(noise, *(int(side) for side in noise.integers(1, 32, 2)))
        ratio = float(noise.choice([0.001, 0.02, 0.05, 0.1, 0.5]))
        distance = int(noise.integers(1, 6))
        assert np.array_equal(boundary(prediction, distance), literal.boundary(prediction, distance))
        expected = literal.boundary_iou(target, prediction, ratio)
        assert same(TargetBoundary(target, ratio).iou(prediction), expected)
