"""Archives that mean harm, or that came damaged: nothing is written outside, and one sentence says why."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from disbench.io.archives import unpack
from tests.archives import archive_bytes
from tests.refusals import refuses

Content = Iterable[tuple[str | zipfile.ZipInfo, bytes]]
Maker = Callable[[Path, Content], Path]


def zip_of(path: Path, content: Content) -> Path:
    path.write_bytes(archive_bytes("zip", content))
    return path


def tar_of(path: Path, content: Content) -> Path:
    modes = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
    path.write_bytes(archive_bytes(modes.get(path.suffix, "w"), content))
    return path


def tar_with(path: Path, kind: bytes, target: str) -> Path:
    """A tar whose member "a" is a link or a device, with a file below it."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = kind, target
        archive.addfile(info)
        info = tarfile.TarInfo("a/evil")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    return path


def zip_with(path: Path, kind: int) -> Path:
    info = zipfile.ZipInfo("a")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return zip_of(path, [(info, b"/etc/passwd")])


def zip_that_lies(path: Path) -> Path:
    """The central directory says 10 bytes, the data is a megabyte."""
    data = bytearray(zip_of(path, [("a", bytes(2**20))]).read_bytes())
    start = data.rindex(b"PK\x01\x02")
    data[start + 24 : start + 28] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    return path


def encrypted_zip(path: Path) -> Path:
    data = bytearray(zip_of(path, [("a", b"1")]).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    return path


def no_archive(path: Path) -> Path:
    path.write_text("<html>please log in</html>")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "inner" / "out"
    folder.mkdir(parents=True)
    return folder


def refused(archive: Path, out: Path, limit: int | None = None) -> None:
    said = refuses("", unpack, archive, out, limit)
    assert said.startswith(f"{archive}: ")
    assert not list(out.parents[1].rglob("*evil*"))


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "dat"])
def test_what_is_unpacked(tmp_path: Path, out: Path, ending: str) -> None:
    content = [("a/b.txt", b"one"), ("a/c/d.bin", bytes(3_000_000)), ("e", b"")]
    path = tmp_path / f"x.{ending}"
    (zip_of if ending in ("zip", "dat") else tar_of)(path, content)
    unpack(path, out)
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == dict(content)
    assert all(stat.S_IMODE(p.stat().st_mode) & 0o111 == 0 for p in out.rglob("*") if p.is_file())


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
def test_what_systems_add_is_left_out(tmp_path: Path, out: Path, make: Maker) -> None:
    added = ("__MACOSX/a/._b", "a/.DS_Store", "a/._b", "a/Thumbs.db", "a/Desktop.ini", "a/._c/d")
    unpack(make(tmp_path / "x", [("a/b", b""), *((name, b"") for name in added)]), out)
    assert [path.relative_to(out).as_posix() for path in sorted(out.rglob("*"))] == ["a", "a/b"]


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
def test_names_of_other_systems(tmp_path: Path, out: Path, make: Maker) -> None:
    names = ["images\\001.jpg", "\u5199\u771f\u3000\u202f.jpg", " a b .jpg"]
    unpack(make(tmp_path / "x", [(name, b"1") for name in names]), out)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {name.replace("\\", "/") for name in names}


def test_files_that_are_one_without_letter_case(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "x.zip", [("a.jpg", b"1"), ("A.jpg", b"2")])
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: is_file(self.with_name(self.name.lower())))
    refused(path, out)
    monkeypatch.undo()
    unpack(path, out)
    assert sorted(file.name for file in out.iterdir()) == ["A.jpg", "a.jpg"]


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "C:evil", "..\\evil", "a/b/../../../../evil"]
)
def test_paths_that_leave_the_folder(tmp_path: Path, out: Path, make: Maker, name: str) -> None:
    refused(make(tmp_path / "x", [("good", b"1"), (name, b"2")]), out)
    assert not Path("/evil").exists()


@pytest.mark.parametrize(
    "make",
    [
        *(partial(tar_with, kind=tarfile.SYMTYPE, target=target) for target in ("/etc", "good", "../..")),
        partial(tar_with, kind=tarfile.LNKTYPE, target="../../secret"),
        *(partial(tar_with, kind=kind, target="") for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)),
        *(partial(zip_with, kind=kind) for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO)),
    ],
)
def test_links_and_devices(tmp_path: Path, out: Path, make: Callable[[Path], Path]) -> None:
    refused(make(tmp_path / "x"), out)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    "make",
    [
        *(partial(make, content=[("c", b"1"), ("c/evil", b"2")]) for make in (zip_of, tar_of)),
        *(zip_that_lies, encrypted_zip, no_archive),
    ],
)
def test_what_is_refused(tmp_path: Path, out: Path, make: Callable[[Path], Path]) -> None:
    """A file that is a folder too, a size that is a lie, an encrypted member, no archive at all."""
    refused(make(tmp_path / "x"), out)
    assert sum(p.stat().st_size for p in out.iterdir()) <= 10


def test_a_full_disk_is_no_damaged_archive(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28), "somewhere")

    path = zip_of(tmp_path / "x.zip", [("a/b", b"1")])
    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(path, out)
