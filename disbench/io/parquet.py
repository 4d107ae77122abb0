"""Parquet from elsewhere: its columns are known before anything is read, its memory before it is taken.

A Parquet file of a kilobyte can hold a text of a megabyte a million times over: columns of texts are read as
numbers of a dictionary, weighed, and only then written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from disbench.core.errors import InputError
from disbench.core.limits import MAX_GROUP_VALUES, MAX_TEXT_BYTES
from disbench.io.parquet_footer import RowGroup, read_footer

_LITTLE = 1 << 22
"""Bytes of texts of a column that are taken for granted, if all were as long as the whole dictionary."""


@contextmanager
def complaining(place: object, what: str, fix: str) -> Iterator[None]:
    """Turn what the library raises about a damaged file into an `InputError` "place: what (...); fix"."""
    try:
        yield
    except InputError:
        raise
    except (OSError, pa.ArrowException, ValueError, MemoryError, OverflowError) as error:
        words = " ".join(str(error).split())[:300]
        raise InputError(f"{place}: {what} ({words}); {fix}") from error


def open_parquet(source: Path | pa.Buffer, schema: pa.Schema) -> tuple[pq.ParquetFile, list[RowGroup]]:
    """A Parquet file, nothing of it read but its end, and its row groups.

    Args:
        source: path or buffer.
        schema: that it should have; its columns of texts are read as dictionaries.

    Raises:
        ValueError: as `disbench.io.parquet_footer.read_footer`, or a row group of more than `MAX_GROUP_VALUES` values.
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


def weigh(table: pa.Table) -> None:
    """ValueError for a table whose texts would take more than `MAX_TEXT_BYTES` bytes."""
    total = sum(_weight(chunk) for column in table.columns for chunk in column.chunks)
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
