"""Processes of tests, forked from one that has imported the libraries: starting Python takes longer than most of them.

The one is multiprocessing's fork server, which imports `tests.preloaded`. Processes that are started anew are tested
too: by the commands of `tests.commands.typed`, and by the tests with the fixture `spawned`.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from disbench.workers import processes

Result = subprocess.CompletedProcess[str]
SPAWNED = processes.CONTEXT


class Forked(ForkServerContext):
    """The server's processes, but with the environment of the process that starts them."""

    def Process(  # type: ignore[override]  # noqa: N802
        self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool | None = None
    ) -> BaseProcess:
        return ForkServerProcess(target=_begin, args=(dict(os.environ), target, *args), daemon=daemon)


def _begin(environment: dict[str, str], target: Callable[..., None], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]  # this process uses it, too
    target(*arguments)


def output_of(target: Callable[..., None], *arguments: Any) -> Result:
    """What a process that calls a function prints, and how it ends."""
    with tempfile.TemporaryDirectory() as folder:
        process = Forked().Process(_with_output, (folder, target, *arguments))
        process.start()
        process.join()
        output, errors = (Path(folder, name).read_text() for name in ("output", "errors"))
    assert process.exitcode is not None
    return Result([target.__name__, *map(str, arguments)], process.exitcode, output, errors)


def _with_output(folder: str, target: Callable[..., None], *arguments: Any) -> None:
    for number, (path, mode) in enumerate(
        ((os.devnull, os.O_RDONLY), (f"{folder}/output", os.O_WRONLY), (f"{folder}/errors", os.O_WRONLY))
    ):
        os.dup2(os.open(path, mode | os.O_CREAT), number)
    try:
        target(*arguments)
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None


def fork_workers() -> None:
    """From now on, fork the worker processes of this process and of those that it starts."""
    if sys.platform == "linux":
        multiprocessing.set_forkserver_preload(["tests.preloaded"])
        processes.CONTEXT = Forked()  # type: ignore[assignment]
