"""Mask losses, and the matching loss between candidates and the masks of diverse sets.

The mask losses (cross entropy, focal, Dice and normalized focal loss) take the same arguments:

* logits: float (masks, height, width), any finite value. Half precision is converted to float32.
* targets: bool or float (masks, height, width). A float in [0, 1] is the object's fraction of the pixel.
* valid: bool (masks, height, width). Other pixels (ignored, padding) affect neither loss nor gradient.

and return float (masks,); a mask without a valid pixel has loss 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from disbench.core.arrays import BoolArray, IntArray
from disbench.core.errors import InputError
from disbench.disnet.batches import Proposals
from disbench.disnet.training.settings import MatchWeights, Selection


def binary_cross_entropy(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels of -log(p_t), where p_t is the probability of the pixel's class."""
    logits, targets, valid = counted(logits, targets, valid)
    return _pixel_mean(*cross_entropy_terms(logits), targets, valid)


def focal_loss(logits: Tensor, targets: Tensor, valid: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean over valid pixels of -alpha_t (1 - p_t)^gamma log(p_t) (Lin et al. 2017, eq. 5, over anchors)."""
    logits, targets, valid = counted(logits, targets, valid)
    return _pixel_mean(*focal_terms(logits, alpha, gamma), targets, valid)


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
    flows through w, not through n / sum(w); alpha is not part of sum(w). As in RITM, 1e-12 is added to sum(w), so that
    a perfect mask has loss 0. RITM also adds 1e-12 to p_t in the logarithm, which removes the gradient of pixels that
    are completely wrong; here the logarithm is exact.
    """
    logits, targets, valid = counted(logits, targets, valid)
    weights = torch.lerp(_focal_weight(-logits, gamma), _focal_weight(logits, gamma), targets) * valid
    total = weights.sum(dim=(-2, -1)).detach() + 1e-12
    return _pixel_mean(*focal_terms(logits, alpha, gamma), targets, valid) * valid.sum(dim=(-2, -1)) / total


MASK_LOSSES = {"normalized_focal": normalized_focal_loss, "bce": binary_cross_entropy, "dice": dice_loss}
"""Losses by the names of their weights in `RefinementLoss`."""


def counted(logits: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Convert logits, targets and valid pixels to one dtype, at least float32, with invalid pixels set to zero."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(kind).masked_fill(~valid, 0), targets.to(kind).masked_fill(~valid, 0), valid.to(kind)


def cross_entropy_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of each pixel as object and as background: float, same shape as the logits."""
    return F.softplus(-logits), F.softplus(logits)


def focal_terms(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> tuple[Tensor, Tensor]:
    """Focal loss of each pixel as object and as background: float, same shape as the logits."""
    inside, outside = cross_entropy_terms(logits)
    return alpha * _focal_weight(logits, gamma) * inside, (1 - alpha) * _focal_weight(-logits, gamma) * outside


def _focal_weight(logits: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma, computed from its logarithm: a power below 1 has infinite slope at 0."""
    return (gamma * F.logsigmoid(-logits)).exp()


def _pixel_mean(inside: Tensor, outside: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean of the terms over valid pixels, weighted by each pixel's fractions of object and background."""
    total = (inside * targets + outside * (valid - targets)).sum(dim=(-2, -1))
    return total / valid.sum(dim=(-2, -1)).clamp(min=1)


Pairs = tuple[Tensor, Tensor]  # indices of candidates and of the masks matched to them: int64 (k,) each

THRESHOLD = 0.49  # probabilities strictly above it belong to the mask


def pairwise_costs(logits: Tensor, targets: Tensor, valid: Tensor, objectness: Tensor, weights: MatchWeights) -> Tensor:
    """Cost of matching each candidate to each mask: the weighted losses of the pair, float (N, K).

    Pixel and Dice losses are computed as matrix products. Objectness enters as minus its probability, not its
    logarithm, to make it commensurate with the others (DETR, section 3.1). Arguments are those of one sample in
    `match`.
    """
    with torch.autocast(logits.device.type, enabled=False):  # sums over pixels overflow half precision
        logits, targets, counts = (part.flatten(1) for part in counted(logits, targets, valid[None]))
        inside, outside = cross_entropy_terms(logits) if weights.mask_loss == "bce" else focal_terms(logits)
        pixel = inside @ targets.T + outside @ (counts - targets).T
        found = logits.sigmoid() * counts
        dice = 1 - (2 * found @ targets.T + 1) / (found.sum(1)[:, None] + targets.sum(1) + 1)
        likely = objectness.to(pixel.dtype).sigmoid()[:, None]
        pixel = pixel / counts.sum().clamp(min=1)
        return weights.mask * pixel + weights.dice * dice - weights.objectness * likely


@torch.no_grad()
def match(
    logits: Tensor, objectness: Tensor, targets: Sequence[Tensor], valid: Tensor, weights: MatchWeights
) -> list[Pairs]:
    """Hungarian matching: the minimum-cost assignment of a different candidate to each mask of a set.

    Args:
        logits: the candidates, float (batch, N, height, width).
        objectness: float (batch, N), logits.
        targets: the set of each sample, bool or float (K, height, width); K may vary from 0 to N.
        valid: bool (batch, height, width), the valid pixels.
        weights: factors of the pixel, Dice and objectness costs.

    Returns:
        The pairs of each sample, in order of candidate index, on the device of the logits.

    Raises:
        ValueError: a set has more masks than candidates.
        InputError: a cost is not finite because training diverged.
    """
    outputs = logits.shape[1]
    if any(len(masks) > outputs for masks in targets):
        raise ValueError(f"a set has more masks than the {outputs} candidates; cut it with select_masks first")
    costs = [pairwise_costs(*parts, weights) for parts in zip(logits, targets, valid, objectness, strict=True)]
    table = torch.cat(costs, dim=1).cpu().numpy()  # a single device synchronisation
    ends = np.cumsum([len(masks) for masks in targets])[:-1]
    return [_assigned(sample, part, logits.device) for sample, part in enumerate(np.split(table, ends, axis=1))]


def _assigned(sample: int, costs: npt.NDArray[np.floating], device: torch.device) -> Pairs:
    if not np.isfinite(costs).all():
        candidate, mask = np.argwhere(~np.isfinite(costs))[0]
        raise InputError(
            f"sample {sample}: matching candidate {candidate} with mask {mask} costs {costs[candidate, mask]}; "
            "the network's outputs are no longer finite: lower the learning rate or clip the gradients"
        )
    candidates, masks = linear_sum_assignment(costs)
    return torch.from_numpy(candidates).to(device), torch.from_numpy(masks).to(device)


def proposal_loss(
    proposals: Proposals, targets: Sequence[Tensor], valid: Tensor, weights: MatchWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The bipartite matching loss of stage 1, summed over all decoder layers as in Mask2Former.

    Each layer is matched separately. Pixel and Dice losses are means over all matched masks of the batch (not means of
    sample means), so that each mask has the same weight; the objectness loss is the mean over all candidates of the
    batch, weighted by 1 (matched) or `no_object` (for other goals see `MatchWeights.objectness_target`). Arguments and
    errors are those of `match`.

    Returns:
        The loss, a scalar, and its weighted summands without gradients: "mask", "dice" and "objectness" of the last
        layer, and "earlier".
    """
    parts = _layer_losses(proposals.logits, proposals.objectness, targets, valid, weights)
    parts["earlier"] = torch.zeros_like(parts["mask"])
    for logits, objectness in proposals.earlier:
        of_layer = _layer_losses(logits, objectness, targets, valid, weights)
        parts["earlier"] = parts["earlier"] + torch.stack(list(of_layer.values())).sum()
    return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}


def _layer_losses(
    logits: Tensor, objectness: Tensor, targets: Sequence[Tensor], valid: Tensor, weights: MatchWeights
) -> dict[str, Tensor]:
    pairs = match(logits, objectness, targets, valid, weights)
    chosen = torch.cat([own[candidates] for own, (candidates, _) in zip(logits, pairs, strict=True)])
    wanted = torch.cat([own[masks] for own, (_, masks) in zip(targets, pairs, strict=True)])
    counts = torch.cat([own.expand(len(found), -1, -1) for own, (found, _) in zip(valid, pairs, strict=True)])
    matched = max(len(chosen), 1)
    pixel_loss = binary_cross_entropy if weights.mask_loss == "bce" else focal_loss
    losses = {
        "mask": weights.mask * pixel_loss(chosen, wanted, counts).sum() / matched,
        "dice": weights.dice * dice_loss(chosen, wanted, counts).sum() / matched,
    }
    goals, shares = _objectness_targets(logits, pairs, targets, valid, weights)
    entropy = F.binary_cross_entropy_with_logits(objectness.to(goals.dtype), goals, shares, reduction="sum")
    losses["objectness"] = weights.objectness * (entropy / shares.sum())
    if weights.ranking:  # log(1 + exp(-difference)) of a click's pairs of candidates, weighted by their goals' gap
        better, scores = (goals[:, :, None] - goals[:, None]).clamp(min=0), objectness.to(goals.dtype)
        lost = (better * F.softplus(scores[:, None] - scores[:, :, None])).sum()
        losses["ranking"] = weights.ranking * (lost / better.sum().clamp(min=1e-6))
    return losses


@torch.no_grad()
def _objectness_targets(
    logits: Tensor, pairs: Sequence[Pairs], targets: Sequence[Tensor], valid: Tensor, weights: MatchWeights
) -> tuple[Tensor, Tensor]:
    """Target and weight of each candidate's objectness: float (batch, N) each, at least float32."""
    goals = torch.zeros(logits.shape[:2], dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
    if weights.objectness_target == "matched":
        for row, (candidates, _) in zip(goals, pairs, strict=True):
            row[candidates] = 1
        return goals, weights.no_object + (1 - weights.no_object) * goals
    for row, own, masks, counts in zip(goals, logits, targets, valid, strict=True):
        meant = masks[:1] if weights.objectness_target == "own-iou" else masks
        if len(meant):
            found = own.sigmoid() > THRESHOLD
            fits = _ious(found, meant > 0.5, counts).amax(dim=1)
            if weights.redundancy:
                repeats = _ious(found, found, counts).masked_fill(fits[:, None] >= fits, 0).amax(dim=1)
                fits = fits * (1 - weights.redundancy * (2 * repeats - 1).clamp(min=0))
            row.copy_(fits)
    return goals, torch.ones_like(goals)


def distinct(masks: BoolArray) -> IntArray:
    """Indices of the non-empty masks that differ from all earlier ones: int64 (k,), from bool (K, height, width)."""
    seen: set[bytes] = set()
    kept = []
    for number, mask in enumerate(masks):
        content = np.packbits(mask).tobytes()
        if mask.any() and content not in seen:
            seen.add(content)
            kept.append(number)
    return np.array(kept, dtype=np.int64)


def select_masks(masks: BoolArray, supervised: int, outputs: int, generator: np.random.Generator) -> IntArray:
    """Select at most `outputs` masks of a set, for sets with more masks than candidates.

    Returns ascending indices, int64 (k,): the first mask (the center's), `supervised`, which supervises stage 2, and
    random others; only `supervised` if `outputs` is 1.
    """
    count = len(masks)
    if count <= outputs:
        return np.arange(count, dtype=np.int64)
    kept = sorted({0, supervised}) if outputs > 1 else [supervised]
    others = [number for number in range(count) if number not in kept]
    drawn = generator.choice(others, size=outputs - len(kept), replace=False)
    return np.array(sorted([*kept, *drawn.tolist()]), dtype=np.int64)


@torch.no_grad()
def choose_candidates(
    logits: Tensor, supervised: Tensor, valid: Tensor, rule: Selection = "current", sets: Sequence[Tensor] = ()
) -> Tensor:
    """The candidate of each sample that is passed to stage 2, chosen by its IoU with the ground truth.

    int64 (batch,), the lowest index on ties; an empty union has an IoU of 0.

    Args:
        logits: float (batch, N, height, width).
        supervised: bool or float (batch, height, width), the masks that supervise stage 2; above 0.5 is object.
        valid: bool (batch, height, width), the valid pixels.
        rule: "current": the highest IoU with the supervising mask (paper, section 4.2); "any-gt": with any mask of the
            set (section 3.2).
        sets: the set of each sample, bool or float (K, height, width), K > 0; used only by "any-gt".
    """
    rows = zip(logits, supervised[:, None] if rule == "current" else sets, valid, strict=True)
    best = [_ious(own.sigmoid() > THRESHOLD, goals > 0.5, counts).amax(dim=1).argmax() for own, goals, counts in rows]
    return torch.stack(best)


def _ious(found: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """Pairwise IoUs of candidates and masks, bool (N or K, height, width): float64 (N, K)."""
    found, masks = ((part & valid).flatten(1).double() for part in (found, masks))
    both = found @ masks.T
    union = found.sum(1)[:, None] + masks.sum(1) - both
    return both / union.clamp(min=1)
