"""SAM's ambiguity handling: all candidates but the last for one click, only the last for more clicks.

Kirillov et al., "Segment Anything", ICCV 2023, section 3 ("Resolving ambiguity") and appendix A ("Making the model
ambiguity-aware"). Simplified: the squared error of the IoU estimates is weighted by `matching.objectness` and covers
all masks.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from disbench.disnet.batches import ClickBatch, Proposals
from disbench.disnet.designs.design import Design, GroundTruth, Parts, candidate_losses, target_ious
from disbench.disnet.training.settings import Training


class SamStyle(Design):
    """All candidates but the last for one click, only the last for more clicks."""

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

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: GroundTruth, training: Training) -> Parts:
        """The best candidate's loss, and the squared error of all IoU estimates."""
        errors = (scores.float().sigmoid() - target_ious(logits, goal)).square()
        best = candidate_losses(logits, goal, training.refinement).amin(dim=1)
        return {"mask": best.mean(), "estimate": training.matching.objectness * errors.mean()}
