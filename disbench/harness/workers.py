"""Worker processes that evaluate chunks of samples, watched: one that hangs or dies costs one sample."""

from __future__ import annotations

import contextlib
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

from disbench import threads
from disbench.baselines.cards import MethodSpec
from disbench.errors import InputError
from disbench.harness.chunks import Began, Clicked, Ended, Event, Repeated, run_chunk
from disbench.harness.evaluation import check_batch
from disbench.harness.protocol import Protocol
from disbench.harness.store import ClickRow, Store
from disbench.prediction import Method
from disbench.processes import die_with_parent, started_worker
from disbench.samples import SampleSource

_STARTING_TIMEOUT = 600.0
"""Seconds that a worker may take to make the method (loading weights)."""


@dataclass(frozen=True)
class Job:
    """What every worker of a run needs.

    Attributes:
        method: what makes the method.
        source: of the samples.
        protocol: how to evaluate.
        store: which masks the rows carry.
        batch: samples in lockstep.
        threads: that a worker's libraries may use.
        timeout: seconds that one call of the method may take for each of its samples, or None.
    """

    method: MethodSpec
    source: SampleSource
    protocol: Protocol
    store: Store
    batch: int
    threads: int
    timeout: float | None


@dataclass
class Chunk:
    """Samples that are evaluated together, in this order.

    Attributes:
        numbers: of the samples.
        rows: of the samples so far.
        finished: samples that need nothing more.
        alone: one sample after another, since the chunk's worker hung or died before.
        repeated: reasons for which a batch was asked again one by one.
        versions: what the method computes with, as it says itself.
    """

    numbers: tuple[int, ...]
    rows: dict[int, list[ClickRow]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    alone: bool = False
    repeated: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> tuple[int, ...]:
        """Samples that still need work."""
        return tuple(number for number in self.numbers if number not in self.finished)

    def all_rows(self) -> list[ClickRow]:
        """The rows of all samples, in order."""
        return [row for number in self.numbers for row in self.rows[number]]


@dataclass(frozen=True, slots=True)
class _Ready:
    """The worker has made the method, or has finished what it was given.

    Attributes:
        versions: the method's own.
    """

    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The run cannot go on: something that no other sample would mend."""

    reason: str


def evaluated_chunks(job: Job, chunks: Sequence[Chunk], workers: int, folder: Path) -> Iterator[Chunk]:
    """Evaluate chunks by worker processes; each is yielded when it is finished, in any order.

    Args:
        job: what to do.
        chunks: what to do it on.
        workers: processes, at least 1.
        folder: of the run; the job travels to the workers by a file there.

    Raises:
        InputError: the method cannot be made, or a sample cannot be read.
    """
    path = folder / "workers.partial"
    with path.open("wb") as file:
        pickle.dump(job, file)
    waiting = deque(chunks)
    crew = [_Worker(path, job) for _ in range(min(workers, len(chunks)))]
    try:
        while crew:
            for worker in crew:
                if worker.idle and waiting:
                    worker.give(waiting.popleft())
            crew = [worker for worker in crew if not _dismissed(worker, bool(waiting))]
            _wait(crew)
            for worker in crew:
                if (chunk := worker.attend()) is not None:
                    yield chunk
    finally:
        for worker in crew:
            worker.end()
        path.unlink(missing_ok=True)


def _dismissed(worker: _Worker, waiting: bool) -> bool:
    if worker.idle and not waiting:
        worker.end()
        return True
    return False


def _wait(crew: Sequence[_Worker]) -> None:
    """Until some worker says something, ends, or is late."""
    if crew:
        deadline = min(worker.deadline for worker in crew)
        wait([worker.connection for worker in crew], max(0.0, min(deadline - time.monotonic(), 3600.0)))


class _Worker:
    """One process and the chunk that it has; the process is replaced when it hangs or dies."""

    def __init__(self, path: Path, job: Job) -> None:
        self._path, self._job = path, job
        self._chunk: Chunk | None = None
        self._begin_process()

    @property
    def idle(self) -> bool:
        """Ready for a chunk."""
        return self._chunk is None

    def give(self, chunk: Chunk) -> None:
        """Hand over a chunk; a process that is still starting takes it when it is ready."""
        self._chunk = chunk
        if self._ready:
            self._send()

    def attend(self) -> Chunk | None:
        """Hear what the process says; the chunk if that finished it."""
        try:
            while self.connection.poll():
                finished = self._hear(self.connection.recv())
                if finished is not None:
                    return finished
        except (EOFError, OSError):
            self._process.join()
            return self._lost(f"the worker process ended ({_how(self._process.exitcode)})")
        if time.monotonic() >= self.deadline:
            return self._lost(f"no answer within {self._job.timeout:g} s")
        return None

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _begin_process(self) -> None:
        self._process, self.connection = started_worker(_work, self._path)
        self._ready = False
        self._began: Began | None = None
        self.deadline = time.monotonic() + _STARTING_TIMEOUT

    def _send(self) -> None:
        assert self._chunk is not None
        with contextlib.suppress(OSError):  # a process that has just died is noticed by attend()
            self.connection.send((self._chunk.left, self._chunk.alone))

    def _hear(self, said: Event | _Ready | _Stopped) -> Chunk | None:
        chunk = self._chunk
        if isinstance(said, _Stopped):
            raise InputError(said.reason)
        if isinstance(said, Began):
            self._began = said
            self._began_at = time.monotonic()
            allowed = self._job.timeout
            self.deadline = float("inf") if allowed is None else self._began_at + allowed * len(said.rows)
        elif isinstance(said, Ended):
            self._began, self.deadline = None, float("inf")
        elif isinstance(said, Clicked):
            assert chunk is not None
            chunk.rows.setdefault(said.number, []).append(said.row)
            if said.done:
                chunk.finished.add(said.number)
        elif isinstance(said, Repeated):
            assert chunk is not None
            chunk.repeated.append(said.reason)
        else:
            return self._hear_ready(said)
        return None

    def _hear_ready(self, said: _Ready) -> Chunk | None:
        self.deadline = float("inf")
        if not self._ready:
            self._ready = True
            if self._chunk is not None:
                self._send()
            return None
        finished, self._chunk = self._chunk, None
        if finished is not None:
            finished.versions = said.versions
        return finished

    def _lost(self, reason: str) -> Chunk | None:
        """The process hung or died: record it, or try the samples one by one, with a new process."""
        self.end()
        began, chunk = self._began, self._chunk
        if began is None or chunk is None:
            where = "while it made the method" if not self._ready else "outside the method"
            raise InputError(
                f"{reason} {where} (out of memory?); run the same command again to resume, with fewer "
                "workers; a script must call this under `if __name__ == '__main__':`"
            )
        if len(began.rows) > 1:
            chunk.alone = True
            for number in chunk.left:
                chunk.rows.pop(number, None)
        else:
            ((number, row),) = began.rows.items()
            spent = time.monotonic() - self._began_at
            failed = replace(row, failure=f"{began.what}: {reason}", model_seconds=spent)
            chunk.rows.setdefault(number, []).append(failed)
            chunk.finished.add(number)
            if not chunk.alone:
                chunk.alone = True
                for other in chunk.left:
                    chunk.rows.pop(other, None)
        self._begin_process()
        if not chunk.left:
            self._chunk = None
            return chunk
        return None


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"


def _work(path: Path, connection: Connection) -> None:
    """A worker's whole life: make the method once, then evaluate what it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ending the workers is the parent's job
    die_with_parent()
    with path.open("rb") as file:
        job: Job = pickle.load(file)
    try:
        threads.limit(job.threads)
        method = _build(job)
        threads.limit(job.threads)  # OpenCV and torch are told when they are loaded
        connection.send(_Ready({}))
        while True:
            numbers, alone = connection.recv()
            _evaluate(job, method, numbers, alone, connection)
            connection.send(_Ready(_versions(method)))
    except InputError as error:
        connection.send(_Stopped(str(error)))
    except (EOFError, BrokenPipeError):
        return


def _evaluate(job: Job, method: Method, numbers: Sequence[int], alone: bool, connection: Connection) -> None:
    samples = [(number, partial(job.source.read, number)) for number in numbers]
    batched = job.batch > 1 and not alone
    for event in run_chunk(method, samples, job.protocol, job.store, batched=batched):
        connection.send(event)


def _versions(method: Method) -> dict[str, str]:
    """Those that a method tells of itself."""
    said = getattr(method, "versions", None)
    return {str(name): str(text) for name, text in said.items()} if isinstance(said, Mapping) else {}


def _build(job: Job) -> Method:
    try:
        method = job.method.build()
    except InputError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"{job.method.name}: the method cannot be made: {type(error).__name__}: {error} "
            f"({Path(last.filename).name}:{last.lineno})"
        ) from error
    check_batch(method, job.batch)
    return method
