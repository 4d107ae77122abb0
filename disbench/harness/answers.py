"""The stored run of the diverse task: `sets.parquet`, `answers.parquet` and `overlaps.parquet` beside `run.json`.

A set has a row in the first, a click on it (drawn, or moved for the measure of stability) a row in the second, and
each pair of a member and a candidate a row in the third, in the same order. Everything that a report says of
ambiguity is computed from them; they are never rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.arrays import Float32Array, IntArray
from disbench.core.errors import InputError
from disbench.harness.record import DIVERSE, SetRunRecord, parse_record
from disbench.harness.store import MOST_IOUS, RUN, check_counts, grouped, unfinished
from disbench.io.files import naming, whole_file
from disbench.io.parquet import MOST_VALUES, complaining, has_columns, open_parquet, size_of, written_out

FORMAT = 1
SETS, ANSWERS, OVERLAPS = "sets.parquet", "answers.parquet", "overlaps.parquet"
_FORM = {"disbench.diverse": str(FORMAT)}

SETS_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("center", pa.int32(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("members", pa.int16(), nullable=False),
        pa.field("relations", pa.list_(pa.string()), nullable=False),
        pa.field("areas", pa.list_(pa.int64()), nullable=False),
        pa.field("click_area", pa.int64(), nullable=False),
    ],
    metadata=_FORM,
)
"""One row a set. `relations` (`disbench.harness.set_source.relation`) and `areas` (pixels) have one entry a member,
inner to outer; `click_area` is the size of the region that the first click is drawn from."""

_ANSWER = [
    pa.field("sample", pa.string(), nullable=False),
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("center", pa.int32(), nullable=False),
    pa.field("click", pa.int16(), nullable=False),
    pa.field("dx", pa.int16(), nullable=False),
    pa.field("dy", pa.int16(), nullable=False),
    pa.field("x", pa.int32(), nullable=False),
    pa.field("y", pa.int32(), nullable=False),
    pa.field("members", pa.int16(), nullable=False),
    pa.field("candidates", pa.int16(), nullable=False),
    pa.field("scores", pa.list_(pa.float64())),
    pa.field("agreement", pa.list_(pa.float32()), nullable=False),
    pa.field("unmoved", pa.list_(pa.float32())),
    pa.field("model_seconds", pa.float64(), nullable=False),
    pa.field("harness_seconds", pa.float64(), nullable=False),
    pa.field("failure", pa.string()),
    pa.field("candidate_masks", pa.list_(pa.binary())),
]
ANSWERS_SCHEMA = pa.schema(_ANSWER, metadata=_FORM)
"""One row a click. `click` numbers the draws of a set from 1; `dx`, `dy` say by how much it was moved (0, 0: not at
all). `agreement`: IoU of each pair of candidates, (0, 1), (0, 2), ..., (1, 2), ... `unmoved`: null where the click was
not moved, otherwise IoU of each candidate of the click that was not moved with each of this one's, row by row.
`candidate_masks`: COCO compressed run lengths of the set's height and width, or null. A method that fails on a click
ends the set with a row whose `failure` says why and that has no candidates."""
JOURNAL_SCHEMA = pa.schema([*_ANSWER, pa.field("ious", pa.list_(pa.float32()), nullable=False)])
"""While a run is under way: with the IoU of each member with each candidate, row by row."""
OVERLAPS_SCHEMA = pa.schema(
    [
        *_ANSWER[1:8],
        pa.field("member", pa.int16(), nullable=False),
        pa.field("candidate", pa.int16(), nullable=False),
        pa.field("iou", pa.float32(), nullable=False),
        pa.field("score", pa.float64()),
    ],
    metadata=_FORM,
)
"""One row for each member and candidate of each click; `score` is the candidate's, or null."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """What one click came to; the fields are the columns of `JOURNAL_SCHEMA`."""

    sample: str
    image_id: str
    center: int
    click: int
    dx: int
    dy: int
    x: int
    y: int
    members: int
    candidates: int = 0
    scores: tuple[float, ...] | None = None
    agreement: tuple[float, ...] = ()
    unmoved: tuple[float, ...] | None = None
    model_seconds: float = 0.0
    harness_seconds: float = 0.0
    failure: str | None = None
    candidate_masks: tuple[bytes, ...] | None = None
    ious: tuple[float, ...] = ()


def to_journal(rows: Sequence[AnswerRow]) -> pa.Table:
    """Rows as an Arrow table of `JOURNAL_SCHEMA`."""
    columns = {name: [getattr(row, name) for row in rows] for name in JOURNAL_SCHEMA.names}
    return pa.table(columns, schema=JOURNAL_SCHEMA)


def write_answers(folder: Path, tables: Iterable[pa.Table]) -> None:
    """Write `answers.parquet` and `overlaps.parquet` from tables of `JOURNAL_SCHEMA`, in order."""
    with (
        _writer(folder / ANSWERS, ANSWERS_SCHEMA) as answers,
        _writer(folder / OVERLAPS, OVERLAPS_SCHEMA) as overlaps,
    ):
        for table in grouped(tables):
            _write(answers, table.select(ANSWERS_SCHEMA.names).cast(ANSWERS_SCHEMA))
            _write(overlaps, overlaps_of(table))


