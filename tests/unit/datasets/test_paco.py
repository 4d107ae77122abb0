"""PACO's layout: objects and their parts in one file, with categories of both or with part categories apart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from disbench.core.errors import InputError
from disbench.core.scenes import SampledScene
from disbench.datasets.annotated import open_lvis
from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene
from tests.part_pictures import HEIGHT, WIDTH, photo, polygon, rle, sets_of

CAR, HOOD, WHEEL = "car_(automobile)", "car_(automobile):hood", "car_(automobile):wheel"
EXPECTED = {CAR: ([CAR], 1296), WHEEL: ([WHEEL, CAR], 240)}


def content(**changes: Any) -> dict[str, Any]:
    """A car with wheels and a hood that has no mask."""
    image = {"file_name": "val2017/000000000001.jpg", "width": WIDTH, "height": HEIGHT, "neg_category_ids": []}
    objects = ((11, 207, rle("W")), (12, 2001, rle("LR")), (13, 2000, []))
    names = ((207, CAR, "OBJECT"), (2000, HOOD, "PART"), (2001, WHEEL, "PART"))
    return {
        "images": [{**image, "id": number} for number in (1, 2)],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "obj_ann_id": 11, "segmentation": s, "attribute_ids": [4]}
            for n, c, s in objects
        ],
        "categories": [{"id": n, "name": name, "supercategory": s, "synset": "car.n.01"} for n, name, s in names],
        "part_categories": [{"id": 0, "name": "hood"}, {"id": 207, "name": "wheel"}],
        "attributes": [],
        "attr_type_to_attr_idxs": {"color": [0, 1], "material": [41]},
        "queries": [{"id": 1, "level": 1, "structured_query": ["car", ["red"]], "pos_ann_ids": [11], "neg_im_ids": []}],
        **changes,
    }


def sampled(folder: Path, found: dict[str, Any], *overrides: str) -> SampledScene:
    path = folder / "paco.json"
    path.write_text(json.dumps(found))
    recipe = load_recipe("paco-parts", overrides)
    source = AnnotatedImages([open_annotations(path, "lvis", bad=recipe.bad_annotations)])
    return sample_scene(next(source.read([0])), recipe)


def changed(number: int, **changes: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = content()["annotations"]
    found[number] |= changes
    return found


def test_both_layouts_of_categories(tmp_path: Path) -> None:
    found = sampled(tmp_path, content())
    assert sets_of(found) == EXPECTED
    assert found.scene.dropped == {"empty mask": 1}
    objects = [{"id": 207, "name": CAR, "supercategory": "OBJECT"}]  # its number is that of a part, too
    parts = [{**one, "category_id": {207: 207, 2001: 207, 2000: 0}[one["category_id"]]} for one in changed(0)]
    assert sets_of(sampled(tmp_path, content(categories=objects, annotations=parts))) == {
        CAR: ([CAR], 1296),
        "wheel": (["wheel", CAR], 240),
    }
    for apart in ({}, {"part_categories": []}):  # no name for 2001
        with pytest.raises(InputError, match=r"paco\.json: annotation 12 .*unknown (part )?category 2001"):
            sampled(tmp_path, content(categories=objects, **apart))


@pytest.mark.parametrize(
    "annotations",
    [
        changed(0)[::-1],
        changed(1, segmentation=[*polygon("L"), *polygon("R")]),
        changed(1, segmentation={**rle("LR"), "size": [float(HEIGHT), f"{WIDTH}"]}),
    ],
    ids=["part first", "polygons", "sizes as texts"],
)
def test_order_and_form_of_masks_decide_nothing(annotations: Any, tmp_path: Path) -> None:
    assert sets_of(sampled(tmp_path, content(annotations=annotations))) == EXPECTED


@pytest.mark.parametrize(
    "annotations",
    [changed(1, obj_ann_id=99), [*changed(0)[1:], {**changed(0)[0], "image_id": 2}]],
    ids=["no such object", "object of another image"],
)
def test_a_missing_object(annotations: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"paco\.json: annotation 1[23] \(image 1\): obj_ann_id"):
        sampled(tmp_path, content(annotations=annotations))
    found = sampled(tmp_path, content(annotations=annotations), "bad_annotations=drop")
    assert found.scene.dropped["link: parent missing"] in (1, 2)
    assert sets_of(found)[WHEEL] == ([WHEEL], 240)


@pytest.mark.parametrize("own", [12, "12", None])
def test_a_part_that_names_no_object_is_a_root_and_counted(own: object, tmp_path: Path) -> None:
    found = sampled(tmp_path, content(annotations=changed(1, obj_ann_id=own)))
    assert found.scene.dropped == Counter({"empty mask": 1, "link: part without an object": 1})
    assert sets_of(found) == {CAR: ([CAR], 1536), WHEEL: ([WHEEL], 240)}


def test_objects_and_parts_are_samples(tmp_path: Path) -> None:
    photo(tmp_path / "val2017" / "000000000001.jpg")
    (tmp_path / "paco.json").write_text(json.dumps(content()))
    source = open_lvis("paco", tmp_path, {"annotations": "paco.json", "images": ["."], "raster": "pycocotools"}, {})
    assert list(source.ids) == ["000000000001/11", "000000000001/12"]
    assert [int((source.read(index).target == 1).sum()) for index in (0, 1)] == [1536, 240]
    assert source.facts()["left_out"] == {"empty mask": 1}
