"""Archives from strangers: files in their folder and nothing else, or a refusal; never more memory than stated."""

from __future__ import annotations

import io
import lzma
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.baselines.cards import Weight
from disbench.baselines.weights import _take
from disbench.io.archives import unpack
from tests.archives import archive_bytes
from tests.fuzz.stored_forms import NASTY_TEXTS, damaged, in_a_child, result_or_refusal
from tests.fuzz.tools import examples

MODES = ("zip", "w", "w:gz", "w:bz2", "w:xz")
CONTENT = {"images/a.jpg": b"a" * 700, "images/b.jpg": b"", "masks/a.png": bytes(range(256)) * 3}


@contextmanager
def unpacked(content: bytes, limit: int | None = 1 << 20) -> Iterator[Path]:
    """The place around a folder that an archive was unpacked into, or that is left of it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "x.bin").write_bytes(content)
        (place / "in").mkdir()
        result_or_refusal(lambda: unpack(place / "x.bin", place / "in", limit), place / "x.bin")
        yield place


def strays(place: Path) -> list[Path]:
    """What unpacking left beside the folder, and what is neither a file nor a folder in it."""
    beside = [entry for entry in place.iterdir() if entry.name not in ("in", "x.bin")]
    modes = {entry: entry.lstat().st_mode for entry in (place / "in").rglob("*")}
    return beside + [entry for entry, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))]


@pytest.mark.parametrize("mode", MODES)
@examples(40)
@given(data=st.data())
def test_damaged_archives(mode: str, data: st.DataObject) -> None:
    with unpacked(data.draw(damaged(archive_bytes(mode, CONTENT.items())))) as place:
        assert strays(place) == []


@pytest.mark.parametrize("mode", ["zip", "w"])
@examples(30)
@given(
    names=st.lists(
        st.one_of(st.sampled_from([t for t in NASTY_TEXTS if t != "\ud800"]), st.text(max_size=9)), max_size=4
    )
)
def test_names(mode: str, names: list[str]) -> None:
    try:
        content = archive_bytes(mode, [(name, b"x") for name in dict.fromkeys(names)])
    except (ValueError, LookupError, struct.error):
        return
    with unpacked(content) as place:
        assert strays(place) == []


def long_name(size: int) -> bytes:
    """A tar whose member's name has so many zeros, in very few bytes of xz."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, size
    header = member.tobuf(tarfile.GNU_FORMAT)
    packer = lzma.LZMACompressor()
    parts = [packer.compress(header)]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, packer.flush()])


def skipped(size: int) -> bytes:
    """What is not kept counts, too."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("__MACOSX/x", "w") as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return sink.getvalue()


def sparse() -> bytes:
    """A sparse file of 8 GiB in a kilobyte."""
    member = tarfile.TarInfo("a")
    sizes = {"major": "1", "minor": "0", "realsize": str(8 << 30)}
    member.pax_headers = {f"GNU.sparse.{name}": value for name, value in sizes.items()}
    data = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    member.size = len(data)
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(member, io.BytesIO(data))
    return sink.getvalue()


@pytest.mark.parametrize(
    "content",
    [lambda: long_name(150 << 20), lambda: skipped(150 << 20), sparse],
    ids=["a name", "what is left out", "a sparse file"],
)
def test_bombs(content: Any, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(content())
    (tmp_path / "in").mkdir()
    words, grown = in_a_child(unpack, tmp_path / "x.bin", tmp_path / "in")
    assert words.startswith("refused"), words
    assert grown < 60, grown
    assert sum(path.stat().st_size for path in (tmp_path / "in").rglob("*")) <= 64 << 20


@examples(40)
@given(data=st.data())
def test_packages_of_weights(data: st.DataObject) -> None:
    content = data.draw(damaged(archive_bytes("w:gz", [("package/w.onnx", b"weights")])))
    weight = Weight("w.onnx", "0" * 64, 7, npm="toy@1.0.0", member="package/w.onnx")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.tgz").write_bytes(content)
        assert result_or_refusal(lambda: _take(Path(folder) / "x.tgz", weight, Path(folder)), "toy@1.0.0") is None
        assert [path.name for path in Path(folder).iterdir()] == ["x.tgz"]
