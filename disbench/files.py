"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what a file is seen to be another one than before.

    Attributes:
        size: bytes; -1 if there is no such file.
        changed: time of the last change in nanoseconds.
    """

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


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that gets its name only when it is written to the end and on the disk.

    An error in the `with` block, or a kill, leaves what was at `path` before.

    Args:
        path: of the file; its folder exists.

    Yields:
        The file, open for writing bytes, under a temporary name beside `path`.
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


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an error of the operating system the name of the file that it is about, where it has none.

    A write to a full disk does not say which file it was for.

    Raises:
        OSError: as in the `with` block, with `filename` set.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
