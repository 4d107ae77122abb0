"""First-click guidance: the features are gated by how the other clicks relate to the first (paper, eq. 10 to 13)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from disbench.disnet.batches import ClickBatch


class RelationalVector(nn.Module):
    """V = MHA(F'_fc, F'_pos or F'_neg): the first click attends to the others of a sign (paper, eq. 10).

    Without such clicks it attends to a learned "no click" vector, so that padding has no effect.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.no_click = nn.Parameter(torch.randn(channels) * 0.02)

    def forward(self, first: Tensor, others: Tensor, chosen: Tensor) -> Tensor:
        """V: float (batch, d).

        Args:
            first: F'_fc, float (batch, d).
            others: F', float (batch, n, d), of any clicks.
            chosen: bool (batch, n), the clicks to attend to.
        """
        no_click = self.no_click.to(others.dtype).expand(len(first), 1, -1)
        keys = torch.cat([no_click, others], dim=1)
        hidden = torch.cat([chosen.any(dim=1, keepdim=True), ~chosen], dim=1)
        found, _ = self.attention(first[:, None], keys, keys, key_padding_mask=hidden, need_weights=False)
        vector: Tensor = found[:, 0]
        return vector


class Gate(nn.Module):
    """SENet's gate of a vector of d channels: two fully connected layers and a sigmoid, one value for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 4, 4)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, vector: Tensor) -> Tensor:
        """Float (batch, d) in (0, 1)."""
        gate: Tensor = self.excite(self.squeeze(vector).relu()).sigmoid()
        return gate


class FirstClickGuidance(nn.Module):
    """FCG: gate(V_pos) * F * M_s + gate(V_neg) * F * (1 - M_s) (paper, eq. 11 to 13)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.positive_vector = RelationalVector(channels, heads)
        self.negative_vector = RelationalVector(channels, heads)
        self.positive_gate = Gate(channels)
        self.negative_gate = Gate(channels)

    def forward(self, features: Tensor, vectors: Tensor, mask: Tensor, clicks: ClickBatch) -> Tensor:
        """Z_FCG, float (batch, height, width, d).

        Args:
            features: F^-1, float (batch, height, width, d).
            vectors: F', float (batch, clicks, d).
            mask: M_s, float (batch, height, width), probabilities.
            clicks: the same clicks, for their signs.
        """
        first, others = vectors[:, 0], vectors[:, 1:]
        positive = self.positive_vector(first, others, clicks.signed(True)[:, 1:])
        negative = self.negative_vector(first, others, clicks.signed(False)[:, 1:])
        inside = self.positive_gate(positive)[:, None, None, :] * mask[..., None]
        outside = self.negative_gate(negative)[:, None, None, :] * (1 - mask[..., None])
        guided: Tensor = features * (inside + outside)
        return guided


class PlainGuidance(nn.Module):
    """Attention from every cell to the click vectors, as in SAM's decoder: FCG switched off (Table 5)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, features: Tensor, vectors: Tensor, _: Tensor, clicks: ClickBatch) -> Tensor:
        """Float (batch, height, width, d); arguments as for `FirstClickGuidance`, the mask unused."""
        found, _ = self.attention(
            features.flatten(1, 2), vectors, vectors, key_padding_mask=~clicks.given, need_weights=False
        )
        result: Tensor = found.view_as(features)
        return result


class ConvFfn(nn.Module):
    """Depth-wise ConvFFN: 1x1 to twice the d channels, 3x3 depth-wise, GELU, 1x1 (paper, section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.widen = nn.Linear(channels, wide)  # 1x1 convolutions are several times faster as linear layers on a CPU
        self.spread = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.narrow = nn.Linear(wide, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Float (batch, height, width, d) to the same shape."""
        wide = self.widen(features).permute(0, 3, 1, 2)
        spread = nn.functional.gelu(self.spread(wide)).permute(0, 2, 3, 1)
        result: Tensor = self.narrow(spread)
        return result
