"""Folders of shards that are not whole, and scenes that are not what their recipe promises: each damage is found."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core.errors import InputError
from disbench.core.masks import are_canonical, areas, encode, from_foreign_rle, from_segmentations
from disbench.core.scenes import Kind, Scene
from disbench.sampling import make_shards
from disbench.sampling.recipes import Recipe
from disbench.sampling.verify import MAX_LISTED, verify_shards
from disbench.shards.manifest import MANIFEST, read_manifest
from disbench.shards.reader import ShardReader
from disbench.shards.rows import ROWS_PER_GROUP
from tests.refusals import refuses
from tests.unit.shard_tools import (
    SHARD,
    Scenes,
    change_manifest,
    random_scene,
    rewrite_shard,
    scene_object,
    size_and_hash,
    write_shards,
)

SIZE = (40, 50)
RECIPE = Recipe("test", "", "hierarchy", ("lvis",), min_area=1, drop_repeated=False)
Row = dict[str, Any]


def nested_scene(image_id: str = "7", **changes: Any) -> Scene:
    """0 holds 1 but for a strip, 1 holds 2; 3, 4 and 5 stand in a row and touch; 6 is a crowd, 7 stuff."""
    parts: list[tuple[slice, slice, Kind]] = [
        (slice(0, 30), slice(2, 28), "thing"),
        (slice(2, 20), slice(0, 20), "thing"),
        (slice(4, 10), slice(4, 10), "thing"),
        (slice(30, 40), slice(30, 36), "thing"),
        (slice(30, 40), slice(36, 42), "thing"),
        (slice(30, 40), slice(42, 50), "thing"),
        (slice(35, 38), slice(0, 8), "crowd"),
        (slice(0, 25), slice(29, 50), "stuff"),
    ]
    objects = []
    for rows, columns, kind in parts:
        mask = np.zeros(SIZE, dtype=bool)
        mask[rows, columns] = True
        objects.append(scene_object(mask, kind))
    return dataclasses.replace(Scene(image_id, f"{image_id}.jpg", *SIZE, "lvis", tuple(objects)), **changes)


def recipe(method: Any, **changes: Any) -> Recipe:
    return dataclasses.replace(RECIPE, method=method, **changes)


HIERARCHY = recipe("hierarchy")


def rewrite(folder: Path, rows: list[Row], group: int = ROWS_PER_GROUP) -> None:
    """The folder's only shard with other rows, and a manifest that fits it."""
    rewrite_shard(folder, rows, group=group)
    totals = {what: sum(len(row[what]) for row in rows) for what in ("objects", "sets")}
    change_manifest(folder, lambda said: said.update(totals))


def problems_after(folder: Path, chosen: Recipe, change: Callable[[Row], Any], scene: Scene | None = None) -> list[str]:
    """What deep verification finds once the only row of a sound folder is changed."""
    make_shards(Scenes([scene or nested_scene()]), chosen, folder)
    assert verify_shards(folder).lines()[1:] == []
    rows = pq.read_table(folder / SHARD).to_pylist()
    change(rows[0])
    rewrite(folder, rows)
    assert verify_shards(folder, quick=True).ok, "a damage that hashes and sizes show already"
    found = verify_shards(folder)
    assert found.count == len(found.problems)
    assert all(problem.startswith(SHARD) and "image '7': " in problem for problem in found.problems)
    return [problem.partition("image '7': ")[2] for problem in found.problems]


def objects(number: int, **changes: Any) -> Callable[[Row], None]:
    return lambda row: row["objects"][number].update(changes)


def sets(number: int, **changes: Any) -> Callable[[Row], None]:
    return lambda row: row["sets"][number].update(changes)


def other_mask(rows: slice, columns: slice) -> bytes:
    mask = np.zeros(SIZE, dtype=bool)
    mask[rows, columns] = True
    return encode(mask)["counts"]


NOT_SCENES = [
    *(objects(2, rle=counts) for counts in (b"0", b"o" * 40, encode(np.zeros(SIZE, dtype=bool))["counts"])),
    lambda row: row.update(height=41),
    *(objects(2, **change) for change in ({"id": 5}, {"level": 3}, {"level": 0}, {"parent": None}, {"parent": 8})),
    objects(1, parent=2),  # a cycle of 1 and 2
    objects(3, neighbours=[8]),
    *(sets(2, members=members) for members in ([], [[2], []], [[2], [8]])),
    *(sets(2, **change) for change in ({"center": -1}, {"click_excludes": [-1]}, {"left_out": math.nan})),
]


