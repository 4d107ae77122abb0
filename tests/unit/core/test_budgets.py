"""The points of fixed budgets, against a search over all pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from disbench.core.click_policies import BUDGETS, budget_points
from disbench.core.clicks import Click, next_click

targets = hnp.arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 1)).filter(
    lambda target: bool((target == 1).any())
)


def pixels(target: np.ndarray) -> list[tuple[int, int]]:
    """(x, y) of the object's pixels."""
    return [(int(x), int(y)) for y, x in zip(*np.nonzero(target == 1), strict=True)]


@given(targets)
def test_extreme_points_are_extreme_and_in_the_middle_of_their_side(target: np.ndarray) -> None:
    found, own = budget_points("extreme-points", target), pixels(target)
    assert len(found) == BUDGETS["extreme-points"].count
    for click, axis, pick in zip(found, (0, 1, 0, 1), (min, min, max, max), strict=True):
        side = sorted(pixel for pixel in own if pixel[axis] == pick(other[axis] for other in own))
        before = side.index((click.x, click.y))
        assert click.positive and 0 <= len(side) - 1 - 2 * before <= 1


@given(targets)
def test_an_inside_point_and_the_corners_of_the_box(target: np.ndarray) -> None:
    inside, first, second = budget_points("inside-and-corners", target)
    assert inside == next_click(target, np.zeros(target.shape, dtype=bool))
    assert target[inside.y, inside.x] == 1
    xs, ys = zip(*pixels(target), strict=True)
    assert (first, second) == (Click(min(xs), min(ys), False), Click(max(xs), max(ys), False))
