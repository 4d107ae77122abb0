"""Training clicks: they lie where they should, and there are as many of each as RITM draws."""

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
    random_clicks,
)

pytest.importorskip("cv2", exc_type=ImportError)
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


def drawn(seed: int, target: Any, valid: Any, others: Any, most: int = MOST) -> list[Click]:
    return random_clicks(target, valid, others, np.random.default_rng(seed), most)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_positive_clicks_lie_on_the_object_and_negative_ones_do_not(seed: int) -> None:
    target, valid, others = planes(seed)
    for click in drawn(seed, target, valid, others):
        assert valid[click.y, click.x]
        assert target[click.y, click.x] == click.positive
        assert all(type(value) is int for value in click[:2]), "not NumPy's"


def test_the_same_seed_gives_the_same_clicks() -> None:
    given_ = planes()
    assert drawn(5, *given_) == drawn(5, *given_)
    assert len({tuple(drawn(seed, *given_)) for seed in range(5)}) > 1


def counts(most: int = MOST, draws: int = 1000) -> dict[bool, list[int]]:
    """By sign, how many clicks of it each draw has; every kind of negative click has its place."""
    target, valid = np.zeros((12, 12), dtype=bool), np.ones((12, 12), dtype=bool)
    target[4:8, 4:8] = True
    others = np.zeros((12, 12), dtype=bool)
    others[:2] = True
    clicks = [drawn(seed, target, valid, others, most) for seed in range(draws)]
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
        for click in drawn(seed, target, valid, others):
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
        assert all(click.positive for click in drawn(seed, whole, whole, nothing))
        assert not any(click.positive for click in drawn(seed, nothing, whole, nothing))
        assert drawn(seed, whole, nothing, whole) == []


def test_positive_clicks_are_uniform_over_the_object() -> None:
    target, valid = np.zeros(SIZE, dtype=bool), np.ones(SIZE, dtype=bool)
    target[3, 4:8] = target[50, 70] = True
    found = Counter(
        (c.x, c.y) for seed in range(300) for c in drawn(seed, target, valid, np.zeros(SIZE, dtype=bool)) if c.positive
    )
    assert len(found) == 5 and chisquare(list(found.values())).pvalue > 1e-4
