"""The files of a report: every byte the same again, whatever the runs are called, and parts that parse."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.harness.measures import PERCENTS
from disbench.reports.render import Cell, Column, Table, latex, markdown
from disbench.reports.report import make_report
from tests.unit.run_tools import HASH, draw_ious, write_run

FILES = {"report.md", "results.csv", "tables.tex", "curves.csv", "curves.png", "curves.svg"}


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, unescaped, by GitHub's rule: a pipe without a backslash ends a cell."""
    tables: list[list[list[str]]] = []
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("|"):
            continue
        if not before.startswith("|"):
            tables.append([])
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        tables[-1].append([re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip()) for cell in cells])
    return tables


def test_what_is_written_is_the_same_wherever_the_runs_lie(tmp_path: Path) -> None:
    found = []
    for place in ("here", "there/below"):
        runs, out = tmp_path / place / "runs", tmp_path / place / "out" / "report"
        write_run(runs / "a", draw_ious(9), failed={2: "predict raised"})
        write_run(runs / "b", draw_ious(9, seed=1), dataset={"name": "davis"})
        for inputs in ([runs], [runs / "a", runs / "b"]):
            report = make_report(inputs, out)
            found.append(content_of(out))
            assert {path.name for path in report.paths} == set(found[-1]) == FILES
            assert report.paths[0] == out / "report.md"
            assert report.lines[0] == f"{out / 'report.md'}: 2 runs on 2 datasets"
            assert re.fullmatch(r"  toy on grabcut \(b04d9de7\): NoC@90 \d+\.\d\d", report.lines[1])
    assert found[0] == found[1] == found[2] == found[3]


def test_a_users_style_changes_nothing(tmp_path: Path) -> None:
    import matplotlib as mpl

    write_run(tmp_path / "run")
    make_report([tmp_path / "run"], tmp_path / "a")
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.facecolor": "red", "lines.linewidth": 9}):
        make_report([tmp_path / "run"], tmp_path / "b")
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")


def test_runs_that_end_early_have_no_curves_and_no_earlier_ones_stay(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b", [[0.95], [0.5] * 20], method={"name": "early"}, protocol={"stop_at": 0.9})
    report = make_report([tmp_path / "runs"], tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "curves.csv").read_text())))
    assert [(row["label"], int(row["click"])) for row in rows] == [("toy", click) for click in range(1, 21)]
    sentence = "early on grabcut has no curve: its samples end at an IoU of 0.9."
    assert sentence in report.paths[0].read_text()
    report = make_report([tmp_path / "runs" / "b"], tmp_path / "out")
    left = FILES - {"curves.csv", "curves.png", "curves.svg"}
    assert set(content_of(tmp_path / "out")) == {path.name for path in report.paths} == left
    page = report.paths[0].read_text()
    assert "samples of every run end early" in page and sentence in page


def test_the_page_has_tables_facts_and_commands(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", failed={0: "open raised ValueError: no"}, command="disbench run --set 'a=``` b'")
    make_report([tmp_path / "run"], tmp_path / "out")
    page = content_of(tmp_path / "out")["report.md"].decode()
    overview, clicks, quality = markdown_tables(page)
    for table in (overview, clicks, quality):
        assert len({len(row) for row in table}) == 1
        assert set("".join(table[1])) == {"-", ":"}
    assert clicks[0][4:8] == [f"NoC@{percent}" for percent in PERCENTS]
    assert clicks[2][:4] == ["toy<sup>a</sup>", "oracle-first, center, 20 clicks, > 0.49, max_side=320", "12", "1"]
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]", clicks[2][4])
    assert "````text\ndisbench run --set 'a=``` b'\n````" in page
    for fact in (
        HASH,
        "A. Author. A toy. 2024.",
        "opencv 4.12.0",
        "A processor with 4 cores",
        "open raised ValueError",
    ):
        assert fact in page
    assert str(run.folder) not in page


def test_results_have_every_number_unrounded(tmp_path: Path) -> None:
    ious = draw_ious(7)
    write_run(tmp_path / "runs" / "a", ious)
    write_run(tmp_path / "runs" / "b", [[0.9]], protocol={"stop_at": 0.85, "selection": "score"})
    make_report([tmp_path / "runs"], tmp_path / "out")
    text = content_of(tmp_path / "out")["results.csv"].decode()
    first, second = csv.DictReader(io.StringIO(text))
    assert float(first["mean_iou_3"]) == pytest.approx(float(ious[:, 2].mean(dtype=np.float64)), rel=1e-12)
    assert float(first["noc_85_low"]) <= float(first["noc_85"]) <= float(first["noc_85_high"])
    assert (second["noc_80"], second["noc_90"], second["mean_iou_1"], second["model_seconds_later_clicks"]) == (
        "1.0", "", "", ""
    )  # fmt: skip
    assert second["notes"] == "another protocol: selection score instead of oracle-first"
    assert None not in first


def check_latex(text: str) -> None:
    """Braces close, and no character is active that the tables do not mean."""
    depth = 0
    for char in re.sub(r"\\[\\{}$&#%_]", "", text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0
    bare = re.sub(r"\\[$&#%_{}\\]", "", text.replace("{%\n", "{\n").replace("}%\n", "}\n"))
    assert not re.search(r"[$#%_^~]", bare)


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_text_is_escaped(text: str) -> None:
    table = Table(
        "t", text, text, (Column("a"), Column("b", text)), ((Cell(text), Cell(text, ("a",), "1, 2")),), {"a": text}
    )
    (found,) = markdown_tables(markdown.table(table))
    assert [len(row) for row in found] == [2, 2, 2]
    assert "\n" not in markdown.escape(text)
    tex = latex.table(table, "t")
    check_latex(tex.replace("% t\n", ""))
    assert not re.search(r"(\\\\|rule)\s*[\[*]", tex)


def test_making_a_report_needs_no_method_and_no_opencv(tmp_path: Path) -> None:
    write_run(tmp_path / "run", draw_ious(2))
    code = (
        "import sys\nfrom pathlib import Path\nfrom disbench.reports.report import make_report\n"
        "light = [name for name in ('matplotlib', 'jinja2', 'torch', 'cv2', 'pandas') if name in sys.modules]\n"
        f"make_report([Path({str(tmp_path / 'run')!r})], Path({str(tmp_path / 'out')!r}))\n"
        "print(light, [name for name in ('torch', 'cv2', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
