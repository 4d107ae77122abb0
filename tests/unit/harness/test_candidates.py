"""A prediction is checked before it counts, and one candidate is kept by the rule that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from disbench.core.prediction import MethodError, Prediction
from disbench.harness.tasks import Candidates, checked_candidates, choose


def check(masks: object, scores: object = None, threshold: float = 0.49) -> Candidates:
    return checked_candidates(Prediction(masks, scores), 4, 5, threshold)  # type: ignore[arg-type]


def torch_form(change: Callable[[Any], object]) -> Callable[[], object]:
    return lambda: change(torch.from_numpy(DRAWN.copy()))


def test_a_probability_belongs_to_the_mask_strictly_above_the_threshold() -> None:
    masks = np.zeros((1, 4, 5), dtype=np.float64)
    masks[0, 0] = [0.48, 0.49, 0.4900001, 0.5, 1.0]
    assert check(masks).masks[0, 0].tolist() == [False, False, True, True, True]
    assert check(masks, threshold=0.5).masks[0, 0].tolist() == [False, False, False, False, True]


DRAWN = (np.random.default_rng(1).integers(0, 257, (2, 4, 5)) / 256).astype(np.float32)
"""Probabilities that every floating-point type has exactly, bfloat16 too."""
FORMS: dict[str, Callable[[], object]] = {
    "float64": lambda: DRAWN.astype(np.float64),
    "float16": lambda: DRAWN.astype(np.float16),
    "reversed": lambda: DRAWN[::-1, ::-1].copy()[::-1, ::-1],
    "list": lambda: list(DRAWN),
    "tuple of lists": lambda: tuple(DRAWN.tolist()),
    "generator": lambda: (mask for mask in DRAWN),
    "PIL images": lambda: [Image.fromarray(mask) for mask in DRAWN],
    "tensor": torch_form(lambda tensor: tensor),
    "tensor with gradient": torch_form(lambda tensor: tensor.requires_grad_()),
    "tensor of float64": torch_form(lambda tensor: tensor.double()),
    "tensor of float16": torch_form(lambda tensor: tensor.half()),
    "tensor of bfloat16": torch_form(lambda tensor: tensor.bfloat16()),
    "list of tensors": torch_form(lambda tensor: list(tensor.requires_grad_())),
    "list of lists of tensors": torch_form(lambda tensor: [list(mask) for mask in tensor.bfloat16()]),
    "a rounding above 1": lambda: np.where(DRAWN == 1, np.float32(1.0000002), DRAWN),
    "a rounding below 0": lambda: np.where(DRAWN == 0, np.float32(-1e-8), DRAWN),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_counts_as_probabilities(form: str) -> None:
    DRAWN[0, 0, :2] = 0, 1
    scores = list(torch.ones(2).requires_grad_()) if "tensor" in form else [1.0, 1.0]
    found = check(FORMS[form](), scores)
    assert np.array_equal(found.masks, DRAWN > 0.49)
    assert found.scores == (1.0, 1.0)


class Unreadable:
    """An answer whose parts raise, or that is endless."""

    scores = None

    @property
    def masks(self) -> object:
        raise SystemExit(3)

    def __array__(self, *_: object) -> object:
        raise RuntimeError("\ud800" * 10**6)


@pytest.mark.parametrize(
    "prediction",
    [
        *(None, (DRAWN, None), Unreadable(), Prediction(DRAWN, Unreadable()), Prediction(DRAWN, [10**400, 1])),
        *(Prediction(masks, None) for masks in (None, [], {"masks": DRAWN}, [DRAWN[0], DRAWN[0, :2]], Unreadable())),
        *(Prediction(np.zeros(shape, dtype=bool), None) for shape in ((4, 5, 1), (1001, 4, 5))),
        *(Prediction(DRAWN.astype(kind), None) for kind in (object, complex)),
        *(Prediction(np.full((1, 4, 5), value), None) for value in (1.01, -0.01)),
    ],
)
def test_an_answer_that_cannot_be_read_is_one_printable_line(prediction: object) -> None:
    with pytest.raises(MethodError) as caught:
        checked_candidates(prediction, 4, 5, 0.49)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_booleans_pass_as_they_are_and_are_copied() -> None:
    masks = np.random.default_rng(0).random((3, 4, 5)) > 0.5
    found = check(masks, np.array([3, 1, 2], dtype=np.float32), threshold=2.0)
    assert np.array_equal(found.masks, masks)
    assert found.scores == (3.0, 1.0, 2.0)
    masks = np.ones((1, 4, 5), dtype=bool)
    found = check(masks)
    masks[:] = False
    assert found.masks.all()


@pytest.mark.parametrize(
    ("masks", "scores", "words"),
    [
        *((np.zeros(shape), None, r"\(candidates, 4, 5\)") for shape in ((4, 5), (0, 4, 5), (1, 5, 4))),
        (np.zeros((1, 4, 5), dtype=np.uint8), None, "uint8"),
        (np.where(np.arange(20).reshape(1, 4, 5) == 19, np.nan, 0.5), None, "NaN"),
        *((np.full((1, 4, 5), value), None, "logits") for value in (1.5, -3.0, np.inf)),
        *((np.zeros((2, 4, 5)), scores, words) for scores, words in (([1.0], "2 candidates"), ([1, np.nan], "finite"))),
    ],
)
def test_what_is_wrong_is_said(masks: object, scores: object, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        check(masks, scores)


def three(scores: tuple[float, ...] | None) -> Candidates:
    masks = np.zeros((3, 4, 5), dtype=bool)
    masks[0, :1], masks[1, :2], masks[2, :3] = True, True, True
    return Candidates(masks, scores)


def test_selection() -> None:
    nothing = np.zeros((4, 5), dtype=bool)
    scored, plain = three((0.1, 0.9, 0.9)), three(None)
    ious = (0.5, 0.2, 0.5)
    assert choose("oracle-first", 1, scored, ious, nothing) == 0
    assert choose("oracle-first", 2, scored, ious, nothing) == 1
    assert choose("oracle-all", 2, scored, ious, nothing) == 0
    assert choose("score", 1, scored, ious, nothing) == 1
    assert choose("oracle-first", 2, plain, ious, plain.masks[2]) == 2
    assert choose("oracle-first", 1, plain, (float("nan"), 0.0, 0.0), nothing) == 1
    with pytest.raises(MethodError, match="needs them"):
        choose("score", 1, plain, ious, nothing)
    alone = Candidates(plain.masks[:1], None)
    assert choose("score", 1, alone, (0.0,), nothing) == 0


@given(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=1, max_size=6))
def test_ties_go_to_the_lowest_index(scores: list[float]) -> None:
    masks = np.zeros((len(scores), 2, 2), dtype=bool)
    found = choose("score", 3, Candidates(masks, tuple(scores)), [0.0] * len(scores), masks[0])
    assert scores[found] == max(scores)
    assert max(scores) not in scores[:found]
