"""LD: several masks at every click, of which the best alone has a loss; a second network selects one.

Li, Chen, Koltun, "Interactive Image Segmentation with Latent Diversity", CVPR 2018, section 3: the hindsight loss
min over m of l(Y, f_m(X)), and the selection network's cross entropy with the index of that minimum. Simplified: the
selection network is the base's head of scores (in the small network it sees all masks, and the image's features in
them), trained along with the masks, where the paper trains a network of its own; l is the loss of DISNet's second
stage, not the relaxed Jaccard distance; there is no term that holds the masks to the clicks.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from disbench.disnet.designs.design import Design, Goal, Parts, candidate_losses
from disbench.disnet.training.settings import Training


class LatentDiversity(Design):
    """N masks for all clicks, without the last mask; scores select one."""

    single = False
    feedback = False

    def layer_loss(self, logits: Tensor, scores: Tensor, goal: Goal, training: Training) -> Parts:
        """The best mask's loss, and the selection's cross entropy."""
        least, best = candidate_losses(logits, goal, training.refinement).min(dim=1)
        selection = F.cross_entropy(scores.float(), best)
        return {"mask": least.mean(), "selection": training.matching.objectness * selection}
