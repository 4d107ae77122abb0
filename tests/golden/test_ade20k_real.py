"""Three images of ADE20K as distributed: counts by level, links, and every mask against its PNG in other words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.core.masks import decode
from disbench.datasets.ade20k import Ade20kScenes
from disbench.datasets.cards import open_dataset
from disbench.sampling import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.sampling.verify import verify_shards
from disbench.shards.reader import ShardReader

pytestmark = pytest.mark.real_data
LEVELS = {
    "ADE_train_00016869": {1: 51, 2: 14, 3: 5},
    "ADE_train_00016900": {1: 34, 2: 3},
    "ADE_train_00016964": {1: 24, 2: 8},
}
"""Sets by their number of masks, without groups: objects, parts, parts of parts."""


@pytest.fixture(scope="module")
def folder(data_root: Path) -> Path:
    return data_root / "ade20k_sample"


def sizes(folder: Path, *overrides: str) -> dict[str, dict[int, int]]:
    recipe = load_recipe("ade-parts", overrides)
    source = Ade20kScenes(folder, "train")
    sampled = [sample_scene(scene, recipe) for scene in source.read(range(len(source)))]
    return {one.scene.image_id: Counter(len(chosen.members) for chosen in one.sets) for one in sampled}


def test_set_sizes_are_the_declared_levels(folder: Path) -> None:
    assert sizes(folder, "min_area=1", "groups=false") == LEVELS
    grouped = sizes(folder, "min_area=1")
    assert grouped["ADE_train_00016869"] == {1: 51, 2: 8, 3: 9, 4: 2}  # six windows of the building, two wheels
    assert grouped["ADE_train_00016900"] == LEVELS["ADE_train_00016900"]
    assert grouped["ADE_train_00016964"] == {1: 24, 2: 6, 3: 2}
    assert sizes(folder, "links=geometric", "min_area=1") != grouped


def test_every_mask_and_every_link(folder: Path) -> None:
    source = Ade20kScenes(folder, "train")
    assert len(source) == 3
    for scene in source.read(range(3)):
        path = folder / Path(scene.file_name).with_suffix(".json")
        listed = {item["id"]: item for item in json.loads(path.read_text())["annotation"]["object"]}
        assert not scene.dropped
        assert scene.links is not None
        assert [item.annotation_id for item in scene.objects] == list(listed)
        with Image.open(folder / scene.file_name) as photo:
            assert photo.size == (scene.width, scene.height)
        for item, above in zip(scene.objects, scene.links.parents, strict=True):
            found = listed[item.annotation_id]
            with Image.open(path.parent / found["instance_mask"]) as picture:
                assert np.array_equal(decode(item.rle), np.array(picture) == 255)
            assert item.category == found["name"]
            whole = found["parts"]["ispartof"]
            assert (scene.objects[above].annotation_id if above >= 0 else []) == whole


def test_shards_hold(folder: Path, tmp_path: Path) -> None:
    manifest = make_shards(Ade20kScenes(folder, "train"), load_recipe("ade-parts"), tmp_path)
    assert (manifest.scenes, manifest.objects, manifest.sets) == (3, 141, 138)
    assert manifest.dropped == {"link: parent loose": 1, "smaller than 80 pixels": 1}
    assert verify_shards(tmp_path).lines()[1:] == []
    kinds = Counter(item.kind for sampled in ShardReader(tmp_path) for item in sampled.scene.objects)
    assert kinds == {"thing": 138, "group": 3}


def test_as_a_benchmark(folder: Path) -> None:
    source = open_dataset("ade20k", folder, ["split=train"])
    assert len(source.ids) == 139
    sample = source.read(source.ids.index("ADE_train_00016869/55"))
    (path,) = folder.rglob("instance_055_ADE_train_00016869.png")
    with Image.open(path) as picture:
        assert np.array_equal(sample.target == 1, np.array(picture) == 255)
    assert sample.image.shape == (*sample.target.shape, 3)
