"""Annotation files as scenes: parity with the reference packages, joins, panoptic PNGs, bad records."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from disbench.core.masks import boxes, decode
from disbench.core.scenes import Scene, SceneObject
from disbench.datasets.instances import AnnotatedImages, Dialect, open_annotations
from disbench.datasets.scene_sources import BadAnnotations
from tests.annotations import HEIGHT, WIDTH, annotation, image, square, write_annotations
from tests.refusals import refuses


def read(*files: tuple[Path, Dialect], bad: BadAnnotations = "fail", **options: Any) -> AnnotatedImages:
    """The scenes of annotation files, each with its dialect."""
    opened = [open_annotations(path, dialect, bad=bad) for path, dialect in files]
    return AnnotatedImages(opened, **options)


def scenes(source: AnnotatedImages) -> list[Scene]:
    return list(source.read(range(len(source))))


def ids(scene: Scene) -> list[int | None]:
    return [item.annotation_id for item in scene.objects]


class TestParity:
    """Every annotation of the real files, against the packages that define the formats."""

    @pytest.mark.real_data
    def test_lvis_is_as_the_lvis_package_reads_it(self, data_root: Path) -> None:
        from lvis import LVIS

        path = data_root / "lvis" / "lvis_val_100.json"
        reference = LVIS(str(path))
        objects = self._checked(path, "lvis", reference.dataset["annotations"], reference.ann_to_rle)
        categories = {item.annotation_id: (item.category, item.synset) for item in objects}
        for record in reference.dataset["annotations"]:
            category = reference.cats[record["category_id"]]
            assert categories[record["id"]] == (category["name"], category["synset"])
        assert len(objects) == 977
        assert {item.kind for item in objects} == {"thing"}

    @pytest.mark.real_data
    @pytest.mark.parametrize("name", ["instances_val.json", "instances_train.json"])
    def test_coco_is_as_pycocotools_reads_it(self, data_root: Path, name: str) -> None:
        from pycocotools.coco import COCO

        path = data_root / "coco" / name
        reference = COCO(path)
        objects = self._checked(path, "coco", reference.dataset["annotations"], reference.annToRLE)
        by_id = {item.annotation_id: item for item in objects}
        for record in reference.dataset["annotations"]:
            item = by_id[record["id"]]
            assert item.category == reference.cats[record["category_id"]]["name"]
            assert item.kind == ("crowd" if record["iscrowd"] else "thing")
            assert item.synset is None
        assert "crowd" in {item.kind for item in objects}

    def _checked(self, path: Path, dialect: Dialect, records: list[dict[str, Any]], mask_of: Any) -> list[SceneObject]:
        """All objects of a file, their masks, areas, boxes and order compared with the reference's."""
        source = read((path, dialect))
        found = scenes(source)
        image_records = {record["id"]: record for record in json.loads(path.read_text())["images"]}
        assert [scene.image_id for scene in found] == [str(number) for number in sorted(image_records)]
        by_id = {record["id"]: record for record in records}
        for scene in found:
            number = int(scene.image_id)
            assert ids(scene) == [record["id"] for record in records if record["image_id"] == number]
            record = image_records[number]
            assert (scene.height, scene.width) == (record["height"], record["width"])
            assert scene.file_name == record["file_name"]
            assert scene.source == dialect
            for item in scene.objects:
                expected = mask_of(by_id[item.annotation_id])
                assert item.rle["counts"] == expected["counts"]
                assert list(item.rle["size"]) == list(expected["size"])
                assert item.area == coco_mask.area(expected)
                assert item.box == tuple(coco_mask.toBbox(expected).astype(int).tolist())
                assert item.source == dialect
        return [item for scene in found for item in scene.objects]


