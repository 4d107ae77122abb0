"""A method in an environment of its own, through the commands a user types."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from disbench.datasets.photos import photo_path
from disbench.harness.store import read_run
from tests import bridge_adapter, toy_methods
from tests.commands import Result, disbench

CARD = """
title = "Discs, in a process of their own"
status = "bridge"
adapter = "{adapter}"
threshold = 0.5

[options.radius]
default = 12.0
help = "Pixels."

[options.fault]
default = ""
help = "What goes wrong."
"""
RUN = ("--dataset", "photos", "--every", "60", "--max-clicks", "3", "--workers", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a card, a repository and a checkpoint."""
    folder = tmp_path_factory.mktemp("bridge")
    (folder / "discs.toml").write_text(CARD.format(adapter=bridge_adapter.__file__))
    (folder / "weights.pth").write_bytes(b"weights")
    (folder / "peer").mkdir()
    (folder / "peer" / "model.py").write_text("")
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *command], cwd=folder / "peer", check=True)
    return folder


SETTINGS = ("--set", "repo=peer", "--set", f"python={sys.executable}", "--set", "checkpoint=weights.pth")


def run(place: Path, *more: str, out: str = "run") -> Result:
    return disbench("run", "--method", "discs.toml", *SETTINGS, *RUN, *more, "--out", out, cwd=place)


def rows(path: Path) -> list[tuple[object, ...]]:
    table = read_run(path).rows(("sample", "click", "x", "y", "iou", "failure")).to_pylist()
    return [tuple(row.values()) for row in table]


def test_its_rows_are_those_of_the_same_method_in_process(place: Path) -> None:
    done = run(place)
    assert done.returncode == 0, done.stderr
    own = f"{toy_methods.__file__}:Discs"
    assert disbench("run", "--method", own, *RUN, "--out", "own", cwd=place).returncode == 0
    assert rows(place / "run") == rows(place / "own")
    description = json.loads((place / "run" / "run.json").read_text())
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=place / "peer", capture_output=True, text=True, check=True)
    found = description["method"]["provenance"]
    assert found["repo_commit"] == said.stdout.strip() and found["repo_changed"] is False
    assert len(found["checkpoint_sha256"]) == len(found["adapter_sha256"]) == 64
    (versions,) = description["result"]["method_versions"]
    assert versions["numpy"] == np.__version__ and versions["python"] == platform.python_version()
    assert disbench("verify", "run", cwd=place).returncode == 0
    done = disbench("report", "run", "own", "--out", "report", cwd=place)
    assert done.returncode == 0
    assert "discs (checkpoint=weights.pth)" in (place / "report" / "report.md").read_text()


def test_a_crash_is_a_recorded_failure_of_its_sample(place: Path) -> None:
    done = run(place, "--set", "fault=raises-always", out="raising")
    assert done.returncode == 1
    result = json.loads((place / "raising" / "run.json").read_text())["result"]
    assert len(result["failed"]) == result["samples"]
    assert "raised RuntimeError: CUDA out of memory" in result["failed"][0]["reason"]


def test_one_image(place: Path) -> None:
    click = ("--click", "200,100,+")
    photo = photo_path("coffee.png")
    done = disbench("predict", photo, *click, "--method", "discs.toml", *SETTINGS, "--out", "mask.png", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "mask.png: 441 pixels\n"