@pytest.mark.parametrize("change", NOT_SCENES)
def test_a_row_that_is_not_a_scene(change: Callable[[Row], Any], tmp_path: Path) -> None:
    (problem,) = problems_after(tmp_path, recipe("hierarchy"), change)
    with pytest.raises(InputError) as caught:
        list(ShardReader(tmp_path))
    assert str(tmp_path / SHARD) in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("made_by", "change", "words"),
    [
        (HIERARCHY, objects(2, area=35), "object 2: area 35 and box [4, 4, 6, 6], but its mask has 36 pixels"),
        (HIERARCHY, objects(2, box=[4, 4, 6, 7]), "object 2: area 36 and box [4, 4, 6, 7], but"),
        (HIERARCHY, objects(2, rle=other_mask(slice(4, 10), slice(5, 11))), "object 2: area 36 and box [4, 4, 6, 6]"),
        (HIERARCHY, lambda row: row.update(objects=[], sets=[]), "no objects"),
        (HIERARCHY, objects(3, level=None), "object 3: its levels are 'None', but the recipe makes '0'"),
        (HIERARCHY, objects(4, parent=3, level=1), "object 4: its parents are '3', but the recipe makes '-1'"),
        (HIERARCHY, objects(3, neighbours=[4]), "object 3: its neighbours are"),
        (HIERARCHY, sets(2, center=1, members=[[1], [0]]), "its sets have the centers"),
        (HIERARCHY, lambda row: row["sets"].pop(), "its sets have the centers"),
        (HIERARCHY, sets(1, click_excludes=[0, 1]), "set 1: its click region is empty"),
        (HIERARCHY, sets(0, click_excludes=[]), "set 0: its click_excludes are '()'"),
        (HIERARCHY, sets(2, members=[[2], [0], [1]]), "set 2: its members are '((2,), (0,), (1,))', but the recipe"),
        (recipe("hierarchy", nest="union"), sets(2, members=[[2], [2, 1], [0]]), "set 2: its members are"),
        (recipe("containment"), sets(2, members=[[2], [1]]), "set 2: its members are"),
        (recipe("containment"), objects(0, level=0), "object 0: its levels are '0'"),
        (recipe("proximity"), sets(4, members=[[4], [4, 3], [4, 0]]), "set 4: its members are"),
        (recipe("proximity", cap=2), sets(4, members=[[4], [4, 3], [4, 5]]), "set 4: its members are"),
        (recipe("proximity"), objects(4, neighbours=[3]), "object 4: its neighbours are '(3,)', but the recipe makes"),
        (recipe("random-merge"), sets(4, members=[[4], [4, 7]]), "set 4: its members are"),
    ],
)
def test_a_damaged_scene(made_by: Recipe, change: Callable[[Row], Any], words: str, tmp_path: Path) -> None:
    found = problems_after(tmp_path, made_by, change)
    assert any(problem.startswith(words) for problem in found), found


