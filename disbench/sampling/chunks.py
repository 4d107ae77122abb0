"""Sampling as work for an engine: chunks of scenes of about the same cost."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from disbench.core.diverse_sets import SampledScene
from disbench.core.scenes import SceneSource
from disbench.sampling.recipes import Recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.shards.manifest import Tally
from disbench.shards.rows import row_bytes, to_batch
from disbench.shards.writer import Chunk

SCENES_A_CHUNK = 256
"""Scenes a chunk at most: handing one over costs milliseconds, so chunks of a long job are large."""
FEW_SCENES = 16
"""Scenes a chunk at most in a job that is short: of less, handing over would take longer than the work."""
CHUNKS_A_WORKER = 32
"""A job with fewer large chunks a worker is cut finer, so that all workers have work to the end."""
COST_A_SCENE = 16
"""The cost of a chunk at most (see `scene_cost`), for each scene that it may have; one scene alone may have more."""


def scene_cost(objects: int) -> int:
    """About what a scene costs to sample, in the time of one object: a line; above a hundred objects pairs count."""
    return 3 + objects + (objects * objects // 64 if objects > 100 else 0)


@dataclass(frozen=True)
class SamplingWork:
    """All that a worker needs to sample scenes; a task is the source's numbers of some images."""

    source: SceneSource
    recipe: Recipe
    watched = False

    def begin(self, path: Path) -> SamplingWork:
        """The work itself: it has no state."""
        return self

    def do(self, images: Sequence[int]) -> Chunk:
        """Sampled scenes of some images.

        Raises:
            InputError: an invalid record.
        """
        with _no_collector():
            return _sample_chunk(self.source, self.recipe, images)

    def end(self) -> None:
        """Nothing to end."""

    def describe(self, images: Sequence[int]) -> str:
        """A chunk in words."""
        return f"images {images[0]} to {images[-1]} of {self.source.name}"


def chunk_scenes(images: int, workers: int) -> int:
    """How many scenes a chunk may have, `FEW_SCENES` to `SCENES_A_CHUNK`, so that each worker gets several."""
    fair = max(FEW_SCENES, images // (CHUNKS_A_WORKER * max(1, workers)))
    return min(SCENES_A_CHUNK, fair)


def chunks_by_cost(source: SceneSource, images: range, workers: int = 1) -> Iterator[range]:
    """Images in order, in chunks that end before they would have too many scenes or cost too much.

    The source may tell `object_counts(images)`, how many objects each image has. Chunks decide no byte of the result.
    """
    count = getattr(source, "object_counts", None)
    scenes = chunk_scenes(len(images), workers)
    begin, spent = images.start, 0
    for first in range(images.start, images.stop, 4096):
        block = range(first, min(first + 4096, images.stop))
        for image, objects in zip(block, count(block) if count else [1] * len(block), strict=True):
            cost = scene_cost(objects)
            if image > begin and (image - begin == scenes or spent + cost > COST_A_SCENE * scenes):
                yield range(begin, image)
                begin, spent = image, 0
            spent += cost
    if begin < images.stop:
        yield range(begin, images.stop)


@contextmanager
def _no_collector() -> Iterator[None]:
    """The garbage collector paused: in a chunk it finds nothing, and takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sample_chunk(source: SceneSource, recipe: Recipe, images: Sequence[int]) -> Chunk:
    sampled: list[SampledScene] = []
    rows: list[int] = []
    tallies: list[Tally] = []
    for scene in source.read(images):
        result = sample_scene(scene, recipe)
        tally = Tally(images=1, dropped=result.scene.dropped.copy())
        if result.scene.objects:
            rows.append(len(sampled))
            sampled.append(result)
            tally.scenes, tally.objects, tally.sets = 1, len(result.scene.objects), len(result.sets)
        else:
            rows.append(-1)
            tally.drop({"image without a mask": 1})
        tallies.append(tally)
    return Chunk(images, rows, tallies, [row_bytes(item) for item in sampled], to_batch(sampled))
