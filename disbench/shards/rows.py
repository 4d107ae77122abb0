"""Convert sampled scenes to rows of Arrow columns and back, and write shards row by row.

`objects` and `sets` are lists of structs; sets refer to objects by index, so no mask is stored twice
(docs/datasets.md, "Shards"). Shards have bounded size, are written atomically and record which images they cover.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from disbench.core.arrays import BoolArray, IntArray
from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_PIXELS
from disbench.core.masks import Rle, are_canonical, areas, from_foreign_rle
from disbench.core.scenes import Kind, SampledScene, Scene, SceneObject, SetOfObjects
from disbench.io.archives import safe_path
from disbench.io.files import add_file_name, file_sha256
from disbench.io.parquet import check_decoded_size
from disbench.io.settings import Count, parse_json_table, settings_from
from disbench.shards.manifest import SCHEMA_VERSION, ShardFile, Tally

ROWS_PER_GROUP = 32  # scenes per Parquet row group, the unit of decoding

_MAX_STORED_COUNT = 2**1023  # cap on stored counts of combinations, within the range of float64

_OBJECT_FIELDS = ("annotation_id", "source", "kind", "category", "synset", "area", "box")  # stored unchanged
_NULL = -(2**40)  # stands for null; smaller than any stored number
_PLAIN_PATH = re.compile(r"(\w[\w. -]*/){0,8}\w[\w. -]*", re.ASCII)  # fast path: safe without calling `safe_path`

_TEXT, _INT, _INTS, _COUNT = pa.string(), pa.int32(), pa.list_(pa.int32()), pa.float64()
_MAY_BE_NULL = ("annotation_id", "synset", "parent", "level")


def _fields(**kinds: pa.DataType) -> list[pa.Field]:
    return [pa.field(name, kind, nullable=name in _MAY_BE_NULL) for name, kind in kinds.items()]


_OBJECT = pa.struct(
    _fields(id=_INT, annotation_id=pa.int64(), source=_TEXT, kind=_TEXT, category=_TEXT, synset=_TEXT)
    + _fields(area=pa.int64(), box=pa.list_(_INT, 4), rle=pa.binary(), parent=_INT, level=_INT, neighbours=_INTS)
)
_SET = pa.struct(_fields(center=_INT, members=pa.list_(_INTS), click_excludes=_INTS, left_out=_COUNT, repeated=_COUNT))
_DROPPED = pa.struct(_fields(reason=_TEXT, count=_INT))
SCHEMA = pa.schema(
    _fields(image_id=_TEXT, file_name=_TEXT, height=_INT, width=_INT, source=_TEXT)
    + _fields(objects=pa.list_(_OBJECT), sets=pa.list_(_SET), dropped=pa.list_(_DROPPED)),
    metadata={"disbench.schema": SCHEMA_VERSION},
)
"""Columns of a shard. `rle` holds the counts of a COCO compressed RLE of (height, width); a member of a set is the
union of the objects it lists; `left_out` and `repeated` are float64 counts, which can exceed 2**53."""


def to_batch(scenes: Sequence[SampledScene]) -> pa.RecordBatch:
    """Convert scenes to rows of a shard; `InputError` for an image of more than `MAX_PIXELS` pixels."""
    for scene in (sampled.scene for sampled in scenes):
        if scene.height * scene.width > MAX_PIXELS:
            raise InputError(
                f"image {scene.image_id}: {scene.width} x {scene.height} pixels, but shards hold at most "
                f"{MAX_PIXELS:,} per image; leave it out"
            )
    objects = [item for sampled in scenes for item in sampled.scene.objects]
    sets = [item for sampled in scenes for item in sampled.sets]
    parents = [parent for sampled in scenes for parent in sampled.parents]
    columns: dict[str, Sequence[Any]] = {
        "id": [i for sampled in scenes for i in range(len(sampled.scene.objects))],
        **{name: list(map(attrgetter(name), objects)) for name in _OBJECT_FIELDS},
        "rle": [item.rle["counts"] for item in objects],
        "parent": [None if parent is None or parent < 0 else parent for parent in parents],
        "level": [level for sampled in scenes for level in sampled.levels],
        "neighbours": [row for sampled in scenes for row in sampled.neighbours],
    }
    set_columns: dict[str, Sequence[Any]] = {
        "center": [item.center for item in sets],
        "members": [item.members for item in sets],
        "click_excludes": [item.click_excludes for item in sets],
        "left_out": [float(min(item.left_out, _MAX_STORED_COUNT)) for item in sets],
        "repeated": [float(min(item.repeated, _MAX_STORED_COUNT)) for item in sets],
    }
    rows = [sampled.scene for sampled in scenes]
    arrays = [
        *(pa.array([getattr(row, field.name) for row in rows], field.type) for field in list(SCHEMA)[:5]),
        _list_column(_OBJECT, columns, [len(row.objects) for row in rows]),
        _list_column(_SET, set_columns, [len(sampled.sets) for sampled in scenes]),
        pa.array(
            [[{"reason": r, "count": n} for r, n in sorted(row.dropped.items())] for row in rows], pa.list_(_DROPPED)
        ),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def row_bytes(sampled: SampledScene) -> int:
    """Approximate uncompressed size of a scene in a shard, within a few percent; decides where shards end."""
    masks = sum(len(item.rle["counts"]) for item in sampled.scene.objects)
    members = sum(sum(map(len, item.members)) for item in sampled.sets)
    return 128 + masks + 112 * len(sampled.scene.objects) + 48 * len(sampled.sets) + 8 * members


class Rows:
    """Sampled scenes read from an untrusted table whose columns match `SCHEMA`.

    Converts whole columns at once, since Arrow converts structs to Python values one by one.

    Raises:
        ValueError: strings and masks take more than `MAX_TEXT_BYTES`.
    """

    def __init__(self, table: pa.Table) -> None:
        check_decoded_size(table)
        self._rows = {name: _decode_dictionary(table[name].combine_chunks()) for name in SCHEMA.names[:5]}
        columns = (_ListColumn(table[name].combine_chunks()) for name in SCHEMA.names[5:])
        self._objects, self._sets, self._dropped = columns
        self._values: list[list[Any]] = [column.to_pylist() for column in self._rows.values()]

    def __len__(self) -> int:
        return len(self._values[0])

    def __iter__(self) -> Iterator[SampledScene]:
        return map(self.scene, range(len(self)))

    def scene(self, row: int) -> SampledScene:
        """Scene of one row."""
        image_id, file_name, height, width, source = (column[row] for column in self._values)
        size = [height, width]
        objects, parents, levels, neighbours = [], [], [], []
        for number, object_source, kind, category, synset, area, box, rle, parent, level, near in self._objects.structs(
            row
        ):
            mask: Rle = {"size": size, "counts": rle}
            objects.append(SceneObject(mask, area, tuple(box), category, synset, number, object_source, kind))
            # Parent and level are both null for an object outside the tree; a root has a level.
            parents.append(-1 if parent is None and level is not None else parent)
            levels.append(level)
            neighbours.append(tuple(near))
        sets = [
            SetOfObjects(center, tuple(map(tuple, members)), tuple(excluded), int(left_out), int(repeated))
            for center, members, excluded, left_out, repeated in self._sets.structs(row)
        ]
        dropped = Counter(dict(self._dropped.structs(row)))
        return SampledScene(
            Scene(image_id, file_name, height, width, source, tuple(objects), dropped=dropped),
            tuple(parents),
            tuple(levels),
            tuple(neighbours),
            tuple(sets),
        )

    def check(self) -> None:
        """Check that the rows are valid scenes.

        Areas and boxes are trusted: the manifest hashes the file, and `disbench verify` recomputes them.

        Raises:
            ValueError: an image has no pixels, more than `MAX_PIXELS` or a path outside its folder; a mask is empty or
                has the wrong size; parents do not form a forest; an object index is out of range.
        """
        names = self._values[0]

        def check(valid: BoolArray, rows: IntArray, problem: str) -> None:
            if not valid.all():
                raise ValueError(f"image {quote(names[int(rows[np.argmin(valid)])])}: {problem}")

        height, width = _int64(self._rows["height"]), _int64(self._rows["width"])
        all_rows = np.arange(len(self))
        check((np.minimum(height, width) >= 1) & (height * width <= MAX_PIXELS), all_rows, "image size out of range")
        for name in self._values[1]:
            if not _PLAIN_PATH.fullmatch(name):
                try:
                    safe_path(name, "its image")
                except InputError as error:
                    raise ValueError(error) from None  # the reader adds the file
        check(_int64(self._dropped["count"]) >= 0, self._dropped.rows, "a count of dropped annotations is negative")

        objects, rows = self._objects, self._objects.rows
        counts, first = objects.lengths[rows], objects.starts[rows]
        check(_int64(objects["id"]) == np.arange(len(rows)) - first, rows, "object ids are not 0, 1, 2, ...")
        is_known = pc.is_in(objects["kind"], pa.array(get_args(Kind)))
        check(is_known.to_numpy(zero_copy_only=False), rows, "unknown kind of object")
        is_stuff = pc.equal(objects["kind"], "stuff").to_numpy(zero_copy_only=False)
        neighbours = _ListColumn(objects["neighbours"])
        in_range = _in_range(neighbours.items, counts[neighbours.rows])
        check(in_range, rows[neighbours.rows], "a neighbour index is out of range")
        parent, level = _int64(objects["parent"]), _int64(objects["level"])
        check((parent == _NULL) | _in_range(parent, counts), rows, "a parent index is out of range")
        parent_level = np.where(parent == _NULL, -1, level[np.where(parent == _NULL, 0, parent + first)])
        outside_tree = (parent == _NULL) & (level == _NULL)
        # Levels that increase by one rule out cycles.
        in_tree = (level == parent_level + 1) & (level != _NULL) & ~is_stuff
        check(outside_tree | in_tree, rows, "an object's level is not its parent's plus one")

        sets, rows = self._sets, self._sets.rows
        counts = objects.lengths[rows]
        check(_in_range(sets["center"], counts), rows, "a center index is out of range")
        excluded, members = _ListColumn(sets["click_excludes"]), _ListColumn(sets["members"])
        check(_in_range(excluded.items, counts[excluded.rows]), rows[excluded.rows], "click_excludes is out of range")
        check(members.lengths > 0, rows, "a set has no mask")
        member_objects = _ListColumn(members.items)
        check(member_objects.lengths > 0, rows[members.rows], "a mask of a set has no object")
        set_rows = members.rows[member_objects.rows]
        in_range = _in_range(member_objects.items, counts[set_rows])
        check(in_range, rows[set_rows], "an object index in a set is out of range")
        for name in ("left_out", "repeated"):
            stored = sets[name].to_numpy(zero_copy_only=False)
            check(np.isfinite(stored) & (stored >= 0), rows, f"{name} of a set is not a count")
        self._check_masks(np.stack([height, width], axis=1).tolist())

    def _check_masks(self, sizes: Sequence[list[int]]) -> None:
        rows = self._objects.rows.tolist()
        counts = self._objects["rle"].to_pylist()
        rles: list[Rle] = [{"size": sizes[row], "counts": data} for row, data in zip(rows, counts, strict=True)]
        if are_canonical(rles):
            return
        for row, rle in zip(rows, rles, strict=True):  # slow path, to say what is wrong
            try:
                if not areas([from_foreign_rle(rle, *rle["size"])])[0]:
                    raise ValueError("a mask is empty")
            except ValueError as error:
                raise ValueError(f"image {quote(self._values[0][row])}: {error}") from error


class _ListColumn:
    """A list column with its items flattened; null counts as empty, and struct fields are columns by name.

    `lengths` (lists,), `starts` (lists + 1,) and `rows` (items,), the list that holds each item, are int64.
    """

    def __init__(self, lists: pa.ListArray) -> None:
        lengths = lists.value_lengths()
        lengths = lengths.fill_null(0) if lengths.null_count else lengths
        self.lengths: IntArray = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.rows = np.repeat(np.arange(len(self.lengths)), self.lengths)
        self.items = lists.flatten()
        self._columns: dict[str, pa.Array] = {}
        if pa.types.is_struct(self.items.type):
            names = (field.name for field in self.items.type)
            self._columns = dict(zip(names, map(_decode_dictionary, self.items.flatten()), strict=True))
        self._values: list[tuple[Any, ...]] | None = None

    def __getitem__(self, name: str) -> pa.Array:
        return self._columns[name]

    def structs(self, row: int) -> list[tuple[Any, ...]]:
        """Structs of one list as tuples of Python values."""
        if self._values is None:
            columns = [column.to_pylist() for name, column in self._columns.items() if name != "id"]
            self._values = list(zip(*columns, strict=True))
        return self._values[self.starts[row] : self.starts[row + 1]]


def _decode_dictionary(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _int64(values: pa.Array) -> IntArray:
    if values.null_count:
        values = values.cast(pa.int64()).fill_null(_NULL)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)


def _in_range(numbers: pa.Array | IntArray, counts: IntArray) -> BoolArray:
    indices = numbers if isinstance(numbers, np.ndarray) else _int64(numbers)
    return np.asarray((indices >= 0) & (indices < counts), dtype=np.bool_)


def _list_column(struct: pa.StructType, columns: Mapping[str, Sequence[Any]], lengths: Sequence[int]) -> pa.Array:
    """Build a list column of structs from flat columns and the number of structs per row."""
    fields = [pa.array(columns[field.name], field.type) for field in struct]
    structs = pa.StructArray.from_arrays(fields, fields=list(struct))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, structs, type=pa.list_(struct))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sampled scenes to be written.

    Attributes:
        indices: source index of each image in the chunk; `tallies` has one tally per image.
        rows: each image's row in the batch, or -1 if it has no scene.
        sizes: `row_bytes` of each row.
    """

    indices: Sequence[int]
    rows: list[int]
    tallies: list[Tally]
    sizes: list[int]
    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class ShardMetadata:
    """Metadata of a finished shard, which covers images `first` to `next` - 1 of the source.

    In a part, `sizes` are the `row_bytes` of each row, and `gaps` pairs of a row index and the tally (as a table) of
    the images without a scene just before that row.
    """

    fingerprint: str
    first: Count
    next: Count
    tally: Tally
    sizes: tuple[Count, ...] = ()
    gaps: tuple[tuple[Any, ...], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The stored JSON; `sizes` and `gaps` only in a part."""
        table = {**dataclasses.asdict(self), "tally": self.tally.as_dict()}
        return table if self.sizes else {name: table[name] for name in ("fingerprint", "first", "next", "tally")}


class ShardWriter:
    """Writes rows in order, starting a new shard before the current one would exceed `shard_bytes`.

    `start` is the source index of the job's first image. With `part`, shards also store what merging needs. `on_shard`
    is called with the path of each finished shard.
    """

    def __init__(
        self,
        folder: Path,
        shard_bytes: int,
        fingerprint: str,
        *,
        start: int = 0,
        part: bool = False,
        on_shard: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self.folder, self.shard_bytes, self.fingerprint = folder, shard_bytes, fingerprint
        self.part, self._on_shard = part, on_shard
        self.files: list[ShardFile] = []
        self.total = Tally()
        self._parquet: pq.ParquetWriter | None = None
        self._first = self._next = start  # source indices: first image of the open shard, next image to add
        self._size = 0
        self._sizes: list[int] = []  # per row of the open shard
        self._gaps: list[tuple[int, dict[str, Any]]] = []  # images without a scene just before a row
        self._tally = Tally()  # of the open shard
        self.pending = Tally()  # images without a scene since the last row
        self._group: list[pa.RecordBatch] = []
        self._group_rows = 0

    def resume(self) -> int:
        """Count the finished shards in the folder; return the index of the next image."""
        for number, path in enumerate(sorted(self.folder.glob("shard-*.parquet"))):
            metadata = read_shard_metadata(path)
            if metadata.fingerprint != self.fingerprint:
                raise job_mismatch(self.folder, f"{path.name}: different input, recipe, part or versions")
            if path.name != _shard_name(number) or metadata.first != self._next:
                raise InputError(f"{path}: an earlier shard is missing; use --existing overwrite")
            self._register(path, metadata)
        return self._next

    def add(self, chunk: Chunk) -> None:
        """Write the chunk's rows."""
        start = 0  # rows before this one are already written
        for index, row, tally in zip(chunk.indices, chunk.rows, chunk.tallies, strict=True):
            if row < 0:
                self.pending.add(tally)
                continue
            if self._size and self._size + chunk.sizes[row] > self.shard_bytes:
                self._buffer_rows(chunk.batch, start, row)
                start = row
                self._finish_shard()
            if self.pending.images:
                self._gaps.append((len(self._sizes), self.pending.as_dict()))
            self._sizes.append(chunk.sizes[row])
            self._size += chunk.sizes[row]
            self._tally.add(self.pending)
            self._tally.add(tally)
            self.pending = Tally()
            self._next = index + 1
        self._buffer_rows(chunk.batch, start, len(chunk.sizes))

    def close(self) -> None:
        """Finish the last shard; trailing images without a scene are added only to the total."""
        if self._size:
            self._finish_shard()
        self.total.add(self.pending)

    def discard(self) -> None:
        """Delete the open shard; keep finished ones."""
        if self._parquet is not None:
            with contextlib.suppress(Exception):  # the disk may be full; the file is deleted anyway
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

    def _buffer_rows(self, batch: pa.RecordBatch, start: int, end: int) -> None:
        """Collect rows into row groups of `ROWS_PER_GROUP`, counted from the shard's first row."""
        while start < end:
            take = min(end - start, ROWS_PER_GROUP - self._group_rows)
            self._group.append(batch.slice(start, take))
            self._group_rows += take
            start += take
            if self._group_rows == ROWS_PER_GROUP:
                self._write_group()

    def _write_group(self) -> None:
        with add_file_name(self._path):
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._partial, SCHEMA, compression="zstd")
            # Concatenated so that the bytes do not depend on chunk boundaries.
            self._parquet.write_batch(pa.concat_batches(self._group))
        self._group, self._group_rows = [], 0

    def _finish_shard(self) -> None:
        if self._group_rows:
            self._write_group()
        assert self._parquet is not None
        metadata = ShardMetadata(self.fingerprint, self._first, self._next, self._tally)
        if self.part:
            metadata = replace(metadata, sizes=tuple(self._sizes), gaps=tuple(self._gaps))
        path = self._path
        with add_file_name(path):
            self._parquet.add_key_value_metadata({"disbench.shard": json.dumps(metadata.as_json(), sort_keys=True)})
            self._parquet.close()
            self._parquet = None
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())
            self._partial.replace(path)
        self._register(path, metadata)
        self._size, self._tally = 0, Tally()
        self._sizes, self._gaps = [], []
        self._on_shard(path)

    def _register(self, path: Path, metadata: ShardMetadata) -> None:
        self.total.add(metadata.tally)
        self._first = self._next = metadata.next
        self.files.append(ShardFile(path.name, metadata.tally.scenes, path.stat().st_size, file_sha256(path)))


def job_mismatch(folder: Path, differences: str) -> InputError:
    """The error for a folder whose shards come from a different recipe, input or versions."""
    return InputError(
        f"{folder}: its shards are from a different job ({differences}); use another folder or --existing overwrite"
    )


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def read_shard_metadata(path: Path) -> ShardMetadata:
    """Read the metadata of a finished shard; `InputError` if it is not one."""
    try:
        stored = pq.read_metadata(path).metadata or {}
        return settings_from(ShardMetadata, parse_json_table(stored[b"disbench.shard"]), str(path), unknown="skip")
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a shard of disbench; use --existing overwrite or another folder") from error
