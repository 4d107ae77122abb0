"""Indexed JSON: the same records as a whole parse, wherever a chunk ends; damage is always noticed."""

import hashlib
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from disbench.core.errors import InputError
from disbench.datasets import json_index
from disbench.datasets.json_index import JsonArrays, RecordFile, index_json
from tests.refusals import refuses

TEXT = st.text(st.one_of(st.sampled_from('"\\{}[]:, \n\t/é😀\0'), st.characters(codec="utf-8")), max_size=8)
NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=5)
CONTENTS = st.dictionaries(TEXT, st.one_of(RECORDS, VALUES.filter(lambda v: not isinstance(v, list))), max_size=4)
LAYOUTS = st.fixed_dictionaries(
    {
        "indent": st.sampled_from((None, 0, 1, "\t")),
        "separators": st.sampled_from(((",", ":"), (", ", ": "), (" ,\r\n", "\t:  "))),
        "ensure_ascii": st.booleans(),
    }
)
CHUNKS = st.sampled_from((2, 3, 5, 7, 11, 64, 2**20))

SMALL = (
    '{"info": {"a": [{"b": "]}"}]}, "images": [ {"id": 1, "n": "\\\\\\""}, {"id": [2, {"x": {}}]} ],\n'
    ' "annotations": [{"id": 3, "é": "\\u00e9{["}], "none": [], "last": null}'
)


def chunked(path: Path, size: int) -> JsonArrays:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_index, "_CHUNK", size)
        return index_json(path)


def everything(index: JsonArrays) -> dict[str, Any]:
    return {key: list(index.iterate(key)) if key in index.records else value for key, value in index.rest.items()}


def put(folder: Path, content: str | bytes) -> Path:
    path = folder / "a.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json")


@given(content=CONTENTS, layout=LAYOUTS, chunk=CHUNKS, space=st.text(" \n\r\t", max_size=3))
@settings(max_examples=60)
@example(content={"a": [{"\\": '\\"', '"': "\\\\"}]}, layout={}, chunk=2, space="")
@example(content={"a": {"b": [{}]}, "c": [{"d": [{}, []]}], "e": []}, layout={}, chunk=2, space="\n")
def test_index_and_iterate_equal_a_whole_parse(
    folder: Path, content: dict[str, Any], layout: dict[str, Any], chunk: int, space: str
) -> None:
    path = put(folder, space + json.dumps(content, **layout) + space)
    index = chunked(path, chunk)
    assert everything(index) == content
    assert list(index.rest) == list(content)
    assert index.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(index.records) == {key for key, value in content.items() if isinstance(value, list)}


def test_a_token_can_be_cut_at_any_byte_also_in_runs_of_backslashes(tmp_path: Path) -> None:
    for size in range(2, len(SMALL.encode()) + 1, 3):
        assert everything(chunked(put(tmp_path, SMALL), size)) == json.loads(SMALL)
    content = {"a": [{"\\" * n + '"' * (n % 3): "\\" * (9 - n) + '"'} for n in range(9)], "b": [{"c": "\\"}]}
    path = put(tmp_path, json.dumps(content))
    for size in range(2, 20):
        assert everything(chunked(path, size)) == content


def test_a_record_larger_than_a_block_of_records_and_than_a_chunk(tmp_path: Path) -> None:
    small = [{"id": i, "text": "{[\\" * (i % 3)} for i in range(10_000)]
    content = {"a": [*small, {"id": "x" * 10_000}], "b": []}
    path = put(tmp_path, json.dumps(content))
    assert everything(chunked(path, 1000)) == content
    assert everything(index_json(path)) == content


@pytest.mark.parametrize("chunk", [2, 2**20])
def test_a_file_truncated_at_any_byte_is_named(tmp_path: Path, chunk: int) -> None:
    data = SMALL.encode()
    for length in range(0, len(data), 3):
        path = put(tmp_path, data[:length])
        refuses(r"a\.json: ", chunked, path, chunk)


def check_read_as_json_or_refused(path: Path, chunk: int) -> None:
    try:
        found = everything(chunked(path, chunk))
    except InputError as error:
        assert str(path) in str(error)
        return
    assert found == json.loads(path.read_bytes())


