"""Parquet from elsewhere: its columns are known before anything is read, its memory before it is taken.

A Parquet file of a kilobyte can hold a text of a megabyte a million times over: columns of texts are read as numbers of
a dictionary, weighed, and only then written out. The footer is read without the library (Apache Thrift, compact
protocol; parquet.thrift): pyarrow's metadata of a column aborts the interpreter on some damaged files by an uncaught
C++ exception, such as "Definition level histogram size mismatch" (25.0), where reading the column raises an error. So
the numbers of rows and values, which bound memory, are read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from disbench.core.errors import InputError
from disbench.core.limits import MAX_COLUMNS, MAX_FOOTER_BYTES, MAX_GROUP_VALUES, MAX_TEXT_BYTES

_LITTLE = 1 << 22
"""Bytes of texts of a column that are taken for granted, if all were as long as the whole dictionary."""

_DAMAGE = (OSError, pa.ArrowException, ValueError, MemoryError, ArithmeticError, LookupError, TypeError, AttributeError)


@contextmanager
def complaining(place: object, what: str, fix: str) -> Iterator[None]:
    """Turn what the library raises about a damaged file into an `InputError` "place: what (...); fix"."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        words = " ".join(str(error).split())[:300]
        raise InputError(f"{place}: {what} ({words}); {fix}") from error


def open_parquet(source: Path | pa.Buffer, schema: pa.Schema) -> tuple[pq.ParquetFile, list[RowGroup]]:
    """A Parquet file, nothing of it read but its end, and its row groups.

    Args:
        source: path or buffer.
        schema: that it should have; its columns of texts are read as dictionaries.

    Raises:
        ValueError: as `read_footer`, or a row group of more than `MAX_GROUP_VALUES` values.
        OSError, ArrowException: not Parquet.
    """
    groups = read_footer(source)
    for number, group in enumerate(groups):
        if group.values > MAX_GROUP_VALUES:
            raise ValueError(f"row group {number} says that it has {group.values} values")
    metadata = pq.read_metadata(_place(source))
    there = {metadata.schema.column(number).path for number in range(metadata.num_columns)}
    texts = [path for field in schema for path in _texts(field) if path in there]
    return pq.ParquetFile(_place(source), metadata=metadata, read_dictionary=texts), groups


def _place(source: Path | pa.Buffer) -> Any:
    return pa.BufferReader(source) if isinstance(source, pa.Buffer) else source


def has_columns(file: pq.ParquetFile, schema: pa.Schema, names: Sequence[str] | None = None) -> bool:
    """Whether a file has a schema's columns, or the named ones of them, of their types and nothing null."""
    found = plain_schema(file)
    if names is None:
        return bool(found.equals(schema))
    return all(found.get_field_index(name) >= 0 and found.field(name).equals(schema.field(name)) for name in names)


def plain_schema(file: pq.ParquetFile) -> pa.Schema:
    """The schema of a file of `open_parquet` without the dictionaries that its texts are read as."""
    return file.metadata.schema.to_arrow_schema()