class TestLayouts:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ({"coco_url": "http://images.cocodataset.org/train2017/9.jpg"}, "train2017/9.jpg"),
            ({"file_name": "COCO_val2014_9.jpg", "coco_url": "http://somewhere/else.jpg"}, "COCO_val2014_9.jpg"),
        ],
        ids=["LVIS v1", "LVIS v0.5"],
    )
    def test_file_names_of_lvis(self, tmp_path: Path, names: dict[str, str], expected: str) -> None:
        record = {key: value for key, value in image(9).items() if key != "file_name"} | names
        (scene,) = scenes(read((write_annotations(tmp_path / "a.json", [], [record]), "lvis")))
        assert scene.file_name == expected

    def test_scenes_ascend_and_objects_keep_the_order_of_the_file(self, tmp_path: Path) -> None:
        records = [annotation(n, of) for n, of in ((7, 30), (3, 2), (5, 30), (1, 30), (2, 2))]
        path = write_annotations(tmp_path / "a.json", records, [image(30), image(2), image(11)])
        found = scenes(read((path, "lvis")))
        assert [(scene.image_id, ids(scene)) for scene in found] == [("2", [3, 2]), ("11", []), ("30", [7, 5, 1])]
        one, two, three = found
        assert list(read((path, "lvis")).read([2, 0, 2, 1])) == [three, one, three, two]

    def test_masks_categories_and_kinds(self, tmp_path: Path) -> None:
        runs = [WIDTH * HEIGHT - 7, 7]
        crowd = {"size": [HEIGHT, WIDTH], "counts": runs}
        records = [
            annotation(1, segmentation=square(3, 4, 5)),
            annotation(2, segmentation=[*square(0, 0, 2), *square(10, 0, 3)], category_id=2),
            annotation(3, segmentation=crowd, iscrowd=1),
            annotation(4, segmentation={**crowd, "counts": coco_mask.frPyObjects(crowd, 1, 1)["counts"].decode()}),
        ]
        (scene,) = scenes(read((write_annotations(tmp_path / "a.json", records), "coco")))
        assert [item.area for item in scene.objects] == [25, 4 + 9, 7, 7]
        assert [item.box for item in scene.objects[:3]] == [(3, 4, 5, 5), (0, 0, 13, 3), (59, 33, 1, 7)]
        assert [item.category for item in scene.objects] == ["cup", "saucer", "cup", "cup"]
        assert [item.synset for item in scene.objects[:2]] == ["cup.n.01", None]
        assert [item.kind for item in scene.objects] == ["thing", "thing", "crowd", "thing"]
        rle = scene.objects[2].rle
        assert rle == scene.objects[3].rle
        assert (type(rle["counts"]), [type(side) for side in rle["size"]]) == (bytes, [int, int])
        assert decode(scene.objects[0].rle)[4:9, 3:8].all()


class TestJoining:
    def test_coco_comes_first_for_any_order_of_the_files(self, tmp_path: Path) -> None:
        lvis = write_annotations(tmp_path / "l.json", [annotation(1), annotation(2, 5)], [image(1), image(5)])
        coco = write_annotations(tmp_path / "c.json", [annotation(3), annotation(4, 3)], [image(3), image(1)])
        for files in (((lvis, "lvis"), (coco, "coco")), ((coco, "coco"), (lvis, "lvis"))):
            source = read(*files, join="outer")  # type: ignore[arg-type]
            assert source.name == "coco+lvis"
            found = [(scene.image_id, ids(scene)) for scene in scenes(source)]
            assert found == [("1", [3, 1]), ("3", [4]), ("5", [2])]
            assert [item.source for item in scenes(source)[0].objects] == ["coco", "lvis"]
            assert not source.dropped

    def test_the_inner_join_has_the_images_that_both_datasets_have(self, tmp_path: Path) -> None:
        """The datasets, not the files: images of one dataset may be spread over several files."""
        lvis = write_annotations(tmp_path / "l.json", [annotation(1)], [image(1), image(5), image(7)])
        train = write_annotations(tmp_path / "t.json", [annotation(3), annotation(4, 3)], [image(3), image(1)])
        val = write_annotations(tmp_path / "v.json", [annotation(5, 7)], [image(7)])
        panoptic = write_annotations(tmp_path / "p.json", [], [image(1)])
        source = read((lvis, "lvis"), (train, "coco"), (val, "coco"))
        assert [(scene.image_id, ids(scene)) for scene in scenes(source)] == [("1", [3, 1]), ("7", [5])]
        assert source.dropped == {"image that only one of the datasets has": 2}
        assert len(read((train, "coco"), (val, "coco"))) == 3
        source = read((lvis, "lvis"), (panoptic, "panoptic"))  # panoptic files are COCO's
        assert (source.name, [scene.image_id for scene in scenes(source)]) == ("coco+lvis", ["1"])

    def test_files_that_do_not_go_together(self, tmp_path: Path) -> None:
        first = write_annotations(tmp_path / "1.json", [], [image(1), image(4)])
        second = write_annotations(tmp_path / "2.json", [], [image(4, height=41)])
        refuses(r"2\.json: ", read, (first, "coco"), (second, "lvis"))
        first, copy = (write_annotations(tmp_path / f"{number}.json", [annotation(1)]) for number in (1, 2))
        refuses(r"2\.json: ", read, (first, "lvis"), (copy, "lvis"))
        assert ids(scenes(read((first, "lvis"), (copy, "coco")))[0]) == [1, 1]

    def test_fingerprint_tells_every_file_apart(self, tmp_path: Path) -> None:
        for name in "abc":
            (tmp_path / name).mkdir()
        a, b, c = (write_annotations(tmp_path / name / "train.json", [annotation(n)]) for n, name in enumerate("abc"))
        chosen = ((a,), (a, b), (b, a), (a, c), (c, b), (a, b, c))
        prints = [read(*((path, "lvis") for path in paths)).fingerprint() for paths in chosen]
        assert len({json.dumps(one, sort_keys=True) for one in prints}) == 6
        assert set(read((a, "lvis"), (b, "coco")).fingerprint()) == {"lvis:train.json", "coco:train.json"}


