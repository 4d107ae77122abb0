"""The leaderboard as a file: what it says, that it says it whatever runs are called, and that it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.page import page_html
from disbench.reports.report import LEADERBOARD, make_report
from disbench.reports.tables import clicks_table, quality_table
from tests.unit.run_tools import HASH, draw_ious, write_run

VOID = {"meta", "link", "input", "img", "rect"}


class Page(HTMLParser):
    """Elements of a page: tag, attributes, text; and whether tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict[str, Any]] = []
        self._open: list[dict[str, Any]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "attributes": {k: v or "" for k, v in attrs}, "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append({"tag": tag, "attributes": {k: v or "" for k, v in attrs}, "text": ""})

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element["text"] += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, Any]]:
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            e
            for e in self.elements
            if e["tag"] == tag and all(e["attributes"].get(key) == value for key, value in wanted.items())
        ]

    def data(self) -> dict[str, Any]:
        (element,) = self.all("script", id="data")
        return dict(json.loads(element["text"]))


def png(size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(file, "png")
    return file.getvalue()


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
def entries(runs: Path) -> list[Entry]:
    return read_entries(find_runs([runs]))


@pytest.fixture(scope="module")
def page(entries: list[Entry]) -> Page:
    return Page(page_html(entries))


def cells(text: str) -> dict[int, list[str]]:
    """Number of a run -> the texts of its row, marks and bars left out."""
    found = {}
    for number, body in re.findall(r'<tbody class="run[^"]*" data-run="(\d+)">\n<tr>(.*?)</tr>', text, re.DOTALL):
        parts = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", body, re.DOTALL)
        plain_parts = [re.sub(r"<sup>.*?</sup>|<em.*?</em>|<small>.*?</small>|<[^>]*>", "", part) for part in parts]
        found[int(number)] = [part.strip() for part in plain_parts]
    return found


def test_every_run_has_its_row_with_the_numbers_of_the_tables(entries: list[Entry]) -> None:
    rows = cells(page_html(entries))
    assert sorted(rows) == [0, 1, 2, 3]
    for numbers in ([0, 1, 2], [3]):
        group = [entries[number] for number in numbers]
        for number, clicks, quality in zip(numbers, clicks_table(group).rows, quality_table(group).rows, strict=True):
            row = rows[number]
            assert row[0] == clicks[0].text
            assert row[1:5] == [cell.text for cell in clicks[4:8]]
            assert row[5:7] == [cell.text for cell in clicks[8:10]]
            assert row[7:12] == [quality[at].text for at in (4, 8, 13, 14, 15)]
            assert row[15:17] == [clicks[2].text, clicks[3].text]


def test_rows_stand_by_clicks_and_what_sorts_them_is_unrounded(entries: list[Entry], page: Page) -> None:
    order = [int(e["attributes"]["data-run"]) for e in page.all("tbody") if "data-run" in e["attributes"]]
    means = [entries[number].values["noc_90"].number or 0 for number in order[:3]]
    assert means == sorted(means) and set(order[:3]) == {0, 1, 2}
    values = [e["attributes"].get("data-value") for e in page.all("td")]
    assert str(entries[0].values["noc_80"].number) in values


def test_rows_tell_their_protocol_their_failures_and_how_to_make_them_again(page: Page) -> None:
    (row,) = page.all("tbody", class_="run deviates")
    assert row["attributes"]["data-run"] == "2"
    assert "other protocol" in row["text"]
    assert "another protocol: selection oracle-all instead of oracle-first" in row["text"]
    notes = [e["text"] for e in page.all("tbody", class_="notes")]
    assert "the method failed on 1 of 6 samples" in notes[0]
    assert "samples of this run end at an IoU of 0.85" in notes[1]
    rows = [e["text"] for e in page.all("tbody") if "data-run" in e["attributes"]]
    command = "disbench run --method toy --dataset grabcut --out runs/toy"
    for part in (command, "Versions", "disbench 0.1.0", "A processor", "loop ritm", "Threshold"):
        assert all(part in text for text in rows)
    assert sum(HASH in text for text in rows) == 3


def test_the_data_of_the_charts_are_the_runs_rounded(entries: list[Entry], page: Page) -> None:
    runs = page.data()["runs"]
    for entry, run in zip(entries, runs, strict=True):
        if entry.rows.miou is None:
            assert run["curve"] is None
            assert run["noc"] is None
            continue
        assert run["curve"] == [round(float(value), 3) for value in entry.rows.miou]
        assert run["noc"][0] == round(entry.values["noc_90"].number or 0, 2)
        assert run["noc"][1] <= run["noc"][0] <= run["noc"][2]
    assert [run["standard"] for run in runs] == [True, True, False, True]
    assert [run["comparable"] for run in runs] == [True, True, False, False]


def test_seconds_of_another_machine_are_not_compared(tmp_path: Path) -> None:
    for number, cores in enumerate((4, 4, 64)):
        write_run(tmp_path / str(number), draw_ious(3), method={"name": f"m{number}"}, machine={"cores": cores})
    runs = Page(page_html(read_entries(find_runs([tmp_path])))).data()["runs"]
    assert [(run["standard"], run["comparable"]) for run in runs] == [(True, True), (True, True), (True, False)]


def test_the_page_loads_nothing_and_lets_nothing_in(page: Page) -> None:
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(part.strip().split(" ", 1) for part in policy["attributes"]["content"].split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    style, script = page.all("style")[0]["text"], page.all("script")[1]["text"]
    for name, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    for element in page.elements:
        for name, value in element["attributes"].items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                assert value.startswith("data:")
    assert not re.search(r"url\(|@import|@font-face", style)
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|innerHTML|eval\(|import\(", script)
    assert "http://" not in style + script.replace("http://www.w3.org/2000/svg", "")


def test_pictures(entries: list[Entry], page: Page) -> None:
    assert not page.all("h2", id="h-pictures")
    found = Page(page_html(entries, {"b": [("the worst", png()), ("the <second>", b"RIFF webp")]}))
    images = found.all("img")
    assert [e["attributes"]["alt"] for e in images] == ["the worst: fast on grabcut", "the <second>: fast on grabcut"]
    assert all(e["attributes"]["loading"] == "lazy" for e in images)
    kind, content = images[0]["attributes"]["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == png()
    assert [e["attributes"]["data-run"] for e in found.all("div", class_="pictures")] == ["1"]


def test_the_same_runs_give_the_same_bytes_and_no_earlier_page_stays(runs: Path, tmp_path: Path) -> None:
    first = make_report([runs], tmp_path / "one", page=True)
    make_report([runs], tmp_path / "two", page=True)
    assert (tmp_path / "one" / LEADERBOARD).read_bytes() == (tmp_path / "two" / LEADERBOARD).read_bytes()
    assert tmp_path / "one" / LEADERBOARD in first.paths
    assert first.lines[-1].startswith(str(tmp_path / "one" / LEADERBOARD))
    make_report([runs], tmp_path / "one")
    assert not (tmp_path / "one" / LEADERBOARD).exists()
