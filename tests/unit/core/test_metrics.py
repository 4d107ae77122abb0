"""The measures: exact values at the rules' edges, and what they refuse."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest

from disbench.core import metrics
from disbench.core.metrics import (
    TargetBoundary,
    area_under_curve,
    clicks_to_reach,
    difference_of_groups,
    difference_to_base,
    iou,
    miou_curve,
    noc,
    nof,
    spread,
)


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(metrics).failed == 0
    assert doctest.testmod(metrics).attempted >= 4


def test_ious() -> None:
    """Ignored pixels count nowhere; nothing over nothing is NaN; the value is a float32's."""
    target = np.array([[1, 1, 0, 0, -1, -1]])
    prediction = np.array([[1, 0, 1, 0, 1, 0]])
    third = iou(target, prediction)
    assert isinstance(third, float) and third == float(np.float32(1 / 3)) != 1 / 3
    assert iou(target, prediction == 0) == third == iou([[1, 1, 1]], [[True, False, False]])
    assert math.isnan(iou([[0, -1]], [[False, True]]))
    assert iou([[0, -1]], [[True, True]]) == 0


@pytest.mark.parametrize("value", [0.9, 0.8999999999, float(np.float32(0.9))])
def test_a_threshold_is_reached_in_float32(value: float) -> None:
    rows = [[0.1, value] + [0.2] * 18]
    assert noc(rows, 0.9) == 2 and nof(rows, 0.9) == 0
    assert noc([[np.float32(0.9)]], 0.9, max_clicks=1) == 1


def test_which_click_reaches() -> None:
    """NaN reaches nothing; success at the last click fails by one rule; only the first clicks count."""
    assert noc([[math.nan, 1.0]], 0.5, max_clicks=2) == 2
    assert nof([[math.nan, math.nan]], 0.5, max_clicks=2) == 1
    rows = [[0.1] * 19 + [0.95], [0.1] * 20, [0.95] * 20]
    assert noc(rows, 0.9) == pytest.approx((20 + 20 + 1) / 3)
    assert (nof(rows, 0.9), nof(rows, 0.9, rule="ritm")) == (1, 2)
    rows = [[0.1, 0.2, 0.95]]
    assert (noc(rows, 0.9, max_clicks=2), nof(rows, 0.9, max_clicks=2)) == (2, 1)
    assert miou_curve(rows, max_clicks=2).tolist() == pytest.approx([0.1, 0.2])


def test_a_curve_is_not_smoothed() -> None:
    curve = miou_curve([[0.9, 0.7, 0.8], [0.5, 0.5, 0.25]], max_clicks=3)
    assert curve.dtype == np.float64 and curve.tolist() == pytest.approx([0.7, 0.6, 0.525])


def test_a_run_that_stopped_early_tells_no_more_than_it_knows() -> None:
    rows = [[0.5, 0.91], [0.92]]
    assert clicks_to_reach(rows, 0.9).tolist() == [2, 1] and nof(rows, 0.9) == 0
    for ask in (noc, nof, clicks_to_reach):
        with pytest.raises(ValueError, match="sample 0 ends after 2 of 20 clicks, below 0"):
            ask(rows, 0.95)
    with pytest.raises(ValueError, match="sample 0 has 2 clicks, shorter than 20"):
        miou_curve(rows)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: miou_curve([]), "no samples"),
        *((lambda value=value: noc([[0.5]], value), "threshold = ") for value in (0.0, 90, math.nan)),
        (lambda: noc([[0.5]], 0.9, max_clicks=0), "max_clicks = 0"),
        (lambda: miou_curve([[0.5, 0.5], [0.5, -0.1]], max_clicks=2), "sample 1 has IoU -0.1 after click 2"),
        (lambda: nof([[0.5]], 0.9, max_clicks=1, rule="rtim"), "did you mean 'ritm'"),
        (lambda: iou([[1, 0]], [[True]]), "must agree"),
        (lambda: iou([[1, 2]], [[True, False]]), "1, 0 and -1 only"),
        *((lambda value=value: iou([[1, 0]], [[value, 1.0]]), "threshold it first") for value in (0.2, math.nan)),
    ],
)
def test_refusals(call: Any, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        call()


def test_boundary_iou_of_a_shifted_square() -> None:
    """In 100 x 100 pixels the boundary is 3 pixels wide: round(0.02 * 141.4)."""
    target = np.zeros((100, 100), dtype=np.int8)
    target[20:60, 20:60] = 1
    assert TargetBoundary(target).iou(target == 1) == 1
    assert TargetBoundary(target).iou(target == 0) == 0
    inner = target == 1
    inner[23:57, 23:57] = False
    assert TargetBoundary(target).iou(inner) == 1  # the same contour band; a hole would show in IoU only
    assert math.isnan(TargetBoundary(np.zeros((5, 5), dtype=int)).iou(np.zeros((5, 5), dtype=bool)))
    with pytest.raises(ValueError, match="shape"):
        TargetBoundary(target).iou(np.zeros((5, 5), dtype=bool))


def test_the_border_of_the_image_is_a_boundary() -> None:
    full = np.ones((50, 50), dtype=bool)
    band = metrics.boundary(full, 2)
    assert not band[2:-2, 2:-2].any() and band.sum() == 50 * 50 - 46 * 46


@pytest.mark.parametrize("max_clicks", [3, 4, 6])
def test_an_array_is_measured_as_its_rows_are(max_clicks: int) -> None:
    values = np.random.default_rng(0).random((7, 4))
    values[:, 1] = 0.99  # so that rows shorter than max_clicks have reached it
    values[2, 3] = math.nan
    for given_ious in (values, values.astype(np.float32)):
        rows = list(given_ious)
        found = clicks_to_reach(given_ious, 0.95, max_clicks)
        assert found.tolist() == clicks_to_reach(rows, 0.95, max_clicks).tolist()
        if max_clicks <= 4:
            np.testing.assert_array_equal(miou_curve(given_ious, max_clicks), miou_curve(rows, max_clicks))
        else:
            with pytest.raises(ValueError, match="shorter than 6"):
                miou_curve(given_ious, max_clicks)


def test_area_under_the_curve_and_spread_over_groups() -> None:
    cases = [[0.8] * 20, [0.5] * 10 + [1.0] * 10, [0.05 * click for click in range(1, 21)]]
    assert area_under_curve(cases) == pytest.approx([0.8, 0.75, 0.525], abs=1e-6)
    assert area_under_curve([[0.5, 0.7]], max_clicks=1) == pytest.approx([0.5])
    with pytest.raises(ValueError, match="ended early"):
        area_under_curve([[0.5, 0.7]])
    groups = spread(np.arange(1, 11)[:, None])
    assert (float(groups.mean[0]), float(groups.deviation[0])) == (5.5, pytest.approx(2.8723, abs=1e-4))
    firsts = spread(np.array([[0.9, 0.9, 0.6, 0.6], [0, 0, 0, 0]]).T)  # the IoUs after four people's first clicks
    assert [part[0] for part in firsts] == [pytest.approx(value) for value in (0.75, 0.15, 0.20)]
    assert np.isnan(firsts.nsr[1])
    assert difference_to_base([[3, 4]] * 10, [2, 4], relative=True).mean() == 0.25
    assert difference_of_groups([[4, 4], [9, 9], [2, 4]], relative=True).mean() == 0.5
    assert difference_of_groups([[0.5], [0.75]], relative=False)[0] == -0.25
