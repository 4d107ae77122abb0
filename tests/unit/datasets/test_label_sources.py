"""Label maps as scenes: SBD's MATLAB files and PascalVOC's palette PNGs, real and made by hand."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import loadmat, savemat

from disbench.core.masks import decode
from disbench.core.scenes import Scene, SceneSource
from disbench.datasets.label_maps import (
    SBD,
    VOC,
    VOC_CATEGORIES,
    MapLayout,
    MapScenes,
    instance_categories,
    read_instances,
)
from tests.refusals import refuses

Labels = npt.NDArray[np.uint8]

HAND_MADE: Labels = np.array(
    [[0, 0, 0, 0, 0, 0], [0, 2, 2, 1, 1, 0], [0, 2, 2, 1, 3, 3], [0, 2, 0, 1, 3, 3]], dtype=np.uint8
)


def scenes(source: SceneSource) -> list[Scene]:
    return list(source.read(range(len(source))))


def write_list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def write_mat(path: Path, labels: Labels, categories: Sequence[int], **others: Any) -> None:
    """An instance file in SBD's layout: a struct of objects, categories as a column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    truth = {"Segmentation": labels, "Categories": np.array(categories, dtype=np.uint8).reshape(-1, 1)}
    savemat(path, {"GTinst": {**truth, **others}}, do_compression=True)


