"""The engine of one machine: worker processes that share nothing."""

from __future__ import annotations

import contextlib
import pickle
import signal
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from disbench.io.files import naming
from disbench.workers.crew import Crew, Hiring
from disbench.workers.notices import Notices
from disbench.workers.processes import die_with_parent, exit_words, started_worker
from disbench.workers.work import Result, Task, Work, Worker, WorkerLost, answer

JOB = "workers.partial"
"""The pickled work beside the results, while there are workers."""


class LocalEngine(Notices):
    """Processes on this machine, started by "spawn".

    Args:
        workers: how many, at least 1; 1 works in this process, unless the work watches over processes itself.
    """

    name = "local"

    def __init__(self, workers: int = 1) -> None:
        super().__init__()
        self.workers = workers

    def in_order(self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path) -> Generator[Result, None, None]:
        """The results in the tasks' order (`Engine.in_order`)."""
        several, tasks = _several(tasks)
        if not work.watched and (self.workers <= 1 or not several):
            worker = work.begin(folder / JOB)
            for task in tasks:
                yield worker.do(task)
            return
        with self._crew(work, folder) as crew:
            yield from crew.in_order(tasks)

    def as_finished(
        self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path
    ) -> Generator[Result, None, None]:
        """The results as they come (`Engine.as_finished`)."""
        with self._crew(work, folder) as crew:
            yield from crew.as_finished(tasks)

    @contextlib.contextmanager
    def _crew(self, work: Work[Task, Result], folder: Path) -> Iterator[Crew[Task, Result]]:
        # The work travels by a file: through the pipe to a worker that dies at its start, it would block for ever.
        path = folder / JOB
        crew: Crew[Task, Result] = Crew(self.workers, partial(_begun, work, path), work.describe, self.tell)
        try:
            with naming(path), path.open("wb") as file:
                pickle.dump(work, file)
            yield crew
        finally:
            try:
                crew.end()
            finally:  # even if Ctrl-C falls into the end
                path.unlink(missing_ok=True)


def _several(tasks: Iterable[Task]) -> tuple[bool, Iterator[Task]]:
    """Whether there is more than one task, and all of them."""
    going = iter(tasks)
    first = list(islice(going, 2))
    return len(first) > 1, chain(first, going)


def _begun(work: Work[Any, Any], path: Path, hiring: Hiring) -> Worker[Any, Any]:
    return work.begin(path) if work.watched else _Process(path)


class _Process:
    """A worker that lives in a process, behind a pipe that only it writes to.

    In a pipe that several share, a process that is killed while it writes would leave half a message and a
    held lock, and all would wait for ever.
    """

    def __init__(self, path: Path) -> None:
        self._process, self._connection = started_worker(_live, path)

    def do(self, task: object) -> Any:
        """What the process makes of a task; waits for it."""
        try:
            self._connection.send(task)
            answered = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise WorkerLost(f"a worker process ended before its work ({exit_words(self._process.exitcode)})") from None
        if isinstance(answered, Exception):
            raise answered
        return answered

    def end(self) -> None:
        """Kill the process; whoever waits for it in `do` hears so."""
        self._process.kill()
        self._process.join()


def _live(path: Path, connection: Connection) -> None:
    """A worker's whole life: do what it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ending the workers is the parent's job
    die_with_parent()
    with path.open("rb") as file:
        work: Work[Any, Any] = pickle.load(file)
    worker = work.begin(path)
    try:
        while True:
            connection.send(answer(worker, connection.recv()))
    except (EOFError, OSError):  # the parent is gone
        return
