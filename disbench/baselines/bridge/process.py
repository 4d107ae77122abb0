"""The parent's side of the bridge: one child process, asked and watched."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.baselines.bridge.child import MAGIC, PROTOCOL, WireError, packed, read_message
from disbench.core.prediction import MethodError
from disbench.workers.processes import exit_words, interrupts_held_back

_WORDS = 4096
"""Bytes of the child's standard error that are kept."""
_SENTENCE = 300
"""Longest error, characters, as in a failure's record."""
_FEWEST_WORDS = 60
_BEGINNING = 60
"""Bytes of a message that an error quotes."""
_PIPE_BYTES = 1 << 20
_PARTING_SECONDS = 2.0
_GLANCE_SECONDS = 0.5
"""Interval of checks on a silent child: processes that it started may hold its pipes open when it is gone."""
_ANSWERS = {"start": "ready", "open": "opened", "predict": "prediction", "keep": "kept"}

SHIMS = Path(__file__).with_name("shims")
"""Folder of `sitecustomize.py`, which completes what an older system finds too new."""
Answer = tuple[dict[str, Any], list[npt.NDArray[Any]]]


class BridgeError(MethodError):
    """The program did not answer as the protocol asks; one sentence says what it did."""


class Child:
    """A child process, started by a command, which must be ready within `timeout` seconds."""

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._words, self._heard, self._over = bytearray(), bytearray(), False
        # The child has a Python of its own, which must not search this one's modules.
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONHOME"}
        environment["PYTHONPATH"] = str(SHIMS)
        try:
            with interrupts_held_back():
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise BridgeError(f"{command[0]} cannot be started ({error.strerror})") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._incoming, self._outgoing = self._process.stdout.fileno(), self._process.stdin.fileno()
        os.set_blocking(self._outgoing, False)
        _widen(self._incoming)
        _widen(self._outgoing)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        header, _ = self._converse("start", (), timeout, 0)
        if header.get("protocol") != PROTOCOL:
            self.end()
            raise BridgeError(
                f"the program speaks protocol {_plain(header.get('protocol'))}, where {PROTOCOL} is known"
            )
        self.takes_granularity = header.get("granularity") is True
        versions = header.get("versions")
        self.versions: Mapping[str, str] = (
            {_plain(name): _plain(text) for name, text in versions.items()} if isinstance(versions, dict) else {}
        )

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._process.poll() is None

    def ask(
        self, header: Mapping[str, Any], arrays: Sequence[npt.NDArray[Any]] = (), *, timeout: float, most_bytes: int = 0
    ) -> Answer:
        """Send a message and wait for the answer, both within `timeout` seconds.

        Raises:
            BridgeError: it ended, is late, reports an error, or breaks the protocol or sends arrays of more than
                `most_bytes` (it is ended then).
        """
        return self._converse(header["type"], packed(header, arrays), timeout, most_bytes)

    def end(self, patience: float = _PARTING_SECONDS) -> None:
        """End it and its own children; after its input is closed it has `patience` seconds to end by itself."""
        if self._over:
            return  # its number may be another's by now
        self._over = True
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._wait_for_end(patience)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(_PARTING_SECONDS)

    def _wait_for_end(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def _converse(self, verb: str, pieces: Sequence[Any], timeout: float, most_bytes: int) -> Answer:
        """A message and its answer.

        Failure and interruption end the child: the rest of an answer would be taken for the answer to the next message.
        """
        asked = f"the program was asked to {verb} and"
        end = time.monotonic() + timeout
        self._heard.clear()
        try:
            for piece in pieces:
                self._write(piece, end)
            header, arrays = read_message(lambda count: self._read(count, end), most_bytes)
        except (WireError, EOFError, OSError) as error:
            happened = self._what_happened(error, timeout)
            self.end(0)
            raise self._told(f"{asked} {happened}") from None
        except BaseException:
            self.end(0)
            raise
        if header["type"] == "error":
            if verb == "start":
                self.end(0)
            raise BridgeError(f"{asked} raised {_error_of(header, _SENTENCE - len(asked) - 8)}")
        if header["type"] != _ANSWERS[verb]:
            self.end(0)
            raise BridgeError(f"{asked} answered {_plain(header['type'])[:40]!r} where {_ANSWERS[verb]!r} was due")
        return header, arrays

    def _what_happened(self, error: Exception, timeout: float) -> str:
        if isinstance(error, WireError):
            wrote = f"{found} where a message was due" if (found := self._garbage()) else str(error)
            return f"wrote {wrote}; its standard output is for the protocol alone"
        if isinstance(error, TimeoutError):
            happened = f"did not answer within {timeout:g} s"
        else:
            self._wait_for_end(_PARTING_SECONDS)
            happened = _how(self._process.poll())
        wrote = self._garbage()
        return f"wrote {wrote}, and {happened}" if wrote else happened

    def _read(self, count: int, end: float) -> npt.NDArray[np.uint8]:
        content = np.empty(count, dtype=np.uint8)  # unlike a bytearray it is not filled with zeros first
        view, done = content.data, 0
        while done < count:
            self._wait(self._incoming, select.POLLIN, end)
            got = os.readv(self._incoming, [view[done:]])
            if not got:
                raise EOFError
            if len(self._heard) < _BEGINNING:
                self._heard += view[done : done + min(got, _BEGINNING)]
            done += got
        return content

    def _write(self, piece: bytes | memoryview, end: float) -> None:
        view = memoryview(piece)
        while view:
            self._wait(self._outgoing, select.POLLOUT, end)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._outgoing, view) :]

    def _listen(self) -> None:
        """Keep the end of the child's standard error, so that it never waits for a reader."""
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError), self._process.stderr as stream:
            while said := stream.read(1 << 16):
                self._words = (self._words + said)[-_WORDS:]

    def _wait(self, descriptor: int, event: int, end: float) -> None:
        """Wait until a pipe can be read or written; EOFError if the child is gone and left nothing to read."""
        poll = select.poll()
        poll.register(descriptor, event)
        while (left := end - time.monotonic()) > 0:
            gone = not self.alive
            if poll.poll(0 if gone else 1000 * min(left, _GLANCE_SECONDS)):
                return
            if gone:
                raise EOFError
        raise TimeoutError

    def _garbage(self) -> str:
        """Its output in place of a message; "" if that may be the beginning of one."""
        heard = bytes(self._heard)
        if heard.startswith(MAGIC[: len(heard)]):
            return ""
        if select.select([self._incoming], [], [], 0)[0]:
            heard += os.read(self._incoming, _BEGINNING)
        return repr(heard[:_BEGINNING])

    def _told(self, sentence: str) -> BridgeError:
        """An error with the child's last words, cut to fit."""
        words = _plain(bytes(self._words).decode(errors="replace"))
        sentence = sentence[: _SENTENCE - _FEWEST_WORDS] if words else sentence
        joined = f"{sentence}; its last words: "
        return BridgeError(joined + words[len(joined) - _SENTENCE :] if words else sentence)


def _plain(text: object) -> str:
    """A text from the child on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _error_of(header: Mapping[str, Any], length: int) -> str:
    where = f" ({_plain(header['where'])[:60]})" if header.get("where") else ""
    return _plain(header.get("error") or "an error without words")[: length - len(where)] + where


def _widen(descriptor: int) -> None:
    """Let a pipe hold a mask, if the system can: round trips between processes are slow."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl  # noqa: PLC0415

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _how(code: int | None) -> str:
    if code is None:
        return "closed its standard output"
    return f"{'was' if code < 0 else 'ended with'} {exit_words(code)}"
