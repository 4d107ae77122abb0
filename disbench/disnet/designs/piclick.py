"""PiClick: queries at every click, matched to all masks that the clicks may mean; scores estimate IoUs.

Yan et al., "PiClick: Picking the Desired Mask in Click-based Interactive Segmentation", 2023, section 3. Simplified:
one score replaces their objectness and IoU estimate, also in the matching cost; the set is the shards' diverse set
without the masks that disagree with a later click, while the paper uses all annotated masks that contain the click
and unions of them.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from disbench.disnet.batches import Proposals
from disbench.disnet.designs.design import Design, GroundTruth, Parts
from disbench.disnet.training.losses import proposal_loss
from disbench.disnet.training.settings import Training


class PiClick(Design):
    """Queries at every click, matched to all masks that the clicks may mean; scores estimate IoUs."""

    single = False

    def loss(self, proposals: Proposals, goal: GroundTruth, training: Training) -> tuple[Tensor, Parts]:
        """DISNet's matching loss, with the IoU with the target as the ground truth of the scores."""
        weights = replace(training.matching, objectness_target="own-iou", redundancy=0.0, ranking=0.0)
        return proposal_loss(proposals, goal.sets, goal.valid, weights)
