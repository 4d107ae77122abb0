"""Work that every worker starts with once, tasks that any of them can do, and the supervision of workers.

One thread for each worker hands it tasks; a lost worker is replaced and its task repeated.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from disbench.core.errors import InputError
from disbench.io.files import naming
from disbench.workers.processes import WorkerProcess, interrupts_held_back

ATTEMPTS = 3  # times that a task is tried before losing its worker ends the job
TASKS_AHEAD = 4  # tasks for each worker that may be under way or wait to be taken; this bounds memory

_logger = logging.getLogger("disbench.workers")


Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class WorkerLost(Exception):  # noqa: N818 - something that happens to a worker, as StopIteration to an iterator
    """A worker ended before its task was done: killed, out of memory, its machine gone. Another may do the task."""


class Worker(Protocol[Task_contra, Result_co]):
    """Does one task at a time."""

    def do(self, task: Task_contra, /) -> Result_co:
        """The result of a task; `WorkerLost` if the worker has ended, other errors would meet any other worker too."""

    def end(self) -> None:
        """End at once, whatever is under way; whoever waits in `do` gets `WorkerLost`. May be called twice."""


class Work(Protocol[Task_contra, Result_co]):
    """A job as every worker needs it. Picklable, and so are its tasks and results.

    `watched`: its workers watch over a process of their own each, so they need none of the engine's.
    """

    watched: bool

    def begin(self, path: Path) -> Worker[Task_contra, Result_co]:
        """A worker, made where it will work; `path` has this very work, pickled, for processes that it starts."""

    def describe(self, task: Task_contra) -> str:
        """A task in words, for messages."""


def portable(error: Exception) -> Exception:
    """The error with a note on where it came from, or one that says the same if it cannot travel."""
    where = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError):
        return InputError("there is not enough memory for what a worker does; use fewer workers")
    error.add_note(f"In a worker process:\n{where}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(where)
    return error


def answer(worker: Worker[Any, Any], task: object) -> object:
    """What a worker makes of a task, or the error as a value that can travel; `WorkerLost` is raised."""
    try:
        return worker.do(task)
    except WorkerLost:
        raise
    except Exception as error:
        return portable(error)


# Makes a worker; may block; raises `WorkerLost` if the worker was lost at once.
Make = Callable[["Crew[Any, Any]"], Worker[Any, Any]]


class Crew(Generic[Task, Result]):
    """Up to `count` workers, started when needed, and the threads that wait for them.

    Threads take results while the caller handles others, so no worker waits for it. Workers are made by threads of
    their own: while there is no room for one, those that exist do the work. `describe` puts a task in words; `tell`
    gets a sentence for every worker that is lost.
    """

    def __init__(self, count: int, make: Make, describe: Callable[[Any], str], tell: Callable[[str], None]) -> None:
        self._count, self._make, self._describe, self._tell = count, make, describe, tell
        self._threads = ThreadPoolExecutor(count)
        self._lock = threading.Lock()
        self._ending = False
        self._workers: list[Worker[Any, Any]] = []
        self._hirings: list[threading.Thread] = []
        self._idle: SimpleQueue[Worker[Any, Any] | Exception] = SimpleQueue()

    def others(self) -> bool:
        """Whether there are workers already."""
        return bool(self._workers)

    def over(self) -> bool:
        """Whether no more workers are wanted."""
        return self._ending

    def in_order(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """The results in the order of the tasks."""
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(self._submit(task))
            if len(waiting) >= self._count * TASKS_AHEAD:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)

    def as_finished(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """The results in the order in which they finish."""
        waiting: set[Future[Result]] = set()
        for task in tasks:
            waiting.add(self._submit(task))
            if len(waiting) >= 2 * self._count:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        yield from (future.result() for future in as_completed(waiting))

    def end(self) -> None:
        """Stop all workers at once."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._ending = True
            workers = list(self._workers)
        self._idle.put(InputError("the job was ended"))  # nobody reads it: the caller has left
        for worker in workers:
            worker.end()
        self._threads.shutdown()
        for hiring in self._hirings:
            hiring.join()

    def _submit(self, task: Task) -> Future[Result]:
        with interrupts_held_back():  # it may start threads
            if len(self._hirings) < self._count:
                self._hire()
            return self._threads.submit(self._do, task)

    def _do(self, task: Task) -> Result:
        reasons: list[str] = []
        while len(reasons) < ATTEMPTS:
            worker = self._idle.get()
            if isinstance(worker, Exception):
                self._idle.put(worker)  # for the others that wait
                raise worker
            try:
                result: Result = worker.do(task)
            except WorkerLost as lost:
                reasons.append(str(lost))
                more = "; another worker does it again" if len(reasons) < ATTEMPTS else ""
                self._replace(worker, f"{self._describe(task)}: {lost}{more}")
            except BaseException:
                self._idle.put(worker)
                raise
            else:
                self._idle.put(worker)
                return result
        raise _lost_each_time(self._describe(task), reasons[-1])

    def _replace(self, worker: Worker[Any, Any], sentence: str) -> None:
        with self._lock:
            if self._ending:
                return
            self._workers.remove(worker)
            self._tell(sentence)
        worker.end()
        self._hire()

    def _hire(self) -> None:
        hiring = threading.Thread(target=self._make_one)
        self._hirings.append(hiring)
        hiring.start()

    def _make_one(self) -> None:
        try:
            worker = self._made()
        except Exception as error:
            self._idle.put(error)
            return
        with self._lock:
            if not self._ending:
                self._workers.append(worker)
                self._idle.put(worker)
                return
        worker.end()

    def _made(self) -> Worker[Any, Any]:
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                return self._make(self)
            except WorkerLost as lost:
                reason = str(lost)
                with self._lock:
                    if self._ending:
                        raise
                    self._tell(reason)
        raise _lost_each_time("starting a worker", reason)


