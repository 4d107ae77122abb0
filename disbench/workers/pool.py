"""Distribute tasks to workers, and replace workers that die.

One thread per worker hands it tasks; a lost worker is replaced and its task repeated.
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
from disbench.io.files import add_file_name
from disbench.workers.processes import WorkerProcess, delay_interrupts

ATTEMPTS = 3  # times a task may lose its worker before the job fails
TASKS_AHEAD = 4  # unfinished tasks per worker, which bounds memory

_logger = logging.getLogger("disbench.workers")


Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class WorkerLost(Exception):  # noqa: N818 - an event, like StopIteration
    """A worker ended before its task was done: killed, out of memory, or its machine gone. The task can be repeated."""


class Worker(Protocol[Task_contra, Result_co]):
    """Executes one task at a time."""

    def run(self, task: Task_contra, /) -> Result_co:
        """Execute a task; raises `WorkerLost` if the worker died; any other error would recur on another worker."""

    def terminate(self) -> None:
        """Terminate immediately; a pending `run` raises `WorkerLost`. May be called twice."""


class Work(Protocol[Task_contra, Result_co]):
    """A job, from which every worker is created; it, its tasks and its results are picklable.

    `own_process`: each of its workers supervises its own process, so the engine starts none.
    """

    own_process: bool

    def make_worker(self, path: Path) -> Worker[Task_contra, Result_co]:
        """Create a worker, where it will run; `path` is this object pickled, for processes that the worker starts."""

    def describe(self, task: Task_contra) -> str:
        """Describe a task, for messages."""


def picklable_error(error: Exception) -> Exception:
    """The error with its traceback as a note, or a `RuntimeError` with the traceback if it cannot be pickled."""
    where = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError):
        return InputError("there is not enough memory for what a worker does; use fewer workers")
    error.add_note(f"In a worker process:\n{where}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(where)
    return error


def run_task(worker: Worker[Any, Any], task: object) -> object:
    """A worker's result for a task, or its error as a picklable value; raises only `WorkerLost`."""
    try:
        return worker.run(task)
    except WorkerLost:
        raise
    except Exception as error:
        return picklable_error(error)


# Creates a worker; may block; raises `WorkerLost` if the worker dies at once.
MakeWorker = Callable[["WorkerPool[Any, Any]"], Worker[Any, Any]]


