"""Protocols of papers and fixed budgets of points: what a run does otherwise, records, verifies and reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.datasets.cards import open_dataset
from disbench.datasets.photos import photo_path
from disbench.harness import evaluate, read_run
from tests import toy_methods
from tests.commands import disbench, printed, refused

pytestmark = pytest.mark.slow
PERFECT = """
import numpy as np
from disbench.core.prediction import Prediction
class Perfect:
    threshold = 0.9
    def __init__(self, level: float = 1.0):
        self.level = level
    def open(self, image):
        return Session(image, self.level)
class Session:
    def __init__(self, image, level):
        self.mask = (image[..., 0] > 128) * np.float32(level)
    def predict(self, clicks):
        return Prediction(self.mask[None], None)
"""
"""Right at once, with a probability of one's choice: clicks and masks tell the protocol."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the method and a box of 11 x 15 pixels on one image."""
    for part in ("images", "masks"):
        (tmp_path / "set" / part).mkdir(parents=True)
    mask = np.zeros((24, 32), dtype=np.uint8)
    mask[4:15, 6:21] = 255
    Image.fromarray(np.stack([mask] * 3, 2)).save(tmp_path / "set" / "images" / "a.png")
    Image.fromarray(mask).save(tmp_path / "set" / "masks" / "a.png")
    (tmp_path / "perfect.py").write_text(PERFECT)
    return tmp_path


