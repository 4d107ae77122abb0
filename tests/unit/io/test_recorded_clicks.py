"""Recorded clicks: written and read again; what is wrong with a file is said in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.click_policies import ClickPolicy, Recording, is_replay
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.io.recorded_clicks import (
    SCHEMA,
    ClickSequence,
    add_sequence,
    digest_of,
    read_recording,
    read_sequences,
    to_parquet,
)
from tests.refusals import refuses

ROWS: dict[str, list[Any]] = {
    "sample": ["a", "b", "a", "a"],
    "click": [2, 1, 1, 1],
    "x": [5, 0, 3, 9],
    "y": [6, 0, 4, 9],
    "positive": [False, True, True, True],
    "user": ["ann", "ann", "ann", "bo"],
}


def written(path: Path, **changes: Any) -> Path:
    pd.DataFrame({**ROWS, **changes}).to_parquet(path)  # int64 and no metadata of ours: another's file
    return path


NAMES = st.text(st.characters(categories=("L", "N", "P"), exclude_characters=","), min_size=1, max_size=8)
CLICKS = st.builds(Click, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.booleans())


@given(st.dictionaries(st.tuples(NAMES, NAMES), st.lists(CLICKS, min_size=1, max_size=5), max_size=5))
def test_what_is_written_is_read(made: dict[tuple[str, str], list[Click]]) -> None:
    import tempfile

    sequences = [ClickSequence(*key, tuple(clicks)) for key, clicks in made.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clicks.parquet")
        path.write_bytes(to_parquet(sequences))
        assert pq.read_schema(path).equals(SCHEMA, check_metadata=True)
        assert read_sequences(path) == sequences


def test_rows_may_stand_in_any_order_and_come_from_elsewhere(tmp_path: Path) -> None:
    path = written(tmp_path / "study.parquet", seconds=[1.0, 2.0, 3.0, 4.0])
    found = read_recording(path, "ann")
    assert found.clicks == {"a": (Click(3, 4, True), Click(5, 6, False)), "b": (Click(0, 0, True),)}
    assert (found.file, found.user) == ("study.parquet", "ann")
    assert found.digest == digest_of({"b": [Click(0, 0, True)], "a": [Click(3, 4, True), Click(5, 6, False)]})
    assert read_recording(path, "bo").clicks == {"a": (Click(9, 9, True),)}
    assert read_recording(path, "ann", found.digest) == found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"click": [3, 1, 1, 1]}, "not numbered"),
        ({"click": [1, 1, 1, 1]}, "duplicate click 1"),
        ({"click": [0, 1, 1, 1]}, "not numbered"),
        ({"x": [-1, 0, 0, 0]}, "row 1: x = -1"),
        ({"x": [2**40, 0, 0, 0]}, "'x' (int64)"),
        ({"x": [1.5, 0, 0, 0]}, "'x' (double)"),
        ({"x": [None, 0, 0, 0]}, "'x'"),
        ({"positive": [0, 1, 1, 1]}, "'positive' (int64)"),
        ({"user": ["a,b"] * 4}, "comma"),
        ({"sample": ["", "b", "a", "a"]}, "sample ''"),
        ({"sample": ["a\nb"] * 4}, "printable"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = written(tmp_path / "study.parquet", **changes)
    said = refuses(re.escape(words), read_sequences, path)
    assert str(path) in said


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("not Parquet at all")
    pd.DataFrame(ROWS).drop(columns=["user", "y"]).to_parquet(tmp_path / "few.parquet")
    later = pa.table(ROWS, SCHEMA).replace_schema_metadata({"disbench.clicks": "2"})
    pq.write_table(later, tmp_path / "later.parquet")
    (tmp_path / "empty.parquet").write_bytes(to_parquet([]))
    written(tmp_path / "two.parquet")
    for name, options, words in (
        ("none", (), "no such file"),
        ("text", (), "Parquet"),
        ("few", (), "no column y, user"),
        ("later", (), "format b'2'"),
        ("empty", (), "no clicks"),
        ("two", (), r"2 users \(ann, bo\)"),
        ("two", ("an",), "'an'; did you mean 'ann'"),
        ("two", ("ann", "0" * 16), "digest"),
    ):
        with pytest.raises(InputError, match=rf"{name}\.parquet: .*{words}"):
            read_recording(tmp_path / f"{name}.parquet", *options)


def test_adding_replaces_the_same_persons_clicks_on_the_same_sample(tmp_path: Path) -> None:
    path = tmp_path / "clicks.parquet"
    first, other = ClickSequence("a", "ann", (Click(1, 2, True),)), ClickSequence("a", "bo", (Click(3, 4, True),))
    again = ClickSequence("a", "ann", (Click(5, 6, True), Click(7, 8, False)))
    for one in (first, other, again):
        add_sequence(path, one)
    assert read_sequences(path) == [other, again]


def test_the_policys_text() -> None:
    for text in ("replay:a.parquet", "replay:a,b.parquet,user=ann", "replay:a.parquet,user=ann,clicks=" + "0a" * 8):
        assert str(ClickPolicy.parse(text)) == text
        assert is_replay(text)
    assert ClickPolicy.parse("replay:C:/x y.parquet,user=ann lee").recording == Recording("C:/x y.parquet", "ann lee")
    assert not is_replay("center")
    for text in ("replay", "replay:"):
        refuses("replay:FILE", ClickPolicy.parse, text)
    refuses("did you mean 'replay'", ClickPolicy.parse, "reply")
