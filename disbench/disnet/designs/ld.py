"""LD: several masks at every click, trained with the loss of the best; scores select one.

Li, Chen, Koltun, "Interactive Image Segmentation with Latent Diversity", CVPR 2018, section 3: the hindsight loss
min over m of l(Y, f_m(X)), and the selection's cross entropy with the index of that minimum. Simplified: no
constraint that masks agree with the clicks.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from disbench.disnet.designs.design import Design, GroundTruth, Parts, candidate_losses
from disbench.disnet.training.settings import Training


class LatentDiversity(Design):
    """Several masks at every click, trained with the loss of the best; scores select one."""

    single = False
    feedback = False

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: GroundTruth, training: Training) -> Parts:
        """The best mask's loss, and the selection's cross entropy."""
        least, best = candidate_losses(logits, goal, training.refinement).min(dim=1)
        selection = F.cross_entropy(scores.float(), best)
        return {"mask": least.mean(), "selection": training.matching.objectness * selection}
