"""Sampling by worker processes: one that dies at whatever moment is noticed, and none is left behind."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType

import psutil
import pytest

from disbench.core.errors import InputError
from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.sampling.job import SamplingWork, chunks_by_cost
from disbench.sampling.recipes import load_recipe
from disbench.shards.rows import Chunk
from disbench.workers import LocalEngine
from disbench.workers.pool import TASKS_AHEAD as CHUNKS_AHEAD
from disbench.workers.pool import picklable_error as _portable
from tests.refusals import refuses
from tests.synthetic import write_lvis
from tests.troubled_scenes import TroubledScenes, UnportableError

pytestmark = [pytest.mark.fault, pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux has them")]

CHUNKS = 13
SCENES = 16
WORKERS = 2
LOST = r"lvis: 3 times, a worker process ended .*killed by SIGKILL.*run the same command again to resume, with fewer"


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """A wait without end is what these tests are about: it shall fail, not stay."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("waited for 60 seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> AnnotatedImages:
    path = write_lvis(tmp_path_factory.mktemp("annotations") / "lvis.json", CHUNKS * SCENES, objects=2)
    return AnnotatedImages([open_annotations(path, "lvis")])


Start = Callable[..., Generator[Chunk, None, None]]


@pytest.fixture
def start(source: AnnotatedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Begins to sample, with this trouble in this chunk."""
    monkeypatch.setattr("disbench.sampling.job.scenes_per_chunk", lambda images, workers: SCENES)
    (tmp_path / "log").mkdir()

    def sampled(trouble: str, chunk: int = 0) -> Generator[Chunk, None, None]:
        scenes = TroubledScenes(source, trouble, chunk * SCENES, tmp_path / "log")
        recipe = load_recipe("lvis-hierarchy")
        chunks = chunks_by_cost(scenes, range(len(source)))
        return LocalEngine(WORKERS).in_order(SamplingWork(scenes, recipe), chunks, tmp_path)

    return sampled


def workers() -> list[psutil.Process]:
    """Worker processes of this one."""
    return [psutil.Process(child.pid) for child in multiprocessing.active_children()]


def count_started(log: Path, expected: int) -> int:
    """How many chunks were begun, when at least so many were and the workers have had no work for a while."""
    calm = 0
    while calm < 25:
        time.sleep(0.02)
        busy = any(worker.status() != psutil.STATUS_SLEEPING for worker in workers())
        calm = 0 if busy or len(list(log.iterdir())) < expected else calm + 1
    return len(list(log.iterdir()))


def test_killed_in_the_midst_of_a_message(start: Start) -> None:
    chunks = start("killed in a message", 2)
    assert [next(chunks).indices[0] for _ in range(2)] == [0, SCENES]
    refuses(LOST, next, chunks)
    assert workers() == []


def test_killed_at_the_start(start: Start, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=LOST):
        next(start("killed at start"))
    assert workers() == []
    assert not (tmp_path / "workers.partial").exists()


def test_killed_once_and_done_again(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    undisturbed = [chunk.batch for chunk in start("none")]
    assert [chunk.batch for chunk in start("killed once", 2)] == undisturbed
    (notice,) = caplog.messages
    assert notice == (
        f"images {2 * SCENES} to {3 * SCENES - 1} of lvis: a worker process ended before its work (killed by SIGKILL); "
        "another worker does it again"
    )
    assert workers() == []


def test_killed_while_idle(start: Start, tmp_path: Path) -> None:
    """What was sampled before is handed on; only a few chunks were, however long the caller takes."""
    ahead = WORKERS * CHUNKS_AHEAD
    chunks = start("none")
    next(chunks)
    assert count_started(tmp_path / "log", ahead) == ahead
    for worker in workers():
        worker.kill()
    assert [chunk.indices[0] for chunk in chunks] == list(range(SCENES, CHUNKS * SCENES, SCENES))
    assert workers() == []


def test_a_worker_without_memory(start: Start) -> None:
    with pytest.raises(InputError, match="not enough memory for what a worker does; use fewer workers"):
        list(start("out of memory", 1))
    assert workers() == []


def test_an_error_that_cannot_travel_is_told() -> None:
    portable = pickle.loads(pickle.dumps(_portable(UnportableError("not", "as it should be"))))
    assert isinstance(portable, RuntimeError)
    assert "UnportableError: not as it should be" in str(portable)


def test_closing_ends_a_worker_that_would_go_on(start: Start, tmp_path: Path) -> None:
    chunks = start("stuck", 1)
    next(chunks)
    assert workers()  # the second may still be starting
    chunks.close()
    assert workers() == []
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
