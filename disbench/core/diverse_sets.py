"""A diverse set by the numbers of its objects, and its masks and click region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disbench.core.clicks import Click
from disbench.core.masks import Rle, areas, difference, pixel, union
from disbench.core.scenes import Scene

Combination = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetOfObjects:
    """One diverse set, by the numbers of its objects.

    Attributes:
        center: the object that the click is meant for.
        members: the masks, inner to outer; each is the union of the objects that it names.
        click_excludes: objects whose pixels are not part of the click region.
        left_out: combinations that were not looked at once the cap was reached; some of them might have
            repeated a mask.
        repeated: combinations that were looked at, or that hold a neighbour which adds nothing, and whose
            union another combination has already.
    """

    center: int
    members: tuple[Combination, ...]
    click_excludes: Combination = ()
    left_out: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class SampledScene:
    """A scene with the relations between its objects and its diverse sets. One row of a shard.

    Attributes:
        scene: the objects that take part, in the order that their numbers mean.
        parents: each object's parent, -1 for a root; None without a hierarchy, and for stuff, which is not in it.
        levels: 0 for a root; None likewise.
        neighbours: of each object those that touch it, ascending; empty without a proximity graph.
    """

    scene: Scene
    parents: tuple[int | None, ...]
    levels: tuple[int | None, ...]
    neighbours: tuple[tuple[int, ...], ...]
    sets: tuple[SetOfObjects, ...]


def click_region(rles: Sequence[Rle], chosen: SetOfObjects) -> Rle:
    """The pixels from which the first click is drawn."""
    return difference(rles[chosen.center], [rles[index] for index in chosen.click_excludes])


def set_masks(rles: Sequence[Rle], chosen: SetOfObjects) -> list[Rle]:
    """The masks of a set, inner to outer."""
    return [union([rles[index] for index in member]) for member in chosen.members]


def draw_click(region: Rle, generator: np.random.Generator) -> Click:
    """A positive click, uniform over the pixels of a region; ValueError for an empty one."""
    area = int(areas([region])[0])
    if area == 0:
        raise ValueError("no click can be drawn from an empty region")
    x, y = pixel(region, int(generator.integers(area)))
    return Click(x, y, positive=True)


def relation(sampled: SampledScene, center: int, member: Combination) -> str:
    """The relation of a member of a set to its center.

    Returns:
        `self`; `parent`, `grandparent`, `ancestor-3`, ... (alone, or united with what lies between); `group`: like
            parts of one whole, which is no step up;
        `with-1-neighbour`, `with-2-neighbours`, ...: united with objects that touch it; `container`: another object
        that contains it; `with-1-other`, ...: united with unrelated objects.
    """
    others = [number for number in member if number != center]
    if not others:
        return "self"
    up = ancestors(sampled.parents, center)
    if all(number in up for number in others):
        kinds = [sampled.scene.objects[number].kind for number in up[: max(map(up.index, others)) + 1]]
        if kinds[-1] == "group":
            return "group"
        depth = len(kinds) - kinds.count("group")
        return {1: "parent", 2: "grandparent"}.get(depth, f"ancestor-{depth}")
    if center not in member:
        return "container"
    kind = "neighbour" if set(others) <= set(sampled.neighbours[center]) else "other"
    return f"with-{len(others)}-{kind}{'s' if len(others) > 1 else ''}"


def ancestors(parents: Sequence[int | None], node: int) -> list[int]:
    """A node's parent, grandparent and so on; empty without a tree."""
    found: list[int] = []
    parent = parents[node]
    while parent is not None and parent >= 0:
        found.append(parent)
        parent = parents[parent]
    return found
