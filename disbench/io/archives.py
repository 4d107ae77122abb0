"""Archives from elsewhere, unpacked without trust: nothing leaves the folder, nothing but files and folders."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from disbench.core.errors import InputError

RATIO = 100
"""An archive may grow by this factor at most ..."""
ALLOWED = 64 * 2**20
"""... or to this many bytes, whichever is more."""
_OVERHEAD = 512
"""Bytes that a file or folder counts beside its content: archives of a million empty files are bombs too."""
_CHUNK = 2**20
_SHOWN = 200
"""Characters of a name that an error quotes."""
_SKIPPED = ("__MACOSX", ".DS_Store")
"""What one system's archiver adds to everything."""
_LONGEST_READ = _CHUNK
"""Bytes that are read at once: the name of a tar's member is read whole, and may say that it has gigabytes."""
_DEEPEST = 64
"""Folders in each other."""
_OPENERS: Mapping[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""How a compressed tar begins -> what opens it."""
_UNUSABLE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ELOOP)
"""Errors of the system that are about a name in the archive, not about the disk."""


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
            skipped = any(part in _SKIPPED for part in path.parts)
            left = _drain(file, left, archive) if skipped else _put(file, folder / path, left, archive)
    except InputError:
        raise
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise InputError(f"{archive}: {Path(error.filename).name!r} stands twice in it; get it elsewhere") from None
        if error.errno is not None and error.errno not in _UNUSABLE:
            raise
        raise _damaged(archive, error) from None
    except Exception as error:  # damaged bytes make each library fail in its own ways: EOFError, zlib.error ...
        raise _damaged(archive, error) from None


def _damaged(archive: Path, error: Exception) -> InputError:
    words = " ".join(str(error).split())[:200]
    return InputError(f"{archive}: not a whole archive ({words or type(error).__name__}); get it again")


def safe_path(name: str, where: object) -> PurePosixPath:
    """A relative path that stays in its folder on every system.

    Args:
        name: the path as an archive or a card has it.
        where: what to name in errors.

    Raises:
        InputError: an absolute path, one with `..`, a drive, a backslash, a control character or half a character,
            or one of more than 64 folders.
    """
    path = PurePosixPath(name)
    odd = "\\" in name or re.match("[A-Za-z]:", name) or re.search("[\0-\x1f\x7f\ud800-\udfff]", name)
    if path.is_absolute() or ".." in path.parts or odd or len(path.parts) > _DEEPEST:
        shown = repr(name)[:_SHOWN]
        raise InputError(f"{where}: the path {shown} would leave its folder, or is no path; nothing of it is used")
    return path


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of every file in its order; None stands for a folder."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    else:
        yield from _tar_members(archive)


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
    with _tar_bytes(archive) as stream, _opened_tar(archive, stream) as content:
        while (member := content.next()) is not None:
            content.members.clear()  # type: ignore[attr-defined]  # it keeps them all, of millions
            if member.isdir():
                yield member.name, None
            elif member.isreg():
                yield member.name, content.extractfile(member)
            else:
                raise InputError(f"{archive}: {member.name!r} is a link or a device; nothing of it is used")
        _read_to_the_end(content.fileobj)


def _tar_bytes(archive: Path) -> Any:
    """The bytes of a tar, not compressed."""
    with archive.open("rb") as file:
        begin = file.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if begin.startswith(magic)), None)
    return archive.open("rb") if opener is None else opener(archive)


def _opened_tar(archive: Path, stream: Any) -> tarfile.TarFile:
    try:
        return tarfile.TarFile(fileobj=cast(Any, _InSips(stream)))
    except tarfile.ReadError as error:
        if stream.tell() > tarfile.BLOCKSIZE:
            raise
        raise InputError(
            f"{archive}: not a zip or tar archive ({error}); get it again, or mend the card (unpack = false)"
        ) from None


class _InSips:
    """A stream that gives little at a time, whatever a header in it asks for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, size: int = -1) -> bytes:
        """At most `_LONGEST_READ` bytes.

        Raises:
            ValueError: more are asked for.
        """
        if not 0 <= size <= _LONGEST_READ:
            raise ValueError(f"a header of {size} bytes")
        found: bytes = self._stream.read(size)
        return found


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


def _drain(file: IO[bytes] | None, left: int, archive: Path) -> int:
    """Read a file that is not kept: it counts as the others do."""
    while file is not None and (chunk := file.read(_CHUNK)):
        left = _spend(len(chunk), left, archive)
    return left


def _spend(count: int, left: int, archive: Path) -> int:
    if count > left:
        raise InputError(f"{archive}: it unpacks to far more than its size allows; get it elsewhere")
    return left - count
