"""Stored runs: a folder with `run.json` and `clicks.parquet`, which has one row per click.

During a run, `journal.sqlite` has the rows of finished samples; at the end they become `clicks.parquet` in the
dataset's order. The journal is then removed, unless some samples could not be read, which the same command repeats.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.arrays import FloatArray
from disbench.core.click_policies import is_replay
from disbench.core.errors import InputError
from disbench.core.limits import MAX_IOUS, MAX_TEXT_BYTES
from disbench.harness.protocol import MOST_CLICKS, Protocol
from disbench.harness.record import DIVERSE, FORMAT, UNREAD, Record, RunRecord, parse_record
from disbench.io.files import add_file_name, atomic_write
from disbench.io.parquet import (
    as_input_error,
    decode_strings,
    has_columns,
    open_parquet,
    plain_schema,
    read_rows,
    size_of,
)
from disbench.io.settings import parse_json_table

AnyRecord = TypeVar("AnyRecord", bound=Record)
RUN, CLICKS, JOURNAL = "run.json", "clicks.parquet", "journal.sqlite"
_SAMPLES_A_GROUP, _ROWS_AT_ONCE = 256, 128
_FEW_ROWS = 1 << 19  # always allowed, however small the file
_TABLES = """
PRAGMA trusted_schema = OFF;
CREATE TABLE IF NOT EXISTS job (description TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (id TEXT PRIMARY KEY, content TEXT, is_read INTEGER, rows BLOB);
CREATE TABLE IF NOT EXISTS repeated (reason TEXT);
CREATE TABLE IF NOT EXISTS seconds (wall REAL);
CREATE TABLE IF NOT EXISTS versions (said TEXT UNIQUE);
"""
"""Tables of a journal; the schema of an untrusted one may contain views and triggers, which run SQL."""

Int16 = Annotated[int, pa.int16()]
Int32 = Annotated[int, pa.int32()]
Float32 = Annotated[float, pa.float32()]
_COLUMNS = {str: pa.string(), bool: pa.bool_(), float: pa.float64(), bytes: pa.binary()}


def columns_of(row: type) -> list[pa.Field]:
    """A column for each field of a row dataclass, nullable if the field may be None."""
    hints = get_type_hints(row, include_extras=True).items()
    return [pa.field(name, _column(hint), nullable=type(None) in get_args(hint)) for name, hint in hints]


def _column(hint: Any) -> pa.DataType:
    if get_origin(hint) is Annotated:
        return get_args(hint)[1]
    if get_origin(hint) is tuple:
        return pa.list_(_column(get_args(hint)[0]))
    return _COLUMNS[hint] if hint in _COLUMNS else _column(get_args(hint)[0])  # an optional field


@dataclass(frozen=True, slots=True)
class ClickRow:
    """The outcome of one click: the columns of `clicks.parquet`.

    A sample that fails ends with a row whose `failure` says why, with `iou` and `boundary_iou` 0, `kept` -1 and
    `candidates` 0. If the sample cannot be read (`disbench.harness.record.UNREAD`), `x`, `y`, `height` and `width` are
    also 0. In an imported run (`disbench.harness.run`) only `sample`, `click` and `iou` are known: `x`, `y` and `kept`
    are -1, `boundary_iou` and seconds nan, the others as in a failure.

    `mask` and `candidate_masks` are COCO compressed run lengths (`counts`; the size is `height`, `width`) or None,
    depending on `--store`.
    """

    sample: str
    click: Int16
    x: Int32
    y: Int32
    positive: bool
    iou: Float32 = 0.0
    boundary_iou: Float32 = 0.0
    kept: Int16 = -1
    candidates: Int16 = 0
    candidate_ious: tuple[Float32, ...] = ()
    candidate_scores: tuple[float, ...] | None = None
    model_seconds: float = 0.0
    harness_seconds: float = 0.0
    height: Int32 = 0
    width: Int32 = 0
    failure: str | None = None
    mask: bytes | None = None
    candidate_masks: tuple[bytes, ...] | None = None


SCHEMA = pa.schema(columns_of(ClickRow), {"disbench.run": str(FORMAT)})
SECONDS = ("model_seconds", "harness_seconds")  # the only columns that differ between equal runs


def to_table(rows: Sequence[object], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows, whose fields are the columns of `schema`, as an Arrow table."""
    return pa.table({name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema)


class Journal:
    """Rows of finished samples, in `journal.sqlite`; a damaged file raises InputError."""

    def __init__(self, folder: Path, schema: pa.Schema = SCHEMA) -> None:
        self.path, self._schema = folder / JOURNAL, schema
        with self._as_input_error():
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            self._connection.executescript(_TABLES)

    def job(self) -> dict[str, Any] | None:
        """The job of this journal (`disbench.harness.record.Record.job`); None if it is new."""
        with self._as_input_error():
            found = self._do("SELECT description FROM job")
            return parse_json_table(found[0][0]) if found else None

    def begin(self, job: Mapping[str, Any]) -> None:
        """Write the job, replacing any other."""
        self._do("DELETE FROM job")
        self._do("INSERT INTO job VALUES (?)", json.dumps(job, sort_keys=True))

    def finished(self) -> dict[str, str | None]:
        """Sample -> hash of its content when it was evaluated; None for a sample that could not be read."""
        return dict(self._do("SELECT id, CASE WHEN is_read THEN content END FROM samples"))

    def add(self, sample: str, content: str, rows: pa.Table) -> None:
        """Write the rows of a finished sample, whose files have the hash `content`."""
        buffer = io.BytesIO()
        with pa.ipc.new_stream(buffer, rows.schema) as stream:
            stream.write_table(rows)
        is_read = not str(rows["failure"][-1].as_py()).startswith(UNREAD)
        self._do("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)", sample, content, is_read, buffer.getvalue())

    def drop(self, samples: Iterable[str]) -> None:
        """Remove the rows of samples."""
        for sample in samples:
            self._do("DELETE FROM samples WHERE id = ?", sample)

    def tables(self, samples: Iterable[str]) -> Iterator[pa.Table]:
        """Rows of finished samples, in the given order."""
        with self._as_input_error():
            for sample in samples:
                ((rows,),) = self._do("SELECT rows FROM samples WHERE id = ?", sample)
                with pa.ipc.open_stream(rows) as stream:
                    if not stream.schema.equals(self._schema):
                        raise ValueError("a sample has other columns")
                    table = stream.read_all()
                table.validate(full=True)  # SQLite has no checksums
                yield table

    def note(self, repeated: Sequence[str], versions: Mapping[str, str]) -> None:
        """Store why batches were repeated one by one, and the versions that a method reports, without duplicates."""
        for reason in repeated:
            self._do("INSERT INTO repeated VALUES (?)", reason)
        if versions:
            self._do("INSERT OR IGNORE INTO versions VALUES (?)", json.dumps(dict(versions), sort_keys=True))

    def notes(self) -> tuple[list[str], list[dict[str, str]]]:
        """Why batches were repeated, and all stored versions, several if resumed in another environment."""
        with self._as_input_error():
            repeated = [reason for (reason,) in self._do("SELECT reason FROM repeated ORDER BY rowid")]
            versions = self._do("SELECT said FROM versions ORDER BY rowid")
            return repeated, [parse_json_table(said) for (said,) in versions]

    def spend(self, seconds: float) -> float:
        """Add wall time; returns the total over all interruptions."""
        self._do("INSERT INTO seconds VALUES (?)", seconds)
        ((total,),) = self._do("SELECT SUM(wall) FROM seconds")
        return float(total)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _do(self, command: str, *values: Any) -> list[Any]:
        with self._as_input_error():
            return self._connection.execute(command, values).fetchall()

    @contextmanager
    def _as_input_error(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except (sqlite3.Error, pa.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
            if isinstance(error, sqlite3.Error) and "full" in str(error):
                raise InputError(f"{self.path}: the disk is full; free some space and resume") from error
            raise InputError(f"{self.path}: not a readable journal ({error}); use --existing overwrite") from error


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write a Parquet file atomically."""
    with add_file_name(path), atomic_write(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer


def write_clicks(path: Path, tables: Iterable[pa.Table], schema: pa.Schema = SCHEMA) -> None:
    """Write tables of rows as one Parquet file; its bytes do not depend on how rows are split into tables."""
    with table_writer(path, schema) as writer:
        for table in grouped(tables):
            writer.write_table(table)


def grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Regroup the rows of tables, in order, into tables of a fixed number of samples."""
    samples = (sample for table in tables for sample in _split_samples(table))
    while waiting := list(islice(samples, _SAMPLES_A_GROUP)):
        yield pa.concat_tables(waiting).combine_chunks()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    For a packed run (`disbench.harness.archive`), `archive` is its path, `clicks` its `clicks.parquet`, and `folder`
    the archive's path without extension.
    """

    folder: Path
    record: RunRecord
    archive: Path | None = None
    clicks: pa.Buffer | None = field(default=None, repr=False)

    @property
    def method(self) -> str:
        """The method's name."""
        return self.record.method.name

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.record.dataset.name

    @property
    def protocol(self) -> Protocol:
        """The evaluation protocol."""
        return self.record.protocol

    def place(self, name: str) -> str:
        """How errors name one of the run's files."""
        return str(self.folder / name) if self.archive is None else f"{self.archive}: {name}"

    def require_clicks(self) -> None:
        """Raise `InputError` for an imported run, which has no clicks."""
        if self.record.imported:
            raise InputError(f"{self.folder}: {self.record.imported}; there is nothing to verify, pack or draw")

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, or some columns; InputError if the file is damaged, too large, or lacks a column."""
        with open_rows(self._source(), self.place(CLICKS), SCHEMA, columns) as file:
            return read_rows(file, SCHEMA, columns)

    def schema(self) -> pa.Schema:
        """Schema of the file; errors as for `rows`."""
        with damage_of(self.place(CLICKS)), open_parquet(self._source(), SCHEMA)[0] as file:
            return plain_schema(file)

    def samples(self) -> Iterator[pa.Table]:
        """Read rows sample by sample in bounded memory (in parts if over `MOST_CLICKS`); errors as for `rows`."""
        waiting: list[pa.Table] = []
        with open_rows(self._source(), self.place(CLICKS), SCHEMA) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                table = decode_strings(pa.Table.from_batches([batch]), SCHEMA)
                if sum(part.nbytes for part in [*waiting, table]) > MAX_TEXT_BYTES:
                    raise ValueError(f"a sample of more than {MAX_TEXT_BYTES} bytes")
                found = list(_split_samples(pa.concat_tables([*waiting, table])))
                last = len(found) - 1 if found and len(found[-1]) <= MOST_CLICKS else len(found)
                yield from found[:last]
                waiting = found[last:]
            yield from waiting

    def _source(self) -> Path | pa.Buffer:
        return self.folder / CLICKS if self.clicks is None else self.clicks

    def by_sample(self, column: str = "iou") -> dict[str, FloatArray]:
        """Sample -> values of a numeric column, float64 (clicks,), in the dataset's order; errors as for `rows`.

        A failed sample is padded with zeros to `max_clicks`: its IoU is 0 from the failing click on. A sample whose
        recorded clicks ended early is padded with its last value: the person was content with that mask.
        """
        table = self.rows(["sample", "failure", column])
        with damage_of(self.place(CLICKS)):
            return split_by_sample(table, column, self.protocol.max_clicks, replayed=self.replayed)

    @property
    def replayed(self) -> bool:
        """True if its clicks are recorded ones."""
        return is_replay(self.protocol.policy)


def pad_to_cap(values: FloatArray, max_clicks: int, *, failed: bool, replayed: bool) -> FloatArray:
    """Values of one sample, padded as by `StoredRun.by_sample`."""
    missing = max_clicks - len(values)
    if missing <= 0 or not (failed or replayed):
        return values
    return np.pad(values, (0, missing), mode="constant" if failed else "edge")


def split_by_sample(table: pa.Table, column: str, max_clicks: int, *, replayed: bool = False) -> dict[str, FloatArray]:
    """`StoredRun.by_sample` for a table with `sample`, `failure` and `column`; ValueError for more than `MAX_IOUS`."""
    values = table[column].to_numpy().astype(np.float64)
    failed = table["failure"].is_valid().to_numpy()
    spans = _spans(table)
    filled = len(spans) if replayed else int(failed.sum())
    if filled * max_clicks > MAX_IOUS:
        raise ValueError(f"{filled} samples of up to {max_clicks} clicks are more than any run has")
    return {
        str(name): pad_to_cap(values[begin:end], max_clicks, failed=bool(failed[end - 1]), replayed=replayed)
        for name, begin, end in spans
    }


def read_run(folder: Path) -> StoredRun:
    """Read the finished run in a folder; InputError if it is missing, damaged or of another version."""
    return StoredRun(folder, read_record(folder, RunRecord, (CLICKS,)))


def read_record(folder: Path, kind: type[AnyRecord], files: Sequence[str]) -> AnyRecord:
    """Record of a finished run with these files; InputError if it is missing, or of another task."""
    path = folder / RUN
    if not path.is_file():
        if (folder / JOURNAL).is_file():
            raise InputError(f"{folder}: the run is not finished; run the same command again to resume")
        raise InputError(f"{folder}: no run here ({RUN} is missing); name a folder that disbench run made")
    record = record_of(path.read_bytes(), str(path), kind)
    for name in files:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing; run it again with --existing overwrite")
    return record


def record_of(content: bytes, where: str, kind: type[AnyRecord]) -> AnyRecord:
    """Parse `run.json` as a record of type `kind`; InputError for a run of another task."""
    record = parse_record(content, where)
    if not isinstance(record, kind):
        reader = "ambiguity" if record.task == DIVERSE else "report"
        raise InputError(f"{where}: a run of --task {record.task or 'targets'}; disbench {reader} reads it")
    return record


def task_of(folder: Path) -> str:
    """Task of the finished run in a folder; "" for targets, or if there is no run."""
    path = folder / RUN
    return parse_record(path.read_bytes(), str(path)).task if path.is_file() else ""


def damage_of(place: str) -> AbstractContextManager[None]:
    """Turn errors about a damaged file of rows into an `InputError` that names it."""
    return as_input_error(place, "not a whole file of a run", "run it again")


@contextmanager
def open_rows(
    source: Path | pa.Buffer,
    place: str,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of a run after checking its columns and size; InputError names it as `place`.

    It may have `_FEW_ROWS` rows, or one per byte, since every row stores times.
    """
    with damage_of(place):
        file, groups = open_parquet(source, schema)
        with file:
            size = size_of(source)
            rows, values = (sum(getattr(group, name) for group in groups) for name in ("rows", "values"))
            if rows > max(_FEW_ROWS, size) or values > max(MAX_IOUS, 64 * size):
                raise ValueError(f"{rows} rows with {values} values in {size} bytes")
            if not has_columns(file, schema, columns):
                raise ValueError("its columns are not those of a run")
            yield file


def _split_samples(table: pa.Table) -> Iterator[pa.Table]:
    return (table.slice(begin, end - begin) for _, begin, end in _spans(table))


def _spans(table: pa.Table) -> list[tuple[Any, int, int]]:
    """Each sample, with the range of its rows."""
    names = table["sample"].to_numpy()
    edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)] if len(names) else []
    return [(names[begin], begin, end) for begin, end in pairwise(edges)]
