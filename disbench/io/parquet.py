"""Read untrusted Parquet files with bounded memory.

A 1 KB file can expand to gigabytes of repeated strings, so string columns are read dictionary-encoded and their decoded
size is checked first. The numbers of rows and values, which bound memory, are parsed from the footer here (Apache
Thrift, compact protocol; parquet.thrift): on some damaged files, pyarrow's column metadata aborts the interpreter
(25.0: "Definition level histogram size mismatch"), where reading the column raises an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from disbench.core.errors import InputError
from disbench.core.limits import MAX_COLUMNS, MAX_FOOTER_BYTES, MAX_GROUP_VALUES, MAX_TEXT_BYTES

_LITTLE = 1 << 22  # bytes of strings accepted unchecked, assuming that each is as long as the whole dictionary
_DAMAGE = (OSError, pa.ArrowException, ValueError, MemoryError, ArithmeticError, LookupError, TypeError, AttributeError)
_MAGIC, _TAIL = b"PAR1", 8  # a file ends with the footer's length and these bytes
_DEEPEST = 12
_BOOLEANS, _INTEGERS, _BINARY, _LISTS, _STRUCT = (1, 2), (4, 5, 6), 8, (9, 10), 12  # Thrift types
_FIXED = {3: 1, 7: 8, 13: 16}  # sizes in bytes of other Thrift types: byte, double, UUID


@contextmanager
def as_input_error(place: object, problem: str, fix: str) -> Iterator[None]:
    """Turn pyarrow's errors on a damaged file into an `InputError` "place: what (...); fix"."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        words = " ".join(str(error).split())[:300]
        raise InputError(f"{place}: {problem} ({words}); {fix}") from error


def open_parquet(source: Path | pa.Buffer, schema: pa.Schema) -> tuple[pq.ParquetFile, list[RowGroup]]:
    """Open a Parquet file with its strings dictionary-encoded, reading only its footer; also returns its row groups.

    ValueError for a malformed footer or a row group of more than `MAX_GROUP_VALUES` values; OSError or ArrowException
    for other damage (`as_input_error` makes all of these an `InputError`).
    """
    groups = read_footer(source)
    for number, group in enumerate(groups):
        if group.values > MAX_GROUP_VALUES:
            raise ValueError(f"row group {number} claims {group.values} values")
    metadata = pq.read_metadata(_place(source))
    stored = {metadata.schema.column(number).path for number in range(metadata.num_columns)}
    texts = [path for field in schema for path in _string_columns(field) if path in stored]
    return pq.ParquetFile(_place(source), metadata=metadata, read_dictionary=texts), groups


def _place(source: Path | pa.Buffer) -> Any:
    return pa.BufferReader(source) if isinstance(source, pa.Buffer) else source


def has_columns(file: pq.ParquetFile, schema: pa.Schema, names: Sequence[str] | None = None) -> bool:
    """True if a file has the columns of a schema (or only those in `names`), with the same types and nullability."""
    found = plain_schema(file)
    if names is None:
        return bool(found.equals(schema))
    return all(found.get_field_index(name) >= 0 and found.field(name).equals(schema.field(name)) for name in names)


def plain_schema(file: pq.ParquetFile) -> pa.Schema:
    """Schema of a file from `open_parquet`, with plain strings instead of dictionaries."""
    return file.metadata.schema.to_arrow_schema()


