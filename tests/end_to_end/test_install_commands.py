"""From nothing to a run of a published system: stand-ins of ours, from a local git folder and a local server."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from disbench.baselines import installs
from disbench.baselines.cards import load_card
from disbench.core.errors import InputError
from tests.commands import Result, disbench, disbench_anew, typed

MODEL = """
import numpy as np
from training_only.tools import augment  # a package that nobody has


@augment(strength=3)
def side(radius):
    return np.int(radius)  # a name that NumPy dropped
"""
ADAPTER = """
import json
import sys

import numpy as np


def load(repo, checkpoint, options, device):
    sys.path.insert(0, repo)
    import peer_model

    with open(checkpoint) as file:
        weights = json.loads(file.read().rstrip())
    if weights["network"] != options["network"]:
        raise RuntimeError("unexpected keys in state_dict: " + weights["network"])
    return Model(peer_model.side(weights["radius"]))


class Model:
    def __init__(self, side):
        self.side = side

    def open(self, image):
        self.shape = image.shape[:2]
        return self

    def predict(self, clicks):
        mask = np.zeros(self.shape, dtype=bool)
        for x, y, positive in clicks:
            mask[max(y - self.side, 0) : y + self.side, max(x - self.side, 0) : x + self.side] = positive
        return mask[None], None
"""
CARD = """
title = "Squares, a published system of ours"
status = "bridge"
adapter = "{place}/adapter.py"
code = "{place}/peer"
threshold = 0.5

[install]
commit = "{commit}"
environment = "{place}/light.toml"
empty = ["training_only"]

[options.network]
default = "small"
help = "Of the checkpoint."

[[variants]]
name = "small"
backbone = "S"
training_data = ["SBD"]
file = "small.pth"
url = "{url}/small.pth"

[[variants]]
name = "large"
backbone = "L"
training_data = ["SBD"]
file = "large.pth"
url = "{url}/large.pth"
options = {{ network = "large" }}

[[variants]]
name = "unpublished"
backbone = "XL"
training_data = ["SBD"]
"""


class Host:
    """Serves files, with ranges; the next `cuts` answers break off after so many bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(f"{self.path} {self.headers.get('Range', '')}".rstrip())
                if self.path not in outer.files:
                    self.send_error(404)
                    return
                content = outer.files[self.path]
                start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
                self.send_response(206 if start else 200)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.end_headers()
                self.wfile.write(content[start:][: outer.cuts.pop(0) if outer.cuts else None])

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


