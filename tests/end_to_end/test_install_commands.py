"""From nothing to a run of a published system, ours, of a local folder and server; and its rows over the bridge."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from disbench.baselines import installs
from disbench.baselines.cards import load_card
from disbench.core.errors import InputError
from disbench.datasets.photos import photo_path
from disbench.harness.store import read_run
from tests import bridge_adapter, toy_methods
from tests.commands import Result, disbench, disbench_anew, printed, typed
from tests.published_system import Host, committed, weights


@pytest.fixture
def seeded(methods: Callable[..., Result], environments: Path) -> Callable[..., Result]:
    """The same as `methods`, where the environment is there already."""
    shutil.copytree(environments, "methods/environments", symlinks=True)
    return methods


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`disbench methods ...` with a folder of its own."""
    monkeypatch.setenv("DISBENCH_METHODS", str(tmp_path / "methods"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: disbench("methods", *arguments)


def refused(result: Result, *mentions: str) -> None:
    """One sentence on standard error, which may follow a progress bar; steps that went well are printed before."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 2 and len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for mention in mentions:
        assert mention in lines[0]


def changed(squares: Path, old: str, new: str) -> str:
    """The card with another text in it, beside us."""
    text = squares.read_text()
    assert old in text
    Path("squares.toml").write_text(text.replace(old, new))
    return "squares.toml"


def test_from_nothing_to_a_report(squares: Path, host: Host, methods: Callable[..., Result], tmp_path: Path) -> None:
    run = ("run", "--method", squares, "--variant", "small", "--dataset", "photos", "--limit", "2", "--max-clicks", "3")
    run += ("--workers", "1")
    refused(disbench(*run, "--out", "early"), "small", "disbench methods install")
    assert "not installed" in methods("check", squares, "--variant", "large").stderr
    host.cuts, host.asked = [1_000_000], []
    done = methods("install", squares, "--variant", "small")
    assert done.returncode == 0, done.stderr
    assert host.asked == ["/small.pth", "/small.pth bytes=1000000-"]
    assert methods("install", squares, "--variant", "large").returncode == 0
    again = methods("install", squares, "--variant", "large")
    assert len(again.stdout.splitlines()) == 1 and len(host.asked) == 3, "nothing is fetched twice"
    verdict = methods("check", squares, "--variant", "large")
    assert verdict.returncode == 0 and "works: IoU" in verdict.stdout, verdict.stderr
    for variant, out in (("small", "a"), ("large", "b")):
        printed(*run[:4], variant, *run[5:], "--out", out)
    record = json.loads(Path("a/run.json").read_text())["method"]
    assert record["provenance"]["checkpoint_sha256"] == hashlib.sha256(host.files["/small.pth"]).hexdigest()
    assert record["provenance"]["repo_changed"] is False
    printed("report", "a", "b")
    table = Path("report/report.md").read_text()
    assert "checkpoint=small.pth" in table and "checkpoint=large.pth" in table
    refused(disbench(*run, "--set", "checkpoint=none.pth", "--out", "c"), "none.pth")
    listed = methods("installed").stdout
    assert "large, small" in listed and "environment light-" in listed
    assert methods("remove", squares).returncode == 0
    left = {path.name for path in (tmp_path / "methods").rglob("*") if path.is_file()}
    assert left == {".lock", "hashes.json"}
    refused(methods("remove", squares), "not installed")


def test_a_file_of_the_users_own(squares: Path, seeded: Callable[..., Result], host: Host) -> None:
    Path("mine.pth").write_bytes(weights("small", 9))
    assert seeded("install", squares, "--variant", "unpublished").returncode == 0
    assert seeded("install", squares, "--variant", "unpublished", "--checkpoint", "mine.pth").returncode == 0
    assert seeded("check", squares, "--variant", "unpublished").returncode == 0
    host.asked.clear()
    other = seeded("install", squares, "--variant", "large", "--checkpoint", "mine.pth")
    assert other.returncode == 0
    verdict = seeded("check", squares, "--variant", "large")
    assert verdict.returncode == 2 and "unexpected keys" in verdict.stderr, "a checkpoint of another variant"
    assert not host.asked
    next(Path("methods").rglob("large.pth")).write_bytes(weights("large", 40))
    refused(
        disbench("run", "--method", squares, "--variant", "large", "--dataset", "photos", "--out", "a"), "large.pth"
    )


def test_a_configuration_beside_a_file_of_the_users_own(squares: Path, seeded: Callable[..., Result]) -> None:
    card = changed(squares, 'empty = ["training_only"]', 'beside = "*.py"')
    Path("given").mkdir()
    Path("given/mine.pth").write_bytes(weights("small", 9))
    ask = ("install", card, "--variant", "small", "--checkpoint", "given/mine.pth")
    refused(seeded(*ask), "given/mine.pth")
    Path("given/config.py").write_text("depth = 3")
    assert seeded(*ask).returncode == 0
    (found,) = Path("methods").rglob("config.py")
    assert found.read_text() == "depth = 3" and (found.parent / "small.pth").is_file()


def test_a_checkpoint_keeps_its_hash(squares: Path, host: Host, seeded: Callable[..., Result]) -> None:
    """Where the authors give none, that of the first download counts, even after a removal."""
    host.files["/moved.pth"] = weights("small", 12)
    card = changed(squares, 'small.pth"\n\n', 'moved.pth"\n\n')
    assert seeded("install", card).returncode == 0
    assert seeded("remove", card).returncode == 0
    host.files["/moved.pth"] = weights("small", 13)
    refused(seeded("install", card), f"{host.url}/moved.pth", hashlib.sha256(weights("small", 12)).hexdigest())


def test_a_shared_drive(squares: Path, seeded: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder the file is taken whose name is the variant's; the second download breaks off."""
    asked: list[str] = []

    def download(*, id: str, output: str, **_: object) -> None:  # noqa: A002
        asked.append(id)
        if len(asked) == 2:
            raise OSError("too many users have viewed this file")
        Path(output).write_bytes(weights("small", 12))

    held = [SimpleNamespace(id=f"I{number}", path=f"models/{name}.pth") for number, name in enumerate(("a", "small"))]
    drive = SimpleNamespace(download=download, download_folder=lambda *, url, skip_download, quiet: held)
    monkeypatch.setitem(sys.modules, "gdown", drive)  # type: ignore[arg-type]
    address = re.search('url = "(.*small.pth)"', squares.read_text())
    assert address is not None
    card = changed(squares, address[1], "https://drive.google.com/drive/folders/F1")
    found = installs.install(card, report=lambda line: None)
    assert found.checkpoint is not None and found.checkpoint.read_bytes() == weights("small", 12)
    assert asked == ["I1"]
    found.checkpoint.unlink()
    with pytest.raises(InputError, match="too many users"):
        installs.install(card, report=lambda line: None)
    assert installs.find_installed(card) is None


def test_a_full_disk_is_one_sentence(squares: Path, seeded: Callable[..., Result]) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = disbench_anew("methods", "install", squares, before=limit)
    refused(done, "small.pth", "free some space")
    assert seeded("install", squares).returncode == 0


def test_killed_at_any_moment_and_repeated(squares: Path, methods: Callable[..., Result]) -> None:
    killed = 0
    for moment in (0.5, 0.9, 1.4, 2.0, 3.0):
        with subprocess.Popen(typed("methods", "install", squares), stdout=subprocess.DEVNULL) as command:
            time.sleep(moment)
            killed += command.poll() is None
            command.kill()
    assert killed
    done = methods("install", squares)
    assert done.returncode == 0, done.stderr
    assert methods("check", squares).returncode == 0
    assert not [path for path in Path("methods").rglob("*") if ".part" in path.name]


def test_what_cannot_be_had_is_one_sentence(squares: Path, host: Host, seeded: Callable[..., Result]) -> None:
    recipe = load_card(str(squares)).install
    assert recipe is not None
    folder, environment = squares.parent, f"{squares.parent}/light.toml"
    Path("bad.toml").write_text('packages = ["--no-index", "no-such-package==1.0"]\n')
    Path("old.toml").write_text('python = "2.1"\npackages = ["six"]\n')
    host.files["/page.pth"] = b"<!DOCTYPE html><html>Sign in</html>"
    for old, new, mentions in (
        (recipe.commit, "a" * 40, ("a" * 40, f"{folder}/peer")),
        (f"{folder}/peer", f"{folder}/gone", (f"{folder}/gone",)),
        (environment, "bad.toml", ("bad.toml", "no-such-package==1.0")),
        (environment, "old.toml", ("2.1",)),
        ("small.pth", "lost.pth", (f"{host.url}/lost.pth", "404")),
        ("small.pth", "page.pth", (f"{host.url}/page.pth", "web page")),
        ('file = "small.pth"', f'file = "small.pth"\nsha256 = "{"b" * 64}"', (f"{host.url}/small.pth", "b" * 64)),
    ):
        refused(seeded("install", changed(squares, old, new)), *mentions)
    refused(seeded("install", squares, "--variant", "smal"), "small")
    refused(seeded("install", "disk"), "[install]")


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
    committed(folder / "peer")
    return folder


SETTINGS = ("--set", "repo=peer", "--set", f"python={sys.executable}", "--set", "checkpoint=weights.pth")


def bridged(place: Path, *more: str, out: str = "run") -> Result:
    return disbench("run", "--method", "discs.toml", *SETTINGS, *RUN, *more, "--out", out, cwd=place)


def rows(path: Path) -> list[tuple[object, ...]]:
    table = read_run(path).rows(("sample", "click", "x", "y", "iou", "failure")).to_pylist()
    return [tuple(row.values()) for row in table]


def test_its_rows_are_those_of_the_same_method_in_process(place: Path) -> None:
    done = bridged(place)
    assert done.returncode == 0, done.stderr
    own = f"{toy_methods.__file__}:Discs"
    printed("run", "--method", own, *RUN, "--out", "own", cwd=place)
    assert rows(place / "run") == rows(place / "own")
    description = json.loads((place / "run" / "run.json").read_text())
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=place / "peer", capture_output=True, text=True, check=True)
    found = description["method"]["provenance"]
    assert found["repo_commit"] == said.stdout.strip() and found["repo_changed"] is False
    assert len(found["checkpoint_sha256"]) == len(found["adapter_sha256"]) == 64
    (versions,) = description["result"]["method_versions"]
    assert versions["numpy"] == np.__version__ and versions["python"] == platform.python_version()
    printed("verify", "run", cwd=place)
    printed("report", "run", "own", "--out", "report", cwd=place)
    assert "discs (checkpoint=weights.pth)" in (place / "report" / "report.md").read_text()


def test_a_crash_is_a_recorded_failure_of_its_sample(place: Path) -> None:
    done = bridged(place, "--set", "fault=raises-always", out="raising")
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
