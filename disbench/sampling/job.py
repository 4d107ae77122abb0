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
from disbench.shards.rows import Chunk, ShardWriter, other_job, row_bytes, to_batch
from disbench.workers import Engine, LocalEngine

SCENES_A_CHUNK, FEW_SCENES = 256, 16
"""Maximum number of scenes per chunk in a long and in a short job; passing a chunk costs milliseconds."""
CHUNKS_A_WORKER = 32
"""Jobs with fewer large chunks per worker use smaller chunks, so that all workers stay busy to the end."""
COST_A_SCENE = 16
"""Maximum cost of a chunk (`scene_cost`) per scene it may hold; a single scene may exceed it."""


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
        with _no_collector():
            return _sample_chunk(self.source, self.recipe, images)

    def terminate(self) -> None:
        """Do nothing."""

    def describe(self, images: Sequence[int]) -> str:
        """Name a chunk for messages."""
        return f"images {images[0]} to {images[-1]} of {self.source.name}"


def chunk_scenes(images: int, workers: int) -> int:
    """Maximum scenes per chunk, from `FEW_SCENES` to `SCENES_A_CHUNK`, so that each worker gets several chunks."""
    return min(SCENES_A_CHUNK, max(FEW_SCENES, images // (CHUNKS_A_WORKER * max(1, workers))))


def chunks_by_cost(source: SceneSource, images: range, workers: int = 1) -> Iterator[range]:
    """Split images, in order, into chunks bounded in scenes and in cost.

    Uses the source's optional `object_counts(images)`, objects per image. Chunking does not affect the result.
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
    """Pause the garbage collector, which finds nothing within a chunk and takes a tenth of the time."""
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


JOB_FILES = ("shard-*.parquet", MANIFEST)
"""Glob patterns of a job's files, finished or not."""
_LIBRARIES = ("networkx", "numpy", "pyarrow", "pycocotools", "rlemasklib")


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
    finished: Callable[[Path], None] = lambda path: None,
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
        finished: called with the path of each shard that this call finishes.

    Raises:
        InputError: `out` has shards from a different recipe or input, an unknown part, or bad input data.
        OSError: the folder cannot be written or the disk is full. Finished shards stay; the next run resumes.
    """
    folder = Path(out)
    count = len(source) if limit is None else min(limit, len(source))
    images = range(count) if part is None else slice_of(count, part)
    job = Job(
        recipe=recipe.as_dict(),
        seed=recipe.seed,
        source=source.name,
        sources=source.fingerprint(),
        limit=limit,
        versions=versions(),
        part=part and Part(*part, images.start, images.stop, count),
    )
    done = prepare_folder(folder, job, existing)
    if done is not None:
        return done
    writer = ShardWriter(
        folder, recipe.shard_bytes, job.job_hash(), begin=images.start, part=part is not None, finished=finished
    )
    rest = range(writer.resume(), images.stop)
    engine = engine or LocalEngine(workers)
    tasks = chunks_by_cost(source, rest, engine.workers)
    with contextlib.closing(engine.in_order(SamplingWork(source, recipe), tasks, folder)) as chunks:
        bar = progress_bar(recipe.name, len(images), len(images) - len(rest), shown=progress)
        write_chunks(writer, _from_unchanged(source, chunks, job, folder), bar)
    dropped = dict(getattr(source, "dropped", {}))
    if part is not None:  # every part would count these again, so merging adds them once
        return write_manifest(folder, manifest_of(job, writer, trailing=writer.pending, source_dropped=dropped))
    writer.total.drop(dropped)
    return write_manifest(folder, manifest_of(job, writer))


def manifest_of(job: Job, writer: ShardWriter, **of_part: Any) -> ShardManifest:
    """The manifest of a job whose shards have been written."""
    facts = {item.name: getattr(job, item.name) for item in dataclasses.fields(job)}
    total = writer.total.as_dict()
    return ShardManifest(**facts, **total, **of_part, fingerprint=job.job_hash(), files=tuple(writer.files))


def _from_unchanged(source: SceneSource, chunks: Iterable[Chunk], job: Job, folder: Path) -> Iterator[Chunk]:
    """Yield each chunk after checking that the input files are unchanged; report changed files before other errors."""
    check = getattr(source, "check_unchanged", lambda: None)
    try:
        for chunk in chunks:
            check()
            yield chunk
    except InputError:
        check()
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
    done = read_manifest(folder)
    if done.fingerprint != job.job_hash():
        raise other_job(folder, done.differences(job))
    for file in done.files:
        if problem := file.problem(folder):
            raise InputError(f"{folder}: {problem}; use --existing overwrite to make it again")
    return done


def slice_of(images: int, part: tuple[int, int]) -> range:
    """The images of part (i, n), the i-th of n slices of nearly equal size; `InputError` unless 1 <= i <= n."""
    number, parts = part
    if not 1 <= number <= parts:
        raise InputError(f"part {number} of {parts} does not exist; give i/n with i from 1 to n, such as 3/16")
    return range(images * (number - 1) // parts, images * number // parts)


def parse_part(text: str) -> tuple[int, int]:
    """Parse a part written as i/n; `InputError` unless i is an integer from 1 to n."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if not found:
        raise InputError(f"part {text!r}: not i/n; give integers with i from 1 to n, such as 3/16")
    part = int(found[1]), int(found[2])
    slice_of(0, part)
    return part