class TestPanoptic:
    """Things, a crowd and stuff in one PNG; numbers that need all three colours."""

    SEGMENTS = ((70_000, 1, 0), (300, 3, 0), (5, 1, 1), (2**24 - 1, 4, 0))
    CATEGORIES = (
        {"id": 1, "name": "cup", "isthing": 1},
        {"id": 3, "name": "sky", "isthing": 0},
        {"id": 4, "name": "sea", "isthing": 0},
    )

    @pytest.fixture
    def labels(self) -> np.ndarray[Any, Any]:
        labels = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
        for (number, *_), rows in zip(
            self.SEGMENTS, (slice(0, 9), slice(9, 20), slice(20, 30), slice(30, 39)), strict=True
        ):
            labels[rows, 3:50] = number
        labels[12, 40] = 77  # a number that no segment has
        return labels

    @pytest.fixture
    def path(self, tmp_path: Path, labels: np.ndarray[Any, Any]) -> Path:
        segments = [{"id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in self.SEGMENTS]
        return self.write(tmp_path / "p.json", labels, segments)

    def write(self, path: Path, labels: np.ndarray[Any, Any], segments: Any) -> Path:
        path.with_suffix("").mkdir()
        self.draw(path.with_suffix("") / "1.png", labels)
        record = {"image_id": 1, "file_name": "1.png", "segments_info": segments}
        return write_annotations(path, [record], [image(1)], self.CATEGORIES)

    def draw(self, path: Path, labels: np.ndarray[Any, Any]) -> None:
        colours = np.stack([labels % 256, labels // 256 % 256, labels // 65536], axis=2)
        Image.fromarray(colours.astype(np.uint8)).save(path)

    def test_panoptic_masks_give_things_and_stuff(self, path: Path, labels: np.ndarray[Any, Any]) -> None:
        coco = write_annotations(path.with_name("c.json"), [annotation(1)])
        for files in ([(path, "panoptic")], [(coco, "coco"), (path, "panoptic")]):
            source = read(*files, coco_masks="panoptic")  # type: ignore[arg-type]
            assert source.name == "coco"
            (scene,) = scenes(source)
            assert ids(scene) == [70_000, 5, 300, 2**24 - 1]
            assert [item.kind for item in scene.objects] == ["thing", "crowd", "stuff", "stuff"]
            assert [item.category for item in scene.objects] == ["cup", "cup", "sky", "sea"]
            assert {item.source for item in scene.objects} == {"coco"}
            for item in scene.objects:
                assert np.array_equal(decode(item.rle), labels == item.annotation_id)
                assert item.area == (labels == item.annotation_id).sum()
                assert item.box == tuple(boxes([item.rle])[0].tolist())

    def test_the_order_of_things_and_stuff(self, path: Path, tmp_path: Path) -> None:
        coco = write_annotations(path.with_name("c.json"), [annotation(1), annotation(2)])
        lvis = write_annotations(path.with_name("l.json"), [annotation(3)])
        (scene,) = scenes(read((path, "panoptic"), (lvis, "lvis"), (coco, "coco")))
        assert ids(scene) == [1, 2, 3, 300, 2**24 - 1]
        assert [item.source for item in scene.objects] == ["coco", "coco", "lvis", "coco", "coco"]
        lvis = write_annotations(path.with_name("l.json"), [annotation(3)])
        (scene,) = scenes(read((lvis, "lvis"), (path, "panoptic"), coco_masks="panoptic"))
        assert ids(scene) == [70_000, 5, 3, 300, 2**24 - 1]
        coco = write_annotations(tmp_path / "c.json", [annotation(1)])
        refuses("give them with --panoptic", read, (coco, "coco"), coco_masks="panoptic")

    @pytest.mark.parametrize("bad", ["fail", "drop"])
    def test_missing_pngs_and_other_images(self, path: Path, labels: np.ndarray[Any, Any], bad: BadAnnotations) -> None:
        png = path.with_suffix("") / "1.png"
        source = read((path, "panoptic"), coco_masks="panoptic", bad=bad)
        for spoil in (
            lambda: self.draw(png, labels[:, :-1]),
            lambda: Image.new("L", (WIDTH, HEIGHT)).save(png),
            lambda: png.write_bytes(b""),
            png.unlink,
        ):
            spoil()
            refuses(r"p/1\.png: ", scenes, source)

    @pytest.mark.parametrize(
        "segments",
        [[{"id": 5, "category_id": 9}], [{"category_id": 1}], [{"id": "x", "category_id": 1}], [[5, 1]], None],
    )
    def test_bad_segments_named_or_dropped(self, tmp_path: Path, labels: np.ndarray[Any, Any], segments: Any) -> None:
        good = {"id": 300, "category_id": 3}
        path = self.write(tmp_path / "p.json", labels, [*segments, good] if segments else segments)
        refuses(r"p\.json: annotation .*image 1", lambda: scenes(read((path, "panoptic"))))
        (scene,) = scenes(read((path, "panoptic"), bad="drop"))
        assert ids(scene) == ([300] if segments else [])
        assert scene.dropped == {"invalid annotation": 1}


BAD_RECORDS: list[dict[str, Any]] = [
    {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
    {"segmentation": "[[1, 2, 3, 4, 5, 9]]"},
    {"segmentation": [{"size": [HEIGHT, WIDTH], "counts": [5, 5]}]},
    {"segmentation": {"size": [HEIGHT, WIDTH + 1], "counts": [0]}},
    *({"category_id": value} for value in (3, None, [1], True)),
    *({"id": value} for value in ([1], 1.5, "a\nb")),
    *({"iscrowd": value} for value in ("maybe", [1])),
]
"""Bad polygons and run lengths of every kind are those of the masks' own tests."""


class TestBadRecords:
    @pytest.mark.parametrize("change", BAD_RECORDS)
    def test_a_bad_annotation_is_named_or_dropped(self, tmp_path: Path, change: dict[str, Any]) -> None:
        records = [annotation(1), annotation(2, **{"id": 99, **change}), annotation(3), annotation(4, 2)]
        path = write_annotations(tmp_path / "a.json", records, [image(1), image(2)])
        source = read((path, "lvis"))
        refuses(r"a\.json: annotation .*image 1", scenes, source)
        assert ids(next(source.read([1]))) == [4]
        first, second = scenes(read((path, "lvis"), bad="drop"))
        assert (ids(first), ids(second)) == ([1, 3], [4])
        assert first.dropped == {"invalid annotation": 1}
        assert second.dropped == {}

    def test_annotations_of_missing_images(self, tmp_path: Path) -> None:
        records = [annotation(1, 7), annotation(2), annotation(3, 8), annotation(4, 7)]
        path = write_annotations(tmp_path / "a.json", records)
        refuses(r"a\.json: ", read, (path, "lvis"))
        other = write_annotations(tmp_path / "b.json", [annotation(5, 6)])
        source = read((path, "lvis"), (other, "coco"), bad="drop")
        assert source.dropped == Counter({"annotation of a missing image": 4})
        assert [ids(scene) for scene in scenes(source)] == [[2]]

    @pytest.mark.parametrize(
        "records",
        [
            [image(1), image(2), image(1)],
            *([image(1, height=value)] for value in (0, None, 40.5)),
            *([image(1, **size)] for size in ({"width": -5}, {"width": 2**31, "height": 2})),
            *([image(1), image(2, id=value)] for value in ("1", 1.0)),
            *([image(1, id=value)] for value in (True, "", float("nan"))),
            [image(1, file_name="\ud800")],
        ],
    )
    def test_bad_images(self, tmp_path: Path, records: list[dict[str, Any]]) -> None:
        path = write_annotations(tmp_path / "a.json", [], records)
        refuses(r"a\.json: ", read, (path, "lvis"))

    @pytest.mark.parametrize("number", ["01", None, 1.5, 2**64, [1], float("nan")])
    def test_annotations_without_a_proper_image_id(self, tmp_path: Path, number: Any) -> None:
        path = write_annotations(tmp_path / "a.json", [annotation(5, image_id=number)])
        refuses(r"a\.json: annotation 5\b", read, (path, "lvis"))
        assert read((path, "lvis"), bad="drop").dropped == {"annotation of a missing image": 1}
