"""Diverse sets: for an object, the masks that a first click on it may mean (paper, section 3.4).

A set is described by numbers of objects, never by copies of masks: each member is the union of the objects
it names, and the click region is the center's mask less the objects named as excluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal

import networkx as nx
import numpy as np

from disbench.core.arrays import BoolArray, IntArray
from disbench.core.masks import Rle, areas, difference, union
from disbench.core.scenes import Combination, SetOfObjects
from disbench.sampling.hierarchy import Forest

Nest = Literal["annotated", "union"]

MAX_LOOKED_AT = 1 << 16
"""Combinations that are looked at for one center at most; nested neighbours could hide 2**60 equal unions."""


def hierarchy_sets(
    rles: Sequence[Rle], forest: Forest, nest: Nest = "annotated", area: IntArray | None = None
) -> list[SetOfObjects]:
    """Hierarchy-based sets: a center, then its parents up to the root; at most one an object, in their order.

    The click region is the center's mask less the union of its children's masks; an object whose click
    region is empty has no set. `nest`: `annotated` takes each mask as it is; `union` adds the inner masks to the outer
    ones, so that the set nests exactly. `area` is `areas` of the masks where the caller has them.
    """
    pixels = (areas(rles) if area is None else area).tolist()
    paths: list[Combination] = [()] * len(rles)
    for node in sorted(range(len(rles)), key=forest.levels.__getitem__):
        parent = forest.parents[node]
        paths[node] = (node, *paths[parent]) if parent >= 0 else (node,)
    sets = []
    for center, (path, children) in enumerate(zip(paths, forest.children, strict=True)):
        if children and not _pixels_left(center, children, rles, pixels):
            continue
        starts = range(len(path)) if nest == "annotated" else [0] * len(path)
        members = tuple([path[start : end + 1] for end, start in enumerate(starts)])
        sets.append(SetOfObjects(center, members, children))
    return sets


def proximity_sets(rles: Sequence[Rle], graph: nx.Graph, centers: Sequence[int], cap: int = 16) -> list[SetOfObjects]:
    """Proximity-based sets, one a center: it is united with every combination of its 1-hop neighbours in `centers`.

    The center alone comes first; combinations are ordered by how many neighbours are in them, then by the
    area of the union, then by the neighbours' numbers. Identical unions are kept once. A set has at most `cap` masks.
    """
    eligible = set(centers)
    return [_proximity_set(rles, center, sorted(eligible.intersection(graph[center])), cap) for center in centers]


def containment_sets(contains: BoolArray, area: IntArray) -> list[SetOfObjects]:
    """PiClick's rule as a control: the center and every object whose mask contains the center's, by area, then number.

    `contains` is bool (n, n), [i, j] says that i contains j. The click region is the center's whole mask.
    """
    sets = []
    for center in range(len(area)):
        outer = [int(i) for i in np.flatnonzero(contains[:, center])]
        outer.sort(key=lambda i: (area[i], i))
        sets.append(SetOfObjects(center, ((center,), *((i,) for i in outer))))
    return sets


def random_merge_sets(
    rles: Sequence[Rle],
    like: Sequence[SetOfObjects],
    centers: Sequence[int],
    largest_merge: int,
    generator: np.random.Generator,
) -> list[SetOfObjects]:
    """Random merging as a control: the center united with 1 to `largest_merge` other objects of `centers`.

    Every set of the proximity method (`like`) gets a counterpart with the same center and, as far as the image has
    that many distinct unions, the same number of masks.
    """
    return [_random_merge_set(rles, model, centers, largest_merge, generator) for model in like]


def _proximity_set(rles: Sequence[Rle], center: int, neighbours: Sequence[int], cap: int) -> SetOfObjects:
    effective = _effective_neighbours(rles, center, neighbours)
    kept: list[Combination] = []
    seen: set[bytes] = set()
    looked = 0
    for members, merged in _ordered_unions(rles, center, effective):
        if len(kept) == cap or looked == MAX_LOOKED_AT:
            break
        looked += 1
        if merged["counts"] not in seen:
            seen.add(merged["counts"])
            kept.append(members)
    left_out = 2 ** len(effective) - looked
    return SetOfObjects(center, tuple(kept), left_out=left_out, repeated=2 ** len(neighbours) - left_out - len(kept))


def _effective_neighbours(rles: Sequence[Rle], center: int, neighbours: Sequence[int]) -> list[int]:
    """Neighbours that add pixels to the center, each union once: the others only repeat smaller unions."""
    effective, seen = [], {rles[center]["counts"]}
    for neighbour in neighbours:
        counts = union([rles[center], rles[neighbour]])["counts"]
        if counts not in seen:
            seen.add(counts)
            effective.append(neighbour)
    return effective


def _ordered_unions(rles: Sequence[Rle], center: int, neighbours: Sequence[int]) -> Iterator[tuple[Combination, Rle]]:
    """Combinations in the order of `proximity_sets`, each with its union; one size at a time is held.

    A size with more combinations than may be looked at is cut to the first of them before it is ordered.
    """
    for size in range(len(neighbours) + 1):
        batch = []
        for chosen in combinations(neighbours, size):
            members = (center, *chosen)
            batch.append((members, union([rles[i] for i in members])))
            if len(batch) == MAX_LOOKED_AT:
                break
        area = areas([merged for _, merged in batch])
        for place in np.argsort(area, kind="stable"):
            yield batch[place]


def _random_merge_set(
    rles: Sequence[Rle], model: SetOfObjects, centers: Sequence[int], largest_merge: int, generator: np.random.Generator
) -> SetOfObjects:
    center, wanted = model.center, len(model.members)
    others = [index for index in centers if index != center]
    drawn: list[tuple[int, int, Combination]] = []
    seen = {rles[center]["counts"]}
    tried: set[Combination] = set()
    for _ in range(20 * wanted):  # an image of few objects has fewer distinct unions than are wanted
        if not others or len(drawn) + 1 >= wanted:
            break
        size = int(generator.integers(1, min(largest_merge, len(others)) + 1))
        chosen = tuple(sorted(int(i) for i in generator.choice(others, size=size, replace=False)))
        if chosen in tried:
            continue
        tried.add(chosen)
        merged = union([rles[i] for i in (center, *chosen)])
        if merged["counts"] not in seen:
            seen.add(merged["counts"])
            drawn.append((size, int(areas([merged])[0]), (center, *chosen)))
    members = ((center,), *(members for *_, members in sorted(drawn)))
    return SetOfObjects(center, members, left_out=wanted - len(members))


def _pixels_left(center: int, children: Sequence[int], rles: Sequence[Rle], area: Sequence[int]) -> bool:
    """Whether the center has a pixel that none of its children covers."""
    if sum(area[child] for child in children) < area[center]:
        return True
    return bool(areas([difference(rles[center], [rles[child] for child in children])])[0])
