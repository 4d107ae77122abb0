"""Worker processes: isolated, immune to Ctrl-C, and terminated with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")


class WorkerProcess:
    """A spawned process with its own pipe.

    In a shared pipe, a process killed while writing would leave half a message and a held lock for all others. Here its
    death closes the pipe: receiving raises EOFError or OSError, even in the middle of a message.

    The process calls `target`, a module-level function, with the arguments and its end of the pipe. Keep the arguments
    small: a process that dies at its start never reads them. `daemon=False` is for a process that starts others.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any, daemon: bool = True) -> None:
        self.connection, child_end = CONTEXT.Pipe()
        with delay_interrupts():
            self._process = CONTEXT.Process(target=_run, args=(target, *arguments, child_end), daemon=daemon)
            self._process.start()
        child_end.close()  # the process holds the only copy

    def receive(self, deadline: float) -> Any:
        """The next message; TimeoutError at the deadline (`time.monotonic()`), EOFError or OSError if it has ended."""
        while not self.connection.poll():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            wait([self.connection], min(left, 3600.0))
        return self.connection.recv()

    def exit_cause(self) -> str:
        """How the process ended, once its pipe is closed: "killed by SIGKILL", "exit code 1"."""
        self._process.join(10.0)
        self.kill()  # it may only have closed the pipe
        return describe_exit(self._process.exitcode)

    def kill(self) -> None:
        """Kill the process; a pending `receive` raises. May be called twice."""
        self._process.kill()
        self._process.join()


def _run(target: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping the workers is the parent's job
    die_with_parent()
    target(*arguments)


@contextlib.contextmanager
def delay_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block; processes started in it never receive it.

    A terminal sends Ctrl-C to all processes, and each would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent() -> None:
    """End this process when its parent ends for any reason."""

    def wait_and_exit() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()


def describe_exit(exitcode: int | None) -> str:
    """How a process ended: "killed by SIGKILL", "exit code 1"."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
