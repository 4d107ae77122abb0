"""Messages of the bridge: they come back as they were sent, and nothing else is taken for one."""

from __future__ import annotations

import ast
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from disbench.baselines.bridge import adapters, child
from disbench.baselines.bridge.child import DTYPES, LENGTH, MAGIC, WireError, packed, read_message

names = st.text(max_size=8)
plain = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | names
)
headers = st.dictionaries(
    names.filter(lambda name: name not in ("type", "arrays")), plain | st.lists(plain, max_size=3)
)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
)
MOST = 1 << 16


def reader(content: bytes) -> Callable[[int], bytes]:
    place = [0]

    def read(count: int) -> bytes:
        found = content[place[0] : place[0] + count]
        place[0] += count
        if len(found) < count:
            raise EOFError
        return found

    return read


def sent(header: dict[str, Any], more: list[Any]) -> bytes:
    return b"".join(bytes(piece) for piece in packed(header, more))


@given(headers, st.lists(arrays, max_size=3))
def test_a_message_comes_back_as_it_was_sent(header: dict[str, Any], more: list[np.ndarray]) -> None:
    found, content = read_message(reader(sent({**header, "type": "test"}, more)), MOST)
    assert found == {**header, "type": "test"}
    for one, other in zip(content, more, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_array_equal(one, other)


@settings(max_examples=80)
@given(headers, st.lists(arrays, max_size=2), st.data())
def test_cut_or_changed_is_no_message(header: dict[str, Any], more: list[np.ndarray], data: st.DataObject) -> None:
    """It ends, says so, or is a message within the bounds; it never does anything else."""
    whole = bytearray(sent({**header, "type": "test"}, more))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(EOFError):
        read_message(reader(bytes(whole[:cut])), MOST)
    place, value = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    whole[place] = value
    asked: list[int] = []
    read = reader(bytes(whole))

    def watched(count: int) -> bytes:
        asked.append(count)
        return read(count)

    with contextlib.suppress(WireError, EOFError):
        read_message(watched, MOST)
    assert all(count <= child.MOST_HEADER for count in asked[:2]) and sum(asked[2:]) <= MOST


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Loading model", "b'Loading"),
        (MAGIC + LENGTH.pack(1 << 30), "a header of 1073741824 bytes"),
        (MAGIC + LENGTH.pack(2) + b"[]", "a header that is not JSON with arrays"),
        (MAGIC + LENGTH.pack(2) + b"{}", "a header that is not JSON with arrays"),
    ],
)
def test_what_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(WireError) as caught:
        read_message(reader(content + bytes(16)), MOST)
    assert words in str(caught.value)


SHAPES: list[object] = [[-1], [1.0], [True], "12", [1, 1, 1, 1, 1], [1 << 40, 1 << 40], [0, 1 << 40, 1 << 40]]
ENTRIES: list[object] = [
    *({"dtype": "<f4", "shape": shape} for shape in SHAPES),
    *({"dtype": dtype, "shape": [1]} for dtype in ("<f8", "|O")),
    *({"dtype": "<f4"}, "array"),
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_arrays_that_are_refused_before_they_are_read(entry: object) -> None:
    text = json.dumps({"type": "test", "arrays": [entry]}).encode()
    with pytest.raises(WireError):
        read_message(reader(MAGIC + LENGTH.pack(len(text)) + text), MOST)


def test_the_bytes_of_messages() -> None:
    text = json.dumps({"type": "test", "arrays": [{"dtype": "|b1", "shape": [3]}]}).encode()
    _, (array,) = read_message(reader(MAGIC + LENGTH.pack(len(text)) + text + bytes([0, 2, 255])), MOST)
    assert array.dtype == np.bool_ and array.tolist() == [False, True, True]
    assert (array == np.array([False, True, True])).all()
    document = (Path(__file__).parents[3] / "docs" / "bridge.md").read_text()
    blocks = [block for block in document.split("```")[1::2] if block.startswith("\n44 53 42 31")]
    asked, answered = (bytes.fromhex("".join(line[:47] for line in block.split("\n"))) for block in blocks)
    assert read_message(reader(asked), MOST) == ({"type": "predict", "clicks": [[2, 1, True]], "session": 1}, [])
    header, (masks,) = read_message(reader(answered), MOST)
    assert header == {"type": "prediction", "scores": [0.5]}
    assert masks.tolist() == [[[False, False, False], [False, False, True]]]


CHILD_SIDE = [Path(str(child.__file__)), Path(str(adapters.__file__))]


@pytest.mark.parametrize("path", CHILD_SIDE, ids=lambda path: path.name)
def test_the_childs_files_are_python_3_7_and_need_numpy_alone(path: Path) -> None:
    """Modules of the peer's are imported by name, once its checkout is on the path."""
    nodes = list(ast.walk(ast.parse(path.read_text(), feature_version=(3, 7))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.partition(".")[0] for name in imported} <= {*sys.stdlib_module_names, "numpy"}
    new = {"removeprefix", "removesuffix", "file_digest", "batched"}
    assert not [node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr in new]
    assert not [k.arg for node in nodes if isinstance(node, ast.Call) for k in node.keywords if k.arg == "strict"]
