"""Designs of the literature on DISNet's encoder, decoder, data and clicks: a network of one stage and its loss.

What all simplify: clicks enter as those of the base network; l, the loss of a mask, is that of DISNet's second stage;
the paper's own head of scores is the base network's, trained along with the masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disbench.core.errors import InputError
from disbench.disnet.batches import ClickBatch, Proposals
from disbench.disnet.click_encodings import click_distances, on_grid, sampled_features
from disbench.disnet.frames import STRIDE
from disbench.disnet.options import DesignName, NetworkSettings
from disbench.disnet.training.losses import MASK_LOSSES, THRESHOLD, proposal_loss
from disbench.disnet.training.settings import RefinementLoss, Training

Parts = dict[str, Tensor]
"""Summands of a loss, scalars, by name."""
SMALLEST = 1 / 16
"""MultiSeg's first scale; the last is 1, the whole image."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What the answers to some clicks should have been.

    Attributes:
        targets: bool (batch, h, w), the masks that are meant.
        sets: for each sample bool (K, h, w), the masks that the clicks may mean: its target first, then the other masks
            of its diverse set that agree with all clicks.
        valid: bool (batch, h, w), the cells of the image.
    """

    targets: Tensor
    sets: list[Tensor]
    valid: Tensor


class Design(nn.Module):
    """One mask for all clicks and the last mask, trained on the target at each click.

    The base network is DISNet's proposal network with `first_click` off. `channels` is the width of F^-1.

    Attributes:
        single: one mask; otherwise several.
        feedback: whether the network sees the last mask.
    """

    single = True
    feedback = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, proposals: Proposals, clicks: ClickBatch) -> Proposals:
        """What the design answers, from what the base network says to these clicks."""
        return proposals

    def loss(self, proposals: Proposals, goal: Goal, training: Training) -> tuple[Tensor, Parts]:
        """The loss of some answers, the sum over the decoder's layers, and its summands without gradients."""
        layers = [(proposals.logits, proposals.objectness), *proposals.earlier]
        found = [self.layer_loss(logits, scores, goal, training) for logits, scores in layers]
        parts = {name: part.detach() for name, part in found[0].items()}
        if len(found) > 1:
            parts["earlier"] = _sum(*found[1:]).detach()
        return _sum(*found), parts

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: Goal, training: Training) -> Parts:
        """The summands of one layer, from logits of its masks (batch, N, h, w) and of their scores (batch, N)."""
        return {"mask": mask_losses(logits[:, 0], goal.targets, goal.valid, training.refinement).mean()}


class Ritm(Design):
    """RITM: iterative training, with the last mask among the inputs.

    Sofiiuk, Petrov, Konushin, "Reviving Iterative Training with Mask Guidance for Interactive Segmentation", ICIP 2022,
    sections 3.2 to 3.4. Simplified: a loss after each click, not after the last alone; no zoom-in, no averaging over
    flips.
    """


class Itis(Design):
    """ITIS: clicks of training are placed where the network is wrong; it sees clicks alone.

    Mahadevan, Voigtlaender, Leibe, "Iteratively Trained Interactive Segmentation", BMVC 2018, section 3. Simplified: no
    other system's mask among the inputs; an example gets all its clicks in one step, not one more in each epoch.
    """

    feedback = False


class Dos(Design):
    """DOS (DIOS): one network from all clicks at once to one mask, trained on random clicks.

    Xu, Price, Cohen, Yang, Huang, "Deep Interactive Object Selection", CVPR 2016, sections 3.1 and 3.2. What sets it
    apart from ITIS is its training (`later_clicks = "random"`, no corrective ones). Simplified: random clicks are
    RITM's, where the paper has three strategies for negative ones. The paper's graph cut: `dos_gc`.
    """

    feedback = False