def _lost_each_time(what: str, reason: str) -> InputError:
    fix = "run the same command again to resume, with fewer workers; a script must guard its call (`__main__`)"
    return InputError(f"{what}: {ATTEMPTS} times, {reason} (out of memory?); {fix}")


class Engine(ABC):
    """Hands tasks to workers and yields their results.

    A worker that is lost (killed, out of memory, its machine gone) is replaced and its task repeated, at most three
    times; what a task itself raises ends the job at once. `name` is `local` or `ray`; `lost` has a sentence for each.
    """

    name: str

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.lost: list[str] = []

    def tell(self, sentence: str) -> None:
        """Remember that a worker was lost, and warn through the logger `disbench.workers` (standard error)."""
        self.lost.append(sentence)
        _logger.warning("%s", sentence)

    def in_order(self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path) -> Generator[Result, None, None]:
        """The results in the order of the tasks.

        Args:
            work: what every worker starts with.
            tasks: taken as workers become free; at most four for each worker are under way or waiting.
            folder: of the results; holds the pickled work while there are workers.

        `InputError` if a task lost its worker each time, or there is no room for a worker; what a task raised.
        """
        with self._crew(work, folder) as crew:
            yield from crew.in_order(tasks)

    def as_finished(
        self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path
    ) -> Generator[Result, None, None]:
        """The results in the order in which they finish; otherwise like `in_order`."""
        with self._crew(work, folder) as crew:
            yield from crew.as_finished(tasks)

    @contextmanager
    def _crew(self, work: Work[Task, Result], folder: Path) -> Iterator[Crew[Task, Result]]:
        with self._making(work, folder) as make:
            crew: Crew[Task, Result] = Crew(self.workers, make, work.describe, self.tell)
            try:
                yield crew
            finally:
                crew.end()

    @abstractmethod
    def _making(self, work: Work[Any, Any], folder: Path) -> AbstractContextManager[Make]:
        """What makes a worker, for the duration of a job."""


JOB = "workers.partial"  # the pickled work beside the results, while there are workers


class LocalEngine(Engine):
    """Processes on this machine, started by "spawn"; with one worker, this process, unless the work watches its own.

    `daemon=False` is for work that starts processes of its own.
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
