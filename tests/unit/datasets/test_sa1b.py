"""SA-1B's layout: a JSON of masks beside each image, in any arrangement of folders."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disbench.core.errors import InputError
from disbench.core.masks import decode, encode
from disbench.datasets.cards import open_dataset
from disbench.datasets.sa1b import Sa1bScenes
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene
from tests.part_pictures import HEIGHT, WIDTH, mask, photo, polygon, rle
from tests.refusals import refuses

NAMES = "WTLRS"


def annotation(number: int, segmentation: object, **changes: Any) -> dict[str, Any]:
    usual = {"id": number, "segmentation": segmentation, "bbox": [0.0, 0.0, 1.0, 1.0], "predicted_iou": 0.9}
    return {**usual, "point_coords": [[1.5, 2.5]], "crop_box": [0.0, 0.0, 60.0, 40.0], **changes}


def usual() -> list[dict[str, Any]]:
    return [annotation(100 + place, rle(name)) for place, name in enumerate(NAMES)]


def write(folder: Path, number: int = 1, annotations: Any = None, photos: Path | None = None, **changes: Any) -> Path:
    """The JSON of an image, and the image beside it or in another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    image = {"image_id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{number}.jpg"}
    content = {"image": image, "annotations": usual() if annotations is None else annotations}
    path = folder / f"sa_{number}.json"
    path.write_text(json.dumps(content))
    photo((photos or folder) / f"sa_{number}.jpg")
    return path


def sampled(folder: Path, bad: Any = "fail") -> Any:
    (scene,) = Sa1bScenes(folder, bad=bad).read([0])
    return sample_scene(scene, load_recipe("sa1b-hierarchy"))


def ids(found: Any) -> dict[int, list[int]]:
    """The annotation ids of each set, by its center's."""
    objects = [item.annotation_id for item in found.scene.objects]
    return {objects[one.center]: [objects[number] for (number,) in one.members] for one in found.sets}


def test_a_tree_by_geometry(tmp_path: Path) -> None:
    write(tmp_path)
    found = sampled(tmp_path)
    expected = {100: [100], 101: [101, 100], 102: [102, 100], 103: [103, 100], 104: [104, 102, 100]}
    assert ids(found) == expected
    assert (found.scene.image_id, found.scene.file_name, found.scene.source) == ("sa_1", "sa_1.jpg", "sa1b")
    for item, name in zip(found.scene.objects, NAMES, strict=True):
        assert np.array_equal(decode(item.rle), mask(name))
        assert (item.category, item.kind, item.area) == ("object", "thing", mask(name).sum())
    shuffled = usual()
    random.Random(1).shuffle(shuffled)
    write(tmp_path, annotations=shuffled)
    assert ids(sampled(tmp_path)) == expected


def test_masks_that_repeat_are_empty_or_listed(tmp_path: Path) -> None:
    again = mask("W")
    again[4, 6] = False
    said = {"size": [HEIGHT, WIDTH], "counts": encode(again)["counts"].decode()}
    write(tmp_path, annotations=[*usual(), annotation(9, said)])
    found = sampled(tmp_path)
    assert ids(found) == {9: [9], 101: [101, 9], 102: [102, 9], 103: [103, 9], 104: [104, 102, 9]}
    assert found.scene.dropped == {"mask that comes again": 1}
    runs = [{"size": [40, 60], "counts": counts} for counts in ([400, 400, 1600], [2400])]
    write(tmp_path, annotations=[annotation(number, each) for number, each in enumerate(runs)])
    found = sampled(tmp_path)
    assert ids(found) == {0: [0]}
    assert found.scene.dropped == {"empty mask": 1}
    write(tmp_path, annotations=[])
    assert not sampled(tmp_path).scene.objects


