"""Shards: the same bytes for any worker count, cut and resumed anywhere; manifest, size, totals."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.io.files import file_sha256
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import Recipe, load_recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.shards.reader import ShardReader, read_sets
from disbench.shards.rows import ROWS_PER_GROUP
from tests.commands import contents
from tests.refusals import refuses
from tests.synthetic import write_lvis

RECIPES = ("lvis-hierarchy", "containment", "random-merge")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> AnnotatedImages:
    path = write_lvis(tmp_path_factory.mktemp("annotations") / "lvis.json", images=150)
    return AnnotatedImages([open_annotations(path, "lvis")])


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("lvis-hierarchy", ["shard_bytes=20000"])


@pytest.fixture(scope="module")
def expected_files(
    source: AnnotatedImages, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    make_shards(source, recipe, folder)
    return contents(folder)


@pytest.mark.parametrize("name", RECIPES)
def test_worker_count_changes_no_byte(name: str, source: AnnotatedImages, tmp_path: Path) -> None:
    chosen = load_recipe(name, ["shard_bytes=50000"])
    for workers in (1, 3):
        make_shards(source, chosen, tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert len(contents(tmp_path / "1")) > 2


@settings(max_examples=12, deadline=None)
@given(stop=st.integers(0, 149), chunk=st.integers(1, 70), leftovers=st.booleans())
def test_stopped_anywhere_and_resumed_gives_the_same_bytes(
    stop: int,
    chunk: int,
    leftovers: bool,
    source: AnnotatedImages,
    recipe: Recipe,
    expected_files: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("stopped")

    class Failing(AnnotatedImages):
        def _scene(self, image_id: int):  # type: ignore[no-untyped-def]
            if image_id == stop + 1:
                raise OSError("gone")
            return super()._scene(image_id)

    failing = Failing(source.files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("disbench.sampling.job.scenes_per_chunk", lambda images, workers: chunk)
        with pytest.raises(OSError, match="gone"):
            make_shards(failing, recipe, folder)
        assert not (folder / "manifest.json").exists()
        assert not list(folder.glob("*.partial"))
        if leftovers:
            (folder / "shard-00007.parquet.partial").write_bytes(b"half")
        make_shards(source, recipe, folder)
    assert contents(folder) == expected_files


def test_a_finished_folder(source: AnnotatedImages, recipe: Recipe, tmp_path: Path) -> None:
    manifest = make_shards(source, recipe, tmp_path)
    assert manifest.as_json() == json.loads((tmp_path / "manifest.json").read_bytes())
    assert manifest.images == 150
    assert manifest.method == "hierarchy"
    assert manifest.sources == {"lvis:lvis.json": file_sha256(source.files[0].path)}
    rows = [pq.ParquetFile(tmp_path / entry.name).metadata.num_rows for entry in manifest.files]
    assert [entry.rows for entry in manifest.files] == rows
    assert sum(rows) == manifest.scenes
    for entry in manifest.files:
        assert file_sha256(tmp_path / entry.name) == entry.sha256
        assert (tmp_path / entry.name).stat().st_size == entry.bytes
    sampled = [sample_scene(scene, recipe) for scene in source.read(range(len(source)))]
    with_objects = [item for item in sampled if item.scene.objects]
    dropped = sum((item.scene.dropped for item in sampled), Counter())
    dropped["image without a mask"] = len(sampled) - len(with_objects)
    assert manifest.scenes == len(with_objects) < manifest.images
    assert manifest.objects == sum(len(item.scene.objects) for item in with_objects)
    assert manifest.sets == sum(len(item.sets) for item in with_objects) == len(read_sets(tmp_path))
    assert manifest.dropped == dict(dropped)
    first = make_shards(source, recipe, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert make_shards(source, recipe, tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_shards_hold_the_scenes_as_sampled(source: AnnotatedImages, tmp_path: Path) -> None:
    for name in RECIPES:
        chosen = load_recipe(name, ["shard_bytes=30000", "seed=3"])
        make_shards(source, chosen, tmp_path / name)
        reader = ShardReader(tmp_path / name)
        expected = [sample_scene(scene, chosen) for scene in source.read(range(len(source)))]
        expected = [item for item in expected if item.scene.objects]
        assert list(reader) == expected
        order = [len(reader) - 1, 0, ROWS_PER_GROUP, 5, len(reader) // 2]
        assert [reader[i] for i in order] == [expected[i] for i in order]


def test_shards_are_bounded(source: AnnotatedImages, tmp_path: Path) -> None:
    make_shards(source, load_recipe("lvis-hierarchy", ["shard_bytes=4096"]), tmp_path)
    for path in tmp_path.glob("shard-*.parquet"):
        file = pq.ParquetFile(path)
        uncompressed = sum(
            column["total_uncompressed_size"]
            for group in range(file.metadata.num_row_groups)
            for column in file.metadata.row_group(group).to_dict()["columns"]
        )
        assert file.metadata.num_rows == 1 or uncompressed < 2 * 4096 + 4096


def test_existing_shards_of_another_job(source: AnnotatedImages, recipe: Recipe, tmp_path: Path) -> None:
    make_shards(source, recipe, tmp_path)
    before = contents(tmp_path)
    other = dataclasses.replace(recipe, min_area=200)
    refuses(r"recipe min_area.*--existing overwrite", make_shards, source, other, tmp_path)
    refuses("other limit", make_shards, source, recipe, tmp_path, limit=3)
    refuses("already has shards", make_shards, source, recipe, tmp_path, existing="fail")
    assert contents(tmp_path) == before
    (tmp_path / "manifest.json").unlink()
    refuses("a different job", make_shards, source, other, tmp_path)
    make_shards(source, other, tmp_path, existing="overwrite")
    assert contents(tmp_path) != before
    assert make_shards(source, recipe, tmp_path, existing="overwrite")
    assert contents(tmp_path) == before


def test_a_damaged_or_missing_shard_is_noticed(source: AnnotatedImages, recipe: Recipe, tmp_path: Path) -> None:
    make_shards(source, recipe, tmp_path)
    shard = tmp_path / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    refuses(r"shard-00001.parquet.*overwrite", make_shards, source, recipe, tmp_path)
    for spoil in (lambda: shard.write_bytes(b""), shard.unlink):
        spoil()
        refuses(r"shard-00001.parquet", ShardReader, tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "shard-00000.parquet").unlink()
    refuses("an earlier shard is missing", make_shards, source, recipe, tmp_path)


def test_nothing_to_sample_gives_an_empty_folder_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    source = AnnotatedImages([open_annotations(path, "lvis")])
    manifest = make_shards(source, load_recipe("lvis-hierarchy"), tmp_path / "out")
    assert manifest.files == ()
    assert len(read_sets(tmp_path / "out")) == 0
    assert list(read_sets(tmp_path / "out")) == []
