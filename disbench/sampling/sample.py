"""Making shards: scenes in, Parquet out; in parallel, resumable, and the same bytes every time.

Scenes are sampled in chunks by worker processes and written in order by this one. Where a shard ends
depends on the scenes alone, so neither the number of workers nor an interruption changes a byte. A shard
gets its name only when it is whole; `manifest.json` comes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import pickle
import platform
import threading
from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from disbench import __version__
from disbench.errors import InputError
from disbench.files import naming, whole_file
from disbench.sampling.recipes import Recipe
from disbench.sampling.sampled_scene import SampledScene, sample_scene
from disbench.sampling.shards import (
    MANIFEST,
    ROWS_A_GROUP,
    SCHEMA,
    SCHEMA_VERSION,
    file_sha256,
    read_manifest,
    row_bytes,
    to_batch,
)
from disbench.scenes import SceneSource

Existing = Literal["resume", "overwrite", "fail"]
SCENES_A_CHUNK = 64
CHUNKS_AHEAD = 4
"""Chunks a worker that may wait to be written: this bounds the memory."""

_LIBRARIES = ("networkx", "numpy", "pyarrow", "pycocotools", "rlemasklib")


@dataclass(slots=True)
class Tally:
    """What was seen and made; shards carry theirs, so that a resumed run can add them up."""

    images: int = 0
    scenes: int = 0
    objects: int = 0
    sets: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add the numbers of another tally to this one."""
        self.images += other.images
        self.scenes += other.scenes
        self.objects += other.objects
        self.sets += other.sets
        self.dropped.update(other.dropped)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, in a fixed order."""
        return {
            "images": self.images,
            "scenes": self.scenes,
            "objects": self.objects,
            "sets": self.sets,
            "dropped": dict(sorted(self.dropped.items())),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Tally:
        """The inverse of `as_dict`."""
        return cls(**{**plain, "dropped": Counter(plain["dropped"])})


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sampled scenes on their way to the writer.

    Attributes:
        indices: source numbers of all images of the chunk.
        rows: for each image its row in the batch, or -1 if it gives no scene.
        tallies: of each image.
        sizes: `row_bytes` of each row.
        batch: the rows.
    """

    indices: Sequence[int]
    rows: list[int]
    tallies: list[Tally]
    sizes: list[int]
    batch: pa.RecordBatch


def make_shards(
    source: SceneSource,
    recipe: Recipe,
    out: str | Path,
    *,
    workers: int = 1,
    limit: int | None = None,
    existing: Existing = "resume",
    progress: bool = False,
) -> dict[str, Any]:
    """Write the diverse sets of a dataset as shards.

    Args:
        source: the dataset.
        recipe: how sets are made.
        out: folder for the shards; made if it does not exist.
        workers: processes that sample; 1 samples in this process. Does not change the result. With more, a
            script must make this call under `if __name__ == "__main__":` (they are started by "spawn").
        limit: only the first so many images of the source.
        existing: what to do with shards in `out`: `resume` continues them (or finds them complete), `fail`
            stops, `overwrite` removes them first.
        progress: show a progress bar on a terminal.

    Returns:
        The manifest.

    Raises:
        InputError: `out` has shards made by another recipe or from other input, or bad input data. Finished
            shards stay, and the next run resumes after them.
        OSError: the folder cannot be written, or the disk is full; finished shards stay.
    """
    folder = Path(out)
    count = len(source) if limit is None else min(limit, len(source))
    job = _describe_job(source, recipe, limit)
    done = _prepare_folder(folder, job, existing)
    if done is not None:
        return done
    writer = _ShardWriter(folder, recipe.shard_bytes, job["fingerprint"])
    start = writer.resume()
    with contextlib.closing(_chunks(source, recipe, range(start, count), workers, folder)) as chunks:
        bar = tqdm(
            total=count, initial=start, unit="image", desc=recipe.name, disable=None if progress else True
        )
        try:
            for chunk in chunks:
                writer.add(chunk)
                bar.update(len(chunk.indices))
            writer.close()
        except BaseException:
            writer.discard()
            raise
        finally:
            bar.close()
    total = writer.total
    total.dropped.update(getattr(source, "dropped", {}))
    return _write_manifest(folder, {**job, **total.as_dict(), "files": writer.files})


