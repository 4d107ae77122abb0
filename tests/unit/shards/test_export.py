"""Exports: shards to RITM's files and back, the packing rule, COCO's JSON as pycocotools opens it."""

import json
import pickle
import pickletools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from disbench.core.errors import InputError
from disbench.core.masks import decode, encode
from disbench.core.scenes import SampledScene, Scene, SetOfObjects
from disbench.datasets.hannotation import HannotationSource
from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.datasets.photos import open_photos
from disbench.sampling import read_sets
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.shards.export import export_coco, export_ritm, pack_masks
from tests.refusals import refuses
from tests.unit.shard_tools import (
    random_rectangles,
    random_scene,
    scene_object,
    with_hierarchy,
    without_hierarchy,
    write_shards,
)

Mask = npt.NDArray[np.bool_]


def scenes_of(seed: int, count: int = 5, **options: Any) -> list[SampledScene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng, str(100 - 7 * number), **options) for number in range(count)]


def globals_of(data: bytes) -> set[str]:
    """The names that a pickle loads."""
    found, texts = set(), []
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
        elif operation.name in ("GLOBAL", "INST"):
            found.add(argument)
        elif isinstance(argument, str):
            texts.append(argument)
    return found


def read_ritm_export(split: Path) -> Iterator[tuple[Any, dict[int, Mask], dict[int, Any]]]:
    """The files read from their description alone: each image's id, all masks, and the tree of the instances.

    "`None` stands for an isolated root"; "layers are PNG-encoded uint8 label maps, `mapping[index] =
    (layer, value)`"; what is not in the hierarchy comes after `num_instance_masks`.
    """
    annotation = pickle.loads((split / "hannotation.pickle").read_bytes())
    for image_id, entry in sorted(annotation.items()):
        layers, mapping = pickle.loads((split / "masks" / f"{image_id}.pickle").read_bytes())
        stack = np.stack([cv2.imdecode(layer, cv2.IMREAD_UNCHANGED) for layer in layers], axis=2)
        assert stack.dtype == np.uint8
        masks = {index: stack[:, :, mapping[index][0]] == mapping[index][1] for index in range(len(mapping))}
        isolated = {"children": [], "parent": None, "node_level": 0}
        tree = {index: isolated if node is None else node for index, node in entry["hierarchy"].items()}
        assert list(tree) == list(range(entry["num_instance_masks"]))
        yield image_id, masks, tree


def instances(sampled: SampledScene) -> int:
    return sum(item.kind != "stuff" for item in sampled.scene.objects)


def check_split(split: Path, scenes: Sequence[SampledScene]) -> None:
    """The files hold the masks, trees and levels of the scenes, to our reader and to the plain one alike."""
    by_id = {sampled.scene.image_id: sampled for sampled in scenes}
    source = HannotationSource(split)
    assert len(source) == len(scenes)
    for read in source.read(range(len(source))):
        sampled = by_id[read.image_id]
        assert [decode(rle).tolist() for rle in read.rles] == [decode(rle).tolist() for rle in sampled.scene.rles]
        assert read.parents == tuple(-1 if parent is None else parent for parent in sampled.parents)
        assert [item.kind == "stuff" for item in read.objects] == [
            item.kind == "stuff" for item in sampled.scene.objects
        ]
        assert [(item.area, item.box) for item in read.objects] == [
            (item.area, item.box) for item in sampled.scene.objects
        ]
    for image_id, masks, tree in read_ritm_export(split):
        sampled = by_id[str(image_id)]
        for index, rle in enumerate(sampled.scene.rles):
            np.testing.assert_array_equal(masks[index], decode(rle))
        for index, node in tree.items():
            parent = sampled.parents[index]
            assert node["parent"] == (None if parent in (None, -1) else parent)
            assert node["node_level"] == (sampled.levels[index] or 0)
            assert sorted(node["children"]) == [child for child in tree if sampled.parents[child] == index]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=20)
