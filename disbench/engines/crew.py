"""A crew: as many threads as workers, each hands a task to one; who is lost is replaced, and the task tried again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any, Generic

from disbench.engines.work import Result, Task, Worker, WorkerLost
from disbench.errors import InputError
from disbench.processes import interrupts_held_back

ATTEMPTS = 3
"""How often a task is tried before a worker that is lost each time ends the job."""
TASKS_AHEAD = 4
"""Tasks a worker that may be under way or wait to be taken: this bounds the memory."""

Make = Callable[[bool], Worker[Any, Any] | None]
"""Makes a worker; told whether others are left, in which case it may say that there is no room: None."""


class Crew(Generic[Task, Result]):
    """Workers that begin when they are needed, and the threads that wait for them.

    The threads take results while the caller does something with others, so that no worker waits for it.

    Args:
        count: workers at most.
        make: makes one.
        describe: a task in words, for messages.
        tell: told of every worker that is lost.
    """

    def __init__(
        self, count: int, make: Make, describe: Callable[[Any], str], tell: Callable[[str], None]
    ) -> None:
        self._count, self._make, self._describe, self._tell = count, make, describe, tell
        self._threads = ThreadPoolExecutor(count)
        self._lock = threading.Lock()
        self._ending = False
        self._workers: list[Worker[Any, Any]] = []
        self._places: SimpleQueue[Worker[Any, Any] | None] = SimpleQueue()
        for _ in range(count):
            self._places.put(None)  # a worker is made when its first task comes

    def in_order(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """The results in the tasks' order; only a few are under way or waiting."""
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(self._submit(task))
            if len(waiting) >= self._count * TASKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def as_finished(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """The results as they come; only a few are under way or waiting."""
        waiting: set[Future[Result]] = set()
        for task in tasks:
            waiting.add(self._submit(task))
            if len(waiting) >= 2 * self._count:
                yield from self._some(waiting)
        while waiting:
            yield from self._some(waiting)

    def end(self) -> None:
        """End all workers, whatever they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._ending = True
            workers = list(self._workers)
        for worker in workers:
            worker.end()
        self._threads.shutdown()

    @staticmethod
    def _some(waiting: set[Future[Result]]) -> Generator[Result, None, None]:
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            waiting.discard(future)
            yield future.result()

    def _submit(self, task: Task) -> Future[Result]:
        with interrupts_held_back():  # it may start a thread
            return self._threads.submit(self._do, task)

    def _do(self, task: Task) -> Result:
        reasons: list[str] = []
        while len(reasons) < ATTEMPTS:
            worker = self._places.get()
            try:
                worker = worker or self._begin()
                if worker is not None:
                    result: Result = worker.do(task)
                    return result
            except WorkerLost as lost:
                self._dismiss(worker)
                worker = None
                reasons.append(str(lost))
                self._report(task, reasons)
            finally:
                self._places.put(worker)
        raise InputError(
            f"{self._describe(task)}: {ATTEMPTS} times, {reasons[-1]} (out of memory?); run the same command again to "
            "resume, with fewer workers; a script must call this under `if __name__ == '__main__':`"
        )

    def _begin(self) -> Worker[Any, Any] | None:
        """A new worker; None if there is no room for it, and others are at work."""
        with self._lock:
            self._check_going_on()
            others = bool(self._workers)
        worker = self._make(others)
        if worker is None:
            return None
        with self._lock:
            if not self._ending:
                self._workers.append(worker)
                return worker
        worker.end()
        raise InputError(_ENDED)

    def _dismiss(self, worker: Worker[Any, Any] | None) -> None:
        if worker is None:
            return
        with self._lock:
            if worker in self._workers:
                self._workers.remove(worker)
        worker.end()

    def _report(self, task: Task, reasons: list[str]) -> None:
        with self._lock:
            self._check_going_on()
            more = len(reasons) < ATTEMPTS
            self._tell(
                f"{self._describe(task)}: {reasons[-1]}{'; another worker does it again' if more else ''}"
            )

    def _check_going_on(self) -> None:
        if self._ending:
            raise InputError(_ENDED)


_ENDED = "the job was ended"  # nobody reads it: the caller has left
