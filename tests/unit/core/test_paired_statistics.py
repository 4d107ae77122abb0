"""Intervals and paired tests: known answers, and how often a test errs where nothing differs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core import statistics
from disbench.core.statistics import bootstrap_interval, paired_difference, sign_flip_p


def test_nothing_differs() -> None:
    assert sign_flip_p(np.zeros(9)) == 1
    same = np.linspace(0, 1, 7)
    found = paired_difference(same, same, lower_is_better=False)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert (found.a_better, found.ties, found.b_better) == (0, 7, 0)


def test_p_is_never_0() -> None:
    assert sign_flip_p(np.full(60, 3.0), resamples=999) == 1 / 1000
    assert sign_flip_p(np.linspace(2, 3, 60), resamples=99) == 1 / 100


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30))
@settings(max_examples=50)
def test_exchange_of_a_and_b(values: list[float]) -> None:
    a, b = np.array(values), np.zeros(len(values))
    one, other = (paired_difference(*pair, lower_is_better=True) for pair in ((a, b), (b, a)))
    assert one.mean == -other.mean
    assert one.p == other.p
    assert (one.a_better, one.ties, one.b_better) == (other.b_better, other.ties, other.a_better)
    assert one.low <= one.mean + 1e-9 and one.mean - 1e-9 <= one.high


def test_which_is_better() -> None:
    clicks = paired_difference([1, 5, 20, 3], [2, 5, 4, 4], lower_is_better=True)
    assert (clicks.a_better, clicks.ties, clicks.b_better) == (2, 1, 1)
    assert (clicks.mean_a, clicks.mean_b, clicks.mean) == (7.25, 3.75, 3.5)
    ious = paired_difference([0.5, 0.6], [0.4, 0.6], lower_is_better=False)
    assert (ious.a_better, ious.ties, ious.b_better) == (1, 1, 0)


@pytest.mark.parametrize("whole", [True, False])
def test_errors_of_the_first_kind_are_about_five_percent(whole: bool) -> None:
    """Differences of mean 0, skewed in pairs as clicks are; 400 experiments, so 5 % is 3 to 7.5 of 100."""
    noise = np.random.default_rng(5)
    wrong = 0
    for experiment in range(400):
        a, b = noise.exponential(4, (2, 50))
        differences = np.minimum(20, np.rint(a)) - np.minimum(20, np.rint(b)) if whole else a - b
        wrong += sign_flip_p(differences, resamples=400, seed=experiment) <= 0.05
    assert 0.025 <= wrong / 400 <= 0.08


def test_a_true_difference_is_found() -> None:
    noise = np.random.default_rng(6)
    found = [
        paired_difference(noise.normal(0.8, 1, 50), np.zeros(50), lower_is_better=False, seed=number)
        for number in range(40)
    ]
    assert np.mean([one.p <= 0.05 for one in found]) > 0.95
    assert np.mean([one.low <= 0.8 <= one.high for one in found]) > 0.85


def test_bootstrap_is_repeatable_and_covers() -> None:
    noise = np.random.default_rng(0)
    values = noise.normal(5, 1, 300)
    low, high = bootstrap_interval(values, seed=3)
    assert (low, high) == bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    half = 1.96 * values.std() / math.sqrt(300)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval([2.0]) == (2.0, 2.0)


@given(st.lists(st.integers(-3, 20), min_size=1, max_size=5), st.sampled_from([0.5, 0.9, 0.95]))
def test_bootstrap_of_whole_numbers_counts_every_resample(values: list[int], level: float) -> None:
    means = sorted(sum(drawn) / len(values) for drawn in itertools.product(values, repeat=len(values)))
    ends = [means[max(0, math.ceil(share * len(means) - 1e-6) - 1)] for share in ((1 - level) / 2, (1 + level) / 2)]
    assert bootstrap_interval(values, level=level) == pytest.approx(ends)


def test_bootstrap_of_many_whole_numbers_is_what_drawing_comes_to() -> None:
    clicks = np.random.default_rng(2).integers(1, 21, 6671)
    drawn = bootstrap_interval(clicks, lambda drawn: drawn.mean(axis=-1), resamples=4000)
    assert bootstrap_interval(clicks) == pytest.approx(drawn, abs=0.01)


def test_bootstrap_of_another_statistic_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).exponential(size=41)
    median = bootstrap_interval(values, lambda drawn: np.median(drawn, axis=-1), resamples=500)
    assert median[0] < np.median(values) < median[1]
    whole = bootstrap_interval(values, resamples=500)
    monkeypatch.setattr(statistics, "_CHUNK", 100)
    assert bootstrap_interval(values, resamples=500) == whole


@pytest.mark.parametrize(
    ("call", "part"),
    [
        *((lambda values=values: bootstrap_interval(values), "one number per sample") for values in ([], [[1.0]])),
        (lambda: bootstrap_interval([1.0, math.nan]), "value 1 is not finite"),
        (lambda: paired_difference([1.0], [1.0, 2.0], lower_is_better=True), "same samples"),
        (lambda: paired_difference([], [], lower_is_better=True), "values of shape"),
    ],
)
def test_refusals(call: Callable[[], object], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        call()
