"""Declared parts against the literal rule, over dictionaries of ids and sets of pixels."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import restatement
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core.masks import areas, boxes, decode, encode
from disbench.core.scenes import LINK, Links, SampledScene, Scene, SceneObject, click_region, set_masks
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene

HEIGHT, WIDTH = 40, 60
Pixels = frozenset[tuple[int, int]]
Sets = dict[int, tuple[list[Pixels], Pixels]]


@dataclass(frozen=True)
class Part:
    """An object as a file declares it: its pixels, its parent's id, what makes it like others, finest first."""

    pixels: Pixels
    parent: int | None = None
    keys: tuple[str, ...] = ()


@dataclass
class Tree:
    """The outcome of the rule: parents by id (groups have ids below 0), pixels, and what was counted."""

    parent: dict[int, int | None]
    pixels: dict[int, Pixels]
    counts: Counter[str] = field(default_factory=Counter)


def restated(
    parts: Mapping[int, Part], *, min_area: int = 1, keep_share: str = "0.5", nest: bool = False, groups: bool = True
) -> Tree:
    """The tree of one image, step by step."""
    counts: Counter[str] = Counter()
    kept = {i: part.pixels for i, part in parts.items() if len(part.pixels) >= min_area}

    def declared(i: int) -> int | None:
        """Every object on a cycle becomes a root."""
        seen, node = [i], parts[i].parent
        while node is not None and node in parts and node not in seen:
            seen.append(node)
            node = parts[node].parent
        return None if node == i else parts[i].parent

    parent: dict[int, int | None] = {}
    for i in kept:
        above = declared(i)
        if above is None and parts[i].parent not in (None, i):
            counts["cycle"] += 1
        if above is not None and above not in kept:  # the nearest ancestor that was kept
            counts["parent dropped"] += 1
            while above is not None and above not in kept:
                above = declared(above)
        parent[i] = above
    for i, above in dict(parent).items():
        if above is None:
            continue
        share = Fraction(len(kept[i] & kept[above]), len(kept[i]))
        if share < Fraction(keep_share):
            parent[i] = None
            counts["parent outside"] += 1
        else:
            counts["parent loose"] += share <= Fraction("0.8")
            counts["parent smaller"] += len(kept[i]) > len(kept[above])
    if nest:
        _nest(kept, parent, counts)
    pixels = dict(kept)
    if groups:
        for whole in sorted({above for above in parent.values() if above is not None}):
            _group(whole, parts, parent, pixels)
    return Tree(parent, pixels, +counts)


def _nest(kept: Mapping[int, Pixels], parent: dict[int, int | None], counts: Counter[str]) -> None:
    """Among the parts of one whole, and never across wholes, the rule of the hierarchy is applied."""
    before = dict(parent)
    for whole in sorted({above for above in before.values() if above is not None}):
        siblings = sorted(i for i in kept if before[i] == whole)
        forest = restatement.forest(np.stack([array(kept[i]) for i in siblings]))
        for i, above in zip(siblings, forest.parents, strict=True):
            if above is not None:
                parent[i] = siblings[above]
                counts["nested by geometry"] += 1


def _group(whole: int, parts: Mapping[int, Part], parent: dict[int, int | None], pixels: dict[int, Pixels]) -> None:
    """For each level of the chains, finest first: tops with the same key, two or more, go under a new group."""
    tops = {i: parts[i].keys for i, above in parent.items() if above == whole and i in parts}
    for level in range(max((len(keys) for keys in tops.values()), default=0)):
        for key in sorted({keys[level] for keys in tops.values() if len(keys) > level}):
            alike = [i for i, keys in tops.items() if len(keys) > level and keys[level] == key]
            union: Pixels = frozenset().union(*(pixels[i] for i in alike))
            iou = Fraction(len(union & pixels[whole]), len(union | pixels[whole]))
            if len(alike) < 2 or iou > Fraction("0.95") or union in pixels.values():
                continue
            group = min(0, *pixels) - 1
            pixels[group], parent[group], tops[group] = union, whole, tops[alike[0]]
            for i in alike:
                parent[i] = group
                del tops[i]


def sets_of(tree: Tree) -> Sets:
    """Center, its parent, its parent's parent, ..., root; click region: center less its children; no group is one."""
    found = {}
    for center in tree.pixels:
        children = [tree.pixels[i] for i, above in tree.parent.items() if above == center]
        region = tree.pixels[center].difference(*children)
        path = [center]
        while (above := tree.parent[path[-1]]) is not None:
            path.append(above)
        if region and center > 0:
            found[center] = ([tree.pixels[i] for i in path], region)
    return found


def array(pixels: Pixels) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for row, column in pixels:
        mask[row, column] = True
    return mask


def sampled(parts: Mapping[int, Part], *, nest: bool = False, **options: Any) -> SampledScene:
    """What the sampler makes of the parts, in the order given."""
    order = list(parts)
    rles = [encode(array(part.pixels)) for part in parts.values()]
    objects = tuple(
        SceneObject(rle, int(area), tuple(box), f"object{i}", annotation_id=i, keys=parts[i].keys)
        for i, rle, area, box in zip(order, rles, areas(rles), boxes(rles).tolist(), strict=True)
    )
    parents = [-1 if part.parent in (None, i) else order.index(part.parent) for i, part in parts.items()]
    scene = Scene("1", "1.jpg", HEIGHT, WIDTH, "toy", objects, links=Links(tuple(parents), nest))
    return sample_scene(scene, load_recipe("coco-hierarchy", [f"{name}={value}" for name, value in options.items()]))


