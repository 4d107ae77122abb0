"""The leaderboard in a browser: it sorts, filters and answers, asks the network for nothing, and can be read."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from disbench.reports.report import make_report
from tests.browser import CHROMIUM, CONTRASTS, NO_BROWSER
from tests.unit.run_tools import CARD, draw_ious, write_run

sync_api = pytest.importorskip("playwright.sync_api", reason=NO_BROWSER)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)]
FIELDS = {
    "Method": "label",
    "NoC@80": "noc_80",
    "NoC@85": "noc_85",
    "NoC@90": "noc_90",
    "NoC@95": "noc_95",
    "NoF@90 ritm": "nof_90_ritm",
    "NoF@90 strict": "nof_90_strict",
    "mIoU@1": "mean_iou_1",
    "AuC": "auc",
    "boundary AuC": "boundary_auc",
    "never solved": "never_solved_90",
    "s/click": "model_seconds",
    "Training data": "training_data",
    "Backbone": "backbone",
    "Dataset": "dataset",
    "Samples": "samples",
    "Failed": "failed",
    "Selection": "selection",
    "Click policy": "policy",
}
"""Column of the page -> column of results.csv."""
WORDS = ("Method", "Training data", "Backbone", "Dataset", "Selection", "Click policy")
HOSTILE = '<img src=x onerror="document.title=1"></script>'
Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of eight runs on two datasets, with other protocols, early ends, failures and an ill name."""
    folder = tmp_path_factory.mktemp("page")
    runs = folder / "runs"
    for number, name in enumerate(("alpha", "beta", "gamma", HOSTILE)):
        card = {**CARD, "training_data": ["SBD"] if number % 2 else ["COCO", "LVIS"], "backbone": f"ViT-{number}"}
        write_run(
            runs / "grabcut" / f"{number}",
            draw_ious(8, seed=number, speed=0.2 + 0.3 * number),
            method={"name": name, "card": card},
            failed={number: "no answer in 60 s"} if number == 1 else {},
        )
    write_run(
        runs / "grabcut" / "score", draw_ious(8, seed=7), method={"name": "delta"}, protocol={"selection": "score"}
    )
    write_run(runs / "grabcut" / "early", [[0.5, 0.95], [0.91]], method={"name": "early"}, protocol={"stop_at": 0.9})
    for number in range(2):
        write_run(
            runs / "davis" / f"{number}",
            draw_ious(5, seed=20 + number),
            method={"name": ("alpha", "beta")[number]},
            dataset={"name": "davis", "content_hash": "d" * 64},
            protocol={"policy": ("center", "random")[number]},
        )
    picture = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), 128, np.uint8)).save(picture, "png")
    shown = {"davis/0": [("the sample that failed", picture.getvalue())]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("disbench.reports.report.failure_pictures", lambda *_: shown)
        make_report([runs], folder / "report", page=True, failures=1)
    return folder / "report"


@pytest.fixture(scope="module")
def results(report: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((report / "results.csv").read_text())))


@pytest.fixture(scope="module")
def address(report: Path) -> str:
    return (report / "leaderboard.html").as_uri()


def shown_runs(page: Any) -> list[int]:
    """Numbers of the runs whose rows can be seen, from the top."""
    numbers = page.locator("tbody.run:visible").evaluate_all("all => all.map((body) => body.dataset.run)")
    return list(map(int, numbers))


def heading(page: Any, name: str) -> Any:
    return page.locator("thead").get_by_role("button", name=name, exact=True)


def key(row: dict[str, str], column: str) -> Any:
    text = row[FIELDS[column]]
    if column in WORDS:
        return text.lower() or "–"
    return float(text) if text else None


def test_every_column_sorts_both_ways(open_page: Opener, results: list[dict[str, str]]) -> None:
    page = open_page()
    assert page.locator("th[aria-sort=ascending]").inner_text() == "NoC@90"
    check_order([results[number] for number in shown_runs(page)], "NoC@90", descending=False)
    assert page.locator("thead th").all_inner_texts() == list(FIELDS)
    for column in FIELDS:
        directions = set()
        for _ in range(2):
            heading(page, column).click()
            (direction,) = page.locator("th[aria-sort]").evaluate_all("all => all.map((th) => th.ariaSort)")
            assert page.locator("th[aria-sort]").inner_text() == column
            directions.add(direction)
            check_order([results[number] for number in shown_runs(page)], column, direction == "descending")
        assert directions == {"ascending", "descending"}


