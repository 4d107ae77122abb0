"""Boxes."""

from __future__ import annotations

import torch


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    """Areas of boxes (x0, y0, x1, y1)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy suppression: numbers of the boxes that stay, the best score first.

    A box (x0, y0, x1, y1) goes if its IoU with a better one of its own group is above the threshold.
    """
    kept: list[int] = []
    for number in scores.argsort(descending=True, stable=True).tolist():
        better = torch.tensor([other for other in kept if idxs[other] == idxs[number]], dtype=torch.long)
        if not (_ious(boxes[number], boxes[better]) > iou_threshold).any():
            kept.append(number)
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)


def _ious(box: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU of a box (4,) with others (count, 4)."""
    sides = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0)
    both = sides.prod(dim=1)
    return both / (box_area(box[None]) + box_area(others) - both)


def masks_to_boxes(masks: torch.Tensor) -> torch.Tensor:
    """The inclusive boxes (x0, y0, x1, y1) of masks (count, height, width), float32."""
    boxes = torch.zeros((masks.shape[0], 4), dtype=torch.float32, device=masks.device)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = torch.where(mask != 0)
        box[:] = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()]).float()
    return boxes
