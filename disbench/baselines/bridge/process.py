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

import numpy.typing as npt

from disbench.baselines.bridge.child import MAGIC, WireError, packed, read_message
from disbench.processes import interrupts_held_back

_WORDS = 4096
"""Bytes of the child's standard error that are kept."""
_LAST = 300
"""Characters of them that an error quotes."""
_PIPE_BYTES = 1 << 20
_PARTING_SECONDS = 2.0

Answer = tuple[dict[str, Any], list[npt.NDArray[Any]]]


class BridgeError(Exception):
    """The program did not answer as it should; one sentence that says how."""


class Child:
    """A child process.

    Args:
        command: that starts it.
        timeout: seconds until it must be ready.

    Attributes:
        versions: what it said of itself when it was ready.

    Raises:
        BridgeError: it cannot be started, ends, is late, or says something else than that it is ready.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._words = bytearray()
        try:
            with interrupts_held_back():
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    env=_environment(),
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
        header, _ = self._guarded("to start", timeout, lambda end: self._read(end, 0))
        if header.get("type") != "ready" or header.get("protocol") != 1:
            self.end()
            raise BridgeError(f"the program says {header.get('type')!r} where it should say that it is ready")
        versions = header.get("versions")
        self.versions: Mapping[str, str] = (
            {str(name): str(text) for name, text in versions.items()} if isinstance(versions, dict) else {}
        )

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(
        self,
        header: Mapping[str, Any],
        arrays: Sequence[npt.NDArray[Any]] = (),
        *,
        timeout: float,
        most_bytes: int = 0,
    ) -> Answer:
        """Send a message and wait for the answer.

        Args:
            header: with its type.
            arrays: that belong to it.
            timeout: seconds, for both.
            most_bytes: of the answer's arrays.

        Raises:
            BridgeError: it ended, is late, answers nonsense (it is ended then), or tells of an error of its own.
        """

        def talk(end: float) -> Answer:
            for piece in packed(header, arrays):
                self._write(piece, end)
            return self._read(end, most_bytes)

        return self._guarded(f"to {header['type']}", timeout, talk)

    def end(self) -> None:
        """End it, whatever it does, and what it started."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if self._process.poll() is not None else _PARTING_SECONDS)
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(_PARTING_SECONDS)

    def _guarded(self, what: str, timeout: float, talk: Any) -> Answer:
        """A conversation; what goes wrong in it ends the child and becomes a sentence."""
        try:
            header, arrays = talk(time.monotonic() + timeout)
        except TimeoutError:
            self._kill()
            raise BridgeError(
                f"the program was asked {what} and did not answer within {timeout:g} s{self._quoted()}"
            ) from None
        except WireError as error:
            self._kill()
            raise BridgeError(
                f"the program was asked {what} and wrote {error}; its standard output is for the protocol alone, "
                f"which begins each message with {MAGIC!r}{self._quoted()}"
            ) from None
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PARTING_SECONDS)
            ended = self._process.poll()
            self._kill()
            raise BridgeError(f"the program was asked {what} and {_how(ended)}{self._quoted()}") from None
        if header["type"] == "error":
            where = f" ({header['where']})" if header.get("where") else ""
            raise BridgeError(f"the program was asked {what} and raised {header.get('error')}{where}")
        return header, arrays

    def _read(self, end: float, most_bytes: int) -> Answer:
        found: Answer = read_message(lambda count: self._read_exactly(count, end), most_bytes)
        return found

    def _read_exactly(self, count: int, end: float) -> bytearray:
        content = bytearray(count)
        view, done = memoryview(content), 0
        while done < count:
            _wait(self._incoming, select.POLLIN, end)
            got = os.readv(self._incoming, [view[done:]])
            if not got:
                raise EOFError
            done += got
        return content

    def _write(self, piece: bytes | memoryview, end: float) -> None:
        view = memoryview(piece)
        while view:
            _wait(self._outgoing, select.POLLOUT, end)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._outgoing, view) :]

    def _listen(self) -> None:
        """Keep the end of what the child says on standard error, so that it never waits to be heard."""
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            while said := self._process.stderr.read(1 << 16):
                self._words = (self._words + said)[-_WORDS:]

    def _quoted(self) -> str:
        words = " ".join(bytes(self._words).decode(errors="replace").split())[-_LAST:]
        return f"; its last words: {words}" if words else ""


def _wait(descriptor: int, event: int, end: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left = end - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError


def _widen(descriptor: int) -> None:
    """Let a pipe hold a mask, where the system can: each round trip between two processes costs."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl  # noqa: PLC0415

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _environment() -> dict[str, str]:
    """The child's: it has a Python of its own, so what points this one to its modules is left out."""
    return {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _how(code: int | None) -> str:
    if code is None:
        return "closed its standard output"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def child_file() -> Path:
    """The program that runs adapters."""
    return Path(__file__).with_name("child.py")
