"""Panoptic Parts: uids as wholes and their parts, in the folders of Cityscapes and of PASCAL."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from disbench.core.masks import decode
from disbench.datasets.panoptic_parts import PanopticPartsScenes
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene
from tests.commands import disbench, refused
from tests.part_files import UIDS, Uids, rows_columns, write_city, write_uids
from tests.part_pictures import mask, photo, sets_of
from tests.refusals import refuses

SETS = dict[str, tuple[list[str], int]]
CAR: Uids = np.select([mask("L"), mask("R"), mask("W")], [700120, 700121, 7001]).astype(np.int32)
"""A car of PASCAL with two wheels."""


def scene_of(folder: Path, uids: np.ndarray[Any, Any], bad: Any = "fail") -> Any:
    return next(PanopticPartsScenes(write_city(folder, {"a": uids}), "train", bad).read([0]))


def sets(folder: Path, uids: Uids) -> SETS:
    return sets_of(sample_scene(scene_of(folder, uids), load_recipe("panoptic-parts")))


def test_cityscapes(tmp_path: Path) -> None:
    assert sets(tmp_path, UIDS) == {
        "car": (["car"], 720),
        "car:windows": (["car:windows", "car"], 576),
        "car:wheels": (["car:wheels", "car"], 240),
    }
    scene = next(PanopticPartsScenes(tmp_path).read([0]))
    assert [(item.annotation_id, item.category, item.kind, item.area) for item in scene.objects] == [
        (26001, "car", "thing", 1536),
        (2600101, "car:windows", "thing", 576),
        (2600102, "car:wheels", "thing", 240),
        (23, "sky", "stuff", 120),
    ]
    assert np.array_equal(decode(scene.objects[2].rle), mask("LR"))
    assert (scene.image_id, scene.file_name) == ("aachen_a", "leftImg8bit/train/aachen/aachen_a_leftImg8bit.png")


def test_numbers_without_an_object_or_part(tmp_path: Path) -> None:
    """Ids 0 to 3 are not of the scene, part 00 is none, and part 5 of a human is void."""
    corner = rows_columns(38, 39, 0, 59)
    uids = np.select([corner, mask("T"), mask("L"), mask("W")], [3, 2400000, 2400005, 2400004]).astype(np.int32)
    scene = scene_of(tmp_path, uids)
    assert [(item.category, item.area) for item in scene.objects] == [("person", 1536), ("person:legs", 840)]
    assert scene.dropped == {"part that is not defined": 1}
    assert scene_of(tmp_path, np.zeros_like(UIDS)).objects == ()


@pytest.mark.parametrize(
    ("uid", "category"),
    [
        (1000, "ego vehicle"),
        (99999, "class 99"),
        (3300107, "bicycle:part 7"),
        (9999999, "class 99:part 99"),
        (2600199, "car:part 99"),
        (100001, "ego vehicle:part 1"),
        (33, "bicycle"),
        (99, "class 99"),
    ],
)
def test_the_ranges_of_uids_and_numbers_without_a_name(tmp_path: Path, uid: int, category: str) -> None:
    objects = scene_of(tmp_path, np.full(UIDS.shape, uid, np.int32)).objects
    assert (objects[-1].annotation_id, objects[-1].category) == (uid, category)
    assert len(objects) == 1 + (uid >= 100_000)


def test_pascal(tmp_path: Path) -> None:
    """Wheels that are counted stay apart and make a group; parts without a name are not alike."""
    eyes = np.select([mask("L"), mask("R"), mask("W")], [1200102, 1200103, 12001]).astype(np.int32)
    for name, uids in (("2008_000002", CAR), ("2008_000001", eyes)):
        write_uids(tmp_path / "training" / f"{name}.tif", uids)
        photo(tmp_path / "VOC2010" / "JPEGImages" / f"{name}.jpg")
    write_uids(tmp_path / "training" / "._2008_000001.tif", CAR)
    source = pickle.loads(pickle.dumps(PanopticPartsScenes(tmp_path)))
    scenes = list(source.read([0, 1]))
    assert [scene.file_name for scene in scenes] == [
        "VOC2010/JPEGImages/2008_000001.jpg",
        "VOC2010/JPEGImages/2008_000002.jpg",
    ]
    dog, car = (sets_of(sample_scene(scene, load_recipe("panoptic-parts"))) for scene in scenes)
    assert car == {
        "car": (["car"], 1296),
        "car:wheel_1": (["car:wheel_1", "car:wheel (all)", "car"], 120),
        "car:wheel_2": (["car:wheel_2", "car:wheel (all)", "car"], 120),
    }
    assert dog["dog:part 2"] == (["dog:part 2", "dog"], 120)
    assert list(source.fingerprint()) == ["panoptic-parts:train", "part_keys.toml 1"]
    refuses(rf"{tmp_path}: no gtFinePanopticParts/val/.* validation/", PanopticPartsScenes, tmp_path, "val")


@pytest.mark.parametrize("value", [130, -1, 10_000_000, 999, 100])
def test_invalid_uids(tmp_path: Path, value: int) -> None:
    uids = np.where(mask("R"), np.int32(value), UIDS)
    refuses(rf"aachen_a_gtFinePanopticParts\.tif: {value} is not a uid", scene_of, tmp_path, uids)
    scene = scene_of(tmp_path, uids, "drop")
    assert scene.dropped == {"invalid annotation": 1}
    assert [item.area for item in scene.objects] == [1416, 576, 120, 120]


@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.uint16, "RGB", "pages", "cut", "many"])
def test_other_files(tmp_path: Path, kind: Any) -> None:
    folder = write_city(tmp_path, {"a": UIDS})
    path = next(folder.glob("gtFinePanopticParts/*/*/*.tif"))
    image = Image.fromarray(UIDS)
    if kind == "RGB":
        photo(path)
    elif kind == "pages":
        image.save(path, save_all=True, append_images=[image])
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "many":
        write_uids(path, np.arange(1000, 10_000, dtype=np.int32).reshape(90, 100))
    else:
        write_uids(path, (UIDS % 100).astype(kind))
    refuses(r"aachen_a_gtFinePanopticParts\.tif: ", lambda: next(PanopticPartsScenes(folder).read([0])))


@pytest.mark.parametrize("layout", ["cityscapes", "pascal"])
def test_through_the_commands(tmp_path: Path, layout: str) -> None:
    root = tmp_path / {"cityscapes": "CityscapesPanopticParts", "pascal": "PascalPanopticParts"}[layout]
    for split, pascal in (("train", "training"), ("val", "validation")):
        if layout == "cityscapes":
            write_city(root, {"a": UIDS, "b": np.zeros_like(UIDS), "c": CAR}, split)
            continue
        for name, uids in (("a", CAR), ("b", UIDS)):
            write_uids(root / pascal / f"{name}.tif", uids)
            photo(root / "JPEGImages" / f"{name}.jpg")
    command = ("sample", "panoptic-parts", "--folder", root)
    done = disbench(*command, "--out", tmp_path / "out", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert disbench("verify", tmp_path / "out", "--workers", "1").returncode == 0
    assert "part_keys.toml 1" in json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"]
    running = ("run", "--method", "disk", "--dataset", f"{layout}-panoptic-parts", "--data", tmp_path)
    done = disbench(*running, "--max-clicks", "1", "--out", tmp_path / "run", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "6 samples" in done.stdout
    assert "1 x stuff region" in done.stdout
    write_uids(min(root.rglob("*.tif")), UIDS + 104)
    refused(disbench(*command, "--out", tmp_path / "x"), "104 is not a uid")
