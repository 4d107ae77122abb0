"""PartImageNet's two releases and SPIN: maps, polygons and three files a split become one tree an image."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from disbench.core.arrays import ByteArray
from disbench.core.scenes import SampledScene
from disbench.datasets.cards import open_dataset
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.sampling.sources import SourcePaths, open_source
from tests.part_pictures import HEIGHT, SIZE, WIDTH, mask, photo, polygon, rle, sets_of
from tests.refusals import refuses

FISH = "n01440764"
HEAD, BODY, TIRE = "Quadruped Head", "Car Body", "Car Tier"
AREAS = {HEAD: 576, BODY: 720, TIRE: 240, FISH: 1536}
SETS = {name: ([name, FISH], area) for name, area in AREAS.items() if name != FISH}
SUBPART, PART, WHOLE = "Car-Tire-Rim", "Car-Tire", "Car"


def sampled(recipe: str, folder: Path, *overrides: str) -> list[SampledScene]:
    chosen = load_recipe(recipe, overrides)
    source = open_source(chosen, SourcePaths(folder=folder, split="val"))
    source = pickle.loads(pickle.dumps(source))
    assert source.fingerprint()
    return [sample_scene(scene, chosen) for scene in source.read(range(len(source)))]


def areas(found: SampledScene) -> dict[str, int]:
    return {item.category: item.area for item in found.scene.objects}


def part_map() -> ByteArray:
    labels = np.full(SIZE, 40, dtype=np.uint8)
    for names, number in (("W", 24), ("LR", 25), ("T", 0)):
        labels[mask(names)] = number
    return labels


def whole_map() -> ByteArray:
    return np.where(mask("W"), 17, 158).astype(np.uint8)


def write_maps(folder: Path, parts: ByteArray, wholes: ByteArray | None = None, name: str = f"{FISH}_1") -> Path:
    for place, labels in (("val", parts), ("val_whole", wholes)):
        (folder / "annotations" / place).mkdir(parents=True, exist_ok=True)
        if labels is not None:
            Image.fromarray(labels).save(folder / "annotations" / place / f"{name}.png")
    (folder / "annotations" / "val" / f"{name}.json").write_text('{"height": 40, "width": 60}')
    photo(folder / "images" / "val" / f"{name}.JPEG")
    return folder


def coco(annotations: list[dict[str, Any]], names: list[str], image_name: str, **changes: Any) -> dict[str, Any]:
    """A file with one image; a category's id is its place in `names`."""
    return {
        "images": [{"id": 1, "file_name": image_name, "height": HEIGHT, "width": WIDTH, **changes}],
        "annotations": [{"id": i, "image_id": 1, **one} for i, one in enumerate(annotations)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }


class TestPartImageNetMaps:
    def test_parts_fill_the_whole_or_are_counted_and_checked(self, tmp_path: Path) -> None:
        (found,) = sampled("partimagenet-parts", write_maps(tmp_path, part_map(), whole_map()))
        assert (areas(found), sets_of(found)) == (AREAS, SETS)
        assert (found.scene.image_id, found.scene.file_name) == (f"{FISH}_1", f"images/val/{FISH}_1.JPEG")
        assert [item.annotation_id for item in found.scene.objects] == [0, 24, 25, 40]
        assert not found.scene.dropped
        wholes = np.where(mask("T"), 17, 158).astype(np.uint8)
        (found,) = sampled("partimagenet-parts", write_maps(tmp_path, part_map(), wholes))
        assert sets_of(found)[TIRE] == ([TIRE], 240)
        assert found.scene.dropped == {"link: whole differs from its parts": 1, "link: parent outside": 2}

    def test_without_maps_of_wholes_their_union_is_the_whole(self, tmp_path: Path) -> None:
        write_maps(tmp_path, part_map(), name="b")
        write_maps(tmp_path, np.where(mask("W"), part_map(), 24).astype(np.uint8), name="a")
        write_maps(tmp_path, np.full(SIZE, 40, dtype=np.uint8), name="c")
        (tmp_path / "annotations" / "val" / "._b.png").write_bytes(b"")
        full, usual, nothing = sampled("partimagenet-parts", tmp_path)
        assert areas(full) == {HEAD: 576, BODY: HEIGHT * WIDTH - 576 - 240, TIRE: 240, "whole": HEIGHT * WIDTH}
        assert areas(usual)["whole"] == 1536
        assert not nothing.scene.objects

    @pytest.mark.parametrize(
        ("parts", "wholes", "file"),
        [
            (np.full(SIZE, 41, dtype=np.uint8), None, "val/"),
            (part_map(), np.full(SIZE, 159, dtype=np.uint8), "val_whole/"),
            (part_map(), part_map(), "val_whole/"),
        ],
        ids=["class of a part", "class of a whole", "two wholes"],
    )
    def test_classes_that_there_are_not(self, parts: ByteArray, wholes: Any, file: str, tmp_path: Path) -> None:
        write_maps(tmp_path, parts, wholes)
        refuses(rf"{file}{FISH}_1\.png: .*bad_annotations=drop", sampled, "partimagenet-parts", tmp_path)
        (found,) = sampled("partimagenet-parts", tmp_path, "bad_annotations=drop")
        assert found.scene.dropped["invalid annotation"] == 1
        assert areas(found) == (AREAS if wholes is not None else {})

    def test_as_a_benchmark(self, tmp_path: Path) -> None:
        write_maps(tmp_path / "PartImageNet", part_map(), whole_map())
        source = open_dataset("partimagenet", tmp_path)
        assert list(source.ids) == [f"{FISH}_1/{number}" for number in (0, 24, 25, 40)]
        assert [int((source.read(i).target == 1).sum()) for i in range(4)] == list(AREAS.values())


class TestPartImageNetPolygons:
    NAMES = (HEAD, BODY, TIRE)
    ANNOTATIONS = (
        {"category_id": 0, "segmentation": polygon("T"), "iscrowd": 0},
        {"category_id": 2, "segmentation": [*polygon("L"), *polygon("R")]},
        {"category_id": 2, "segmentation": [[1, 1, 5, 5]]},
    )

    def write(self, folder: Path) -> Path:
        photo(folder / "val" / FISH / f"{FISH}_1.JPEG")
        content = coco([*self.ANNOTATIONS], [*self.NAMES], f"{FISH}_1.JPEG")
        (folder / "val.json").write_text(json.dumps(content))
        return folder

    def test_the_whole_is_the_union_of_the_parts(self, tmp_path: Path) -> None:
        (found,) = sampled("partimagenet-parts", self.write(tmp_path))
        assert sets_of(found) == {HEAD: ([HEAD, FISH], 576), TIRE: ([TIRE, FISH], 240)}
        assert areas(found) == {HEAD: 576, TIRE: 240, FISH: 816}
        assert found.scene.dropped == {"empty mask": 1}
        assert {item.source for item in found.scene.objects} == {"partimagenet"}
        assert found.scene.file_name == f"val/{FISH}/{FISH}_1.JPEG"

    def test_as_a_benchmark(self, tmp_path: Path) -> None:
        self.write(tmp_path / "PartImageNet")
        source = open_dataset("partimagenet", tmp_path)
        assert list(source.ids) == ["1/0", "1/1", "1/object-3"]
        assert [int((source.read(i).target == 1).sum()) for i in range(3)] == [576, 240, 816]


def write_spin(folder: Path, subpart: str = SUBPART, part: str = PART, whole: str = WHOLE, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for level, name, names in (("wholes", whole, "W"), ("parts", part, "LR"), ("subparts", subpart, "S")):
        content = coco([{"category_id": 0, "segmentation": rle(names)}], [name], "n0_1", **changes.get(level, {}))
        (folder / f"spin_val_{level}.json").write_text(json.dumps(content))
    photo(folder / "images" / "val" / "n0_1.JPEG")
    return folder


class TestSpin:
    @pytest.mark.parametrize(
        ("names", "parents", "dropped"),
        [
            ({}, [-1, 0, 1], {}),
            ({"part": "Car Tier"}, [-1, 0, 1], {}),
            ({"subpart": "car_tire-rim"}, [-1, 0, 1], {}),
            ({"subpart": "Boat-Sail-Rope"}, [-1, 0, -1], {"link: parent missing": 1}),
            ({"part": "Boat-Sail"}, [-1, -1, -1], {"link: parent missing": 2}),
            ({"whole": "beach wagon"}, [-1, 0, 1], {"link: name unknown": 1}),
            ({"subpart": "rim"}, [-1, 0, 1], {"link: name unknown": 1}),
            ({"part": "wheels"}, [-1, 0, 1], {"link: name unknown": 2}),
        ],
    )
    def test_names_and_geometry_make_the_links(self, names: Any, parents: Any, dropped: Any, tmp_path: Path) -> None:
        (found,) = sampled("spin-parts", write_spin(tmp_path, **names))
        assert list(found.parents) == parents
        assert found.scene.dropped == dropped

    def test_sets_of_three_and_a_fitting_name_outside(self, tmp_path: Path) -> None:
        (found,) = sampled("spin-parts", write_spin(tmp_path))
        assert sets_of(found) == {
            SUBPART: ([SUBPART, PART, WHOLE], 90),
            PART: ([PART, WHOLE], 150),
            WHOLE: ([WHOLE], 1296),
        }
        assert (found.scene.file_name, found.scene.source) == ("images/val/n0_1.JPEG", "spin+parts")
        write_spin(tmp_path)
        path = tmp_path / "spin_val_parts.json"
        path.write_text(json.dumps(coco([{"category_id": 0, "segmentation": rle("R")}], [PART], "n0_1.JPEG", id=1.0)))
        (found,) = sampled("spin-parts", tmp_path)
        assert (list(found.parents), found.scene.dropped) == ([-1, 0, -1], {"link: parent outside": 1})

    def test_images_are_joined_by_name_and_the_best_of_two_parts_is_taken(self, tmp_path: Path) -> None:
        write_spin(tmp_path)
        content = coco([{"category_id": 0, "segmentation": rle(one)} for one in "RL"], [PART], "n0_1")
        content["images"].insert(0, {**content["images"][0], "id": 7, "file_name": "m"})
        content["images"][1]["id"] = 8
        for one in content["annotations"]:
            one["image_id"] = 8
        (tmp_path / "spin_val_parts.json").write_text(json.dumps(content))
        alone, found = sampled("spin-parts", tmp_path, "groups=false")
        assert (alone.scene.image_id, alone.scene.objects) == ("m", ())
        assert list(found.parents) == [-1, 0, 0, 2]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"parts": {"height": 41}}, r"spin_val_parts.* another size in .*spin_val_wholes\.json"),
            ({"parts": {"file_name": ""}}, r"spin_val_parts\.json: image 1 has no file_name"),
        ],
    )
    def test_files_that_do_not_fit(self, changes: Any, words: str, tmp_path: Path) -> None:
        refuses(words, lambda: sampled("spin-parts", write_spin(tmp_path, **changes), "bad_annotations=drop"))

    def test_ids_that_repeat_between_files_are_told_apart(self, tmp_path: Path) -> None:
        write_spin(tmp_path / "SPIN")
        found = open_dataset("spin", tmp_path, ["split=val"])
        assert list(found.ids) == ["n0_1/2000000000", "n0_1/1000000000", "n0_1/0"]
        assert [int((found.read(i).target == 1).sum()) for i in range(3)] == [1536, 240, 90]


def test_a_panoptic_file_as_a_benchmark(tmp_path: Path) -> None:
    colours = np.zeros((*SIZE, 3), dtype=np.uint8)
    colours[mask("W")] = 44, 1, 0
    colours[mask("T")], colours[mask("R")] = (9, 0, 0), (7, 0, 0)
    segments = [{"id": 300, "category_id": 1}, {"id": 9, "category_id": 2}, {"id": 7, "category_id": 1, "iscrowd": 1}]
    folder = tmp_path / "coconut"
    (folder / "annotations").mkdir(parents=True)
    (folder / "panoptic_val2017").mkdir()
    Image.fromarray(colours).save(folder / "panoptic_val2017" / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "car", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
    }
    (folder / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    photo(tmp_path / "coco" / "val2017" / "1.jpg")
    source = open_dataset("coconut", tmp_path)
    assert list(source.ids) == ["1/300"]
    assert (source.read(0).target == 1).sum() == 1536 - 576 - 120
    assert source.facts()["left_out"] == {"stuff region": 1, "crowd region": 1}