def weights(network: str, radius: float) -> bytes:
    return json.dumps({"network": network, "radius": radius}).encode() + b" " * 3_000_000


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    found = Host()
    found.files = {"/small.pth": weights("small", 12), "/large.pth": weights("large", 40)}
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, host: Host) -> Path:
    """A folder with a repository, a card and an environment whose one package lends it this one's NumPy."""
    folder = tmp_path_factory.mktemp("peers")
    (folder / "adapter.py").write_text(ADAPTER)
    (folder / "peer").mkdir()
    (folder / "peer/peer_model.py").write_text(MODEL)
    git = ["git", "-C", str(folder / "peer"), "-c", "user.name=T", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    wheel = folder / "neighbour-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("neighbour.pth", str(Path(np.__file__).parents[1]))
        archive.writestr("neighbour-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: neighbour\nVersion: 1.0\n")
        archive.writestr("neighbour-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("neighbour-1.0.dist-info/RECORD", "")
    (folder / "light.toml").write_text(f'packages = ["--no-index", "{wheel}"]\n')
    (folder / "squares.toml").write_text(CARD.format(place=folder, commit=commit, url=host.url))
    return folder


@pytest.fixture(scope="module")
def environments(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment, made once for the tests that need it only there."""
    folder = tmp_path_factory.mktemp("made")
    done = disbench(
        "methods", "install", place / "squares.toml", "--variant", "unpublished", DISBENCH_METHODS=str(folder)
    )
    assert done.returncode == 0, done.stderr
    return folder / "environments"


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


def changed(place: Path, old: str, new: str) -> str:
    """The card with another text in it, beside us."""
    text = (place / "squares.toml").read_text()
    assert old in text
    Path("squares.toml").write_text(text.replace(old, new))
    return "squares.toml"


def test_from_nothing_to_a_report(place: Path, host: Host, methods: Callable[..., Result], tmp_path: Path) -> None:
    card = place / "squares.toml"
    run = ("run", "--method", card, "--variant", "small", "--dataset", "photos", "--limit", "2", "--max-clicks", "3")
    run += ("--workers", "1")
    refused(disbench(*run, "--out", "early"), "small", "disbench methods install")
    assert "not installed" in methods("check", card, "--variant", "large").stderr
    host.cuts, host.asked = [1_000_000], []
    done = methods("install", card, "--variant", "small")
    assert done.returncode == 0, done.stderr
    assert host.asked == ["/small.pth", "/small.pth bytes=1000000-"]
    assert methods("install", card, "--variant", "large").returncode == 0
    again = methods("install", card, "--variant", "large")
    assert len(again.stdout.splitlines()) == 1 and len(host.asked) == 3, "nothing is fetched twice"
    verdict = methods("check", card, "--variant", "large")
    assert verdict.returncode == 0 and "works: IoU" in verdict.stdout, verdict.stderr
    for variant, out in (("small", "a"), ("large", "b")):
        done = disbench(*run[:4], variant, *run[5:], "--out", out)
        assert done.returncode == 0, done.stderr
    record = json.loads(Path("a/run.json").read_text())["method"]
    assert record["provenance"]["checkpoint_sha256"] == hashlib.sha256(host.files["/small.pth"]).hexdigest()
    assert record["provenance"]["repo_changed"] is False
    done = disbench("report", "a", "b")
    assert done.returncode == 0, done.stderr
    table = Path("report/report.md").read_text()
    assert "checkpoint=small.pth" in table and "checkpoint=large.pth" in table
    refused(disbench(*run, "--set", "checkpoint=none.pth", "--out", "c"), "none.pth")
    listed = methods("installed").stdout
    assert "large, small" in listed and "environment light-" in listed
    assert methods("remove", card).returncode == 0
    left = {path.name for path in (tmp_path / "methods").rglob("*") if path.is_file()}
    assert left == {".lock", "hashes.json"}
    refused(methods("remove", card), "not installed")


def test_a_file_of_the_users_own(place: Path, seeded: Callable[..., Result], host: Host) -> None:
    card = place / "squares.toml"
    Path("mine.pth").write_bytes(weights("small", 9))
    assert seeded("install", card, "--variant", "unpublished").returncode == 0
    assert seeded("install", card, "--variant", "unpublished", "--checkpoint", "mine.pth").returncode == 0
    assert seeded("check", card, "--variant", "unpublished").returncode == 0
    host.asked.clear()
    other = seeded("install", card, "--variant", "large", "--checkpoint", "mine.pth")
    assert other.returncode == 0
    verdict = seeded("check", card, "--variant", "large")
    assert verdict.returncode == 2 and "unexpected keys" in verdict.stderr, "a checkpoint of another variant"
    assert not host.asked
    next(Path("methods").rglob("large.pth")).write_bytes(weights("large", 40))
    refused(disbench("run", "--method", card, "--variant", "large", "--dataset", "photos", "--out", "a"), "large.pth")


def test_a_configuration_beside_a_file_of_the_users_own(place: Path, seeded: Callable[..., Result]) -> None:
    card = changed(place, 'empty = ["training_only"]', 'beside = "*.py"')
    Path("given").mkdir()
    Path("given/mine.pth").write_bytes(weights("small", 9))
    ask = ("install", card, "--variant", "small", "--checkpoint", "given/mine.pth")
    refused(seeded(*ask), "given/mine.pth")
    Path("given/config.py").write_text("depth = 3")
    assert seeded(*ask).returncode == 0
    (found,) = Path("methods").rglob("config.py")
    assert found.read_text() == "depth = 3" and (found.parent / "small.pth").is_file()


def test_a_checkpoint_keeps_its_hash(place: Path, host: Host, seeded: Callable[..., Result]) -> None:
    """Where the authors give none, that of the first download counts, even after a removal."""
    host.files["/moved.pth"] = weights("small", 12)
    card = changed(place, 'small.pth"\n\n', 'moved.pth"\n\n')
    assert seeded("install", card).returncode == 0
    assert seeded("remove", card).returncode == 0
    host.files["/moved.pth"] = weights("small", 13)
    refused(seeded("install", card), f"{host.url}/moved.pth", hashlib.sha256(weights("small", 12)).hexdigest())


class Drive:
    """gdown's two functions over a folder of one file, whose second download breaks off."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def download_folder(self, *, url: str, skip_download: bool, quiet: bool) -> list[SimpleNamespace]:
        assert skip_download and quiet and url.endswith("/folders/F1")
        return [SimpleNamespace(id="I1", path="models/small.pth"), SimpleNamespace(id="I2", path="models/other.pth")]

    def download(self, *, id: str, output: str, **_: object) -> None:  # noqa: A002
        self.asked.append(id)
        if len(self.asked) == 2:
            raise OSError("too many users have viewed this file")
        Path(output).write_bytes(weights("small", 12))


def test_a_shared_drive(place: Path, seeded: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    drive = Drive()
    monkeypatch.setitem(sys.modules, "gdown", drive)  # type: ignore[arg-type]
    text = (place / "squares.toml").read_text()
    address = re.search('url = "(.*small.pth)"', text)
    assert address is not None
    card = changed(place, address[1], "https://drive.google.com/drive/folders/F1")
    found = installs.install(card, report=lambda line: None)
    assert found.checkpoint is not None and found.checkpoint.read_bytes() == weights("small", 12)
    assert drive.asked == ["I1"]
    found.checkpoint.unlink()
    with pytest.raises(InputError, match="too many users"):
        installs.install(card, report=lambda line: None)
    assert installs.find_installed(card) is None


def test_a_full_disk_is_one_sentence(place: Path, seeded: Callable[..., Result]) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = disbench_anew("methods", "install", place / "squares.toml", before=limit)
    refused(done, "small.pth", "free some space")
    assert seeded("install", place / "squares.toml").returncode == 0


def test_killed_at_any_moment_and_repeated(place: Path, host: Host, methods: Callable[..., Result]) -> None:
    card = place / "squares.toml"
    killed = 0
    for moment in (0.5, 0.9, 1.4, 2.0, 3.0):
        command = subprocess.Popen(
            typed("methods", "install", card), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moment)
        killed += command.poll() is None
        command.send_signal(signal.SIGKILL)
        command.wait()
    assert killed
    done = methods("install", card)
    assert done.returncode == 0, done.stderr
    assert methods("check", card).returncode == 0
    left = {path.name for path in Path("methods").rglob("*") if ".part" in path.name}
    assert not left


def test_what_cannot_be_had_is_one_sentence(place: Path, host: Host, seeded: Callable[..., Result]) -> None:
    card = load_card(str(place / "squares.toml"))
    assert card.install is not None
    commit = card.install.commit
    refused(seeded("install", changed(place, commit, "a" * 40)), "a" * 40, str(place / "peer"))
    refused(seeded("install", changed(place, f"{place}/peer", f"{place}/gone")), f"{place}/gone")
    Path("bad.toml").write_text('packages = ["--no-index", "no-such-package==1.0"]\n')
    refused(
        seeded("install", changed(place, f"{place}/light.toml", "bad.toml")),
        "bad.toml",
        "no-such-package==1.0",
    )
    Path("old.toml").write_text('python = "2.1"\npackages = ["six"]\n')
    refused(seeded("install", changed(place, f"{place}/light.toml", "old.toml")), "2.1")
    refused(seeded("install", changed(place, "small.pth", "lost.pth")), f"{host.url}/lost.pth", "404")
    host.files["/page.pth"] = b"<!DOCTYPE html><html>Sign in</html>"
    refused(seeded("install", changed(place, "small.pth", "page.pth")), f"{host.url}/page.pth", "web page")
    wrong = changed(place, 'file = "small.pth"', f'file = "small.pth"\nsha256 = "{"b" * 64}"')
    refused(seeded("install", wrong), f"{host.url}/small.pth", "b" * 64)
    refused(seeded("install", place / "squares.toml", "--variant", "smal"), "small")
    refused(seeded("install", "disk"), "[install]")
