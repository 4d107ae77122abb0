"""Sampling in parallel: chunks of scenes by worker processes, handed on in order, memory bounded."""

from __future__ import annotations

import multiprocessing
import pickle
from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from disbench.errors import InputError
from disbench.files import naming
from disbench.processes import die_with_parent, interrupts_held_back
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
    context = multiprocessing.get_context("spawn")
    # The job travels by a file: through the pipe to a worker that dies at its start, it would block for ever.
    job = folder / "workers.partial"
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(job,))
    try:
        with naming(job), job.open("wb") as file:
            pickle.dump((source, recipe), file)
        waiting: deque[Future[Chunk]] = deque()
        for chunk in chunks:
            with interrupts_held_back():
                waiting.append(pool.submit(_work, chunk))
            if len(waiting) >= workers * CHUNKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process ended before its work (killed, or out of memory?); run the same command again to "
            "resume, with fewer workers; a script must call this under `if __name__ == '__main__':`"
        ) from None
    finally:
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        finally:  # even if Ctrl-C falls into the shutdown
            job.unlink(missing_ok=True)


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


_worker_job: tuple[SceneSource, Recipe] | None = None


def _start_worker(job: Path) -> None:
    global _worker_job  # noqa: PLW0603  (a worker's whole life is this one job)
    die_with_parent()
    with job.open("rb") as file:
        _worker_job = pickle.load(file)


def _work(images: Sequence[int]) -> Chunk:
    assert _worker_job is not None
    return _sample_chunk(*_worker_job, images)
