"""What the fuzz tests share: the process that reads, what must hold of its answer, and damaged bytes."""

from __future__ import annotations

import os
import struct
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from disbench.workers.processes import WorkerProcess
from tests.fuzz import reader_process

pytestmark_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")
TIMES = float(os.environ.get("DISBENCH_FUZZ_EXAMPLES", "1"))
PATIENCE = 600
"""Seconds for a file; machines of continuous integration are slow."""
SENTENCE = 1500
"""Characters of a message at most: paths are long, values from outside are shortened."""

CONTROL = {"Cc", "Cs"}
"""Categories of characters that no message has: a terminal obeys the first, a half character is no text."""


def examples(count: int) -> settings:
    """Hypothesis's settings for a number of examples, times DISBENCH_FUZZ_EXAMPLES."""
    return settings(
        max_examples=max(1, int(count * TIMES)), deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
    )


class Reader:
    """The process that reads; a new one takes the place of one that died."""

    def __init__(self) -> None:
        self._process: WorkerProcess | None = None

    def __call__(self, name: str, path: Path, *, root: Path | None = None, allowed: int) -> str | None:
        """Read a file or folder in the other process and see that the promise holds.

        Args:
            name: of `reader_process.READERS`.
            path: of the file or folder.
            root: the folder in which files may be opened; by default the file's.
            allowed: bytes of memory that the reader may take for it.

        Returns:
            The refusal; None for a result.
        """
        if self._process is None:
            self._process = WorkerProcess(reader_process.serve)
        connection = self._process.connection
        connection.send((name, str(path), str(root or path.parent), allowed))
        if not connection.poll(PATIENCE):
            self._process.kill()
            self._process = None
            raise AssertionError(f"reading {path} as {name} takes more than {PATIENCE} s")
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            how, self._process = self._process.exit_cause(), None
            raise AssertionError(f"the process that read {path} as {name} died ({how})") from None
        assert answer["fault"] is None, answer["fault"]
        assert answer["seen"] == [], answer["seen"]
        assert answer["peak"] <= allowed, f"{answer['peak']} bytes, where {allowed} are stated"
        message: str | None = answer["message"]
        if message is not None:
            assert not {unicodedata.category(character) for character in message} & CONTROL
            assert len(message) < SENTENCE
            assert str(root or path.parent) in message or path.name in message
        return message

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()


_WORDS = (b"", b"\0", b"\xff" * 4, b"[" * 40, b"]", b"{", b"}", b'"', b"\\", b",", b":", b"-", b"e9", b"NaN")
_WORDS += (b"9" * 30, b"\xed\xa0\x80", b"../", b"null", b"\x80\x05", b"1e999", b"-Infinity", b"true")
_NUMBERS = (0, 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


@st.composite
def damaged(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of some valid files after one to five accidents: bits, bytes, runs, numbers, order, end."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.one_of(st.integers(1, 8), st.integers(1, max(1, len(data)))))
        what = draw(st.sampled_from(("bit", "byte", "delete", "insert", "word", "number", "repeat", "cut")))
        if not data:
            break
        if what == "bit":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "byte":
            data[place] = draw(st.integers(0, 255))
        elif what == "delete":
            del data[place : place + length]
        elif what == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=9))
        elif what == "word":
            data[place : place + draw(st.integers(0, 4))] = draw(st.sampled_from(_WORDS))
        elif what == "number":
            form = draw(st.sampled_from("<>")) + "I"
            data[place : place + 4] = struct.pack(form, draw(st.sampled_from(_NUMBERS)))
        elif what == "repeat":
            data[place:place] = data[place : place + length]
        else:
            del data[place:]
    return bytes(data)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def nest(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth
