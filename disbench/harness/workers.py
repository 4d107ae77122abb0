"""Workers that evaluate samples in supervised processes, so that a method that hangs or dies costs one sample."""

from __future__ import annotations

import contextlib
import math
import pickle
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from disbench.baselines.cards import MethodSpec
from disbench.core.errors import InputError
from disbench.core.prediction import Method, MethodError, call_method
from disbench.core.samples import Source
from disbench.harness.evaluation import check_batch
from disbench.harness.record import UNREAD
from disbench.harness.tasks import BatchFailed, CallEnded, CallStarted, Event, Reader, Row, RowFinished, Task, run_chunk
from disbench.workers import threads
from disbench.workers.pool import WorkerLost
from disbench.workers.processes import WorkerProcess

_STARTING_TIMEOUT = 600.0  # seconds that a worker may take to create the method (loading weights)


@dataclass
class Chunk:
    """Samples evaluated together, in the order of `numbers`, and their rows so far.

    Attributes:
        finished: samples that are done.
        alone: evaluate samples one by one, because the process of the whole chunk hung or died.
        died: samples retried because their process ended, perhaps killed from outside; `lost` has a sentence for each.
        repeated: why batches were repeated one by one.
        versions: versions reported by the method.
    """

    numbers: tuple[int, ...]
    rows: dict[int, list[Row]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    alone: bool = False
    died: set[int] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> tuple[int, ...]:
        """Samples that are not done."""
        return tuple(number for number in self.numbers if number not in self.finished)


@dataclass(frozen=True)
class EvaluationWork:
    """A run as work for an engine (`disbench.workers.Work`), whose tasks are the sample numbers of chunks.

    `batch`, `threads` and `timeout` are those of `disbench.harness.record.Execution`.
    """

    method: MethodSpec
    source: Source
    task: Task
    batch: int
    threads: int
    timeout: float | None
    own_process = True

    def make_worker(self, path: Path) -> WatchedWorker:
        """Create a worker with its own process."""
        return WatchedWorker(path, self)

    def describe(self, numbers: Sequence[int]) -> str:
        """Describe a chunk."""
        more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        return f"sample {self.source.ids[numbers[0]]}{more} of {self.source.name}"


class _Ready(NamedTuple):
    """The process has created the method or finished a chunk; with the versions that the method reports."""

    versions: dict[str, str]


class _Stopped(NamedTuple):
    """The run cannot continue: every sample would fail for this reason."""

    reason: str


class WatchedWorker:
    """Evaluates one chunk at a time in a process, which reads its work from `path`; replaced if it hangs or dies."""

    def __init__(self, path: Path, work: EvaluationWork) -> None:
        self._path, self._work = path, work
        self._process: WorkerProcess | None = None
        self._lock = threading.Lock()  # one thread starts a process, another ends it
        self._ended = False
        self._begun: CallStarted | None = None

    def run(self, numbers: Sequence[int]) -> Chunk:
        """Evaluate samples; WorkerLost if the process ended outside the method, InputError without a method."""
        chunk = Chunk(tuple(numbers))
        while chunk.left:
            process = self._process or self._begin_process()
            self._begun = None
            try:
                process.connection.send((chunk.left, chunk.alone))
                while not self._handle(process.receive(self._deadline), chunk):
                    pass
            except TimeoutError:  # an OSError, too
                self._handle_loss(chunk, f"no answer within {self._work.timeout:g} s")
            except (EOFError, OSError):
                self._handle_loss(chunk, once_more=True)
        return chunk

    def terminate(self) -> None:
        """Terminate the process immediately."""
        with self._lock:
            self._ended = True
            self._end_process()

    def _begin_process(self) -> WorkerProcess:
        with self._lock:
            if self._ended:
                raise WorkerLost("the worker was ended")
            process = self._process = WorkerProcess(_work, self._path)
        self._deadline = time.monotonic() + _STARTING_TIMEOUT
        try:
            self._handle(process.receive(self._deadline), Chunk(()))
        except TimeoutError:
            self._end_process()
            raise InputError(f"{self._work.method.name}: not created within {_STARTING_TIMEOUT:g} s") from None
        except (EOFError, OSError):
            self._handle_loss(None)
        return process

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _handle(self, said: Event | _Ready | _Stopped, chunk: Chunk) -> bool:
        """Handle a message from the process; True if it has finished the chunk."""
        if isinstance(said, _Stopped):
            self._end_process()
            raise InputError(said.reason)
        if isinstance(said, CallStarted):
            self._begun = said
            self._begun_at = time.monotonic()
            allowed = math.inf if said.what == UNREAD or self._work.timeout is None else self._work.timeout
            self._deadline = self._begun_at + allowed * len(said.rows)
        elif isinstance(said, CallEnded):
            self._begun, self._deadline = None, math.inf
        elif isinstance(said, RowFinished):
            chunk.rows.setdefault(said.number, []).append(said.row)
            if said.done:
                chunk.finished.add(said.number)
        elif isinstance(said, BatchFailed):
            chunk.repeated.append(said.reason)
        else:
            self._deadline = math.inf
            chunk.versions = said.versions
            return True
        return False

    def _handle_loss(self, chunk: Chunk | None, reason: str = "", once_more: bool = False) -> None:
        """The process hung or died: record a failure or retry the samples; WorkerLost if the method was not running."""
        with self._lock:  # without a process, it was ended from outside
            reason = reason or f"the worker process ended ({self._process.exit_cause() if self._process else 'killed'})"
            self._end_process()
        if self._ended:
            raise WorkerLost("the worker was ended")
        begun = self._begun
        if begun is None or chunk is None:
            raise WorkerLost(f"{reason} {'outside the method' if chunk else 'while it made the method'}")
        again = set(chunk.left)
        if len(begun.rows) == 1:
            ((number, row),) = begun.rows.items()
            if once_more and number not in chunk.died:
                chunk.died.add(number)
                chunk.lost.append(f"sample {row.sample}: {begun.what}: {reason}; another process does it again")
            else:
                spent = 0.0 if begun.what == UNREAD else time.monotonic() - self._begun_at
                failed = replace(row, failure=f"{begun.what}: {reason}", model_seconds=spent)
                chunk.rows.setdefault(number, []).append(failed)
                chunk.finished.add(number)
                again = set() if chunk.alone else {*chunk.left}
        for number in again:
            chunk.rows.pop(number, None)
        chunk.alone = True


def _work(path: Path, connection: Connection) -> None:
    """Main function of the process: create the method once, then evaluate chunks as they come."""
    with path.open("rb") as file:
        work: EvaluationWork = pickle.load(file)
    folder, ids = Path.cwd(), work.source.ids
    try:
        threads.limit(work.threads)
        method = work.method.build()
        check_batch(method, work.batch)
        threads.limit(work.threads)  # again for OpenCV and torch, which may be loaded now
        connection.send(_Ready({}))
        while True:
            numbers, alone = connection.recv()
            readers = [Reader(i, ids[i], partial(_read, work.source, i, folder)) for i in numbers]
            for event in run_chunk(method, readers, work.task, batched=work.batch > 1 and not alone):
                connection.send(event)
            connection.send(_Ready(_versions(method)))
    except InputError as error:
        connection.send(_Stopped(str(error)))
    except (EOFError, BrokenPipeError):
        return


def _read(source: Source, number: int, folder: Path) -> Any:
    """Read a sample in the folder where the process started; the method may have changed folders."""
    with contextlib.chdir(folder):
        return source.read(number)


def _versions(method: Method) -> dict[str, str]:
    with contextlib.suppress(MethodError):
        return call_method("versions", lambda: {str(name): str(text) for name, text in method.versions.items()})  # type: ignore[attr-defined]
    return {}