class FcaNet(Design):
    """FCANet: the mask for all clicks and the last mask, corrected by what the first click's features say.

    Lin et al., "Interactive Image Segmentation with First Click Attention", CVPR 2020, section 3.1. Simplified: the
    branch of the first click compares the features F^-1 of every cell with those at the click, which gives a mask; that
    mask splits the features in two, from which a correction of the main mask is computed. No loss weighted by distance
    to clicks, no removal of parts that no click touches ("structural integrity").
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.query = nn.Linear(channels, channels)
        self.distance = nn.Parameter(torch.tensor(-1.0))
        self.bias = nn.Parameter(torch.zeros(()))
        self.mix = nn.Linear(2 * channels, channels)
        self.correction = nn.Linear(channels, 1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, proposals: Proposals, clicks: ClickBatch) -> Proposals:
        """The corrected mask; the branch's own mask is among the `earlier` ones, which have losses."""
        attention = self.attention(proposals.features, clicks.first)
        features = proposals.features.permute(0, 2, 3, 1)
        inside = attention.sigmoid()[..., None]
        mixed = self.mix(torch.cat([features * inside, features * (1 - inside)], dim=-1))
        logits = proposals.logits + self.correction(F.gelu(mixed))[..., 0][:, None]
        branch = (attention[:, None], proposals.objectness)
        return replace(proposals, logits=logits, earlier=(*proposals.earlier, branch))

    def attention(self, features: Tensor, first: ClickBatch) -> Tensor:
        """The branch's mask: logits (batch, h, w), from F^-1 (batch, d, h, w) and first clicks in pixels of the input.

        q . F / sqrt(d) + a * distance + b, with q of F at the click, and distances relative to the grid's side.
        """
        query = self.query(sampled_features(features, first.points, STRIDE)[:, 0])
        products = torch.einsum("bd,bdhw->bhw", query, features) / math.sqrt(features.shape[1])
        height, width = features.shape[-2:]
        distances = click_distances(on_grid(first, STRIDE), (height, width))[:, 0] / max(height, width)
        return products + self.distance * distances + self.bias


class SamStyle(Design):
    """SAM's way with ambiguity: all candidates but the last for one click; the last, alone, for more.

    Kirillov et al., "Segment Anything", ICCV 2023, section 3 ("Resolving ambiguity") and appendix A ("Making the model
    ambiguity-aware"). Simplified: the weight of the squared error of IoUs is `matching.objectness`; all masks' IoUs are
    trained.
    """

    single = False

    def forward(self, proposals: Proposals, clicks: ClickBatch) -> Proposals:
        """The candidates for this number of clicks."""
        own = slice(-1, None) if clicks.points.shape[1] > 1 else slice(0, -1)
        return replace(
            proposals,
            logits=proposals.logits[:, own],
            objectness=proposals.objectness[:, own],
            queries=proposals.queries[:, own],
            earlier=tuple((logits[:, own], scores[:, own]) for logits, scores in proposals.earlier),
        )

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: Goal, training: Training) -> Parts:
        """The best candidate's loss, and the squared error of all estimated IoUs."""
        errors = (scores.float().sigmoid() - target_ious(logits, goal)).square()
        best = candidate_losses(logits, goal, training.refinement).amin(dim=1)
        return {"mask": best.mean(), "estimate": training.matching.objectness * errors.mean()}


class LatentDiversity(Design):
    """LD: several masks at every click, of which the best alone has a loss; scores select one.

    Li, Chen, Koltun, "Interactive Image Segmentation with Latent Diversity", CVPR 2018, section 3: the hindsight loss
    min over m of l(Y, f_m(X)), and the selection's cross entropy with the index of that minimum. Simplified: no term
    that holds the masks to the clicks.
    """

    single = False
    feedback = False

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: Goal, training: Training) -> Parts:
        """The best mask's loss, and the selection's cross entropy."""
        least, best = candidate_losses(logits, goal, training.refinement).min(dim=1)
        selection = F.cross_entropy(scores.float(), best)
        return {"mask": least.mean(), "selection": training.matching.objectness * selection}


class MultiSeg(Design):
    """MultiSeg: one mask for each of a fixed set of scales, trained on masks of that scale.

    Liew et al., "MultiSeg: Semantically Meaningful, Scale-Diverse Segmentations from Minimal User Input", ICCV 2019,
    section 3. Simplified: a scale is the side of a square of the mask's area, relative to the image's, in geometric
    steps, where the paper's have a width and a height. The user chooses among the scales; the score says how likely a
    mask of the scale is meant.
    """

    single = False

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: Goal, training: Training) -> Parts:
        """The loss of every mask whose scale a mask of the set has, and the scores' cross entropy.

        Of several masks of one scale the target is taken, otherwise the one nearest to the scale.
        """
        chosen: dict[tuple[int, int], Tensor] = {}
        for row, (own, valid) in enumerate(zip(goal.sets, goal.valid, strict=True)):
            numbers, distances = scale_numbers(own, valid, logits.shape[1])
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


