"""Annotation files as other tools write them: read as the plain file is, by samples and by scenes, or named."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from disbench.core.errors import InputError
from disbench.datasets.cards import open_dataset
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from tests.annotations import CATEGORIES, HEIGHT, WIDTH, annotation, image, square

Content = dict[str, Any]
RUNS = [3 * HEIGHT + 4, *[10, HEIGHT - 10] * 9, 10, WIDTH * HEIGHT - 12 * HEIGHT - 14]
"""The same square as run lengths."""


def content() -> Content:
    """Two images with an annotation each."""
    records = [annotation(7, 1, segmentation=square(3, 4, 10)), annotation(8, 2)]
    return {"images": [image(1), image(2)], "annotations": records, "categories": list(map(dict, CATEGORIES))}


def scenes_and_samples(path: Path, *options: str) -> tuple[list[Any], list[Any]]:
    """What `disbench sample` and `disbench run` read: masks and categories by image, and targets."""
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT)).save(path.with_name(f"{number:012d}.jpg"))
    recipe = load_recipe("coco-hierarchy", [option for option in options if option.startswith("bad")])
    source = open_source(recipe, SourcePaths(coco=[path]))
    scenes = [
        [(item.rle["counts"], item.category, item.kind) for item in scene.objects if item.area]
        for scene in source.read(range(len(source)))
    ]
    samples = open_dataset("coco", path.parent, [f"annotations={path.name}", "images=.", *options])
    return scenes, [(sample_id, samples.read(k).target.tolist()) for k, sample_id in enumerate(samples.ids)]


def left_out(path: Path, *options: str) -> tuple[dict[str, int], object]:
    """What `disbench sample` and `disbench run` leave out or change, by reason."""
    source = open_source(load_recipe("coco-hierarchy", list(options)), SourcePaths(coco=[path]))
    counts: Counter[str] = sum((scene.dropped for scene in source.read(range(len(source)))), Counter())
    counts["empty mask"] += sum(item.area == 0 for scene in source.read(range(len(source))) for item in scene.objects)
    samples = open_dataset("coco", path.parent, [f"annotations={path.name}", "images=.", *options])
    return dict(+counts), samples.facts()["left_out"]


def put(path: Path, records: Content) -> Path:
    path.write_text(json.dumps(records))
    return path


def of_first(**changes: object) -> Callable[[Content], object]:
    return lambda found: found["annotations"][0].update(changes)


def of_images(key: str, convert: Callable[[Any], object]) -> Callable[[Content], object]:
    """A key of all images, and what refers to it, in another form."""

    def change(found: Content) -> None:
        for record in found["images"]:
            record[key] = convert(record[key])
        if key == "id":
            for record in found["annotations"]:
                record["image_id"] = convert(record["image_id"])

    return change


def of_categories(found: Content) -> None:
    for record in (*found["categories"], *found["annotations"]):
        key = "category_id" if "category_id" in record else "id"
        record[key] = f"{record[key]}"


FORMS: dict[str, Callable[[Content], object]] = {
    "float ids": of_images("id", float),
    "text ids that are numbers": of_images("id", str),
    "one id a text, its reference a number": lambda found: found["images"][0].update(id="1"),
    "one id a number, its reference a float": of_first(image_id=1.0),
    "ids as pandas writes floats to text": of_images("id", lambda value: f"{value}.0"),
    "category ids as texts": of_categories,
    "annotation id as text": of_first(id="7"),
    **{f"iscrowd {flag!r}": of_first(iscrowd=flag) for flag in (False, "0", 0.0, "0.0", "false", "False", None, "")},
    "iscrowd NaN": of_first(iscrowd=float("nan")),
    "runs as floats, sizes as texts": of_first(
        segmentation={"size": [str(HEIGHT), f"{WIDTH}.0"], "counts": list(map(float, RUNS))}
    ),
    "two parts as runs and a ring": of_first(
        segmentation=[{"size": [HEIGHT, WIDTH], "counts": RUNS}, *square(5, 6, 2)]
    ),
    "extra keys, no info": lambda found: found.update(info=None, licenses=float("nan"), score=[1, 2]),
}


@pytest.mark.parametrize("change", FORMS.values(), ids=FORMS)
def test_forms_that_mean_the_same(tmp_path: Path, change: Callable[[Content], object]) -> None:
    plain, other = content(), content()
    change(other)
    expected = scenes_and_samples(put(tmp_path / "plain.json", plain))
    assert [sample_id for sample_id, _ in expected[1]] == ["000000000001/7", "000000000002/8"]
    assert scenes_and_samples(put(tmp_path / "other.json", other)) == expected
    assert left_out(tmp_path / "other.json") == ({}, {})


def zipped(
    data: bytes, path: Path, names: tuple[str, ...] = ("annotations/instances_default.json", "images/1.jpg")
) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (*names, "__MACOSX/annotations/._instances_default.json"):
            archive.writestr(name, data)


ENCODINGS: dict[str, Callable[[bytes, Path], object]] = {
    **{
        name: lambda data, path, name=name: path.write_bytes(data.decode().encode(name))  # type: ignore[misc]
        for name in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
    },
    "gzip": lambda data, path: path.write_bytes(gzip.compress(data)),
    "bz2": lambda data, path: path.write_bytes(bz2.compress(data)),
    "xz": lambda data, path: path.write_bytes(lzma.compress(data)),
    "gzip of UTF-16": lambda data, path: path.write_bytes(gzip.compress(data.decode().encode("utf-16"))),
    "zip": zipped,
}


@pytest.mark.parametrize("write", ENCODINGS.values(), ids=ENCODINGS)
def test_encodings_and_compression_are_told_by_content(tmp_path: Path, write: Callable[[bytes, Path], object]) -> None:
    records = content()
    records["categories"][0]["name"] = "Täßchen 茶杯 😀"
    data = json.dumps(records, ensure_ascii=False).encode()
    (tmp_path / "plain.json").write_bytes(data)
    write(data, tmp_path / "other.json")
    assert scenes_and_samples(tmp_path / "other.json") == scenes_and_samples(tmp_path / "plain.json")


EMPTY: dict[str, object] = {
    **{repr(value): value for value in ([], [[]], [[], []], None, "", {}, float("nan"))},
    "one point": [[3, 4]],
    "two points": [[3, 4, 13, 14]],
    "a line": [[30, 20, 50, 20, 40, 20]],
    "beside the image": [[300, 20, 310, 20, 310, 30]],
    "runs of background": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},
}


@pytest.mark.parametrize("segmentation", EMPTY.values(), ids=EMPTY)
def test_annotations_without_a_pixel_are_left_out_and_counted(tmp_path: Path, segmentation: object) -> None:
    records = content()
    records["annotations"].append(annotation(9, 2, segmentation=segmentation, area=100, bbox=[3, 4, 10, 10]))
    path = put(tmp_path / "a.json", records)
    assert scenes_and_samples(path) == scenes_and_samples(put(tmp_path / "plain.json", content()))
    of_scenes, of_samples = left_out(path)
    assert of_scenes == of_samples
    assert of_scenes["empty mask"] == 1


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([*square(3, 4, 10), [5, 5, 9, 9]], "ring of fewer than three points"),
        ([[], *square(3, 4, 10)], "ring of fewer than three points"),
        ([[3, -6, 13, -6, 13, 14, 3, 14]], "part of a polygon outside its image"),
    ],
)
def test_what_is_changed_is_counted(tmp_path: Path, segmentation: object, reason: str) -> None:
    records = content()
    records["annotations"][0]["segmentation"] = segmentation
    path = put(tmp_path / "a.json", records)
    assert left_out(path) == ({reason: 1}, {reason: 1})
    _, samples = scenes_and_samples(path)
    assert np.array(samples[0][1])[4:14, 3:13].all()


def test_crowd_regions_are_left_out_of_samples_and_counted_or_kept(tmp_path: Path) -> None:
    records = content()
    for record, flag in zip(records["annotations"], (1, "1"), strict=True):
        record["iscrowd"] = flag
    path = put(tmp_path / "a.json", records)
    with pytest.raises(InputError, match=r"a\.json: .*2 x crowd region.*--dataset-option crowds=keep"):
        open_dataset("coco", tmp_path, ["annotations=a.json", "images=."])
    _, kept = scenes_and_samples(path, "crowds=keep")
    assert kept == scenes_and_samples(put(tmp_path / "plain.json", content()))[1]


def test_ids_that_are_texts(tmp_path: Path) -> None:
    """Images and samples keep them; the numbers of a shard's annotations are then their places in the file."""
    records = content()
    names = {1: "img_b", 2: "img_a"}
    for record in records["images"]:
        record["id"] = names[record["id"]]
    for number, record in enumerate(records["annotations"]):
        record.update(id=f"0a{number}-uuid", image_id=names[record["image_id"]])
    records["images"].append(image(12, file_name="x.jpg"))
    path = put(tmp_path / "a.json", records)
    source = open_source(load_recipe("coco-hierarchy"), SourcePaths(coco=[path]))
    scenes = list(source.read(range(len(source))))
    assert [scene.image_id for scene in scenes] == ["12", "img_a", "img_b"]
    assert [[item.annotation_id for item in scene.objects] for scene in scenes] == [[], [1], [0]]
    samples = open_dataset("coco", tmp_path, ["annotations=a.json", "images=."])
    assert list(samples.ids) == ["000000000002/0a1-uuid", "000000000001/0a0-uuid"]


@pytest.mark.parametrize("categories", [None, [], "absent"])
def test_without_categories_objects_are_named_by_their_category_id(tmp_path: Path, categories: object) -> None:
    records = content()
    records["categories"] = categories
    if categories == "absent":
        del records["categories"]
    records["annotations"][1].pop("category_id")
    scenes, samples = scenes_and_samples(put(tmp_path / "a.json", records))
    assert [[category for _, category, _ in scene] for scene in scenes] == [["1"], ["object"]]
    assert len(samples) == 2
