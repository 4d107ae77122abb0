"""The proximity graph: which masks of an image touch (paper, section 3.4, "Proximity-based method")."""

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
    """Neighbourhood of an image's masks: an edge where two touch; nodes 0..n-1 in the order given.

    The paper dilates one mask by a 3 x 3 square and asks for one pixel of overlap; that is the default.
    Masks that overlap without dilation touch too. The options go beyond the paper, for datasets that
    separate neighbours by a band of unlabelled pixels.

    Args:
        rles: masks of one size, none empty; ValueError otherwise, or for an option out of range.
        dilated: `one` of the two masks (if either choice overlaps enough, they are neighbours) or `both`.
        iterations: how often the 3 x 3 dilation is repeated, at least 1.
        min_overlap: pixels of overlap after dilation that make two masks neighbours, at least 1.
        box: `boxes` of the masks where the caller has them; the masks are then not checked.
    """
    if iterations < 1 or min_overlap < 1:
        raise ValueError(f"iterations ({iterations}) and min_overlap ({min_overlap}) start at 1")
    if dilated not in ("one", "both"):
        raise ValueError(f"dilated is 'one' or 'both', not {dilated!r}")
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
            # Dilating the other mask can give more pixels of overlap; for a single pixel it never matters.
            back = np.array([_overlaps(grow(second), [rles[first]])[0] for second in near])
            touching |= back >= min_overlap
        graph.add_edges_from((first, second) for second, touch in zip(near, touching, strict=True) if touch)
    return graph


def _near_boxes(box: IntArray, reach: int) -> list[list[int]]:
    """For each mask the later masks whose boxes come within `reach` pixels of its own."""
    start, end = box[:, :2], box[:, :2] + box[:, 2:]
    gaps = np.maximum(start[:, None], start[None]) - np.minimum(end[:, None], end[None])
    near = np.triu((gaps < reach).all(axis=2), k=1)
    return [np.flatnonzero(row).tolist() for row in near]


def _overlaps(rle: Rle, others: Sequence[Rle]) -> IntArray:
    """Pixels that a mask shares with each of the others: int64 (n,)."""
    shared = np.rint(contained_shares(rle, others) * areas([rle])[0])
    return np.asarray(shared, dtype=np.int64)
