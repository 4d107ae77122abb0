"""Statistics of shards against a plain computation on decoded arrays; the report's shape."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from disbench.core.masks import decode
from disbench.core.scenes import SampledScene, SetOfObjects, relation
from disbench.datasets.instances import AnnotatedImages
from disbench.datasets.photos import open_photos
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import Recipe, load_recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.shards.statistics import COLUMNS, TOP_PAIRS, as_text, compare_folders, statistics
from tests.unit.shard_tools import change_manifest, random_scene, without_hierarchy, write_shards

Mask = npt.NDArray[np.bool_]
HALF_A_BIN = 0.0005 + 1e-9


def scenes_of(kind: str, count: int = 40) -> list[SampledScene]:
    """Random scenes with sets of a method."""
    rng = np.random.default_rng(len(kind))
    tree = kind == "hierarchy"
    made = [random_scene(rng, f"image-{i}", things=int(rng.integers(1, 9)), tree=tree) for i in range(count)]
    if kind in ("hierarchy", "containment"):
        return made
    recipe = Recipe("r", "d", "proximity", ("lvis",), min_area=1, cap=6)
    if kind == "union":
        recipe = replace(recipe, method="hierarchy", nest="union")
    return [sample_scene(item.scene, recipe) for item in made]


def set_arrays(sampled: SampledScene, chosen: SetOfObjects) -> list[Mask]:
    arrays = [decode(rle) for rle in sampled.scene.rles]
    return [np.any([arrays[i] for i in member], axis=0) for member in chosen.members]


def expected_overlaps(scenes: Sequence[SampledScene]) -> dict[str, list[float]]:
    """Every single value that the report sums up, from full arrays."""
    found: dict[str, list[float]] = {name: [] for name in ("share", "iou", "nested", "ratio", "clickable")}
    for sampled in scenes:
        for chosen in sampled.sets:
            masks = set_arrays(sampled, chosen)
            for inner, outer in pairwise(masks):
                found["share"].append((inner & outer).sum() / inner.sum())
                found["iou"].append((inner & outer).sum() / (inner | outer).sum())
            if len(masks) > 1:
                found["nested"].append(all(not (inner & ~outer).any() for inner, outer in pairwise(masks)))
                found["ratio"].append(masks[-1].sum() / masks[0].sum())
            clickable = masks[0].copy()
            for index in chosen.click_excludes:
                clickable &= ~decode(sampled.scene.rles[index])
            found["clickable"].append(clickable.sum() / masks[0].sum())
    return found


def check_spread(spread: dict[str, Any], values: Sequence[float]) -> None:
    assert spread["count"] == len(values)
    assert spread["mean"] == pytest.approx(np.mean(values))
    exact = np.percentile(values, [5, 50, 95], method="inverted_cdf")
    assert np.abs(np.array([spread["p5"], spread["p50"], spread["p95"]], dtype=float) - exact).max() <= HALF_A_BIN


@pytest.mark.parametrize("kind", ["hierarchy", "union", "containment", "proximity"])
def test_overlaps_are_those_of_the_decoded_arrays(tmp_path: Path, kind: str) -> None:
    scenes = scenes_of(kind)
    expected = expected_overlaps(scenes)
    found = statistics(write_shards(tmp_path, scenes))["overlaps"]
    check_spread(found["inner_in_outer"], expected["share"])
    check_spread(found["iou"], expected["iou"])
    assert found["nested"] == pytest.approx(np.mean(expected["nested"]))
    assert found["area_ratio"] == pytest.approx(np.mean(expected["ratio"]))
    assert found["clickable"] == pytest.approx(np.mean(expected["clickable"]))
    if kind == "union":
        assert found["nested"] == 1
        assert found["inner_in_outer"]["p5"] == 1


@pytest.mark.parametrize("kind", ["hierarchy", "proximity"])
def test_counts(tmp_path: Path, kind: str) -> None:
    scenes = scenes_of(kind)
    found = statistics(write_shards(tmp_path, scenes))
    objects = [item for sampled in scenes for item in sampled.scene.objects]
    sets = [chosen for sampled in scenes for chosen in sampled.sets]
    sizes = Counter(len(chosen.members) for chosen in sets)
    assert found["scenes"] == len(scenes)
    assert found["complete"]
    assert found["objects"] == sum(item.kind != "stuff" for item in objects)
    assert found["stuff"] == sum(item.kind == "stuff" for item in objects)
    assert found["by_source"] == {"by-hand": dict(Counter(item.kind for item in objects))}
    assert found["categories"] == len({item.category for item in objects if item.kind != "stuff"})
    assert found["stuff_categories"] == len({item.category for item in objects if item.kind == "stuff"})
    assert (found["sets"], found["masks"]) == (len(sets), sum(len(chosen.members) for chosen in sets))
    assert found["masks_a_set"] == pytest.approx(found["masks"] / found["sets"])
    assert list(found["set_sizes"].items()) == [(str(size), count) for size, count in sorted(sizes.items())]
    assert found["left_out"] == sum(chosen.left_out for chosen in sets)
    assert found["sets_cut"] == sum(chosen.left_out > 0 for chosen in sets)
    assert found["repeated"] == sum(chosen.repeated for chosen in sets)
    assert (found["left_out"] > 0) == (kind == "proximity")


def test_the_hierarchy(tmp_path: Path) -> None:
    scenes = scenes_of("hierarchy")
    found = statistics(write_shards(tmp_path, scenes))
    pairs: Counter[tuple[str, str]] = Counter()
    longest: list[str] = []
    image = ""
    for sampled in scenes:
        names = [item.category for item in sampled.scene.objects]
        for node, level in enumerate(sampled.levels):
            path, at = [names[node]], node
            while level is not None and (above := sampled.parents[at]) is not None and above >= 0:
                at = above
                path.append(names[at])
            if level is not None and len(path) > 1:
                pairs[path[1], path[0]] += 1
            if level is not None and len(path) > len(longest):
                longest, image = path, sampled.scene.image_id
    levels = Counter(str(level) for sampled in scenes for level in sampled.levels if level is not None)
    assert list(found["levels"].items()) == sorted(levels.items())
    assert found["deepest"]["categories"] == longest[::-1]
    assert found["deepest"]["image_id"] == image
    listed = {(pair["first"], pair["second"]): pair["count"] for pair in found["parent_child"]}
    assert listed.items() <= pairs.items()
    assert list(listed.values()) == sorted(pairs.values(), reverse=True)[:TOP_PAIRS]
    assert found["neighbours"] is None
    assert found["touching"] == []


def test_neighbours(tmp_path: Path) -> None:
    scenes = scenes_of("proximity")
    found = statistics(write_shards(tmp_path, scenes))
    counts = [
        len(row)
        for sampled in scenes
        for item, row in zip(sampled.scene.objects, sampled.neighbours, strict=True)
        if item.kind == "thing"
    ]
    assert found["neighbours"]["mean"] == pytest.approx(np.mean(counts))
    assert found["neighbours"]["largest"] == max(counts)
    assert found["neighbours"]["alone"] == counts.count(0)
    pairs = Counter(
        tuple(sorted((sampled.scene.objects[i].category, sampled.scene.objects[j].category)))
        for sampled in scenes
        for i, row in enumerate(sampled.neighbours)
        for j in row
        if i < j
    )
    assert {(pair["first"], pair["second"]): pair["count"] for pair in found["touching"]} == pairs
    assert found["levels"] == {}
    assert found["deepest"] is None
    assert found["parent_child"] == []


def edit_manifest(folder: Path, **values: Any) -> None:
    change_manifest(folder, lambda manifest: manifest.update(values))


def test_what_only_the_manifest_knows(tmp_path: Path) -> None:
    first, *others = scenes_of("hierarchy", 3)
    first = replace(first, scene=replace(first.scene, dropped=Counter(small=4, empty=2)))
    folder = write_shards(tmp_path, [first, *others])
    bare = statistics(folder)
    assert (bare["recipe"], bare["method"], bare["source"], bare["images"]) == ("by-hand", "", "", None)
    assert (list(bare["dropped"].items()), bare["dropped_everywhere"]) == ([("small", 4), ("empty", 2)], False)
    dropped = {"b": 2, "a": 2, "c": 7}
    edit_manifest(folder, recipe={"name": "n", "method": "hierarchy"}, source="s", images=9, dropped=dropped)
    full = statistics(folder)
    assert (full["recipe"], full["method"], full["source"], full["images"]) == ("n", "hierarchy", "s", 9)
    assert list(full["dropped"].items()) == [("c", 7), ("a", 2), ("b", 2)]
    assert full["dropped_everywhere"]


def test_limit_reads_the_first_scenes(tmp_path: Path) -> None:
    scenes = scenes_of("hierarchy")
    all_of_them = write_shards(tmp_path / "all", scenes)
    first = statistics(write_shards(tmp_path / "first", scenes[:7]))
    limited = statistics(all_of_them, limit=7)
    assert not limited["complete"]
    assert limited | {"complete": True} == first
    assert statistics(all_of_them, limit=10**6) == statistics(all_of_them)
    assert statistics(all_of_them, limit=0)["sets"] == 0


@pytest.mark.parametrize("kind", ["hierarchy", "union", "proximity"])
def test_ambiguity_is_that_of_the_decoded_arrays(tmp_path: Path, kind: str) -> None:
    scenes = scenes_of(kind)
    ambiguous, relations, levels = 0, Counter[str](), Counter[int]()

    def differ(one: Mask, other: Mask) -> bool:
        return bool((one & other).sum() < 0.9 * (one | other).sum())

    for sampled in scenes:
        for chosen in sampled.sets:
            masks = set_arrays(sampled, chosen)
            hit = any(differ(*pair) for pair in combinations(masks, 2))
            ambiguous += hit
            if (level := sampled.levels[chosen.center]) is not None:
                levels[level] += hit
            outer = zip(chosen.members, masks, strict=True)
            relations.update(
                {relation(sampled, chosen.center, member) for member, mask in outer if differ(masks[0], mask)}
            )
    found = statistics(write_shards(tmp_path, scenes))["ambiguity"]
    assert (found["sets"], found["by_relation"]) == (ambiguous, relations)
    assert {int(level): hit for level, (_, hit) in found["by_level"].items()} == dict(levels)
    assert 0 < ambiguous < sum(len(sampled.sets) for sampled in scenes)


def test_groups_are_counted_apart_and_several_folders_stand_side_by_side(tmp_path: Path) -> None:
    folders = []
    for name in ("declared", "geometric"):
        folders.append(tmp_path / name)
        make_shards(AnnotatedImages([open_photos()]), load_recipe("lvis-hierarchy", [f"links={name}"]), folders[-1])
    declared, geometric = map(statistics, folders)
    assert (declared["objects"], declared["groups"], geometric["objects"], geometric["groups"]) == (257, 25, 257, 0)
    assert sum(sets for sets, _ in declared["ambiguity"]["by_level"].values()) == declared["sets"] == 257
    lines = compare_folders([("a", declared), ("b", geometric)]).splitlines()
    rows = {name: cells for name, *cells in (re.split(r"\s{2,}", line.strip()) for line in lines)}
    assert rows["groups of like parts"] == ["25", "0"]
    assert rows["with a mask: group"] == ["75 (29.2%)", "-"]
    assert len({len(line) for line in lines}) == 1


def test_overlaps_can_be_left_out(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, scenes_of("hierarchy"))
    fast = statistics(folder, overlaps=False)
    assert fast["overlaps"] is None
    assert fast == statistics(folder) | {"overlaps": None, "ambiguity": None}
    assert "IoU" not in as_text(fast)


def test_combinations_beyond_machine_numbers(tmp_path: Path) -> None:
    sampled = random_scene(np.random.default_rng(0), "a", things=2, stuff=0)
    sets = [SetOfObjects(0, ((0,), (0, 1)), left_out=2**80, repeated=2**70)] * 3
    found = statistics(write_shards(tmp_path, [without_hierarchy(sampled.scene, sets)]))
    assert (found["left_out"], found["repeated"]) == (3 * 2**80, 3 * 2**70)
    assert "3.63e+24" in as_text(found)


def test_no_scene_at_all(tmp_path: Path) -> None:
    found = statistics(write_shards(tmp_path, []))
    assert (found["scenes"], found["sets"], found["masks_a_set"], found["deepest"]) == (0, 0, None, None)
    assert found["overlaps"]["iou"]["mean"] is None
    assert "nan" not in as_text(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_report_is_aligned_and_narrow(tmp_path: Path) -> None:
    scenes = scenes_of("hierarchy")
    long = "a_very_long_category_name_" * 4
    objects = tuple(replace(item, category=long) for item in scenes[0].scene.objects)
    dropped = Counter({"for a reason that takes many words " * 5: 3})
    scene = replace(scenes[0].scene, image_id="image/" * 30, objects=objects, dropped=dropped)
    scenes[0] = replace(scenes[0], scene=scene)
    text = as_text(statistics(write_shards(tmp_path, scenes)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert text.isascii()
    assert not any(line != line.rstrip() for line in lines)
    bars = [line for line in lines if line.endswith("#")]
    assert len({line.index("%") for line in bars}) <= 2  # one column in each of the two histograms


def test_the_report_names_what_was_found(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, scenes_of("proximity"))
    edit_manifest(folder, recipe={"name": "near", "method": "proximity"}, source="lvis", images=1234567)
    text = as_text(statistics(folder, limit=30))
    for part in ("near (proximity) from lvis, the first 30 scenes", "1,234,567", "the cap", "kind-0 | kind-1"):
        assert part in text
