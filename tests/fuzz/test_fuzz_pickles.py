"""RITM's pickles of any bytes: data or one sentence; never code, never more memory than stated."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.tools import TIMES, Reader, damaged, examples, pytestmark_linux, written

pytestmark = pytestmark_linux
MIB = 2**20


def bound(size: int) -> int:
    return 8 * MIB + 128 * size


def layer(side: int = 8) -> Any:
    out = io.BytesIO()
    labels = np.zeros((side, side), dtype=np.uint8)
    labels[1:5, 1:5], labels[2:4, 2:4] = 1, 2
    Image.fromarray(labels).save(out, "PNG")
    return np.frombuffer(out.getvalue(), dtype=np.uint8)


NODES = {
    0: {"children": [1], "parent": None, "node_level": 0},
    1: {"children": [], "parent": 0, "node_level": 1},
}
TREE = {9: {"num_instance_masks": 2, "hierarchy": NODES}}
PACKED = ([layer()], [(0, 1), (0, 2)])
WHOLE_TREES = [pickle.dumps(TREE, protocol) for protocol in (0, 2, 4, 5)]
WHOLE_MASKS = [pickle.dumps(PACKED, protocol) for protocol in (0, 2, 4, 5)]

NAMES = (
    *(
        "os system",
        "builtins eval",
        "builtins exec",
        "builtins getattr",
        "builtins __import__",
        "subprocess Popen",
    ),
    *("numpy ndarray", "numpy dtype", "numpy frombuffer", "numpy.core.multiarray _reconstruct", "numpy load"),
    *(
        "numpy._core.multiarray scalar",
        "numpy.core.numeric _frombuffer",
        "_codecs encode",
        "copyreg _reconstructor",
    ),
    *(
        "builtins bytearray",
        "numpy ndarray.tofile",
        "pathlib Path.unlink",
        "operator attrgetter",
        "posix system",
    ),
)

RARE = (
    *(b"\x82\x01", b"\x83\x01\x02", b"\x84\x01\0\0\0", b"Pabc\n", b"S'a'\n", b"I99\n", b"L99L\n"),
    *(b"F1e999\n", b"V\\u0041\n", b"\x95" + struct.pack("<Q", 2**62), b"\x8e" + struct.pack("<Q", 2**40)),
    b"\x8b" + struct.pack("<i", 2**31 - 1),
)


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """Opcodes in any order, with arguments that suit them: what no pickler writes."""
    argument = st.one_of(
        st.sampled_from(
            (
                b"N",
                b"\x88",
                b"K\x00",
                b"K\x03",
                b"J\xff\xff\xff\x7f",
                b"\x8a\x09" + b"\xff" * 8 + b"\x7f",
                b"]",
                b"}",
                b")",
            )
        ),
        st.sampled_from(("u1", "i8", "O", "V9", "latin1", "rot13", "a", "touch x")).map(short),
        st.sampled_from((b"C\x03abc", b"C\x00", b"B\x04\0\0\0abcd", b"G\x7f\xf8\0\0\0\0\0\0", b"\x96" + bytes(8))),
    )
    name = st.sampled_from(NAMES).flatmap(
        lambda text: st.sampled_from(
            (
                b"c" + text.replace(" ", "\n").encode() + b"\n",
                b"".join(map(short, text.split())) + b"\x93",
                b"i" + text.replace(" ", "\n").encode() + b"\n",
            )
        )
    )
    bare = st.sampled_from(
        [bytes([code]) for code in b"(0129a}b]def)lsutRoQ\x81\x85\x86\x87\x8f\x90\x91\x92\x93\x94\x97\x98"]
    )
    memo = st.sampled_from(
        (b"q\x00", b"h\x00", b"q\x05", b"h\x01", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\xff", b"p9\n", b"g9\n")
    )
    rare = st.sampled_from(RARE)
    parts = draw(st.lists(st.one_of(argument, name, bare, memo, rare), max_size=30))
    return b"\x80" + bytes([draw(st.integers(0, 6))]) + b"".join(parts) + b"."


@given(data=programs())
@examples(100)
def test_programs_that_no_pickler_writes(read: Reader, tmp_path: Path, data: bytes) -> None:
    read("pickle", written(tmp_path / "a.pickle", data), allowed=bound(len(data)))


def split(folder: Path, tree: bytes, packed: bytes) -> Path:
    (folder / "masks").mkdir(exist_ok=True)
    written(folder / "hannotation.pickle", tree)
    written(folder / "masks" / "9.pickle", packed)
    return folder


@given(
    files=st.one_of(
        st.tuples(damaged(WHOLE_TREES), st.sampled_from(WHOLE_MASKS)),
        st.tuples(st.sampled_from(WHOLE_TREES), damaged(WHOLE_MASKS)),
    )
)
@examples(50)
def test_damaged_splits(read: Reader, tmp_path: Path, files: tuple[bytes, bytes]) -> None:
    folder = split(tmp_path, *files)
    read("hannotation", folder, root=folder, allowed=bound(len(files[0]) + len(files[1])) + 16 * MIB)


VALUES = st.recursive(
    st.one_of(
        st.sampled_from((None, True, -1, 0, 1, 2, 255, 2**31, 2**63, 10**400, 0.5, float("nan"), float("inf"))),
        st.sampled_from(("", "..", "../a", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", "\x1b[2J", b"", b"abc")),
        st.just(np.uint8(3)),
        st.just(np.zeros((0, 3), dtype=np.uint8)),
        st.just(layer()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from((0, 1, 9, "children", "parent", "hierarchy", "num_instance_masks")), inner),
    ),
    max_leaves=10,
)


@given(
    tree=VALUES,
    masks=VALUES,
    key=st.sampled_from((9, -1, "9", "../a", "/etc/passwd", "a\0b", "x" * 5000, 2**70, 0.5)),
)
@examples(20)
def test_any_values_in_their_places(read: Reader, tmp_path: Path, tree: Any, masks: Any, key: Any) -> None:
    for number, (left, right) in enumerate(
        (
            (tree, PACKED),
            ({key: tree}, PACKED),
            ({key: TREE[9]}, PACKED),
            (TREE, masks),
            (TREE, ([layer()], masks)),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir(exist_ok=True)
        files = pickle.dumps(left), pickle.dumps(right)
        split(folder, *files)
        read("hannotation", folder, root=folder, allowed=bound(sum(map(len, files))) + 16 * MIB)


PIECES = (
    *(
        b"]",
        b"}",
        b"(",
        b"]\x94",
        b"}\x94",
        b")\x94",
        b"N\x94",
        b"\x85",
        b"]q\x00",
        b"M\xff\xff",
        b"\x8c\x01a",
    ),
    *(b"\x8c\x02\xc3\xbf", b"G" + bytes(8), b"\x96" + bytes(8), b"C\x01a\x94", b"h\x00h\x01R"),
)


@pytest.mark.parametrize("piece", PIECES)
def test_memory_is_bounded_by_the_size(read: Reader, tmp_path: Path, piece: bytes) -> None:
    """Each opcode that makes something, a great many times."""
    head = b"\x80\x05" + short("numpy") + short("dtype") + b"\x93q\x00" + short("u1") + b"\x85q\x01"
    data = head + piece * (MIB // 4 // len(piece)) + b"."
    read("pickle", written(tmp_path / "a.pickle", data), allowed=bound(len(data)))


@pytest.mark.skipif(TIMES <= 1, reason="takes half a minute; DISBENCH_FUZZ_EXAMPLES is not above 1")
def test_the_same_layer_over_and_over(read: Reader, tmp_path: Path) -> None:
    """A pickle names one layer many times for two bytes each; its masks are bounded together."""
    out = io.BytesIO()
    labels = np.indices((4096, 4096)).sum(axis=0) % 2
    Image.fromarray(labels.astype(np.uint8)).save(out, "PNG", compress_level=9)
    one = np.frombuffer(out.getvalue(), dtype=np.uint8)
    packed = pickle.dumps(([one] * 100, [(k, 1) for k in range(100)]))
    tree = pickle.dumps({9: {"num_instance_masks": 0, "hierarchy": {}}})
    folder = split(tmp_path, tree, packed)
    message = read("hannotation", folder, root=folder, allowed=2 * 2**28 + 24 * 4096**2 + 64 * MIB)
    assert message is not None and "run lengths" in message