def test_masks_need_not_nest_exactly(tmp_path: Path) -> None:
    """1 sticks out of 0: `annotated` promises that a parent covers most of its child, `union` all of it."""
    for nest in ("annotated", "union"):
        make_shards(Scenes([nested_scene()]), recipe("hierarchy", nest=nest), tmp_path / nest)
        assert verify_shards(tmp_path / nest).ok
    change_manifest(tmp_path / "annotated", lambda said: said["recipe"].update(nest="union"))
    assert verify_shards(tmp_path / "annotated").problems[0].startswith(f"{SHARD}, image '7': set 1: its members")
    given_tree = nested_scene(source="hannotation", parents=(-1, 3, 1, -1, 0, -1, -1, -1))
    make_shards(Scenes([given_tree]), recipe("hierarchy"), tmp_path)
    assert verify_shards(tmp_path).ok


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    method=st.sampled_from(("hierarchy", "proximity", "containment", "random-merge")),
    nest=st.sampled_from(("annotated", "union")),
    cap=st.integers(1, 9),
)
def test_whatever_the_sampler_makes_holds(
    seed: int, method: str, nest: Any, cap: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(seed)
    scenes = [dataclasses.replace(random_scene(rng, str(i), stuff=1).scene, source="coco+lvis") for i in range(3)]
    make_shards(Scenes(scenes), recipe(method, nest=nest, cap=cap), folder)
    assert verify_shards(folder).lines()[1:] == []


@given(
    seed=st.integers(0, 2**32), change=st.none() | st.tuples(st.integers(0, 99), st.integers(0, 255)), cut=st.booleans()
)
def test_well_formed_run_lengths_are_masks_that_the_reader_takes(
    seed: int, change: tuple[int, int] | None, cut: bool
) -> None:
    noise = np.random.default_rng(seed)
    height, width = (int(side) for side in noise.integers(1, 70, 2))
    rle = encode(noise.random((height, width)) < noise.random() ** 3)
    counts = bytearray(rle["counts"])
    if change:
        counts[change[0] % len(counts)] = change[1]
    rle["counts"] = bytes(counts[: -1 if cut else None])
    try:
        read = from_foreign_rle(rle, height, width)
    except ValueError:
        assert change or cut
        assert not are_canonical([rle])
        return
    assert are_canonical([rle]) == (read["counts"] == rle["counts"] and areas([read])[0] > 0)
    assert from_segmentations([{**rle, "counts": rle["counts"].decode()}] * 2, height, width) == [read] * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seventy scenes in one shard."""
    make_shards(Scenes([nested_scene(str(number)) for number in range(70)]), HIERARCHY, tmp_path)
    return tmp_path


def test_shards_in_parallel_are_told_in_order(tmp_path: Path) -> None:
    scenes = [nested_scene(str(number)) for number in range(70)]
    make_shards(Scenes(scenes), recipe("hierarchy", shard_bytes=4096), tmp_path)
    assert len(read_manifest(tmp_path).files) > 20
    assert verify_shards(tmp_path, workers=2).ok
    for path in sorted(tmp_path.glob("shard-*"))[3:6]:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    one, two = (verify_shards(tmp_path, workers=workers) for workers in (1, 2))
    assert one == two
    assert [problem[:19] for problem in one.problems] == [f"shard-{i:05}.parquet" for i in (3, 4, 5)]


def test_many_problems_are_counted(folder: Path) -> None:
    rows = pq.read_table(folder / SHARD).to_pylist()
    for row in rows:
        row["objects"][0]["area"] = 1
    rewrite(folder, rows)
    found = verify_shards(folder)
    assert (found.count, len(found.problems)) == (70, MAX_LISTED)
    assert found.lines()[-1] == f"  and {70 - MAX_LISTED} more problems"
    assert verify_shards(folder, quick=True).lines()[0].endswith("whole (masks and sets were not checked)")


def test_row_groups_of_another_length(folder: Path) -> None:
    rewrite(folder, pq.read_table(folder / SHARD).to_pylist(), group=35)
    assert verify_shards(folder).problems == (f"{SHARD}: its row groups do not hold 70 rows, 32 per group",)


def test_a_page_that_does_not_decompress(folder: Path) -> None:
    metadata = pq.ParquetFile(folder / SHARD).metadata.row_group(1)
    columns = [metadata.column(number) for number in range(metadata.num_columns)]
    column = next(column for column in columns if column.path_in_schema == "image_id")
    end = column.data_page_offset + column.total_compressed_size
    content = bytearray((folder / SHARD).read_bytes())
    content[end - 30 : end] = bytes(30)
    (folder / SHARD).write_bytes(content)
    change_manifest(folder, lambda said: said["files"][0].update(size_and_hash(folder / SHARD)))
    assert verify_shards(folder, quick=True).ok
    assert verify_shards(folder).problems[-1].startswith(f"{SHARD}, row group 1: ")


@pytest.mark.parametrize("what", ["objects", "sets"])
def test_totals_of_the_manifest(folder: Path, what: str) -> None:
    count = json.loads((folder / MANIFEST).read_text())[what]
    change_manifest(folder, lambda said: said.update({what: count + 1}))
    expected = f"{count + 1} {what} in the manifest, but {count} in its shards"
    assert verify_shards(folder).problems == (expected,)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    return write_shards(tmp_path / "shards", [random_scene(noise, f"i{number}") for number in range(3)])


def test_shards_that_are_whole_or_not(small: Path) -> None:
    found = verify_shards(small)
    assert found.ok
    assert found.lines() == [f"{small}: 3 scenes in 1 shard: whole"]
    content = (small / SHARD).read_bytes()
    (small / SHARD).write_bytes(content[:-1] + b"!")
    assert verify_shards(small).problems == (f"{SHARD}: its SHA-256 differs from the manifest",)
    (small / SHARD).unlink()
    assert verify_shards(small).problems == (f"'{SHARD}': file not found",)
    (small / SHARD).write_bytes(content)
    (small / "shard-00001.parquet").write_bytes(content)
    assert verify_shards(small).problems == ("shard-00001.parquet: not in the manifest",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": 4}, "not hold 4 rows"),
        ({"bytes": 4}, "bytes, but the manifest says 4"),
        ({"sha256": None}, "SHA-256"),
        ({"name": f"../{SHARD}"}, "file not found"),
        ({"scenes": 7}, "7 scenes in the manifest, but 3 in its shards"),
    ],
)
def test_a_manifest_that_is_wrong(small: Path, changes: dict[str, object], words: str) -> None:
    change_manifest(small, lambda said: (said if "scenes" in changes else said["files"][0]).update(changes))
    assert words in verify_shards(small).problems[0]


def test_no_shards(tmp_path: Path) -> None:
    refuses(r"no manifest\.json", verify_shards, tmp_path)
