"""Boxes."""

from __future__ import annotations

import torch


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    """Areas of boxes (x0, y0, x1, y1)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(*arguments: object) -> torch.Tensor:
    """Not needed to predict from clicks."""
    raise NotImplementedError("the stand-in for torchvision has no non-maximum suppression")


def masks_to_boxes(masks: torch.Tensor) -> torch.Tensor:
    """The inclusive boxes (x0, y0, x1, y1) of masks (count, height, width), float32."""
    boxes = torch.zeros((masks.shape[0], 4), dtype=torch.float32, device=masks.device)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = torch.where(mask != 0)
        box[:] = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()]).float()
    return boxes
