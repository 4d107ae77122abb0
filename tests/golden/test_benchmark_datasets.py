"""The benchmark's real datasets: counts, hashes, and every target against the rule in other words."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import loadmat

from disbench.core.samples import SampleSource
from disbench.datasets.cards import load_card, open_dataset
from disbench.datasets.fetch import verify

Pixels = npt.NDArray[Any]
WHOLE = {"grabcut": 50, "berkeley": 100, "davis": 345}


def pixels(path: Path, mode: str | None = None) -> Pixels:
    with Image.open(path) as image:
        return np.array(image.convert(mode) if mode else image)


def only(folder: Path, stem: str) -> Path:
    (path,) = (path for path in folder.iterdir() if path.stem == stem)
    return path


def some(source: SampleSource, every: int) -> Iterator[int]:
    return iter(range(0, len(source.ids), every))


def grabcut(root: Path, stem: str) -> Pixels:
    mask = pixels(only(root / "GrabCut" / "boundary_GT", stem)).astype(int)
    return np.where(mask == 128, -1, np.where(mask > 128, 1, 0))


def berkeley(root: Path, stem: str) -> Pixels:
    mask = pixels(root / "Berkeley" / "masks" / f"{stem}.png")[:, :, 0].astype(int)
    return np.where(mask == 128, -1, np.where(mask > 128, 1, 0))


def davis(root: Path, stem: str) -> Pixels:
    return np.where(pixels(root / "DAVIS" / "gt" / f"{stem}.png", "RGB").max(axis=2) > 0, 1, 0)


RESTATED: dict[str, tuple[Callable[[Path, str], Pixels], str]] = {
    "grabcut": (grabcut, "data_GT"),
    "berkeley": (berkeley, "images"),
    "davis": (davis, "img"),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_datasets(data_root: Path, name: str) -> None:
    source = open_dataset(name, data_root)
    assert len(source.ids) == len(set(source.ids)) == WHOLE[name] == load_card(name).samples
    assert list(source.ids) == sorted(source.ids)
    assert source.content_hash() == load_card(name).content_hash
    restated, images = RESTATED[name]
    for index in some(source, 1 if name != "davis" else 15):
        sample = source.read(index)
        assert np.array_equal(sample.target, restated(data_root, sample.id))
        photo = only(data_root / load_card(name).folder / images, sample.id)  # type: ignore[operator]
        assert np.array_equal(sample.image, pixels(photo, "RGB"))


@pytest.mark.real_data
def test_what_is_special_about_each(data_root: Path) -> None:
    values = {name: Counter[int]() for name in WHOLE}
    for name, every in (("grabcut", 1), ("berkeley", 1), ("davis", 23)):
        source = open_dataset(name, data_root)
        for index in some(source, every):
            values[name].update(np.unique(source.read(index).target).tolist())
    assert values["grabcut"] == {0: 50, 1: 50, -1: 42}
    assert values["berkeley"] == {0: 100, 1: 100}
    assert set(values["davis"]) == {0, 1}
    photos = (data_root / "Berkeley" / "images").iterdir()
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in photos}) == 96


@pytest.mark.real_data
def test_a_frame_with_several_objects_has_them_merged(data_root: Path) -> None:
    folder = data_root / "DAVIS"
    source = open_dataset("davis", data_root)
    for path in sorted((folder / "gt").iterdir()):
        indices = pixels(path)
        if len(np.unique(indices)) > 2:
            break
    target = source.read(list(source.ids).index(path.stem)).target
    assert np.array_equal(target == 1, pixels(path, "RGB").any(axis=2))


@pytest.mark.real_data
def test_sbd(data_root: Path) -> None:
    source = open_dataset("sbd-val", data_root)
    assert len(source.ids) == 10
    maps = {}
    for name in (data_root / "SBD" / "val.txt").read_text().split():
        maps[name] = loadmat(data_root / "SBD" / "inst" / f"{name}.mat")["GTinst"][0][0][0]
    expected = [f"{name}/{k}" for name, labels in maps.items() for k in np.unique(labels) if k > 0]
    assert list(source.ids) == expected
    for index, sample_id in enumerate(source.ids):
        name, number = sample_id.split("/")
        sample = source.read(index)
        assert np.array_equal(sample.target, np.where(maps[name] == int(number), 1, 0))
        assert np.array_equal(sample.image, pixels(data_root / "SBD" / "img" / f"{name}.jpg", "RGB"))


class TestVoc:
    SPLITS = (("train", 20), ("val", 24), ("trainval", 44))

    @pytest.mark.real_data
    @pytest.mark.parametrize(("split", "images"), SPLITS)
    def test_by_palette(self, data_root: Path, split: str, images: int) -> None:
        source = open_dataset("pascalvoc", data_root / "VOC2007", [f"split={split}"])
        names = (data_root / "VOC2007/ImageSets/Segmentation" / f"{split}.txt").read_text().split()
        maps = {name: pixels(data_root / "VOC2007/SegmentationObject" / f"{name}.png") for name in names}
        expected = [f"{n}/{k}" for n, labels in maps.items() for k in np.unique(labels) if k not in (0, 255)]
        assert list(source.ids) == expected
        assert source.facts()["images"] == len(names) == images
        for index in some(source, 5):
            name, number = source.ids[index].split("/")
            labels = maps[name].astype(int)
            expected_target = np.where(labels == 255, -1, np.where(labels == int(number), 1, 0))
            assert np.array_equal(source.read(index).target, expected_target)

    @pytest.mark.real_data
    def test_by_grey(self, data_root: Path) -> None:
        """As OpenCV reads the colours: 220 is void, 0 background, each other grey an object."""
        import cv2

        folder = data_root / "VOC2007"
        palette, gray = (
            open_dataset("pascalvoc", folder, ["split=trainval", f"ids={ids}"]) for ids in ("palette", "gray")
        )
        assert len(palette.ids) == len(gray.ids) == 115  # no image here has two indices of one grey
        assert palette.content_hash() != gray.content_hash()
        for index in some(gray, 5):
            name, number = gray.ids[index].split("/")
            colours = cv2.imread(str(folder / "SegmentationObject" / f"{name}.png"))
            grays = cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY).astype(int)
            expected = np.where(grays == 220, -1, np.where(grays == int(number), 1, 0))
            assert np.array_equal(gray.read(index).target, expected)


ANNOTATED = [
    ("coco", "coco/instances_val.json", 1543, 164),
    ("coco", "coco/instances_train.json", 1694, 188),
    ("lvis", "lvis/lvis_val_subset_with_images.json", 206, 22),
]


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "annotations", "samples", "images"), ANNOTATED)
def test_annotated(data_root: Path, name: str, annotations: str, samples: int, images: int) -> None:
    source = open_dataset(name, data_root, [f"annotations={annotations}", f"images={name}"])
    content = json.loads((data_root / annotations).read_text())
    records = {image["id"]: image for image in content["images"]}
    wanted = sorted(
        (item for item in content["annotations"] if not item.get("iscrowd")), key=lambda item: item["image_id"]
    )
    stems = {number: Path(record["file_name"]).stem for number, record in records.items()}
    assert list(source.ids) == [f"{stems[item['image_id']]}/{item['id']}" for item in wanted]
    assert (len(source.ids), source.facts()["images"]) == (samples, images)
    for index in some(source, 61):
        item, sample = wanted[index], source.read(index)
        record = records[item["image_id"]]
        rings: Any = coco_mask.frPyObjects(item["segmentation"], record["height"], record["width"])
        assert np.array_equal(sample.target, coco_mask.decode(coco_mask.merge(rings)))
        assert sample.image.shape == (record["height"], record["width"], 3)


@pytest.mark.real_data
def test_missing_images_are_reported(data_root: Path) -> None:
    found = verify("lvis", data_root, ["annotations=lvis/lvis_val_100.json"])
    assert found.samples == 977
    assert not found.ok
    assert len(found.problems) == 71  # 93 of the 100 images have annotations, 22 of these are here
    assert all(".jpg" in problem for problem in found.problems)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["grabcut", "berkeley"])
def test_verify_finds_them_whole(data_root: Path, name: str) -> None:
    found = verify(name, data_root)
    assert found.ok, found.lines()
    assert found.checked_hash


def test_the_embedded_photos() -> None:
    source = open_dataset("photos", None)
    assert (len(source.ids), source.facts()["images"]) == (257, 8)
    assert source.content_hash() == load_card("photos").content_hash
    assert {source.read(index).image.shape for index in some(source, 40)} <= {
        (512, 512, 3),
        (300, 451, 3),
        (400, 600, 3),
        (303, 384, 3),
        (600, 512, 3),
        (500, 741, 3),
        (427, 640, 3),
    }