def check_order(rows: list[dict[str, str]], column: str, descending: bool) -> None:
    """Each dataset's rows together and in order; what has no number stands last."""
    assert len({row["run"] for row in rows}) == 8
    groups = [name for name, _ in itertools.groupby(row["dataset"] for row in rows)]
    assert len(groups) == 2
    if column == "Dataset":
        assert groups == sorted(groups, reverse=descending)
        return
    for name in groups:
        keys = [key(row, column) for row in rows if row["dataset"] == name]
        there = [found for found in keys if found is not None]
        assert keys[len(there) :] == [None] * (len(keys) - len(there))
        if column in WORDS:
            there = [found for found in there if found[0].isalpha()]  # signs are ordered by the browser
        assert there == sorted(there, reverse=descending)


@pytest.mark.parametrize(("label", "field"), [("Dataset", "dataset"), ("Click policy", "policy")])
def test_filters(open_page: Opener, results: list[dict[str, str]], label: str, field: str) -> None:
    page = open_page()
    choice = page.get_by_label(label, exact=True)
    options = [text for text in choice.locator("option").all_text_contents() if text != "all"]
    assert {option.split(" (")[0] for option in options} == {row[field] for row in results}
    for option in options:
        choice.select_option(option)
        wanted = {n for n, row in enumerate(results) if row[field] == option.split(" (")[0]}
        assert set(shown_runs(page)) == wanted
        assert page.locator("#count").inner_text() == f"{len(wanted)} of {len(results)} runs"
        assert page.locator(".legend button:visible").count() == len(wanted)
        curves = {n for n in wanted if results[n]["mean_iou_1"]}
        assert page.locator("[data-kind=curves] g[data-run]:visible").count() == len(curves)
        assert page.locator("tbody.head:visible").count() == len({results[n]["dataset"] for n in wanted})
        pictured = {n for n in wanted if results[n]["run"] == "davis/0"}
        assert page.locator(".pictures:visible").count() == len(pictured)
    page.get_by_role("button", name="Show all").click()
    sync_api.expect(page.locator("#count")).to_have_text(f"{len(results)} of {len(results)} runs")
    assert len(shown_runs(page)) == len(results)


def test_search_and_the_shared_protocol(open_page: Opener, results: list[dict[str, str]]) -> None:
    page = open_page()
    page.get_by_label("Method", exact=True).fill("ALPH")
    assert {results[n]["method"] for n in shown_runs(page)} == {"alpha"}
    assert len(shown_runs(page)) == 2
    page.get_by_label("Method", exact=True).fill("")
    assert "score" in {results[n]["selection"] for n in shown_runs(page)}
    page.get_by_label("only the shared protocol").check()
    assert {results[n]["selection"] for n in shown_runs(page)} == {"oracle-first"}
    page.get_by_label("Method", exact=True).fill("no such name")
    assert shown_runs(page) == []
    assert page.locator("#count").inner_text() == "0 of 8 runs"


def tip(page: Any, kind: str, place: int) -> list[str]:
    """Name without its letters, then the lines below it."""
    name, *lines = page.locator(f"[data-kind={kind}] .tip").nth(place).locator("> *").all_inner_texts()
    return [name.split(" [")[0], *lines]


def test_clicks_against_seconds(open_page: Opener, results: list[dict[str, str]]) -> None:
    page = open_page()
    known = {row["label"]: row for row in results if row["dataset"] == "grabcut"}
    seen = {}
    for point in page.locator("[data-kind=pareto]").nth(1).locator("g[data-run] > :last-child").all():
        point.hover(force=True)
        label, clicks, seconds, *best = tip(page, "pareto", 1)
        seen[label] = (clicks, seconds, best)
    assert len(seen) >= 5
    alike = [r for r in known.values() if r["selection"] == "oracle-first" and not r["stop_at"]]
    for label, (clicks, seconds, best) in seen.items():
        row = known[label]
        numbers = [float(row[name]) for name in ("noc_90", "noc_90_low", "noc_90_high")]
        assert clicks == "NoC@90 {:.2f} [{:.2f}, {:.2f}]".format(*numbers)
        assert float(seconds.removesuffix(" s a click")) == pytest.approx(float(row["model_seconds"]), rel=0.01)
        beaten = [
            other
            for other in alike
            if float(other["noc_90"]) <= numbers[0]
            and float(other["model_seconds"]) <= float(row["model_seconds"])
            and other is not row
        ]
        assert bool(best) == (row in alike and not beaten), label


