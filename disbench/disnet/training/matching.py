"""Candidates and diverse sets: which candidate answers for which mask, and what the proposals lose by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from disbench.core.arrays import BoolArray, IntArray
from disbench.core.errors import InputError
from disbench.disnet.batches import Proposals
from disbench.disnet.training.losses import (
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    binary_cross_entropy,
    counted,
    cross_entropy_terms,
    dice_loss,
    focal_loss,
    focal_terms,
)

Pairs = tuple[Tensor, Tensor]
"""Numbers of candidates and of the masks that they answer for: int64 (k,) each."""
Selection = Literal["current", "any-gt"]

THRESHOLD = 0.49
"""A probability strictly above it belongs to the mask."""


@dataclass(frozen=True, slots=True)
class MatchWeights:
    """Weights of the proposals' losses, PiClick's.

    Attributes:
        mask: of the loss of each pixel.
        dice: of the Dice loss.
        objectness: of "this candidate is an object that the click may mean".
        no_object: what a candidate without a mask counts in the mean of the objectness loss; one with a mask
            counts 1.
        mask_loss: "bce" or "focal" (alpha 0.25, gamma 2).
        objectness_target: what the objectness is to say. "matched" (the paper): 1 for a candidate with a mask, 0
            for one without. Otherwise an IoU of the candidate, without a gradient, and every candidate counts 1:
            "best-iou" with the best of the set's masks; "own-iou" with the first one, that of the object that was
            clicked at.
    """

    mask: float = 5.0
    dice: float = 5.0
    objectness: float = 2.0
    no_object: float = 0.1
    mask_loss: Literal["bce", "focal"] = "bce"
    objectness_target: Literal["matched", "best-iou", "own-iou"] = "matched"


def pairwise_costs(logits: Tensor, targets: Tensor, valid: Tensor, objectness: Tensor, weights: MatchWeights) -> Tensor:
    """What it costs that a candidate answers for a mask: the weighted losses of the pair.

    Pixel and Dice losses are those of `losses`, by products of matrices. The objectness costs minus its
    probability, not its logarithm, so that it weighs like the others (DETR, section 3.1).

    Args:
        logits: float (N, height, width), of the candidates.
        targets: bool or float (K, height, width), of the set.
        valid: bool (height, width), the pixels that count.
        objectness: float (N,), logits.
        weights: of the three.

    Returns:
        float (N, K).
    """
    with torch.autocast(logits.device.type, enabled=False):  # sums over pixels overflow half precision
        logits, targets, counts = (part.flatten(1) for part in counted(logits, targets, valid[None]))
        pixel_terms = (
            cross_entropy_terms(logits) if weights.mask_loss == "bce" else focal_terms(logits, FOCAL_ALPHA, FOCAL_GAMMA)
        )
        inside, outside = pixel_terms
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
    """Hungarian matching: the cheapest way to give every mask of a set a candidate of its own.

    Args:
        logits: float (batch, N, height, width), of the candidates.
        objectness: float (batch, N), logits.
        targets: the set of each sample, bool or float (K, height, width); K may differ, and be 0.
        valid: bool (batch, height, width), the pixels that count.
        weights: of the costs.

    Returns:
        The pairs of each sample, by the candidates' numbers, on the device of the logits.

    Raises:
        ValueError: a set with more masks than there are candidates.
        InputError: a cost that is no finite number: training came to nothing, which a user can mend.
    """
    outputs = logits.shape[1]
    for sample, masks in enumerate(targets):
        if len(masks) > outputs:
            raise ValueError(
                f"sample {sample}: {len(masks)} masks for {outputs} candidates; cut the set with cut_set first"
            )
    costs = [pairwise_costs(*parts, weights) for parts in zip(logits, targets, valid, objectness, strict=True)]
    table = torch.cat(costs, dim=1).cpu().numpy()  # one wait for the device, not one a sample
    ends = np.cumsum([len(masks) for masks in targets])[:-1]
    return [_assigned(sample, part, logits.device) for sample, part in enumerate(np.split(table, ends, axis=1))]


def _assigned(sample: int, costs: npt.NDArray[np.floating], device: torch.device) -> Pairs:
    if not np.isfinite(costs).all():
        candidate, mask = np.argwhere(~np.isfinite(costs))[0]
        raise InputError(
            f"sample {sample}: matching candidate {candidate} with mask {mask} costs {costs[candidate, mask]}; "
            "the network's numbers are no longer finite: lower the learning rate or clip the gradients"
        )
    candidates, masks = linear_sum_assignment(costs)
    return torch.from_numpy(candidates).to(device), torch.from_numpy(masks).to(device)


def proposal_loss(
    proposals: Proposals, targets: Sequence[Tensor], valid: Tensor, weights: MatchWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The bipartite matching loss of stage 1, of the last decoder layer and of each earlier one.

    Every layer is matched by itself. Its pixel and Dice losses are means over the matched masks of the whole
    batch (not over samples of their means); its objectness loss is the mean over all candidates of the batch,
    weighted with 1 (matched) and `no_object` (see `MatchWeights.objectness_target` for other goals). So a mask
    weighs the same however the masks are spread over the samples. Layers are added, as in Mask2Former.

    Args:
        proposals: of the batch.
        targets: the set of each sample, bool or float (K, height, width), on the grid of the logits.
        valid: bool (batch, height, width), the pixels that count.
        weights: of the losses.

    Returns:
        The loss, a scalar, and its summands, without gradients: "mask", "dice" and "objectness" of the last
        layer and "earlier", all weighted.

    Raises:
        ValueError: as `match`.
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
    pixel_loss = binary_cross_entropy if weights.mask_loss == "bce" else focal_loss
    matched = max(len(chosen), 1)
    return {
        "mask": weights.mask * pixel_loss(chosen, wanted, counts).sum() / matched,
        "dice": weights.dice * dice_loss(chosen, wanted, counts).sum() / matched,
        "objectness": weights.objectness
        * _objectness_loss(objectness, *_goals(logits, pairs, targets, valid, weights)),
    }


def _objectness_loss(objectness: Tensor, goals: Tensor, shares: Tensor) -> Tensor:
    objectness = objectness.to(goals.dtype)
    return F.binary_cross_entropy_with_logits(objectness, goals, shares, reduction="sum") / shares.sum()


@torch.no_grad()
def _goals(
    logits: Tensor, pairs: Sequence[Pairs], targets: Sequence[Tensor], valid: Tensor, weights: MatchWeights
) -> tuple[Tensor, Tensor]:
    """What every candidate's objectness is to be, and what it counts: float (batch, N) each, at least float32."""
    goals = torch.zeros(logits.shape[:2], dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
    if weights.objectness_target == "matched":
        for row, (candidates, _) in zip(goals, pairs, strict=True):
            row[candidates] = 1
        return goals, weights.no_object + (1 - weights.no_object) * goals
    for row, own, masks, counts in zip(goals, logits, targets, valid, strict=True):
        meant = masks[:1] if weights.objectness_target == "own-iou" else masks
        if len(meant):
            row.copy_(_ious(own.sigmoid() > THRESHOLD, meant > 0.5, counts).amax(dim=1))
    return goals, torch.ones_like(goals)


def distinct(masks: BoolArray) -> IntArray:
    """Which masks of a set are left after a crop: those that are not empty and repeat no earlier one.

    Args:
        masks: bool (K, height, width).

    Returns:
        int64 (k,), rising.
    """
    seen: set[bytes] = set()
    kept = []
    for number, mask in enumerate(masks):
        content = np.packbits(mask).tobytes()
        if mask.any() and content not in seen:
            seen.add(content)
            kept.append(number)
    return np.array(kept, dtype=np.int64)


def cut_set(masks: BoolArray, supervised: int, outputs: int, generator: np.random.Generator) -> IntArray:
    """Which masks of a set are matched, where it has more than there are candidates.

    The center's (the first), the one that supervises stage 2, and a random rest; where only one is to be
    left, the one that supervises.

    Args:
        masks: bool (K, height, width), inner to outer.
        supervised: number of the mask that supervises stage 2.
        outputs: how many masks are left at most, at least 1.
        generator: decides the rest.

    Returns:
        int64 (k,), rising: inner to outer as before.

    Raises:
        ValueError: no mask with the supervised number, or outputs below 1.
    """
    count = len(masks)
    if not 0 <= supervised < count or outputs < 1:
        raise ValueError(f"mask {supervised} of {count} cannot be kept among {outputs}")
    if count <= outputs:
        return np.arange(count, dtype=np.int64)
    kept = sorted({0, supervised}) if outputs > 1 else [supervised]
    others = [number for number in range(count) if number not in kept]
    drawn = generator.choice(others, size=outputs - len(kept), replace=False)
    return np.array(sorted([*kept, *drawn.tolist()]), dtype=np.int64)


@torch.no_grad()
def chosen_candidates(
    logits: Tensor, supervised: Tensor, valid: Tensor, rule: Selection, sets: Sequence[Tensor]
) -> Tensor:
    """The candidate of each sample that goes on to stage 2, by its IoU with the truth.

    Args:
        logits: float (batch, N, height, width).
        supervised: bool or float (batch, height, width), the masks that supervise stage 2; above 0.5 is object.
        valid: bool (batch, height, width), the pixels that count.
        rule: "current": the largest IoU with the supervised mask (paper, section 4.2); "any-gt": the largest
            IoU with any mask of the set (section 3.2).
        sets: of each sample, bool or float (K, height, width); only "any-gt" looks at them.

    Returns:
        int64 (batch,); of equals the lowest number. An empty union counts as an IoU of 0.

    Raises:
        ValueError: "any-gt" with an empty set.
    """
    goals = list(supervised[:, None]) if rule == "current" else sets
    if not all(len(masks) for masks in goals):
        raise ValueError('"any-gt" needs at least one mask in each set')
    best = [
        _ious(own.sigmoid() > THRESHOLD, masks > 0.5, counts).amax(dim=1).argmax()
        for own, masks, counts in zip(logits, goals, valid, strict=True)
    ]
    return torch.stack(best)


def _ious(found: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """IoU of every candidate with every mask, bool (N or K, height, width): float64 (N, K)."""
    found, masks = ((part & valid).flatten(1).double() for part in (found, masks))
    both = found @ masks.T
    union = found.sum(1)[:, None] + masks.sum(1) - both
    return both / union.clamp(min=1)
