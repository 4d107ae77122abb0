"""Make shards from scenes: parallel, resumable and byte-for-byte deterministic.

Worker processes sample chunks of scenes; this process writes them in order. Shard boundaries depend only on the
scenes. Shards are written atomically, `manifest.json` last. Several machines can each make a part, and
`disbench.sampling.merged_parts` merges them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from disbench import __version__
from disbench.core.errors import InputError
from disbench.core.scenes import SampledScene, SceneSource
from disbench.io.files import Existing
from disbench.sampling.recipes import Recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.shards.manifest import MANIFEST, Job, Part, ShardManifest, Tally, read_manifest, write_manifest
from disbench.shards.rows import Chunk, ShardWriter, job_mismatch, row_bytes, to_batch
from disbench.workers import Engine, LocalEngine

MAX_SCENES_PER_CHUNK, MIN_SCENES_PER_CHUNK = 256, 16  # of a long and of a short job; passing a chunk costs milliseconds
CHUNKS_PER_WORKER = 32  # jobs with fewer large chunks use smaller ones, so that all workers stay busy to the end
COST_PER_SCENE = 16  # maximum cost of a chunk (`scene_cost`) per scene it may hold; a single scene may exceed it
JOB_FILES = ("shard-*.parquet", MANIFEST)  # glob patterns of a job's files, finished or not
_LIBRARIES = ("networkx", "numpy", "pyarrow", "pycocotools", "rlemasklib")


def scene_cost(objects: int) -> int:
    """Approximate cost of sampling a scene, in units of one object: linear, plus pairs above 100 objects."""
    return 3 + objects + (objects * objects // 64 if objects > 100 else 0)


@dataclass(frozen=True)
class SamplingWork:
    """Sampling as work for an engine; a task is a sequence of source image indices."""

    source: SceneSource
    recipe: Recipe
    own_process = False

    def make_worker(self, path: Path) -> SamplingWork:
        """Return the work itself, which is stateless."""
        return self

    def run(self, images: Sequence[int]) -> Chunk:
        """Sample the scenes of some images; `InputError` for an invalid record."""
        scenes: list[SampledScene] = []
        rows: list[int] = []
        tallies: list[Tally] = []
        with _gc_paused():
            for scene in self.source.read(images):
                sampled = sample_scene(scene, self.recipe)
                tally = Tally(images=1, dropped=sampled.scene.dropped.copy())
                if sampled.scene.objects:
                    rows.append(len(scenes))
                    scenes.append(sampled)
                    tally.scenes, tally.objects, tally.sets = 1, len(sampled.scene.objects), len(sampled.sets)
                else:
                    rows.append(-1)
                    tally.drop({"image without a mask": 1})
                tallies.append(tally)
            return Chunk(images, rows, tallies, list(map(row_bytes, scenes)), to_batch(scenes))

    def terminate(self) -> None:
        """Do nothing."""

    def describe(self, images: Sequence[int]) -> str:
        """Name a chunk for messages."""
        return f"images {images[0]} to {images[-1]} of {self.source.name}"


def scenes_per_chunk(images: int, workers: int) -> int:
    """Maximum number of scenes per chunk, such that each worker gets several chunks."""
    return min(MAX_SCENES_PER_CHUNK, max(MIN_SCENES_PER_CHUNK, images // (CHUNKS_PER_WORKER * max(1, workers))))


def chunks_by_cost(source: SceneSource, images: range, workers: int = 1) -> Iterator[range]:
    """Split images, in order, into chunks bounded in scenes and in cost.

    Uses the source's optional `object_counts(images)`, objects per image. Chunking does not affect the result.
    """
    object_counts = getattr(source, "object_counts", None)
    scenes = scenes_per_chunk(len(images), workers)
    start, cost_so_far = images.start, 0
    for first in range(images.start, images.stop, 4096):
        block = range(first, min(first + 4096, images.stop))
        for image, objects in zip(block, object_counts(block) if object_counts else [1] * len(block), strict=True):
            cost = scene_cost(objects)
            if image > start and (image - start == scenes or cost_so_far + cost > COST_PER_SCENE * scenes):
                yield range(start, image)
                start, cost_so_far = image, 0
            cost_so_far += cost
    if start < images.stop:
        yield range(start, images.stop)


@contextmanager
def _gc_paused() -> Iterator[None]:
    """Pause the garbage collector, which finds nothing within a chunk and takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def make_shards(
    source: SceneSource,
    recipe: Recipe,
    out: str | Path,
    *,
    workers: int = 1,
    engine: Engine | None = None,
    limit: int | None = None,
    part: tuple[int, int] | None = None,
    existing: Existing = "resume",
    progress: bool = False,
    on_shard: Callable[[Path], None] = lambda path: None,
) -> ShardManifest:
    """Write the diverse sets of a dataset as shards; the bytes do not depend on workers or interruptions.

    Args:
        source: the dataset.
        recipe: how to make sets.
        out: folder for the shards.
        workers: sampling processes; 1 samples in this process. With more, a script must make this call under
            `if __name__ == "__main__":`, since they are started by "spawn".
        engine: runs the workers; processes on this machine by default.
        limit: use only the first `limit` images of the source.
        part: (i, n) samples the i-th of n slices of these images, with i from 1 to n, for `merge_parts`.
        existing: if `out` has shards, `resume` continues them (or returns if they are complete), `fail` raises, and
            `overwrite` deletes them first.
        progress: show a progress bar on a terminal.
        on_shard: called with the path of each shard that this call finishes.

    Raises:
        InputError: `out` has shards from a different recipe or input, an unknown part, or bad input data.
        OSError: the folder cannot be written or the disk is full. Finished shards stay; the next run resumes.
    """
    folder = Path(out)
    count = len(source) if limit is None else min(limit, len(source))
    images = range(count) if part is None else part_range(count, part)
    job = Job(
        recipe=recipe.as_dict(),
        seed=recipe.seed,
        source=source.name,
        sources=source.fingerprint(),
        limit=limit,
        versions=versions(),
        part=part and Part(*part, images.start, images.stop, count),
    )
    existing_manifest = prepare_folder(folder, job, existing)
    if existing_manifest is not None:
        return existing_manifest
    writer = ShardWriter(
        folder, recipe.shard_bytes, job.job_hash(), start=images.start, part=part is not None, on_shard=on_shard
    )
    remaining = range(writer.resume(), images.stop)
    engine = engine or LocalEngine(workers)
    tasks = chunks_by_cost(source, remaining, engine.workers)
    with contextlib.closing(engine.in_order(SamplingWork(source, recipe), tasks, folder)) as chunks:
        bar = progress_bar(recipe.name, len(images), len(images) - len(remaining), shown=progress)
        write_chunks(writer, _checked_chunks(source, chunks, job, folder), bar)
    dropped = dict(getattr(source, "dropped", {}))
    if part is not None:  # every part would count these again, so merging adds them once
        return write_manifest(folder, make_manifest(job, writer, trailing=writer.pending, source_dropped=dropped))
    writer.total.drop(dropped)
    return write_manifest(folder, make_manifest(job, writer))