def test_what_a_paper_does_otherwise_is_done_recorded_verified_and_reported(place: Path) -> None:
    found = {}
    for name, level in (("fcfi", 0.495), ("focalclick", 0.495), ("focuscut", 1.0), ("interformer", 1.0)):
        done = printed(
            *("run", "--method", "perfect.py:Perfect", "--set", f"level={level}", "--dataset", "set"),
            *("--protocol", name, "--out", f"runs/{name}", "--max-clicks", "3", "--store", "kept"),
            *("--workers", "1"),
            cwd=place,
        )
        assert f"as {name} counts: NoC@80" in done
        assert f"(failures: {'strict' if name == 'focuscut' else 'ritm'})" in done
        printed("verify", f"runs/{name}", "--dataset", "set", cwd=place)
        rows = read_run(place / "runs" / name).rows().to_pylist()
        found[name] = [(row["x"], row["y"], row["positive"], row["iou"]) for row in rows]
    first, nothing = (11, 9, True), (0, 0, False)
    assert found["fcfi"] == [(*first, 1.0), (*nothing, 1.0), (*nothing, 1.0)]  # 0.495 is above 0.49
    assert [iou for *_, iou in found["focalclick"]] == [0, 0, 0]  # and not above 0.5
    assert found["focuscut"] == [(*first, 1.0)] * 3  # it begins again
    assert found["interformer"][0][:3] in {(x, 9, True) for x in range(11, 16)}  # any centre of the box
    recorded = read_run(place / "runs" / "focuscut").protocol.preset_values
    assert recorded == {
        **{"threshold": 0.5, "max_clicks": 20, "selection": "oracle-first", "policy": "scipy-restart"},
        **{"failures": "strict", "datasets": {"pascalvoc": {"ids": "palette"}}},
    }
    printed("report", "runs", "--out", "report", "--page", cwd=place)
    words = "protocol of focuscut, but its own max_clicks"
    for file in ("report.md", "leaderboard.html"):
        assert words in (place / "report" / file).read_text().replace("\\_", "_")
    with (place / "report" / "results.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert rows["focuscut"]["preset"] == "focuscut, but its own max_clicks"


def test_a_readings_option_that_is_typed_wins(tmp_path: Path) -> None:
    """Palette numbers 1 and 16 have colours of one grey value."""
    for part in ("JPEGImages", "SegmentationObject", "ImageSets/Segmentation"):
        (tmp_path / "VOC2012" / part).mkdir(parents=True)
    labels = np.zeros((40, 50), dtype=np.uint8)
    labels[5:15, 5:15], labels[20:30, 5:20], labels[5:35, 30:45] = 1, 16, 2
    colours = np.zeros((256, 3), dtype=np.uint8)
    for index in range(256):
        for bit in range(8):
            colours[index, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    image = Image.fromarray(labels)
    image.putpalette(colours.ravel().tolist())
    image.save(tmp_path / "VOC2012" / "SegmentationObject" / "a.png")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "VOC2012" / "JPEGImages" / "a.jpg")
    (tmp_path / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    for out, options, samples in (
        ("plain", (), 3),
        ("gray", ("--protocol", "simpleclick"), 2),
        ("palette", ("--protocol", "simpleclick", "--dataset-option", "ids=palette"), 3),
    ):
        printed(
            *("run", "--method", "disk", "--dataset", "pascalvoc", "--data", str(tmp_path), "--workers", "1"),
            *("--max-clicks", "2", *options, "--out", out),
            cwd=tmp_path,
        )
        run = json.loads((tmp_path / out / "run.json").read_text())
        assert run["dataset"]["samples"] == samples
        assert ("preset_values" in run["protocol"]) == (out != "plain")


def test_the_table_of_systems_and_what_is_known_of_one() -> None:
    """What is listed and shown of each: tests/unit/baselines/test_method_cards.py."""
    only = printed("methods", "list", "--status", "published-only")
    assert "multiseg" in only and "ritm" not in only
    shown = printed("methods", "show", "fbrs")
    for words in ("MPL-2.0", "resnet101_dh256_sbd.pth", "GrabCut: NoC@85 2.30, NoC@90 2.68", "differs:"):
        assert words in shown
    refused(disbench("run", "--method", "multiseg", "--dataset", "photos", "--out", "nowhere"), "published-only")


TOY = str(Path(toy_methods.__file__))
SAMPLES = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of a box of extreme points, of one of corners, and of a loop of clicks."""
    place = tmp_path_factory.mktemp("budgets")
    for name, more in (("BoxOfPoints", ()), ("BoxOfCorners", ()), ("Discs", ("--max-clicks", "3"))):
        printed(
            *("run", "--method", f"{TOY}:{name}", "--dataset", "photos", "--limit", str(SAMPLES), *more),
            *("--store", "kept", "--workers", "1", "--out", f"runs/{name}"),
            cwd=place,
        )
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
        done = printed("verify", f"runs/{name}", cwd=runs)
        assert f"IoU at the budget {np.mean(boxes()):.3f}" in done
        assert "NoC" not in done


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
        ("report runs/BoxOfPoints --page --out page", "click loop"),
        (f"run --method {TOY}:BoxOfPoints --dataset photos --out x --stop-at 0.9", "stop_at = 0.9: "),
        (f"run --method {TOY}:BoxOfPoints --dataset photos --out x --policy random", "policy = random: "),
        ("run --method odd.py:Odd --dataset photos --out x", "did you mean 'extreme-points'"),
    ],
)
def test_what_cannot_be_asked(runs: Path, arguments: str, words: str) -> None:
    (runs / "odd.py").write_text("class Odd:\n    budget = 'extreme'\n    def open(self, image): ...\n")
    refused(disbench(*arguments.split(), cwd=runs), words)


def test_one_image_by_hand(runs: Path) -> None:
    image = photo_path("coffee.png")
    points = [f"--click={x},{y},+" for x, y in ((10, 40), (60, 20), (90, 50), (50, 80))]
    done = printed("predict", image, *points, "--method", f"{TOY}:BoxOfPoints", "--out", "box.png", cwd=runs)
    assert done == f"box.png: {81 * 61} pixels\n"
    few = disbench("predict", image, *points[:3], "--method", f"{TOY}:BoxOfPoints", "--out", "b.png", cwd=runs)
    refused(few, "3 clicks, but this method gets 4 extreme points at once")


def test_from_python_there_is_no_number_of_clicks() -> None:
    sample = open_dataset("photos", None).read(0)
    results = evaluate(toy_methods.BoxOfPoints(), [sample], budget="extreme-points")
    for number in (results.noc, results.nof):
        with pytest.raises(ValueError, match="there is one IoU a sample"):
            number(0.9)
