"""Writing shards: rows in order, shards of bounded size, each whole or not there, and what they account for."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.errors import InputError
from disbench.io.files import file_sha256, naming
from disbench.io.settings import Count, parse_json_table, settings_from
from disbench.shards.manifest import ShardFile, Tally
from disbench.shards.rows import ROWS_A_GROUP, SCHEMA


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sampled scenes on their way to the writer.

    Attributes:
        indices: source numbers of all images of the chunk, each with its tally.
        rows: for each image its row in the batch, or -1 if it gives no scene.
        sizes: `row_bytes` of each row.
    """

    indices: Sequence[int]
    rows: list[int]
    tallies: list[Tally]
    sizes: list[int]
    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What a finished shard says of itself: it accounts for the source's images from `first` to before `next`.

    In a part, `sizes` are the `row_bytes` of each row, and `gaps` pairs of a row's number and the tally, as a table, of
    images without a scene right before it.
    """

    fingerprint: str
    first: Count
    next: Count
    tally: Tally
    sizes: tuple[Count, ...] = ()
    gaps: tuple[tuple[Any, ...], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As the shard stores it; `sizes` and `gaps` only in a part."""
        of_part = {"sizes": self.sizes, "gaps": self.gaps} if self.sizes else {}
        shared = {"fingerprint": self.fingerprint, "first": self.first, "next": self.next}
        return {**shared, "tally": self.tally.as_dict(), **of_part}


class ShardWriter:
    """Writes rows in order; ends a shard before its rows' sizes would add up to more than `shard_bytes`.

    `begin` is the source number of the job's first image. Shards of a `part` of a dataset tell what merging needs to
    know. `finished` is called with each shard once it has its name.
    """

    def __init__(
        self,
        folder: Path,
        shard_bytes: int,
        fingerprint: str,
        *,
        begin: int = 0,
        part: bool = False,
        finished: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self.folder, self.shard_bytes, self.fingerprint = folder, shard_bytes, fingerprint
        self.part, self._finished = part, finished
        self.files: list[ShardFile] = []
        self.total = Tally()
        self._parquet: pq.ParquetWriter | None = None
        self._first = self._next = begin  # source numbers: what the open shard accounts for begins; the next image
        self._size = 0
        self._sizes: list[int] = []  # of each row of the open shard
        self._gaps: list[tuple[int, dict[str, Any]]] = []  # images without a scene right before a row
        self._tally = Tally()  # of the open shard
        self.pending = Tally()  # images without a scene since the last row
        self._group: list[pa.RecordBatch] = []
        self._group_rows = 0

    def resume(self) -> int:
        """Account for the shards that are there; the number of the image to go on with."""
        for number, path in enumerate(sorted(self.folder.glob("shard-*.parquet"))):
            facts = shard_facts(path)
            if facts.fingerprint != self.fingerprint:
                raise other_job(self.folder, f"{path.name}: other input, recipe, part or versions")
            if path.name != _shard_name(number) or facts.first != self._next:
                raise InputError(f"{path}: a shard before it is missing; use --existing overwrite")
            self._account(path, facts)
        return self._next

    def add(self, chunk: Chunk) -> None:
        """Write the chunk's rows."""
        begun = 0  # rows before this one are already handed on
        for index, row, tally in zip(chunk.indices, chunk.rows, chunk.tallies, strict=True):
            if row < 0:
                self.pending.add(tally)
                continue
            if self._size and self._size + chunk.sizes[row] > self.shard_bytes:
                self._hand_on(chunk.batch, begun, row)
                begun = row
                self._finish_shard()
            if self.pending.images:
                self._gaps.append((len(self._sizes), self.pending.as_dict()))
            self._sizes.append(chunk.sizes[row])
            self._size += chunk.sizes[row]
            self._tally.add(self.pending)
            self._tally.add(tally)
            self.pending = Tally()
            self._next = index + 1
        self._hand_on(chunk.batch, begun, len(chunk.sizes))

    def close(self) -> None:
        """Finish the last shard; images without a scene after it count in the total alone."""
        if self._size:
            self._finish_shard()
        self.total.add(self.pending)

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
        facts = ShardFacts(self.fingerprint, self._first, self._next, self._tally)
        if self.part:
            facts = replace(facts, sizes=tuple(self._sizes), gaps=tuple(self._gaps))
        path = self._path
        with naming(path):
            self._parquet.add_key_value_metadata({"disbench.shard": json.dumps(facts.as_json(), sort_keys=True)})
            self._parquet.close()
            self._parquet = None
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())
            self._partial.replace(path)
        self._account(path, facts)
        self._size, self._tally = 0, Tally()
        self._sizes, self._gaps = [], []
        self._finished(path)

    def _account(self, path: Path, facts: ShardFacts) -> None:
        self.total.add(facts.tally)
        self._first = self._next = facts.next
        self.files.append(ShardFile(path.name, facts.tally.scenes, path.stat().st_size, file_sha256(path)))


def other_job(folder: Path, differences: str) -> InputError:
    """The error for a folder whose shards another recipe, other input or other versions made."""
    return InputError(
        f"{folder}: its shards were made otherwise ({differences}); name another folder or use --existing overwrite"
    )


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def shard_facts(path: Path) -> ShardFacts:
    """What a finished shard says of itself; `InputError` for another file."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return settings_from(ShardFacts, parse_json_table(metadata[b"disbench.shard"]), str(path), unknown="skip")
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a shard of disbench; use --existing overwrite or another folder") from error
