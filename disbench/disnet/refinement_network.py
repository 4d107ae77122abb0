"""The refinement network R: DAMC blocks correct the kept mask from all clicks (paper, eq. 3 to 13, section 3.3).

Masked click attention (MCA): the token gathers features near the clicks, within the kept mask. First-click guidance
(FCG): the features are gated by the relation of the other clicks to the first.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from disbench.disnet.batches import STRIDE, ClickBatch, Kept
from disbench.disnet.click_encodings import ClickVectors, decay_map, grid_radii, on_grid
from disbench.disnet.options import ClickAttentionOptions, DisnetOptions, Modulation

INITIAL_BETA = 4.0  # initial value of the learned weight of an additive decay map
MASK_FLOOR = 1e-6  # lower bound of M_s and 1 - M_s in the logarithm


def masked_attention(products: Tensor, mask_term: Tensor, values: Tensor) -> Tensor:
    """Z_MA = softmax(QK' / sqrt(d) + M) V (paper, eq. 4): float (batch, d).

    QK' / sqrt(d) and M are float (batch, cells), V is (batch, cells, d).
    """
    weights = (products + mask_term).softmax(dim=-1)
    return torch.einsum("bc,bcd->bd", weights, values)


def scaled_products(query: Tensor, key: nn.Linear, cells: Tensor) -> Tensor:
    """QK' / sqrt(d) with K = key(cells), without computing K for tens of thousands of cells.

    q . (W x + b) = (W' q) . x + q . b. Similarly, V's projection is applied to the gathered vector, since the weights
    of eq. 4 sum to 1. Both are equivalent to the equations at 1 / d of the cost. float (batch, cells) from a query
    (batch, d) and cells (batch, cells, d).
    """
    products = torch.einsum("bd,bcd->bc", query @ key.weight, cells) + (query @ key.bias)[:, None]
    return products / math.sqrt(query.shape[-1])


def modulate(products: Tensor, decay: Tensor, modulation: Modulation, beta: Tensor | None) -> Tensor:
    """Modulate QK' / sqrt(d), float (batch, cells), by a decay map G of that shape; "product" is eq. 7 and 8."""
    if beta is not None:
        return products + beta * decay
    return products * (decay if modulation == "product" else 1 + decay)


class PlainAttention(nn.Module):
    """Attention from the token to the features without mask and clicks: MCA off (Table 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)

    def forward(self, token: Tensor, features: Tensor, *_: object) -> Tensor:
        """Float (batch, d); token (batch, d), features (batch, height, width, d), other arguments unused."""
        cells = features.flatten(1, 2)
        products = scaled_products(self.query(token), self.key, cells)
        gathered: Tensor = self.value(masked_attention(products, torch.zeros_like(products), cells))
        return gathered


class MaskedClickAttention(PlainAttention):
    """MCA: Z_p + Z_n (paper, eq. 6 to 8)."""

    def __init__(self, channels: int, options: ClickAttentionOptions) -> None:
        super().__init__(channels)
        self.options = options
        self.negative_value = nn.Linear(channels, channels) if options.separate_values else None
        self.beta = nn.Parameter(torch.tensor(INITIAL_BETA)) if options.modulation == "additive" else None

    def forward(self, token: Tensor, features: Tensor, *given: Any) -> Tensor:
        """Z_MCA, float (batch, d).

        From Q_s (batch, d), F^-1 (batch, height, width, d), and in `given` the probabilities M_s (batch, height,
        width), clicks in input pixels, and the stride, pixels per cell.
        """
        mask, clicks, stride = given
        size, options = (features.shape[1], features.shape[2]), self.options
        radii = grid_radii(options, stride, stride * max(size))
        cells = features.flatten(1, 2)
        products = scaled_products(self.query(token), self.key, cells)
        result = torch.zeros_like(token)
        for positive, value in ((True, self.value), (False, self.negative_value or self.value)):
            decay = decay_map(on_grid(clicks, stride), positive, size, radii)
            own = mask if positive else 1 - mask
            if options.clicks_in_mask:
                own = torch.maximum(own, decay)
            scores = modulate(products, decay.flatten(1), options.modulation, self.beta)
            gathered = value(masked_attention(scores, own.clamp(min=MASK_FLOOR).log().flatten(1), cells))
            if options.gate_unclicked:
                gathered = gathered * clicks.signed(positive).any(dim=1, keepdim=True).float()
            result = result + gathered
        return result


class RelationalVector(nn.Module):
    """V = MHA(F'_fc, F'_pos or F'_neg): the first click attends to the other clicks of one sign (paper, eq. 10).

    If there are none, it attends to a learned "no click" vector, so that padding has no effect.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.no_click = nn.Parameter(torch.randn(channels) * 0.02)

    def forward(self, first: Tensor, others: Tensor, chosen: Tensor) -> Tensor:
        """V: float (batch, d), from F'_fc (batch, d), F' (batch, n, d), and `chosen`, bool (batch, n), to attend to."""
        no_click = self.no_click.to(others.dtype).expand(len(first), 1, -1)
        keys = torch.cat([no_click, others], dim=1)
        hidden = torch.cat([chosen.any(dim=1, keepdim=True), ~chosen], dim=1)
        found, _ = self.attention(first[:, None], keys, keys, key_padding_mask=hidden, need_weights=False)
        vector: Tensor = found[:, 0]
        return vector


class Gate(nn.Module):
    """SENet's gate: two fully connected layers and a sigmoid, one value per channel."""

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

        From F^-1 of that shape, F' (batch, clicks, d), the probabilities M_s (batch, height, width), and the clicks.
        """
        first, others = vectors[:, 0], vectors[:, 1:]
        positive = self.positive_vector(first, others, clicks.signed(True)[:, 1:])
        negative = self.negative_vector(first, others, clicks.signed(False)[:, 1:])
        inside = self.positive_gate(positive)[:, None, None, :] * mask[..., None]
        outside = self.negative_gate(negative)[:, None, None, :] * (1 - mask[..., None])
        guided: Tensor = features * (inside + outside)
        return guided


class PlainGuidance(nn.Module):
    """Attention from every cell to the click vectors, as in SAM's decoder: FCG off (Table 5)."""

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


class DamcBlock(nn.Module):
    """Dual-attentional mask correction: MCA on the token, FCG on the features (paper, figure 3).

    Token: attention, add and norm, FFN, add and norm. Features: guidance, add, ConvFFN, add. `heads` are for attention
    among click vectors; `stride` is input pixels per cell of the features.
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
        """The corrected token, float (batch, d), and features, float (batch, height, width, d)."""
        token = self.attention_norm(token + self.attention(token, features, mask, clicks, self.stride))
        token = self.ffn_norm(token + self.ffn(token))
        vectors = self.click_vectors(features.permute(0, 3, 1, 2), clicks, self.stride)
        features = features + self.guidance(features, vectors, mask, clicks)
        if self.conv_ffn is not None:
            features = features + self.conv_ffn(features)
        return token, features


class RefinementNetwork(nn.Module):
    """R: mask logits from Q_s, F^-1, M_s and the clicks (paper, eq. 3); `channels` is d."""

    def __init__(self, channels: int, options: DisnetOptions, heads: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DamcBlock(channels, heads, options) for _ in range(options.blocks))

    def forward(self, kept: Kept, clicks: ClickBatch, current: Tensor | None = None) -> Tensor:
        """Logits on the grid of F^-1, float (batch, height, width); `current` logits replace those of M_s."""
        token, features = kept.query, kept.features.permute(0, 2, 3, 1)
        mask = (kept.logits if current is None else current).sigmoid()
        for block in self.blocks:
            token, features = block(token, features, mask, clicks)
        return torch.einsum("bd,bhwd->bhw", token, features)
