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
