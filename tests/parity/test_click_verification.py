"""Which clicks verifying lets pass, against a literal restatement of the rule for every pixel and sign."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core.click_policies import ClickPolicy
from disbench.core.clicks import Click, next_click
from disbench.harness.checks import judge_click
from tests.parity.click_restatement import Array, exact_distances


def passes(target: Array, prediction: Array, before: Sequence[Click], click: Click) -> bool:
    """The distance at the click is within 1e-3 of the largest of both kinds; without errors it is (0, 0, -)."""
    maps = {}
    for positive, errors in ((True, (target == 1) & ~prediction), (False, (target == 0) & prediction)):
        distances = exact_distances(np.pad(errors, 1))[1:-1, 1:-1].copy()
        for x, y, _ in before:
            distances[y, x] = 0
        maps[positive] = distances
    largest = max(maps[True].max(), maps[False].max())
    if largest == 0:
        return click == (0, 0, False)
    return bool(maps[click.positive][click.y, click.x] >= largest - 1e-3)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.booleans())
@settings(max_examples=40)
def test_every_click_is_judged_by_the_rule(seed: int, earlier: int, blocks: bool) -> None:
    noise = np.random.default_rng(seed)
    height, width = noise.integers(3, 12, 2).tolist()
    size = (3 if blocks else 1) * np.array([1, 1])
    coarse = (-(-height // size[0]), -(-width // size[1]))
    target, prediction = (
        np.kron(noise.choice(values, coarse, p=shares), np.ones(size, dtype=int))[:height, :width]
        for values, shares in (((-1, 0, 1), (0.1, 0.4, 0.5)), ((0, 1), (0.6, 0.4)))
    )
    target, prediction = target.astype(np.int8), prediction.astype(bool)
    before: list[Click] = []
    for _ in range(earlier):
        before.append(next_click(target, prediction, before))
    policy = ClickPolicy()
    simulated = next_click(target, prediction, before)
    for y, x, positive in np.ndindex(height, width, 2):
        click = Click(x, y, bool(positive))
        judgement = judge_click(policy, target, prediction, before, click)
        assert (judgement == "same") == (click == simulated)
        assert (judgement != "wrong") == passes(target, prediction, before, click)


def test_nothing_left_to_correct() -> None:
    target = np.eye(3, dtype=np.int8)
    for click, judgement in ((Click(0, 0, False), "same"), (Click(0, 0, True), "wrong")):
        assert judge_click(ClickPolicy(), target, target == 1, [], click) == judgement
