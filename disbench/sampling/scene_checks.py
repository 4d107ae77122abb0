"""Is a row of a shard what its recipe promises: masks, tree, neighbours, sets?

The functions take a row as plain Python values, since nothing in it can be relied on yet, and yield a sentence
for each problem. What a check builds on is checked before it; where that is wrong, the check is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.diverse_sets import SampledScene, SetOfObjects, click_region, set_masks
from disbench.core.limits import MAX_PIXELS
from disbench.core.masks import Rle, are_well_formed, areas, boxes, contained_shares, from_foreign_rle
from disbench.core.scenes import Kind
from disbench.sampling.hierarchy import containment_matrix
from disbench.sampling.recipes import Recipe
from disbench.shards.reader import scene_of

Row = Mapping[str, Any]
_OWN_TREE = "hannotation"
"""The source that brings its own tree, made from masks other than these: no containment is promised."""


def row_problems(row: Row, recipe: Recipe | None) -> Iterator[str]:
    """Everything that is wrong with a row of a shard.

    Args:
        row: the columns of `disbench.shards.reader.SCHEMA`.
        recipe: what the row was made by; None checks what every recipe promises.

    Yields:
        One sentence for each problem; it names the object or the set.
    """
    objects, sets = row["objects"], row["sets"]
    masks = list(_size_problems(row)) or list(_mask_problems(row))
    tree = [*_object_problems(objects), *_tree_problems(objects, recipe), *_neighbour_problems(objects)]
    described = list(_set_problems(sets, len(objects)))
    yield from [*masks, *tree, *described]
    if not (masks or tree or described):
        yield from _promise_problems(scene_of(row), recipe)


def _size_problems(row: Row) -> Iterator[str]:
    height, width = row["height"], row["width"]
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        yield f"{width} x {height} pixels: not the size of an image"
    if not row["objects"]:
        yield "it has no object"


def _mask_problems(row: Row) -> Iterator[str]:
    """Run lengths that do not decode to the image's size, or not to the stored area and box."""
    size = [row["height"], row["width"]]
    stored: list[Rle] = [{"size": size, "counts": item["rle"]} for item in row["objects"]]
    decoded = dict(enumerate(stored))
    for number, rle in enumerate(() if are_well_formed(stored) else stored):  # the slow way tells what is wrong
        try:
            decoded[number] = from_foreign_rle(rle, *size)
        except ValueError as error:
            del decoded[number]
            yield f"object {number}: {error}"
    rles = list(decoded.values())
    for number, area, box in zip(decoded, areas(rles).tolist(), boxes(rles).tolist(), strict=True):
        item = row["objects"][number]
        if not area:
            yield f"object {number}: its mask is empty"
        elif area != item["area"]:
            yield f"object {number}: area {item['area']}, but its mask has {area} pixels"
        elif box != item["box"]:
            yield f"object {number}: box {item['box']}, but its mask's is {box}"


def _object_problems(objects: Sequence[Row]) -> Iterator[str]:
    for number, item in enumerate(objects):
        if item["id"] != number:
            yield f"object {number}: its id is {item['id']}"
        if item["kind"] not in get_args(Kind):
            yield f"object {number}: unknown kind {item['kind']!r}"


def _tree_problems(objects: Sequence[Row], recipe: Recipe | None) -> Iterator[str]:
    """Parents and levels that do not fit. Levels that grow by one from parent to child leave no room for a cycle."""
    for number, item in enumerate(objects):
        parent, level = item["parent"], item["level"]
        if recipe and (level is not None) != (recipe.method == "hierarchy" and item["kind"] != "stuff"):
            yield f"object {number}: level {level}, which the method {recipe.method} does not give to a {item['kind']}"
        elif parent is None:
            if level:
                yield f"object {number}: level {level}, but it has no parent"
        elif not 0 <= parent < len(objects):
            yield f"object {number}: its parent {parent} does not name an object"
        elif level is None or level - 1 != objects[parent]["level"]:
            yield (f"object {number}: level {level}, but its parent {parent} has level {objects[parent]['level']}")


def _neighbour_problems(objects: Sequence[Row]) -> Iterator[str]:
    for number, item in enumerate(objects):
        neighbours = item["neighbours"]
        if not _are_numbers(neighbours, len(objects)) or number in neighbours:
            yield f"object {number}: its neighbours {_shortened(neighbours)} are not all other objects"
        elif sorted(set(neighbours)) != neighbours:
            yield f"object {number}: its neighbours {_shortened(neighbours)} do not ascend"
        else:
            for other in neighbours:
                if number not in objects[other]["neighbours"]:
                    yield f"object {number}: {other} is its neighbour, but it is not {other}'s"


def _set_problems(sets: Sequence[Row], count: int) -> Iterator[str]:
    """Numbers that do not name an object, a first mask without the center, a center that comes twice."""
    centers: set[int] = set()
    for number, item in enumerate(sets):
        center, members = item["center"], item["members"]
        if not 0 <= center < count:
            yield f"set {number}: its center {center} does not name an object"
        elif center in centers:
            yield f"set {number}: object {center} is the center of a set before it"
        elif not members or not all(member and _are_numbers(member, count) for member in members):
            yield f"set {number}: its members {_shortened(members)} are not all unions of objects"
        elif center not in members[0]:
            yield f"set {number}: its first member does not have the center {center}"
        elif not _are_numbers(item["click_excludes"], count):
            yield f"set {number}: the click leaves out {_shortened(item['click_excludes'])}, not all objects"
        elif not all(math.isfinite(item[key]) and item[key] >= 0 for key in ("left_out", "repeated")):
            yield f"set {number}: {item['left_out']} left out and {item['repeated']} repeated are no counts"
        centers.add(center)


