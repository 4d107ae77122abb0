"""Processes of tests, forked from one that has imported the libraries: starting Python takes longer than most of them.

The one is multiprocessing's fork server, which imports `tests.preloaded`. Processes that are started anew are tested
too: by the commands of `tests.commands.typed`, and by the tests with the fixture `spawned`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

from disbench.workers import processes

SPAWNED = processes.CONTEXT


class Forked:
    """A context of multiprocessing whose processes are forked by the server, with this process's environment."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self._make, self.Pipe = context.Process, context.Pipe

    def Process(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> BaseProcess:  # noqa: N802
        return self._make(target=_begin, args=(dict(os.environ), target, *args), daemon=daemon)


def _begin(environment: dict[str, str], target: Callable[..., None], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]  # this process uses it, too
    target(*arguments)


def fork_workers() -> None:
    """From now on, fork the worker processes of this process and of those that it starts."""
    if sys.platform == "linux":
        multiprocessing.set_forkserver_preload(["tests.preloaded"])
        processes.CONTEXT = Forked()  # type: ignore[assignment]
