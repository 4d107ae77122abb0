"""Published evaluations on their own terms, as a user types them; and the table of all systems."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.harness import read_run
from tests import toy_methods
from tests.commands import disbench
from tests.unit.test_presets import PERFECT, voc

pytest.importorskip("cv2", exc_type=ImportError)
pytestmark = pytest.mark.slow
TOY = str(Path(toy_methods.__file__))


def picture_set(folder: Path) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(2):
        mask = np.zeros((24, 32), dtype=np.uint8)
        mask[4 + number : 15, 6:21] = 255
        Image.fromarray(np.stack([mask] * 3, 2)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", ["focuscut", "interformer"])
def test_a_run_on_a_papers_terms_is_recorded_verified_and_reported(name: str, tmp_path: Path) -> None:
    picture_set(tmp_path / "set")
    (tmp_path / "perfect.py").write_text(PERFECT)
    for method, out in ((f"{TOY}:Discs", "discs"), ("perfect.py:Perfect", "perfect")):
        result = disbench(
            *("run", "--method", method, "--dataset", "set", "--protocol", name, "--out", f"runs/{out}"),
            *("--store", "kept", "--workers", "1"),
            cwd=tmp_path,
        )
        assert result.returncode == 0, result.stderr
        assert f"on the terms of {name}: NoC@80" in result.stdout
        assert "failures by the rule 'strict'" in result.stdout
        verified = disbench("verify", f"runs/{out}", "--dataset", "set", cwd=tmp_path)
        assert verified.returncode == 0, verified.stderr
    stored = read_run(tmp_path / "runs" / "perfect").protocol
    assert stored["preset"]["name"] == name
    assert stored["policy"] == stored["preset"]["policy"]
    result = disbench("report", "runs", "--out", "report", "--page", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    words = f"on the terms of {name} (NoF strict)"
    for file in ("report.md", "leaderboard.html"):
        assert words in (tmp_path / "report" / file).read_text()
    with (tmp_path / "report" / "results.csv").open() as file:
        assert {row["preset"] for row in csv.DictReader(file)} == {words}


def test_the_terms_reach_the_dataset_and_options_win(tmp_path: Path) -> None:
    data = voc(tmp_path / "data")
    arguments = ("run", "--method", "disk", "--dataset", "pascalvoc", "--data", str(data), "--workers", "1")
    for out, options, samples, threshold in (
        ("plain", (), 3, 0.5),
        ("ritm", ("--protocol", "ritm"), 2, 0.49),
        ("palette", ("--protocol", "ritm", "--dataset-option", "ids=palette"), 3, 0.49),
        ("own", ("--protocol", "ritm", "--threshold", "0.7", "--max-clicks", "3"), 2, 0.7),
    ):
        result = disbench(*arguments, *options, "--out", out, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        run = json.loads((tmp_path / out / "run.json").read_text())
        assert (run["dataset"]["samples"], run["protocol"]["threshold"]) == (samples, threshold)
        assert ("preset" in run["protocol"]) == (out != "plain")
    report = disbench("report", "own", "--out", "report", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    words = "on the terms of ritm (NoF ritm, but its own threshold and max_clicks)"
    assert words in (tmp_path / "report" / "report.md").read_text().replace("\\_", "_")
    again = disbench(*arguments, "--protocol", "fcanet", "--out", "ritm", cwd=tmp_path)
    assert again.returncode == 2
    assert "made otherwise" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--protocol", "ritn"), "did you mean 'ritm'"),
        (("--protocol", "mine.toml"), "there is no such file"),
        (("--protocol", "ritm", "--policy", "scipy"), "unknown policy 'scipy'"),
    ],
)
def test_bad_terms_end_in_one_sentence(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    result = disbench(
        *("run", "--method", "disk", "--dataset", "photos", "--out", "run"), *arguments, cwd=tmp_path
    )
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_table_of_systems_and_what_is_known_of_one() -> None:
    listed = disbench("methods", "list", COLUMNS="90")
    assert listed.returncode == 0, listed.stderr
    assert max(map(len, listed.stdout.splitlines())) <= 90
    only = disbench("methods", "list", "--status", "published-only").stdout
    assert "multiseg" in only and "ritm" not in only
    shown = disbench("methods", "show", "fbrs").stdout
    for words in ("MPL-2.0", "resnet101_dh256_sbd.pth", "GrabCut: NoC@85 2.30, NoC@90 2.68", "differs:"):
        assert words in shown
    shown = disbench("methods", "show", "multiseg").stdout
    assert "Berkeley: NoC@85 not printed, NoC@90 4.00" in shown
    assert "it cannot be run here: No code" in shown
    refused = disbench("run", "--method", "multiseg", "--dataset", "photos", "--out", "nowhere")
    assert refused.returncode == 2
    assert "published-only" in refused.stderr
