"""Losses of masks against the literal formulas; matching by brute force, the proposals' loss by its words."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disbench.core.metrics import iou
from disbench.disnet.batches import Proposals
from disbench.disnet.training.losses import (
    binary_cross_entropy,
    choose_candidates,
    dice_loss,
    distinct,
    focal_loss,
    match,
    normalized_focal_loss,
    pairwise_costs,
    proposal_loss,
    select_masks,
)
from disbench.disnet.training.settings import MatchWeights, Selection

Loss = Callable[..., Tensor]
LOSSES: list[Loss] = [binary_cross_entropy, focal_loss, dice_loss, normalized_focal_loss]
Pixel = tuple[float, bool]
"""Probability of object, and whether it is one."""


def right(pixel: Pixel) -> float:
    probability, inside = pixel
    return probability if inside else 1 - probability


def literal_cross_entropy(pixels: list[Pixel]) -> float:
    return -sum(math.log(right(pixel)) for pixel in pixels) / len(pixels)


def literal_focal(pixels: list[Pixel], alpha: float = 0.25, gamma: float = 2) -> float:
    total = 0.0
    for pixel in pixels:
        alpha_t = alpha if pixel[1] else 1 - alpha
        total += -alpha_t * (1 - right(pixel)) ** gamma * math.log(right(pixel))
    return total / len(pixels)


def literal_dice(pixels: list[Pixel]) -> float:
    both = sum(probability for probability, inside in pixels if inside)
    return 1 - (2 * both + 1) / (sum(p for p, _ in pixels) + sum(inside for _, inside in pixels) + 1)


def literal_normalized_focal(pixels: list[Pixel], alpha: float = 0.5, gamma: float = 2) -> float:
    """In RITM's order: weights, their multiplier, the weighted loss, its mean over the pixels that count."""
    weights = [(1 - right(pixel)) ** gamma for pixel in pixels]
    multiplier = len(pixels) / (sum(weights) + 1e-12)
    total = 0.0
    for pixel, weight in zip(pixels, weights, strict=True):
        total += -(alpha if pixel[1] else 1 - alpha) * weight * multiplier * math.log(right(pixel))
    return total / len(pixels)


LITERAL: dict[Loss, Callable[..., float]] = {
    binary_cross_entropy: literal_cross_entropy,
    focal_loss: literal_focal,
    dice_loss: literal_dice,
    normalized_focal_loss: literal_normalized_focal,
}


def drawn(count: int = 4, size: tuple[int, int] = (5, 7), seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, *size, generator=generator, dtype=torch.float64)
    targets = torch.rand(count, *size, generator=generator) < 0.4
    valid = torch.rand(count, *size, generator=generator) < 0.7
    return logits, targets, valid


def pixels_that_count(logits: Tensor, targets: Tensor, valid: Tensor) -> list[Pixel]:
    flat = zip(logits.flatten().tolist(), targets.flatten().tolist(), valid.flatten().tolist(), strict=True)
    return [(1 / (1 + math.exp(-logit)), bool(target)) for logit, target, counts in flat if counts]


by_name = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


