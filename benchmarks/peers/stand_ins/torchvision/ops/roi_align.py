"""Region pooling by bilinear samples (He and others, Mask R-CNN, 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def roi_align(
    maps: torch.Tensor,
    boxes: torch.Tensor,
    output_size: Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> torch.Tensor:
    """Pool boxes (image, x0, y0, x1, y1) of maps (images, channels, height, width) to one size each."""
    height, width = (int(side) for side in output_size)
    pooled = []
    for index, x0, y0, x1, y1 in boxes.tolist():
        shift = 0.5 if aligned else 0.0
        left, top, right, bottom = (side * spatial_scale - shift for side in (x0, y0, x1, y1))
        least = 0.0 if aligned else 1.0
        rows = _samples(top, max(bottom - top, least), height, sampling_ratio).to(maps)
        columns = _samples(left, max(right - left, least), width, sampling_ratio).to(maps)
        values = _bilinear(maps[int(index)], rows.flatten(), columns.flatten())
        values = values.reshape(-1, height, rows.shape[1], width, columns.shape[1])
        pooled.append(values.mean(dim=(2, 4)))
    return torch.stack(pooled)


def _samples(start: float, length: float, bins: int, ratio: int) -> torch.Tensor:
    """Positions (bins, samples a bin) along one axis."""
    count = ratio if ratio > 0 else max(math.ceil(length / bins), 1)
    steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return start + (torch.arange(bins, dtype=torch.float64)[:, None] + steps) * (length / bins)


def _bilinear(image: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Samples (channels, rows, columns); 0 more than a pixel outside."""
    (top, bottom, down, inside_y) = _weights(rows, image.shape[1])
    (left, right, across, inside_x) = _weights(columns, image.shape[2])
    upper = image[:, top][:, :, left] * (1 - across) + image[:, top][:, :, right] * across
    lower = image[:, bottom][:, :, left] * (1 - across) + image[:, bottom][:, :, right] * across
    inside = (inside_y[:, None] & inside_x[None]).to(image)
    return (upper * (1 - down[:, None]) + lower * down[:, None]) * inside


def _weights(positions: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both neighbours of each position, the weight of the second, and whether it counts at all."""
    inside = (positions >= -1) & (positions <= size)
    kept = positions.clamp(0, size - 1)
    first = kept.floor().long()
    return first, (first + 1).clamp(max=size - 1), kept - first, inside
