"""Base class of designs from the literature: a one-stage network on DISNet's encoder and decoder, and its loss.

Simplifications in all designs: clicks are encoded as in the base network; l, the loss of a mask, is DISNet's stage 2
loss; scores come from the base network's score head, trained along with the masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disbench.disnet.batches import ClickBatch, Proposals
from disbench.disnet.training.losses import MASK_LOSSES, THRESHOLD
from disbench.disnet.training.settings import RefinementLoss, Training

Parts = dict[str, Tensor]  # summands of a loss, scalars, by name


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Ground truth for the answers to some clicks.

    Attributes:
        targets: bool (batch, h, w), the target masks.
        sets: bool (K, h, w) per sample, the masks that the clicks may mean: the target first, then the other masks of
            the diverse set that agree with all clicks.
        valid: bool (batch, h, w), the cells inside the image.
    """

    targets: Tensor
    sets: list[Tensor]
    valid: Tensor


class Design(nn.Module):
    """One mask from all clicks and the last mask, trained on the target at each click.

    The base network is DISNet's proposal network with `first_click` off. `channels` is the width of F^-1.

    Attributes:
        single: whether the design predicts one mask, not several.
        feedback: whether the network sees the last mask.
    """

    single = True
    feedback = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, proposals: Proposals, clicks: ClickBatch) -> Proposals:
        """The design's output, from the base network's output for these clicks."""
        return proposals

    def loss(self, proposals: Proposals, goal: GroundTruth, training: Training) -> tuple[Tensor, Parts]:
        """The loss, summed over the decoder's layers, and its summands without gradients."""
        layers = [(proposals.logits, proposals.objectness), *proposals.earlier]
        found = [self.layer_loss(logits, scores, goal, training) for logits, scores in layers]
        parts = {name: part.detach() for name, part in found[0].items()}
        if len(found) > 1:
            parts["earlier"] = _sum(*found[1:]).detach()
        return _sum(*found), parts

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: GroundTruth, training: Training) -> Parts:
        """One layer's summands, from its mask logits (batch, N, h, w) and score logits (batch, N)."""
        return {"mask": mask_losses(logits[:, 0], goal.targets, goal.valid, training.refinement).mean()}


def mask_losses(logits: Tensor, targets: Tensor, valid: Tensor, weights: RefinementLoss) -> Tensor:
    """Weighted loss of each mask, float (n,); arguments (n, h, w) as in `losses`."""
    used = [(getattr(weights, name), loss) for name, loss in MASK_LOSSES.items() if getattr(weights, name)]
    return torch.stack([weight * loss(logits, targets, valid) for weight, loss in used]).sum(dim=0)


def candidate_losses(logits: Tensor, goal: GroundTruth, weights: RefinementLoss) -> Tensor:
    """`mask_losses` of each candidate against its sample's target: float (batch, N), from logits (batch, N, h, w)."""
    targets, valid = (part[:, None].expand(logits.shape).flatten(0, 1) for part in (goal.targets, goal.valid))
    return mask_losses(logits.flatten(0, 1), targets, valid, weights).view(logits.shape[:2])


@torch.no_grad()
def target_ious(logits: Tensor, goal: GroundTruth) -> Tensor:
    """IoU of each candidate with its sample's target: float32 (batch, N), 0 for an empty union."""
    targets, valid = goal.targets[:, None], goal.valid[:, None]
    found = (logits.sigmoid() > THRESHOLD) & valid
    both = (found & targets).flatten(2).sum(2)
    either = ((found | targets) & valid).flatten(2).sum(2)
    return both / either.clamp(min=1)


def _sum(*layers: Parts) -> Tensor:
    return torch.stack([part for parts in layers for part in parts.values()]).sum()
