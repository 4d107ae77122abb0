"""`disbench pack` and `disbench verify`, as a user types them, on the embedded photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbench.harness import read_run
from disbench.harness.store import CLICKS, ClickRow, to_table, write_clicks
from tests.commands import disbench


def run_disk(cwd: Path, store: str) -> None:
    arguments = ("--method", "disk", "--dataset", "photos", "--every", "60", "--workers", "1")
    done = disbench("run", *arguments, "--store", store, "--max-clicks", "6", "--out", f"runs/{store}", cwd=cwd)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_real_run_is_packed_verified_and_reported(tmp_path: Path) -> None:
    run_disk(tmp_path, "all")
    done = disbench("pack", "runs/all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all.zip: " in done.stdout
    for place in ("runs/all", "runs/all.zip"):
        done = disbench("verify", place, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == f"{place}: the run holds"
        assert "  30 clicks follow from the masks before them" in lines
        assert "  30 IoUs and boundary IoUs follow from their masks" in lines
        assert not any("not checked" in line for line in lines)
    done = disbench("report", "runs/all.zip", "--out", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "report.md: 1 run on 1 dataset" in done.stdout


@pytest.mark.slow
def test_what_does_not_hold_ends_with_2(tmp_path: Path) -> None:
    run_disk(tmp_path, "none")
    run = read_run(tmp_path / "runs" / "none")
    rows = run.rows().to_pylist()
    rows[0].update(iou=1.0, candidate_ious=[1.0])
    write_clicks(run.folder / CLICKS, [to_table([ClickRow(**row) for row in rows])])
    done = disbench("verify", "runs/none", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "runs/none: the run does not hold" in done.stderr
    assert "click where nothing is left to correct" in done.stderr
    done = disbench("pack", "runs/none", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: runs/none: the run does not hold: ")
    done = disbench("verify", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere: no run here")
