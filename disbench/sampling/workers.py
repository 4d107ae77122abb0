"""Sampling in parallel: chunks of scenes by worker processes, handed on in order, memory bounded."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from disbench.errors import InputError
from disbench.files import naming
from disbench.processes import die_with_parent, interrupts_held_back, started_worker
from disbench.sampling.recipes import Recipe
from disbench.sampling.sampled_scene import SampledScene, sample_scene
from disbench.sampling.shard_writer import Chunk, Tally
from disbench.sampling.shards import row_bytes, to_batch
from disbench.scenes import SceneSource

SCENES_A_CHUNK = 64
CHUNKS_AHEAD = 4
"""Chunks a worker that may wait to be written: this bounds the memory."""


def sampled_chunks(
    source: SceneSource, recipe: Recipe, images: range, workers: int, folder: Path
) -> Generator[Chunk, None, None]:
    """Sampled chunks in order; no more than a few chunks a worker are under way or waiting."""
    chunks = [images[i : i + SCENES_A_CHUNK] for i in range(0, len(images), SCENES_A_CHUNK)]
    if workers <= 1 or len(chunks) <= 1:
        for chunk in chunks:
            yield _sample_chunk(source, recipe, chunk)
        return
    # The job travels by a file: through the pipe to a worker that dies at its start, it would block for ever.
    job = folder / "workers.partial"
    crew = _Crew(min(workers, len(chunks)))
    try:
        with naming(job), job.open("wb") as file:
            pickle.dump((source, recipe), file)
        crew.begin(job)
        yield from _in_order(crew, chunks, workers * CHUNKS_AHEAD)
    finally:
        try:
            crew.end()
        finally:  # even if Ctrl-C falls into the end
            job.unlink(missing_ok=True)


def _in_order(crew: _Crew, chunks: Sequence[range], ahead: int) -> Iterator[Chunk]:
    waiting: deque[Future[Chunk]] = deque()
    for chunk in chunks:
        waiting.append(crew.submit(chunk))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _Crew:
    """Worker processes, and as many threads here that hand each a chunk and take what it makes of it.

    The threads take results while this process writes others, so that no worker waits for it. Each process
    has its own pipe: in one that all share, a process that is killed while it writes would leave half a
    message and a held lock, and all would wait for ever.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads = ThreadPoolExecutor(count)
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()

    def begin(self, job: Path) -> None:
        """Start the processes."""
        for _ in range(self._count):
            self._workers.append(_Worker(job))
            self._idle.put(self._workers[-1])

    def submit(self, images: range) -> Future[Chunk]:
        """Have a chunk sampled; the future raises what the worker raised, or `InputError` if it died."""
        with interrupts_held_back():  # it may start a thread
            return self._threads.submit(self._sample, images)

    def end(self) -> None:
        """End all processes, whatever they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown()
        for worker in self._workers:
            worker.close()

    def _sample(self, images: range) -> Chunk:
        worker = self._idle.get()
        try:
            return worker.sample(images)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, and the pipe that only it writes to."""

    def __init__(self, job: Path) -> None:
        self._process, self._connection = started_worker(_work, job)

    def sample(self, images: range) -> Chunk:
        """What the process makes of a chunk; waits for it."""
        try:
            self._connection.send(images)
            answer: Chunk | Exception = self._connection.recv()
        except (EOFError, OSError):
            raise InputError(
                "a worker process ended before its work (killed, or out of memory?); run the same command again to "
                "resume, with fewer workers; a script must call this under `if __name__ == '__main__':`"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process; whoever waits for it in `sample` hears so."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Close the pipe, once nobody waits any more."""
        self._connection.close()


def _sample_chunk(source: SceneSource, recipe: Recipe, images: Sequence[int]) -> Chunk:
    sampled: list[SampledScene] = []
    rows: list[int] = []
    tallies: list[Tally] = []
    for scene in source.read(images):
        result = sample_scene(scene, recipe)
        tally = Tally(images=1, dropped=Counter(result.scene.dropped))
        if result.scene.objects:
            rows.append(len(sampled))
            sampled.append(result)
            tally.scenes, tally.objects, tally.sets = 1, len(result.scene.objects), len(result.sets)
        else:
            rows.append(-1)
            tally.dropped["image without a mask"] += 1
        tallies.append(tally)
    return Chunk(images, rows, tallies, [row_bytes(item) for item in sampled], to_batch(sampled))


def _work(job: Path, connection: Connection) -> None:
    """A worker's whole life: sample what it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ending the workers is the parent's job
    die_with_parent()
    with job.open("rb") as file:
        source, recipe = pickle.load(file)
    try:
        while True:
            connection.send(_answer(source, recipe, connection.recv()))
    except (EOFError, OSError):  # the parent is gone
        return


def _answer(source: SceneSource, recipe: Recipe, images: Sequence[int]) -> Chunk | Exception:
    try:
        return _sample_chunk(source, recipe, images)
    except Exception as error:
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """The error with a note on where it came from, or one that says the same if it cannot travel."""
    where = "".join(traceback.format_exception(error))
    error.add_note(f"In a worker process:\n{where}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(where)
    return error
