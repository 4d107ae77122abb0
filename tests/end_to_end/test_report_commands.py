"""From runs to pages: `report`, `reproduce`, `published`, `compare` and `failures`, as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import toy_methods
from tests.commands import disbench, printed
from tests.synthetic import write_pairs
from tests.unit.run_tools import CARD, draw_ious, write_run


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
    printed("report", "runs", "other", "--out", "again", cwd=tmp_path)
    assert (tmp_path / "again" / "report.md").read_bytes() == before


def write_ritm(folder: Path) -> None:
    card = {**CARD, "training_data": ["COCO", "LVIS"], "backbone": "HRNet-32"}
    write_run(folder, draw_ious(5), method={"name": "ritm", "card": card})


def test_a_table_and_a_figure_of_runs(tmp_path: Path) -> None:
    write_ritm(tmp_path / "runs" / "grabcut" / "ritm")
    done = disbench("reproduce", "table1", "--runs", "runs", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:3] == ["paper/table1.md", "paper/table1.tex", "paper/table1.csv"]
    assert lines[3].endswith(": 1 of 33 rows with a run")
    assert lines[4] == "with a run: RITM HRNet-32 C+L"
    assert lines[5].startswith("not run: DOS w/o GC VOC; ")
    done = printed("reproduce", "table4", "--runs", "runs", "--out", "x", "--latex", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["table4.tex"]
    assert "Not shown, since the table is about other methods: 1 run (ritm on grabcut)." in done
    done = disbench("reproduce", "figure4", "--runs", "runs", "--pdf", "--png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["paper/figure4.png", "paper/figure4.pdf"]


def test_what_there_is(tmp_path: Path) -> None:
    names = [line.split()[0] for line in printed("reproduce", cwd=tmp_path).splitlines()]
    assert names == ["table1", "table2", "table3", "table4", "table5", "figure4", "figure5", "figure6"]
    done = disbench("published", cwd=tmp_path)
    assert "FocalClick" in done.stdout.splitlines()
    done = disbench("published", "ritm", cwd=tmp_path)
    assert "differs: the RITM repository's README prints SBD NoC@85 3.59" in done.stdout


TOY = str(Path(toy_methods.__file__))


@pytest.mark.slow
def test_two_runs_on_a_folder(tmp_path: Path) -> None:
    write_pairs(tmp_path / "set")
    for radius in ("8", "16"):
        printed(
            *("run", "--method", f"{TOY}:Discs", "--set", f"radius={radius}", "--dataset", "set"),
            *("--out", f"runs/{radius}", "--max-clicks", "5", "--store", "kept", "--workers", "1"),
            cwd=tmp_path,
        )
    done = disbench("compare", "runs/8", "runs/16", "--dataset", "set", "--samples", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NoC@90" in done.stdout
    names = {path.name for path in (tmp_path / "comparison").iterdir()}
    assert names == {"comparison.md", "comparison.csv", "differences.png"}
    done = disbench("failures", "runs", "--dataset", "set", "--samples", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "failures").iterdir()} == {"8.png", "16.png", "failures.csv"}
