"""The rules of the samplers, said again in plain slow Python over full-frame boolean arrays.

Masks are boolean arrays (n, height, width). No mask is empty. Nothing here is cropped, kept as run
lengths or vectorised over pairs, and a share is a fraction of integers, so that "exactly at the threshold"
means what it says. Each function quotes the sentence that it restates.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Masks = npt.NDArray[np.bool_]
Interval = tuple[int, int]

SQUARE = np.ones((3, 3), dtype=bool)


class Forest(NamedTuple):
    """Per mask: its parent (None for a root), its level, its children in the order of attachment."""

    parents: list[int | None]
    levels: list[int]
    children: list[list[int]]


class ProximityMembers(NamedTuple):
    """The distinct unions that are kept, what each is a union of, and the tally of the other combinations.

    A combination is `repeated` if an earlier one has the same union, kept or not; `left_out` if it is the
    first of its union and comes after the cap.
    """

    masks: list[Mask]
    combinations: list[tuple[int, ...]]
    repeated: int
    left_out: int


def area(mask: Mask) -> int:
    """Number of pixels."""
    return int(np.count_nonzero(mask))


def intersection_area(first: Mask, second: Mask) -> int:
    """Number of common pixels."""
    return area(first & second)


def box(mask: Mask) -> tuple[Interval, Interval]:
    """Rows and columns, first and last: "Boxes are inclusive pixel boxes (height = y1 - y0 + 1)."."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def length(interval: Interval) -> int:
    """Pixels of an inclusive interval; 0 where it ends before it begins."""
    return max(0, interval[1] - interval[0] + 1)


def common(first: Interval, second: Interval) -> Interval:
    """The interval inside both."""
    return max(first[0], second[0]), min(first[1], second[1])


def enclosing(first: Interval, second: Interval) -> Interval:
    """The interval around both."""
    return min(first[0], second[0]), max(first[1], second[1])


def box_iou(first: Mask, second: Mask) -> float:
    """Product of the IoU of the rows and the IoU of the columns.

    '"Box IoU" here is the product of the IoU of the two row intervals and the IoU of the two column
    intervals (each: intersection over the interval that encloses both, in inclusive pixels), not the usual
    ratio of areas.' A product of two rounded numbers, as the peers compute it: 7/8 x 4/5 is above 0.70.
    """
    rows, columns = (
        length(common(one, other)) / length(enclosing(one, other))
        for one, other in zip(box(first), box(second), strict=True)
    )
    return rows * columns


def mask_iou(first: Mask, second: Mask) -> Fraction:
    """Common pixels over pixels of either."""
    return Fraction(intersection_area(first, second), area(first | second))


def contains(outer: Mask, inner: Mask) -> bool:
    """Whether `outer` contains `inner`, whose area is not larger.

    "`contains(i, j)` for area(i) >= area(j): box intersection over j's box area >= 0.70, and mask
    intersection over j's area > 0.80."
    """
    if area(outer) < area(inner):
        return False
    (outer_rows, outer_columns), (rows, columns) = box(outer), box(inner)
    box_common = length(common(outer_rows, rows)) * length(common(outer_columns, columns))
    box_share = Fraction(box_common, length(rows) * length(columns))
    mask_share = Fraction(intersection_area(outer, inner), area(inner))
    return box_share >= Fraction(70, 100) and mask_share > Fraction(80, 100)


def forest(masks: Masks) -> Forest:
    """The tree over the masks of one image.

    "Sort the masks by area, stable ascending, then reverse (equal areas: the later index comes first). For
    every i in that order, for every later j in that order: if j has no parent yet and contains(i, j), then
    j's parent is found by descending from i: at a node, try its children in the order in which they were
    attached, skipping those with area < area(j); the first child whose own descent finds a node is the
    answer; if none does, the node itself if contains(node, j). Attach j there; level(j) = level(parent) + 1,
    roots have level 0."
    """
    areas = [area(mask) for mask in masks]
    order = sorted(range(len(masks)), key=lambda index: areas[index])
    order.reverse()
    parents: list[int | None] = [None] * len(masks)
    levels = [0] * len(masks)
    children: list[list[int]] = [[] for _ in masks]

    def descend(node: int, j: int) -> int | None:
        for child in children[node]:
            if areas[child] < areas[j]:
                continue
            found = descend(child, j)
            if found is not None:
                return found
        return node if contains(masks[node], masks[j]) else None

    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            if parents[j] is None and contains(masks[i], masks[j]):
                parent = descend(i, j)
                if parent is None:
                    raise AssertionError("the descent starts at a node that contains the mask")
                parents[j] = parent
                levels[j] = levels[parent] + 1
                children[parent].append(j)
    return Forest(parents, levels, children)


