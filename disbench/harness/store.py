"""The stored run: a folder with `run.json` and `clicks.parquet`, one row a click.

While a run is under way, finished chunks of samples lie in `journal.sqlite`, each written whole or not at
all; at the end they become `clicks.parquet` in the dataset's order, and the journal goes away.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.arrays import FloatArray
from disbench.core.click_policies import replays
from disbench.core.errors import InputError
from disbench.harness.protocol import MOST_CLICKS, Protocol
from disbench.harness.record import FORMAT, RunRecord, SetRunRecord, parse_record
from disbench.io.files import naming, whole_file
from disbench.io.parquet import (
    MOST_TEXT,
    complaining,
    has_columns,
    open_parquet,
    plain_schema,
    size_of,
    written_out,
)
from disbench.io.parquet_footer import RowGroup
from disbench.io.plain_data import parse_json, parse_json_table

Kind = TypeVar("Kind")
RUN, CLICKS, JOURNAL = "run.json", "clicks.parquet", "journal.sqlite"
_SAMPLES_A_GROUP = 256
_ROWS_AT_ONCE = 128
MOST_IOUS = 1 << 27
"""Samples times clicks, when failed samples are filled up: 1 GiB of numbers."""
_FEW_ROWS = 1 << 19
"""So many rows any file may have; a larger one no more than it has bytes, since each row has times of its own."""
_NAMES = ("job", "chunks", "seconds", "spoiled", "versions", "versions_1")
"""Of a journal's tables, and of the index of the last one."""

SCHEMA = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("click", pa.int16(), nullable=False),
        pa.field("x", pa.int32(), nullable=False),
        pa.field("y", pa.int32(), nullable=False),
        pa.field("positive", pa.bool_(), nullable=False),
        pa.field("iou", pa.float32(), nullable=False),
        pa.field("boundary_iou", pa.float32(), nullable=False),
        pa.field("kept", pa.int16(), nullable=False),
        pa.field("candidates", pa.int16(), nullable=False),
        pa.field("candidate_ious", pa.list_(pa.float32()), nullable=False),
        pa.field("candidate_scores", pa.list_(pa.float64())),
        pa.field("model_seconds", pa.float64(), nullable=False),
        pa.field("harness_seconds", pa.float64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("failure", pa.string()),
        pa.field("mask", pa.binary()),
        pa.field("candidate_masks", pa.list_(pa.binary())),
    ],
    metadata={"disbench.run": str(FORMAT)},
)
"""One row a click.

A sample that fails ends with a row whose `failure` says why; there `iou` and `boundary_iou` are 0, `kept` is
-1 and `candidates` is 0. `mask` and `candidate_masks` are COCO compressed run lengths (`counts`; the size is
`height`, `width`) or null, as `--store` asks.
"""
SECONDS = ("model_seconds", "harness_seconds")
"""The columns that differ from run to run."""


@dataclass(frozen=True, slots=True)
class ClickRow:
    """What one click came to; the fields are the columns of `SCHEMA`."""

    sample: str
    click: int
    x: int
    y: int
    positive: bool
    iou: float
    boundary_iou: float
    kept: int
    candidates: int
    candidate_ious: tuple[float, ...]
    candidate_scores: tuple[float, ...] | None
    model_seconds: float
    harness_seconds: float
    height: int
    width: int
    failure: str | None = None
    mask: bytes | None = None
    candidate_masks: tuple[bytes, ...] | None = None


