"""Atomic writes, bounded reads, and file names from untrusted sources."""

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

Existing = Literal["resume", "overwrite", "fail"]  # what to do if results exist
MISSING = "no such file; the dataset is incomplete, get it again"


class Stamp(NamedTuple):
    """Detects changes of a file: its size in bytes (-1 if missing) and its modification time in nanoseconds."""

    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Stamp of a file, which may be missing."""
        try:
            found = path.stat()
        except OSError:
            return cls(-1, 0)
        return cls(found.st_size, found.st_mtime_ns)

    def matches(self, path: Path) -> bool:
        """True if the file still has this stamp."""
        return Stamp.of(path) == self


def user_cache() -> Path:
    """The folder for disbench in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "disbench"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write a file atomically.

    Yields a binary file under a temporary name beside `path`, whose folder must exist; at the end it is synced to disk
    and renamed. If the block raises or the process is killed, `path` keeps its previous content.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with add_file_name(path):
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_files(contents: Mapping[str, bytes | None], out: Path) -> list[Path]:
    """Write files (name -> bytes; None deletes) into `out`, each atomically; returns the paths written."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in contents.items():
        if content is None:
            (out / name).unlink(missing_ok=True)
            continue
        with atomic_write(out / name) as file:
            file.write(content)
        written.append(out / name)
    return written


@contextmanager
def add_file_name(path: Path) -> Iterator[None]:
    """Add a file name to operating system errors that have none, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder, removed at the end. Two processes must not use the same one."""
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_regular(path: Path, missing: str = MISSING) -> BufferedReader:
    """Open a regular file for reading; a device or pipe could block or never end.

    `InputError` if it is missing (the message ends with `missing`), not a regular file, or unreadable.
    """
    try:
        if (kind := stat.S_IFMT(path.stat().st_mode)) == stat.S_IFREG:
            return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError:  # a null in the name
        raise InputError(f"{str(path)!r}: not a valid file name; correct it where it is given") from None
    found = "folder" if kind == stat.S_IFDIR else "device, pipe or socket"
    raise InputError(f"{path}: is a {found}, not a file; check the path")


def read_bounded(path: Path, most: int, fix: str, missing: str = MISSING) -> bytes:
    """Contents of a file; `InputError` as `open_regular`, or (ending with `fix`) if it exceeds `most` bytes."""
    with open_regular(path, missing) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{path}: more than {most} bytes; {fix}")
    return data


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; `InputError` if it is missing."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_inside_folder(name: str) -> bool:
    """True if an untrusted relative path stays in its folder on every system; links in the folder are followed."""
    return not (_OUTWARD.search(name) or "\0" in name)


def is_utf8(name: str) -> bool:
    """True if a file name is valid UTF-8, which JSON and Parquet require and file systems do not."""
    return name.isascii() or not _SURROGATE.search(name)


def has_control_character(name: str) -> bool:
    """True if a name has a control character or a lone surrogate, which stands for bytes that are not UTF-8."""
    return bool(_CONTROL.search(name))


def unicode_forms(name: str) -> tuple[str, str, str]:
    """A name as given, composed (NFC) and decomposed (NFD): systems and tools write "é" differently."""
    return name, normalize("NFC", name), normalize("NFD", name)


def relative_path(name: str) -> str:
    """Turn a path written by another tool into a relative path with forward slashes that stays in its folder.

    Removes the root of an absolute path, the host and query of an address, everything up to the last "..", and the
    prefix of Label Studio's "/data/local-files/?d=a/b.jpg". Other paths stay unchanged. ValueError if it is longer
    than `MAX_NAME`, has a control character or a lone surrogate, or has a drive without a slash.
    """
    if len(name) > MAX_NAME or has_control_character(name):
        raise ValueError(f"a path has at most {MAX_NAME} characters and no control characters")
    path = name.partition("local-files/?d=")[2] or name
    if address := _ADDRESS.match(path):
        path = path[address.end() :].partition("?")[0]
    if path != name or "\\" in name or not is_inside_folder(name):
        parts = _DRIVE.sub("", path).replace("\\", "/").split("/")
        inside = parts[len(parts) - parts[::-1].index("..") :] if ".." in parts else parts
        path = "/".join(part for part in inside if part not in ("", "."))
    if not is_inside_folder(path):
        raise ValueError("a path cannot begin with a letter and a colon")
    return path


_OUTWARD = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")  # a root, a drive, or a step up
_DRIVE = re.compile(r"^(\\\\\?\\)?[A-Za-z]:(?=[/\\])")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
