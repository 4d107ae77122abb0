"""What the fuzz tests of stored forms share: damage to bytes and to plain data, and the promise that they hold."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from disbench.core.errors import InputError
from tests.forked import output_of
from tests.fuzz import tools

Result = TypeVar("Result")
MIB = 1 << 20


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
    """Bytes after one to five accidents."""
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
    """Lists in each other."""
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


INTEGERS = st.sampled_from((-(2**15), -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 2**15 - 1))
FLOATS = st.sampled_from((0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 1e30, float("inf"), float("nan"), float("-inf")))
TEXTS = st.sampled_from([text for text in NASTY_TEXTS if text != "\ud800"] + ["s0", "s1"])
BYTES = st.one_of(st.sampled_from((b"", b"X2", b"\xff\xff", b"oooooooooo0")), st.binary(max_size=9))


def strange(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of a type that a run would not have."""
    if pa.types.is_list(kind):
        return st.lists(st.one_of(st.none(), strange(kind.value_type)), max_size=4)
    if pa.types.is_string(kind):
        return TEXTS
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_binary(kind):
        return BYTES
    return FLOATS if pa.types.is_floating(kind) else INTEGERS


@st.composite
def strange_rows(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """A table with values that a run would not have, or with rows missing or there twice."""
    rows = table.to_pylist()
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows)) if rows else {}
        field = draw(st.sampled_from(list(table.schema)))
        if row and draw(st.booleans()):
            empty = field.nullable and draw(st.booleans())
            row[field.name] = None if empty else draw(strange(field.type))
        elif row:
            rows.remove(row) if draw(st.booleans()) else rows.insert(0, row)
    return pa.Table.from_pylist(rows, table.schema)


@st.composite
def damaged_parquet(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes of a Parquet file, damaged anywhere or in its footer."""
    end = draw(st.sampled_from((len(content), 8 + int.from_bytes(content[-8:-4], "little"))))
    kept, rest = content[: len(content) - end], content[len(content) - end :]
    return kept + draw(damaged(rest))


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


_CHILD = """
import gc, resource, sys
from disbench.core.errors import InputError
from tests.fuzz import tools
{code}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print("result", attempt())
except InputError as error:
    print("refused", error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def in_a_child(code: str, *arguments: object) -> tuple[str, float]:
    """What `attempt()` of some code comes to in a process of its own, and by how many MiB its memory grew.

    Args:
        code: imports what it needs and defines `attempt`; arguments are in `sys.argv[1:]`.
        arguments: texts or paths.
    """
    done = output_of(_attempt, _CHILD.format(code=code), *map(str, arguments))
    assert done.returncode == 0, done.stderr[-2000:]
    *words, grown = done.stdout.strip().splitlines()
    return "\n".join(words), int(grown) / 1024


def _attempt(code: str, *arguments: str) -> None:
    sys.argv[1:] = arguments
    exec(code, {})
