"""The proximity graph of an image's masks (paper, section 3.4, "Proximity-based method")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import networkx as nx
import numpy as np

from disbench.core.arrays import IntArray
from disbench.core.masks import Rle, areas, boxes, contained_shares, dilate
from disbench.sampling.hierarchy import check_masks

Dilated = Literal["one", "both"]


def proximity_graph(
    rles: Sequence[Rle],
    *,
    dilated: Dilated = "one",
    iterations: int = 1,
    min_overlap: int = 1,
    box: IntArray | None = None,
) -> nx.Graph:
    """Build the proximity graph: nodes 0..n-1 in input order, an edge between masks that touch or overlap.

    By default, as in the paper, two masks touch if one, dilated by a 3 x 3 square, overlaps the other in at least one
    pixel. The options go beyond the paper, for datasets with a band of unlabelled pixels between neighbours.

    Args:
        rles: non-empty masks of one size; ValueError otherwise, or for an option out of range.
        dilated: dilate `one` of the two masks (neighbours if either choice overlaps enough) or `both`.
        iterations: number of 3 x 3 dilations, >= 1.
        min_overlap: pixels of overlap after dilation that make two masks neighbours, >= 1.
        box: precomputed `boxes` of the masks; skips their validation.
    """
    if iterations < 1 or min_overlap < 1:
        raise ValueError(f"iterations ({iterations}) and min_overlap ({min_overlap}) must be at least 1")
    if dilated not in ("one", "both"):
        raise ValueError(f"dilated must be 'one' or 'both', not {dilated!r}")
    if box is None:
        check_masks(rles)
        box = boxes(rles)
    graph = nx.Graph()
    graph.add_nodes_from(range(len(rles)))
    reach = iterations * (2 if dilated == "both" else 1)
    grown: dict[int, Rle] = {}

    def grow(index: int) -> Rle:
        if index not in grown:
            grown[index] = dilate(rles[index], iterations)
        return grown[index]

    for first, near in enumerate(_near_boxes(box, reach)):
        if not near:
            continue
        others = [grow(second) if dilated == "both" else rles[second] for second in near]
        touching = _overlaps(grow(first), others) >= min_overlap
        if dilated == "one" and min_overlap > 1:
            # Dilating the other mask can overlap in more pixels, but "at least one" is symmetric.
            back = np.array([_overlaps(grow(second), [rles[first]])[0] for second in near])
            touching |= back >= min_overlap
        graph.add_edges_from((first, second) for second, touch in zip(near, touching, strict=True) if touch)
    return graph


def _near_boxes(box: IntArray, reach: int) -> list[list[int]]:
    """For each mask, the later masks whose boxes are within `reach` pixels."""
    start, end = box[:, :2], box[:, :2] + box[:, 2:]
    gaps = np.maximum(start[:, None], start[None]) - np.minimum(end[:, None], end[None])
    near = np.triu((gaps < reach).all(axis=2), k=1)
    return [np.flatnonzero(row).tolist() for row in near]


def _overlaps(rle: Rle, others: Sequence[Rle]) -> IntArray:
    """Intersection of a mask with each of the others in pixels: int64 (n,)."""
    shared = np.rint(contained_shares(rle, others) * areas([rle])[0])
    return np.asarray(shared, dtype=np.int64)
