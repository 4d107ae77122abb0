"""What the fuzz tests of stored forms share: damage to bytes and to plain data, and the promise that they hold."""

from __future__ import annotations

import copy
import json
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from disbench.core.errors import InputError
from tests.forked import output_of
from tests.fuzz import tools

Result = TypeVar("Result")


def result_or_refusal(call: Callable[[], Result], *names: object) -> Result | None:
    """The promise: a result, or an `InputError` of one sentence that names the file; None then.

    Anything else that is raised passes through, and fails the test.
    """
    try:
        return call()
    except InputError as error:
        text = str(error)
        assert text.strip()
        assert len(text) < 4000, len(text)
        for name in names:
            assert str(name) in text, text
        return None


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    return tools.damaged([content])


NASTY_TEXTS = (
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "",
    "a\0b",
    "a\nb",
    "\x1b[2J\x1b]0;x\x07",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "=cmd|' /C calc'!A0",
    "\t=1+1",
    "+1+1",
    r"\input{/etc/passwd}",
    r"\end{tabular}\immediate\write18{id}",
    "$(id)",
    "`id`",
    "a|b\\\\&%#_^~",
    "\u202eevil",
    "\ud800",
    "x" * 3000,
)
nasty_texts = st.one_of(st.sampled_from(NASTY_TEXTS), st.text(max_size=20))
nasty_numbers = st.one_of(
    st.sampled_from((0, -1, 1, 2, 2**15, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**18, 10**400)),
    st.sampled_from((0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"))),
    st.integers(-5, 40),
)
nasty_values = st.recursive(
    st.one_of(st.none(), st.booleans(), nasty_numbers, nasty_texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(nasty_texts, inner, max_size=3)),
    max_leaves=6,
)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place of plain data where something stands: (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(value, key), *_places(item)]
    return found


@st.composite
def changed(draw: st.DrawFn, value: Any, values: st.SearchStrategy[Any] = nasty_values) -> Any:
    """Plain data with some of its parts replaced, taken away, repeated or put in."""
    found = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(found)
        if not places:
            break
        where, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "add")))
        if how == "replace":
            where[key] = draw(values)
        elif how == "remove":
            del where[key]
        elif isinstance(where, dict):
            where[draw(nasty_texts)] = draw(values)
        else:
            where.insert(key, copy.deepcopy(where[key]))
    return found


FLOATS = st.sampled_from((0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 1e30, float("inf"), float("nan"), float("-inf")))
TEXTS = st.sampled_from([text for text in NASTY_TEXTS if text != "\ud800"] + ["s0", "s1"])
BYTES = st.one_of(st.sampled_from((b"", b"X2", b"\xff\xff", b"oooooooooo0")), st.binary(max_size=9))


PLAIN = (
    *((pa.types.is_string, TEXTS), (pa.types.is_binary, BYTES)),
    *((pa.types.is_boolean, st.booleans()), (pa.types.is_floating, FLOATS)),
)