def merge_kept(coco: Masks, lvis: Masks, smallest: int = 80) -> tuple[list[int], list[int]]:
    """Indices of the COCO masks and of the LVIS masks that survive; the merged list is one, then the other.

    "Per image take LVIS masks and COCO instance masks of area >= 80 (crowd regions included). ... Drop a
    COCO mask if some LVIS mask has box IoU > 0.70 and mask IoU > 0.70 with it. Drop an LVIS mask if a later
    LVIS mask has box IoU > 0.70 and mask IoU > 0.85 with it; compare with all LVIS masks of area >= 80,
    those dropped themselves included. Order: the kept COCO masks, then the kept LVIS masks."
    """
    large_coco = [index for index, mask in enumerate(coco) if area(mask) >= smallest]
    large_lvis = [index for index, mask in enumerate(lvis) if area(mask) >= smallest]

    def alike(one: Mask, other: Mask, mask_threshold: Fraction) -> bool:
        return box_iou(one, other) > 0.70 and mask_iou(one, other) > mask_threshold

    kept_coco = [
        index
        for index in large_coco
        if not any(alike(coco[index], lvis[other], Fraction(70, 100)) for other in large_lvis)
    ]
    kept_lvis = [
        index
        for index in large_lvis
        if not any(alike(lvis[index], lvis[other], Fraction(85, 100)) for other in large_lvis if other > index)
    ]
    return kept_coco, kept_lvis


def stuff_left(stuff: Masks, instances: Masks, more_than: int = 500) -> list[tuple[int, Mask]]:
    """The stuff regions to append, each with its index and what is left of it.

    "COCO stuff regions, less the union of all instance masks, with more than 500 pixels left, are appended
    after the instances".
    """
    covered = instances.any(axis=0) if len(instances) else np.zeros(stuff.shape[1:], dtype=bool)
    left = [(index, region & ~covered) for index, region in enumerate(stuff)]
    return [(index, region) for index, region in left if area(region) > more_than]


def neighbours(masks: Masks, both: bool = False, iterations: int = 1, min_overlap: int = 1) -> set[tuple[int, int]]:
    """Pairs (i, j), i < j, of masks that touch.

    "two masks are neighbours if one, dilated by a 3x3 square, overlaps the other in at least one pixel
    (recipe options: dilate both, more iterations, a larger overlap ...)".
    """
    dilated = [ndimage.binary_dilation(mask, SQUARE, iterations=iterations) for mask in masks]
    pairs = set()
    for i, j in combinations(range(len(masks)), 2):
        if both:
            overlaps = [intersection_area(dilated[i], dilated[j])]
        else:
            overlaps = [intersection_area(dilated[i], masks[j]), intersection_area(masks[i], dilated[j])]
        if max(overlaps) >= min_overlap:
            pairs.add((i, j))
    return pairs


def proximity_members(masks: Masks, center: int, neighbours: Sequence[int], cap: int = 16) -> ProximityMembers:
    """The set of a center, and how many of all 2^k combinations repeat a union or are cut off.

    "The set of a center is its mask united with every combination of its 1-hop neighbours, the center alone
    first, ordered by how many neighbours are in it, then by area. 2^k grows: a recipe option caps the
    combinations (default 16), keeps the smallest combinations first, and the shard says how many were left
    out. Identical unions (nested masks) are kept once". Combinations equal in count and area come by their
    numbers.
    """

    ordered: list[tuple[tuple[int, ...], Mask]] = []
    for count in range(len(neighbours) + 1):
        unions = [(chosen, masks[[center, *chosen]].any(axis=0)) for chosen in combinations(sorted(neighbours), count)]
        ordered += sorted(unions, key=lambda pair: (area(pair[1]), pair[0]))
    members, numbers = [], []
    repeated = left_out = 0
    seen: set[bytes] = set()
    for chosen, united in ordered:
        pixels = np.packbits(united).tobytes()
        if pixels in seen:
            repeated += 1
        elif len(members) == cap:
            left_out += 1
        else:
            members.append(united)
            numbers.append((center, *chosen))
        seen.add(pixels)
    return ProximityMembers(members, numbers, repeated, left_out)


def click_region(masks: Masks, center: int, children: Sequence[int]) -> Mask:
    """Where the first click may fall.

    "The first click is drawn from the center's mask less the union of its children's masks."
    """
    region = masks[center].copy()
    for child in children:
        region &= ~masks[child]
    return region


def hierarchy_members(
    masks: Masks, parents: Sequence[int | None], center: int, nest: bool = False
) -> tuple[list[int], list[Mask]]:
    """The objects of a hierarchy set, inner to outer, and their masks.

    "a center object, then its parents up to the root: masks inner to outer. ... Each mask is the object's
    own as annotated ...; a recipe option `nest = "union"` adds the inner masks to the outer ones, so that a
    set nests exactly."
    """
    path = [center]
    parent = parents[center]
    while parent is not None:
        path.append(parent)
        parent = parents[parent]
    if not nest:
        return path, [masks[index] for index in path]
    return path, [masks[path[: depth + 1]].any(axis=0) for depth in range(len(path))]


def containment_members(masks: Masks, center: int) -> list[int]:
    """The objects of a containment set, the center first, the others by area and then by number.

    "`containment`, PiClick's rule (every object that contains the click: for a center, all objects whose
    mask contains the center's)", with the `contains` that the hierarchy is made of.
    """
    outer = [index for index, mask in enumerate(masks) if index != center and contains(mask, masks[center])]
    return [center, *sorted(outer, key=lambda index: (area(masks[index]), index))]
