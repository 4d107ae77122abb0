"""Merging the annotations of COCO and LVIS for one image (docs/hierarchy.md, 1 and 4).

LVIS annotates the images of COCO anew, so most COCO instances are there twice. A COCO mask that LVIS has
too is dropped, and so is an LVIS mask that LVIS itself has twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from disbench.core.arrays import BoolArray, FloatArray, IntArray
from disbench.core.masks import Rle, areas, boxes, difference, overlaps_where, union

BOX_IOU = 0.70
COCO_IOU = 0.70
LVIS_IOU = 0.85
STUFF_AREA = 500


def interval_box_ious(first: IntArray, second: IntArray) -> FloatArray:
    """The box IoU of the merge rule, float64 (n, m): the product of the IoUs of the row and the column intervals.

    Each interval IoU is the intersection over the interval that encloses both, in inclusive pixels; this
    is not the usual ratio of areas. Boxes are int (n, 4) and (m, 4) of x, y, width, height.
    """
    shares = []
    for axis in (0, 1):
        start, other_start = first[:, None, axis], second[None, :, axis]
        end, other_end = start + first[:, None, axis + 2], other_start + second[None, :, axis + 2]
        inner = np.maximum(np.minimum(end, other_end) - np.maximum(start, other_start), 0)
        shares.append(inner / (np.maximum(end, other_end) - np.minimum(start, other_start)))
    return np.asarray(shares[0] * shares[1], dtype=np.float64)


def coco_repeated_in_lvis(
    coco: Sequence[Rle], lvis: Sequence[Rle], box: IntArray | None = None, lvis_box: IntArray | None = None
) -> BoolArray:
    """Which COCO masks LVIS has too: box IoU > 0.70 and mask IoU > 0.70 with some LVIS mask; bool (n,).

    All masks are of one size, none empty; boxes are `boxes` of the masks where the caller has them.
    """
    if not coco or not lvis:
        return np.zeros(len(coco), dtype=bool)
    shares = interval_box_ious(boxes(coco) if box is None else box, boxes(lvis) if lvis_box is None else lvis_box)
    return _any_above(COCO_IOU, shares > BOX_IOU, coco, lvis)


def lvis_repeated_later(lvis: Sequence[Rle], box: IntArray | None = None) -> BoolArray:
    """Which LVIS masks come again: box IoU > 0.70 and mask IoU > 0.85 with a later LVIS mask; bool (n,).

    The masks are in the order of the file, boxes as for `coco_repeated_in_lvis`. The later mask counts even if it is
    dropped itself.
    """
    if len(lvis) < 2:
        return np.zeros(len(lvis), dtype=bool)
    box = boxes(lvis) if box is None else box
    return _any_above(LVIS_IOU, np.triu(interval_box_ious(box, box) > BOX_IOU, k=1), lvis, lvis)


def stuff_left_over(stuff: Sequence[Rle], instances: Sequence[Rle]) -> list[Rle | None]:
    """Stuff regions less the union of the instance masks that were kept; None where 500 pixels or fewer are left."""
    if not stuff:
        return []
    covered = [union(instances)] if instances else []
    left = [difference(region, covered) for region in stuff]
    return [rle if area > STUFF_AREA else None for rle, area in zip(left, areas(left), strict=True)]


def _any_above(threshold: float, near: BoolArray, rles: Sequence[Rle], others: Sequence[Rle]) -> BoolArray:
    """Which masks have a larger IoU than the threshold with one of the others that are near."""
    return np.asarray((overlaps_where(near, rles, others, "iou") > threshold).any(axis=1), dtype=np.bool_)
