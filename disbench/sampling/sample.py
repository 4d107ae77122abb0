"""Making shards: scenes in, Parquet out; in parallel, resumable, and the same bytes every time.

Scenes are sampled in chunks by worker processes and written in order by this one. Where a shard ends
depends on the scenes alone, so neither the number of workers nor an interruption changes a byte. A shard
gets its name only when it is whole; `manifest.json` comes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from disbench import __version__
from disbench.errors import InputError
from disbench.files import whole_file
from disbench.sampling.recipes import Recipe
from disbench.sampling.shard_writer import ShardWriter, other_job
from disbench.sampling.shards import MANIFEST, SCHEMA_VERSION, file_sha256, read_manifest
from disbench.sampling.workers import sampled_chunks
from disbench.scenes import SceneSource

Existing = Literal["resume", "overwrite", "fail"]
JOB_FILES = ("shard-*.parquet", MANIFEST)
"""Shell patterns of the files of a job, finished or under way."""
_LIBRARIES = ("networkx", "numpy", "pyarrow", "pycocotools", "rlemasklib")


def make_shards(
    source: SceneSource,
    recipe: Recipe,
    out: str | Path,
    *,
    workers: int = 1,
    limit: int | None = None,
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
        limit: only the first so many images of the source.
        existing: what to do with shards in `out`: `resume` continues them (or finds them complete), `fail`
            stops, `overwrite` removes them first.
        progress: show a progress bar on a terminal.
        finished: called with each shard that this call makes, as soon as it has its name.

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
    writer = ShardWriter(folder, recipe.shard_bytes, job["fingerprint"], finished)
    start = writer.resume()
    with contextlib.closing(sampled_chunks(source, recipe, range(start, count), workers, folder)) as chunks:
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
        raise other_job(folder, _differences(done, job))
    for entry in done["files"]:
        path = folder / entry["name"]
        if not path.is_file() or file_sha256(path) != entry["sha256"]:
            raise InputError(f"{path}: not as the manifest says; use --existing overwrite to make it again")
    return done


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