@pytest.mark.parametrize(
    ("annotations", "images", "split", "file_names"),
    [
        (["", "", ""], ["", "", ""], "train", ["sa_2.jpg", "sa_10.jpg", "sa_11.jpg"]),
        (["b", "a", "a"], ["b", "a", "a"], "train", ["b/sa_2.jpg", "a/sa_10.jpg", "a/sa_11.jpg"]),
        (["b", "a", "a"], ["b", "a", "a"], "a", ["a/sa_10.jpg", "a/sa_11.jpg"]),
        (["annotations"] * 3, ["images"] * 3, "train", ["images/sa_2.jpg", "images/sa_10.jpg", "images/sa_11.jpg"]),
        (
            ["annotations/b", "annotations/a", "annotations"],
            ["images/b", "images/a", "images"],
            "train",
            ["images/b/sa_2.jpg", "images/a/sa_10.jpg", "images/sa_11.jpg"],
        ),
    ],
)
def test_arrangements_of_files(
    annotations: list[str], images: list[str], split: str, file_names: list[str], tmp_path: Path
) -> None:
    for number, place, photos in zip((2, 10, 11), annotations, images, strict=True):
        write(tmp_path / place, number, photos=tmp_path / photos)
        for name in (f"._sa_{number}.json", f"sa_{number}.txt", f"sa_0{number}.json", "other.json"):
            (tmp_path / place / name).write_text("[")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "sa_1.json").write_text("[")
    source = Sa1bScenes(tmp_path, split)
    scenes = list(source.read(range(len(source))))
    assert [scene.file_name for scene in scenes] == file_names
    assert [scene.image_id for scene in scenes] == [Path(name).stem for name in file_names]
    assert all((tmp_path / name).is_file() for name in file_names)
    assert not source.dropped
    again = pickle.loads(pickle.dumps(source))
    assert list(again.read([1, 0])) == scenes[1::-1]
    assert again.fingerprint() == source.fingerprint()
    assert len(source.object_counts(range(1, 2))) == 1


def test_the_fingerprint_has_paths_and_sizes(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    source = Sa1bScenes(tmp_path)
    seen = {source.fingerprint()["sa1b:names and sizes"]}
    path.write_text(path.read_text() + " ")
    seen.add(source.fingerprint()["sa1b:names and sizes"])
    path.unlink()
    seen.add(source.fingerprint()["sa1b:names and sizes"])
    write(tmp_path / "b")
    seen.add(Sa1bScenes(tmp_path).fingerprint()["sa1b:names and sizes"])
    assert len(seen) == 4


@pytest.mark.parametrize(
    "bad",
    [
        annotation(105, {"size": [WIDTH, HEIGHT], "counts": "0"}),
        annotation(105, "mask.png"),
        annotation(105, polygon("W")),
        annotation(100, rle("LR")),
        annotation(105, rle("LR"), id="x"),
        7,
    ],
)
def test_malformed_masks(bad: Any, tmp_path: Path) -> None:
    path = write(tmp_path, annotations=[*usual(), bad])
    said = "7" if bad == 7 else repr(bad["id"])
    with pytest.raises(InputError) as caught:
        sampled(tmp_path)
    assert str(caught.value).startswith(f"{path}: annotation {said}: ")
    found = sampled(tmp_path, "drop")
    assert found.scene.dropped == {"invalid annotation": 1}
    assert len(ids(found)) == 5


def test_folders_that_are_not_the_dataset(tmp_path: Path) -> None:
    refuses("no such folder", Sa1bScenes, tmp_path / "gone")
    photo(tmp_path / "a" / "sa_1.jpg")
    refuses(rf"{tmp_path}: no sa_N.json", Sa1bScenes, tmp_path)
    write(tmp_path / "a")
    for split in ("val", "../a", "."):
        refuses(r"use train for all images.*: a$", Sa1bScenes, tmp_path, split)
    write(tmp_path / "b" / "c")
    refuses(r"a/sa_1\.json: .*b/c/sa_1\.json has the same number", Sa1bScenes, tmp_path)


def test_masks_as_a_benchmark(tmp_path: Path) -> None:
    write(tmp_path / "SA-1B" / "sa_000000")
    source = open_dataset("sa1b", tmp_path, ["split=sa_000000"])
    assert list(source.ids) == [f"sa_1/{number}" for number in range(100, 105)]
    assert np.array_equal(source.read(2).target == 1, mask("L"))


@pytest.mark.parametrize("name", ["a\nb", "a\udcff"])
def test_names_that_shards_cannot_hold(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    refuses(r"^[ -~]*not plain text", Sa1bScenes, tmp_path)