def to_table(rows: Sequence[ClickRow]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`."""
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA)


class Journal:
    """Finished chunks of a run that is under way: `journal.sqlite` in its folder.

    Args:
        folder: of the run.
        schema: of the rows.

    Raises:
        InputError: the file is there and not a journal.
    """

    def __init__(self, folder: Path, schema: pa.Schema = SCHEMA) -> None:
        self.path, self._schema = folder / JOURNAL, schema
        with self._complaining():
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            self._check_tables()
            self._connection.execute("CREATE TABLE IF NOT EXISTS job (description TEXT NOT NULL)")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS chunks "
                "(first INTEGER PRIMARY KEY, samples INTEGER, rows BLOB, repeated TEXT)"
            )
            self._connection.execute("CREATE TABLE IF NOT EXISTS seconds (wall REAL)")
            self._connection.execute("CREATE TABLE IF NOT EXISTS versions (said TEXT UNIQUE)")
            self._connection.execute("CREATE TABLE IF NOT EXISTS spoiled (reason TEXT)")

    def _check_tables(self) -> None:
        """A file that is there has tables alone: no views and no triggers, which are programs."""
        self._connection.execute("PRAGMA trusted_schema = OFF")
        for kind, name in self._connection.execute("SELECT type, name FROM sqlite_master"):
            if kind not in ("table", "index") or name.removeprefix("sqlite_autoindex_") not in _NAMES:
                raise ValueError(f"a {kind} {name!r}"[:200])

    def job(self) -> dict[str, Any] | None:
        """The description of the job that began this journal, or None for a new one."""
        with self._complaining():
            found = self._connection.execute("SELECT description FROM job").fetchone()
            return None if found is None else parse_json_table(_of(str, found[0]))

    def begin(self, job: Mapping[str, Any]) -> None:
        """Write the job's description into a new journal."""
        with self._complaining():
            self._connection.execute("INSERT INTO job VALUES (?)", (json.dumps(job, sort_keys=True),))

    def finished(self) -> dict[int, int]:
        """Number of the first sample of each chunk that is finished -> samples in it."""
        with self._complaining():
            rows = self._connection.execute("SELECT first, samples FROM chunks").fetchall()
            if any(type(number) is not int or number < 0 for row in rows for number in row):
                raise ValueError("a chunk without numbers")
            return dict(rows)

    def add(self, first: int, samples: int, rows: pa.Table, repeated: Sequence[str] = ()) -> None:
        """Write a finished chunk: all of its rows, or none if the machine stops here."""
        buffer = io.BytesIO()
        with pa.ipc.new_stream(buffer, rows.schema) as stream:
            stream.write_table(rows)
        with self._complaining():
            self._connection.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, ?)",
                (first, samples, buffer.getvalue(), json.dumps(list(repeated))),
            )

    def tables(self) -> Iterator[pa.Table]:
        """The rows of all chunks, in the order of their samples."""
        with self._complaining():
            for (rows,) in self._connection.execute("SELECT rows FROM chunks ORDER BY first"):
                with pa.ipc.open_stream(_of(bytes, rows)) as stream:
                    if not stream.schema.equals(self._schema):
                        raise ValueError("a chunk with other columns")
                    table = stream.read_all()
                table.validate(full=True)
                yield table

    def repeated(self) -> list[str]:
        """Why batches were asked again one by one, in the order of their samples."""
        with self._complaining():
            found = self._connection.execute("SELECT repeated FROM chunks ORDER BY first").fetchall()
            return [str(reason) for (reasons,) in found for reason in list(parse_json(_of(str, reasons)))]

    def note_versions(self, versions: Mapping[str, str]) -> None:
        """Keep what a method said that it computes with, once."""
        with self._complaining():
            said = json.dumps(dict(versions), sort_keys=True)
            self._connection.execute("INSERT OR IGNORE INTO versions VALUES (?)", (said,))

    def versions(self) -> list[dict[str, str]]:
        """All that was noted: several where a run was resumed in another environment."""
        with self._complaining():
            found = self._connection.execute("SELECT said FROM versions ORDER BY rowid").fetchall()
            return [{name: str(text) for name, text in parse_json_table(_of(str, said)).items()} for (said,) in found]

    def spoil(self, reason: str) -> None:
        """Mark the rows as not to be trusted."""
        with self._complaining():
            self._connection.execute("INSERT INTO spoiled VALUES (?)", (reason,))

    def spoiled(self) -> str | None:
        """Why the rows are not to be trusted, if they are not."""
        with self._complaining():
            found = self._connection.execute("SELECT reason FROM spoiled").fetchone()
            return None if found is None else str(found[0])

    def spend(self, seconds: float) -> float:
        """Account for wall time; the sum over all sittings that ended here."""
        with self._complaining():
            self._connection.execute("INSERT INTO seconds VALUES (?)", (seconds,))
            return float(self._connection.execute("SELECT SUM(wall) FROM seconds").fetchone()[0])

    def close(self) -> None:
        """Close the file; it stays."""
        self._connection.close()

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, pa.ArrowException, OSError, ValueError, TypeError) as error:
            if isinstance(error, sqlite3.Error) and "full" in str(error):
                raise InputError(f"{self.path}: the disk is full; free some space and resume") from error
            raise InputError(
                f"{self.path}: not a readable journal ({error}); use --existing overwrite or another folder"
            ) from error


def _of(kind: type[Kind], value: object) -> Kind:
    """A value of a journal, if it is of its column's kind: SQLite keeps any, and a text of rows would be a path."""
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} where {kind.__name__} should be"[:200])
    return value


def write_clicks(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of rows, in order, as one Parquet file that is whole or not there.

    Row groups end after a fixed number of samples, whatever chunks the rows came in.
    """
    with naming(path), whole_file(path) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for table in grouped(tables):
            writer.write_table(table)


def grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of tables, in order, anew: a fixed number of samples a table, whatever chunks they came in."""
    waiting: list[pa.Table] = []
    for table in tables:
        for sample in _split_samples(table):
            waiting.append(sample)
            if len(waiting) == _SAMPLES_A_GROUP:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that is whole or not there."""
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Attributes:
        folder: where it lies; of a packed run (`disbench.harness.archive`), the archive's path without its ending.
        record: the content of `run.json`.
        archive: that it is packed in, or None.
        clicks: the bytes of `clicks.parquet` in the archive, or None.
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
        """How it was evaluated."""
        return self.record.protocol

    def place(self, name: str) -> str:
        """How errors name one of the run's files."""
        return str(self.folder / name) if self.archive is None else f"{self.archive}: {name}"

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, or some of their columns.

        Raises:
            InputError: the file is damaged or not of this form: another number of rows than a file of its size has,
                columns that `SCHEMA` has otherwise, texts of more than `disbench.io.parquet.MOST_TEXT` bytes.
        """
        with self._opened(columns) as file:
            return written_out(file.read(None if columns is None else list(columns)), SCHEMA)

    def schema(self) -> pa.Schema:
        """The schema of the rows.

        Raises:
            InputError: as `rows`.
        """
        with self._complaining():
            file, _ = open_parquet(self._source(), SCHEMA)
            with file:
                return plain_schema(file)

    def samples(self) -> Iterator[pa.Table]:
        """The rows, a table a sample, in the file's order; memory stays that of some rows.

        A sample with more rows than its clicks can be numbered comes in several tables.

        Raises:
            InputError: as `rows`.
        """
        waiting: list[pa.Table] = []
        with self._opened(None) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                table = written_out(pa.Table.from_batches([batch]), SCHEMA)
                if sum(part.nbytes for part in [*waiting, table]) > MOST_TEXT:
                    raise ValueError(f"a sample of more than {MOST_TEXT} bytes")
                found = list(_split_samples(pa.concat_tables([*waiting, table])))
                last = len(found) - 1 if found and len(found[-1]) <= MOST_CLICKS else len(found)
                yield from found[:last]
                waiting = found[last:]
            yield from waiting

    @contextmanager
    def _opened(self, columns: Sequence[str] | None) -> Iterator[pq.ParquetFile]:
        """The rows' file, once it is clear that they can be read."""
        source = self._source()
        with self._complaining():
            file, groups = open_parquet(source, SCHEMA)
            with file:
                check_counts(groups, size_of(source))
                if not has_columns(file, SCHEMA, columns):
                    raise ValueError("its columns are not a run's")
                yield file

    def _source(self) -> Path | pa.Buffer:
        return self.folder / CLICKS if self.clicks is None else self.clicks

    def _complaining(self) -> AbstractContextManager[None]:
        return complaining(self.place(CLICKS), "not a whole file of a run", "run it again")

    def by_sample(self, column: str = "iou") -> dict[str, FloatArray]:
        """The values of one numeric column, a sequence a sample, in the dataset's order.

        A sample that failed before its last click is filled up with zeros to `max_clicks`, so that no mean
        leaves it out: its IoU is 0 from the failing click on. One whose recorded clicks ended before is filled up
        with its last value: the mask at which the person stopped stands.

        Raises:
            InputError: as `rows`.
        """
        table = self.rows(["sample", "failure", column])
        with self._complaining():
            return split_by_sample(table, column, self.protocol.max_clicks, replayed=self.replayed)

    @property
    def replayed(self) -> bool:
        """Whether its clicks are recorded ones."""
        return replays(self.protocol.policy)


def filled_up(values: FloatArray, max_clicks: int, *, failed: bool, replayed: bool) -> FloatArray:
    """The values of one sample as means count them: `StoredRun.by_sample` tells what an early end comes to."""
    missing = max(0, max_clicks - len(values))
    if failed or not replayed:
        return np.pad(values, (0, missing if failed else 0))
    return np.pad(values, (0, missing), mode="edge")


def split_by_sample(table: pa.Table, column: str, max_clicks: int, *, replayed: bool = False) -> dict[str, FloatArray]:
    """The values of one numeric column, a sequence a sample, in the rows' order; failed samples as `by_sample` does.

    Args:
        table: rows with the columns `sample`, `failure` and the one that is wanted.
        column: its name.
        max_clicks: to which samples that ended early are filled up.
        replayed: whether the clicks are recorded ones.

    Raises:
        ValueError: samples that ended early are too many to be filled up, of `MOST_IOUS` values in all.
    """
    values = table[column].to_numpy().astype(np.float64)
    names = table["sample"].to_numpy()
    failed = table["failure"].is_valid().to_numpy()
    starts = _starts(names)
    filled = len(starts) if replayed else int(failed.sum())
    if filled * max_clicks > MOST_IOUS:
        raise ValueError(f"{filled} samples that may end early, of {max_clicks} clicks each")
    found: dict[str, FloatArray] = {}
    for begin, end in zip(starts, [*starts[1:], len(names)], strict=bool(starts)):
        found[str(names[begin])] = filled_up(
            values[begin:end], max_clicks, failed=bool(failed[end - 1]), replayed=replayed
        )
    return found


def read_run(folder: Path) -> StoredRun:
    """A finished run.

    Raises:
        InputError: no run there, not finished, damaged, or of a later version's form.
    """
    path = folder / RUN
    if not path.is_file():
        raise unfinished(folder)
    record = run_record(path.read_bytes(), str(path))
    if not (folder / CLICKS).is_file():
        raise InputError(f"{folder}: {CLICKS} is missing; run it again with --existing overwrite")
    return StoredRun(folder, record)


def check_counts(groups: Sequence[RowGroup], size: int) -> None:
    """See that a file of rows with times of their own says to have no more than its bytes can hold.

    Args:
        groups: its row groups.
        size: bytes.

    Raises:
        ValueError: more rows than `_FEW_ROWS` and than bytes, or more values than `MOST_IOUS` and than 64 a byte.
    """
    rows, values = (sum(getattr(group, name) for group in groups) for name in ("rows", "values"))
    if rows > max(_FEW_ROWS, size) or values > max(MOST_IOUS, 64 * size):
        raise ValueError(f"{rows} rows with {values} values in {size} bytes")


def unfinished(folder: Path) -> InputError:
    """What is wrong with a folder without `run.json`."""
    if (folder / JOURNAL).is_file():
        return InputError(f"{folder}: the run is not finished; run the same command again to resume")
    return InputError(f"{folder}: there is no run ({RUN} is missing); name a folder that disbench run made")


def run_record(content: bytes, where: str) -> RunRecord:
    """The record of a run of targets from the bytes of its `run.json`.

    Raises:
        InputError: as `parse_record`, or a run of the diverse task.
    """
    record = parse_record(content, where)
    if isinstance(record, SetRunRecord):
        raise InputError(f"{where}: a run of --task {record.task}; disbench ambiguity reads it")
    return record


def _split_samples(table: pa.Table) -> Iterator[pa.Table]:
    names = table["sample"].to_numpy()
    starts = _starts(names)
    for begin, end in zip(starts, [*starts[1:], len(names)], strict=bool(starts)):
        yield table.slice(begin, end - begin)


def _starts(names: npt.NDArray[Any]) -> list[int]:
    """Where each sample's rows begin."""
    if not len(names):
        return []
    return [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist()]
