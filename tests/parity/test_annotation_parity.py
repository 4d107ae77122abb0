"""Annotations as tools write them: the same masks as pycocotools, in samples and in scenes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from disbench.datasets.annotated import AnnotatedSamples
from disbench.datasets.instances import AnnotatedImages, open_annotations

Record = dict[str, Any]


def areas_of_scenes(path: Path) -> dict[int, int]:
    """Area of every object that `disbench sample` reads, by the annotation's number."""
    source = AnnotatedImages([open_annotations(path, "coco")])
    found = [item for scene in source.read(range(len(source))) for item in scene.objects]
    assert all(type(item.annotation_id) is int for item in found)
    return {item.annotation_id: item.area for item in found if item.area}  # type: ignore[misc]


def areas_of_samples(path: Path) -> dict[int, int]:
    """Area of every target that `disbench run` reads, crowd regions included."""
    from PIL import Image

    def blank(name: str) -> Path:
        image = path.with_name(name).with_suffix(".png")
        Image.new("1", sizes[name]).save(image)
        return image

    file = open_annotations(path, "coco")
    sizes = {record.file_name: (record.width, record.height) for record in file.images.values()}
    source = AnnotatedSamples("coco", file, blank, "pycocotools", {}, crowds=True)
    read = map(source.read, range(len(source.ids)))
    return {int(sample.id.rpartition("/")[2]): int((sample.target == 1).sum()) for sample in read}


def areas_of_pycocotools(content: Record) -> dict[int, int]:
    """Area of every annotation with a pixel, as `COCO.annToMask` draws it."""
    coco = COCO()
    coco.dataset = copy.deepcopy(content)
    coco.createIndex()
    for image in coco.dataset["images"]:
        image["height"], image["width"] = int(float(image["height"])), int(float(image["width"]))
    for annotation in coco.dataset["annotations"]:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], float | int):
            annotation["segmentation"] = [segmentation]  # pycocotools does not read one flat ring
    areas = {
        int(float(annotation["id"])): int(coco.annToMask(annotation).sum())
        for annotation in coco.dataset["annotations"]
        if annotation["segmentation"] not in (None, [], [[]])
    }
    return {number: area for number, area in areas.items() if area}


def as_rle(rng: Random, rings: list[list[float]], image: Record) -> object:
    """The mask as run lengths: compressed, or listed, also in a list."""
    rle = coco_mask.merge(coco_mask.frPyObjects(rings, image["height"], image["width"]))
    pixels = coco_mask.decode(rle).ravel(order="F")
    changes = [*np.flatnonzero(np.diff(pixels, prepend=0)), pixels.size]
    listed = {"size": rle["size"], "counts": np.diff(changes, prepend=0).tolist()}
    return rng.choice([{**rle, "counts": rle["counts"].decode()}, listed, [listed]])


def with_dead_rings(rng: Random, rings: list[list[float]], _image: Record) -> object:
    """Rings of one or two points, and of three in a row, behind the others."""
    dead = [[float(rng.randint(-9, 700)) for _ in range(rng.randint(1, 5))] for _ in range(rng.randint(1, 3))]
    return [*rings, *dead, [30, 5, 30, 50, 30, 20]]


def moved(rng: Random, rings: list[list[float]], _image: Record) -> object:
    """Polygons moved and stretched, up to far beyond the image."""
    shift, stretch = rng.choice((0.5, 5.25, 90, -70.5, 1000, -1e6)), rng.choice((1, 1.5, 30))
    return [[stretch * value + shift for value in ring] for ring in rings]


def flat(_rng: Random, rings: list[list[float]], _image: Record) -> object:
    """One ring without the list around it, as VIA writes it."""
    return rings[0] if len(rings) == 1 else rings


def as_texts(_rng: Random, rings: list[list[float]], _image: Record) -> object:
    """Coordinates as `json.dump(..., default=str)` writes NumPy's."""
    return [list(map(str, ring)) for ring in rings]


CHANGES: tuple[Callable[[Random, Any, Record], object], ...] = (as_rle, with_dead_rings, moved, flat, as_texts)


def changed(content: Record, rng: Random) -> Record:
    """A few images of a file with their annotations, written as other tools and scripts might."""

    def written(value: int) -> object:
        return rng.choice((value, float(value), str(value), f"{value}.0"))

    images = {image["id"]: image for image in rng.sample(content["images"], 3)}
    written_ids = {number: written(number) for number in images}
    annotations = []
    for annotation in content["annotations"]:
        if annotation["image_id"] not in images:
            continue
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list) and (change := rng.choice((None, *CHANGES))):
            segmentation = change(rng, segmentation, images[annotation["image_id"]])
        other = {
            "id": written(annotation["id"]),
            "image_id": written_ids[annotation["image_id"]],
            "category_id": written(annotation["category_id"]),
            "iscrowd": rng.choice((annotation["iscrowd"], True, False, 0.0, "1", None)),
            "segmentation": rng.choice(([], [[]], None)) if rng.random() < 0.1 else segmentation,
        }
        annotations.append({**annotation, **other})
    records = [
        {**image, "id": written_ids[number], "height": written(image["height"]), "width": written(image["width"])}
        for number, image in images.items()
    ]
    return {"images": records, "annotations": annotations, "categories": content["categories"]}


@pytest.mark.real_data
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_changed_annotations_have_pycocotools_areas(
    seed: int, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = json.loads((data_root / "coco" / "instances_train.json").read_bytes())
    mutated = changed(content, Random(seed))
    expected = areas_of_pycocotools(mutated)
    path = tmp_path_factory.mktemp("changed") / "a.json"
    path.write_text(json.dumps(mutated))
    assert areas_of_scenes(path) == expected
    assert areas_of_samples(path) == expected
