"""`disbench reproduce` and `disbench published`: from runs to the paper's tables, and sentences for what is wrong."""

from __future__ import annotations

from pathlib import Path

from tests.commands import disbench
from tests.unit.run_tools import CARD, draw_ious, write_run


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
    done = disbench("reproduce", "table4", "--runs", "runs", "--out", "x", "--latex", cwd=tmp_path)
    assert done.returncode == 0
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["table4.tex"]
    assert "Not shown, since the table is about other methods: 1 run (ritm on grabcut)." in done.stdout
    done = disbench("reproduce", "figure4", "--runs", "runs", "--pdf", "--png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["paper/figure4.png", "paper/figure4.pdf"]


def test_what_there_is(tmp_path: Path) -> None:
    done = disbench("reproduce", cwd=tmp_path)
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["table1", "table2", "table3", "table4", "table5", "figure4", "figure5", "figure6"]
    done = disbench("published", cwd=tmp_path)
    assert "FocalClick" in done.stdout.splitlines()
    done = disbench("published", "ritm", cwd=tmp_path)
    assert "differs: the RITM repository's README prints SBD NoC@85 3.59" in done.stdout