@given(data=st.data())
def test_any_masks_survive_the_way_to_ritm_and_back(
    tmp_path_factory: pytest.TempPathFactory, related_masks: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    masks = data.draw(related_masks)
    things = data.draw(st.integers(1, len(masks)))
    objects = tuple(scene_object(mask, "thing" if i < things else "stuff") for i, mask in enumerate(masks))
    scene = Scene("5", "5.jpg", *masks[0].shape, source="", objects=objects)
    scenes = [with_hierarchy(scene, things) if data.draw(st.booleans()) else without_hierarchy(scene)]
    export_ritm(write_shards(folder / "shards", scenes), folder / "out")
    check_split(folder / "out", scenes)


def test_more_masks_than_a_layer_has_values(tmp_path: Path) -> None:
    dots = [np.zeros((20, 40), bool) for _ in range(600)]
    for number, dot in enumerate(dots):
        dot.flat[number] = True
    dots.append(np.ones((20, 40), bool))
    scene = Scene("1", "1.jpg", 20, 40, source="", objects=tuple(map(scene_object, dots)))
    scenes = [with_hierarchy(scene, len(dots))]
    export_ritm(write_shards(tmp_path / "shards", scenes), tmp_path / "out")
    check_split(tmp_path / "out", scenes)
    layers, mapping = pickle.loads((tmp_path / "out" / "masks" / "1.pickle").read_bytes())
    assert len(layers) == 4
    assert mapping[600] == (0, 1)  # the largest one comes first and fills its layer
    assert [mapping[599], mapping[345], mapping[344], mapping[0]] == [(1, 1), (1, 255), (2, 1), (3, 90)]


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_packed_by_the_rule(seed: int) -> None:
    """Largest first, into the first layer where they overlap nothing and that holds fewer than 255."""
    assert pack_masks([]) == ([], [])
    masks = random_rectangles(np.random.default_rng(seed), 40, 12, 14)
    by_area = sorted(range(len(masks)), key=lambda index: (masks[index].sum(), index), reverse=True)
    held: list[list[int]] = []
    for index in by_area:
        free = [
            number
            for number, others in enumerate(held)
            if len(others) < 255 and not any((masks[index] & masks[other]).any() for other in others)
        ]
        if not free:
            held.append([])
        held[free[0] if free else -1].append(index)
    layers, places = pack_masks([encode(mask) for mask in masks])
    assert len(layers) == len(held) > 2
    for number, others in enumerate(held):
        assert [places[index] for index in others] == [(number, value) for value in range(1, len(others) + 1)]
        expected = np.zeros((12, 14), np.uint8)
        for value, index in enumerate(others, 1):
            expected[masks[index]] = value
        np.testing.assert_array_equal(layers[number], expected)


def test_the_pickles_name_nothing_that_a_numpy_release_lacks(tmp_path: Path) -> None:
    export_ritm(write_shards(tmp_path / "shards", scenes_of(2)), tmp_path / "out")
    files = files_of(tmp_path / "out")
    assert len(files) == 6
    for name, data in files.items():
        assert data[:2] == b"\x80\x04"
        assert globals_of(data) == (set() if name == "hannotation.pickle" else {"numpy.frombuffer"})
    layers, mapping = pickle.loads(files["masks/100.pickle"])
    assert {(layer.dtype, layer.ndim) for layer in layers} == {(np.dtype(np.uint8), 1)}
    assert {type(place) for place in mapping} == {tuple}
    assert {type(number) for place in mapping for number in place} == {int}


def test_two_exports_give_the_same_bytes_and_leave_nothing_else(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", scenes_of(3, 40))
    for name in ("a", "b"):
        export_ritm(shards, tmp_path / name)
        export_coco(shards, tmp_path / f"{name}.json")
    before = files_of(tmp_path / "a")
    assert before == files_of(tmp_path / "b")
    assert len(before) == 41
    export_ritm(shards, tmp_path / "a")
    assert files_of(tmp_path / "a") == before
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"shards", "a", "b", "a.json", "b.json"}


@pytest.mark.parametrize("names", [["2008_000051", "2007_000032"], ["7", "2008_000051"], ["007", "8"]])
def test_ids_that_are_no_numbers_stay_text(tmp_path: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, name) for name in names]
    export_ritm(write_shards(tmp_path / "shards", scenes), tmp_path / "out")
    assert [image_id for image_id, *_ in read_ritm_export(tmp_path / "out")] == sorted(names)
    check_split(tmp_path / "out", scenes)


