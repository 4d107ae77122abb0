"""Other tools open the shards as they are: pandas, DuckDB, Hugging Face's datasets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from disbench.datasets.instances import AnnotatedImages
from disbench.datasets.photos import open_photos
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.shards.reader import ShardReader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    make_shards(AnnotatedImages([open_photos()]), load_recipe("lvis-hierarchy", ["shard_bytes=40000"]), path)
    return path


@pytest.fixture(scope="module")
def shards(folder: Path) -> list[str]:
    paths = sorted(str(path) for path in folder.glob("shard-*.parquet"))
    assert len(paths) > 1
    return paths


def test_pandas(folder: Path, shards: list[str]) -> None:
    frame = pd.read_parquet(shards)
    scenes = list(ShardReader(folder))
    assert frame["image_id"].tolist() == [item.scene.image_id for item in scenes]
    assert frame["objects"][0][0]["rle"] == scenes[0].scene.objects[0].rle["counts"]
    assert [len(row) for row in frame["sets"]] == [len(item.sets) for item in scenes]


def test_duckdb(folder: Path, shards: list[str]) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed (extra: interop)")
    query = (
        "select count(*), sum(item.area) from "
        "(select unnest(objects) as item from read_parquet(?)) where item.kind = 'thing'"
    )
    count, area = duckdb.execute(query, [shards]).fetchone()
    objects = [item for sampled in ShardReader(folder) for item in sampled.scene.objects if item.kind == "thing"]
    assert (count, area) == (len(objects), sum(item.area for item in objects))


def test_hugging_face_datasets(folder: Path, shards: list[str], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra: interop)")
    table = datasets.load_dataset("parquet", data_files=shards, split="train", cache_dir=str(tmp_path))
    scenes = list(ShardReader(folder))
    assert len(table) == len(scenes)
    assert [tuple(m) for m in table[1]["sets"][0]["members"]] == list(scenes[1].sets[0].members)
