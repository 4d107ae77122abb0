"""`disbench report`: from runs to a page, and sentences for what cannot be reported."""

from __future__ import annotations

from pathlib import Path

from tests.commands import disbench
from tests.unit.run_tools import draw_ious, write_run


def test_a_report_of_runs_below_a_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "grabcut" / "one", draw_ious(5))
    write_run(tmp_path / "runs" / "davis" / "one", draw_ious(5), dataset={"name": "davis"})
    write_run(tmp_path / "other", draw_ious(5, seed=2), method={"name": "other"})
    done = disbench("report", "runs", "other", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "report/report.md: 3 runs on 2 datasets"
    assert len(done.stdout.splitlines()) == 4
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"report.md", "results.csv", "tables.tex", "curves.csv", "curves.png", "curves.svg"}
    before = (tmp_path / "report" / "report.md").read_bytes()
    assert disbench("report", "runs", "other", "--out", "again", cwd=tmp_path).returncode == 0
    assert (tmp_path / "again" / "report.md").read_bytes() == before
