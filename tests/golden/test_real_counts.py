"""Counts on the real datasets. They change only when a rule changes, and then on purpose."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from disbench.datasets.cards import open_dataset
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from disbench.shards.reader import ShardReader

pytestmark = pytest.mark.real_data

LVIS = {"lvis": [Path("lvis/lvis_val_100.json")]}
COCO = {"coco": [Path("coco/instances_val.json")]}
CLOTHING = {"lvis": [Path("clothing/paco_style.json")]}
CARS = {"coco": [Path("car_parts/annotations.json")]}
PANOPTIC = {"panoptic": [Path("coco_panoptic/panoptic_val2017.json")]}

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("lvis-hierarchy", LVIS, {"scenes": 92, "objects": 867, "sets": 867}),
    ("coco-lvis-hierarchy", LVIS | COCO, {"images": 4, "scenes": 4, "objects": 17, "sets": 17}),
    ("coco-hierarchy", COCO, {"scenes": 164, "objects": 1500, "sets": 1500}),
    ("coco-lvis-proximity", LVIS | COCO, {"scenes": 4, "objects": 17, "sets": 17}),
    ("coco-proximity", COCO, {"scenes": 164, "objects": 1500, "sets": 1483}),
    ("sbd-proximity", {"sbd": Path("SBD"), "split": "val"}, {"scenes": 2, "objects": 10, "sets": 10}),
    ("voc-proximity", {"voc": Path("VOC2007"), "split": "trainval"}, {"scenes": 44, "objects": 112, "sets": 112}),
    ("containment", LVIS | COCO, {"scenes": 4, "objects": 17, "sets": 17}),
    ("random-merge", COCO, {"scenes": 164, "objects": 1500, "sets": 1483}),
    ("paco-parts", CLOTHING, {"scenes": 599, "objects": 4989, "sets": 4422, "dropped": {}}),
    ("coco-proximity", CARS, {"scenes": 100, "objects": 805, "sets": 805, "dropped": {"smaller than 80 pixels": 6}}),
    ("coconut-proximity", PANOPTIC, {"scenes": 100, "objects": 657, "sets": 652}),
]


def make(recipe: str, paths: dict[str, Any], data_root: Path, out: Path, *overrides: str) -> dict[str, Any]:
    chosen = load_recipe(recipe, overrides)
    return make_shards(open_source(chosen, SourcePaths(**paths, data=data_root)), chosen, out)


@pytest.mark.parametrize(("recipe", "paths", "expected"), CASES, ids=[case[0] for case in CASES])
def test_counts(recipe: str, paths: dict[str, Any], expected: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    manifest = make(recipe, paths, data_root, tmp_path)
    assert {key: getattr(manifest, key) for key in expected} == expected


def test_all_images_of_either_dataset(data_root: Path, tmp_path: Path) -> None:
    counts = {
        recipe: make(recipe, LVIS | COCO, data_root, tmp_path / recipe, "join=outer")
        for recipe in ("coco-lvis-hierarchy", "coco-lvis-proximity")
    }
    assert {(m.images, m.scenes, m.objects) for m in counts.values()} == {(260, 252, 2360)}
    assert counts["coco-lvis-hierarchy"].sets == 2360
    assert counts["coco-lvis-proximity"].sets == 2343


def test_lvis_drops_and_depths(data_root: Path, tmp_path: Path) -> None:
    manifest = make("lvis-hierarchy", LVIS, data_root, tmp_path)
    assert manifest.dropped == {
        "LVIS mask that comes again": 7,
        "image without a mask": 8,
        "smaller than 80 pixels": 103,
    }
    levels = Counter(level for sampled in ShardReader(tmp_path) for level in sampled.levels)
    assert levels == {0: 789, 1: 73, 2: 5}


def test_coco_and_lvis_are_merged_on_the_images_that_both_have(data_root: Path, tmp_path: Path) -> None:
    make("coco-lvis-hierarchy", LVIS | COCO, data_root, tmp_path)
    both = {
        sampled.scene.image_id: Counter(item.source for item in sampled.scene.objects)
        for sampled in ShardReader(tmp_path)
        if sampled.scene.image_id in {"11813", "223747", "346638", "359937"}
    }
    assert both == {
        "11813": {"coco": 1, "lvis": 5},
        "223747": {"coco": 2, "lvis": 2},
        "346638": {"coco": 1, "lvis": 4},
        "359937": {"lvis": 2},
    }


def test_nearly_all_sets_of_declared_parts_are_ambiguous(data_root: Path, tmp_path: Path) -> None:
    make("paco-parts", CLOTHING, data_root, tmp_path)
    sizes = Counter(len(item.members) for sampled in ShardReader(tmp_path) for item in sampled.sets)
    assert sizes == {1: 32, 2: 4390}
    assert sizes[1] < 0.02 * sizes.total()


def test_objects_and_parts_as_benchmarks(data_root: Path) -> None:
    panoptic = "coco_panoptic/panoptic_val2017"
    things = open_dataset("coconut", data_root, [f"annotations={panoptic}.json", f"masks={panoptic}"])
    assert len(things.ids) == 707
    assert things.facts()["left_out"] == {"stuff region": 366, "crowd region": 5}
    parts = open_dataset("paco", data_root, ["annotations=clothing/paco_style.json", "images=clothing/images"])
    assert len(parts.ids) == 4989
    assert int((parts.read(1).target == 1).sum()) == 15567  # the area that the file states


def test_random_merge_has_the_sizes_of_proximity(data_root: Path, tmp_path: Path) -> None:
    sizes = {}
    for recipe in ("coco-proximity", "random-merge"):
        make(recipe, COCO, data_root, tmp_path / recipe)
        sizes[recipe] = [
            (item.center, len(item.members) + (item.left_out if recipe == "random-merge" else 0))
            for sampled in ShardReader(tmp_path / recipe)
            for item in sampled.sets
        ]
    assert sizes["random-merge"] == sizes["coco-proximity"]
