"""FCANet: one mask from all clicks and the last mask, corrected from the first click's features.

Lin et al., "Interactive Image Segmentation with First Click Attention", CVPR 2020, section 3.1. Simplified: the
first-click branch compares the features F^-1 of each cell with those at the click to give a mask, which splits the
features into two parts for a correction of the main mask. No loss weighted by distance to clicks, no removal of
parts without a click ("structural integrity").
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disbench.disnet.batches import STRIDE, ClickBatch, Proposals
from disbench.disnet.click_encodings import click_distances, on_grid, sample_features
from disbench.disnet.designs.design import Design


class FcaNet(Design):
    """One mask from all clicks and the last mask, corrected from the first click's features."""

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
        """The corrected mask; the branch's own mask is added to `earlier` for an auxiliary loss."""
        attention = self.attention(proposals.features, clicks.first)
        features = proposals.features.permute(0, 2, 3, 1)
        inside = attention.sigmoid()[..., None]
        mixed = self.mix(torch.cat([features * inside, features * (1 - inside)], dim=-1))
        logits = proposals.logits + self.correction(F.gelu(mixed))[..., 0][:, None]
        branch = (attention[:, None], proposals.objectness)
        return replace(proposals, logits=logits, earlier=(*proposals.earlier, branch))

    def attention(self, features: Tensor, first: ClickBatch) -> Tensor:
        """The branch's mask: logits (batch, h, w), from F^-1 (batch, d, h, w) and first clicks in input pixels.

        q . F / sqrt(d) + a * distance + b, with q from F at the click and distances relative to the grid's side.
        """
        query = self.query(sample_features(features, first.points, STRIDE)[:, 0])
        products = torch.einsum("bd,bdhw->bhw", query, features) / math.sqrt(features.shape[1])
        height, width = features.shape[-2:]
        distances = click_distances(on_grid(first, STRIDE), (height, width))[:, 0] / max(height, width)
        return products + self.distance * distances + self.bias