def test_the_keyboard_alone(open_page: Opener) -> None:
    page = open_page()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "NoC@80":
            break
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort]").inner_text() == "NoC@80"
    page.keyboard.press("Space")
    assert page.locator("th[aria-sort=descending]").inner_text() == "NoC@80"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className").endswith("open"):
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.ariaExpanded") == "true"
    assert page.locator("tr.more:visible").count() == 1
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_a_row_opens_and_its_command_is_copied(open_page: Opener) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    row = page.locator("tbody.run").first
    row.locator(".open").click()
    for text in ("content hash d", "loop ritm", "disbench 0.1.0", "A processor"):
        assert text in row.locator("dl").inner_text()
    row.locator(".copy").click()
    sync_api.expect(row.locator(".copy")).to_have_text("Copied")
    command = "disbench run --method toy --dataset grabcut --out runs/toy"
    assert page.evaluate("navigator.clipboard.readText()") == command
    row.locator(".open").click()
    assert not page.locator("tr.more:visible").count()


def test_the_legend_takes_curves_out(open_page: Opener) -> None:
    page = open_page()
    plots = page.locator(".plots").nth(1)
    before = plots.locator("[data-kind=curves] g[data-run]").count()
    assert "no curve" in plots.locator(".legend button").first.inner_text()
    button = plots.locator(".legend button").nth(1)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert plots.locator("[data-kind=curves] g[data-run]").count() == before - 1
    button.click()
    assert plots.locator("[data-kind=curves] g[data-run]").count() == before


def test_narrow_screens(open_page: Opener) -> None:
    width = 375
    page = open_page(viewport={"width": width, "height": 800}, has_touch=True)
    for button in page.locator(".open").all():
        button.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in page.locator(".canvas svg").all():
        box = plot.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    canvas = page.locator("[data-kind=curves] .canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] - 16, box["y"] + 60)
    shown = page.locator(".tip.shown")
    assert shown.count() == 1
    assert tip(page, "curves", 0)[1].startswith("click 20:")
    assert shown.bounding_box()["x"] + shown.bounding_box()["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(open_page: Opener, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = max(int(part) for part in paper[4:-1].split(",")) < 100
    assert dark == (scheme == "dark")
    for button in page.locator(".open").all():
        button.click()
    page.locator("[data-kind=pareto] g[data-run] > :last-child").first.hover(force=True)
    found = page.evaluate(CONTRASTS)
    assert found["bad"] == []
    assert found["seen"] > 300


def test_without_scripts_the_table_is_there(open_page: Opener, results: list[dict[str, str]]) -> None:
    page = open_page(java_script_enabled=False)
    texts = page.locator("tbody.run > tr:first-child").all_inner_texts()
    assert len(texts) == len(results)
    for row in results:
        assert any(f"{float(row['noc_90']):.2f}" in text and row["training_data"] in text for text in texts)
    assert not page.locator("form").is_visible()
    assert not page.locator(".plots").first.is_visible()
    assert not page.locator(".open").first.is_visible()
    details = page.locator("tbody.run details").first
    assert not details.locator("pre").is_visible()
    details.locator("summary").click()
    assert details.locator("pre").is_visible()
    assert not details.locator(".copy").is_visible()


def test_motion_and_paper(open_page: Opener) -> None:
    page = open_page(reduced_motion="reduce")
    assert page.locator(".plot g[data-run]").first.evaluate("g => getComputedStyle(g).transitionDuration") == "0s"
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("form").is_visible()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    height = page.locator(".scroll").evaluate("element => element.scrollHeight - element.clientHeight")
    assert math.isclose(height, 0, abs_tol=1)