def as_sets(found: SampledScene) -> Sets:
    rles = found.scene.rles

    def pixels(rle: Any) -> Pixels:
        return frozenset(zip(*map(np.ndarray.tolist, decode(rle).nonzero()), strict=True))

    return {
        found.scene.objects[one.center].annotation_id or 0: (
            [pixels(rle) for rle in set_masks(rles, one)],
            pixels(click_region(rles, one)),
        )
        for one in found.sets
    }


def link_counts(found: SampledScene) -> Counter[str]:
    return Counter({name[len(LINK) :]: n for name, n in found.scene.dropped.items() if name.startswith(LINK)})


def rectangle(top: int, bottom: int, left: int, right: int) -> Pixels:
    """Inclusive rows and columns."""
    return frozenset((row, column) for row in range(top, bottom + 1) for column in range(left, right + 1))


W, T = rectangle(4, 35, 6, 53), rectangle(4, 15, 6, 53)
L, R, S = rectangle(24, 35, 8, 17), rectangle(24, 35, 40, 49), rectangle(25, 33, 8, 17)
COMMON = {1: Part(W), 2: Part(T, 1, ("top",)), 3: Part(L, 1, ("wheel",)), 4: Part(R, 1, ("wheel",)), 5: Part(S, 3)}


@pytest.mark.parametrize("groups", [True, False])
def test_the_common_picture(groups: bool) -> None:
    found = as_sets(sampled(COMMON, min_area=1, groups=str(groups).lower()))
    wheels = [L | R] if groups else []
    assert {center: masks for center, (masks, _) in found.items()} == {
        1: [W],
        2: [T, W],
        3: [L, *wheels, W],
        4: [R, *wheels, W],
        5: [S, L, *wheels, W],
    }
    assert {center: len(region) for center, (_, region) in found.items()} == {1: 720, 2: 576, 3: 30, 4: 120, 5: 90}


BIGGER = Part(rectangle(24, 33, 8, 17), 5)
CASES: dict[str, tuple[dict[int, Part], dict[str, Any], dict[str, int], dict[int, int]]] = {
    "outside": ({5: Part(rectangle(25, 33, 28, 37), 3)}, {}, {"parent outside": 1}, {5: 90, 3: 120}),
    "cycle": ({3: Part(L, 5, ("wheel",))}, {}, {"cycle": 2}, {5: 90, 3: 120}),
    "smaller": ({6: BIGGER}, {}, {"parent smaller": 1}, {6: 100}),
    "dropped": ({6: BIGGER}, {"min_area": 100}, {"parent dropped": 1}, {6: 100}),
}


@pytest.mark.parametrize("case", CASES)
def test_links_that_geometry_or_the_file_contradicts(case: str) -> None:
    changes, options, counts, regions = CASES[case]
    found = sampled({**COMMON, **changes}, **{"min_area": 1, **options})
    assert link_counts(found) == counts
    sets = as_sets(found)
    assert {center: len(sets[center][1]) for center in regions} == regions
    if case == "dropped":
        assert sets[6][0][1] == L


def test_parts_of_parts_and_groups_of_groups() -> None:
    """An eye in a head hangs on it; legs are grouped by side, then all; halves of a whole are no group."""
    eye, head = rectangle(6, 9, 8, 11), rectangle(4, 15, 6, 20)
    legs = [rectangle(30, 35, left, left + 3) for left in (8, 16, 30, 40)]
    chains = [(f"{side} leg", "leg") for side in ("front", "front", "back", "back")]
    animal = {1: Part(W), 2: Part(head, 1), 3: Part(eye, 1)}
    animal |= {i: Part(leg, 1, keys) for i, (leg, keys) in enumerate(zip(legs, chains, strict=True), start=4)}
    found = sampled(animal, nest=True, min_area=1)
    assert link_counts(found) == {"nested by geometry": 1}
    sets = as_sets(found)
    assert sets[3][0] == [eye, head, W]
    assert sets[4][0] == [legs[0], legs[0] | legs[1], frozenset().union(*legs), W]
    halves = {
        1: Part(W),
        2: Part(rectangle(4, 19, 6, 53), 1, ("half",)),
        3: Part(rectangle(20, 34, 6, 53), 1, ("half",)),
    }
    assert len(sampled(halves).scene.objects) == 3
    assert len(sampled({**halves, 3: Part(rectangle(20, 33, 6, 53), 1, ("half",))}).scene.objects) == 4


box = st.tuples(st.integers(0, 9), st.integers(1, 8), st.integers(0, 11), st.integers(1, 8))
parts_of_images = st.lists(
    st.tuples(
        box,
        st.none() | st.integers(1, 8),
        st.sampled_from([(), ("left leg", "leg"), ("right leg", "leg"), ("leg",), ("wheel",)]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300)
@given(
    drawn=parts_of_images,
    nest=st.booleans(),
    groups=st.booleans(),
    min_area=st.sampled_from([1, 6]),
    seed=st.integers(),
)
def test_any_declaration(drawn: Any, nest: bool, groups: bool, min_area: int, seed: int) -> None:
    parts = {
        number: Part(
            rectangle(top, top + height - 1, left, left + width - 1),
            None if parent is None or parent > len(drawn) else parent,
            keys,
        )
        for number, ((top, height, left, width), parent, keys) in enumerate(drawn, start=1)
    }
    options = {"min_area": min_area, "groups": str(groups).lower()}
    tree = restated(parts, min_area=min_area, nest=nest, groups=groups)
    found = sampled(parts, nest=nest, **options)
    assert as_sets(found) == sets_of(tree)
    assert link_counts(found) == tree.counts
    shuffled = list(parts)
    random.Random(seed).shuffle(shuffled)
    assert as_sets(sampled({i: parts[i] for i in shuffled}, nest=nest, **options)) == sets_of(tree)
