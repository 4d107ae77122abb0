"""Worker processes: started so that they share nothing, deaf to Ctrl-C, ended with their parent."""

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
    """A spawned process behind a pipe that no other process writes to.

    In a shared pipe, a process killed while it writes would leave half a message and a held lock for all. Here its
    death closes the pipe: receiving raises EOFError or OSError, even in the middle of a message.

    `target` is a module-level function, called in the process with the arguments (small: one that
    dies at its start never takes them) and its end of the pipe; `daemon=False` for one that starts others.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any, daemon: bool = True) -> None:
        self.connection, theirs = CONTEXT.Pipe()
        with interrupts_held_back():
            self._process = CONTEXT.Process(target=_run, args=(target, *arguments, theirs), daemon=daemon)
            self._process.start()
        theirs.close()  # the process holds the only copy

    def receive(self, deadline: float) -> Any:
        """The next message; TimeoutError at a deadline (`time.monotonic()`), EOFError or OSError if it has ended."""
        while not self.connection.poll():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            wait([self.connection], min(left, 3600.0))
        return self.connection.recv()

    def ended(self) -> str:
        """How the process ended, once its pipe is closed: "killed by SIGKILL", "exit code 1"."""
        self._process.join(10.0)
        self.kill()  # one that only closed the pipe
        return exit_words(self._process.exitcode)

    def kill(self) -> None:
        """End the process at once; whoever waits for a message hears so. May be called twice."""
        self._process.kill()
        self._process.join()


def _run(target: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping the workers is the parent's job
    die_with_parent()
    target(*arguments)


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits until the end of the block, and processes started in it never see it.

    A terminal sends it to all processes, and each would print a traceback.
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
    """End this process when its parent is gone, for any reason."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def exit_words(exitcode: int | None) -> str:
    """How a process ended: "killed by SIGKILL", "exit code 1"."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
