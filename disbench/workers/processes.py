"""Worker processes and their parent: who hears Ctrl-C, and who ends with whom."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def started_worker(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Start a worker process that shares nothing with another one, so that its death harms no other.

    Args:
        target: a function of a module: called there with the arguments, and its end of a pipe.
        arguments: small, since they travel by a pipe that a process which dies at its start never empties.

    Returns:
        The process, and this end of the pipe. When the process has ended, however it went, even amidst a
        message, receiving raises EOFError or OSError.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with interrupts_held_back():
        process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
        process.start()
    theirs.close()  # the process has the only copy: its death ends the pipe
    return process, ours


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes that are started in it never see one.

    A terminal sends it to the workers too, which would all print a traceback; ending them is this process's
    job.
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
    """End this process when its parent is gone, however it went."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def exit_words(exitcode: int | None) -> str:
    """How a process ended, in words: "killed by SIGKILL", "exit code 1"."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