def write_png(path: Path, labels: Labels, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "P":
        palette_image = Image.fromarray(labels, mode="L")
        palette_image.putpalette(bytes(value for index in range(256) for value in (index, 255 - index, 7)))
        palette_image.save(path)
    else:
        Image.fromarray(labels).convert(mode).save(path)


def write_voc(folder: Path, name: str, instances: Labels, classes: Labels) -> None:
    write_png(folder / "SegmentationObject" / f"{name}.png", instances)
    write_png(folder / "SegmentationClass" / f"{name}.png", classes)


def check_objects(scene: Scene, labels: npt.NDArray[Any], numbers: Sequence[int]) -> None:
    """Every object of a scene is one number of the map, in ascending order."""
    assert (scene.height, scene.width) == labels.shape
    assert [item.annotation_id for item in scene.objects] == list(numbers)
    for item in scene.objects:
        mask = labels == item.annotation_id
        rows, columns = np.nonzero(mask)
        assert np.array_equal(decode(item.rle), mask)
        assert item.area == mask.sum()
        assert item.box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert item.kind == "thing"


WITH_VOID: Labels = np.where(HAND_MADE == 0, [[255, 0, 0, 0, 0, 0]] * 4, HAND_MADE).astype(np.uint8)
CLASSES: Labels = np.array([0, 15, 9, 20] + [0] * 251 + [255], dtype=np.uint8)[WITH_VOID]
NOTHING: Labels = np.full((3, 5), 255, dtype=np.uint8)


@pytest.fixture(params=[SBD, VOC], ids=lambda layout: layout.name)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> MapLayout:
    """A layout, with a dataset in it: `b` without an instance, `a` and `c` with three each."""
    found: MapLayout = request.param
    write_list(tmp_path / found.split_list.format("train"), ["b", "a"])
    write_list(tmp_path / found.split_list.format("val"), ["c"])
    if found is SBD:
        write_mat(tmp_path / "inst" / "b.mat", np.zeros((3, 5), dtype=np.uint8), [])
        for name in "ac":
            write_mat(tmp_path / "inst" / f"{name}.mat", HAND_MADE, [15, 9, 20])
    else:
        write_voc(tmp_path, "b", NOTHING, NOTHING)
        for name in "ac":
            write_voc(tmp_path, name, WITH_VOID, CLASSES)
    return found


class TestBothLayouts:
    def test_instances_and_their_categories_in_the_order_of_the_list(self, layout: MapLayout, tmp_path: Path) -> None:
        source = MapScenes(layout, tmp_path)
        assert (source.name, len(source)) == (layout.name, 2)
        empty, scene = scenes(source)
        assert (empty.image_id, empty.objects, empty.height, empty.width) == ("b", (), 3, 5)
        assert (scene.image_id, scene.file_name, scene.source) == ("a", layout.image.format("a"), layout.name)
        check_objects(scene, HAND_MADE, [1, 2, 3])
        assert [item.category for item in scene.objects] == ["person", "chair", "tvmonitor"]
        assert {item.source for item in scene.objects} == {layout.name}
        assert scenes(pickle.loads(pickle.dumps(source))) == [empty, scene]

    @pytest.mark.parametrize("ending", ["jpg", "JPG", "jpeg", "png"])
    def test_images_have_any_usual_ending(self, layout: MapLayout, tmp_path: Path, ending: str) -> None:
        image = tmp_path / f"{layout.image.format('a').rpartition('.')[0]}.{ending}"
        image.parent.mkdir()
        image.touch()
        assert [tmp_path / scene.file_name for scene in scenes(MapScenes(layout, tmp_path))][1] == image

    def test_splits(self, layout: MapLayout, tmp_path: Path) -> None:
        assert [scene.image_id for scene in scenes(MapScenes(layout, tmp_path, "val"))] == ["c"]
        refuses(r"test\.txt: .*train, val", MapScenes, layout, tmp_path, "test")

    def test_the_fingerprint_follows_the_list_and_every_map(self, layout: MapLayout, tmp_path: Path) -> None:
        before = MapScenes(layout, tmp_path).fingerprint()
        kinds = [path.partition("/")[0] for path in layout.maps]
        assert list(before) == [f"{layout.name}:train.txt", *(f"{layout.name}:{kind}" for kind in kinds)]
        for kind, path in zip(kinds, layout.maps, strict=True):
            file = tmp_path / path.format("a")
            whole = file.read_bytes()
            file.write_bytes(whole + b"\0")
            after = MapScenes(layout, tmp_path).fingerprint()
            assert [key for key in before if after[key] != before[key]] == [f"{layout.name}:{kind}"]
            file.write_bytes(whole)
        write_list(tmp_path / layout.split_list.format("train"), ["a", "b"])
        after = MapScenes(layout, tmp_path).fingerprint()
        assert all(after[key] != before[key] for key in before)

    def test_missing_and_damaged_maps(self, layout: MapLayout, tmp_path: Path) -> None:
        source = MapScenes(layout, tmp_path)
        for path in layout.maps:
            file = tmp_path / path.format("a")
            whole = file.read_bytes()
            file.write_bytes(whole[:-40])
            refuses(path.format("a"), scenes, source)
            file.unlink()
            for read in (source.fingerprint, lambda: scenes(source)):
                refuses(path.format("a"), read)
            file.write_bytes(whole)


class TestSbd:
    @pytest.mark.parametrize(
        ("labels", "categories", "expected"),
        [
            (np.where(HAND_MADE == 2, 0, HAND_MADE), [1, 2, 3], {1: "aeroplane", 3: "bird"}),
            (HAND_MADE, [1, 0, 21], {1: "aeroplane", 2: "category 0", 3: "category 21"}),
        ],
        ids=["an instance without pixels", "categories outside the list"],
    )
    def test_objects_have_pixels_and_any_category(
        self, tmp_path: Path, labels: Labels, categories: list[int], expected: dict[int, str]
    ) -> None:
        write_list(tmp_path / "val.txt", ["c"])
        write_mat(tmp_path / "inst" / "c.mat", labels.astype(np.uint8), categories)
        (scene,) = scenes(MapScenes(SBD, tmp_path, "val"))
        assert {item.annotation_id: item.category for item in scene.objects} == expected

    @pytest.mark.parametrize(
        "content",
        [
            {"GTcls": {"Segmentation": HAND_MADE}},
            {"GTinst": {"Categories": [1, 2, 3]}},
            {"GTinst": {"Segmentation": HAND_MADE}},
            {"GTinst": {"Segmentation": HAND_MADE, "Categories": [1, 2]}},
            {"GTinst": {"Segmentation": np.zeros((0, 0)), "Categories": [1]}},
        ],
    )
    def test_files_in_another_layout(self, tmp_path: Path, content: dict[str, Any]) -> None:
        savemat(tmp_path / "a.mat", content)
        refuses(r"a\.mat: ", read_instances, tmp_path / "a.mat")

    @pytest.mark.real_data
    def test_the_real_files(self, data_root: Path) -> None:
        found = scenes(MapScenes(SBD, data_root / "SBD", "val"))
        assert [scene.image_id for scene in found] == ["2008_000051", "2008_000195"]
        for scene in found:
            instances = loadmat(data_root / "SBD" / "inst" / f"{scene.image_id}.mat")["GTinst"][0, 0]
            classes = loadmat(data_root / "SBD" / "cls" / f"{scene.image_id}.mat")["GTcls"][0, 0]["Segmentation"]
            check_objects(scene, instances["Segmentation"], range(1, len(instances["Categories"]) + 1))
            for item in scene.objects:
                (number,) = np.unique(classes[decode(item.rle)])
                assert item.category == VOC_CATEGORIES[number]
            with Image.open(data_root / "SBD" / scene.file_name) as image:
                assert image.size == (scene.width, scene.height)
        refuses(r"SBD/train\.txt: ", MapScenes, SBD, data_root / "SBD", "train")


class TestVoc:
    def test_the_category_is_that_of_most_pixels(self) -> None:
        instances = np.array([[1, 1, 1, 2, 2, 2]], dtype=np.uint8)
        classes = np.array([[7, 255, 7, 20, 3, 3]], dtype=np.uint8)
        assert instance_categories(instances, classes) == {1: "car", 2: "bird"}

    @pytest.mark.parametrize("mode", ["P", "RGB"])
    def test_maps_of_different_sizes_or_in_colour(self, tmp_path: Path, mode: str) -> None:
        write_list(tmp_path / "ImageSets" / "Segmentation" / "train.txt", ["a"])
        write_voc(tmp_path, "a", WITH_VOID, CLASSES)
        write_png(tmp_path / "SegmentationClass" / "a.png", CLASSES[:, 1:] if mode == "P" else CLASSES, mode)
        refuses(r"SegmentationClass/a\.png: ", lambda: scenes(MapScenes(VOC, tmp_path)))

    @pytest.mark.real_data
    def test_the_real_maps_agree_with_the_boxes_annotated_apart(self, data_root: Path) -> None:
        """VOC numbers its instances as the XML lists them, whose names and boxes were drawn independently."""
        folder = data_root / "VOC2007"
        found = scenes(MapScenes(VOC, folder, "trainval"))
        assert len(found) == 44
        assert sum(len(scene.objects) for scene in found) == 115
        for scene in found:
            objects = ElementTree.parse(folder / "Annotations" / f"{scene.image_id}.xml").findall("object")
            labels = np.asarray(Image.open(folder / "SegmentationObject" / f"{scene.image_id}.png"))
            check_objects(scene, labels, range(1, len(objects) + 1))
            assert [item.category for item in scene.objects] == [node.findtext("name") for node in objects]
            for item, node in zip(scene.objects, objects, strict=True):
                left, top, right, bottom = (
                    int(node.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
                )
                drawn = [left - 1, top - 1, right - left + 1, bottom - top + 1]
                assert coco_mask.iou([list(map(float, item.box))], [list(map(float, drawn))], [0])[0, 0] > 0.3
        folder = data_root / "VOC2007"
        train, val, both = (MapScenes(VOC, folder, split).keys for split in ("train", "val", "trainval"))
        assert (len(train), len(val)) == (20, 24)
        assert sorted([*train, *val]) == sorted(both)


@pytest.mark.parametrize("layout", [SBD, VOC], ids=["sbd", "voc"])
@pytest.mark.parametrize("content", [None, b" \n\n", b"\xff\xfe", b"../a\n"])
def test_bad_lists_are_refused(tmp_path: Path, layout: MapLayout, content: bytes | None) -> None:
    path = tmp_path / layout.split_list.format("train")
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    refuses(r"train\.txt: ", MapScenes, layout, tmp_path)


@pytest.mark.parametrize("layout", [SBD, VOC], ids=["sbd", "voc"])
@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [
        ("2007_000032  1\r\n\n  2007_000039 -1\n", ["2007_000032", "2007_000039"], ["2007_000032", "2007_000039"]),
        ("a\tb\rc, 1\rd;2", ["a", "c", "d"], ["a", "c", "d"]),
        ("my photo 1\nmy", ["my photo", "other"], ["my photo", "my"]),
        ("my photo", [], ["my photo"]),
        (" my photo ", ["my photo"], ["my photo"]),
        ("a.jpg\nb.PNG\nc.mat\nd.e", ["a", "b", "c", "d"], ["a", "b", "c", "d.e"]),
        ("deep/a\ndeep\\a\n./deep/b", ["deep/a", "a"], ["deep/a", "./deep/b"]),
        ("# made by me\n#1\na", ["#1"], ["#1", "a"]),
        ("\u3000b\n1.00\u202fPM\n\U0001f431", ["\u3000b", "1.00\u202fPM"], ["\u3000b", "1.00\u202fPM", "\U0001f431"]),
        ("\u00e9\ne\u0301", ["e\u0301"], ["e\u0301"]),
        ("a\0b", [], "line 1"),
        ("a\n../b", [], "line 2"),
    ],
)
def test_list_lines(tmp_path: Path, layout: MapLayout, text: str, there: list[str], expected: list[str] | str) -> None:
    for name in there:
        file = tmp_path / layout.maps[0].format(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    path = tmp_path / layout.split_list.format("train")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        write_list(path, [])
        path.write_bytes(text.encode(encoding))
        if isinstance(expected, list):
            source = MapScenes(layout, tmp_path)
            assert source.keys == expected
            left_out = text in ("a\nb\na", "\u00e9\ne\u0301") or text.startswith("deep")
            assert source.dropped.total() == left_out
        else:
            refuses(rf"train\.txt: {expected}", MapScenes, layout, tmp_path)


def test_lists_of_pairs_of_paths(tmp_path: Path) -> None:
    write_voc(tmp_path, "my photo", WITH_VOID, CLASSES)
    lines = ["/JPEGImages/my photo.jpg /SegmentationClass/my photo.png", "data/VOC/SegmentationObject/my photo.png"]
    for line in lines:
        write_list(tmp_path / VOC.split_list.format("train"), [line])
        assert MapScenes(VOC, tmp_path).keys == ["my photo"]