def _describe_job(source: SceneSource, recipe: Recipe, limit: int | None) -> dict[str, Any]:
    """Everything that decides the bytes, and a hash of it."""
    job: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "recipe": recipe.as_dict(),
        "seed": recipe.seed,
        "source": source.name,
        "sources": source.fingerprint(),
        "limit": limit,
        "versions": {
            "disbench": __version__,
            "python": platform.python_version(),
            **{library: version(library) for library in _LIBRARIES},
        },
    }
    text = json.dumps(job, sort_keys=True)
    return {**job, "fingerprint": hashlib.sha256(text.encode()).hexdigest()}


def _prepare_folder(folder: Path, job: dict[str, Any], existing: Existing) -> dict[str, Any] | None:
    """Make the folder ready; the manifest, if the job is done already."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = sorted(folder.glob("shard-*.parquet"))
    manifest = folder / MANIFEST
    if existing == "overwrite":
        manifest.unlink(missing_ok=True)  # first: without it the folder is unfinished, never inconsistent
        for path in shards:
            path.unlink()
    elif existing == "fail" and (shards or manifest.exists()):
        raise InputError(
            f"{folder}: there are shards already; name another folder or use --existing overwrite"
        )
    for path in folder.glob("*.partial"):
        path.unlink()
    if existing == "overwrite" or not manifest.exists():
        return None
    done = read_manifest(folder)
    if done.get("fingerprint") != job["fingerprint"]:
        raise _other_job(folder, _differences(done, job))
    for entry in done["files"]:
        path = folder / entry["name"]
        if not path.is_file() or file_sha256(path) != entry["sha256"]:
            raise InputError(f"{path}: not as the manifest says; use --existing overwrite to make it again")
    return done


def _other_job(folder: Path, differences: str) -> InputError:
    return InputError(
        f"{folder}: its shards were made otherwise ({differences}); name another folder or use --existing overwrite"
    )


def _differences(done: dict[str, Any], job: dict[str, Any]) -> str:
    """Which parts of two jobs differ, in words."""
    parts = []
    for key in ("schema", "source", "sources", "limit", "versions"):
        if done.get(key) != job[key]:
            parts.append(f"other {key}")
    recipe = done.get("recipe", {})
    parts += [f"recipe {key}" for key, value in _plain(job["recipe"]).items() if recipe.get(key) != value]
    return ", ".join(parts) or "another program"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    with whole_file(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode() + b"\n")
    return read_manifest(folder)


class _ShardWriter:
    """Writes rows in order; ends a shard before it would exceed its size."""

    def __init__(self, folder: Path, shard_bytes: int, fingerprint: str) -> None:
        self.folder, self.shard_bytes, self.fingerprint = folder, shard_bytes, fingerprint
        self.files: list[dict[str, Any]] = []
        self.total = Tally()
        self._parquet: pq.ParquetWriter | None = None
        self._first = 0  # source number of the first image that the open shard accounts for
        self._next = 0
        self._size = 0
        self._tally = Tally()  # of the open shard
        self._pending = Tally()  # images without a scene since the last row
        self._group: list[pa.RecordBatch] = []
        self._group_rows = 0

    def resume(self) -> int:
        """Account for the shards that are there; the number of the image to go on with."""
        for number, path in enumerate(sorted(self.folder.glob("shard-*.parquet"))):
            facts = _shard_facts(path)
            if facts.get("fingerprint") != self.fingerprint:
                raise _other_job(self.folder, f"{path.name}: other input, recipe or versions")
            if path.name != _shard_name(number) or facts["first"] != self._next:
                raise InputError(f"{path}: a shard before it is missing; use --existing overwrite")
            self._account(path, facts)
        return self._next

    def add(self, chunk: Chunk) -> None:
        """Write the chunk's rows."""
        begun = 0  # rows before this one are already handed on
        for index, row, tally in zip(chunk.indices, chunk.rows, chunk.tallies, strict=True):
            if row < 0:
                self._pending.add(tally)
                continue
            if self._size and self._size + chunk.sizes[row] > self.shard_bytes:
                self._hand_on(chunk.batch, begun, row)
                begun = row
                self._finish_shard()
            self._size += chunk.sizes[row]
            self._tally.add(self._pending)
            self._tally.add(tally)
            self._pending = Tally()
            self._next = index + 1
        self._hand_on(chunk.batch, begun, len(chunk.sizes))

    def close(self) -> None:
        """Finish the last shard; images without a scene after it count in the total alone."""
        if self._size:
            self._finish_shard()
        self.total.add(self._pending)

    def discard(self) -> None:
        """Drop the shard that is open; the finished ones stay."""
        if self._parquet is not None:
            with contextlib.suppress(Exception):  # the disk may be full: the file goes away all the same
                self._parquet.close()
            self._parquet = None
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.folder / _shard_name(len(self.files))

    @property
    def _partial(self) -> Path:
        return self._path.with_name(f"{self._path.name}.partial")

    def _hand_on(self, batch: pa.RecordBatch, begin: int, end: int) -> None:
        """Rows into row groups of a fixed number, counted from the shard's first row."""
        while begin < end:
            take = min(end - begin, ROWS_A_GROUP - self._group_rows)
            self._group.append(batch.slice(begin, take))
            self._group_rows += take
            begin += take
            if self._group_rows == ROWS_A_GROUP:
                self._write_group()

    def _write_group(self) -> None:
        with naming(self._path):
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._partial, SCHEMA, compression="zstd")
            # Concatenated, so that the bytes do not depend on where the chunks began.
            self._parquet.write_batch(pa.concat_batches(self._group))
        self._group, self._group_rows = [], 0

    def _finish_shard(self) -> None:
        if self._group_rows:
            self._write_group()
        assert self._parquet is not None
        facts = {
            "fingerprint": self.fingerprint,
            "first": self._first,
            "next": self._next,
            "tally": self._tally.as_dict(),
        }
        path = self._path
        with naming(path):
            self._parquet.add_key_value_metadata({"disbench.shard": json.dumps(facts, sort_keys=True)})
            self._parquet.close()
            self._parquet = None
            _flush_to_disk(self._partial)
            self._partial.replace(path)
        self._account(path, facts)
        self._size, self._tally = 0, Tally()

    def _account(self, path: Path, facts: dict[str, Any]) -> None:
        tally = Tally.from_dict(facts["tally"])
        self.total.add(tally)
        self._first = self._next = facts["next"]
        self.files.append(
            {
                "name": path.name,
                "rows": tally.scenes,
                "bytes": path.stat().st_size,
                "sha256": file_sha256(path),
            }
        )


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def _shard_facts(path: Path) -> dict[str, Any]:
    """What a finished shard says of itself."""
    try:
        metadata = pq.ParquetFile(path).metadata.metadata or {}
        facts: dict[str, Any] = json.loads(metadata[b"disbench.shard"])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: not a shard of disbench; use --existing overwrite or another folder"
        ) from error
    return facts


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _chunks(
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
    with naming(job), job.open("wb") as file:
        pickle.dump((source, recipe), file)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(job,))
    try:
        waiting: deque[Future[Chunk]] = deque()
        for chunk in chunks:
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
        pool.shutdown(wait=True, cancel_futures=True)
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
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with job.open("rb") as file:
        _worker_job = pickle.load(file)


def _die_with_parent() -> None:
    """End this worker when its parent is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(images: Sequence[int]) -> Chunk:
    assert _worker_job is not None
    return _sample_chunk(*_worker_job, images)
