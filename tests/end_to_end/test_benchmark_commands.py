"""The benchmark's commands as a user types them: run, report, predict, pack, verify."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.datasets.photos import photo_path
from disbench.harness import read_run
from disbench.harness.store import CLICKS, ClickRow, to_table, write_clicks
from tests import toy_methods
from tests.commands import disbench, printed, refused
from tests.synthetic import write_pairs

pytestmark = pytest.mark.slow
TOY = str(Path(toy_methods.__file__))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "set", (0, 2, 0))


def test_run_and_report_on_a_folder(folder: Path, tmp_path: Path) -> None:
    for radius in ("8", "16"):
        result = printed(
            *("run", "--method", f"{TOY}:Discs", "--set", f"radius={radius}", "--dataset", str(folder)),
            *("--out", f"runs/discs-{radius}", "--max-clicks", "5", "--store", "kept"),
            cwd=tmp_path,
        )
        assert "3 samples, 15 clicks" in result
    run = read_run(tmp_path / "runs" / "discs-8")
    assert run.record.command.startswith("disbench run --method")
    assert run.rows(["mask"])["mask"].null_count == 0
    printed("report", "runs", "--out", "report", cwd=tmp_path)
    with (tmp_path / "report" / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    assert {"report.md", "curves.png", "curves.svg", "tables.tex"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }


def test_a_method_that_fails_says_so_at_the_end(folder: Path, tmp_path: Path) -> None:
    arguments = ("run", "--method", f"{TOY}:Misbehaves", "--dataset", str(folder), "--out", "run")
    result = disbench(*arguments, "--max-clicks", "5", cwd=tmp_path)
    assert result.returncode == 1
    assert "failed on 1 of 3 samples" in result.stderr
    assert "a bad day" in result.stderr
    printed("report", "run", cwd=tmp_path)
    assert "a bad day" in (tmp_path / "report" / "report.md").read_text()


def test_a_bad_sample_is_said_at_the_end_and_done_again_alone(folder: Path, tmp_path: Path) -> None:
    mask = folder / "masks" / "i1.png"
    good = mask.read_bytes()
    Image.open(mask).resize((31, 20)).save(mask)
    arguments = ("run", "--method", "disk", "--dataset", str(folder), "--out", "run", "--max-clicks", "3")
    result = disbench(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    for words in ("1 of 3 samples cannot be read", "i1.png", "31 x 20", f"disbench data verify {folder}"):
        assert words in result.stderr
    printed("report", "run", cwd=tmp_path)
    assert "1 of 3 samples whose IoU counts as 0" in (tmp_path / "report" / "report.md").read_text()
    mask.write_bytes(good)
    printed(*arguments, cwd=tmp_path)
    assert not read_run(tmp_path / "run").record.result.failed


@pytest.mark.parametrize("name", ["NoOpen", "NotMade", "Exits"])
def test_predict_with_a_method_that_cannot_work(folder: Path, tmp_path: Path, name: str) -> None:
    photo = str(folder / "images" / "i0.png")
    result = disbench("predict", photo, "--method", f"{TOY}:{name}", "--click", "9,9,+", "--out", "m.png", cwd=tmp_path)
    refused(result, f"error: {name}: ")
    assert not (tmp_path / "m.png").exists()


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("disc", "photos", "did you mean 'disk'"),
        ("disk", "grabcut", "--data"),
        ("disk", "photos --set radus=1", "did you mean 'radius'"),
        ("disk", "photos --policy centre", "did you mean 'center'"),
    ],
)
def test_what_a_user_gets_wrong(tmp_path: Path, method: str, arguments: str, words: str) -> None:
    refused(disbench("run", "--method", method, "--out", "r", "--dataset", *arguments.split(), cwd=tmp_path), words)
    assert not (tmp_path / "r" / "run.json").exists()


def test_predict_writes_mask_candidates_and_overlay(tmp_path: Path) -> None:
    photo = photo_path("chelsea.png")
    arguments = ("predict", str(photo), "--click", "220,140,+", "--click", "20,20,-")
    own = ("--method", f"{TOY}:Discs", "--set", "candidates=2", "--set", "radius=30")
    assert "score 1.0000, kept" in printed(*arguments, *own, "--out", "mask.png", "--all", cwd=tmp_path)
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    size = Image.open(photo).size
    rows, columns = np.mgrid[: size[1], : size[0]]
    expected = ((rows - 140) ** 2 + (columns - 220) ** 2 <= 900) & ((rows - 20) ** 2 + (columns - 20) ** 2 > 900)
    assert np.array_equal(mask == 255, expected)
    names = {"mask-candidate-0.png", "mask-candidate-1.png", "mask-overlay.png"}
    assert names <= {path.name for path in tmp_path.iterdir()}
    printed(*arguments[:4], *own, "--keep", "1", "--out", "wide.png", cwd=tmp_path)
    wide = np.asarray(Image.open(tmp_path / "wide.png"))
    assert np.count_nonzero(wide) > 3 * np.count_nonzero(mask)


def test_predict_on_a_photo_to_be_turned(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.jpg", exif=tags)
    arguments = ("predict", "photo.jpg", "--method", f"{TOY}:Discs", "--click", "20,20,+", "--out", "mask.png")
    for exif, size, said in (("ignore", (40, 30), True), ("apply", (30, 40), False)):
        result = disbench(*arguments, "--exif", exif, cwd=tmp_path)
        assert Image.open(tmp_path / "mask.png").size == size
        assert ("photo.jpg: 6" in result.stderr, "--exif apply" in result.stderr) == (said, said)


@pytest.mark.parametrize(
    ("click", "out", "words"),
    [
        ("3,4", "mask.png", "x,y,+"),
        ("9999,1,+", "mask.png", "outside the image"),
        ("1.5,2,+", "mask.png", "whole pixels"),
        ("3,4,+", "photo.png", "error: photo.png: is the image itself"),
    ],
)
def test_predict_with_a_bad_click_or_onto_its_photo(tmp_path: Path, click: str, out: str, words: str) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30)).save(photo)
    before = photo.read_bytes()
    refused(disbench("predict", photo, "--click", click, "--method", "disk", "--out", out, cwd=tmp_path), words)
    assert photo.read_bytes() == before and list(tmp_path.iterdir()) == [photo]


def run_disk(cwd: Path, store: str) -> None:
    arguments = ("--method", "disk", "--dataset", "photos", "--every", "60", "--workers", "1")
    printed("run", *arguments, "--store", store, "--max-clicks", "6", "--out", f"runs/{store}", cwd=cwd)


def test_a_real_run_is_packed_verified_and_reported(tmp_path: Path) -> None:
    run_disk(tmp_path, "all")
    done = disbench("pack", "runs/all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all.zip: " in done.stdout
    for place in ("runs/all", "runs/all.zip"):
        lines = printed("verify", place, cwd=tmp_path).splitlines()
        assert lines[0] == f"{place}: the run holds"
        assert "  30 clicks follow from the masks before them" in lines
        assert "  30 IoUs and boundary IoUs follow from their masks" in lines
        assert not any("not checked" in line for line in lines)
    assert "report.md: 1 run on 1 dataset" in printed("report", "runs/all.zip", "--out", "report", cwd=tmp_path)


def test_what_does_not_hold_ends_with_2(tmp_path: Path) -> None:
    run_disk(tmp_path, "none")
    run = read_run(tmp_path / "runs" / "none")
    rows = run.rows().to_pylist()
    rows[0].update(iou=1.0, candidate_ious=[1.0])
    write_clicks(run.folder / CLICKS, [to_table([ClickRow(**row) for row in rows])])
    done = disbench("verify", "runs/none", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "runs/none: the run does not hold" in done.stderr
    assert "click where nothing is left to correct" in done.stderr
    done = disbench("pack", "runs/none", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: runs/none: the run does not hold: ")
    done = disbench("verify", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere: no run here")
