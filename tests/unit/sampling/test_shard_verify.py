"""Shards are whole, or it is told what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from disbench.core.errors import InputError
from disbench.sampling.verify import verify_shards
from disbench.shards.manifest import MANIFEST
from tests.unit.shard_tools import SHARD, random_scene, write_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    return write_shards(tmp_path / "shards", [random_scene(noise, f"i{number}") for number in range(3)])


def described(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][0].update({key: value for key, value in changes.items() if key != "scenes"})
    manifest |= {key: value for key, value in changes.items() if key == "scenes"}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_whole_shards(folder: Path) -> None:
    found = verify_shards(folder)
    assert found.holds
    assert found.lines() == [f"{folder}: 3 scenes in 1 shard: whole"]


def test_shards_that_are_not_whole(folder: Path) -> None:
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[:-1] + b"!")
    assert verify_shards(folder).problems == (f"{SHARD}: its SHA-256 is not the manifest's",)
    (folder / SHARD).unlink()
    assert verify_shards(folder).problems == (f"'{SHARD}': it is not there",)
    (folder / SHARD).write_bytes(content)
    (folder / "shard-00001.parquet").write_bytes(content)
    assert verify_shards(folder).problems == ("shard-00001.parquet: a shard that the manifest does not name",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": 4}, "not 4 rows"),
        ({"bytes": 4}, "bytes, where the manifest says 4"),
        ({"sha256": None}, "SHA-256"),
        ({"name": f"../{SHARD}"}, "it is not there"),
        ({"scenes": 7}, "7 scenes in the manifest, 3 in the shards"),
    ],
)
def test_a_manifest_that_is_wrong(folder: Path, changes: dict[str, object], words: str) -> None:
    described(folder, **changes)
    assert words in verify_shards(folder).problems[0]


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        verify_shards(tmp_path)
