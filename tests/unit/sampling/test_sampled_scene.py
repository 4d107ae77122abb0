"""From a scene to its sets: who takes part, in which order, as what, and what each method makes of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core.masks import decode, encode
from disbench.core.scenes import Kind, SampledScene, Scene, SceneObject, click_region, set_masks
from disbench.sampling.recipes import Recipe, load_recipe
from disbench.sampling.sampled_scene import choose_objects, sample_scene
from tests.unit.shard_tools import random_rectangles, scene_object

SIZE = (60, 80)


def recipe(method: str, **changes: Any) -> Recipe:
    """A recipe of a method that keeps every object, with changes."""
    plain = Recipe("test", "", method, ("lvis",), min_area=1)  # type: ignore[arg-type]
    return dataclasses.replace(plain, **changes)


def rectangle(left: int, top: int, width: int, height: int, source: str = "lvis", kind: Kind = "thing") -> SceneObject:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return dataclasses.replace(scene_object(mask, kind), source=source)


def scene(*objects: SceneObject, source: str = "lvis", **others: Any) -> Scene:
    """A scene whose objects are told apart by their annotation ids 0, 1, ..."""
    numbered = tuple(dataclasses.replace(item, annotation_id=i) for i, item in enumerate(objects))
    return Scene("7", "7.jpg", *SIZE, source, numbered, **others)


def ids(chosen: Scene) -> list[int | None]:
    return [item.annotation_id for item in chosen.objects]


def masks_of(sampled: SampledScene) -> list[list[np.ndarray[Any, Any]]]:
    """The masks of every set, decoded."""
    return [[decode(rle) for rle in set_masks(sampled.scene.rles, chosen)] for chosen in sampled.sets]


class TestChosenObjects:
    def test_small_and_empty_objects_are_left_out_and_counted(self) -> None:
        objects = [rectangle(0, 0, 8, 10), rectangle(20, 0, 79, 1), rectangle(0, 20, 10, 8), rectangle(0, 40, 0, 0)]
        before = Counter({"seen before": 2})
        chosen = choose_objects(scene(*objects, dropped=before), recipe("hierarchy", min_area=80))
        assert ids(chosen) == [0, 2]
        assert chosen.dropped == {"seen before": 2, "smaller than 80 pixels": 1, "empty mask": 1}
        assert before == {"seen before": 2}
        assert ids(choose_objects(scene(*objects), recipe("hierarchy", min_area=1))) == [0, 1, 2]

    def test_hollow_objects_are_left_out_from_the_share_on(self) -> None:
        diagonal = scene_object(np.eye(*SIZE, dtype=bool))  # 60 pixels in a box of 60 x 60
        objects = scene(diagonal, rectangle(0, 0, 5, 5))
        share = 1 / 60
        for fill, expected in ((0.0, [0, 1]), (share - 1e-6, [0, 1]), (share + 1e-6, [1]), (1.0, [1])):
            assert ids(choose_objects(objects, recipe("hierarchy", min_box_fill=fill))) == expected
        chosen = choose_objects(objects, load_recipe("sbd-proximity", ["min_area=1"]))
        assert chosen.dropped == {"fills less than 0.08 of its box": 1}

    def test_repeated_masks_are_dropped_and_counted(self) -> None:
        objects = scene(
            rectangle(0, 0, 20, 20, "lvis"),  # comes again as 3
            rectangle(0, 0, 20, 19, "coco"),  # LVIS has it
            rectangle(40, 0, 20, 20, "coco"),
            rectangle(0, 0, 20, 20, "lvis"),
            rectangle(40, 0, 10, 10, "lvis"),
            source="coco+lvis",
        )
        chosen = choose_objects(objects, recipe("hierarchy"))
        assert ids(chosen) == [2, 3, 4]
        assert chosen.dropped == {"COCO mask that LVIS has too": 1, "LVIS mask that comes again": 1}
        chosen = choose_objects(objects, recipe("hierarchy", drop_repeated=False))
        assert ids(chosen) == [1, 2, 0, 3, 4]
        assert not chosen.dropped

    @pytest.mark.parametrize("source", ["coco", "sbd", "photos", "hannotation"])
    def test_without_lvis_nothing_counts_as_repeated(self, source: str) -> None:
        objects = scene(*[rectangle(0, 0, 20, 20, source)] * 3, source=source)
        assert ids(choose_objects(objects, recipe("hierarchy"))) == [0, 1, 2]

    def test_stuff_is_cut_by_the_instances_that_are_kept(self) -> None:
        stuff = rectangle(0, 0, 40, 30, "coco", "stuff")
        thing, speck = rectangle(0, 0, 20, 30, "coco"), rectangle(30, 0, 3, 3, "coco")
        crowd = rectangle(20, 0, 2, 30, "coco", "crowd")
        chosen = choose_objects(scene(stuff, thing, speck, crowd, source="coco"), recipe("hierarchy", min_area=10))
        assert ids(chosen) == [1, 3, 0]
        left = chosen.objects[-1]
        expected = decode(stuff.rle) & ~decode(thing.rle) & ~decode(crowd.rle)
        assert np.array_equal(decode(left.rle), expected)
        assert (left.area, left.box) == (18 * 30, (22, 0, 18, 30))
        assert stuff.area == 1200  # the scene that came in is as it was


class TestHierarchy:
    def test_parents_levels_and_sets(self) -> None:
        objects = scene(
            rectangle(10, 10, 10, 10),
            rectangle(0, 0, 50, 50),
            rectangle(5, 5, 30, 30),
            rectangle(60, 0, 9, 9, kind="crowd"),
            rectangle(0, 0, 80, 60, "coco", "stuff"),
        )
        sampled = sample_scene(objects, recipe("hierarchy"))
        assert sampled.parents == (2, -1, 1, -1, None)
        assert sampled.levels == (2, 0, 1, 0, None)
        assert sampled.neighbours == ((),) * 5
        assert [(one.center, one.members, one.click_excludes) for one in sampled.sets] == [
            (0, ((0,), (2,), (1,)), ()),
            (1, ((1,),), (2,)),
            (2, ((2,), (1,)), (0,)),
            (3, ((3,),), ()),
        ]

    def test_shares_reach_the_containment(self) -> None:
        objects = scene(rectangle(0, 0, 20, 20), rectangle(5, 5, 20, 10))  # 3/4 of the second are in the first
        assert sample_scene(objects, recipe("hierarchy")).parents == (-1, -1)
        assert sample_scene(objects, recipe("hierarchy", mask_share=0.7)).parents == (-1, 0)
        assert sample_scene(objects, recipe("hierarchy", mask_share=0.7, box_share=0.8)).parents == (-1, -1)

    def test_given_parents_are_taken_and_linked_anew_over_dropped_objects(self) -> None:
        apart = [rectangle(20 * i, 0, 10, 10, "hannotation") for i in range(4)]
        objects = scene(*apart, source="hannotation", parents=(1, 3, -1, -1))
        sampled = sample_scene(objects, recipe("hierarchy"))
        assert sampled.parents == (1, 3, -1, -1)
        assert sampled.levels == (2, 1, 0, 0)
        assert [one.members for one in sampled.sets] == [((0,), (1,), (3,)), ((1,), (3,)), ((2,),), ((3,),)]
        sides = (10, 2, 10, 2, 10, 10, 2)
        objects = scene(
            *(rectangle(11 * i, 0, side, side, "hannotation") for i, side in enumerate(sides)),
            rectangle(0, 30, 80, 30, "hannotation", "stuff"),
            source="hannotation",
            parents=(1, 2, 3, 6, 3, -1, -1, -1),  # 0 > 1 > 2 > 3 > 6, 4 > 3, and 1, 3 and 6 are too small
        )
        sampled = sample_scene(objects, recipe("hierarchy", min_area=50))
        assert ids(sampled.scene) == [0, 2, 4, 5, 7]
        assert sampled.parents == (1, -1, -1, -1, None)
        assert sampled.levels == (1, 0, 0, 0, None)

    @given(seed=st.integers(0, 2**32), nest=st.sampled_from(("annotated", "union")))
    @settings(max_examples=60)
    def test_sets_lead_up_to_the_root_and_union_nests_exactly(self, seed: int, nest: str) -> None:
        rectangles = random_rectangles(np.random.default_rng(seed), 7, *SIZE)
        objects = scene(*map(scene_object, rectangles))
        sampled = sample_scene(objects, recipe("hierarchy", nest=nest, drop_repeated=False))
        for chosen, masks in zip(sampled.sets, masks_of(sampled), strict=True):
            path = [chosen.center]
            while (parent := sampled.parents[path[-1]]) != -1:
                assert parent is not None
                path.append(parent)
            for depth, mask in enumerate(masks):
                nodes = path[: depth + 1] if nest == "union" else path[depth : depth + 1]
                assert np.array_equal(mask, np.any([rectangles[i] for i in nodes], axis=0))
            if nest == "union":
                assert all((inner <= outer).all() for inner, outer in combinations(masks, 2))
            region = decode(click_region(sampled.scene.rles, chosen))
            children = [rectangles[i] for i, parent in enumerate(sampled.parents) if parent == chosen.center]
            assert np.array_equal(
                region, rectangles[chosen.center] & ~np.any([np.zeros(SIZE, bool), *children], axis=0)
            )
            assert region.any()


class TestProximity:
    TOUCHING = (
        rectangle(0, 0, 20, 20),
        rectangle(20, 0, 20, 20, kind="crowd"),
        rectangle(0, 20, 20, 20),
        rectangle(60, 0, 10, 10),
        rectangle(0, 0, 80, 60, "coco", "stuff"),
    )

    def test_crowds_and_stuff_are_neither_centers_nor_neighbours(self) -> None:
        sampled = sample_scene(scene(*self.TOUCHING), recipe("proximity"))
        assert len(sampled.scene.objects) == 5
        assert sampled.neighbours == ((2,), (), (0,), (), ())
        sets = [(one.center, one.members) for one in sampled.sets]
        assert sets == [(0, ((0,), (0, 2))), (2, ((2,), (2, 0))), (3, ((3,),))]
        assert sampled.parents == sampled.levels == (None,) * 5
        stuff_first = scene(*reversed(self.TOUCHING))
        sampled = sample_scene(stuff_first, recipe("proximity"))
        assert ids(sampled.scene) == [1, 2, 3, 4, 0]
        assert sampled.neighbours == ((), (3,), (), (1,), ())

    def test_options_reach_the_graph_and_the_cap(self) -> None:
        row = scene(*(rectangle(12 * i, 0, 10, 10) for i in range(6)))  # gaps of two pixels
        assert not any(sample_scene(row, recipe("proximity")).neighbours)
        reaching = {"dilated": "both", "iterations": 2}
        sampled = sample_scene(row, recipe("proximity", **reaching))
        assert sampled.neighbours == ((1,), (0, 2), (1, 3), (2, 4), (3, 5), (4,))
        assert [len(one.members) for one in sampled.sets] == [2, 4, 4, 4, 4, 2]
        assert not any(sample_scene(row, recipe("proximity", min_overlap=99, **reaching)).neighbours)
        capped = sample_scene(row, recipe("proximity", cap=3, **reaching))
        assert [(len(one.members), one.left_out) for one in capped.sets] == [(2, 0), *[(3, 1)] * 4, (2, 0)]


class TestContainment:
    def test_every_object_with_all_that_hold_it_by_size_whatever_parents_are_given(self) -> None:
        objects = scene(
            rectangle(10, 10, 8, 8),
            rectangle(0, 0, 50, 50),
            rectangle(5, 5, 30, 30, kind="crowd"),
            rectangle(4, 4, 40, 30),
        )
        sampled = sample_scene(objects, recipe("containment"))
        assert [(one.center, one.members, one.click_excludes) for one in sampled.sets] == [
            (0, ((0,), (2,), (3,), (1,)), ()),
            (1, ((1,),), ()),
            (2, ((2,), (3,), (1,)), ()),
            (3, ((3,), (1,)), ()),
        ]
        assert sampled.parents == sampled.levels == (None,) * 4
        assert sampled.neighbours == ((),) * 4
        objects = [rectangle(20 * i, 0, 10, 10, "hannotation") for i in range(2)]
        plain, given_parents = (
            sample_scene(scene(*objects, source="hannotation", parents=parents), recipe("containment"))
            for parents in (None, (1, -1))
        )
        assert plain.sets == given_parents.sets


class TestRandomMerge:
    def scenes(self, count: int) -> list[Scene]:
        """Scenes of touching tiles and a crowd, so that proximity makes sets of many masks."""
        found = []
        for number in range(count):
            noise = np.random.default_rng(number)
            tiles = [rectangle(10 * x, 10 * y, 10, 10) for x in range(4) for y in range(3)]
            kept = [tile for tile in tiles if noise.random() < 0.7]
            objects = scene(*kept, rectangle(60, 0, 10, 40, kind="crowd"))
            found.append(dataclasses.replace(objects, image_id=str(number)))
        return found

    def test_draws_depend_on_the_seed_and_the_image_alone(self) -> None:
        scenes = self.scenes(6)
        drawn = [sample_scene(one, recipe("random-merge")) for one in scenes]
        again = [sample_scene(one, recipe("random-merge")) for one in reversed(scenes)]
        assert drawn == again[::-1]
        other_seed = [sample_scene(one, recipe("random-merge", seed=1)) for one in scenes]
        assert all(one.sets != other.sets for one, other in zip(drawn, other_seed, strict=True))
        renamed = sample_scene(dataclasses.replace(scenes[0], image_id="other"), recipe("random-merge"))
        assert renamed.sets != drawn[0].sets


@pytest.mark.parametrize("method", ["hierarchy", "proximity", "containment", "random-merge"])
def test_a_scene_without_objects_has_no_sets(method: str) -> None:
    for empty in (scene(), scene(rectangle(0, 0, 0, 0))):
        sampled = sample_scene(empty, recipe(method))
        assert (sampled.scene.objects, sampled.sets) == ((), ())


@pytest.mark.parametrize("method", ["hierarchy", "proximity", "containment", "random-merge"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_what_every_method_promises(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["thing", "thing", "thing", "crowd", "stuff"], 8)
    objects = [
        dataclasses.replace(scene_object(mask, kind), source=str(rng.choice(["coco", "lvis"])))
        for mask, kind in zip(random_rectangles(rng, 8, *SIZE), kinds, strict=True)
    ]
    sampled = sample_scene(scene(*objects, source="coco+lvis"), recipe(method, min_area=20))
    rles, count = sampled.scene.rles, len(sampled.scene.objects)
    assert len(sampled.parents) == len(sampled.levels) == len(sampled.neighbours) == count
    assert count + sampled.scene.dropped.total() == len(objects)
    assert len({chosen.center for chosen in sampled.sets}) == len(sampled.sets)
    for chosen in sampled.sets:
        assert chosen.members[0] == (chosen.center,)
        assert all(0 <= i < count for members in chosen.members for i in members)
        region = decode(click_region(rles, chosen))
        assert region.any()
        assert (region <= decode(rles[chosen.center])).all()
    for item in sampled.scene.objects:
        assert item.rle == encode(decode(item.rle))
        assert item.area == decode(item.rle).sum() >= 20