@by_name
def test_is_the_formula(loss: Loss) -> None:
    logits, targets, valid = drawn()
    found = loss(logits, targets, valid)
    expected = [LITERAL[loss](pixels_that_count(*mask)) for mask in zip(logits, targets, valid, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(loss(logits, targets.double(), valid), found)


@pytest.mark.parametrize("loss", [focal_loss, normalized_focal_loss], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize(("alpha", "gamma"), [(0.7, 0.0), (0.3, 0.5), (0.5, 3.0)])
def test_focal_losses_follow_alpha_and_gamma(loss: Loss, alpha: float, gamma: float) -> None:
    logits, targets, valid = drawn(1)
    expected = LITERAL[loss](pixels_that_count(logits, targets, valid), alpha, gamma)
    assert loss(logits, targets, valid, alpha=alpha, gamma=gamma).item() == pytest.approx(expected, rel=1e-9)


@by_name
def test_a_share_of_a_pixel_is_a_mixture(loss: Loss) -> None:
    """A pixel that is object to a quarter is like four pixels of which one is object."""
    logits = torch.tensor([[[0.3, -1.2]]], dtype=torch.float64)
    shares = torch.tensor([[[0.25, 0.75]]], dtype=torch.float64)
    split = torch.tensor([[[True, False, False, False], [True, True, True, False]]])
    smooth = {"smooth": 0.0} if loss is dice_loss else {}
    found = loss(logits, shares, torch.ones(1, 1, 2, dtype=torch.bool), **smooth)
    apart = loss(logits.mT.expand(1, 2, 4), split, torch.ones(1, 2, 4, dtype=torch.bool), **smooth)
    torch.testing.assert_close(found, apart)


@by_name
def test_pixels_that_do_not_count_change_nothing(loss: Loss) -> None:
    logits, targets, valid = drawn()
    expected = loss(logits, targets, valid)
    spoilt = logits.masked_fill(~valid, math.nan).requires_grad_()
    found = loss(spoilt, (targets ^ ~valid).double().masked_fill(~valid, math.inf), valid)
    torch.testing.assert_close(found, expected)
    (slopes,) = torch.autograd.grad(found.sum(), spoilt)
    assert not slopes[~valid].any()
    assert slopes[valid].all()


@by_name
def test_a_mask_without_a_pixel_that_counts_loses_nothing(loss: Loss) -> None:
    logits, targets, valid = drawn(2)
    valid[0] = False
    logits.requires_grad_()
    found = loss(logits, targets, valid)
    assert found[0] == 0 < found[1]
    (slopes,) = torch.autograd.grad(found.sum(), logits)
    assert torch.isfinite(slopes).all()
    assert not slopes[0].any()


@by_name
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [40.0, 1e3, 1e30])
def test_extreme_logits_have_finite_gradients(loss: Loss, gamma: float, size: float) -> None:
    logits = torch.tensor([[[size, -size], [size, -size]]] * 3, requires_grad=True)
    targets = torch.tensor([[[1, 1], [0, 0]], [[1, 0], [1, 0]], [[0, 1], [0, 1]]], dtype=torch.bool)
    options = {"gamma": gamma} if loss in (focal_loss, normalized_focal_loss) else {}
    found = loss(logits, targets, torch.ones_like(targets), **options)
    (slopes,) = torch.autograd.grad(found.sum(), logits)
    assert torch.isfinite(found).all()
    assert torch.isfinite(slopes).all()
    half_right, right_everywhere, wrong_everywhere = found.tolist()
    assert right_everywhere == pytest.approx(0, abs=1e-5)
    assert wrong_everywhere >= half_right > 0  # normalized, only the wrong half weighs


def test_no_gradient_flows_through_the_normaliser() -> None:
    """The slopes are those of the focal loss, times a number that stays as it is."""
    logits, targets, valid = drawn(1)
    logits.requires_grad_()
    right_class = torch.where(targets, logits, -logits).sigmoid()[valid]
    weights = (1 - right_class) ** 2
    plain = -(0.5 * weights * right_class.log()).sum()
    (slopes,) = torch.autograd.grad(plain, logits)
    (found,) = torch.autograd.grad(normalized_focal_loss(logits, targets, valid).sum(), logits)
    torch.testing.assert_close(found, slopes / weights.sum().detach())


SIZE = (4, 5)
WEIGHTS = [MatchWeights(), MatchWeights(mask=2, dice=3, objectness=0.5, no_object=0.3, mask_loss="focal")]
few = settings(max_examples=15)
by_weights = pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: weights.mask_loss)


class Drawn:
    def __init__(self, counts: list[int], outputs: int = 4, layers: int = 1, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        batch = len(counts)
        self.layers = [
            (
                2 * torch.randn(batch, outputs, *SIZE, generator=generator, dtype=torch.float64),
                torch.randn(batch, outputs, generator=generator, dtype=torch.float64),
            )
            for _ in range(layers)
        ]
        self.logits, self.objectness = self.layers[-1]
        self.sets = [torch.rand(count, *SIZE, generator=generator) < 0.5 for count in counts]
        self.valid = torch.rand(batch, *SIZE, generator=generator) < 0.8

    def proposals(self, rows: slice = slice(None)) -> Proposals:
        logits, objectness = self.logits[rows], self.objectness[rows]
        earlier = tuple((own[rows], likely[rows]) for own, likely in self.layers[:-1])
        nothing = torch.zeros(len(logits), 0)
        return Proposals(logits, objectness, nothing, nothing, earlier=earlier)


def pair_cost(logits: Tensor, mask: Tensor, valid: Tensor, likely: Tensor, weights: MatchWeights) -> float:
    one = (logits[None], mask[None], valid[None])
    pixel = (binary_cross_entropy if weights.mask_loss == "bce" else focal_loss)(*one)
    probability = 1 / (1 + math.exp(-likely.item()))
    return float(weights.mask * pixel + weights.dice * dice_loss(*one) - weights.objectness * probability)


@by_weights
@pytest.mark.parametrize("shares", [False, True])
def test_costs_are_those_of_each_pair(weights: MatchWeights, shares: bool) -> None:
    drawn = Drawn([3])
    masks = torch.rand(3, *SIZE, dtype=torch.float64) if shares else drawn.sets[0]
    found = pairwise_costs(drawn.logits[0], masks, drawn.valid[0], drawn.objectness[0], weights)
    expected = [
        [pair_cost(own, mask, drawn.valid[0], likely, weights) for mask in masks]
        for own, likely in zip(drawn.logits[0], drawn.objectness[0], strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def cheapest(costs: list[list[float]]) -> float:
    """Of all ways to give each mask a candidate of its own."""
    count = len(costs[0]) if costs else 0
    return min(
        sum(costs[candidate][mask] for mask, candidate in enumerate(way))
        for way in permutations(range(len(costs)), count)
    )


@few
@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    weights=st.sampled_from(WEIGHTS),
)
def test_matching_is_the_cheapest_of_all(counts: list[int], seed: int, weights: MatchWeights) -> None:
    drawn = Drawn(counts, seed=seed)
    pairs = match(drawn.logits, drawn.objectness, drawn.sets, drawn.valid, weights)
    for row, (candidates, masks) in enumerate(pairs):
        assert candidates.dtype == masks.dtype == torch.int64
        assert sorted(masks.tolist()) == list(range(counts[row]))
        assert candidates.tolist() == sorted(set(candidates.tolist()))
        costs = pairwise_costs(
            drawn.logits[row], drawn.sets[row], drawn.valid[row], drawn.objectness[row], weights
        ).tolist()
        total = sum(costs[i][j] for i, j in zip(candidates.tolist(), masks.tolist(), strict=True))
        assert total == pytest.approx(cheapest(costs))
        one = slice(row, row + 1)
        (alone,) = match(drawn.logits[one], drawn.objectness[one], [drawn.sets[row]], drawn.valid[one], weights)
        assert all(torch.equal(*both) for both in zip(alone, (candidates, masks), strict=True))


def test_sets_that_cannot_be_matched_are_named() -> None:
    drawn = Drawn([2, 5])
    with pytest.raises(ValueError, match="4 candidates; cut it with select_masks"):
        match(drawn.logits, drawn.objectness, drawn.sets, drawn.valid, MatchWeights())
    drawn = Drawn([2, 3])
    drawn.objectness[1, 2] = math.nan
    with pytest.raises(ValueError, match="sample 1: matching candidate 2 with mask 0 costs nan"):
        match(drawn.logits, drawn.objectness, drawn.sets, drawn.valid, MatchWeights())


def literal_layer_losses(
    drawn: Drawn, layer: int, weights: MatchWeights
) -> tuple[list[float], list[float], list[tuple[float, float]]]:
    """Pixel and Dice losses of all matched pairs of a batch; weight and cross entropy of all candidates."""
    logits, objectness = drawn.layers[layer]
    pixel_loss = binary_cross_entropy if weights.mask_loss == "bce" else focal_loss
    pixel, dice, likely = [], [], []
    for row, masks in enumerate(drawn.sets):
        one = slice(row, row + 1)
        ((candidates, numbers),) = match(logits[one], objectness[one], [masks], drawn.valid[one], weights)
        partner = dict(zip(candidates.tolist(), numbers.tolist(), strict=True))
        for candidate in range(logits.shape[1]):
            probability = 1 / (1 + math.exp(-objectness[row, candidate].item()))
            if candidate not in partner:
                likely.append((weights.no_object, -math.log(1 - probability)))
                continue
            likely.append((1.0, -math.log(probability)))
            pair = (logits[row, candidate][None], masks[partner[candidate]][None], drawn.valid[one])
            pixel.append(pixel_loss(*pair).item())
            dice.append(dice_loss(*pair).item())
    return pixel, dice, likely


@by_weights
def test_loss_in_words(weights: MatchWeights) -> None:
    drawn = Drawn([3, 0, 1], layers=3)
    loss, parts = proposal_loss(drawn.proposals(), drawn.sets, drawn.valid, weights)
    expected = []
    for layer in range(3):
        pixel, dice, likely = literal_layer_losses(drawn, layer, weights)
        objectness = sum(share * entropy for share, entropy in likely) / sum(share for share, _ in likely)
        means = np.mean(pixel), np.mean(dice), objectness
        expected.append([weights.mask * means[0], weights.dice * means[1], weights.objectness * means[2]])
    last = [parts[name].item() for name in ("mask", "dice", "objectness")]
    assert last == pytest.approx(expected[-1])
    assert parts["earlier"].item() == pytest.approx(np.sum(expected[:-1]))
    assert loss.item() == pytest.approx(np.sum(expected))
    assert set(parts) == {"mask", "dice", "objectness", "earlier"}


@pytest.mark.parametrize("target", ["best-iou", "own-iou"])
def test_objectness_can_be_an_iou(target: Any) -> None:
    """Cross entropy with the IoU of the thresholded candidate; the mean over all candidates; no gradient to masks."""
    drawn = Drawn([3, 0, 1])
    drawn.logits.requires_grad_()
    weights = MatchWeights(mask=0, dice=0, objectness=1.5, no_object=0.3, objectness_target=target)
    loss, parts = proposal_loss(drawn.proposals(), drawn.sets, drawn.valid, weights)
    losses = []
    for row, masks in enumerate(drawn.sets):
        goals = masks.numpy()[:1] if target == "own-iou" else masks.numpy()
        valid = drawn.valid[row].numpy()
        for logits, likely in zip(drawn.logits[row].detach(), drawn.objectness[row], strict=True):
            found = (logits.sigmoid() > 0.49).numpy()
            share = max([iou((goal & valid), (found & valid)) for goal in goals], default=0.0)
            probability = 1 / (1 + math.exp(-likely.item()))
            losses.append(-share * math.log(probability) - (1 - share) * math.log(1 - probability))
    assert parts["objectness"].item() == pytest.approx(1.5 * np.mean(losses))
    assert not torch.autograd.grad(loss, drawn.logits)[0].any()


def test_the_score_of_a_repeated_mask_is_reduced_and_pairs_in_the_wrong_order_cost() -> None:
    """Written out: goals fall by what a better candidate shows already; a pair weighs by how far its goals differ."""
    drawn = Drawn([2, 1], outputs=5)
    drawn.logits[:, 3] = drawn.logits[:, 1]
    drawn.logits[:, 1, 0, 0], drawn.logits[:, 3, 0, 0] = -8, 8  # nearly the same mask as candidate 1
    drawn.valid[:] = True
    weights = MatchWeights(mask=0, dice=0, objectness_target="best-iou", redundancy=0.4, ranking=1.5)
    _, parts = proposal_loss(drawn.proposals(), drawn.sets, drawn.valid, weights)
    entropies, lost, total = [], 0.0, 0.0
    for row, masks in enumerate(drawn.sets):
        valid, scores = drawn.valid[row].numpy(), drawn.objectness[row].tolist()
        found = [(logits.sigmoid() > 0.49).numpy() & valid for logits in drawn.logits[row]]
        fits = [max(iou(mask.numpy() & valid, own) for mask in masks) for own in found]
        goals = []
        for own, fit in zip(found, fits, strict=True):
            repeats = [iou(own, other) for other, better in zip(found, fits, strict=True) if better > fit]
            goals.append(fit * (1 - 0.4 * max(0.0, 2 * max(repeats, default=0.0) - 1)))
        assert goals != fits
        for goal, score in zip(goals, scores, strict=True):
            likely = 1 / (1 + math.exp(-score))
            entropies.append(-goal * math.log(likely) - (1 - goal) * math.log(1 - likely))
        for first, second in permutations(range(5), 2):
            if goals[first] > goals[second]:
                weight = goals[first] - goals[second]
                lost += weight * math.log(1 + math.exp(scores[second] - scores[first]))
                total += weight
    assert parts["objectness"].item() == pytest.approx(2 * np.mean(entropies))
    assert parts["ranking"].item() == pytest.approx(1.5 * lost / total)


def test_gradients_reach_matched_masks_and_every_objectness() -> None:
    drawn = Drawn([2, 0])
    drawn.valid[:] = True
    drawn.logits.requires_grad_()
    drawn.objectness.requires_grad_()
    loss, parts = proposal_loss(drawn.proposals(), drawn.sets, drawn.valid, MatchWeights())
    of_logits, of_objectness = torch.autograd.grad(loss, [drawn.logits, drawn.objectness])
    ((candidates, _), _) = match(drawn.logits, drawn.objectness, drawn.sets, drawn.valid, MatchWeights())
    moved = of_logits.abs().sum(dim=(2, 3)) > 0
    assert moved[0].nonzero().flatten().tolist() == candidates.tolist()
    assert not moved[1].any()
    assert of_objectness.all()
    assert not any(part.requires_grad for part in parts.values())


@few
@given(st.lists(st.integers(0, 15), max_size=10))
def test_distinct_masks(bits: list[int]) -> None:
    """Masks of four pixels, as bits."""
    masks = np.array([[bool(mask >> place & 1) for place in range(4)] for mask in bits], dtype=bool)
    found = distinct(masks.reshape(-1, 1, 4))
    assert found.tolist() == [number for number, mask in enumerate(bits) if mask and mask not in bits[:number]]
    assert found.dtype == np.int64


@few
@given(st.integers(1, 20), st.integers(1, 9), st.data())
def test_cut_sets(count: int, outputs: int, data: st.DataObject) -> None:
    supervised = data.draw(st.integers(0, count - 1))
    masks = np.zeros((count, 1, 1), dtype=bool)
    found = select_masks(masks, supervised, outputs, np.random.default_rng(count))
    assert np.array_equal(found, select_masks(masks, supervised, outputs, np.random.default_rng(count)))
    numbers = found.tolist()
    assert found.dtype == np.int64
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(count, outputs)
    assert supervised in numbers
    assert 0 in numbers or outputs == 1


def literal_choice(logits: Tensor, masks: Tensor, valid: Tensor) -> int:
    """The first of the candidates with the largest IoU with any of the masks, by the benchmark's measure."""
    best = []
    for own in logits:
        found = 1 / (1 + np.exp(-own.numpy())) > 0.49
        targets = [np.where(valid.numpy(), mask.numpy().astype(int), -1) for mask in masks]
        ious = [iou(target, found) for target in targets]
        best.append(max(0.0 if math.isnan(value) else value for value in ious))
    return best.index(max(best))


@few
@given(st.integers(0, 1000), st.sampled_from(["current", "any-gt"]))
def test_the_candidate_that_goes_on(seed: int, rule: Selection) -> None:
    drawn = Drawn([2, 1, 3], seed=seed)
    supervised = torch.stack([masks[-1] for masks in drawn.sets])
    found = choose_candidates(drawn.logits, supervised, drawn.valid, rule, drawn.sets)
    goals = [masks[-1:] if rule == "current" else masks for masks in drawn.sets]
    assert found.dtype == torch.int64
    assert found.tolist() == [literal_choice(*parts) for parts in zip(drawn.logits, goals, drawn.valid, strict=True)]
    for row in range(3):
        one = slice(row, row + 1)
        alone = choose_candidates(drawn.logits[one], supervised[one], drawn.valid[one], rule, drawn.sets[one])
        assert alone.tolist() == [found[row].item()]


def test_rules_of_choice_and_equal_candidates() -> None:
    """The first candidate is the inner mask, exactly; the second nearly the outer one, which supervises."""
    inner = torch.tensor([[[True, False, False, False, False, False]]])
    outer = torch.tensor([[True, True, True, True, True, False]])
    near_outer = torch.tensor([[True, True, True, True, False, False]])
    logits = torch.stack([inner[0], near_outer]).float()[None] * 10 - 5
    sets = [torch.stack([inner[0], outer])]
    valid = torch.ones(1, 1, 6, dtype=torch.bool)
    assert choose_candidates(logits, outer[None], valid, "current", sets).tolist() == [1]
    assert choose_candidates(logits, outer[None], valid, "any-gt", sets).tolist() == [0]
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    goal = torch.tensor([[[True, False]]])
    at = math.log(0.49 / 0.51)
    logits = torch.tensor([[[[at - 0.01, -9]], [[at + 0.01, -9]], [[9.0, -9]]]])
    assert choose_candidates(logits, goal, valid, "current", []).tolist() == [1]
    nothing = torch.zeros(1, 1, 2, dtype=torch.bool)
    assert choose_candidates(-logits.abs() - 1, nothing, valid, "current", []).tolist() == [0]
