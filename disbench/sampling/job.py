"""Making shards: scenes in, Parquet out; in parallel, resumable, and the same bytes every time.

Scenes are sampled in chunks by worker processes and written in order by this one. Where a shard ends
depends on the scenes alone, so neither the number of workers nor an interruption changes a byte. A shard
gets its name only when it is whole; `manifest.json` comes last. Several machines can make a part each, which
`disbench.sampling.merged_parts` puts together.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from disbench import __version__
from disbench.core.errors import InputError
from disbench.core.scenes import SceneSource
from disbench.io.files import Existing, file_sha256, whole_file
from disbench.sampling.chunks import SamplingWork, chunks_by_cost
from disbench.sampling.parts import describe_part, slice_of
from disbench.sampling.recipes import Recipe
from disbench.shards.reader import MANIFEST, SCHEMA_VERSION, read_manifest
from disbench.shards.writer import Chunk, ShardWriter, other_job
from disbench.workers import Engine, LocalEngine

JOB_FILES = ("shard-*.parquet", MANIFEST)
"""Shell patterns of the files of a job, finished or under way."""
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
) -> dict[str, Any]:
    """Write the diverse sets of a dataset as shards.

    Args:
        source: the dataset.
        recipe: how sets are made.
        out: folder for the shards; made if it does not exist.
        workers: processes that sample; 1 samples in this process. Does not change the result. With more, a
            script must make this call under `if __name__ == "__main__":` (they are started by "spawn").
        engine: where the workers are; by default processes on this machine. Does not change the result.
        limit: only the first so many images of the source.
        part: (i, n) with i from 1 to n samples the i-th of n slices of these images, for
            `merge_parts`; None samples all of them.
        existing: what to do with shards in `out`: `resume` continues them (or finds them complete), `fail`
            stops, `overwrite` removes them first.
        progress: show a progress bar on a terminal.
        finished: called with each shard that this call makes, as soon as it has its name.

    Returns:
        The manifest.

    Raises:
        InputError: `out` has shards made by another recipe or from other input, a part that is none, or bad
            input data. Finished shards stay, and the next run resumes after them.
        OSError: the folder cannot be written, or the disk is full; finished shards stay.
    """
    folder = Path(out)
    count = len(source) if limit is None else min(limit, len(source))
    images = range(count) if part is None else slice_of(count, part)
    job = _describe_job(source, recipe, limit, None if part is None else describe_part(part, images, count))
    done = prepare_folder(folder, job, existing)
    if done is not None:
        return done
    writer = ShardWriter(
        folder,
        recipe.shard_bytes,
        job["fingerprint"],
        begin=images.start,
        part=part is not None,
        finished=finished,
    )
    rest = range(writer.resume(), images.stop)
    engine = engine or LocalEngine(workers)
    tasks = chunks_by_cost(source, rest, engine.workers)
    with contextlib.closing(engine.in_order(SamplingWork(source, recipe), tasks, folder)) as chunks:
        bar = progress_bar(recipe.name, len(images), len(images) - len(rest), shown=progress)
        write_chunks(writer, _from_unchanged(source, chunks, job, folder), bar)
    total = writer.total
    before_any_scene = dict(getattr(source, "dropped", {}))
    if part is not None:  # merging counts once what every part would count
        others = {"trailing": writer.trailing.as_dict(), "source_dropped": before_any_scene}
        return write_manifest(folder, {**job, **total.as_dict(), **others, "files": writer.files})
    total.dropped.update(before_any_scene)
    return write_manifest(folder, {**job, **total.as_dict(), "files": writer.files})


def _from_unchanged(source: SceneSource, chunks: Iterable[Chunk], job: dict[str, Any], folder: Path) -> Iterator[Chunk]:
    """The chunks, each once its rows are known to be of the files that were opened.

    Raises:
        InputError: the files are others now; of whatever went wrong, this is the reason.
    """
    try:
        for chunk in chunks:
            _check_unchanged(source)
            yield chunk
    except InputError:
        _check_unchanged(source)
        raise
    if source.fingerprint() != job["sources"]:
        raise InputError(
            f"{folder}: the files of {source.name} were changed while they were read; "
            "run it again with --existing overwrite"
        )


def _check_unchanged(source: SceneSource) -> None:
    check = getattr(source, "check_unchanged", None)
    if check is not None:
        check()


def progress_bar(title: str, images: int, done: int, *, shown: bool) -> tqdm:
    """A bar that counts images, on a terminal."""
    return tqdm(total=images, initial=done, unit="image", desc=title, disable=None if shown else True)


def write_chunks(writer: ShardWriter, chunks: Iterable[Chunk], bar: tqdm) -> None:
    """Write all chunks; whatever interrupts it, only whole shards stay."""
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


def _describe_job(
    source: SceneSource, recipe: Recipe, limit: int | None, part: dict[str, int] | None
) -> dict[str, Any]:
    """Everything that decides the bytes, and a hash of it."""
    job: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "recipe": recipe.as_dict(),
        "seed": recipe.seed,
        "source": source.name,
        "sources": source.fingerprint(),
        "limit": limit,
        "versions": versions(),
        **({"part": part} if part else {}),
    }
    return with_fingerprint(job)


def versions() -> dict[str, str]:
    """Versions of all that can change a byte."""
    return {
        "disbench": __version__,
        "python": platform.python_version(),
        **{library: version(library) for library in _LIBRARIES},
    }


def with_fingerprint(job: dict[str, Any]) -> dict[str, Any]:
    """The job and, last, a hash of it."""
    text = json.dumps(job, sort_keys=True)
    return {**job, "fingerprint": hashlib.sha256(text.encode()).hexdigest()}


def prepare_folder(folder: Path, job: dict[str, Any], existing: Existing) -> dict[str, Any] | None:
    """Make the folder ready; the manifest, if the job is done already.

    Args:
        folder: for the shards.
        job: as `with_fingerprint` gives it.
        existing: as for `make_shards`.

    Raises:
        InputError: the folder has shards that are not the job's or not as they were, or any that must not be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = sorted(folder.glob("shard-*.parquet"))
    manifest = folder / MANIFEST
    if existing == "overwrite":
        manifest.unlink(missing_ok=True)  # first: without it the folder is unfinished, never inconsistent
        for path in shards:
            path.unlink()
    elif existing == "fail" and (shards or manifest.exists()):
        raise InputError(f"{folder}: there are shards already; name another folder or use --existing overwrite")
    for path in folder.glob("*.partial"):
        path.unlink()
    if existing == "overwrite" or not manifest.exists():
        return None
    done = read_manifest(folder)
    if done.get("fingerprint") != job["fingerprint"]:
        raise other_job(folder, differences(done, job))
    for entry in done["files"]:
        path = folder / entry["name"]
        if not path.is_file() or file_sha256(path) != entry["sha256"]:
            raise InputError(f"{path}: not as the manifest says; use --existing overwrite to make it again")
    return done


def differences(done: dict[str, Any], job: dict[str, Any]) -> str:
    """In what two jobs differ, in words."""
    parts = []
    for key in ("schema", "source", "sources", "limit", "versions", "part"):
        if done.get(key) != job.get(key):
            parts.append(f"other {key}")
    recipe = done.get("recipe", {})
    parts += [f"recipe {key}" for key, value in _plain(job["recipe"]).items() if recipe.get(key) != value]
    return ", ".join(parts) or "another program"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def write_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest, which makes the folder a finished one; the manifest as it is read again."""
    with whole_file(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode() + b"\n")
    return read_manifest(folder)
