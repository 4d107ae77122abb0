"""The clicks of peers against literal restatements of their rules, on full frames."""

from __future__ import annotations

import numpy as np
import pytest

from disbench.core.click_policies import ClickPolicy
from disbench.core.clicks import NO_ERROR, Click
from disbench.harness.checks import judge_click
from tests.parity import click_restatement as restatement
from tests.parity.click_restatement import Array


def drawn(seed: int) -> tuple[Array, Array, list[Click]]:
    """A target of two boxes and a disc with ignored pixels, a prediction of boxes, and earlier clicks."""
    noise = np.random.default_rng(seed)
    height, width = noise.integers(6, 48, 2)
    rows, columns = np.mgrid[:height, :width]
    target, prediction = np.zeros((height, width), np.int8), np.zeros((height, width), bool)
    for array in (target, target, prediction, prediction):
        top, left = noise.integers(0, height - 3), noise.integers(0, width - 3)
        array[top : top + noise.integers(1, height), left : left + noise.integers(1, width)] = 1
    radius = noise.integers(2, 9)
    y, x = noise.integers(0, height), noise.integers(0, width)
    target[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = noise.integers(-1, 2)
    count = int(noise.integers(0, 5))
    clicks = [
        Click(int(x), int(y), bool(target[y, x] == 1))
        for x, y in zip(noise.integers(0, width, count), noise.integers(0, height, count), strict=True)
    ]
    return target, prediction, clicks


@pytest.mark.parametrize("begin", range(0, 400, 100))
def test_on_drawn_masks(begin: int) -> None:
    ties = 0
    for seed in range(begin, begin + 100):
        target, prediction, clicks = drawn(seed)
        given = {
            name: ClickPolicy(name).simulate(target, prediction, clicks, seed=seed, sample="s")
            for name in ("scipy-center", "scipy-restart", "removed-center")
        }
        assert given["scipy-center"] == restatement.scipy_click(target, prediction, clicks)
        assert given["scipy-restart"] == restatement.restarting_click(target, prediction, clicks)
        possible = restatement.tied_clicks(target, prediction, clicks)
        assert given["removed-center"] in possible
        ties += len(possible) > 1
        for name, click in given.items():
            policy = ClickPolicy(name)
            assert judge_click(policy, target, prediction, clicks, click, seed=seed, sample="s") == "same"
    assert ties > 20


def test_twenty_clicks_until_all_is_clicked() -> None:
    """A handful of wrong pixels: each policy clicks them one by one, and then as its paper's code does."""
    target = np.zeros((5, 7), np.int8)
    target[1:4, 2:4] = 1
    prediction = np.zeros((5, 7), bool)
    for name, rule in (("scipy-center", restatement.scipy_click), ("scipy-restart", restatement.restarting_click)):
        clicks: list[Click] = []
        for _ in range(10):
            clicks.append(ClickPolicy(name).simulate(target, prediction, clicks))
            assert clicks[-1] == rule(target, prediction, clicks[:-1])
        assert clicks[6:] == [NO_ERROR if name == "scipy-center" else clicks[0]] * 4


def test_perfect_and_restarted() -> None:
    target = np.zeros((9, 9), np.int8)
    target[2:7, 3:8] = 1
    perfect = target == 1
    assert ClickPolicy("scipy-restart").simulate(target, perfect) == Click(5, 4, True)
    assert ClickPolicy("scipy-center").simulate(target, perfect) == NO_ERROR
    empty = np.zeros((6, 9), np.int8)
    assert ClickPolicy("scipy-restart").simulate(empty, empty == 1) == NO_ERROR


def test_a_click_before_the_transform_moves_the_next_one() -> None:
    """In a bar, the protocol's second click lies beside the first; InterFormer's in the middle of a half."""
    target = np.zeros((3, 21), np.int8)
    target[1] = 1
    nothing = np.zeros((3, 21), bool)
    target[:] = 1
    first = Click(10, 1, True)
    assert ClickPolicy().simulate(target, nothing, [first]) == Click(1, 1, True)
    ties = restatement.tied_clicks(target, nothing, [first])
    drawn = {ClickPolicy("removed-center").simulate(target, nothing, [first], sample=str(n)) for n in range(300)}
    assert drawn == ties
    assert {x for x, _, _ in ties} == {*range(1, 9), *range(12, 20)}


def test_draws_are_uniform_and_by_seed_sample_and_click() -> None:
    target = np.ones((3, 12), np.int8)
    nothing = np.zeros((3, 12), bool)
    policy = ClickPolicy("removed-center")
    found = [policy.simulate(target, nothing, seed=1, sample=str(n)).x for n in range(1500)]
    counts = np.bincount(found, minlength=12)
    assert counts[[0, 11]].tolist() == [0, 0]
    assert float(((counts[1:11] - 150) ** 2 / 150).sum()) < 30
    assert policy.simulate(target, nothing, seed=1, sample="5") == policy.simulate(target, nothing, seed=1, sample="5")
    assert len({policy.simulate(target, nothing, seed=seed, sample="5") for seed in range(30)}) > 3


def test_ignored_pixels_are_background_to_interformer() -> None:
    target = np.zeros((7, 7), np.int8)
    target[1:6, 1:6] = -1
    everything = np.ones((7, 7), bool)
    assert ClickPolicy("removed-center").simulate(target, everything) == Click(3, 3, False)
    assert ClickPolicy().simulate(target, everything) != Click(3, 3, False)


def test_a_wrong_click_of_a_peer_is_found() -> None:
    target, nothing = np.ones((9, 9), np.int8), np.zeros((9, 9), bool)
    for name in ("scipy-center", "scipy-restart", "removed-center"):
        assert judge_click(ClickPolicy(name), target, nothing, [], Click(0, 0, True)) == "wrong"
        assert judge_click(ClickPolicy(name), target, nothing, [], Click(4, 4, False)) == "wrong"
