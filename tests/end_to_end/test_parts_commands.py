"""A dataset made in parts and merged, and its verification, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from disbench.io.files import file_sha256
from disbench.shards.manifest import MANIFEST
from disbench.shards.rows import SCHEMA
from tests.commands import Result, contents, disbench, refused

PARTS = 3
SHARD = "shard-00001.parquet"


def sample(out: Path, *options: str) -> Result:
    recipe = ("lvis-hierarchy", "--photos", "--set", "shard_bytes=20000", "--workers", "1")
    return disbench("sample", *recipe, "--out", out, *options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `whole`, sampled in one piece, and its parts `part-1` to `part-3`."""
    folder = tmp_path_factory.mktemp("made")
    assert sample(folder / "whole").returncode == 0
    for number in range(1, PARTS + 1):
        result = sample(folder / f"part-{number}", "--shard-of", f"{number}/{PARTS}")
        assert result.returncode == 0, result.stderr
    return folder


def parts(folder: Path) -> list[Path]:
    return [folder / f"part-{number}" for number in (2, 3, 1)]


def test_parts_are_merged_into_the_undivided_folder(made: Path, tmp_path: Path) -> None:
    result = disbench("merge", *parts(made), "--out", tmp_path / "merged")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "merged") == contents(made / "whole")
    assert len(contents(tmp_path / "merged")) > 4
    # The summary is that of the undivided job, too.
    assert result.stdout.replace(str(tmp_path / "merged"), "") == sample(made / "whole").stdout.replace(
        str(made / "whole"), ""
    )
    assert "(of 8 images)" in result.stdout


def test_what_cannot_be_merged_is_told_in_one_sentence(made: Path, tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    cases = [
        (parts(made)[:2], "part 1 is missing"),
        ([*parts(made), made / "part-2"], "name each part once"),
        ([made / "part-1", tmp_path / "unfinished"], "unfinished: no manifest.json"),
        ([made / "whole"], "not a part"),
    ]
    for chosen, words in cases:
        result = disbench("merge", *chosen, "--out", tmp_path / "merged")
        refused(result, words)
        assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("text", ["", "4/3", "0/3", "1", "1/3/3"])
def test_a_part_that_is_none(text: str, tmp_path: Path) -> None:
    refused(sample(tmp_path / "out", "--shard-of", text), "such as 3/16")
    assert not (tmp_path / "out").exists()


def test_verification_sees_what_hashes_do_not(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for name, content in contents(made / "whole").items():
        (folder / name).write_bytes(content)
    for options in ((), ("--quick",), ("--workers", "2")):
        result = disbench("verify", folder, *options)
        assert (result.returncode, result.stderr.count("not whole")) == (0, 0)
        assert "8 scenes in" in result.stdout
    rows = pq.read_table(folder / SHARD).to_pylist()
    rows[0]["sets"][0]["members"][0] = []
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / SHARD)
    manifest = json.loads((folder / MANIFEST).read_text())
    entry = {"bytes": (folder / SHARD).stat().st_size, "sha256": file_sha256(folder / SHARD)}
    manifest["files"][1].update(entry)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert disbench("verify", folder, "--quick").returncode == 0
    result = disbench("verify", folder, "--workers", "1")
    assert result.returncode == 2
    assert SHARD in result.stderr and f"image '{rows[0]['image_id']}'" in result.stderr
