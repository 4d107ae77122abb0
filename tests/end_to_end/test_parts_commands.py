"""A dataset made in parts and merged, and its verification, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Result, contents, disbench

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
