"""Parquet's end, read by its own rules before the library sees it, and pages that contradict it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.harness.store import SCHEMA as CLICKS
from disbench.io.parquet import weigh
from disbench.io.parquet_footer import RowGroup, read_footer
from disbench.shards.reader import SCHEMA
from tests.fuzz.stored_forms import damaged, parquet_bytes
from tests.fuzz.tools import examples
from tests.unit.shard_tools import SHARD, random_scene, write_shards


def as_the_library_says(path: Path) -> list[RowGroup]:
    """Of a whole file."""
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [
        RowGroup(group.num_rows, sum(group.column(i).num_values for i in range(group.num_columns))) for group in groups
    ]


@pytest.mark.parametrize("version", ["1.0", "2.6"])
@pytest.mark.parametrize("statistics", [True, False])
def test_whole_files(version: str, statistics: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shards = write_shards(tmp_path / "shards", [random_scene(rng, f"{n}") for n in range(40)])
    table = pq.read_table(shards / SHARD)
    path = tmp_path / "x.parquet"
    for size in (1, 7, 100):
        pq.write_table(table, path, row_group_size=size, version=version, write_statistics=statistics)
        assert read_footer(path) == as_the_library_says(path)
        assert read_footer(pa.py_buffer(path.read_bytes())) == read_footer(path)
    for schema in (SCHEMA, CLICKS, pa.schema([])):
        pq.write_table(schema.empty_table(), path)
        assert read_footer(path) == as_the_library_says(path)


@examples(300)
@given(data=st.data())
def test_damaged_ends(data: st.DataObject) -> None:
    """Row groups or a `ValueError`, for any bytes."""
    content = parquet_bytes(CLICKS.empty_table())
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x.parquet"
        path.write_bytes(data.draw(st.one_of(damaged(content), st.binary(max_size=60).map(_ended))))
        try:
            found = read_footer(path)
        except ValueError:
            return
        assert all(group.rows >= 0 and group.values >= 0 for group in found)


def _ended(footer: bytes) -> bytes:
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    "footer",
    [b"", b"\x00", b"\x1c" * 5000, b"\x29\xfc" + b"\xff" * 9, b"\x29\x9c" * 999, b"\x1b\x01", b"\x18\x7f"],
)
def test_ends_that_are_none(footer: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_footer(pa.py_buffer(_ended(footer)))


@pytest.mark.parametrize("index", [1, 2, 2**30])
def test_texts_that_their_dictionary_does_not_have(index: int) -> None:
    whole = pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int32()), pa.array(["a"]))
    broken = pa.DictionaryArray.from_arrays(pa.array([0, index], pa.int32()), pa.array(["a"]), safe=False)
    weigh(pa.table({"x": whole}))
    with pytest.raises(ValueError, match="dictionary does not have"):
        weigh(pa.table({"x": broken}))
    with pytest.raises(ValueError, match="dictionary does not have"):
        weigh(pa.table({"x": pa.ListArray.from_arrays([0, 2], broken)}))
