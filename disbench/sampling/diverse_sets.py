"""Diverse sets: the candidate masks of a first click on an object (paper, section 3.4).

Sets refer to objects by index instead of copying masks: each member is the union of the objects it lists, and the
click region is the center's mask minus the excluded objects.
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

MAX_COMBINATIONS = 1 << 16  # tried per center; nested neighbours could give 2**60 equal unions


def hierarchy_sets(
    rles: Sequence[Rle], forest: Forest, nest: Nest = "annotated", area: IntArray | None = None
) -> list[SetOfObjects]:
    """Hierarchy-based sets: a center, then its ancestors up to the root; at most one set per object, in object order.

    The click region is the center's mask minus its children's masks; objects with an empty click region have no set.
    With `nest` `annotated`, masks are used unchanged; `union` adds the inner masks to the outer ones, so the set nests
    exactly. `area`: precomputed `areas` of the masks.
    """
    pixels = (areas(rles) if area is None else area).tolist()
    paths: list[Combination] = [()] * len(rles)
    for node in sorted(range(len(rles)), key=forest.levels.__getitem__):
        parent = forest.parents[node]
        paths[node] = (node, *paths[parent]) if parent >= 0 else (node,)
    sets = []
    for center, (path, children) in enumerate(zip(paths, forest.children, strict=True)):
        if children and not _has_uncovered_pixels(center, children, rles, pixels):
            continue
        starts = range(len(path)) if nest == "annotated" else [0] * len(path)
        members = tuple([path[start : end + 1] for end, start in enumerate(starts)])
        sets.append(SetOfObjects(center, members, children))
    return sets


def proximity_sets(rles: Sequence[Rle], graph: nx.Graph, centers: Sequence[int], cap: int = 16) -> list[SetOfObjects]:
    """Proximity-based sets, one per center: its union with every combination of its 1-hop neighbours in `centers`.

    The center alone comes first; combinations are sorted by number of neighbours, then area of the union, then
    neighbour indices. Identical unions are kept once. A set has at most `cap` masks.
    """
    eligible = set(centers)
    return [_proximity_set(rles, center, sorted(eligible.intersection(graph[center])), cap) for center in centers]


def containment_sets(contains: BoolArray, area: IntArray) -> list[SetOfObjects]:
    """PiClick's rule as a control: the center and every object whose mask contains it, by area, then index.

    `contains` is bool (n, n); [i, j] is True if i contains j. The click region is the center's whole mask.
    """
    sets = []
    for center in range(len(area)):
        outer = [int(i) for i in np.flatnonzero(contains[:, center])]
        outer.sort(key=lambda i: (area[i], i))
        sets.append(SetOfObjects(center, ((center,), *((i,) for i in outer))))
    return sets


def random_merge_sets(
    rles: Sequence[Rle],
    templates: Sequence[SetOfObjects],
    centers: Sequence[int],
    largest_merge: int,
    generator: np.random.Generator,
) -> list[SetOfObjects]:
    """Random merging as a control: the union of the center with 1 to `largest_merge` other objects in `centers`.

    Each proximity set in `templates` gets a counterpart with the same center and, if the image has enough distinct
    unions, the same number of masks.
    """
    return [_random_merge_set(rles, template, centers, largest_merge, generator) for template in templates]


def _proximity_set(rles: Sequence[Rle], center: int, neighbours: Sequence[int], cap: int) -> SetOfObjects:
    extending = _extending_neighbours(rles, center, neighbours)
    distinct: list[Combination] = []
    seen: set[bytes] = set()
    tried = 0
    for combination, merged in _ordered_unions(rles, center, extending):
        if len(distinct) == cap or tried == MAX_COMBINATIONS:
            break
        tried += 1
        if merged["counts"] not in seen:
            seen.add(merged["counts"])
            distinct.append(combination)
    left_out = 2 ** len(extending) - tried
    repeated = 2 ** len(neighbours) - left_out - len(distinct)
    return SetOfObjects(center, tuple(distinct), left_out=left_out, repeated=repeated)


def _extending_neighbours(rles: Sequence[Rle], center: int, neighbours: Sequence[int]) -> list[int]:
    """Neighbours whose union with the center is new; others only repeat smaller unions."""
    extending, seen = [], {rles[center]["counts"]}
    for neighbour in neighbours:
        counts = union([rles[center], rles[neighbour]])["counts"]
        if counts not in seen:
            seen.add(counts)
            extending.append(neighbour)
    return extending


def _ordered_unions(rles: Sequence[Rle], center: int, neighbours: Sequence[int]) -> Iterator[tuple[Combination, Rle]]:
    """Combinations and their unions in the order of `proximity_sets`, holding one size at a time.

    Each size is cut to its first `MAX_COMBINATIONS` combinations before sorting.
    """
    for size in range(len(neighbours) + 1):
        batch = []
        for chosen in combinations(neighbours, size):
            members = (center, *chosen)
            batch.append((members, union([rles[i] for i in members])))
            if len(batch) == MAX_COMBINATIONS:
                break
        area = areas([merged for _, merged in batch])
        for index in np.argsort(area, kind="stable"):
            yield batch[index]


def _random_merge_set(
    rles: Sequence[Rle],
    template: SetOfObjects,
    centers: Sequence[int],
    largest_merge: int,
    generator: np.random.Generator,
) -> SetOfObjects:
    center, size = template.center, len(template.members)
    others = [index for index in centers if index != center]
    drawn: list[tuple[int, int, Combination]] = []
    seen = {rles[center]["counts"]}
    tried: set[Combination] = set()
    for _ in range(20 * size):  # few objects may not have `size` distinct unions
        if not others or len(drawn) + 1 >= size:
            break
        count = int(generator.integers(1, min(largest_merge, len(others)) + 1))
        chosen = tuple(sorted(int(i) for i in generator.choice(others, size=count, replace=False)))
        if chosen in tried:
            continue
        tried.add(chosen)
        merged = union([rles[i] for i in (center, *chosen)])
        if merged["counts"] not in seen:
            seen.add(merged["counts"])
            drawn.append((count, int(areas([merged])[0]), (center, *chosen)))
    members = ((center,), *(members for *_, members in sorted(drawn)))
    return SetOfObjects(center, members, left_out=size - len(members))


def _has_uncovered_pixels(center: int, children: Sequence[int], rles: Sequence[Rle], area: Sequence[int]) -> bool:
    """True if the center has a pixel not covered by its children."""
    if sum(area[child] for child in children) < area[center]:
        return True
    return bool(areas([difference(rles[center], [rles[child] for child in children])])[0])
