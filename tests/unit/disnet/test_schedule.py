"""The learning rate: a line up, then half a cosine down."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.disnet.training.schedule import learning_rate


def test_by_hand() -> None:
    """Four steps up from 1 to 5, then eight down; the cosine's quarter, half and three quarters."""
    rates = [learning_rate(step, 12, 4, 5.0, 1.0) for step in range(12)]
    assert rates[:5] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert rates[6] == pytest.approx(2.5 * (1 + math.sqrt(0.5)))
    assert rates[8] == pytest.approx(2.5)
    assert rates[10] == pytest.approx(2.5 * (1 - math.sqrt(0.5)))


@given(st.integers(1, 500), st.data())
def test_it_rises_and_then_falls_and_never_ends_at_nothing(steps: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, steps))
    rates = [learning_rate(step, steps, warmup, 5e-5, 5e-8) for step in range(steps)]
    up, down = rates[: warmup + 1], rates[warmup:]
    assert up == sorted(up) and down == sorted(down, reverse=True)
    assert all(0 < rate <= 5e-5 for rate in rates)
    assert rates[0] == (5e-8 if warmup else 5e-5)
    if warmup < steps:
        assert rates[warmup] == 5e-5


def test_steps_beyond_the_end_and_a_warm_up_of_the_whole_are_numbers() -> None:
    assert learning_rate(3, 3, 3, 1.0, 0.1) == 1.0
    assert learning_rate(10, 10, 0, 1.0, 0.1) == pytest.approx(0, abs=1e-12)
