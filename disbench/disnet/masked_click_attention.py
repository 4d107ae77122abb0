"""Masked click attention: the token gathers features near the clicks, within the kept mask (paper, eq. 4 to 8)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from disbench.disnet.batches import ClickBatch
from disbench.disnet.click_encodings import decay_map, grid_radii, on_grid
from disbench.disnet.options import ClickAttentionOptions, Modulation

FIRST_BETA = 4.0
"""Initial value of the learned weight of an additive decay map."""


def masked_attention(products: Tensor, mask_term: Tensor, values: Tensor) -> Tensor:
    """Z_MA = softmax(QK' / sqrt(d) + M) V (paper, eq. 4), float (batch, d).

    Args:
        products: QK' / sqrt(d), float (batch, cells).
        mask_term: M, float (batch, cells).
        values: V, float (batch, cells, d).
    """
    weights = (products + mask_term).softmax(dim=-1)
    return torch.einsum("bc,bcd->bd", weights, values)


def scaled_products(query: Tensor, key: nn.Linear, cells: Tensor) -> Tensor:
    """QK' / sqrt(d) with K = key(cells), without computing K: one query meets tens of thousands of cells.

    q . (W x + b) = (W' q) . x + q . b. Likewise V's projection is applied to the gathered vector, since the weights
    of eq. 4 add up to 1. Both equal the equations at 1 / d of the cost. float (batch, cells) from a query (batch, d)
    and cells (batch, cells, d).
    """
    products = torch.einsum("bd,bcd->bc", query @ key.weight, cells) + (query @ key.bias)[:, None]
    return products / math.sqrt(query.shape[-1])


def modulated(products: Tensor, decay: Tensor, modulation: Modulation, beta: Tensor | None) -> Tensor:
    """QK' / sqrt(d), float (batch, cells), under a decay map G of that shape: eq. 7 and 8 are "product"."""
    if modulation == "product":
        return products * decay
    if modulation == "one-plus":
        return products * (1 + decay)
    assert beta is not None
    return products + beta * decay


class MaskedClickAttention(nn.Module):
    """MCA: Z_p + Z_n (paper, eq. 6)."""

    def __init__(self, channels: int, options: ClickAttentionOptions) -> None:
        super().__init__()
        self.options = options
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.negative_value = nn.Linear(channels, channels) if options.separate_values else None
        self.beta = nn.Parameter(torch.tensor(FIRST_BETA)) if options.modulation == "additive" else None

    def forward(self, token: Tensor, features: Tensor, mask: Tensor, clicks: ClickBatch, stride: int) -> Tensor:
        """Z_MCA, float (batch, d).

        Args:
            token: Q_s, float (batch, d).
            features: F^-1, float (batch, height, width, d).
            mask: M_s, float (batch, height, width), probabilities.
            clicks: in pixels of the input.
            stride: pixels of the input to a cell.
        """
        size = (features.shape[1], features.shape[2])
        radii = grid_radii(self.options, stride, stride * max(size))
        cells = features.flatten(1, 2)
        products = scaled_products(self.query(token), self.key, cells)
        result = torch.zeros_like(token)
        for positive in (True, False):
            decay = decay_map(on_grid(clicks, stride), positive, size, radii)
            gathered = self._gather(products, cells, mask if positive else 1 - mask, decay, positive)
            result = result + gathered * self._share(clicks, positive)
        return result

    def _gather(self, products: Tensor, cells: Tensor, mask: Tensor, decay: Tensor, positive: bool) -> Tensor:
        """Z_p (eq. 7) or Z_n (eq. 8)."""
        value = self.value if positive or self.negative_value is None else self.negative_value
        if self.options.clicks_in_mask:
            mask = torch.maximum(mask, decay)
        scores = modulated(products, decay.flatten(1), self.options.modulation, self.beta)
        log_mask = mask.clamp(min=self.options.mask_floor).log().flatten(1)
        gathered: Tensor = value(masked_attention(scores, log_mask, cells))
        return gathered

    def _share(self, clicks: ClickBatch, positive: bool) -> Tensor | float:
        """1, or with `gate_unclicked` 0 for samples without a click of the sign."""
        if not self.options.gate_unclicked:
            return 1.0
        return clicks.signed(positive).any(dim=1, keepdim=True).float()


class PlainAttention(nn.Module):
    """Attention from the token to the features without mask and clicks: MCA switched off (Table 5)."""

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