def _promise_problems(sampled: SampledScene, recipe: Recipe | None) -> Iterator[str]:
    """What the masks decide: click regions, and what the recipe's method says of tree and sets."""
    contains = _containment(sampled, recipe)
    if recipe and recipe.method == "hierarchy" and contains is not None:
        for number, parent in enumerate(sampled.parents):
            if parent is not None and parent >= 0 and not contains[parent, number]:
                yield f"object {number}: its parent {parent} does not contain it, by the rule of the recipe"
    for number, chosen in enumerate(sampled.sets):
        if chosen.click_excludes and not areas([click_region(sampled.scene.rles, chosen)])[0]:
            yield f"set {number}: its click region is empty"
        if recipe is None:
            continue
        if chosen.members[0] != (chosen.center,):
            yield f"set {number}: its first member is not the center alone"
        if recipe.method == "hierarchy":
            problems = _hierarchy_problems(sampled, chosen, recipe)
        elif contains is not None:
            problems = _containment_problems(sampled, chosen, contains)
        else:
            problems = _union_problems(sampled, chosen, recipe)
        yield from (f"set {number}: {problem}" for problem in problems)


def _containment(sampled: SampledScene, recipe: Recipe | None) -> BoolArray | None:
    """Which object contains which, as `containment_matrix` says it; None where the recipe promises nothing of it."""
    given = sampled.scene.source == _OWN_TREE
    if recipe is None or not (recipe.method == "containment" or (recipe.method == "hierarchy" and not given)):
        return None
    return containment_matrix(sampled.scene.rles, recipe.box_share, recipe.mask_share)


def _hierarchy_problems(sampled: SampledScene, chosen: SetOfObjects, recipe: Recipe) -> Iterator[str]:
    """The set goes from the center up to the root; with `nest` = `union` each mask holds all of the one before."""
    path = [chosen.center]
    while (parent := sampled.parents[path[-1]]) is not None and parent >= 0:
        path.append(parent)
    starts = [0] * len(path) if recipe.nest == "union" else list(range(len(path)))
    if chosen.members != tuple(tuple(path[start : end + 1]) for end, start in enumerate(starts)):
        yield "its members are not the center and its parents up to the root"
    children = {number for number, parent in enumerate(sampled.parents) if parent == chosen.center}
    if set(chosen.click_excludes) != children:
        yield "its click leaves out something else than the center's children"
    if recipe.nest == "union":
        for depth, (inner, outer) in enumerate(pairwise(set_masks(sampled.scene.rles, chosen)), start=1):
            if contained_shares(inner, [outer])[0] < 1:
                yield f"mask {depth} does not contain mask {depth - 1}"


def _containment_problems(sampled: SampledScene, chosen: SetOfObjects, contains: BoolArray) -> Iterator[str]:
    objects = sampled.scene.objects
    outer = sorted(np.flatnonzero(contains[:, chosen.center]).tolist(), key=lambda i: (objects[i].area, i))
    if chosen.members[1:] != tuple((number,) for number in outer):
        yield "its members are not the center and all that contain it, by the rule of the recipe, smallest first"
    if chosen.click_excludes:
        yield "its click leaves out objects, which the recipe does not"


def _union_problems(sampled: SampledScene, chosen: SetOfObjects, recipe: Recipe) -> Iterator[str]:
    """Every mask is the center with others, no mask comes twice."""
    things = {number for number, item in enumerate(sampled.scene.objects) if item.kind == "thing"}
    allowed = things - {chosen.center}
    if recipe.method == "proximity":
        allowed &= set(sampled.neighbours[chosen.center])
    for depth, (center, *others) in enumerate(chosen.members):
        if center != chosen.center or not allowed.issuperset(others) or len(set(others)) != len(others):
            yield f"mask {depth} is not the center with {_united(recipe)}"
        elif recipe.method == "random-merge" and len(others) > recipe.largest_merge:
            yield f"mask {depth} unites {len(others)} objects with the center, more than {recipe.largest_merge}"
    if chosen.center not in things:
        yield "its center is not a thing"
    if len(chosen.members) > recipe.cap:
        yield f"{len(chosen.members)} masks, more than {recipe.cap}"
    if len({rle["counts"] for rle in set_masks(sampled.scene.rles, chosen)}) < len(chosen.members):
        yield "a mask comes twice"
    if chosen.click_excludes:
        yield "its click leaves out objects, which the recipe does not"


def _united(recipe: Recipe) -> str:
    return "neighbours of it" if recipe.method == "proximity" else "other things"


def _are_numbers(values: Sequence[Any], count: int) -> bool:
    """Whether all are numbers of objects."""
    return all(value is not None and 0 <= value < count for value in values)


def _shortened(values: Any) -> str:
    text = str(values)
    return text if len(text) <= 60 else f"{text[:57]}..."
