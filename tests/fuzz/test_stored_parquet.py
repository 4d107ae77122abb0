"""Damaged ends of Parquet, which the library must refuse without ending the process, and pages that contradict them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.harness.store import SCHEMA as CLICKS
from disbench.harness.store import open_rows
from disbench.io.parquet import RowGroup, check_decoded_size, open_parquet
from tests.fuzz.stored_forms import damaged, in_a_child, parquet_bytes
from tests.fuzz.tools import examples

REFUSALS = (ValueError, OSError, pa.ArrowException, MemoryError)
PAIR = pa.schema([("a", pa.int32()), ("b", pa.int32())])
WHOLE = parquet_bytes(CLICKS.empty_table())
END = len(WHOLE) - 8 - int.from_bytes(WHOLE[-8:-4], "little")


def ended(end: bytes) -> pa.Buffer:
    return pa.py_buffer(b"PAR1" + end + len(end).to_bytes(4, "little") + b"PAR1")


@examples(120)
@given(end=st.one_of(damaged(WHOLE[END:-8]), st.binary(max_size=60)))
def test_damaged_ends(end: bytes) -> None:
    try:
        file, groups = open_parquet(ended(end), CLICKS)
        file.read(use_threads=False)
    except REFUSALS:
        return
    assert all(group.rows >= 0 and group.values >= 0 for group in groups)


def varint(value: int) -> bytes:
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def number(value: int, kind: int = 6) -> tuple[int, bytes]:
    """A number of 64 bits, or of 32 (kind 5)."""
    return kind, varint(2 * value if value >= 0 else -2 * value - 1)


def text(value: bytes) -> tuple[int, bytes]:
    return 8, varint(len(value)) + value


def items(kind: int, values: Sequence[bytes]) -> tuple[int, bytes]:
    return 9, bytes([0xF0 | kind]) + varint(len(values)) + b"".join(values)


def struct(fields: Mapping[int, tuple[int, bytes]]) -> bytes:
    """A structure in Thrift's compact protocol: number of a field -> its kind and bytes."""
    steps = zip(fields, [0, *fields], strict=False)
    parts = zip(steps, fields.values(), strict=True)
    return b"".join(bytes([(field - last) << 4 | kind]) + value for (field, last), (kind, value) in parts) + b"\0"


def column(name: bytes, children: int = 0) -> bytes:
    named = {3: number(0, 5), 4: text(name)}
    return struct({**named, 5: number(children, 5)} if children else {1: number(1, 5), **named})


def chunk(name: bytes, values: int) -> bytes:
    sizes = {place: number(30) for place in (6, 7)}
    codec = {4: number(0, 5), 5: number(values), **sizes, 9: number(4)}
    about = {1: number(1, 5), 2: items(5, [b"\0"]), 3: items(8, [text(name)[1]]), **codec}
    return struct({2: number(4), 3: (12, struct(about))})


def end_of(columns: Sequence[bytes], chunks: Sequence[bytes], rows: int) -> pa.Buffer:
    group = struct({1: items(12, chunks), 2: number(10), 3: number(rows)})
    return ended(struct({1: number(2, 5), 2: items(12, columns), 3: number(rows), 4: items(12, [group])}))


TWO = [column(b"r", 2), column(b"a"), column(b"b")]


def test_ends_are_written_here_as_the_format_has_them() -> None:
    _, groups = open_parquet(end_of(TWO, [chunk(b"a", 5), chunk(b"b", 7)], 5), PAIR)
    assert groups == [RowGroup(5, 12)]


@pytest.mark.parametrize(
    "end",
    [
        *(end_of(TWO, [chunk(b"a", 5)] * count, 5) for count in (0, 1, 3)),
        *(end_of(TWO, [chunk(b"a", 5), chunk(b"b", values)], 5) for values in (-1, 2**40, 2**62)),
        end_of(TWO, [chunk(b"a", 5), chunk(b"b", 5)], -1),
        end_of([column(b"r", 3), *TWO[1:]], [chunk(b"a", 5), chunk(b"b", 5)], 5),
        *(ended(struct({1: number(2, 5), 2: items(12, [column(b"a", 1)] * n + TWO[1:2])})) for n in (9_000, 10**6)),
        ended(struct({1: number(2, 5), 2: items(12, [column(b"r", 10**5), *TWO[1:2] * 10**5])})),
        *map(
            ended,
            (b"", b"\x00", b"\x1c" * 5000, b"\x29\xfc" + b"\xff" * 9, b"\x29\x9c" * 999, b"\x1b\x01", b"\x18\x7f"),
        ),
    ],
)
def test_ends_that_contradict_themselves(end: pa.Buffer) -> None:
    with pytest.raises(REFUSALS):
        open_parquet(end, PAIR)


@pytest.mark.parametrize("index", [1, 2, 2**30])
def test_texts_that_their_dictionary_does_not_have(index: int) -> None:
    whole = pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int32()), pa.array(["a"]))
    broken = pa.DictionaryArray.from_arrays(pa.array([0, index], pa.int32()), pa.array(["a"]), safe=False)
    check_decoded_size(pa.table({"x": whole}))
    with pytest.raises(ValueError, match="dictionary index"):
        check_decoded_size(pa.table({"x": broken}))
    with pytest.raises(ValueError, match="dictionary index"):
        check_decoded_size(pa.table({"x": pa.ListArray.from_arrays([0, 2], broken)}))


def rows_of(path: Path) -> int:
    with open_rows(path, path, CLICKS) as file:
        return int(file.read().num_rows)


def test_metadata_that_aborts_the_library() -> None:
    """A damaged histogram of a column's levels: pyarrow's metadata of the column ends the process."""
    said, _ = in_a_child(rows_of, Path(__file__).with_name("histogram.parquet"))
    assert said.startswith("refused") and "histogram.parquet" in said
