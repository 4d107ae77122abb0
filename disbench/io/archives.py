"""Archives from elsewhere, unpacked without trust: nothing leaves the folder, nothing but files and folders.

`zipfile` and `tarfile` write the files. Beyond `tarfile.data_filter`, which lets links inside the folder pass and
bounds no bytes, links are refused (what is unpacked is moved later) and the unpacked size is bounded.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import errno
import gzip
import json
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from disbench.core.errors import InputError, shown
from disbench.core.limits import MAX_FOLDERS, MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO
from disbench.io.files import has_control, open_regular, stays_inside

_OVERHEAD = (
    512  # bytes that a file or folder counts beside its content: archives of a million empty files are bombs too
)
_CHUNK = 2**20
_SAYS_UTF8 = 0x800  # flag of a file in a zip
_SKIPPED = re.compile(r"__MACOSX|\._.*|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE)  # what systems add
# First bytes of a compressed file -> what opens it.
_OPENERS: Mapping[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# Errors of the system that are about a name in the archive, not about the disk.
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)


def unpack(archive: Path, folder: Path, limit: int | None = None) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) archive, told by its content, into an empty folder.

    `limit` bounds the bytes of all files together; by default 100 times the archive's size or 64 MiB. `InputError` for
    no archive, a damaged or encrypted one, or one with a path that leaves the folder, a link, a device, a sparse file,
    or more bytes than allowed. What was unpacked so far is left.
    """
    allowed = _allowed(archive) if limit is None else limit
    with _whole(archive, "zip or tar archive", "get it again, or correct the card (unpack = false)"):
        (_unpack_zip if zipfile.is_zipfile(archive) else _unpack_tar)(archive, folder, allowed)


@contextlib.contextmanager
def _whole(archive: Path, kind: str, fix: str) -> Iterator[None]:
    """Turn any error that damaged bytes cause into an `InputError`; each library fails in its own ways."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # EOFError, zlib.error ...
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _NAME_ERRORS:
            raise
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{archive}: not a whole {kind} ({words}); {fix}") from None


def safe_path(name: str, where: object) -> PurePosixPath:
    """A relative path that stays in its folder on every system.

    `InputError`, which names `where`, for an absolute path, one with `..`, a drive, a backslash, a control character or
    half a character, or one of more than 64 folders.
    """
    path = PurePosixPath(name)
    if has_control(name):
        raise InputError(f"{where}: the path {shown(name)} has a control character or is not UTF-8; rename the file")
    if "\\" in name or not stays_inside(name) or len(path.parts) > MAX_FOLDERS:
        raise InputError(f"{where}: the path {shown(name)} is not a relative path that stays in its folder")
    return path


def open_unpacked(path: Path) -> IO[bytes]:
    """JSON for reading, as UTF-8: the file itself, or a temporary copy if it is compressed or in UTF-16, -32.

    Told by its content: plain, in gzip, bz2 or xz, or the only JSON of a zip archive, with or without a BOM.
    """
    file = open_regular(path, "no such file; check the path")
    begin = file.peek(6)[:6]
    with _whole(path, "file of JSON", "get it again"):
        stream: Any = file
        copy: IO[bytes] = file
        if begin.startswith(b"PK\3\4"):
            stream = _only_json(zipfile.ZipFile(file), path)
        elif opener := _opener(begin):
            stream = opener(file)
        encoding = json.detect_encoding(stream.read(4))
        stream.seek(0)
        if encoding != "utf-8":
            stream = codecs.EncodedFile(stream, "utf-8", encoding)
        if stream is not file:
            with file:
                copy = tempfile.TemporaryFile()  # noqa: SIM115  (the caller's)
                shutil.copyfileobj(cast(Any, _Bounded(stream, path, _allowed(path))), copy, _CHUNK)
                copy.flush()
    return copy


def _opener(begin: bytes) -> Callable[..., Any] | None:
    return next((opener for magic, opener in _OPENERS.items() if begin.startswith(magic)), None)


def _only_json(archive: zipfile.ZipFile, path: Path) -> IO[bytes]:
    found = [name for name in archive.namelist() if name.lower().endswith(".json")]
    names = [name for name in found if not any(map(_SKIPPED.fullmatch, name.split("/")))]
    if len(names) != 1:
        content = f"{len(names)} JSON files ({', '.join(map(shown, names[:4]))})" if names else "no JSON file"
        raise InputError(f"{path}: a zip archive with {content}; unpack it and name the file of annotations")
    return archive.open(names[0])


def _allowed(archive: Path) -> int:
    return max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * archive.stat().st_size)


def _unpack_zip(archive: Path, folder: Path, allowed: int) -> None:
    with zipfile.ZipFile(archive) as content:
        members = content.infolist()
        if sum(member.file_size + _OVERHEAD for member in members) > allowed:  # no more than that is ever read of one
            raise _bomb(archive)
        for member in members:
            is_plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            if name := _wanted(archive, _zip_name(member), folder, is_plain):
                member.filename = name
                content.extract(member, folder)


def _zip_name(member: zipfile.ZipInfo) -> str:
    """The name of a file; macOS and others write it in UTF-8 without saying so, and zipfile takes it for DOS's."""
    if not member.flag_bits & _SAYS_UTF8:
        with contextlib.suppress(UnicodeError):
            return member.filename.encode("cp437").decode("utf-8")
    return member.filename


def _unpack_tar(archive: Path, folder: Path, allowed: int) -> None:
    with archive.open("rb") as file:
        opener = _opener(file.read(6))
    with archive.open("rb") if opener is None else opener(archive) as stream:
        bounded = _Bounded(stream, archive, allowed)
        with tarfile.TarFile(fileobj=cast(Any, bounded)) as content:
            while (member := content.next()) is not None:
                content.members.clear()  # type: ignore[attr-defined]  # it keeps them all, of millions
                is_plain = member.isdir() or (member.isreg() and not member.issparse() and member.size >= 0)
                if name := _wanted(archive, member.name, folder, is_plain):
                    plain = member.replace(name=name, mode=cast(Any, None))
                    content.extract(plain, folder, set_attrs=False, filter="data")
        while bounded.read(_CHUNK):  # the checksum of a compressed tar is at its very end
            pass


def _wanted(archive: Path, name: str, folder: Path, is_plain: bool) -> str | None:
    """The name of a file or folder to unpack, with forward slashes; None for what is left out."""
    name = name.replace("\\", "/")  # some archivers of Windows
    path = safe_path(name, archive)
    if not is_plain:
        raise InputError(f"{archive}: {shown(name)} is a link, a device or a sparse file; nothing of it is used")
    if any(map(_SKIPPED.fullmatch, path.parts)):
        return None
    place = folder / path
    if place.is_file() and place.name not in [path.name for path in place.parent.iterdir()]:
        fix = "unpack it on a disk that tells upper from lower case"
        raise InputError(f"{archive}: {shown(name)} and another file in it are one file here; {fix}")
    return name


class _Bounded:
    """A stream that gives a mebibyte at a time at most (tarfile reads names whole), and a bounded number of bytes."""

    def __init__(self, stream: Any, archive: Path, left: int) -> None:
        self._stream, self._archive, self._left = stream, archive, left
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise ValueError(f"a header of {size} bytes")
        found: bytes = self._stream.read(size)
        self._left -= len(found)
        if self._left < 0:
            raise _bomb(self._archive)
        return found


def _bomb(archive: Path) -> InputError:
    return InputError(f"{archive}: it unpacks to far more than its size allows; get it elsewhere")
