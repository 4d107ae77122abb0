"""Losses of masks against the literal formulas, pixel by pixel; what does not count; extreme logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from disbench.disnet.training.losses import binary_cross_entropy, dice_loss, normalized_focal_loss

Loss = Callable[..., Tensor]
LOSSES: list[Loss] = [binary_cross_entropy, dice_loss, normalized_focal_loss]
Pixel = tuple[float, bool]
"""Probability of object, and whether it is one."""


def right(pixel: Pixel) -> float:
    """p_t."""
    probability, inside = pixel
    return probability if inside else 1 - probability


def literal_cross_entropy(pixels: list[Pixel]) -> float:
    return -sum(math.log(right(pixel)) for pixel in pixels) / len(pixels)


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
    dice_loss: literal_dice,
    normalized_focal_loss: literal_normalized_focal,
}


def drawn(count: int = 4, size: tuple[int, int] = (5, 7), seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits float64, targets and valid pixels of some masks."""
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


@pytest.mark.parametrize(("alpha", "gamma"), [(0.7, 0.0), (0.3, 0.5), (0.5, 3.0)])
def test_the_focal_loss_follows_alpha_and_gamma(alpha: float, gamma: float) -> None:
    logits, targets, valid = drawn(1)
    expected = literal_normalized_focal(pixels_that_count(logits, targets, valid), alpha, gamma)
    assert normalized_focal_loss(logits, targets, valid, alpha=alpha, gamma=gamma).item() == pytest.approx(
        expected, rel=1e-9
    )


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
    options = {"gamma": gamma} if loss is normalized_focal_loss else {}
    found = loss(logits, targets, torch.ones_like(targets), **options)
    (slopes,) = torch.autograd.grad(found.sum(), logits)
    assert torch.isfinite(found).all()
    assert torch.isfinite(slopes).all()
    half_right, right_everywhere, wrong_everywhere = found.tolist()
    assert right_everywhere == pytest.approx(0, abs=1e-5)
    assert wrong_everywhere >= half_right > 0  # normalized, only the wrong half weighs


@by_name
def test_half_precision_is_raised(loss: Loss) -> None:
    logits, targets, valid = drawn(2)
    half = logits.to(torch.bfloat16)
    found = loss(half, targets, valid)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(half.float(), targets, valid), rtol=0, atol=0)


@pytest.mark.parametrize("loss", [binary_cross_entropy, dice_loss], ids=lambda loss: loss.__name__)
def test_gradients(loss: Loss) -> None:
    logits, targets, valid = drawn(2, (2, 3))
    assert torch.autograd.gradcheck(lambda x: loss(x, targets, valid), (logits.requires_grad_(),))


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