class WorkerPool(Generic[Task, Result]):
    """Up to `count` workers, started on demand, and the threads that wait for them.

    Threads collect results while the caller handles earlier ones, so no worker waits for the caller. Workers are
    started by separate threads, so the existing ones keep working while there is no room for another. `describe`
    describes a task; `report_lost` is called with a sentence for every lost worker. `workers` have
    started; `terminated` is True once no more are needed.
    """

    def __init__(
        self, count: int, make: MakeWorker, describe: Callable[[Any], str], report_lost: Callable[[str], None]
    ) -> None:
        self._count, self._make, self._describe, self._report_lost = count, make, describe, report_lost
        self._threads = ThreadPoolExecutor(count)
        self._lock = threading.Lock()
        self.terminated = False
        self.workers: list[Worker[Any, Any]] = []
        self._starting: list[threading.Thread] = []
        self._idle: SimpleQueue[Worker[Any, Any] | Exception] = SimpleQueue()

    def in_order(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Yield results in the order of the tasks."""
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(self._submit(task))
            if len(waiting) >= self._count * TASKS_AHEAD:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)

    def as_finished(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Yield results in the order in which they finish."""
        waiting: set[Future[Result]] = set()
        for task in tasks:
            waiting.add(self._submit(task))
            if len(waiting) >= 2 * self._count:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        yield from (future.result() for future in as_completed(waiting))

    def terminate(self) -> None:
        """Stop all workers immediately."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self.terminated = True
            workers = list(self.workers)
        self._idle.put(InputError("the job was ended"))  # wakes waiting threads; the caller has left
        for worker in workers:
            worker.terminate()
        self._threads.shutdown()
        for thread in self._starting:
            thread.join()

    def _submit(self, task: Task) -> Future[Result]:
        with delay_interrupts():  # it may start threads
            if len(self._starting) < self._count:
                self._start_worker()
            return self._threads.submit(self._run, task)

    def _run(self, task: Task) -> Result:
        reasons: list[str] = []
        while len(reasons) < ATTEMPTS:
            worker = self._idle.get()
            if isinstance(worker, Exception):
                self._idle.put(worker)  # for the other waiting threads
                raise worker
            try:
                result: Result = worker.run(task)
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
        raise _lost_error(self._describe(task), reasons[-1])

    def _replace(self, worker: Worker[Any, Any], sentence: str) -> None:
        with self._lock:
            if self.terminated:
                return
            self.workers.remove(worker)
            self._report_lost(sentence)
        worker.terminate()
        self._start_worker()

    def _start_worker(self) -> None:
        thread = threading.Thread(target=self._add_worker)
        self._starting.append(thread)
        thread.start()

    def _add_worker(self) -> None:
        try:
            worker = self._make_with_retries()
        except Exception as error:
            self._idle.put(error)
            return
        with self._lock:
            if not self.terminated:
                self.workers.append(worker)
                self._idle.put(worker)
                return
        worker.terminate()

    def _make_with_retries(self) -> Worker[Any, Any]:
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                return self._make(self)
            except WorkerLost as lost:
                reason = str(lost)
                with self._lock:
                    if self.terminated:
                        raise
                    self._report_lost(reason)
        raise _lost_error("starting a worker", reason)


def _lost_error(description: str, reason: str) -> InputError:
    fix = "run the same command again to resume, with fewer workers; a script must guard its call (`__main__`)"
    return InputError(f"{description}: {ATTEMPTS} times, {reason} (out of memory?); {fix}")


class Engine(ABC):
    """Hands tasks to workers and yields their results.

    A lost worker (killed, out of memory, or its machine gone) is replaced and its task repeated, at most three times;
    an error raised by a task itself ends the job. `name` is `local` or `ray`; `lost` has a sentence per lost worker.
    """

    name: str

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.lost: list[str] = []

    def report_lost(self, sentence: str) -> None:
        """Record a lost worker, and log a warning to `disbench.workers` (standard error)."""
        self.lost.append(sentence)
        _logger.warning("%s", sentence)

    def in_order(self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path) -> Generator[Result, None, None]:
        """Yield results in the order of the tasks.

        Args:
            work: the job.
            tasks: consumed as workers become free; at most four per worker are unfinished.
            folder: the results' folder; holds the pickled job while there are workers.

        Raises `InputError` if a task lost its worker three times or there is no room for a worker, and errors of tasks.
        """
        with self._pool(work, folder) as pool:
            yield from pool.in_order(tasks)

    def as_finished(
        self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path
    ) -> Generator[Result, None, None]:
        """Yield results in the order in which they finish; otherwise like `in_order`."""
        with self._pool(work, folder) as pool:
            yield from pool.as_finished(tasks)

    @contextmanager
    def _pool(self, work: Work[Task, Result], folder: Path) -> Iterator[WorkerPool[Task, Result]]:
        with self._worker_factory(work, folder) as make:
            pool: WorkerPool[Task, Result] = WorkerPool(self.workers, make, work.describe, self.report_lost)
            try:
                yield pool
            finally:
                pool.terminate()

    @abstractmethod
    def _worker_factory(self, work: Work[Any, Any], folder: Path) -> AbstractContextManager[MakeWorker]:
        """Context with a function that creates workers, for the duration of a job."""


JOB = "workers.partial"  # the pickled job, in the results' folder


class LocalEngine(Engine):
    """Processes on this machine, started by "spawn"; a single one runs in this process unless `own_process`.

    `daemon=False` is for jobs that start processes themselves.
    """

    name = "local"

    def __init__(self, workers: int = 1, *, daemon: bool = True) -> None:
        super().__init__(workers)
        self._daemon = daemon

    def in_order(self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path) -> Generator[Result, None, None]:
        """Yield results in the order of the tasks (`Engine.in_order`)."""
        remaining = iter(tasks)
        first = list(islice(remaining, 2))
        if work.own_process or (self.workers > 1 and len(first) > 1):
            yield from super().in_order(work, chain(first, remaining), folder)
            return
        worker = work.make_worker(folder / JOB)
        for task in chain(first, remaining):
            yield worker.run(task)

    @contextlib.contextmanager
    def _worker_factory(self, work: Work[Any, Any], folder: Path) -> Iterator[MakeWorker]:
        # The job is passed as a file: writing to the pipe of a worker that dies at its start would block.
        path = folder / JOB

        def make(pool: WorkerPool[Any, Any]) -> Worker[Any, Any]:
            return work.make_worker(path) if work.own_process else _ProcessWorker(path, self._daemon)

        try:
            with add_file_name(path), path.open("wb") as file:
                pickle.dump(work, file)
            yield make
        finally:
            path.unlink(missing_ok=True)


class _ProcessWorker:
    """A worker in a separate process."""

    def __init__(self, path: Path, daemon: bool) -> None:
        self._process = WorkerProcess(_worker_main, path, daemon=daemon)

    def run(self, task: object) -> Any:
        try:
            self._process.connection.send(task)
            result = self._process.connection.recv()
        except (EOFError, OSError):
            raise WorkerLost(f"a worker process ended before its work ({self._process.exit_cause()})") from None
        if isinstance(result, Exception):
            raise result
        return result

    def terminate(self) -> None:
        self._process.kill()


def _worker_main(path: Path, connection: Connection) -> None:
    """Main loop of a worker process: execute tasks until the parent is gone."""
    with path.open("rb") as file:
        work: Work[Any, Any] = pickle.load(file)
    worker = work.make_worker(path)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(run_task(worker, connection.recv()))