class PiClick(Design):
    """PiClick: queries at every click, matched to all masks that the clicks may mean; scores estimate IoUs.

    Yan et al., "PiClick: Picking the Desired Mask in Click-based Interactive Segmentation", 2023, section 3.
    Simplified: one score in the place of their objectness and their estimate, in the cost of the matching too; the set
    is the shards' diverse set, less the masks that disagree with a later click, where the paper takes all annotated
    masks that contain the click and unions of them.
    """

    single = False

    def loss(self, proposals: Proposals, goal: Goal, training: Training) -> tuple[Tensor, Parts]:
        """DISNet's matching loss, with the IoU with the target for the goal of the scores."""
        weights = replace(training.matching, objectness_target="own-iou", redundancy=0.0, ranking=0.0)
        return proposal_loss(proposals, goal.sets, goal.valid, weights)


DESIGNS: Mapping[DesignName, type[Design]] = {
    "dos": Dos,
    "itis": Itis,
    "ritm": Ritm,
    "sam-style": SamStyle,
    "ld": LatentDiversity,
    "multiseg": MultiSeg,
    "piclick": PiClick,
    "fcanet": FcaNet,
}


def build_design(settings: NetworkSettings, channels: int) -> Design | None:
    """The design that settings name, if any; `channels` is the width of F^-1.

    Raises:
        InputError: the options have another number of stages or masks than the design.
    """
    if not settings.design:
        return None
    kind, options = DESIGNS[settings.design], settings.options
    if options.first_click or kind.single != (options.outputs == 1):
        masks = "multiple_output = false" if kind.single else "multiple_output = true and two candidates or more"
        raise InputError(f"design = {settings.design!r} needs the options first_click = false, {masks}")
    return kind(channels)


def mask_losses(logits: Tensor, targets: Tensor, valid: Tensor, weights: RefinementLoss) -> Tensor:
    """The weighted losses of each mask, float (n,); arguments (n, h, w) as in `losses`."""
    used = [(getattr(weights, name), loss) for name, loss in MASK_LOSSES.items() if getattr(weights, name)]
    return torch.stack([weight * loss(logits, targets, valid) for weight, loss in used]).sum(dim=0)


def candidate_losses(logits: Tensor, goal: Goal, weights: RefinementLoss) -> Tensor:
    """`mask_losses` of every candidate with its sample's target: float (batch, N), from logits (batch, N, h, w)."""
    targets, valid = (part[:, None].expand(logits.shape).flatten(0, 1) for part in (goal.targets, goal.valid))
    return mask_losses(logits.flatten(0, 1), targets, valid, weights).view(logits.shape[:2])


@torch.no_grad()
def target_ious(logits: Tensor, goal: Goal) -> Tensor:
    """IoU of every candidate with its sample's target: float32 (batch, N), 0 for an empty union."""
    targets, valid = goal.targets[:, None], goal.valid[:, None]
    found = (logits.sigmoid() > THRESHOLD) & valid
    both = (found & targets).flatten(2).sum(2)
    either = ((found | targets) & valid).flatten(2).sum(2)
    return both / either.clamp(min=1)


def scale_numbers(masks: Tensor, valid: Tensor, scales: int) -> tuple[Tensor, Tensor]:
    """The nearest of the geometric scales for each mask, int64 (K,), and its distance in steps, float (K,).

    From masks, bool (K, h, w), and the cells of their image, bool (h, w).
    """
    share = (masks & valid).flatten(1).sum(1).clamp(min=1) / valid.sum()
    place = (scales - 1) * (1 - share.sqrt().log() / torch.tensor(SMALLEST, device=share.device).log())
    number = place.round().clamp(0, scales - 1)
    return number.long(), (place - number).abs()


def _sum(*layers: Parts) -> Tensor:
    return torch.stack([part for parts in layers for part in parts.values()]).sum()
