"""Losses of masks, one number for each: cross entropy, Dice and normalized focal loss.

All take the same arguments:

* logits: float (masks, height, width), any finite size. Half precision is raised to float32.
* targets: bool or float (masks, height, width). A float in [0, 1] is the share of the pixel that is object.
* valid: bool (masks, height, width), the pixels that count. Others (ignored pixels, padding) change neither a loss
  nor a gradient.

and return float (masks,); a mask without a valid pixel has loss 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels of -log(p_t), p_t being the probability of the pixel's class."""
    logits, targets, valid = counted(logits, targets, valid)
    return _pixel_mean(*cross_entropy_terms(logits), targets, valid)


def dice_loss(logits: Tensor, targets: Tensor, valid: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), sums over valid pixels (as in Mask2Former)."""
    logits, targets, valid = counted(logits, targets, valid)
    inside = logits.sigmoid() * valid
    both = (inside * targets).sum(dim=(-2, -1))
    return 1 - (2 * both + smooth) / (inside.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1)) + smooth)


def normalized_focal_loss(
    logits: Tensor, targets: Tensor, valid: Tensor, alpha: float = 0.5, gamma: float = 2.0
) -> Tensor:
    """Focal loss whose focal weights have mean 1 over the mask (paper, section 4.2; RITM's loss).

    With w = (1 - p_t)^gamma and n valid pixels, each pixel's weight becomes w n / sum(w), and the loss is the mean
    over valid pixels of -alpha_t (w n / sum(w)) log(p_t), which is sum(-alpha_t w log(p_t)) / sum(w). The gradient
    flows through w, not through n / sum(w); alpha is not part of sum(w). As in RITM, sum(w) has 1e-12 added, so that
    a perfect mask has loss 0. RITM also adds 1e-12 to p_t in the logarithm, which removes the gradient of pixels that
    are completely wrong; here the logarithm is exact.
    """
    logits, targets, valid = counted(logits, targets, valid)
    inside, outside = _focal_weight(logits, gamma), _focal_weight(-logits, gamma)
    total = (torch.lerp(outside, inside, targets) * valid).sum(dim=(-2, -1)).detach() + 1e-12
    terms = alpha * inside * F.softplus(-logits), (1 - alpha) * outside * F.softplus(logits)
    return _pixel_mean(*terms, targets, valid) * valid.sum(dim=(-2, -1)) / total


MASK_LOSSES = {"normalized_focal": normalized_focal_loss, "bce": binary_cross_entropy, "dice": dice_loss}
"""Losses by the names of their weights in `RefinementLoss`."""


def counted(logits: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and valid pixels in one type, at least float32, zero where pixels do not count."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(kind).masked_fill(~valid, 0), targets.to(kind).masked_fill(~valid, 0), valid.to(kind)


def cross_entropy_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's cross entropy as object and as background: float, the shape of the logits."""
    return F.softplus(-logits), F.softplus(logits)


def _focal_weight(logits: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma, by its logarithm: a power below 1 has infinite slope at 0."""
    return (gamma * F.logsigmoid(-logits)).exp()


def _pixel_mean(inside: Tensor, outside: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels of the terms, weighted by a pixel's share of object and of background."""
    total = (inside * targets + outside * (valid - targets)).sum(dim=(-2, -1))
    return total / valid.sum(dim=(-2, -1)).clamp(min=1)
