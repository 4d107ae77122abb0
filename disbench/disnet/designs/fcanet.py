"""FCANet: the mask for all clicks and the last mask, corrected by what the first click's features say.

Lin et al., "Interactive Image Segmentation with First Click Attention", CVPR 2020, section 3.1. Simplified: the
branch of the first click compares the features F^-1 of every cell with those at the click, which gives a mask; that
mask splits the features in two, from which a correction of the main mask is computed. No loss weighted by distance
to clicks, no removal of parts that no click touches ("structural integrity").
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disbench.disnet.batches import STRIDE, ClickBatch, Proposals
from disbench.disnet.click_encodings import click_distances, on_grid, sampled_features
from disbench.disnet.designs.design import Design


class FcaNet(Design):
    """The mask for all clicks and the last mask, corrected by what the first click's features say."""

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
