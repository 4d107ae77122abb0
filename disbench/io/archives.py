"""Unpack untrusted archives: regular files and folders only, and nothing outside the target folder.

`zipfile` and `tarfile` write the files. Unlike `tarfile.data_filter`, which allows links inside the folder and any
size, this refuses links (unpacked files are moved later) and bounds the unpacked size.
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

from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_FOLDERS, MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO
from disbench.io.files import has_control_character, is_inside_folder, open_regular

_OVERHEAD = 512  # bytes charged for each entry on top of its content: a million empty files are a bomb too
_CHUNK = 2**20
_UTF8_FLAG = 0x800  # flag of a zip entry
_SKIPPED = re.compile(r"__MACOSX|\._.*|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE)  # added by operating systems
# Magic bytes of a compressed file -> function that opens it.
_OPENERS: Mapping[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# Errors caused by a name in the archive, not by the disk.
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)


def unpack(archive: Path, folder: Path, limit: int | None = None) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) archive, recognised by its content, into an empty folder.

    `limit` bounds the total unpacked bytes; by default 100 times the archive's size, but at least 64 MiB. `InputError`
    if it is not an archive, is damaged or encrypted, exceeds the limit, or contains a path outside the folder, a link,
    a device or a sparse file. Files unpacked before the error stay.
    """
    allowed = _size_limit(archive) if limit is None else limit
    with _damage_errors(archive, "zip or tar archive", "download it again, or correct the card (unpack = false)"):
        (_unpack_zip if zipfile.is_zipfile(archive) else _unpack_tar)(archive, folder, allowed)


@contextlib.contextmanager
def _damage_errors(archive: Path, kind: str, fix: str) -> Iterator[None]:
    """Turn any error caused by damaged bytes into an `InputError`; each library raises its own."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # EOFError, zlib.error ...
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _NAME_ERRORS:
            raise
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{archive}: not a complete {kind} ({words}); {fix}") from None


def safe_path(name: str, where: object) -> PurePosixPath:
    """A relative path that stays inside its folder on every system.

    `InputError`, starting with `where`, for an absolute path, one with `..`, a drive, a backslash, a control character
    or a lone surrogate, or one deeper than 64 folders.
    """
    path = PurePosixPath(name)
    if has_control_character(name):
        raise InputError(f"{where}: the path {quote(name)} has a control character or is not UTF-8; rename the file")
    if "\\" in name or not is_inside_folder(name) or len(path.parts) > MAX_FOLDERS:
        raise InputError(f"{where}: the path {quote(name)} is not a relative path inside its folder")
    return path


def open_unpacked(path: Path) -> IO[bytes]:
    """Open JSON for reading as UTF-8: the file itself, or a temporary copy if it is compressed or in UTF-16 or UTF-32.

    Recognised by content: plain, gzip, bz2 or xz, or the only JSON file in a zip archive, with or without a BOM.
    """
    file = open_regular(path, "no such file; check the path")
    begin = file.peek(6)[:6]
    with _damage_errors(path, "JSON file", "download it again"):
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
                shutil.copyfileobj(cast(Any, _Bounded(stream, path, _size_limit(path))), copy, _CHUNK)
                copy.flush()
    return copy


def _opener(begin: bytes) -> Callable[..., Any] | None:
    return next((opener for magic, opener in _OPENERS.items() if begin.startswith(magic)), None)


def _only_json(archive: zipfile.ZipFile, path: Path) -> IO[bytes]:
    found = [name for name in archive.namelist() if name.lower().endswith(".json")]
    names = [name for name in found if not any(map(_SKIPPED.fullmatch, name.split("/")))]
    if len(names) != 1:
        content = f"{len(names)} JSON files ({', '.join(map(quote, names[:4]))})" if names else "no JSON file"
        raise InputError(f"{path}: a zip archive with {content}; unpack it and name the annotation file")
    return archive.open(names[0])


def _size_limit(archive: Path) -> int:
    return max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * archive.stat().st_size)


def _unpack_zip(archive: Path, folder: Path, allowed: int) -> None:
    with zipfile.ZipFile(archive) as content:
        members = content.infolist()
        if sum(member.file_size + _OVERHEAD for member in members) > allowed:  # zipfile reads no more than file_size
            raise _bomb_error(archive)
        for member in members:
            is_plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            if name := _target_name(archive, _zip_name(member), folder, is_plain):
                member.filename = name
                content.extract(member, folder)


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Name of a zip entry; macOS and others write UTF-8 without setting the flag, and zipfile then decodes CP437."""
    if not member.flag_bits & _UTF8_FLAG:
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
                content.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member in memory
                is_plain = member.isdir() or (member.isreg() and not member.issparse() and member.size >= 0)
                if name := _target_name(archive, member.name, folder, is_plain):
                    plain = member.replace(name=name, mode=cast(Any, None))
                    content.extract(plain, folder, set_attrs=False, filter="data")
        while bounded.read(_CHUNK):  # read to the end, where a compressed tar has its checksum
            pass


def _target_name(archive: Path, name: str, folder: Path, is_plain: bool) -> str | None:
    """Path to unpack an entry to, with forward slashes; None for skipped entries."""
    name = name.replace("\\", "/")  # written by some Windows archivers
    path = safe_path(name, archive)
    if not is_plain:
        raise InputError(f"{archive}: {quote(name)} is a link, a device or a sparse file, which are not allowed")
    if any(map(_SKIPPED.fullmatch, path.parts)):
        return None
    place = folder / path
    if place.is_file() and place.name not in [path.name for path in place.parent.iterdir()]:
        fix = "unpack it on a case-sensitive disk"
        raise InputError(f"{archive}: {quote(name)} and another entry have the same path here; {fix}")
    return name


class _Bounded:
    """A stream that limits each read to 1 MiB (tarfile reads whole names at once) and the total to `left` bytes."""

    def __init__(self, stream: Any, archive: Path, left: int) -> None:
        self._stream, self._archive, self._left = stream, archive, left
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise ValueError(f"a header of {size} bytes")
        found: bytes = self._stream.read(size)
        self._left -= len(found)
        if self._left < 0:
            raise _bomb_error(self._archive)
        return found


def _bomb_error(archive: Path) -> InputError:
    return InputError(f"{archive}: it unpacks to far more than its size allows; get it from another source")
