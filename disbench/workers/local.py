"""The engine of one machine: worker processes that share nothing."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from disbench.io.files import naming
from disbench.workers.crew import Crew, Engine, Make, Result, Task, Work, Worker, WorkerLost, answer
from disbench.workers.processes import WorkerProcess

JOB = "workers.partial"
"""The pickled work beside the results, while there are workers."""


class LocalEngine(Engine):
    """Processes on this machine, started by "spawn".

    Args:
        workers: at least 1; 1 works in this process, unless the work watches processes of its own.
        daemon: False for work that starts processes of its own.
    """

    name = "local"

    def __init__(self, workers: int = 1, *, daemon: bool = True) -> None:
        super().__init__(workers)
        self._daemon = daemon

    def in_order(self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path) -> Generator[Result, None, None]:
        """The results in the order of the tasks (`Engine.in_order`)."""
        going = iter(tasks)
        first = list(islice(going, 2))
        if work.watched or (self.workers > 1 and len(first) > 1):
            yield from super().in_order(work, chain(first, going), folder)
            return
        worker = work.begin(folder / JOB)
        for task in chain(first, going):
            yield worker.do(task)

    @contextlib.contextmanager
    def _making(self, work: Work[Any, Any], folder: Path) -> Iterator[Make]:
        # The work travels by a file: a pipe to a worker that dies at its start would block.
        path = folder / JOB

        def make(crew: Crew[Any, Any]) -> Worker[Any, Any]:
            return work.begin(path) if work.watched else _ProcessWorker(path, self._daemon)

        try:
            with naming(path), path.open("wb") as file:
                pickle.dump(work, file)
            yield make
        finally:
            path.unlink(missing_ok=True)


class _ProcessWorker:
    """A worker that lives in a process of its own."""

    def __init__(self, path: Path, daemon: bool) -> None:
        self._process = WorkerProcess(_live, path, daemon=daemon)

    def do(self, task: object) -> Any:
        try:
            self._process.connection.send(task)
            answered = self._process.connection.recv()
        except (EOFError, OSError):
            raise WorkerLost(f"a worker process ended before its work ({self._process.ended()})") from None
        if isinstance(answered, Exception):
            raise answered
        return answered

    def end(self) -> None:
        self._process.kill()


def _live(path: Path, connection: Connection) -> None:
    """The life of a worker process: do what it is given until the parent is gone."""
    with path.open("rb") as file:
        work: Work[Any, Any] = pickle.load(file)
    worker = work.begin(path)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(answer(worker, connection.recv()))
