"""Shards as a user makes them: in parts, of files that lack something; and as other tools open them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from disbench.harness import read_run
from disbench.shards.reader import ShardReader
from tests.annotations import HEIGHT, WIDTH, annotation, square, write_annotations
from tests.commands import contents, disbench, printed


def test_parts_are_merged_into_the_undivided_folder(tmp_path: Path) -> None:
    def sample(name: str, *options: str) -> str:
        recipe = ("lvis-hierarchy", "--photos", "--set", "shard_bytes=20000", "--workers", "1")
        return printed("sample", *recipe, "--out", name, *options, cwd=tmp_path)

    whole = sample("whole")
    for number in (1, 2, 3):
        sample(f"part-{number}", "--shard-of", f"{number}/3")
    merged = printed("merge", "part-2", "part-3", "part-1", "--out", "merged", cwd=tmp_path)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "merged")) > 4
    assert merged.replace("merged", "whole") == whole
    assert "(of 8 images)" in merged


RECORDS = (
    annotation(1),
    annotation(2, segmentation=None),
    annotation(3, segmentation=[*square(20, 20, 9), [1, 1, 5, 5]]),
    annotation(4, iscrowd=1),
    annotation(5, segmentation=[[1, 2, 3]] * 3),
    annotation(6, segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
)
LEFT_OUT = {"empty mask": 2, "invalid annotation": 1, "ring of fewer than three points": 1}


def test_sample_and_run_say_what_they_leave_out(tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "000000000001.jpg")
    write_annotations(tmp_path / "a.json", RECORDS)
    sampling = ("sample", "coco-hierarchy", "--coco", "a.json", "--out", "sets", "--set", "min_area=1")
    sampling += ("--workers", "1")
    running = ("run", "--method", "disk", "--dataset", "coco", "--data", ".", "--max-clicks", "1", "--out", "run")
    running += ("--dataset-option", "annotations=a.json", "--dataset-option", "images=.", "--workers", "1")
    for command, option in ((sampling, "--set"), (running, "--dataset-option")):
        refused = disbench(*command, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"{option} bad_annotations=drop" in refused.stderr.splitlines()[-1]
        done = printed(*command, option, "bad_annotations=drop", "--existing", "overwrite", cwd=tmp_path)
        for reason, count in LEFT_OUT.items():
            assert f"left out: {count} x {reason}" in done
    assert json.loads((tmp_path / "sets" / "manifest.json").read_text())["dropped"] == LEFT_OUT
    assert read_run(tmp_path / "run").record.dataset.facts["left_out"] == {**LEFT_OUT, "crowd region": 1}


@pytest.fixture
def shards(photo_shards: Path) -> list[str]:
    return sorted(str(path) for path in photo_shards.glob("shard-*.parquet"))


def test_pandas(photo_shards: Path, shards: list[str]) -> None:
    frame = pd.read_parquet(shards)
    scenes = list(ShardReader(photo_shards))
    assert frame["image_id"].tolist() == [item.scene.image_id for item in scenes]
    assert frame["objects"][0][0]["rle"] == scenes[0].scene.objects[0].rle["counts"]
    assert [len(row) for row in frame["sets"]] == [len(item.sets) for item in scenes]


def test_duckdb(photo_shards: Path, shards: list[str]) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed (extra: interop)")
    query = (
        "select count(*), sum(item.area) from "
        "(select unnest(objects) as item from read_parquet(?)) where item.kind = 'thing'"
    )
    count, area = duckdb.execute(query, [shards]).fetchone()
    objects = [item for sampled in ShardReader(photo_shards) for item in sampled.scene.objects if item.kind == "thing"]
    assert (count, area) == (len(objects), sum(item.area for item in objects))


def test_hugging_face_datasets(photo_shards: Path, shards: list[str], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra: interop)")
    table = datasets.load_dataset("parquet", data_files=shards, split="train", cache_dir=str(tmp_path))
    scenes = list(ShardReader(photo_shards))
    assert len(table) == len(scenes)
    assert [tuple(m) for m in table[1]["sets"][0]["members"]] == list(scenes[1].sets[0].members)
