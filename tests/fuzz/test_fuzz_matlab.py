"""SBD's MATLAB files of any bytes; whole ones as scipy reads them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from disbench.core.limits import MAX_MATLAB_BYTES
from disbench.datasets.label_maps import read_instances
from tests.fuzz.tools import Reader, damaged, examples, pytestmark_linux, written

pytestmark = pytestmark_linux
MIB = 2**20
SMALL = 64 * MIB
LABELS = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7) % 4
KINDS = (
    np.uint8,
    np.int8,
    np.uint16,
    np.int16,
    np.uint32,
    np.int32,
    np.uint64,
    np.int64,
    np.float32,
    np.float64,
)


def sbd_file(
    labels: Any = LABELS, numbers: Any = ((3,), (15,), (7,)), *, compressed: bool = True, **more: Any
) -> bytes:
    boundaries = np.empty((3, 1), dtype=object)
    for k in range(3):
        boundaries[k, 0] = csc_array(np.asarray(k + 1 == LABELS, dtype=bool))
    truth = {"Boundaries": boundaries, "Segmentation": labels, "Categories": np.array(numbers)}
    out = io.BytesIO()
    savemat(out, {"before": "text", "GTinst": truth, **more}, do_compression=compressed)
    return out.getvalue()


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def matrix(kind: int, sides: tuple[int, ...], body: bytes = b"", name: bytes = b"GTinst") -> bytes:
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(sides)}i", *sides))
    return element(14, head + element(1, name) + body)


def nested_cells(depth: int) -> bytes:
    inner = matrix(6, (0, 0), element(9, b""), b"")
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"")
    tags, size = [], len(inner)
    for _ in range(depth):
        tags.append(struct.pack("<II", 14, len(head) + size) + head)
        size += 8 + len(head)
    return b"".join(reversed(tags)) + inner


HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM"
PLAIN = sbd_file(compressed=False)


def squeezed(data: bytes) -> bytes:
    return HEAD + struct.pack("<II", 15, len(packed := zlib.compress(data, 9))) + packed


@given(data=damaged([PLAIN, sbd_file()]))
@examples(60)
def test_damaged_files(read: Reader, tmp_path: Path, data: bytes) -> None:
    read("matlab", written(tmp_path / "a.mat", data), allowed=SMALL)


@given(data=damaged([PLAIN[128:]]))
@examples(40)
def test_damage_under_the_compression(read: Reader, tmp_path: Path, data: bytes) -> None:
    read("matlab", written(tmp_path / "a.mat", squeezed(data)), allowed=SMALL)


@given(
    kind=st.sampled_from(KINDS),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    count=st.integers(1, 9),
    compressed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@examples(25)
def test_whole_files_are_as_scipy_reads_them(
    tmp_path: Path, kind: Any, sides: tuple[int, int], count: int, compressed: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, count + 1, sides).astype(kind)
    numbers = random.integers(1, 21, (count, 1)).astype(kind)
    path = written(tmp_path / "a.mat", sbd_file(labels, numbers, compressed=compressed, z=labels))
    found, categories = read_instances(path)
    theirs = loadmat(path)["GTinst"][0, 0]
    assert found.dtype == np.int64
    assert np.array_equal(found, theirs["Segmentation"])
    assert categories == theirs["Categories"].ravel().tolist()


HOSTILE = {
    "a cell array of gigabytes": HEAD + matrix(1, (2**30, 1)),
    "a struct array of gigabytes": HEAD + matrix(2, (2**30, 2**30), element(5, b"\x08\0\0\0") + element(1, b"")),
    "cells in cells": HEAD + nested_cells(100_000),
    "cells in cells, compressed": squeezed(nested_cells(100_000)),
    "a matrix of gigabytes": HEAD + matrix(9, (2**31 - 1, 2**31 - 1), element(2, b"abc")),
    "negative sides": HEAD + matrix(9, (-5, -5), element(2, bytes(25))),
    "many sides": HEAD + matrix(9, (1,) * 1000, element(2, b"a")),
    "no sides": HEAD + matrix(9, (), element(2, b"a")),
    "an element of gigabytes": HEAD + struct.pack("<II", 14, 2**32 - 1) + bytes(40),
    "compressed in compressed": squeezed(element(15, zlib.compress(matrix(9, (1, 1), element(2, b"a"))))),
    "version 4": struct.pack("<iiiii", 0, 2**30, 2**30, 0, 7) + b"GTinst\0" + bytes(200),
    "version 7.3": b"MATLAB 7.3 MAT-file".ljust(124)
    + struct.pack("<H", 0x200)
    + b"IM"
    + b"\x89HDF\r\n\x1a\n"
    + bytes(99),
    "a fraction": sbd_file(LABELS / 2),
    "not a number": sbd_file(LABELS * np.nan),
    "infinity": sbd_file(numbers=((np.inf,), (1,), (2,))),
    "a giant": sbd_file(LABELS * 1e300),
    "complex": sbd_file(LABELS * 1j),
    "text": sbd_file(numbers="abc"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(read: Reader, tmp_path: Path, name: str) -> None:
    data = HOSTILE[name]
    assert read("matlab", written(tmp_path / "a.mat", data), allowed=16 * MIB + 4 * len(data))


def test_what_unfolds_to_gigabytes(read: Reader, tmp_path: Path) -> None:
    packer = zlib.compressobj(1)
    data = b"".join([*(packer.compress(bytes(8 * MIB)) for _ in range(34)), packer.flush()])
    path = written(tmp_path / "a.mat", HEAD + struct.pack("<II", 15, len(data)) + data)
    message = read("matlab", path, allowed=2 * MAX_MATLAB_BYTES + SMALL)
    assert message is not None and "too large" in message
