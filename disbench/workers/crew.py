"""A crew: as many threads as workers, each hands a task to one; who is lost is replaced, the task done again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any, Generic, Protocol

from disbench.core.errors import InputError
from disbench.workers.processes import interrupts_held_back
from disbench.workers.work import Result, Task, Worker, WorkerLost

ATTEMPTS = 3
"""How often a task is tried before a worker that is lost each time ends the job."""
TASKS_AHEAD = 4
"""Tasks a worker that may be under way or wait to be taken: this bounds the memory."""


class Hiring(Protocol):
    """What one who makes a worker may ask meanwhile."""

    def others(self) -> bool:
        """Whether there are workers."""

    def over(self) -> bool:
        """Whether no worker is wanted any more."""


Make = Callable[[Hiring], Worker[Any, Any]]
"""Makes a worker, and may take its time; raises `WorkerLost` if it was lost at once."""


class Crew(Generic[Task, Result]):
    """Workers that begin when they are needed, and the threads that wait for them.

    The threads take results while the caller does something with others, so that no worker waits for it. Workers are
    made by threads of their own: while there is no room for one, those that are there do the work.

    Args:
        count: workers at most.
        make: makes one.
        describe: a task in words, for messages.
        tell: told of every worker that is lost.
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
        """Whether there are workers."""
        return bool(self._workers)

    def over(self) -> bool:
        """Whether no worker is wanted any more."""
        return self._ending

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
        self._idle.put(InputError("the job was ended"))  # nobody reads it: the caller has left
        for worker in workers:
            worker.end()
        self._threads.shutdown()
        for hiring in self._hirings:
            hiring.join()

    @staticmethod
    def _some(waiting: set[Future[Result]]) -> Generator[Result, None, None]:
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            waiting.discard(future)
            yield future.result()

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
        """Make a worker, or let those who wait for one know why there is none."""
        try:
            self._introduce(self._made())
        except Exception as error:
            self._idle.put(error)

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
        raise _lost_each_time("beginning to work", reason)

    def _introduce(self, worker: Worker[Any, Any]) -> None:
        with self._lock:
            ending = self._ending
            if not ending:
                self._workers.append(worker)
        if ending:
            worker.end()
        else:
            self._idle.put(worker)


def _lost_each_time(what: str, reason: str) -> InputError:
    return InputError(
        f"{what}: {ATTEMPTS} times, {reason} (out of memory?); run the same command again to resume, with fewer "
        "workers; a script must call this under `if __name__ == '__main__':`"
    )
