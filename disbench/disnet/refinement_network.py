"""The refinement network R: DAMC blocks correct the kept mask by all clicks (paper, eq. 3, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from disbench.disnet.batches import ClickBatch, Kept
from disbench.disnet.click_encodings import ClickVectors
from disbench.disnet.first_click_guidance import ConvFfn, FirstClickGuidance, PlainGuidance
from disbench.disnet.frames import STRIDE
from disbench.disnet.masked_click_attention import MaskedClickAttention, PlainAttention
from disbench.disnet.options import DisnetOptions


class DamcBlock(nn.Module):
    """Dual-attentional mask correction: the token by MCA, the features by FCG (paper, figure 3).

    Token: attention, add and norm, FFN, add and norm. Features: guidance, add, ConvFFN, add. `heads` are those of the
    attention among click vectors; `stride` is pixels of the network's input to a cell of the features.
    """

    def __init__(self, channels: int, heads: int, options: DisnetOptions, stride: int = STRIDE) -> None:
        super().__init__()
        self.stride = stride
        guidance = options.guidance
        self.attention = MaskedClickAttention(channels, options.attention) if options.mca else PlainAttention(channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
        self.ffn_norm = nn.LayerNorm(channels)
        self.click_vectors = ClickVectors(channels, guidance.click_augmented_feature, guidance.first_vector)
        self.guidance = FirstClickGuidance(channels, heads) if options.fcg else PlainGuidance(channels, heads)
        self.conv_ffn = ConvFfn(channels) if guidance.conv_ffn else None

    def forward(self, token: Tensor, features: Tensor, mask: Tensor, clicks: ClickBatch) -> tuple[Tensor, Tensor]:
        """The token, float (batch, d), and the features, float (batch, height, width, d), corrected."""
        token = self.attention_norm(token + self.attention(token, features, mask, clicks, self.stride))
        token = self.ffn_norm(token + self.ffn(token))
        vectors = self.click_vectors(features.permute(0, 3, 1, 2), clicks, self.stride)
        features = features + self.guidance(features, vectors, mask, clicks)
        if self.conv_ffn is not None:
            features = features + self.conv_ffn(features)
        return token, features


class RefinementNetwork(nn.Module):
    """R: the mask's logits from Q_s, F^-1, M_s and the clicks (paper, eq. 3); `channels` is d."""

    def __init__(self, channels: int, options: DisnetOptions, heads: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DamcBlock(channels, heads, options) for _ in range(options.blocks))

    def forward(self, kept: Kept, clicks: ClickBatch) -> Tensor:
        """Logits on the grid of F^-1: float (batch, height, width)."""
        token, features = kept.query, kept.features.permute(0, 2, 3, 1)
        mask = kept.logits.sigmoid()
        for block in self.blocks:
            token, features = block(token, features, mask, clicks)
        return torch.einsum("bd,bhwd->bhw", token, features)
