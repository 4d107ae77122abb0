"""ADE20K's release of 2021: folders, JSON of MATLAB's and instance PNGs, made by hand."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from disbench.core.arrays import ByteArray
from disbench.core.masks import decode, encode, from_grey_png
from disbench.core.scenes import LINK
from disbench.datasets.ade20k import Ade20kScenes
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene
from tests.part_pictures import HEIGHT, WIDTH, mask, photo, sets_of
from tests.refusals import refuses

STEM = "ADE_val_00000001"
PLACE = Path("images/ADE/validation/a/abbey")
IDS = {"W": 0, "T": 1, "L": 2, "R": 3, "S": 7}
PARTS: Mapping[str, dict[str, Any]] = {
    "W": {"hasparts": [1, 2, 3], "ispartof": [], "part_level": 0},
    "T": {"hasparts": [], "ispartof": 0, "part_level": 1},
    "L": {"hasparts": 7, "ispartof": [0], "part_level": 1},
    "R": {"hasparts": [], "ispartof": 0, "part_level": 1},
    "S": {"hasparts": [], "ispartof": 2, "part_level": 2},
}
NAMES = {"W": "car, auto", "T": "top", "L": "wheel 1", "R": "wheel 2", "S": "rim"}

HIDDEN = {"parent loose": 1, "parent smaller": 1}
"""What is counted because a part of the left wheel is hidden."""


def png(name: str) -> ByteArray:
    """The values of an instance PNG; the last four rows of the left wheel are hidden."""
    values = np.where(mask(name), 255, 0).astype(np.uint8)
    if name == "L":
        values[32:][values[32:] > 0] = 128
    return values


def record(key: str, **changes: Any) -> dict[str, Any]:
    picture = f"{STEM}/instance_{IDS[key]:03d}_{STEM}.png"
    usual = {"id": IDS[key], "name": NAMES[key], "name_ndx": 300, "parts": PARTS[key], "instance_mask": picture}
    return {**usual, "attributes": "shiny", "occluded": [], **changes}


def objects(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [record(key, **changes.get(key, {})) for key in IDS]


def write(root: Path, found: object = None, size: Sequence[int] = (HEIGHT, WIDTH, 3)) -> Path:
    """The release with one image; its JSON."""
    folder = root / PLACE
    (folder / STEM).mkdir(parents=True, exist_ok=True)
    for name, number in IDS.items():
        Image.fromarray(png(name)).save(folder / STEM / f"instance_{number:03d}_{STEM}.png")
    photo(folder / f"{STEM}.jpg")
    listed = objects() if found is None else found
    path = folder / f"{STEM}.json"
    path.write_text(json.dumps({"annotation": {"imsize": list(size), "object": listed}}))
    return path


def sampled(root: Path, *overrides: str, bad: Any = "fail") -> Any:
    (scene,) = Ade20kScenes(root, "val", bad).read([0])
    return sample_scene(scene, load_recipe("ade-parts", overrides))


def counted(found: Any) -> dict[str, int]:
    return {reason.removeprefix(LINK): count for reason, count in found.scene.dropped.items()}


def test_parts_of_parts_of_what_is_seen(tmp_path: Path) -> None:
    write(tmp_path)
    found = sampled(tmp_path, "groups=false")
    assert sets_of(found) == {
        "car, auto": (["car, auto"], 1536 - 576 - 80 - 120),
        "top": (["top", "car, auto"], 576),
        "wheel 1": (["wheel 1", "car, auto"], 10),
        "wheel 2": (["wheel 2", "car, auto"], 120),
        "rim": (["rim", "wheel 1", "car, auto"], 90),
    }
    assert counted(found) == HIDDEN
    scene = found.scene
    assert (scene.image_id, scene.file_name) == (STEM, f"{PLACE.as_posix()}/{STEM}.jpg")
    assert [item.annotation_id for item in scene.objects] == list(IDS.values())
    assert [item.area for item in scene.objects] == [1536, 576, 80, 120, 90]
    assert np.array_equal(decode(scene.objects[2].rle), png("L") == 255)
    assert sets_of(sampled(tmp_path))["rim"] == (["rim", "wheel 1", "car, auto:wheel (all)", "car, auto"], 90)
    assert counted(sampled(tmp_path, "keep_share=0.8")) == {"parent outside": 1}


def test_the_order_of_objects_and_lists_of_one(tmp_path: Path) -> None:
    write(tmp_path)
    first = sets_of(sampled(tmp_path))
    write(tmp_path, objects()[::-1])
    assert sets_of(sampled(tmp_path)) == first
    write(tmp_path, record("W", parts={"hasparts": [], "ispartof": [], "part_level": 0}))
    assert sets_of(sampled(tmp_path)) == {"car, auto": (["car, auto"], 1536)}
    write(tmp_path, [])
    assert not sampled(tmp_path).scene.objects


def test_any_folder_above_and_any_name_of_a_split(tmp_path: Path) -> None:
    root = tmp_path / "ADE20K_2021_17_01"
    path = write(root)
    (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    (path.parent / ".cache").mkdir()
    (path.parent / ".cache" / path.name).write_text("{}")
    source = Ade20kScenes(root, "validation")
    assert len(source) == 1
    assert pickle.loads(pickle.dumps(source)).fingerprint() == source.fingerprint()
    (scene,) = Ade20kScenes(tmp_path, "val").read([0])
    assert (tmp_path / scene.file_name).is_file()
    assert scene.objects == next(source.read([0])).objects
    before = source.fingerprint()
    Image.fromarray(png("T")).save(path.parent / STEM / f"instance_003_{STEM}.png")
    assert source.fingerprint() != before


@pytest.mark.parametrize(
    ("changes", "counts", "rim"),
    [
        ({"L": {"parts": {**PARTS["L"], "hasparts": []}}}, {"ispartof and hasparts differ": 1}, 3),
        ({"W": {"parts": {**PARTS["W"], "hasparts": [1, 2, 3, 7]}}}, {"ispartof and hasparts differ": 1}, 3),
        ({"S": {"parts": {**PARTS["S"], "part_level": 1}}}, {"level odd": 1}, 3),
        ({"S": {"parts": {"ispartof": 2}}}, {}, 3),
    ],
)
def test_contradicted_links(changes: dict[str, Any], counts: dict[str, int], rim: int, tmp_path: Path) -> None:
    write(tmp_path, objects(**changes))
    found = sampled(tmp_path, "groups=false")
    assert counted(found) == {**HIDDEN, **counts}
    assert len(sets_of(found)["rim"][0]) == rim


UP = {"parts": {"ispartof": 7}}


@pytest.mark.parametrize(
    ("changes", "named", "counts", "rim"),
    [
        ({"S": {"parts": {"ispartof": 99}}}, "object 7: parts.ispartof", {"parent missing": 1}, 1),
        ({"L": UP}, "object 2: parts.ispartof", {"cycle": 2}, 1),
        ({"S": {"parts": {"ispartof": [0, 2]}}}, "object 7: parts.ispartof", {"invalid annotation": 1}, 0),
        ({"S": {"parts": {"hasparts": "a"}}}, "object 7: parts.hasparts", {"invalid annotation": 1}, 0),
        ({"S": {"id": 3}}, "object 3: another object", {"invalid annotation": 1}, 0),
        ({"S": {"id": "x"}}, "object 'x': its id", {"invalid annotation": 1}, 0),
        ({"S": {"name": []}}, "object 7: its name", {"invalid annotation": 1}, 0),
        ({"S": {"instance_mask": f"{STEM}/gone.png"}}, "gone.png", {"invalid annotation": 1}, 0),
        ({"S": {"instance_mask": f"{STEM}.jpg"}}, "pixels of mode RGB", {"invalid annotation": 1}, 0),
    ],
)
def test_bad_objects(changes: dict[str, Any], named: str, counts: dict[str, int], rim: int, tmp_path: Path) -> None:
    path = write(tmp_path, objects(**changes))
    said = refuses("", sampled, tmp_path)
    assert said.startswith(f"{path}: object ")
    assert named in said
    found = sampled(tmp_path, bad="drop")
    assert counts.items() <= counted(found).items()
    assert len(sets_of(found).get("rim", ([], 0))[0]) == rim


def test_pngs_of_fewer_bits(tmp_path: Path) -> None:
    """Pillow reads what the fast way does not; a mask in black and white has no 255."""
    path = write(tmp_path).parent / STEM / f"instance_002_{STEM}.png"
    Image.fromarray(png("L") // 17).save(path, bits=4)
    with pytest.raises(ValueError, match="PNG"):
        from_grey_png(path.read_bytes(), 255)
    assert sampled(tmp_path).scene.objects[2].rle == encode(png("L") == 255)
    Image.fromarray(png("L") == 255).save(path)
    refuses("mode 1", sampled, tmp_path)


def test_folders_that_are_not_the_release(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        refuses(rf"{folder}: no images/ADE", Ade20kScenes, folder, "train")
    write(tmp_path)
    for split in ("train", "test", "../validation", ""):
        refuses("splits here: validation", Ade20kScenes, tmp_path, split)
    shutil.copytree(tmp_path / PLACE, tmp_path / "images/ADE/validation/b")
    refuses(f"two images are named '{STEM}'", Ade20kScenes, tmp_path, "val")
    shutil.rmtree(tmp_path / "images/ADE/validation")
    (tmp_path / "images/ADE/validation").mkdir()
    refuses("no image JSON", Ade20kScenes, tmp_path, "val")


@pytest.mark.parametrize("name", ["a\nb", "a\udcff"])
def test_names_that_shards_cannot_hold(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / PLACE).rename(tmp_path / PLACE.parent / name)
    refuses(r"^[ -~]*not plain text", Ade20kScenes, tmp_path, "val")
