"""Merge the parts of a dataset into the same bytes as an undivided job.

Shard boundaries depend only on the scenes, so the parts' rows pass through the same writer again, in order. Row sizes
and images without a scene come from the shards' metadata, or the manifest after the last row. Scenes are not decoded,
and only a few row groups are in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.errors import InputError
from disbench.io.files import Existing
from disbench.sampling.job import make_manifest, part_range, prepare_folder, progress_bar, versions, write_chunks
from disbench.shards.manifest import Job, Part, ShardManifest, Tally, read_manifest, write_manifest
from disbench.shards.reader import shard_problem
from disbench.shards.rows import SCHEMA, Chunk, ShardMetadata, ShardWriter, read_shard_metadata, to_batch

_WRITING_PACKAGES = ("disbench", "pyarrow")  # affect the bytes of a merge; the others only affect sampling
_MAX_LISTED = 20  # missing parts in a message


@dataclass(frozen=True)
class _Part:
    """A finished part; `job` is the undivided job, `trailing` counts the images after the last row."""

    folder: Path
    manifest: ShardManifest
    job: Job
    slice: Part
    trailing: Tally

    @property
    def images(self) -> range:
        """Source indices of its images."""
        return range(self.slice.first, self.slice.next)

    def rerun_hint(self) -> str:
        """How to remake the part."""
        number, of = self.slice.number, self.slice.of
        return f"make it again: its sample command with --shard-of {number}/{of} --existing overwrite"


def merge_parts(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    existing: Existing = "resume",
    progress: bool = False,
    on_shard: Callable[[Path], None] = lambda path: None,
) -> ShardManifest:
    """Merge the parts made by `make_shards(..., part=(i, n))`.

    `parts` are the folders of all n parts, in any order; other arguments are as for `make_shards`. The shards and the
    returned manifest are byte for byte those of the job without `part`.

    Raises:
        InputError: a part is missing, duplicated, unfinished, damaged or from another job; the parts were made by other
            versions of disbench or pyarrow; `out` is a part or has shards of another job.
        OSError: the folder cannot be written or the disk is full. Finished shards stay; the next merge resumes.
    """
    folder = Path(out)
    chosen = _ordered_parts([_read_part(Path(part)) for part in parts])
    if folder.resolve() in {part.folder.resolve() for part in chosen}:
        raise InputError(f"{folder}: is one of the parts; use another folder for the merged shards")
    job, total = chosen[0].job, chosen[0].slice.of_images
    done = prepare_folder(folder, job, existing)
    if done is not None:
        return done
    writer = ShardWriter(folder, job.recipe["shard_bytes"], job.job_hash(), on_shard=on_shard)
    start = writer.resume()
    with contextlib.closing(_chunks(chosen, start)) as chunks:
        write_chunks(writer, chunks, progress_bar("merge", total, start, shown=progress))
    writer.total.drop(chosen[0].manifest.source_dropped or {})
    return write_manifest(folder, make_manifest(job, writer))


def _read_part(folder: Path) -> _Part:
    manifest = read_manifest(folder)
    part, trailing = manifest.part, manifest.trailing
    if part is None or trailing is None:
        raise InputError(f"{folder}: not a part; give folders made by sample --shard-of")
    read = _Part(folder, manifest, manifest.undivided(), part, trailing)
    if manifest.job_hash() != manifest.fingerprint or read.images != part_range(part.of_images, (part.number, part.of)):
        raise InputError(f"{folder}: its manifest was changed; make this part again with --existing overwrite")
    return read


def _ordered_parts(parts: Sequence[_Part]) -> list[_Part]:
    """The parts in order, after checking that they are complete, distinct and from one job with these versions."""
    if not parts:
        raise InputError("no parts to merge; give the folders made by sample --shard-of")
    first = parts[0]
    found: dict[int, _Part] = {}
    for part in parts:
        own, expected = part.slice, first.slice
        if part.job != first.job:
            raise InputError(
                f"{part.folder}: from a different job than {first.folder} ({part.job.differences(first.job)}); give "
                "parts made by the same command with the same versions"
            )
        if (own.of, own.of_images) != (expected.of, expected.of_images):
            raise InputError(
                f"{part.folder}: one of {own.of} parts of {own.of_images} images, but {first.folder} is one of "
                f"{expected.of} parts of {expected.of_images}; give parts of the same division"
            )
        if found.setdefault(own.number, part) is not part:
            other = found[own.number].folder
            raise InputError(f"{part.folder}: part {own.number} of {own.of}, like {other}; give each part once")
    missing = [number for number in range(1, first.slice.of + 1) if number not in found][: _MAX_LISTED + 1]
    if missing:
        numbers = ", ".join(map(str, missing[:_MAX_LISTED])) + (", ..." if len(missing) > _MAX_LISTED else "")
        raise InputError(
            f"{first.folder}: one of {first.slice.of} parts, but part {numbers} is missing; give its folder too, or "
            f"make it with --shard-of {missing[0]}/{first.slice.of}"
        )
    current, recorded = versions(), first.job.versions
    changed = [
        f"{name} {recorded.get(name)}, here {current[name]}"
        for name in _WRITING_PACKAGES
        if recorded.get(name) != current[name]
    ]
    if changed:
        raise InputError(
            f"{first.folder}: made by {', '.join(changed)}; merge with the versions that made the parts, or the "
            "bytes would differ from an undivided job"
        )
    return [found[number] for number in sorted(found)]


def _chunks(parts: Sequence[_Part], start: int) -> Generator[Chunk, None, None]:
    """The chunks an undivided job would write, from image `start`, which follows a row."""
    for part in parts:
        next_image = part.images.start
        for file in part.manifest.files:
            if problem := shard_problem(part.folder, file):
                raise InputError(f"{part.folder}: {problem}; {part.rerun_hint()}")
            metadata = read_shard_metadata(part.folder / file.name)
            found = (metadata.fingerprint, metadata.first, len(metadata.sizes))
            if found != (part.manifest.fingerprint, next_image, file.rows):
                raise InputError(f"{part.folder}: {file.name} is not a shard of this part; {part.rerun_hint()}")
            next_image = metadata.next
            if next_image > start:
                yield from _shard_chunks(part, part.folder / file.name, metadata, start)
        if next_image + part.trailing.images != part.images.stop:
            raise InputError(f"{part.folder}: its shards do not cover all its images; {part.rerun_hint()}")
        if part.trailing.images and next_image >= start:
            yield Chunk([part.images.stop - 1], [-1], [part.trailing], [], to_batch([]))


def _shard_chunks(part: _Part, path: Path, metadata: ShardMetadata, start: int) -> Iterator[Chunk]:
    """One chunk per row group, with images without a scene before the row they precede; skips images before `start`."""
    gaps = {row: Tally(**tally) for row, tally in metadata.gaps}
    index, offset = metadata.first, 0
    for batch in _row_groups(part, path):
        entries: list[tuple[int, int, Tally]] = []
        skipped = 0
        for row, tally in enumerate(_row_tallies(batch)):
            gap = gaps.get(offset + row, Tally())
            index += gap.images
            if index < start:
                skipped = row + 1
            else:
                entries += [(index - 1, -1, gap)] if gap.images else []
                entries.append((index, row - skipped, tally))
            index += 1
        sizes = list(metadata.sizes[offset + skipped : offset + batch.num_rows])
        offset += batch.num_rows
        indices, rows, tallies = (list(column) for column in zip(*entries, strict=True)) if entries else ([], [], [])
        yield Chunk(indices, rows, tallies, sizes, batch.slice(skipped))


def _row_groups(part: _Part, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                for batch in file.read_row_group(group).combine_chunks().to_batches():
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{part.folder}: {path.name} is damaged ({error}); {part.rerun_hint()}") from error


def _row_tallies(batch: pa.RecordBatch) -> list[Tally]:
    """Tally of each row."""
    columns = (
        batch.column("objects").value_lengths().to_pylist(),
        batch.column("sets").value_lengths().to_pylist(),
        batch.column("dropped").to_pylist(),
    )
    return [
        Tally(1, 1, objects, sets, {item["reason"]: item["count"] for item in dropped})
        for objects, sets, dropped in zip(*columns, strict=True)
    ]
