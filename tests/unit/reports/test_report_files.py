"""The files of a report: the same bytes again, whatever runs are called; a page that loads and lets in nothing."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.harness.measures import PERCENTS
from disbench.reports.entries import find_runs, read_entries
from disbench.reports.page import page_html
from disbench.reports.render import Cell, Column, Table, latex, markdown
from disbench.reports.report import LEADERBOARD, make_report
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


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_text_is_escaped(text: str) -> None:
    """In LaTeX and HTML: tests/fuzz/test_stored_runs.py."""
    cells = (Cell(text), Cell(text, ("a",), "1, 2"))
    table = Table("t", text, text, (Column("a"), Column("b", text)), (cells,), {"a": text})
    (found,) = markdown_tables(markdown.table(table))
    assert [len(row) for row in found] == [2, 2, 2]
    assert "\n" not in markdown.escape(text)
    assert not re.search(r"(\\\\|rule)\s*[\[*]", latex.table(table, "t"))


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


class Page(HTMLParser):
    """Tags, attributes and texts of a page's elements, each element's text up to the next tag."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        self.texts = self.elements[-1][2]

    def handle_endtag(self, tag: str) -> None:
        self.texts = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """The attributes of elements, and their texts under an empty key."""
        return [
            {**attributes, "": "".join(texts)}
            for name, attributes, texts in self.elements
            if name == tag and wanted.items() <= attributes.items()
        ]

    def runs(self) -> list[dict[str, Any]]:
        """The data of the charts."""
        return list(json.loads(self.all("script", id="data")[0][""])["runs"])


PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods on one dataset, one of them by another protocol, and one that stops early on another."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "a", draw_ious(6), method={"name": "slow"}, failed={2: "no answer in 60 s"})
    write_run(folder / "b", draw_ious(6, seed=1, speed=1.0), method={"name": "fast"})
    write_run(folder / "c", draw_ious(6, seed=2), method={"name": "other"}, protocol={"selection": "oracle-all"})
    write_run(
        folder / "d",
        [[0.5, 0.86], [0.9]],
        dataset={"name": "davis", "content_hash": "f" * 64},
        protocol={"stop_at": 0.85},
    )
    return folder


@pytest.fixture(scope="module")
def text(runs: Path) -> str:
    return page_html(read_entries(find_runs([runs])))


def test_rows_tell_their_protocol_their_failures_and_how_to_make_them_again(text: str) -> None:
    """What a browser makes of rows and charts: tests/end_to_end/test_page.py."""
    bodies = re.findall(r'<tbody class="run([^"]*)" data-run="(\d)">(.*?)</tbody>', text, re.DOTALL)
    assert [(number, kind) for kind, number, _ in bodies if kind] == [("2", " deviates")]
    of = {number: html.unescape(re.sub("<[^>]*>", "", body)) for _, number, body in bodies}
    assert "another protocol: selection oracle-all instead of oracle-first" in of["2"]
    notes = re.findall(r'<tbody class="notes"[^>]*>(.*?)</tbody>', text, re.DOTALL)
    assert "the method failed on 1 of 6 samples" in notes[0]
    assert "samples of this run end at an IoU of 0.85" in notes[1]
    command = "disbench run --method toy --dataset grabcut --out runs/toy"
    for part in (command, "Versions", "disbench 0.1.0", "A processor", "loop ritm", "Threshold"):
        assert all(part in row for row in of.values())
    assert sum(HASH in row for row in of.values()) == 3


def test_what_the_charts_compare(text: str, tmp_path: Path) -> None:
    """Neither runs of another protocol, nor those that end early, nor seconds of another machine."""
    runs = Page(text).runs()
    assert [(run["standard"], run["comparable"]) for run in runs] == [
        *((True, True), (True, True), (False, False), (True, False))
    ]
    assert [run["curve"] is None for run in runs] == [run["noc"] is None for run in runs] == [*[False] * 3, True]
    for number, cores in enumerate((4, 4, 64)):
        write_run(tmp_path / str(number), draw_ious(3), method={"name": f"m{number}"}, machine={"cores": cores})
    runs = Page(page_html(read_entries(find_runs([tmp_path])))).runs()
    assert [(run["standard"], run["comparable"]) for run in runs] == [(True, True), (True, True), (True, False)]


def test_the_page_loads_nothing_and_lets_nothing_in(text: str) -> None:
    page = Page(text)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(part.strip().split(" ", 1) for part in policy["content"].split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    style, script = page.all("style")[0][""], page.all("script")[1][""]
    for name, content in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    for _, attributes, _ in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style"
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                assert value.startswith("data:")
    assert not re.search(r"url\(|@import|@font-face", style)
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|innerHTML|eval\(|import\(", script)
    assert "http://" not in style + script.replace("http://www.w3.org/2000/svg", "")


def test_pictures(runs: Path, text: str) -> None:
    assert not Page(text).all("h2", id="h-pictures")
    shown = {"b": [("the worst", PNG), ("the <second>", b"RIFF webp")]}
    found = Page(page_html(read_entries(find_runs([runs])), shown))
    images = found.all("img")
    assert [image["alt"] for image in images] == ["the worst: fast on grabcut", "the <second>: fast on grabcut"]
    assert all(image["loading"] == "lazy" for image in images)
    assert images[0]["src"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert [one["data-run"] for one in found.all("div", **{"class": "pictures"})] == ["1"]


def test_the_same_runs_give_the_same_bytes_and_no_earlier_page_stays(runs: Path, tmp_path: Path) -> None:
    first = make_report([runs], tmp_path / "one", page=True)
    make_report([runs], tmp_path / "two", page=True)
    assert (tmp_path / "one" / LEADERBOARD).read_bytes() == (tmp_path / "two" / LEADERBOARD).read_bytes()
    assert tmp_path / "one" / LEADERBOARD in first.paths
    assert first.lines[-1].startswith(str(tmp_path / "one" / LEADERBOARD))
    make_report([runs], tmp_path / "one")
    assert not (tmp_path / "one" / LEADERBOARD).exists()
