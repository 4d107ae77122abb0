"""Click encodings: disk maps, decay maps, position codes and click vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disbench.disnet.batches import ClickBatch
from disbench.disnet.options import ClickAttentionOptions

DISK_RADIUS = 5.0  # radius of the disks of the click map S, input pixels
INPUT_SIDE = 448  # input side that the paper's radii refer to, pixels


def click_distances(clicks: ClickBatch, size: tuple[int, int]) -> Tensor:
    """Distances of grid cells from clicks, all in cells: float (batch, clicks, height, width)."""
    y, x = (
        (torch.arange(side, device=clicks.points.device, dtype=torch.float32) - clicks.points[..., axis, None]).square()
        for side, axis in zip(size, (1, 0), strict=True)
    )
    return (x[:, :, None, :] + y[:, :, :, None]).sqrt()


def disk_map(clicks: ClickBatch, size: tuple[int, int], positive: bool = True) -> Tensor:
    """Enc2D: 1 within `DISK_RADIUS` pixels of a click of this sign, 0 elsewhere (paper, section 3.1).

    float32 (batch, 1, height, width), from clicks in input pixels; for S_F pass only the first clicks.
    """
    distances = click_distances(clicks, size)
    inside = (distances <= DISK_RADIUS) & clicks.signed(positive)[:, :, None, None]
    return inside.any(dim=1, keepdim=True).float()


def decay_map(clicks: ClickBatch, positive: bool, size: tuple[int, int], radii: tuple[float, float]) -> Tensor:
    """Linear decay around the clicks of one sign: G_p or G_n (paper, eq. 5).

    1 on a click, 0 from its radius on; the maximum where clicks overlap. float32 (batch, height, width) in [0, 1], 0
    without a click of this sign. Clicks and `radii` (r_0 of the first click and of the others, > 0) are in map cells.
    """
    distances = click_distances(clicks, size).masked_fill(~clicks.signed(positive)[:, :, None, None], torch.inf)
    decays = [
        1 - own.amin(dim=1).clamp(max=radius) / radius
        for own, radius in zip((distances[:, :1], distances[:, 1:]), radii, strict=True)
        if own.shape[1]
    ]
    return torch.stack(decays).amax(dim=0)


def on_grid(clicks: ClickBatch, stride: int) -> ClickBatch:
    """Convert clicks to cells of a grid, whose centers are integers."""
    return ClickBatch((clicks.points + 0.5) / stride - 0.5, clicks.positive, clicks.given)


def grid_radii(options: ClickAttentionOptions, stride: int, input_side: int) -> tuple[float, float]:
    """r_0 of the first click and of the others, in cells of `stride` pixels, for an input of `input_side` pixels."""
    factor = 1.0 if options.radius_unit == "feature" else input_side / INPUT_SIDE / stride
    return options.first_click_radius * factor, options.other_click_radius * factor


def position_code(points: Tensor, channels: int, input_side: int) -> Tensor:
    """Sine-cosine position code (the dense part of Enc1D; paper, section 3.3).

    A quarter of the channels each: sines of x, cosines of x, sines of y, cosines of y, at wavelengths from the
    input's side down to a 64th of it in geometric steps. Maps points, float (..., 2) of x, y in input pixels, to
    float (..., channels) in [-1, 1]; `channels` is a multiple of 4.
    """
    count = channels // 4
    turns = 64.0 ** (torch.arange(count, device=points.device, dtype=points.dtype) / max(count - 1, 1))
    angles = 2 * math.pi * ((points + 0.5) / input_side)[..., None] * turns
    return torch.stack([angles.sin(), angles.cos()], dim=-2).flatten(-3)


def sample_features(features: Tensor, points: Tensor, stride: int) -> Tensor:
    """Sample features at points, bilinear between cell centers, constant beyond the outermost centers.

    From features (batch, channels, height, width) and points (batch, n, 2) of x, y in input pixels, `stride` pixels
    per cell, to (batch, n, channels).
    """
    height, width = features.shape[-2:]
    size = torch.tensor([width, height], device=points.device, dtype=points.dtype)
    normalised = (points + 0.5) / stride / size * 2 - 1
    found = F.grid_sample(features, normalised[:, None].to(features.dtype), padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)


class ClickCodes(nn.Module):
    """Enc1D: P^t, a position code plus one of two learned sign vectors of d channels (paper, section 3.3).

    With `first_vector`, a learned vector is added to the first click's code.
    """

    def __init__(self, channels: int, first_vector: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.signs = nn.Parameter(torch.randn(2, channels) * 0.02)
        self.first = nn.Parameter(torch.zeros(channels)) if first_vector else None

    def forward(self, clicks: ClickBatch, input_side: int) -> Tensor:
        """P^t: float (batch, clicks, d)."""
        codes = position_code(clicks.points, self.channels, input_side) + self.signs[clicks.positive.long()]
        return codes if self.first is None else torch.cat([codes[:, :1] + self.first, codes[:, 1:]], dim=1)


class ClickVectors(nn.Module):
    """F': one vector per click, from F^-1 at the click and the click's code P^t (paper, eq. 9).

    Without `augmented` (Table 2 without AC), only F^-1 at the click is projected.
    """

    def __init__(self, channels: int, augmented: bool = True, first_vector: bool = False) -> None:
        super().__init__()
        self.codes = ClickCodes(channels, first_vector) if augmented else None
        self.projection = nn.Linear(2 * channels if augmented else channels, channels)

    def forward(self, features: Tensor, clicks: ClickBatch, stride: int) -> Tensor:
        """F': float (batch, clicks, d); features: F^-1, float (batch, d, height, width)."""
        found = sample_features(features, clicks.points, stride)
        if self.codes is not None:
            codes = self.codes(clicks, stride * max(features.shape[-2:]))
            found = torch.cat([found, codes.to(found.dtype)], dim=-1)
        vectors: Tensor = self.projection(found)
        return vectors