def written_out(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of an opened file, with columns of the schema, with its texts in place of dictionaries; weighed."""
    weigh(table)
    wanted = pa.schema([schema.field(name) for name in table.schema.names], schema.metadata)
    return table.cast(wanted)


def read_rows(file: pq.ParquetFile, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of an opened file, with columns of the schema or the named ones of them, as `written_out`.

    Row group by row group: the library cannot read lists of texts as dictionaries over several.
    """
    names = None if columns is None else list(columns)
    tables = [file.read_row_group(number, names) for number in range(file.num_row_groups)]
    weigh(*tables)
    wanted = schema if names is None else pa.schema([schema.field(name) for name in names], schema.metadata)
    return pa.concat_tables([table.cast(wanted) for table in tables]) if tables else wanted.empty_table()


def weigh(*tables: pa.Table) -> None:
    """ValueError for tables whose texts would together take more than `MAX_TEXT_BYTES` bytes."""
    total = sum(_weight(chunk) for table in tables for column in table.columns for chunk in column.chunks)
    if total > MAX_TEXT_BYTES:
        raise ValueError(f"its texts take {total} bytes; at most {MAX_TEXT_BYTES} are read at once")


def _weight(array: pa.Array) -> int:
    """Bytes of all texts in an array, each counted as often as it occurs."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        ends = pc.min_max(array.indices).as_py()  # None where all are null
        if ends["max"] is not None and not 0 <= ends["min"] <= ends["max"] < len(array.dictionary):
            raise ValueError("a text that its dictionary does not have")  # the library would look beyond it
        if (most := int(array.dictionary.nbytes) * len(array)) <= _LITTLE:
            return most
        lengths = pc.fill_null(pc.binary_length(array.dictionary), 0).to_numpy(zero_copy_only=False)
        places = pc.drop_null(array.indices).to_numpy(zero_copy_only=False)
        counts = np.bincount(places, minlength=len(lengths))
        return sum(int(n) * int(size) for n, size in zip(counts[counts > 0], lengths[counts > 0], strict=True))
    if pa.types.is_struct(kind):
        return sum(map(_weight, array.flatten()))
    if (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) and not pa.types.is_integer(kind.value_type):
        return _weight(array.flatten())
    return 0


def _texts(field: pa.Field, above: str = "") -> Iterator[str]:
    """The paths of texts in a column, as Parquet names them."""
    path, kind = f"{above}{field.name}", field.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        yield path
    elif pa.types.is_struct(kind):
        for inner in kind:
            yield from _texts(inner, f"{path}.")
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _texts(kind.value_field.with_name("element"), f"{path}.list.")


def size_of(source: Path | pa.Buffer) -> int:
    """Bytes of a file or buffer."""
    return source.size if isinstance(source, pa.Buffer) else source.stat().st_size


_MAGIC = b"PAR1"
_TAIL = 8
"""Bytes at the very end: the length of the footer, and the magic word."""
_DEEPEST = 12
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(1, 14)
_FIXED = {_BYTE: 1, _DOUBLE: 8, _UUID: 16}


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group: its rows, and the values of all its columns, nulls and empty lists too."""

    rows: int
    values: int


def read_footer(source: Path | pa.Buffer) -> list[RowGroup]:
    """The row groups of a Parquet file.

    Raises:
        ValueError: not Parquet, a footer that is malformed or too large, encrypted or other columns, negative numbers.
        OSError: the file cannot be read.
    """
    try:
        fields = _Reader(_footer(source)).struct()
    except IndexError:
        raise ValueError("the footer ends too early") from None
    schema, groups = fields.get(2), fields.get(4, [])
    if not (isinstance(schema, list) and isinstance(groups, list)) or 8 in fields:
        raise ValueError("no schema, no row groups, or an encrypted file")
    if not 1 <= len(schema) <= MAX_COLUMNS:
        raise ValueError(f"a schema of {len(schema)} nodes")
    leaves = sum(not node.get(5) for node in map(_table, schema)) - (len(schema) == 1)
    return [_row_group(_table(group), leaves) for group in groups]


def _footer(source: Path | pa.Buffer) -> bytes:
    if isinstance(source, pa.Buffer):
        return _end(source.size, lambda begin, size: source.slice(begin, size).to_pybytes())
    with source.open("rb") as file:

        def read(begin: int, size: int) -> bytes:
            file.seek(begin)
            return file.read(size)

        return _end(source.stat().st_size, read)


def _end(size: int, read: Callable[[int, int], bytes]) -> bytes:
    tail = read(size - _TAIL, _TAIL) if size > _TAIL else b""
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or not 0 < length <= min(size - _TAIL, MAX_FOOTER_BYTES):
        raise ValueError("no Parquet footer")
    return read(size - _TAIL - length, length)


def _row_group(group: dict[int, Any], leaves: int) -> RowGroup:
    columns, rows = group.get(1), group.get(3)
    if not isinstance(columns, list) or len(columns) != leaves:
        raise ValueError("a row group has other columns than the file")
    values = [_values(_table(column)) for column in columns]
    if not isinstance(rows, int) or rows < 0 or min(values, default=0) < 0:
        raise ValueError("a row group has a negative number of rows or values")
    return RowGroup(rows, sum(values))


def _values(column: dict[int, Any]) -> int:
    if not column.keys().isdisjoint((1, 8, 9)):
        raise ValueError("a column is encrypted, or lies in another file")
    found = _table(column.get(3)).get(5)
    if not isinstance(found, int):
        raise ValueError("a column does not say how many values it has")
    return found


def _table(value: object) -> dict[int, Any]:
    if not isinstance(value, dict):
        raise ValueError("a number instead of a structure")
    return value


class _Reader:
    """Thrift's compact protocol: structures as number of a field -> value; texts are skipped."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a structure."""
        if depth > _DEEPEST:
            raise ValueError("the footer is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            kind = head & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return self._number()
        if kind == _BINARY:
            return self._skip(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth + 1)
        if kind in _FIXED:
            return self._skip(_FIXED[kind])
        raise ValueError(f"a value of the kind {kind}")  # Parquet's footer has no maps

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        if size == 15:
            size = self._varint()
        if size > len(self._content) - self._at or depth > _DEEPEST:
            raise ValueError("a list that is longer than the file, or nested too deep")
        if kind in (_TRUE, _FALSE):
            return [self._byte() for _ in range(size)]
        return [self._value(kind, depth) for _ in range(size)]

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _varint(self) -> int:
        value = self._byte()
        if value < 128:  # as nearly all are
            return value
        value, shift = value & 127, 7
        while (byte := self._byte()) > 127:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, count: int) -> None:
        if count > len(self._content) - self._at:
            raise ValueError("a text that is longer than the file")
        self._at += count
