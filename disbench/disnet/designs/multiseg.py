"""MultiSeg: one mask for each of a fixed set of scales, trained on masks of that scale.

Liew et al., "MultiSeg: Semantically Meaningful, Scale-Diverse Segmentations from Minimal User Input", ICCV 2019,
section 3. Simplified: a scale is the side of a square of the mask's area, relative to the image's, in geometric
steps, while the paper's scales have a width and a height. The user chooses among the scales; the score is the
probability that a mask of that scale is meant.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from disbench.disnet.designs.design import Design, GroundTruth, Parts, mask_losses
from disbench.disnet.training.settings import Training

SMALLEST = 1 / 16  # the first scale; the last is 1, the whole image


class MultiSeg(Design):
    """One mask for each of a fixed set of scales, trained on masks of that scale."""

    single = False

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: GroundTruth, training: Training) -> Parts:
        """The loss of each scale that has a mask in the set, and the cross entropy of the scores.

        If several masks of the set have one scale, uses the target if among them, otherwise the one nearest to it.
        """
        chosen: dict[tuple[int, int], Tensor] = {}
        for row, (own, valid) in enumerate(zip(goal.sets, goal.valid, strict=True)):
            numbers, distances = nearest_scales(own, valid, logits.shape[1])
            distances[0] = -1
            for place in distances.argsort().tolist():
                chosen.setdefault((row, int(numbers[place])), own[place])
        rows, outputs = torch.tensor(list(chosen), device=logits.device).T
        present = torch.zeros_like(scores, dtype=torch.float32)
        present[rows, outputs] = 1
        masks = torch.stack(list(chosen.values()))
        losses = mask_losses(logits[rows, outputs], masks, goal.valid[rows], training.refinement)
        score = F.binary_cross_entropy_with_logits(scores.float(), present)
        return {"mask": losses.mean(), "scale": training.matching.objectness * score}


def nearest_scales(masks: Tensor, valid: Tensor, scales: int) -> tuple[Tensor, Tensor]:
    """Index of the nearest scale for each mask, int64 (K,), and the distance to it in steps, float (K,).

    From masks, bool (K, h, w), and the cells inside the image, bool (h, w).
    """
    share = (masks & valid).flatten(1).sum(1).clamp(min=1) / valid.sum()
    place = (scales - 1) * (1 - share.sqrt().log() / torch.tensor(SMALLEST, device=share.device).log())
    number = place.round().clamp(0, scales - 1)
    return number.long(), (place - number).abs()