def make_manifest(job: Job, writer: ShardWriter, **part_fields: Any) -> ShardManifest:
    """The manifest of a job whose shards have been written."""
    job_fields = {item.name: getattr(job, item.name) for item in dataclasses.fields(job)}
    total = writer.total.as_dict()
    return ShardManifest(**job_fields, **total, **part_fields, fingerprint=job.job_hash(), files=tuple(writer.files))


def _checked_chunks(source: SceneSource, chunks: Iterable[Chunk], job: Job, folder: Path) -> Iterator[Chunk]:
    """Yield each chunk after checking that the input files are unchanged; report changed files before other errors."""
    check_unchanged = getattr(source, "check_unchanged", lambda: None)
    try:
        for chunk in chunks:
            check_unchanged()
            yield chunk
    except InputError:
        check_unchanged()
        raise
    if source.fingerprint() != job.sources:
        raise InputError(
            f"{folder}: the files of {source.name} changed while they were read; run again with --existing overwrite"
        )


def progress_bar(title: str, images: int, done: int, *, shown: bool) -> tqdm:
    """A progress bar that counts images."""
    return tqdm(total=images, initial=done, unit="image", desc=title, disable=None if shown else True)


def write_chunks(writer: ShardWriter, chunks: Iterable[Chunk], bar: tqdm) -> None:
    """Write all chunks; an interruption leaves only finished shards."""
    try:
        for chunk in chunks:
            writer.add(chunk)
            bar.update(sum(tally.images for tally in chunk.tallies))
        writer.close()
    except BaseException:
        writer.discard()
        raise
    finally:
        bar.close()


def versions() -> dict[str, str]:
    """Versions of Python and of all packages that can affect the bytes."""
    return {
        "disbench": __version__,
        "python": platform.python_version(),
        **{library: version(library) for library in _LIBRARIES},
    }


def prepare_folder(folder: Path, job: Job, existing: Existing) -> ShardManifest | None:
    """Prepare the folder for a job; return the manifest if the job is already finished, else None.

    Raises:
        InputError: the folder has shards of another job, damaged shards, or any shards if `existing` is "fail".
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = sorted(folder.glob("shard-*.parquet"))
    manifest = folder / MANIFEST
    if existing == "overwrite":
        manifest.unlink(missing_ok=True)  # first, so that an interruption leaves an unfinished folder
        for path in shards:
            path.unlink()
    elif existing == "fail" and (shards or manifest.exists()):
        raise InputError(f"{folder}: already has shards; use another folder or --existing overwrite")
    for path in folder.glob("*.partial"):
        path.unlink()
    if existing == "overwrite" or not manifest.exists():
        return None
    existing_manifest = read_manifest(folder)
    if existing_manifest.fingerprint != job.job_hash():
        raise job_mismatch(folder, existing_manifest.differences(job))
    for file in existing_manifest.files:
        if problem := file.problem(folder):
            raise InputError(f"{folder}: {problem}; use --existing overwrite to make it again")
    return existing_manifest


def part_range(images: int, part: tuple[int, int]) -> range:
    """The images of part (i, n), the i-th of n slices of nearly equal size; `InputError` unless 1 <= i <= n."""
    number, parts = part
    if not 1 <= number <= parts:
        raise InputError(f"part {number} of {parts} does not exist; give i/n with i from 1 to n, such as 3/16")
    return range(images * (number - 1) // parts, images * number // parts)


def parse_part(text: str) -> tuple[int, int]:
    """Parse a part written as i/n; `InputError` unless i is an integer from 1 to n."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if not match:
        raise InputError(f"part {text!r}: not i/n; give integers with i from 1 to n, such as 3/16")
    part = int(match[1]), int(match[2])
    part_range(0, part)
    return part
