"""`disbench compare` and `disbench failures` as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import toy_methods
from tests.commands import disbench
from tests.synthetic import write_pairs

TOY = str(Path(toy_methods.__file__))


@pytest.mark.slow
def test_two_runs_on_a_folder(tmp_path: Path) -> None:
    write_pairs(tmp_path / "set")
    for radius in ("8", "16"):
        done = disbench(
            *("run", "--method", f"{TOY}:Discs", "--set", f"radius={radius}", "--dataset", "set"),
            *("--out", f"runs/{radius}", "--max-clicks", "5", "--store", "kept", "--workers", "1"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    done = disbench("compare", "runs/8", "runs/16", "--dataset", "set", "--samples", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NoC@90" in done.stdout
    names = {path.name for path in (tmp_path / "comparison").iterdir()}
    assert names == {"comparison.md", "comparison.csv", "differences.png"}
    done = disbench("failures", "runs", "--dataset", "set", "--samples", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "failures").iterdir()} == {"8.png", "16.png", "failures.csv"}
