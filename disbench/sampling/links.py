"""Declared parts: turn a dataset's parent links into a tree with groups of like parts (docs/parts.md).

Geometry only checks the declared parents: an object that fails the check becomes a root and gets no other parent.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from disbench.core.masks import ious, shares_inside, union
from disbench.core.scenes import LINK, SceneObject, on_cycles, scene_objects
from disbench.sampling.hierarchy import build_forest, containment_matrix
from disbench.sampling.recipes import Recipe

DECLARED = "+parts"  # suffix of a scene's source if its tree comes from declared links
MAX_GROUP_IOU = 0.95  # a group of like parts with a larger IoU with its parent is dropped as a duplicate


def remap_parents(parents: Sequence[int], keep: Sequence[int], counts: Counter[str]) -> list[int]:
    """Declared parents of the kept objects, as new indices; -1 for a root.

    Objects on a cycle become roots; an object whose parent was dropped gets its nearest kept ancestor.
    """
    cyclic = on_cycles(parents)
    new_index = {old: new for new, old in enumerate(keep)}
    remapped = []
    for index in keep:
        parent = -1 if index in cyclic else parents[index]
        counts[f"{LINK}cycle"] += index in cyclic
        counts[f"{LINK}parent dropped"] += parent >= 0 and parent not in new_index
        while parent >= 0 and parent not in new_index:
            parent = -1 if parent in cyclic else parents[parent]
        remapped.append(new_index.get(parent, -1))
    return remapped


def checked_parents(
    objects: Sequence[SceneObject], declared: Sequence[int], recipe: Recipe, counts: Counter[str], *, nest: bool
) -> list[int]:
    """Parents, -1 for a root: keeps declared links whose child has at least `recipe.keep_share` inside its parent.

    With `nest`, parts of the same whole are nested in each other by the recipe's containment rule.
    """
    parents = list(declared)
    for whole, parts in _children_by_parent(declared):
        shares = shares_inside([objects[i].rle for i in parts], objects[whole].rle)
        for part, share in zip(parts, shares.tolist(), strict=True):
            if share < recipe.keep_share:
                parents[part] = -1
                counts[f"{LINK}parent outside"] += 1
                continue
            counts[f"{LINK}parent loose"] += share <= recipe.mask_share
            counts[f"{LINK}parent smaller"] += objects[part].area > objects[whole].area
    if not nest:
        return parents
    parent_of, area = np.array(parents), np.array([item.area for item in objects])
    siblings = (parent_of[:, None] == parent_of) & (parent_of >= 0)
    box = np.array([item.box for item in objects]).reshape(-1, 4)
    rles = [item.rle for item in objects]
    contains = containment_matrix(rles, recipe.box_share, recipe.mask_share, (area, box), siblings)
    for _, parts in _children_by_parent(tuple(parents)):
        ordered = sorted(parts, key=lambda i: _sort_key(objects, i))
        inside = contains[np.ix_(ordered, ordered)]
        if not inside.any():
            continue
        for part, container in zip(ordered, build_forest(inside, area[ordered]).parents, strict=True):
            if container >= 0:
                parents[part] = ordered[container]
                counts[f"{LINK}nested by geometry"] += 1
    return parents


def insert_groups(objects: Sequence[SceneObject], parents: Sequence[int]) -> tuple[list[SceneObject], list[int]]:
    """Objects and parents with a group inserted between each whole and its like parts.

    Parts are alike if they share a parent and a key. Keys are processed from fine to coarse, so groups can be grouped
    again. A group's mask is the union of its parts; groups that repeat a mask or nearly fill the whole are dropped.
    """
    extended, new_parents = list(objects), list(parents)
    seen = {item.rle["counts"] for item in objects}
    for whole, parts in sorted(_children_by_parent(parents), key=lambda family: _sort_key(objects, family[0])):
        candidates = [(part, _keys(objects[part])) for part in parts]
        for level in range(max(len(keys) for _, keys in candidates)):
            members_by_key: dict[str, list[int]] = {}
            for part, keys in candidates:
                if level < len(keys):
                    members_by_key.setdefault(keys[level], []).append(part)
            for key, members in sorted(members_by_key.items()):
                if len(members) < 2:
                    continue
                rle = union([extended[i].rle for i in members])
                if rle["counts"] in seen or ious(rle, [extended[whole].rle])[0] > MAX_GROUP_IOU:
                    continue
                seen.add(rle["counts"])
                group, item = len(extended), extended[whole]
                extended += scene_objects([rle], [(f"{item.category}:{key} (all)", None, None, item.source, "group")])
                new_parents.append(whole)
                for member in members:
                    new_parents[member] = group
                candidates = [
                    (group if part == members[0] else part, keys)
                    for part, keys in candidates
                    if part not in members[1:]
                ]
    return extended, new_parents


@lru_cache(4096)
def part_key(category: str) -> str:
    """The key that like parts share: "wheel" for the category "car:wheel_2"; "" if nothing is left of the name."""
    name = unicodedata.normalize("NFKC", category.partition(":")[2] or category).strip().lower()
    return re.sub(r" \d+$", "", re.sub(r"[\s_-]+", " ", name).strip())


def _keys(item: SceneObject) -> tuple[str, ...]:
    return item.keys or tuple(filter(None, [part_key(item.category)]))


def _sort_key(objects: Sequence[SceneObject], number: int) -> tuple[int, int]:
    """Sort key by annotation id, independent of the order of equal masks in the file."""
    return objects[number].annotation_id or 0, number


def _children_by_parent(parents: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """(parent, children) pairs, in ascending order."""
    children: dict[int, list[int]] = {}
    for child, parent in enumerate(parents):
        if parent >= 0:
            children.setdefault(parent, []).append(child)
    yield from sorted(children.items())
