"""Methods that get a fixed budget of points, through the commands: one IoU a sample, and never a number of clicks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from disbench.datasets.cards import open_dataset
from disbench.datasets.photos import photo_path
from disbench.harness import evaluate
from tests import toy_methods
from tests.commands import disbench

TOY = str(Path(toy_methods.__file__))
SAMPLES = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of a box of extreme points, of one of corners, and of a loop of clicks."""
    place = tmp_path_factory.mktemp("budgets")
    for name, more in (("BoxOfPoints", ()), ("BoxOfCorners", ()), ("Discs", ("--max-clicks", "3"))):
        done = disbench(
            *("run", "--method", f"{TOY}:{name}", "--dataset", "photos", "--limit", str(SAMPLES), *more),
            *("--store", "kept", "--workers", "1", "--out", f"runs/{name}"),
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
    return place


def boxes() -> list[float]:
    """IoU of each sample's own box with it, by a search over its pixels."""
    found = []
    source = open_dataset("photos", None)
    for number in range(SAMPLES):
        target = source.read(number).target
        ys, xs = np.nonzero(target == 1)
        box = np.zeros(target.shape, dtype=bool)
        box[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = True
        counted = box & (target != -1)
        found.append(len(ys) / np.count_nonzero(counted | (target == 1)))
    return found


def test_a_sample_gets_all_points_at_once_and_one_answer(runs: Path) -> None:
    protocol = json.loads((runs / "runs/BoxOfPoints/run.json").read_text())["protocol"]
    assert (protocol["budget"], protocol["max_clicks"]) == ("extreme-points", 1)
    assert "budget" not in json.loads((runs / "runs/Discs/run.json").read_text())["protocol"]
    for name in ("BoxOfPoints", "BoxOfCorners"):
        done = disbench("verify", f"runs/{name}", cwd=runs)
        assert done.returncode == 0, done.stdout
        assert f"IoU at the budget {np.mean(boxes()):.3f}" in done.stdout
        assert "NoC" not in done.stdout


def test_the_report_has_a_column_of_its_own_for_them(runs: Path) -> None:
    done = disbench("report", "runs", "--page", "--failures", "1", "--out", "report", cwd=runs)
    assert (done.returncode, done.stderr) == (0, "")
    text = (runs / "report/report.md").read_text()
    part = text.partition("## Fixed budgets")[2].partition("\n## ")[0]
    assert f"{np.mean(boxes()):.3f}" in part and "4 extreme points" in part
    clicks = text.partition("## Overview")[2].partition("## Fixed budgets")[0]
    assert "Discs" in clicks and "BoxOfPoints" not in clicks
    assert "BoxOfPoints" in (runs / "report/tables.tex").read_text()
    page = (runs / "report/leaderboard.html").read_text()
    assert "Fixed budgets" in page and "BoxOfCorners" in page
    with (runs / "report/results.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["BoxOfPoints"]["iou_at_budget"]) == pytest.approx(np.mean(boxes()), abs=1e-6)
    assert rows["BoxOfPoints"]["noc_90"] == "" and rows["Discs"]["iou_at_budget"] == ""
    done = disbench("report", "runs/BoxOfPoints", "--out", "alone", cwd=runs)
    assert (done.returncode, done.stderr) == (0, "")
    text = (runs / "alone/report.md").read_text()
    assert "## Fixed budgets" in text and "## Overview" not in text and "samples end at" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("compare runs/BoxOfPoints runs/Discs", "there are no clicks"),
        ("failures runs/BoxOfPoints", "no clicks"),
        ("report runs/BoxOfPoints --page --out page", "loop of clicks"),
        (f"run --method {TOY}:BoxOfPoints --dataset photos --out x --stop-at 0.9", "stop_at = 0.9: "),
        (f"run --method {TOY}:BoxOfPoints --dataset photos --out x --policy random", "policy = random: "),
        ("run --method odd.py:Odd --dataset photos --out x", "did you mean 'extreme-points'"),
    ],
)
def test_what_cannot_be_asked(runs: Path, arguments: str, words: str) -> None:
    (runs / "odd.py").write_text("class Odd:\n    budget = 'extreme'\n    def open(self, image): ...\n")
    done = disbench(*arguments.split(), cwd=runs)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_one_image_by_hand(runs: Path) -> None:
    image = photo_path("coffee.png")
    points = [f"--click={x},{y},+" for x, y in ((10, 40), (60, 20), (90, 50), (50, 80))]
    done = disbench("predict", image, *points, "--method", f"{TOY}:BoxOfPoints", "--out", "box.png", cwd=runs)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"box.png: {81 * 61} pixels\n"
    done = disbench("predict", image, *points[:3], "--method", f"{TOY}:BoxOfPoints", "--out", "b.png", cwd=runs)
    assert done.returncode == 2 and "3 clicks, but this method gets 4 extreme points at once" in done.stderr


def test_from_python() -> None:
    source = open_dataset("photos", None)
    samples = [source.read(number) for number in range(SAMPLES)]
    results = evaluate(toy_methods.BoxOfPoints(), samples, budget="extreme-points")
    assert [float(ious[0]) for ious in results.ious.values()] == pytest.approx(boxes(), abs=1e-6)
    with pytest.raises(ValueError, match="there is one IoU a sample"):
        results.noc(0.9)
    with pytest.raises(ValueError, match="there is one IoU a sample"):
        results.nof(0.9)
