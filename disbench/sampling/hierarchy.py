"""The mask hierarchy: a forest of masks by containment ("the hierarchy tree" of COCO+LVIS).

The rule is RITM's, although papers credit LVIS: a mask's parent is the innermost mask that covers most of it.
Everything is computed on RLEs, and only pairs with sufficient box overlap are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from disbench.core.arrays import BoolArray, FloatArray, IntArray
from disbench.core.masks import Rle, areas, boxes, pairwise_overlaps

BOX_SHARE, MASK_SHARE = 0.70, 0.80  # default thresholds of `containment_matrix`


@dataclass(frozen=True, slots=True)
class Forest:
    """Parents (-1 for a root), levels (0 for a root) and children (in order of attachment) of an image's masks."""

    parents: tuple[int, ...]
    levels: tuple[int, ...]
    children: tuple[tuple[int, ...], ...]


def build_hierarchy(rles: Sequence[Rle]) -> nx.DiGraph:
    """Build the hierarchy of an image's masks as a graph (docs/hierarchy.md, 2 and 3).

    Nodes 0..n-1 in input order with attribute `level` (0 for roots); edges from parent to child, in order of
    attachment. ValueError for an empty mask or masks of different sizes.
    """
    forest = build_forest(containment_matrix(rles), areas(rles))
    graph = nx.DiGraph()
    graph.add_nodes_from((node, {"level": level}) for node, level in enumerate(forest.levels))
    graph.add_edges_from((parent, child) for parent, row in enumerate(forest.children) for child in row)
    return graph


def containment_matrix(
    rles: Sequence[Rle],
    box_share: float = BOX_SHARE,
    mask_share: float = MASK_SHARE,
    precomputed: tuple[IntArray, IntArray] | None = None,
    considered: BoolArray | None = None,
) -> BoolArray:
    """Pairwise containment: bool (n, n), [i, j] is True if mask i contains mask j; the diagonal is False.

    Mask i contains j if area(i) >= area(j), the boxes' intersection is at least `box_share` of j's box, and the masks'
    intersection is more than `mask_share` of j's area.

    Args:
        rles: non-empty masks of one size; ValueError otherwise.
        box_share: in [0, 1].
        mask_share: in [0, 1].
        precomputed: `areas` and `boxes` of the masks; skips their validation.
        considered: symmetric bool (n, n), the pairs to consider; None for all.
    """
    if precomputed is None:
        check_masks(rles)
        precomputed = areas(rles), boxes(rles)
    area, box = precomputed
    candidates = (area[:, None] >= area) & (_box_shares(box) >= box_share)
    np.fill_diagonal(candidates, val=False)
    if considered is not None:
        candidates &= considered
    contains: BoolArray = mask_share < pairwise_overlaps(candidates.T, rles, rles, "contained").T
    return contains


def build_forest(contains: BoolArray, area: IntArray) -> Forest:
    """Attach each mask to the innermost mask that contains it (docs/hierarchy.md, 3).

    Masks are visited by descending area (later mask first on ties). Each mask i adopts every later mask j that it
    contains and that has no parent yet, at the place found by descending from i through the children attached so far.
    `contains` is a `containment_matrix`; `area` is in pixels.
    """
    count = len(area)
    parents, levels = [-1] * count, [0] * count
    children: list[list[int]] = [[] for _ in range(count)]
    pairs = set(zip(*(places.tolist() for places in contains.nonzero()), strict=True))
    if pairs:
        sizes = area.tolist()
        order = np.argsort(area, kind="stable")[::-1].tolist()
        rank = {node: position for position, node in enumerate(order)}
        for root, child in sorted(pairs, key=lambda pair: (rank[pair[0]], rank[pair[1]])):
            if parents[child] >= 0 or rank[child] < rank[root]:
                continue
            parent = _innermost_container(root, child, pairs, sizes, children)
            if parent is not None:
                parents[child], levels[child] = parent, levels[parent] + 1
                children[parent].append(child)
    return Forest(tuple(parents), tuple(levels), tuple(map(tuple, children)))


def check_masks(rles: Sequence[Rle]) -> None:
    """ValueError for a mask that is empty or not a compressed RLE, or masks of different sizes."""
    for index, rle in enumerate(rles):
        if not isinstance(rle, dict) or "size" not in rle or not isinstance(rle.get("counts"), bytes | str):
            raise ValueError(
                f"mask {index} is not a COCO compressed RLE with 'size' and 'counts'; make one with "
                "pycocotools.mask.encode or frPyObjects"
            )
    sizes = {tuple(rle["size"]) for rle in rles}
    if len(sizes) > 1:
        raise ValueError(f"masks of different sizes in one image: {sorted(sizes)}")
    if (empty := np.flatnonzero(areas(rles) == 0)).size:
        raise ValueError(f"mask {int(empty[0])} is empty; leave empty masks out")


def _innermost_container(
    node: int, child: int, pairs: set[tuple[int, int]], area: Sequence[int], children: Sequence[Sequence[int]]
) -> int | None:
    """The innermost mask containing `child` at or below `node`, by depth-first search, or None.

    A mask can contain the child even if its ancestors do not, so every branch of large enough masks is searched.
    """
    stack = [(node, iter(children[node]))]
    while stack:
        current, remaining = stack[-1]
        branch = next((b for b in remaining if area[b] >= area[child]), None)
        if branch is not None:
            stack.append((branch, iter(children[branch])))
        elif (current, child) in pairs:
            return current
        else:
            stack.pop()
    return None


def _box_shares(box: IntArray) -> FloatArray:
    """[i, j] is the share of box j inside box i."""
    sides = []
    for axis in (0, 1):
        start = box[:, axis]
        end = start + box[:, axis + 2]
        sides.append(np.maximum(np.minimum(end[:, None], end) - np.maximum(start[:, None], start), 0))
    return np.asarray(sides[0] * sides[1] / (box[:, 2] * box[:, 3]), dtype=np.float64)