def strange(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of a type that a run or a shard would not have."""
    if pa.types.is_list(kind):
        return st.lists(st.one_of(st.none(), strange(kind.value_type)), max_size=4)
    if pa.types.is_fixed_size_list(kind):
        return st.lists(strange(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: strange(field.type) for field in kind})
    for fits, values in PLAIN:
        if fits(kind):
            return values
    most = 2 ** (kind.bit_width - 1) - 1
    return st.sampled_from((-most - 1, -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 11, most))


def changed_field(draw: st.DrawFn, value: Any, field: pa.Field) -> Any:
    """A field's value with another one in one of its places; from a list an item may be taken away."""
    kind = field.type
    if pa.types.is_struct(kind) and value:
        part = draw(st.sampled_from(list(kind)))
        return value | {part.name: changed_field(draw, value[part.name], part)}
    if isinstance(value, list) and value and draw(st.integers(0, 2)):
        place = draw(st.integers(0, len(value) - 1))
        item = [changed_field(draw, value[place], kind.value_field)] if draw(st.integers(0, 4)) else []
        return [*value[:place], *item, *value[place + 1 :]]
    return None if field.nullable and draw(st.booleans()) else draw(strange(kind))


@st.composite
def strange_rows(draw: st.DrawFn, table: pa.Table) -> bytes:
    """A Parquet file with values that a run or a shard would not have, or with rows missing or there twice."""
    rows = table.to_pylist()
    for _ in range(draw(st.integers(1, 3))):
        if not rows:
            break
        place = draw(st.integers(0, len(rows) - 1))
        how = draw(st.sampled_from(("change", "change", "remove", "repeat")))
        if how == "change":
            field = draw(st.sampled_from(list(table.schema)))
            rows[place] |= {field.name: changed_field(draw, rows[place][field.name], field)}
        elif how == "remove":
            del rows[place]
        else:
            rows.insert(0, rows[place])
    try:
        return parquet_bytes(pa.Table.from_pylist(rows, table.schema))
    except (pa.ArrowException, TypeError):  # a box of another length, or null where Parquet has none
        return parquet_bytes(table)


@st.composite
def damaged_parquet(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes of a Parquet file, damaged anywhere or in its footer."""
    end = draw(st.sampled_from((len(content), 8 + int.from_bytes(content[-8:-4], "little"))))
    kept, rest = content[: len(content) - end], content[len(content) - end :]
    return kept + draw(damaged(rest))


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


VALUED = (pa.int32(), pa.int64(), pa.float64(), pa.string(), pa.binary(), pa.bool_(), pa.list_(pa.int32()))
EMPTY = (pa.null(), pa.large_string(), pa.date32(), pa.struct([pa.field("x", pa.string())]))
KINDS = st.sampled_from((*VALUED, *EMPTY, pa.dictionary(pa.int32(), pa.string())))


@st.composite
def other_columns(draw: st.DrawFn, schema: pa.Schema) -> bytes:
    """A Parquet file of columns of any types, most of them of a schema's names."""
    names = draw(st.lists(st.sampled_from((*schema.names, "other")), max_size=20))
    columns = []
    for _ in names:
        kind = draw(KINDS)
        valued = kind in VALUED and draw(st.booleans())
        columns.append(pa.array([draw(strange(kind)) for _ in range(3)], kind) if valued else pa.nulls(3, kind))
    return parquet_bytes(pa.table(columns, names=names) if names else pa.table({}))


def spoilt(path: Path) -> st.SearchStrategy[bytes]:
    """What a stored file may hold instead: damaged bytes, or other values, rows and columns as its kind has them."""
    content = path.read_bytes()
    if path.suffix == ".json":
        return st.one_of(damaged(content), changed(json.loads(content)).map(lambda value: json.dumps(value).encode()))
    if path.suffix != ".parquet":
        return damaged(content)
    table = pq.read_table(path)
    return st.one_of(damaged_parquet(content), strange_rows(table), other_columns(table.schema))


@contextmanager
def copied(folder: Path, **changes: Any) -> Iterator[Path]:
    """A copy of a folder, in a folder of its own; the files of some stems hold other bytes."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place) / folder.name))
        for stem, content in changes.items():
            (path,) = copy.glob(f"{stem}.*")
            path.write_bytes(content)
        yield copy


def in_a_child(attempt: Callable[..., object], *arguments: object) -> tuple[str, float]:
    """What a call comes to in a process of its own, and by how many MiB its memory grew.

    Args:
        attempt: a function of a module.
        arguments: texts or paths.
    """
    done = output_of(_attempt, attempt, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    *words, grown = done.stdout.strip().splitlines()
    return "\n".join(words), int(grown) / 1024


def _attempt(attempt: Callable[..., object], *arguments: object) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        print("result", attempt(*arguments))  # noqa: T201
    except InputError as error:
        print("refused", error)  # noqa: T201
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)  # noqa: T201
