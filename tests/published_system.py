"""A published system that is on this machine: its code, card and environment, and the server of its weights."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

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


def weights(network: str, radius: float) -> bytes:
    return json.dumps({"network": network, "radius": radius}).encode() + b" " * 3_000_000


@dataclass
class Host:
    """Serves files by their path, with ranges; the next `cuts` answers break off after so many bytes."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content = self.files.get(request.path)
        if request.command == "GET":
            self.asked.append(f"{request.path} {request.headers.get('Range', '')}".rstrip())
        if content is None:
            request.send_error(404)
            return
        start = int(request.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        request.send_response(206 if start else 200)
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content[start:][: self.cuts.pop(0) if self.cuts else None])


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Host]:
    """A host of these files."""
    host = Host(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        host.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield host
        server.shutdown()


def committed(folder: Path) -> str:
    """Make a repository of a folder; its commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def write_system(folder: Path, url: str) -> Path:
    """Its repository, card and an environment whose one package lends it this one's NumPy; the card's path."""
    (folder / "adapter.py").write_text(ADAPTER)
    (folder / "peer").mkdir()
    (folder / "peer/peer_model.py").write_text(MODEL)
    wheel = folder / "neighbour-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("neighbour.pth", str(Path(np.__file__).parents[1]))
        archive.writestr("neighbour-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: neighbour\nVersion: 1.0\n")
        archive.writestr("neighbour-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("neighbour-1.0.dist-info/RECORD", "")
    (folder / "light.toml").write_text(f'packages = ["--no-index", "{wheel}"]\n')
    card = folder / "squares.toml"
    card.write_text(CARD.format(place=folder, commit=committed(folder / "peer"), url=url))
    return card
