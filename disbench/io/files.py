"""Files that are whole or not there, and names of files that come from elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple
from unicodedata import normalize

from disbench.core.errors import InputError
from disbench.core.limits import MAX_NAME

Existing = Literal["resume", "overwrite", "fail"]  # what to do with results that are there already
MISSING = "there is no such file; the dataset is incomplete, get it again"


class Stamp(NamedTuple):
    """What shows that a file has changed: its bytes (-1 if there is no such file) and time of change in nanoseconds."""

    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The stamp of a file, which need not be there."""
        try:
            found = path.stat()
        except OSError:
            return cls(-1, 0)
        return cls(found.st_size, found.st_mtime_ns)

    def holds(self, path: Path) -> bool:
        """Whether the file still has this stamp."""
        return Stamp.of(path) == self


def user_cache() -> Path:
    """The folder of disbench in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "disbench"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that gets its name only when it is written to the end and on the disk.

    Yields it open for writing bytes, under a temporary name beside `path`, whose folder exists. An error in the block,
    or a kill, leaves what was at `path` before.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with naming(path):
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_files(contents: Mapping[str, bytes | None], out: Path) -> list[Path]:
    """Write files atomically (name -> bytes; None removes it) into a folder; the paths of those written."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in contents.items():
        if content is None:
            (out / name).unlink(missing_ok=True)
            continue
        with whole_file(out / name) as file:
            file.write(content)
        written.append(out / name)
    return written


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an error of the operating system a file's name, where it has none, as for a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder, removed at the end. Two processes must not use one at the same time."""
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_regular(path: Path, missing: str = MISSING) -> BufferedReader:
    """Open a file for reading, but no device or pipe, which could be endless or never answer.

    `InputError` if it is missing (it ends with `missing`), not a file, or cannot be read.
    """
    try:
        if (kind := stat.S_IFMT(path.stat().st_mode)) == stat.S_IFREG:
            return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}); check the path") from None
    except ValueError:  # a null in the name
        raise InputError(f"{str(path)!r}: not a valid file name; correct it where it is named") from None
    found = "folder" if kind == stat.S_IFDIR else "device, a pipe or a socket"
    raise InputError(f"{path}: this is a {found}, not a file; check the path")


def bounded_bytes(path: Path, most: int, fix: str, missing: str = MISSING) -> bytes:
    """The bytes of a file; `InputError` as `open_regular`, or for a file of more than `most` (it ends with `fix`)."""
    with open_regular(path, missing) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{path}: more than {most} bytes; {fix}")
    return data


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; `InputError` if there is no such file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stays_inside(name: str) -> bool:
    """Whether a relative path from elsewhere stays in its folder on every system; links in the folder are followed."""
    return not (_OUTWARD.search(name) or "\0" in name)


def is_utf8(name: str) -> bool:
    """Whether a name is one that JSON and Parquet can hold: systems allow names of any bytes."""
    return name.isascii() or not _HALF.search(name)


def has_control(name: str) -> bool:
    """Whether a name has a control character, or half a character, which stands for bytes that are not UTF-8."""
    return bool(_CONTROL.search(name))


def unicode_forms(name: str) -> tuple[str, str, str]:
    """A name as it is, composed and decomposed: systems and tools differ in how they write "é"."""
    return name, normalize("NFC", name), normalize("NFD", name)


def relative_path(name: str) -> str:
    """A file's path as another tool wrote it, as a relative path with forward slashes that stays in its folder.

    Of an absolute path the root goes, of an address the host and what follows a "?", of a path with ".." all up to the
    last one, and of Label Studio's "/data/local-files/?d=a/b.jpg" all up to "d=". Other paths stay as they are.
    ValueError for one longer than `MAX_NAME`, with a control character or half a character, or a drive without a slash.
    """
    if len(name) > MAX_NAME or has_control(name):
        raise ValueError(f"a path has at most {MAX_NAME} characters, none of them a control character")
    path = name.partition("local-files/?d=")[2] or name
    if address := _ADDRESS.match(path):
        path = path[address.end() :].partition("?")[0]
    if path != name or "\\" in name or not stays_inside(name):
        parts = _DRIVE.sub("", path).replace("\\", "/").split("/")
        inside = parts[len(parts) - parts[::-1].index("..") :] if ".." in parts else parts
        path = "/".join(part for part in inside if part not in ("", "."))
    if not stays_inside(path):
        raise ValueError("a path cannot begin with a letter and a colon")
    return path


_OUTWARD = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")  # a root, a drive, or a step up
_DRIVE = re.compile(r"^(\\\\\?\\)?[A-Za-z]:(?=[/\\])")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/]*")
_HALF = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