def write_sets(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a table of sets, whose rows have the columns of `SETS_SCHEMA`."""
    with _writer(path, SETS_SCHEMA) as file:
        _write(file, pa.Table.from_pylist(list(rows), schema=SETS_SCHEMA))


def overlaps_of(table: pa.Table) -> pa.Table:
    """A row for each member and candidate of some answers.

    Args:
        table: of `JOURNAL_SCHEMA`.
    """
    candidates = table["candidates"].to_numpy().astype(np.int64)
    row, within = _places(table["members"].to_numpy() * candidates)
    candidate = within % np.maximum(candidates[row], 1)
    scores = table["scores"].combine_chunks()
    starts = scores.offsets.to_numpy()[:-1]
    known = scores.is_valid().to_numpy(zero_copy_only=False)[row]
    at = np.where(known, starts[row] + candidate, 0)
    flat = np.concatenate([np.zeros(0), scores.values.to_numpy()])
    values = flat[at] if known.any() else np.zeros(len(row))
    columns = {name: table[name].take(pa.array(row)) for name in OVERLAPS_SCHEMA.names[:7]}
    columns |= {
        "member": pa.array(within // np.maximum(candidates[row], 1), pa.int16()),
        "candidate": pa.array(candidate, pa.int16()),
        "iou": table["ious"].combine_chunks().flatten(),
        "score": pa.array(values, mask=~known),
    }
    return pa.table(columns, schema=OVERLAPS_SCHEMA)


@dataclass(frozen=True)
class StoredAnswers:
    """A finished run of the diverse task.

    Attributes:
        folder: where it lies.
        record: the content of `run.json`.
    """

    folder: Path
    record: SetRunRecord

    def sets(self) -> pa.Table:
        """The sets, of `SETS_SCHEMA`.

        Raises:
            InputError: the file is missing or damaged.
        """
        return read_sets_table(self.folder)

    def answers(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The clicks, of `ANSWERS_SCHEMA`, or some of their columns.

        Raises:
            InputError: the file is missing or damaged.
        """
        return _read(self.folder / ANSWERS, ANSWERS_SCHEMA, columns)

    def ious(self, answers: pa.Table) -> list[Float32Array]:
        """IoU of each member with each candidate, float32 (members, candidates), one array a row of `answers()`.

        Raises:
            InputError: the file is missing, damaged, or not that of these answers.
        """
        found = _read(self.folder / OVERLAPS, OVERLAPS_SCHEMA, ["iou"])["iou"].to_numpy()
        members, candidates = (answers[name].to_numpy().astype(int) for name in ("members", "candidates"))
        if min(members.min(initial=0), candidates.min(initial=0)) < 0:
            raise InputError(f"{self.folder / ANSWERS}: a negative number of masks; run it again")
        ends = np.cumsum(members * candidates)
        if len(found) != (ends[-1] if len(ends) else 0):
            raise InputError(
                f"{self.folder / OVERLAPS}: {len(found)} rows, where {ANSWERS} has candidates for another number; "
                "run it again with --existing overwrite"
            )
        parts = np.split(found, ends[:-1]) if len(ends) else []
        return [part.reshape(shape) for part, shape in zip(parts, zip(members, candidates, strict=True), strict=True)]


def read_answers(folder: Path) -> StoredAnswers:
    """A finished run of the diverse task.

    Raises:
        InputError: no run there, not finished, damaged, or one of another task.
    """
    path = folder / RUN
    if not path.is_file():
        raise unfinished(folder)
    record = parse_record(path.read_bytes(), str(path))
    if not isinstance(record, SetRunRecord):
        raise InputError(f"{folder}: not a run of --task {DIVERSE}; disbench report reads it")
    for name in (SETS, ANSWERS, OVERLAPS):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing; run it again with --existing overwrite")
    return StoredAnswers(folder, record)


def is_diverse(folder: Path) -> bool:
    """Whether a folder has a finished run of the diverse task."""
    path = folder / RUN
    return path.is_file() and isinstance(parse_record(path.read_bytes(), str(path)), SetRunRecord)


def read_sets_table(folder: Path) -> pa.Table:
    """The table of sets of a run on diverse sets, of `SETS_SCHEMA`.

    Raises:
        InputError: it is missing or damaged.
    """
    return _read(folder / SETS, SETS_SCHEMA)


def _read(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    names = list(schema.names if columns is None else columns)
    with complaining(path, "not a whole file of a run", "run it again"):
        file, groups = open_parquet(path, schema)
        with file:
            if names != ["iou"]:
                check_counts(groups, size_of(path))
            elif (rows := sum(group.rows for group in groups)) > MOST_IOUS:
                raise ValueError(f"{rows} rows")
            if not has_columns(file, schema, names):
                raise ValueError("its columns are not a run's")
            return written_out(file.read(names), schema)


def _places(counts: IntArray) -> tuple[IntArray, IntArray]:
    """For each of so many entries a row: the number of its row, and its own number in it."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


def _write(file: pq.ParquetWriter, table: pa.Table) -> None:
    """In row groups of a bounded number of values (of a byte or more), however many candidates there are."""
    file.write_table(table, row_group_size=max(1, MOST_VALUES // 4 * len(table) // max(1, table.nbytes)))


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Any]:
    with naming(path), whole_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer
