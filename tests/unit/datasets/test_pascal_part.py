"""Pascal-Part: structs in MATLAB files as objects with parts, groups of like parts, and the table of part keys."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from disbench.core.masks import decode
from disbench.core.scenes import LINK
from disbench.datasets.pascal_part import PascalPartScenes, part_keys
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene
from tests.commands import disbench, refused
from tests.fuzz.dataset_files import MAT_HEAD, element, matrix
from tests.part_files import COW, EYE, SHIN, SOFA, anno_file, struct_array, write_pascal_part
from tests.part_pictures import HEIGHT, WIDTH, mask, sets_of
from tests.refusals import refuses

COW_ALONE = ["cow"]
EXPECTED = {
    "cow": (COW_ALONE, 720),
    "cow:head": (["cow:head", "cow"], 476),
    "cow:leye": (["cow:leye", "cow:head", "cow"], 100),
    "cow:lfuleg": (["cow:lfuleg", "cow:front leg (all)", "cow"], 120),
    "cow:rfuleg": (["cow:rfuleg", "cow:front leg (all)", "cow"], 120),
    "sofa": (["sofa"], 240),
}


def sets(folder: Path, data: bytes, *overrides: str) -> tuple[dict[str, tuple[list[str], int]], Counter[str]]:
    write_pascal_part(folder, {"a": data})
    recipe = load_recipe("pascal-parts", overrides)
    found = sample_scene(next(PascalPartScenes(folder, "train", recipe.bad_annotations).read([0])), recipe)
    return sets_of(found), found.scene.dropped


def test_objects_parts_and_groups(tmp_path: Path) -> None:
    assert sets(tmp_path, anno_file([COW, SOFA])) == (EXPECTED, {f"{LINK}nested by geometry": 1})
    scene = next(PascalPartScenes(tmp_path).read([0]))
    assert [item.annotation_id for item in scene.objects] == [1000, 1001, 1002, 1003, 1004, 2000]
    assert scene.file_name == "JPEGImages/a.jpg"
    assert scene.links is not None and scene.links.nest
    assert np.array_equal(decode(scene.objects[3].rle), mask("L"))
    assert scene.objects[3].keys == ("left front leg", "front leg", "leg")


def test_groups_in_groups_and_of_parts_that_the_table_does_not_know(tmp_path: Path) -> None:
    name, whole, parts = COW
    found, _ = sets(tmp_path, anno_file([(name, whole, [*parts, SHIN])]))
    left = ["cow:left front leg (all)", "cow:front leg (all)", "cow"]
    assert {center: found[center][0][1:] for center in ("cow:lfuleg", "cow:lflleg", "cow:rfuleg")} == {
        "cow:lfuleg": left,
        "cow:lflleg": left,
        "cow:rfuleg": left[1:],
    }
    data = anno_file([("dog", mask("W"), [("sock_1", mask("L")), ("sock_2", mask("R"))])])
    assert sets(tmp_path, data)[0]["dog:sock_1"] == (["dog:sock_1", "dog:sock (all)", "dog"], 120)


@pytest.mark.parametrize("options", [{"do_compression": False}, {"oned_as": "column"}, {"long_field_names": True}])
def test_order_of_parts_and_form_of_the_file_decide_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    name, whole, parts = COW
    assert sets(tmp_path, anno_file([SOFA, (name, whole, parts[::-1])], **options))[0] == EXPECTED


def matlab_struct(name: bytes, **fields: bytes) -> bytes:
    names = b"".join(field.encode().ljust(16, b"\0") for field in fields)
    return matrix(2, (1, 1), element(5, struct.pack("<i", 16)) + element(1, names) + b"".join(fields.values()), name)


def test_fields_that_were_never_set_are_empty(tmp_path: Path) -> None:
    """MATLAB writes them as an array of no bytes, and text in 16 bits."""
    title = matrix(4, (1, 4), element(4, "sofa".encode("utf-16-le")), b"")
    pixels = matrix(9, SOFA[1].shape, element(2, SOFA[1].tobytes("F")), b"")
    sofa = {"class": title, "mask": pixels, "parts": element(14, b"")}
    data = MAT_HEAD + matlab_struct(b"anno", objects=matlab_struct(b"", **sofa))
    assert sets(tmp_path, data)[0] == {"sofa": EXPECTED["sofa"]}
    data = MAT_HEAD + matlab_struct(b"anno", objects=element(14, b""))  # the photo tells the size
    write_pascal_part(tmp_path, {"a": data})
    scene = next(PascalPartScenes(tmp_path).read([0]))
    assert (scene.objects, scene.height, scene.width) == ((), HEIGHT, WIDTH)
    (tmp_path / scene.file_name).unlink()
    refuses(r"a\.jpg: ", lambda: next(PascalPartScenes(tmp_path).read([0])))


def named(part: str) -> bytes:
    return anno_file([("dog", mask("W"), [(part, mask("T"))])])


@pytest.mark.parametrize(
    ("part", "category", "keys"),
    [
        ("lfleg", "dog:lfleg", ("front leg", "leg")),
        ("rear", "dog:rear", ("rear", "ear")),
        ("wheel_2", "dog:wheel_2", ("wheel",)),
        ("haddlebar", "dog:handlebar", ("handlebar",)),
        ("horn_1", "dog:horn_1", ()),
    ],
)
def test_the_table_of_part_keys(tmp_path: Path, part: str, category: str, keys: tuple[str, ...]) -> None:
    scene = next(PascalPartScenes(write_pascal_part(tmp_path, {"a": named(part)})).read([0]))
    assert (scene.objects[1].category, scene.objects[1].keys) == (category, keys)
    assert scene.dropped == ({} if keys else {f"{LINK}part name unknown": 1})


def with_parts(*parts: Any) -> bytes:
    return anno_file([("cow", mask("W"), parts)])


def without_parts() -> bytes:
    out = io.BytesIO()
    objects = struct_array([("cow", mask("W") * 1)], ["class", "mask"])
    savemat(out, {"anno": struct_array([("a", objects)], ["imname", "objects"])})
    return out.getvalue()


BAD = {
    "MATLAB 7.3": (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384) + b"\x89HDF\r\n\x1a\n", "7.2.*-v7"),
    "no bytes": (b"", "not a valid"),
    "no parts": (without_parts(), "'parts'"),
    "many objects": (anno_file([("a", np.ones((1, 1)), [])] * 2000), "2000 elements"),
    "a long name": (with_parts(("x" * 1001, mask("T"))), "part 1 of object 1"),
    "a number as name": (with_parts((5.0, mask("T"))), "part 1 of object 1"),
}
BAD_MASKS = {
    "another size": mask("T")[:, 1:],
    "a value of 2": mask("T") * np.uint8(2),
    "complex": mask("T") * 1j,
    "nothing": np.zeros((0, 0)),
}


@pytest.mark.parametrize("bad", ["fail", "drop"])
@pytest.mark.parametrize("case", BAD)
def test_files_of_another_structure(tmp_path: Path, case: str, bad: Any) -> None:
    data, problem = BAD[case]
    write_pascal_part(tmp_path, {"a": data})
    refuses(rf"a\.mat: .*{problem}", lambda: next(PascalPartScenes(tmp_path, "train", bad).read([0])))


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks_stop_or_are_left_out(tmp_path: Path, case: str) -> None:
    part = ("head", BAD_MASKS[case])
    out = io.BytesIO()
    rows = [("cow", mask("W") * 1, struct_array([EYE, part], ["part_name", "mask"]))]
    within = struct_array(rows, ["class", "mask", "parts"])
    savemat(out, {"anno": struct_array([("a", within)], ["imname", "objects"])})
    write_pascal_part(tmp_path, {"a": out.getvalue()})
    refuses(r"a\.mat: .*'cow:head' \(part 2 of object 1\)", lambda: next(PascalPartScenes(tmp_path).read([0])))
    scene = next(PascalPartScenes(tmp_path, "train", "drop").read([0]))
    assert [item.category for item in scene.objects] == ["cow", "cow:leye"]
    assert scene.dropped == {"invalid annotation": 1}


def test_parts_of_an_object_without_a_good_mask(tmp_path: Path) -> None:
    found = sets(tmp_path, anno_file([("cow", mask("W") * 2, [EYE])]), "bad_annotations=drop")
    assert found == ({"cow:leye": (["cow:leye"], 100)}, {"invalid annotation": 1, f"{LINK}parent missing": 1})


@pytest.mark.parametrize("voc", ["", "VOC2010/", "VOCdevkit/VOC2010/"])
def test_lists_and_folders(tmp_path: Path, voc: str) -> None:
    write_pascal_part(tmp_path, {"b": anno_file([SOFA]), "a": anno_file([COW])}, "val", voc)
    source = pickle.loads(pickle.dumps(PascalPartScenes(tmp_path, "val")))
    assert [scene.file_name for scene in source.read([0, 1])] == [f"{voc}JPEGImages/{name}.jpg" for name in "ba"]
    assert list(source.fingerprint()) == [
        "pascal-part:val.txt",
        "pascal-part:Annotations_Part",
        f"part_keys.toml {part_keys().version}",
    ]
    before = source.fingerprint()
    (tmp_path / "trainval").mkdir()
    (tmp_path / "Annotations_Part").rename(tmp_path / "trainval" / "Annotations_Part")
    assert PascalPartScenes(tmp_path, "val").fingerprint() == before
    refuses(r"train\.txt: .*val", PascalPartScenes, tmp_path)
    (tmp_path / voc / "ImageSets" / "Main" / "val.txt").write_text("c 1\nb  1\nb -1\n")
    refuses(r"Annotations_Part/c\.mat: ", PascalPartScenes, tmp_path, "val")
    source = PascalPartScenes(tmp_path, "val", "drop")
    assert source.keys == ["b"]
    assert source.dropped == {"image without a file of parts": 1, "image that the list names again": 1}
    for text, problem in (("../b\n", "line 1"), ("c\n", "no image"), ("\n", "no image")):
        (tmp_path / voc / "ImageSets" / "Main" / "val.txt").write_text(text)
        refuses(rf"val\.txt: {problem}", PascalPartScenes, tmp_path, "val", "drop")
    for missing in ("trainval", voc.partition("/")[0] or "ImageSets"):
        (tmp_path / missing).rename(tmp_path / "away")
        refuses(str(tmp_path), PascalPartScenes, tmp_path, "val")
        (tmp_path / "away").rename(tmp_path / missing)


def test_through_the_commands(tmp_path: Path) -> None:
    name, whole, parts = COW
    files = {"b": anno_file([COW, SOFA]), "a": anno_file([(name, whole, [*parts, SHIN])])}
    root = write_pascal_part(tmp_path / "PascalPart", files)
    write_pascal_part(root, files, "val")
    command = ("sample", "pascal-parts", "--folder", root)
    done = disbench(*command, "--out", tmp_path / "out", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "2 x link: nested by geometry" in done.stdout
    assert disbench("verify", tmp_path / "out", "--workers", "1").returncode == 0
    assert "part_keys.toml 1" in json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"]
    running = ("run", "--method", "disk", "--dataset", "pascal-part", "--data", tmp_path, "--max-clicks", "1")
    done = disbench(*running, "--out", tmp_path / "run", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "12 samples" in done.stdout
    (root / "Annotations_Part" / "b.mat").unlink()
    refused(disbench(*command, "--out", tmp_path / "x"), "b.mat")
    assert not (tmp_path / "x").exists()
