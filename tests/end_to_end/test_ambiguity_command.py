"""What a first click may mean, measured on the embedded photos as a user types it: run, verify, report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests import toy_methods
from tests.browser import CHROMIUM, NO_BROWSER
from tests.commands import disbench, printed

pytestmark = pytest.mark.slow
HOSTILE = '<img src=x onerror="document.title=`overtaken`">'
TOY = str(Path(toy_methods.__file__))
SETS = ("--images", "embedded", "--sets", "2", "--min-members", "2", "--workers", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, photo_shards: Path) -> Path:
    """A folder with runs of both tasks: three candidates with scores, one without."""
    place = tmp_path_factory.mktemp("ambiguity")
    three = ("--set", "candidates=3")
    for task, name, options in (
        ("diverse", "three", (*three, "--set", "radius=30", "--clicks", "2", "--store", "all")),
        ("diverse", "one", ("--set", "scores=false", "--move", "0")),
        ("intents", "intents-oracle-first", (*three, "--selection", "oracle-first", "--max-clicks", "2")),
        ("intents", "intents-score", (*three, "--selection", "score", "--max-clicks", "2")),
    ):
        done = printed(
            *("run", "--task", task, "--shards", photo_shards, "--method", f"{TOY}:Discs", *SETS, *options),
            *("--out", f"runs/{name}"),
            cwd=place,
        )
        assert "2 sets" in done or task == "intents"
    description = json.loads((place / "runs" / "one" / "run.json").read_bytes())
    description["method"]["name"] = HOSTILE
    (place / "runs" / "one" / "run.json").write_text(json.dumps(description))
    for command, *arguments in (("ambiguity", "--shards", photo_shards, "--pictures", "2"), ("report", "--page")):
        done = disbench(command, "runs", *arguments, cwd=place)
        assert (done.returncode, done.stderr) == (0, "")
    return place


def test_the_report_on_ambiguity(place: Path, photo_shards: Path) -> None:
    names = {path.name for path in (place / "ambiguity").iterdir()}
    wanted = {f"ambiguity.{kind}" for kind in ("md", "csv", "png", "svg")}
    wanted |= {"tables.tex", "pictures-2.png"}  # of the second coverage table's runs: the first stored no masks
    assert names == wanted
    text = (place / "ambiguity" / "ambiguity.md").read_text()
    for part in (
        "coverage",
        "candidates and scores",
        "by relation and size",
        "what one answer means",
        "the intended mask",
    ):
        assert part in text
    # Runs with other first clicks are in tables of their own, and each says which.
    headings = [line for line in text.splitlines() if line.startswith("## ") and line.endswith(": coverage")]
    assert len(headings) == 2
    assert "4 first clicks (clicks 2, seed 0)" in text
    assert "2 first clicks (clicks 1, seed 0)" in text
    assert "a click is moved by 3 pixels." in text
    with (place / "ambiguity" / "ambiguity.csv").open() as file:
        rows = list(csv.DictReader(file))
    value = {(r["run"], r["measure"], r["group"]): r["value"] for r in rows}
    assert float(value["three", "coverage_oracle", "3"]) == pytest.approx(float(value["three", "coverage", ""]))
    assert value["one", "redundancy", ""] == value["one", "held_best", ""] == ""
    assert value["intents-score", "noc_90", "self"]
    assert {r["count"] for r in rows if r["run"] == "three" and r["measure"] == "coverage"} == {"4"}
    assert Image.open(place / "ambiguity" / "pictures-2.png").width > 500
    printed("ambiguity", "runs", "--shards", photo_shards, "--pictures", "2", "--out", "b", cwd=place)
    for name in wanted:
        assert (place / "b" / name).read_bytes() == (place / "ambiguity" / name).read_bytes()


@pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)
def test_the_page_in_a_browser(place: Path, browser: Any) -> None:
    """The figure is there and loads, no script runs, and nothing is asked of the network."""
    page = browser.new_page()
    asked, said = list[str](), list[str]()
    page.set_default_timeout(60_000)
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto((place / "report" / "leaderboard.html").as_uri())
    image = page.locator("img")
    image.scroll_into_view_if_needed()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 500
    assert image.get_attribute("alt")
    assert page.locator("h2", has_text="of the first click").count()
    assert HOSTILE in page.inner_text("main")
    assert "overtaken" not in page.title()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == said == []
    page.close()


def test_other_reports_have_the_runs_too(place: Path, photo_shards: Path) -> None:
    assert "## Ambiguity of the first click" in (place / "report" / "report.md").read_text()
    assert "Ambiguity of the first click</h2>" in (place / "report" / "leaderboard.html").read_text()
    assert "the run holds" in printed("verify", "runs/intents-score", "--dataset", photo_shards, cwd=place)


def test_what_cannot_be_asked(place: Path, photo_shards: Path, tmp_path: Path) -> None:
    run = ("run", "--method", "disk", "--out", tmp_path / "run")
    diverse = (*run, "--task", "diverse")
    for arguments, words in (
        (run, "--dataset is missing"),
        (diverse, "--shards"),
        ((*diverse, "--shards", photo_shards, "--dataset", "photos"), "no --dataset"),
        ((*diverse, "--shards", photo_shards, "--stop-at", "0.9"), "--stop-at belongs to loops of clicks"),
        ((*run, "--dataset", "photos", "--granularity", "truth"), "--granularity goes with --task intents"),
        ((*diverse, "--shards", photo_shards, "--images", tmp_path / "gone"), "not a folder"),
        (("verify", place / "runs" / "three"), "disbench ambiguity reads it"),
    ):
        done = disbench(*arguments, cwd=tmp_path)
        assert done.returncode == 2 or "not checked" in done.stdout, (arguments, done.stdout)
        assert words in done.stderr + done.stdout, (arguments, done.stderr)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("run.json", "sets.parquet"):
        (broken / name).write_bytes((place / "runs" / "three" / name).read_bytes())
    table = pq.read_table(place / "runs" / "three" / "answers.parquet")
    fewer = pa.array([values[1:] for values in table["ious"].to_pylist()], table.schema.field("ious").type)
    pq.write_table(
        table.set_column(table.schema.names.index("ious"), table.schema.field("ious"), fewer),
        broken / "answers.parquet",
    )
    done = disbench("ambiguity", broken, cwd=tmp_path)
    assert done.returncode == 2
    assert "answers.parquet" in done.stderr
    assert len(done.stderr.splitlines()) == 1