@given(soup=st.text('{}[]",:\\a1 \n', max_size=24), chunk=CHUNKS)
@example(soup='{"a":[{}}]', chunk=2)
@example(soup='{"a":[}{]}', chunk=7)
@example(soup='{"":[}[]]', chunk=2)
@example(soup="[[{}],[{}]]", chunk=2)
def test_any_bytes_are_read_as_json_reads_them_or_refused(folder: Path, soup: str, chunk: int) -> None:
    check_read_as_json_or_refused(put(folder, soup), chunk)


@given(place=st.integers(0, len(SMALL.encode()) - 1), byte=st.integers(0, 255), chunk=CHUNKS)
def test_one_wrong_byte_changes_a_value_or_is_refused(folder: Path, place: int, byte: int, chunk: int) -> None:
    data = bytearray(SMALL.encode())
    data[place] = byte
    check_read_as_json_or_refused(put(folder, bytes(data)), chunk)


@pytest.mark.parametrize(
    "content",
    [
        "",
        " \n",
        "5",
        '"text"',
        '[{"id": 1}]',
        "[[1], [2]]",
        '{"a": []}}',
        '{"a": []} {}',
        '{"a": [{]}}',
        '{"a": [], "a": [{"b": 1}]}',
        '{"a": [{"b": 1}], "a": 5}',
        '{"a": 5, "b": [{"b": 1}], "a": [{"a": 1}]}',
        '{"a": "\xff"}'.encode("latin1"),
        '{"a": ' + '{"b": ' * 995 + "1" + "}" * 996,
    ],
)
def test_files_that_are_refused_at_once(tmp_path: Path, content: str | bytes) -> None:
    refuses(r"a\.json: ", lambda: index_json(put(tmp_path, content)))


@pytest.mark.parametrize(
    "array",
    [
        '[{"b": 1} {"c": 2}]',
        '[{"b": 1}, null, {"c": 2}]',
        '[{"b": 1}, [{"c": 2}], {"d": 3}]',
        "[1, 2]",
        '[{"b": 1}, ]',
        '[{"b": [1}}]',
        '[{"b": "\xff"}]'.encode("latin1"),
        '[{"b": ' + "[" * 2000 + "]" * 2000 + "}]",
    ],
)
def test_arrays_that_hold_something_else_than_records(tmp_path: Path, array: str | bytes) -> None:
    data = array.encode() if isinstance(array, str) else array
    path = put(tmp_path, b'{"a": ' + data + b', "z": [{"id": 1}]}')
    for size in (7, 2**20):
        index = chunked(path, size)
        with pytest.raises(InputError, match=r"a\.json: .*'a'"):
            list(index.iterate("a"))
        assert list(index.iterate("z")) == [{"id": 1}]


def test_nan_in_a_record_is_passed_through(tmp_path: Path) -> None:
    index = index_json(put(tmp_path, '{"a": [{"b": NaN, "c": [Infinity, -Infinity]}, {"b": 1}]}'))
    first, second = index.iterate("a")
    assert math.isnan(first["b"])
    assert first["c"] == [math.inf, -math.inf]
    assert second == {"b": 1}


def test_files_that_are_missing_or_change_after_indexing(tmp_path: Path) -> None:
    index = index_json(put(tmp_path, SMALL))
    for changed in ("x" + SMALL, SMALL[:20]):
        put(tmp_path, changed)
        for key in ("images", "annotations"):
            with pytest.raises(InputError, match=r"a\.json"):
                list(index.iterate(key))
    refuses(r"b\.json: ", index_json, tmp_path / "b.json")
    refuses(str(tmp_path), index_json, tmp_path)


def test_a_record_file_can_travel_to_another_process_while_open(tmp_path: Path) -> None:
    reader = RecordFile(put(tmp_path, '{"a": [{"b": 1}]}'))
    assert reader.read(7, 15) == b'{"b": 1}'
    other = pickle.loads(pickle.dumps(reader))
    del reader
    assert other.read(7, 15) == b'{"b": 1}'