def decode_strings(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Decode the dictionary-encoded strings of a table, after checking their size (`check_decoded_size`)."""
    check_decoded_size(table)
    return table.cast(pa.schema([schema.field(name) for name in table.schema.names], schema.metadata))


def read_rows(file: pq.ParquetFile, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of an opened file, or of some columns, with decoded strings; errors as for `check_decoded_size`.

    Reads one row group at a time, because pyarrow cannot read dictionary-encoded lists of strings across several.
    """
    names = schema.names if columns is None else list(columns)
    tables = [file.read_row_group(number, names) for number in range(file.num_row_groups)]
    check_decoded_size(*tables)
    wanted = pa.schema([schema.field(name) for name in names], schema.metadata)
    return pa.concat_tables([table.cast(wanted) for table in tables]) if tables else wanted.empty_table()


def check_decoded_size(*tables: pa.Table) -> None:
    """Raise ValueError if the decoded strings of all tables together exceed `MAX_TEXT_BYTES` bytes."""
    total = sum(_decoded_size(chunk) for table in tables for column in table.columns for chunk in column.chunks)
    if total > MAX_TEXT_BYTES:
        raise ValueError(f"its strings take {total} bytes; at most {MAX_TEXT_BYTES} are read at once")


def _decoded_size(array: pa.Array) -> int:
    """Size in bytes of all strings in an array, counting each repetition."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        ends = pc.min_max(array.indices).as_py()  # None if all are null
        if ends["max"] is not None and not 0 <= ends["min"] <= ends["max"] < len(array.dictionary):
            raise ValueError("a dictionary index is out of range")  # pyarrow would read past the end
        if (most := int(array.dictionary.nbytes) * len(array)) <= _LITTLE:
            return most
        lengths = pc.fill_null(pc.binary_length(array.dictionary), 0).to_numpy(zero_copy_only=False)
        places = pc.drop_null(array.indices).to_numpy(zero_copy_only=False)
        counts = np.bincount(places, minlength=len(lengths))
        return sum(int(n) * int(size) for n, size in zip(counts[counts > 0], lengths[counts > 0], strict=True))
    if pa.types.is_struct(kind):
        return sum(map(_decoded_size, array.flatten()))
    if (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) and not pa.types.is_integer(kind.value_type):
        return _decoded_size(array.flatten())
    return 0


def _string_columns(field: pa.Field, above: str = "") -> Iterator[str]:
    """Parquet paths of the string columns in a field."""
    path, kind = f"{above}{field.name}", field.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        yield path
    elif pa.types.is_struct(kind):
        for inner in kind:
            yield from _string_columns(inner, f"{path}.")
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _string_columns(kind.value_field.with_name("element"), f"{path}.list.")


def size_of(source: Path | pa.Buffer) -> int:
    """Bytes of a file or buffer."""
    return source.size if isinstance(source, pa.Buffer) else source.stat().st_size


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a row group, and values of all its columns, including nulls and empty lists."""

    rows: int
    values: int


def read_footer(source: Path | pa.Buffer) -> list[RowGroup]:
    """Row groups of a Parquet file; ValueError if the footer is malformed, too large or encrypted."""
    try:
        fields = _Footer(_footer(source)).struct()
        schema, groups = fields[2], fields.get(4, [])
        if 8 in fields or not 1 <= len(schema) <= MAX_COLUMNS:
            raise ValueError("it is encrypted, or has too many columns")
        leaves = sum(not node.get(5) for node in schema) - (len(schema) == 1)
        return [_row_group(group, leaves) for group in groups]
    except (LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its footer is malformed ({type(error).__name__})") from None


def _footer(source: Path | pa.Buffer) -> bytes:
    with pa.BufferReader(source) if isinstance(source, pa.Buffer) else source.open("rb") as file:
        size = size_of(source)
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or not 0 < length <= min(size - _TAIL, MAX_FOOTER_BYTES):
            raise ValueError("no Parquet footer")
        file.seek(size - _TAIL - length)
        return bytes(file.read(length))


def _row_group(group: dict[int, Any], leaves: int) -> RowGroup:
    columns, rows = group[1], group[3]
    if any(not column.keys().isdisjoint((1, 8, 9)) for column in columns):
        raise ValueError("a column is encrypted, or stored in another file")
    values = [column[3][5] for column in columns]
    if len(columns) != leaves or min(rows, *values, 0) < 0:
        raise ValueError("a row group does not match the schema, or has negative counts")
    return RowGroup(rows, sum(values))


class _Footer:
    """Thrift compact protocol parser: a struct is {field number: value}, None for a skipped type such as string."""

    def __init__(self, content: bytes) -> None:
        self._read = BytesIO(content).read

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Fields of one struct; IndexError if the footer is truncated."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._next():
            number = number + (head >> 4) if head >> 4 else self._number()
            fields[number] = None if head & 15 in _BOOLEANS else self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("the footer is nested too deeply")
        if kind in _INTEGERS:
            return self._number()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in _LISTS:
            head = self._next()
            size, inner = head >> 4 if head >> 4 < 15 else self._varint(), head & 15
            return [self._value(inner, depth + 1) for _ in range(size)]
        if kind != _BINARY and kind not in _FIXED:
            raise ValueError(f"unknown Thrift type {kind}")
        size = self._varint() if kind == _BINARY else _FIXED[kind]
        if len(self._read(size)) < size:
            raise IndexError
        return None

    def _next(self) -> int:
        return self._read(1)[0]

    def _varint(self) -> int:
        value = self._next()
        if value < 128:  # the usual case
            return value
        value, shift = value & 127, 7
        while (byte := self._next()) > 127:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