def test_scenes_without_an_instance_are_left_out_of_ritm(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = {"1": (8, 2), "2": (0, 2), "3": (0, 0)}
    scenes = [random_scene(rng, name, things=things, stuff=stuff) for name, (things, stuff) in counts.items()]
    shards = write_shards(tmp_path / "shards", scenes)
    assert export_ritm(shards, tmp_path / "out") == 1
    check_split(tmp_path / "out", scenes[:1])
    assert export_coco(shards, tmp_path / "all.json") == 3
    assert export_coco(write_shards(tmp_path / "none", []), tmp_path / "none.json") == 0
    assert COCO(tmp_path / "none.json").getImgIds() == []
    assert export_ritm(tmp_path / "none", tmp_path / "empty") == 0
    assert len(HannotationSource(tmp_path / "empty")) == 0


def test_an_interrupted_export_does_not_look_finished(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = random_scene(rng, "1")
    shards = write_shards(tmp_path / "shards", [good, random_scene(rng, "2")])
    export_ritm(shards, tmp_path / "out")
    export_coco(shards, tmp_path / "out.json")
    before = (tmp_path / "out.json").read_bytes()
    damaged = random_scene(rng, "3")
    broken = write_shards(tmp_path / "broken", [good, replace(damaged, parents=(77, *damaged.parents[1:]))])
    refuses(r"broken.*image '3'", export_coco, broken, tmp_path / "out.json")
    assert (tmp_path / "out.json").read_bytes() == before
    with pytest.raises(InputError, match="occurs twice"):
        export_ritm(write_shards(tmp_path / "twice", [good, good]), tmp_path / "out")
    assert not (tmp_path / "out" / "hannotation.pickle").exists()
    assert not list(tmp_path.rglob("*partial"))


@pytest.mark.parametrize("name", ["../1", "", "a\\b", "a\nb"])
def test_ids_that_cannot_be_file_names(tmp_path: Path, name: str) -> None:
    named = random_scene(np.random.default_rng(0), name)
    named = replace(named, scene=replace(named.scene, file_name="1.jpg"))
    with pytest.raises(InputError, match="file name"):
        export_ritm(write_shards(tmp_path / "strange", [named]), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"strange", "out"}


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    good = random_scene(np.random.default_rng(0), "1")
    turned = replace(good.scene, objects=good.scene.objects[::-1])
    with pytest.raises(InputError, match="image 1: stuff "):
        export_ritm(write_shards(tmp_path / "turned", [without_hierarchy(turned, [])]), tmp_path / "out")
    twice = write_shards(tmp_path / "twice", [good, good])
    for export in (export_ritm, export_coco):
        refuses("image 1 occurs twice", export, twice, tmp_path / f"{export.__name__}.out")
        refuses(r"no manifest\.json", export, tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=str(tmp_path)):
        export_coco(write_shards(tmp_path / "shards", [good]), tmp_path)


def open_export(shards: Path, out: Path) -> tuple[COCO, dict[str, Any]]:
    export_coco(shards, out)
    return COCO(out), json.loads(out.read_text(encoding="utf-8"))


def check_coco(scenes: Sequence[SampledScene], out: Path, shards: Path) -> None:
    """Every image, annotation and set of the file is the scenes', by way of pycocotools."""
    coco, content = open_export(shards, out)
    assert [image["disbench_id"] for image in content["images"]] == [s.scene.image_id for s in scenes]
    names = [category["name"] for category in content["categories"]]
    assert names == sorted(set(names))
    assert [category["id"] for category in content["categories"]] == list(range(1, len(names) + 1))
    assert list(coco.anns) == list(range(1, len(coco.anns) + 1))
    sets = iter(content["diverse_sets"])
    for image, sampled in zip(content["images"], scenes, strict=True):
        scene = sampled.scene
        assert (image["file_name"], image["height"], image["width"]) == (scene.file_name, scene.height, scene.width)
        named = {i for item in sampled.sets for member in item.members for i in member}
        keep_stuff = any(scene.objects[index].kind == "stuff" for index in named)
        kept = [i for i, item in enumerate(scene.objects) if keep_stuff or item.kind != "stuff"]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        ids = {index: annotation["id"] for index, annotation in zip(kept, annotations, strict=True)}
        for index, annotation in zip(kept, annotations, strict=True):
            item, parent = scene.objects[index], sampled.parents[index]
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), decode(item.rle))
            assert isinstance(annotation["segmentation"]["counts"], str)
            assert (annotation["area"], tuple(annotation["bbox"])) == (item.area, item.box)
            assert annotation["iscrowd"] == (item.kind == "crowd")
            assert coco.cats[annotation["category_id"]]["name"] == item.category
            assert annotation.get("synset") == item.synset
            assert annotation.get("parent_id") == (None if parent in (None, -1) else ids[parent])
        for chosen in sampled.sets:
            assert next(sets) == {
                "image_id": image["id"],
                "center": ids[chosen.center],
                "members": [[ids[index] for index in member] for member in chosen.members],
                "click_excludes": [ids[index] for index in chosen.click_excludes],
            }
    assert next(sets, None) is None


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_pycocotools_reads_what_the_shards_hold(tmp_path: Path, seed: int, tree: bool) -> None:
    scenes = scenes_of(seed, 40, tree=tree)
    check_coco(scenes, tmp_path / "new" / "out.json", write_shards(tmp_path / "shards", scenes))


