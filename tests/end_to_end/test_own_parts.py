"""Annotations with parts of one's own, as a user samples and verifies them; and the page that explains it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from disbench.core.masks import areas
from disbench.core.scenes import SampledScene, click_region
from disbench.shards.manifest import MANIFEST
from disbench.shards.reader import ShardReader
from tests.annotations import image, write_annotations
from tests.commands import Result, disbench, printed
from tests.end_to_end.test_readme import ROOT, blocks, needs_checkout
from tests.part_pictures import polygon
from tests.unit.shard_tools import rewrite_shard

PAGE = ROOT / "docs" / "parts.md"
WHOLES = {"T": "W", "L": "W", "R": "W", "S": "L"}
NUMBERS = {"W": 1, "T": 2, "L": 3, "R": 4, "S": 5}
SIZES = {1: ([1], 720), 2: ([2, 1], 576), 3: ([3, None, 1], 30), 4: ([4, None, 1], 120), 5: ([5, 3, None, 1], 90)}
"""For each annotation its set and click region; None stands for the group of both wheels."""
NOTHING = "no key"
Records = list[dict[str, Any]]


def records(key: str = "parent_id", ids: Any = NUMBERS, none: Any = None, **changes: Any) -> Records:
    """The common picture, with a key that names the whole; roots have `none` there; `changes` are of the links."""
    links = {name: ids[whole] for name, whole in WHOLES.items()} | {"W": none} | changes
    return [
        {
            "id": ids[name],
            "image_id": 1,
            "category_id": 2 if name in "LR" else 1,
            "segmentation": polygon(name),
            **({} if links[name] is NOTHING else {key: links[name]}),
        }
        for name in NUMBERS
    ]


def write(path: Path, annotations: Records) -> Path:
    return write_annotations(path, annotations, (image(1), image(2)))


def sample(folder: Path, dialect: str = "coco", *options: str, out: str = "out") -> Result:
    command = ("sample", f"{dialect}-hierarchy", f"--{dialect}", "a.json", "--out", out, "--existing", "overwrite")
    return disbench(*command, *([] if "--workers" in options else ["--workers", "1"]), *options, cwd=folder)


def made(folder: Path, *arguments: str) -> list[SampledScene]:
    result = sample(folder, *arguments)
    assert result.returncode == 0, result.stderr
    printed("verify", folder / "out", "--workers", "1")
    return list(ShardReader(folder / "out"))


def sets(scene: SampledScene) -> dict[Any, Any]:
    """Of each center's annotation id: the ids of its set's members, and the pixels to click on."""
    objects, rles = scene.scene.objects, scene.scene.rles
    return {
        objects[one.center].annotation_id: (
            [objects[i].annotation_id for (i,) in one.members],
            int(areas([click_region(rles, one)])[0]),
        )
        for one in scene.sets
    }


@pytest.mark.parametrize("none", [None, NOTHING, float("nan"), "", -1, 0, "1", 1.0], ids=repr)
def test_roots_may_be_written_in_many_ways(none: Any, tmp_path: Path) -> None:
    dialect = "lvis" if none is None else "coco"
    write(tmp_path / "a.json", records(none=none))
    (scene,) = made(tmp_path, dialect)
    assert sets(scene) == SIZES
    assert scene.scene.source == f"{dialect}+parts"


def test_links_of_pacos_key_and_ids_that_are_texts(tmp_path: Path) -> None:
    write(tmp_path / "a.json", records("obj_ann_id", none=1, S=1))  # one level: the rim nests by geometry
    (scene,) = made(tmp_path, "lvis")
    assert sets(scene) == SIZES
    assert scene.scene.dropped == {"link: nested by geometry": 1}
    write(tmp_path / "a.json", records(T="1", L=1.0, R="1.0", S="3"))
    assert sets(*made(tmp_path)) == SIZES
    write(tmp_path / "a.json", records(ids={name: f"no. {name}" for name in NUMBERS}))
    (scene,) = made(tmp_path)
    places = {None: None, **{number: number - 1 for number in NUMBERS.values()}}  # texts are told by their place
    assert sets(scene) == {
        places[center]: ([places[one] for one in members], region) for center, (members, region) in SIZES.items()
    }


OTHER_IMAGE = [{**one, "image_id": 2} if one["id"] == 3 else one for one in records()]


@pytest.mark.parametrize(
    ("annotations", "named", "counts", "rim"),
    [
        (records(S=99), "annotation 5 (image 1)", "1 x link: parent missing", [5]),
        (OTHER_IMAGE, "annotation", "2 x link: parent missing", [5]),
        (records(L=5, S=3), "annotation 3 (image 1)", "2 x link: cycle", [5]),
        (records(W=5), "annotation 1 (image 1)", "3 x link: cycle", [5]),
        (records(S=[3]), "annotation 5 (image 1)", "1 x invalid annotation", None),
    ],
    ids=["missing", "other image", "cycle", "cycle of three", "a list"],
)
def test_links_that_lead_nowhere(annotations: Records, named: str, counts: str, rim: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.json", annotations)
    result = sample(tmp_path)
    assert result.returncode == 2
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert re.search(rf"a\.json: {re.escape(named)}.*parent_id.*bad_annotations=drop", result.stderr.splitlines()[-1])
    result = sample(tmp_path, "coco", "--set", "bad_annotations=drop")
    assert counts in result.stdout
    (scene, *_) = made(tmp_path, "coco", "--set", "bad_annotations=drop")
    assert sets(scene).get(5, (None,))[0] == rim


@pytest.mark.parametrize(("count", "code"), [(65, 0), (66, 2)])
def test_a_chain_of_parts_has_an_end(count: int, code: int, tmp_path: Path) -> None:
    shape = {"image_id": 1, "category_id": 1, "segmentation": polygon("W")}
    chain = [{**shape, "id": number, "parent_id": number - 1} for number in range(1, count + 1)]
    write(tmp_path / "a.json", chain)
    result = sample(tmp_path)
    assert result.returncode == code, result.stderr
    assert code == 0 or "image 1" in result.stderr.splitlines()[-1]


def _rim_elsewhere(row: dict[str, Any]) -> None:
    """The rim (object 4) hangs on the right wheel (object 3), in which it does not lie."""
    row["objects"][4]["parent"] = 3
    for one in row["sets"]:
        if one["center"] == 4:
            one["members"][1] = [3]
        one["click_excludes"] = {2: [], 3: [4]}.get(one["center"], one["click_excludes"])


def _smaller_group(row: dict[str, Any]) -> None:
    group, wheel = row["objects"][5], row["objects"][2]
    group.update({key: wheel[key] for key in ("rle", "area", "box")})


def _group_as_center(row: dict[str, Any]) -> None:
    row["objects"][4]["kind"] = "group"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rim_elsewhere, "of it in its parent 3"),
        (_smaller_group, "not the union of its parts"),
        (_group_as_center, "object 4: a group that is not"),
    ],
)
def test_verification_finds_links_and_groups_that_do_not_hold(change: Any, words: str, tmp_path: Path) -> None:
    write(tmp_path / "a.json", records())
    made(tmp_path)
    shard = next((tmp_path / "out").glob("shard-*.parquet"))
    rows = pq.read_table(shard).to_pylist()
    change(rows[0])
    rewrite_shard(tmp_path / "out", rows, shard.name)
    result = disbench("verify", tmp_path / "out", "--workers", "1")
    assert result.returncode == 2 and words in result.stderr, result.stdout


@needs_checkout
def test_the_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks(PAGE, "python")
    assert len([line for line in code.splitlines() if line]) == 10
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    for command in (line for block in blocks(PAGE, "sh") for line in block.splitlines()):
        printed(*shlex.split(command)[1:], cwd=tmp_path)
    (scene,) = ShardReader(tmp_path / "shards" / "car")
    names = [item.category for item in scene.scene.objects]
    rows = [
        (names[one.center], ", ".join(names[i] for (i,) in one.members), str(region))
        for one, (_, region) in zip(scene.sets, sets(scene).values(), strict=True)
    ]
    table = re.findall(r"^\| (\w+)(?: \d)? \| (.*) \| (\d+) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert table == rows


@needs_checkout
def test_the_page_names_what_commands_count() -> None:
    """Every counter of the sampler and of annotation files."""
    package = ROOT / "disbench"
    files = ("sampling/links.py", "core/scenes.py", "datasets/instances.py")
    counters = {name for file in files for name in re.findall(r"\{LINK\}([\w ]+)", (package / file).read_text())}
    assert len(counters) >= 7
    assert counters <= set(re.findall(r"`link: ([\w ]+)`", PAGE.read_text()))
