"""Frozen splits as a user types them: make, check, run, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import toy_methods
from tests.commands import contents, disbench, printed, refused

TOY = f"{toy_methods.__file__}:Discs"
MAKE = ("--dataset", "photos", "--split", "all")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded photos' shards and two splits of them."""
    place = tmp_path_factory.mktemp("splits")
    for workers in ("1", "2"):
        sampled = ("lvis-hierarchy", "--photos", "--out", f"shards-{workers}", "--workers", workers)
        printed("sample", *sampled, cwd=place)
    for name, size in (("few", "2"), ("more", "3")):
        done = printed("split", "make", "shards-1", "--out", f"{name}.jsonl", *MAKE, "--size", size, cwd=place)
        assert f"{name}.jsonl: {size} sets of" in done
    return place


def test_a_split_is_made_again_and_checked(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "few.jsonl"
    printed("split", "make", "shards-2", "--out", out, *MAKE, "--size", "2", cwd=place)
    assert out.read_bytes() == (place / "few.jsonl").read_bytes()
    done = disbench("split", "check", "few.jsonl", "shards-2", cwd=place)
    assert (done.returncode, "split few holds: 2 sets" in done.stdout) == (0, True)
    printed("split", "make", "shards-1", "--out", tmp_path / "all.jsonl", *MAKE, cwd=place)
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) > 100
    command = (tmp_path / "all.toml").read_text().partition("command = ")[2].splitlines()[0]
    assert json.loads(command).startswith("disbench split make shards-1 --out ")


def test_runs_on_splits_and_their_report(place: Path, tmp_path: Path) -> None:
    for task, split in (("diverse", "few"), ("diverse", "more"), ("intents", "few")):
        run = ("--task", task, "--shards", "shards-1", "--images", "embedded", "--method", TOY, "--workers", "1")
        printed("run", *run, "--split", f"{split}.jsonl", "--out", tmp_path / f"{task}-{split}", cwd=place)
    record = json.loads((tmp_path / "diverse-few" / "run.json").read_bytes())["dataset"]
    assert (record["name"], record["samples"]) == ("few", 2)
    assert record["facts"]["choice"]["split"]["name"] == "few"
    before = contents(tmp_path / "diverse-few")
    again = ("run", "--task", "diverse", "--shards", "shards-2", "--images", "embedded", "--method", TOY)
    printed(*again, "--split", "few.jsonl", "--out", tmp_path / "diverse-few", "--workers", "1", cwd=place)
    assert contents(tmp_path / "diverse-few") == before  # a run of the same sets
    printed("ambiguity", tmp_path, "--out", tmp_path / "report", "--shards", "shards-1", cwd=place)
    text = (tmp_path / "report" / "ambiguity.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ") and ": coverage" in line]
    assert [line.split()[1] for line in headings] == ["few", "more"]
    for name in ("few", "more"):
        digest = json.loads((tmp_path / f"diverse-{name}" / "run.json").read_bytes())
        assert f"own split {name}, list {digest['dataset']['facts']['choice']['split']['list_sha256'][:8]}" in text
    done = printed("verify", tmp_path / "intents-few", "--dataset", "shards-1", cwd=place)
    assert "samples, clicks and IoUs (" not in done
    done = disbench("verify", tmp_path / "intents-few", "--dataset", place / "shards-1", cwd=tmp_path)
    assert "split 'few' with list" in done.stdout  # not checked, since its list is elsewhere


def test_what_cannot_be_asked(place: Path, tmp_path: Path) -> None:
    run = ("run", "--method", TOY, "--out", tmp_path / "run", "--split", "few.jsonl")
    diverse = ("--task", "diverse", "--shards", "shards-1")
    refused(disbench(*run, *diverse, "--sets", "2", cwd=place), "leave out --sets and --min-members")
    refused(disbench(*run, "--dataset", "photos", cwd=place), "go with --task diverse")
    refused(disbench("split", "check", "none.jsonl", "shards-1", cwd=place), "none.toml: no such file")
    assert not list(tmp_path.iterdir())