def test_an_exported_tree_of_parts_is_read_back(tmp_path: Path) -> None:
    photos = AnnotatedImages([open_photos()])
    make_shards(photos, load_recipe("lvis-hierarchy"), tmp_path / "shards")
    export_coco(tmp_path / "shards", tmp_path / "out.json")
    again = AnnotatedImages([open_annotations(tmp_path / "out.json", "coco")])
    make_shards(again, load_recipe("coco-hierarchy"), tmp_path / "again")
    sets = [[(one.center, one.masks) for one in read_sets(tmp_path / name)] for name in ("shards", "again")]
    assert len(sets[0]) == 257
    assert sets[0] == sets[1]


def test_stuff_is_kept_in_the_scenes_whose_sets_name_it(tmp_path: Path) -> None:
    without, with_stuff = scenes_of(4, 2)
    named = replace(with_stuff, sets=(*with_stuff.sets, SetOfObjects(0, ((0,), (0, 9)))))
    shards = write_shards(tmp_path / "shards", [without, named])
    check_coco([without, named], tmp_path / "out.json", shards)
    coco, _ = open_export(shards, tmp_path / "out.json")
    assert len(coco.getAnnIds(imgIds=[100])) == 8
    assert len(coco.getAnnIds(imgIds=[93])) == 10


def test_images_are_numbered_by_their_ids_and_others_by_what_is_free(tmp_path: Path) -> None:
    names = ["2008_000051", "2", "000000000012", "2007_1", "12", "1", "9" * 30]
    rng = np.random.default_rng(0)
    shards = write_shards(tmp_path / "shards", [random_scene(rng, name) for name in names])
    _, content = open_export(shards, tmp_path / "out.json")
    assert [image["id"] for image in content["images"]] == [3, 2, 12, 4, 5, 1, 6]
    assert [image["disbench_id"] for image in content["images"]] == names
    assert content["images"][0]["file_name"] == "train2017/2008_000051.jpg"
