"""The paired test against its definition: every choice of signs, none drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core.statistics import sign_flip_p


def all_signs_p(differences: np.ndarray) -> float:
    """The permutation test, literally: every choice of signs."""
    means = [np.mean(differences * signs) for signs in itertools.product((-1, 1), repeat=len(differences))]
    return float(np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12))


@given(st.lists(st.integers(-19, 19), min_size=1, max_size=6))
@settings(max_examples=15)
def test_against_every_sign(values: list[int]) -> None:
    differences = np.array(values, dtype=float)
    assert sign_flip_p(differences, resamples=4000) == pytest.approx(all_signs_p(differences), abs=0.045)
