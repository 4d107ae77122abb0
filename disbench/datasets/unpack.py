"""Archives from elsewhere, unpacked without trust: nothing leaves the folder, nothing but files and folders."""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from disbench.errors import InputError

RATIO = 100
"""An archive may grow by this factor at most ..."""
ALLOWED = 64 * 2**20
"""... or to this many bytes, whichever is more."""
_OVERHEAD = 512
"""Bytes that a file or folder counts beside its content: archives of a million empty files are bombs too."""
_CHUNK = 2**20
_SKIPPED = ("__MACOSX", ".DS_Store")
"""What one system's archiver adds to everything."""
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
"""How libraries say that an archive is not whole, or packed in a way that Python lacks."""


def unpack(archive: Path, folder: Path, limit: int | None = None) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) archive.

    Args:
        archive: told by its content, not by its name.
        folder: exists and is empty.
        limit: bytes that the files may have together; by default 100 times the archive's size or 64 MiB.

    Raises:
        InputError: no archive, a damaged one, or one with a path that leaves the folder, a link, a device,
            an encrypted file, a file twice, or more bytes than allowed. What was unpacked so far is left.
    """
    left = limit if limit is not None else max(ALLOWED, RATIO * archive.stat().st_size)
    try:
        for name, file in _members(archive):
            left = _spend(_OVERHEAD, left, archive)
            path = safe_path(name, archive)
            if not any(part in _SKIPPED for part in path.parts):
                left = _put(file, folder / path, left, archive)
    except _DAMAGED as error:
        raise InputError(f"{archive}: not a whole archive ({error}); get it again") from None
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise InputError(
                f"{archive}: {Path(error.filename).name!r} stands twice in it; get it elsewhere"
            ) from None
        if error.errno is not None:
            raise
        raise InputError(f"{archive}: not a whole archive ({error}); get it again") from None


def safe_path(name: str, where: object) -> PurePosixPath:
    """A relative path that stays in its folder on every system.

    Args:
        name: the path as an archive or a card has it.
        where: what to name in errors.

    Raises:
        InputError: an absolute path, one with `..`, a drive, a backslash or a null.
    """
    path = PurePosixPath(name)
    odd = "\\" in name or "\0" in name or re.match("[A-Za-z]:", name)
    if path.is_absolute() or ".." in path.parts or odd:
        raise InputError(f"{where}: the path {name!r} would leave its folder; nothing of it is used")
    return path


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of every file in its order; None stands for a folder."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive)
    else:
        raise InputError(
            f"{archive}: not a zip or tar archive; get it again, or mend the card (unpack = false)"
        )


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InputError(f"{archive}: {info.filename!r} is a link or a device; nothing of it is used")
            if info.flag_bits & 1:
                raise InputError(f"{archive}: {info.filename!r} is encrypted; unpack it by hand")
            if info.is_dir():
                yield info.filename, None
            else:
                with content.open(info) as file:
                    yield info.filename, file


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(archive) as content:
        for member in content:
            if member.isdir():
                yield member.name, None
            elif member.isreg():
                yield member.name, content.extractfile(member)
            else:
                raise InputError(f"{archive}: {member.name!r} is a link or a device; nothing of it is used")
        _read_to_the_end(content.fileobj)


def _read_to_the_end(stream: Any) -> None:
    """Read what follows a tar's last member: the checksum of a compressed one stands at its very end."""
    padding = ALLOWED
    while padding > 0 and (chunk := stream.read(_CHUNK)):
        padding -= len(chunk)


def _put(file: IO[bytes] | None, path: Path, left: int, archive: Path) -> int:
    """Make one folder, or copy one file; the bytes that are left to the others."""
    if file is None:
        path.mkdir(parents=True, exist_ok=True)
        return left
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        while chunk := file.read(_CHUNK):
            left = _spend(len(chunk), left, archive)
            out.write(chunk)
    return left


def _spend(count: int, left: int, archive: Path) -> int:
    if count > left:
        raise InputError(f"{archive}: it unpacks to far more than its size allows; get it elsewhere")
    return left - count
