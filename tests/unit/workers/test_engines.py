"""Engines and how work is cut for them, apart from faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.errors import InputError
from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.sampling.job import COST_PER_SCENE, MAX_SCENES_PER_CHUNK, chunks_by_cost, scene_cost, scenes_per_chunk
from disbench.workers import LocalEngine, WorkerLost, open_engine
from disbench.workers.pool import ATTEMPTS, TASKS_AHEAD, WorkerPool
from tests.refusals import refuses
from tests.synthetic import write_lvis


@dataclass
class Counted:
    """A source of which only the numbers of objects are asked."""

    counts: list[int]

    def object_counts(self, images: range) -> list[int]:
        return self.counts[images.start : images.stop]


@given(
    st.lists(st.one_of(st.integers(0, 30), st.integers(0, 3000)), max_size=300), st.integers(0, 300), st.integers(1, 60)
)
def test_chunks_by_cost(counts: list[int], begin: int, scenes: int) -> None:
    """All images in order; none could have one image more; only an image alone may cost more than a chunk."""
    images = range(min(begin, len(counts)), len(counts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("disbench.sampling.job.scenes_per_chunk", lambda images, workers: scenes)
        chunks = list(chunks_by_cost(Counted(counts), images))  # type: ignore[arg-type]
    assert [image for chunk in chunks for image in chunk] == list(images)
    for chunk, after in zip_longest(chunks, chunks[1:]):
        cost = sum(scene_cost(counts[image]) for image in chunk)
        assert 1 <= len(chunk) <= scenes
        assert len(chunk) == 1 or cost <= COST_PER_SCENE * scenes
        if after is not None:
            assert len(chunk) == scenes or cost + scene_cost(counts[after.start]) > COST_PER_SCENE * scenes


@given(st.integers(0, 10**7), st.integers(1, 1000))
def test_how_many_scenes_a_chunk_may_have(images: int, workers: int) -> None:
    """Many in a long job; in a shorter one each worker gets 32 chunks or more; never so few that they cost more."""
    scenes = scenes_per_chunk(images, workers)
    assert scenes_per_chunk(images, 0) == scenes_per_chunk(images, 1)
    assert 16 <= scenes <= MAX_SCENES_PER_CHUNK == 256
    if scenes > 16:
        assert images // scenes >= 32 * workers
    if scenes < MAX_SCENES_PER_CHUNK:
        assert images < (scenes + 1) * 32 * workers


def test_a_source_that_does_not_count(tmp_path: Path) -> None:
    class Silent:
        def __len__(self) -> int:
            return 5000

    chunks = list(chunks_by_cost(Silent(), range(3, 5000), 2))  # type: ignore[arg-type]
    assert [len(chunk) for chunk in chunks[:-1]] == [78] * (len(chunks) - 1)  # 4,997 over 32 chunks for each of two
    assert chunks[0].start == 3


def test_annotations_count_their_objects(tmp_path: Path) -> None:
    source = AnnotatedImages([open_annotations(write_lvis(tmp_path / "lvis.json", 20, objects=3), "lvis")])
    counts = source.object_counts(range(2, 20))
    assert counts == [sum(1 for _ in source.files[0].annotations(int(i))) for i in source.keys[2:]]


class Fake:
    """A worker that doubles numbers; 13 is its end."""

    def __init__(self) -> None:
        self.ended = 0

    def run(self, task: int) -> int:
        time.sleep(0.001 * (task % 3))
        if task == 13 or self.ended:
            raise WorkerLost("it was number 13")
        if task == 7:
            raise ValueError("no sevens")
        return 2 * task

    def terminate(self) -> None:
        self.ended += 1


@pytest.fixture
def pool() -> Iterator[WorkerPool[int, int]]:
    messages: list[str] = []
    pool: WorkerPool[int, int] = WorkerPool(3, lambda pool: Fake(), "task {}".format, messages.append)
    pool.messages = messages  # type: ignore[attr-defined]
    yield pool
    pool.terminate()
    assert all(worker.ended for worker in pool.workers)  # type: ignore[attr-defined]


def test_results_in_order_and_as_finished(pool: WorkerPool[int, int]) -> None:
    tasks = [i for i in range(100) if i not in (7, 13)]
    assert list(pool.in_order(tasks)) == [2 * i for i in tasks]
    assert sorted(pool.as_finished(tasks)) == [2 * i for i in tasks]


@pytest.mark.parametrize("mode", ["in_order", "as_finished"])
def test_tasks_are_taken_as_workers_become_free(mode: str, pool: WorkerPool[int, int]) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(20, 1000):
            taken.append(number)
            yield number

    results = getattr(pool, mode)(tasks())
    for got in range(1, 50):
        next(results)
        assert len(taken) <= got + 3 * TASKS_AHEAD
    results.close()


def test_a_task_that_ends_its_worker_each_time(pool: WorkerPool[int, int]) -> None:
    with pytest.raises(InputError, match=rf"task 13: {ATTEMPTS} times, it was number 13 .*run the same command again"):
        list(pool.in_order([1, 2, 13, 4]))
    messages = pool.messages  # type: ignore[attr-defined]
    assert messages == [
        *["task 13: it was number 13; another worker does it again"] * (ATTEMPTS - 1),
        "task 13: it was number 13",
    ]


def test_an_error_is_raised_in_its_turn(pool: WorkerPool[int, int]) -> None:
    results = pool.in_order([5, 6, 7, 8])
    assert [next(results), next(results)] == [10, 12]
    with pytest.raises(ValueError, match="no sevens"):
        next(results)


def test_no_room_for_more_workers() -> None:
    """Those that are there do the work of those for which there is no room."""
    made: list[Fake] = []
    lock = threading.Lock()

    def make(pool: WorkerPool[int, int]) -> Fake:
        with lock:
            if not made:
                made.append(Fake())
                return made[0]
        while not pool.terminated:
            time.sleep(0.01)
        assert pool.workers
        raise WorkerLost("there never was room")

    messages: list[str] = []
    pool: WorkerPool[int, int] = WorkerPool(3, make, str, messages.append)
    tasks = [i for i in range(60) if i not in (7, 13)]
    assert list(pool.in_order(tasks)) == [2 * i for i in tasks]
    pool.terminate()
    assert made[0].ended == 1
    assert messages == []


def test_engines_by_name() -> None:
    engine = open_engine("local", 3)
    assert isinstance(engine, LocalEngine)
    assert (engine.name, engine.workers, engine.lost) == ("local", 3, [])
    assert open_engine().workers >= 1
    for options in ({"address": "auto"}, {"gpus_per_worker": 1.0}):
        refuses("belong to a Ray cluster; add --engine ray", open_engine, "local", 2, **options)
