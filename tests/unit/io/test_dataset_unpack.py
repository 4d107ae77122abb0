"""Archives that mean harm, or that came damaged: nothing is written outside, and one sentence says why."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from disbench.core.errors import InputError
from disbench.io.archives import ALLOWED, unpack

Content = Iterable[tuple[str, bytes]]


def zip_of(path: Path, content: Content) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content:
            archive.writestr(name, data)
    return path


def tar_of(path: Path, content: Content) -> Path:
    with tarfile.open(
        path, "w:" + {"gz": "gz", "tgz": "gz", "bz2": "bz2", "xz": "xz"}.get(path.suffix[1:], "")
    ) as archive:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def special(path: Path, kind: bytes, target: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "inner" / "out"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "dat"])
def test_what_is_unpacked(tmp_path: Path, out: Path, ending: str) -> None:
    content = [("a/b.txt", b"one"), ("a/c/d.bin", bytes(3_000_000)), ("e", b"")]
    path = tmp_path / f"x.{ending}"
    (zip_of if ending in ("zip", "dat") else tar_of)(path, content)
    unpack(path, out)
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == dict(content)
    assert all(stat.S_IMODE(p.stat().st_mode) & 0o111 == 0 for p in out.rglob("*") if p.is_file())


def test_what_one_system_adds_is_left_out(tmp_path: Path, out: Path) -> None:
    unpack(zip_of(tmp_path / "x.zip", [("a/b", b""), ("__MACOSX/a/._b", b""), ("a/.DS_Store", b"")]), out)
    assert [p.name for p in out.rglob("*")] == ["a", "b"]


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "C:evil", "..\\evil", "a/b/../../../../evil"]
)
def test_paths_that_leave_the_folder(
    tmp_path: Path, out: Path, make: Callable[[Path, Content], Path], name: str
) -> None:
    archive = make(tmp_path / "x.tar", [("good", b"1"), (name, b"2")])
    with pytest.raises(InputError, match=r"x\.tar: the path .* would leave its folder"):
        unpack(archive, out)
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/evil").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "good"),
        (tarfile.LNKTYPE, "../../secret"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_in_a_tar(tmp_path: Path, out: Path, kind: bytes, target: str) -> None:
    with pytest.raises(InputError, match="'a' is a link or a device"):
        unpack(special(tmp_path / "x.tar", kind, target), out)
    assert not list(out.iterdir())


def test_a_link_that_later_files_would_go_through(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(info)
        info = tarfile.TarInfo("a/evil")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(InputError, match="link or a device"):
        unpack(path, out)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip(tmp_path: Path, out: Path, kind: int) -> None:
    info = zipfile.ZipInfo("a")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="'a' is a link or a device"):
        unpack(tmp_path / "x.zip", out)
    assert not list(out.iterdir())


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar.gz"])
def test_bombs(tmp_path: Path, out: Path, make: Callable[[Path, Content], Path]) -> None:
    path = make(tmp_path / "x.gz", [(str(number), bytes(2**20)) for number in range(80)])
    assert path.stat().st_size * 100 < 80 * 2**20
    with pytest.raises(InputError, match="unpacks to far more than its size allows"):
        unpack(path, out)
    assert sum(p.stat().st_size for p in out.iterdir()) <= ALLOWED


def test_bombs_of_empty_files(tmp_path: Path, out: Path) -> None:
    path = zip_of(tmp_path / "x.zip", [(str(number), b"") for number in range(30)])
    with pytest.raises(InputError, match="far more than its size allows"):
        unpack(path, out, limit=29 * 512)
    assert len(list(out.iterdir())) == 29


def test_a_header_that_lies_about_the_size(tmp_path: Path, out: Path) -> None:
    """The central directory says 10 bytes, the data is a megabyte: what is written is what counts."""
    path = zip_of(tmp_path / "x.zip", [("a", bytes(2**20))])
    data = bytearray(path.read_bytes())
    start = data.rindex(b"PK\x01\x02")
    data[start + 24 : start + 28] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError):
        unpack(path, out)
    assert sum(p.stat().st_size for p in out.iterdir()) <= 2**20


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
def test_a_file_that_stands_twice(tmp_path: Path, out: Path, make: Callable[[Path, Content], Path]) -> None:
    with pytest.warns(UserWarning) if make is zip_of else _nothing():
        path = make(tmp_path / "x.tar", [("a", b"1"), ("a", b"2")])
    with pytest.raises(InputError, match="'a' stands twice"):
        unpack(path, out)
    path = make(tmp_path / "y.tar", [("c", b"1"), ("c/b", b"2")])
    with pytest.raises(InputError, match="stands twice"):
        unpack(path, out)


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_damaged_archives(tmp_path: Path, out: Path, ending: str) -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    path = tmp_path / f"x.{ending}"
    whole = (zip_of if ending == "zip" else tar_of)(path, [("a", noise)]).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"x\..*: not a (whole|zip or tar) archive"):
        unpack(path, out)
    if ending != "tar":  # a plain tar has no checksum of its content
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 9]) + whole[middle + 9 :])
        for old in out.iterdir():
            old.unlink()
        with pytest.raises(InputError, match=r"not a (whole|zip or tar) archive"):
            unpack(path, out)


def test_what_is_no_archive(tmp_path: Path, out: Path) -> None:
    (tmp_path / "x.zip").write_text("<html>please log in</html>")
    with pytest.raises(InputError, match="not a zip or tar archive"):
        unpack(tmp_path / "x.zip", out)


def test_an_encrypted_zip(tmp_path: Path, out: Path) -> None:
    path = zip_of(tmp_path / "x.zip", [("a", b"1")])
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="'a' is encrypted"):
        unpack(path, out)


def test_a_full_disk_is_no_damaged_archive(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28), "somewhere")

    path = zip_of(tmp_path / "x.zip", [("a/b", b"1")])
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(path, out)


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
