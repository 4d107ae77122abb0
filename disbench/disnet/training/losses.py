"""The losses of masks, one number a mask: cross entropy, focal, Dice and normalized focal loss.

All take the same arguments:

* logits: float (masks, height, width), any finite size. Half precision is raised to float32.
* targets: bool or float (masks, height, width). A float in [0, 1] says which share of the pixel is object.
* valid: bool (masks, height, width), the pixels that count. Whatever stands in the others, ignored pixels and
  padding beyond the image, changes neither a loss nor a gradient.

and give float (masks,); a mask without a valid pixel has loss 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
"""Lin et al. 2017, section 5.1."""


def binary_cross_entropy(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels of -log(p_t), p_t the probability of what the pixel is."""
    logits, targets, valid = counted(logits, targets, valid)
    return _pixel_mean(*cross_entropy_terms(logits), targets, valid)


def focal_loss(
    logits: Tensor, targets: Tensor, valid: Tensor, alpha: float = FOCAL_ALPHA, gamma: float = FOCAL_GAMMA
) -> Tensor:
    """Mean over valid pixels of -alpha_t (1 - p_t)^gamma log(p_t) (Lin et al. 2017, eq. 5).

    Lin et al. divide by the number of anchors that hold an object; here it is the number of valid pixels.

    Args:
        logits: as above.
        targets: as above.
        valid: as above.
        alpha: weight of the object's pixels; the background's is 1 - alpha.
        gamma: at least 0.
    """
    logits, targets, valid = counted(logits, targets, valid)
    return _pixel_mean(*focal_terms(logits, alpha, gamma), targets, valid)


def dice_loss(logits: Tensor, targets: Tensor, valid: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), sums over valid pixels (as Mask2Former has it)."""
    logits, targets, valid = counted(logits, targets, valid)
    inside = logits.sigmoid() * valid
    both = (inside * targets).sum(dim=(-2, -1))
    return 1 - (2 * both + smooth) / (inside.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1)) + smooth)


def normalized_focal_loss(
    logits: Tensor, targets: Tensor, valid: Tensor, alpha: float = 0.5, gamma: float = 2.0
) -> Tensor:
    """Focal loss whose focal weights have mean 1 over the mask (paper, section 4.2; as RITM trains with it).

    With w = (1 - p_t)^gamma and n valid pixels, each pixel's weight becomes w n / sum(w), and the loss is the
    mean over valid pixels of -alpha_t (w n / sum(w)) log(p_t), which is sum(-alpha_t w log(p_t)) / sum(w).
    No gradient flows through n / sum(w); it does through w. alpha takes no part in sum(w). As in RITM,
    sum(w) is raised by 1e-12, so that a mask without an error has loss 0. RITM also adds 1e-12 to p_t
    in the logarithm, which takes the gradient from pixels that are utterly wrong; here it is exact.

    Args:
        logits: as above.
        targets: as above.
        valid: as above.
        alpha: weight of the object's pixels; the background's is 1 - alpha.
        gamma: at least 0.
    """
    logits, targets, valid = counted(logits, targets, valid)
    weights = torch.lerp(_focal_weight(-logits, gamma), _focal_weight(logits, gamma), targets) * valid
    total = weights.sum(dim=(-2, -1)).detach() + 1e-12
    count = valid.sum(dim=(-2, -1))
    return _pixel_mean(*focal_terms(logits, alpha, gamma), targets, valid) * count / total


def counted(logits: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and valid pixels as numbers of one type, at least float32, zeros where nothing counts."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(kind).masked_fill(~valid, 0), targets.to(kind).masked_fill(~valid, 0), valid.to(kind)


def cross_entropy_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's cross entropy if it is object, and if it is background: float, the shape of the logits."""
    return F.softplus(-logits), F.softplus(logits)


def focal_terms(logits: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Each pixel's focal loss if it is object, and if it is background: float, the shape of the logits."""
    return (
        alpha * _focal_weight(logits, gamma) * F.softplus(-logits),
        (1 - alpha) * _focal_weight(-logits, gamma) * F.softplus(logits),
    )


def _focal_weight(logits: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma; by its logarithm, since the slope of a power below 1 is infinite at 0."""
    return (gamma * F.logsigmoid(-logits)).exp()


def _pixel_mean(inside: Tensor, outside: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels of what a pixel costs, by its share of object and of background."""
    total = (inside * targets + outside * (valid - targets)).sum(dim=(-2, -1))
    return total / valid.sum(dim=(-2, -1)).clamp(min=1)
