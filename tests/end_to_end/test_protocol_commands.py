"""Protocols of papers as a user types them: what a run does otherwise, records, verifies and reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.harness import read_run
from tests.commands import disbench

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
        done = disbench(
            *("run", "--method", "perfect.py:Perfect", "--set", f"level={level}", "--dataset", "set"),
            *("--protocol", name, "--out", f"runs/{name}", "--max-clicks", "3", "--store", "kept"),
            *("--workers", "1"),
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
        assert f"as {name} counts: NoC@80" in done.stdout
        assert f"(failures: {'strict' if name == 'focuscut' else 'ritm'})" in done.stdout
        verified = disbench("verify", f"runs/{name}", "--dataset", "set", cwd=place)
        assert verified.returncode == 0, verified.stderr
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
    done = disbench("report", "runs", "--out", "report", "--page", cwd=place)
    assert done.returncode == 0, done.stderr
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
        done = disbench(
            *("run", "--method", "disk", "--dataset", "pascalvoc", "--data", str(tmp_path), "--workers", "1"),
            *("--max-clicks", "2", *options, "--out", out),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        run = json.loads((tmp_path / out / "run.json").read_text())
        assert run["dataset"]["samples"] == samples
        assert ("preset_values" in run["protocol"]) == (out != "plain")


def test_the_table_of_systems_and_what_is_known_of_one() -> None:
    only = disbench("methods", "list", "--status", "published-only").stdout
    assert "multiseg" in only and "ritm" not in only
    for name, words in (
        ("random-walker", ("--set beta=130.0",)),
        ("fbrs", ("MPL-2.0", "resnet101_dh256_sbd.pth", "GrabCut: NoC@85 2.30, NoC@90 2.68", "differs:")),
        ("multiseg", ("Berkeley: NoC@85 not printed, NoC@90 4.00", "it cannot be run here: No code")),
    ):
        shown = disbench("methods", "show", name).stdout
        assert all(word in shown for word in words)
    for arguments, words in (
        (("methods", "show", "random-waker"), "random-walker"),
        (("run", "--method", "multiseg", "--dataset", "photos", "--out", "nowhere"), "published-only"),
    ):
        refused = disbench(*arguments)
        assert refused.returncode == 2 and words in refused.stderr
