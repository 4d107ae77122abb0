"""Read MATLAB 5 files as used by SBD and Pascal-Part: numbers and text in struct fields.

scipy.io.loadmat trusts the file: 200 bytes can make it allocate 8 GiB for a cell array, and nested cells crash the
process. This reader is as fast and needs no more memory than the file's numbers.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import IntArray
from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_MATLAB_BYTES, MAX_NAME
from disbench.io.files import read_bounded

Numbers = npt.NDArray[Any]
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
# MATLAB type number -> NumPy dtype, for numbers and for characters
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "u1", 2: "u1", 4: "u2", 16: "u1", 17: "u2"}
_CELL, _STRUCT, _CHAR, _NUMERIC, _OPAQUE = 1, 2, 4, range(6, 16), 17  # opaque arrays (strings) have no dimensions
_COMPLEX = 0x0800
_MOST_FIELDS = 1000


class _DamagedError(Exception):
    """The bytes violate the format."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A MATLAB array: its header and raw content, which `elements`, `numbers` and `text` decode."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: bytes
    content: memoryview
    order: str


def read_struct(path: Path, name: str, fields: Sequence[str]) -> dict[str, Numbers]:
    """Read real numeric fields of a variable that is a 1 x 1 struct: field -> array in the file's own type.

    Memory: the file, the variable, and a copy of each field. `InputError` as `open_variable`; ValueError if the
    variable is missing, or not a 1 x 1 struct with these fields.
    """
    with open_variable(path, name) as found:
        if found.kind != _STRUCT or math.prod(found.shape) != 1:
            raise ValueError("it is not a 1 x 1 struct")
        (element,) = elements(found, fields, 1, "it")
        return {field: numbers(element[field], f"its field {field!r}") for field in fields}


@contextmanager
def open_variable(path: Path, name: str) -> Iterator[Matrix]:
    """Open a variable of a version 5 to 7.2 file, to be read in the `with` block; ValueError if it does not exist.

    `InputError` if the file is missing, damaged (also if found in the block) or larger than `MAX_MATLAB_BYTES`.
    """
    data = memoryview(read_bounded(path, MAX_MATLAB_BYTES, "get the dataset's own file"))
    try:
        order = {b"IM": "<", b"MI": ">"}.get(bytes(data[_HEADER - 2 : _HEADER]))
        if order is None or struct.unpack(f"{order}H", data[_HEADER - 4 : _HEADER - 2])[0] >> 8 != 1:
            raise _DamagedError("not a version 5 to 7.2 header; if MATLAB reads it, save it with -v7")
        found, names = None, []
        for matrix in _variables(data[_HEADER:], order):
            names.append(matrix.name.decode("ascii", "replace"))
            found = matrix if names[-1] == name else found
        if found is None:
            raise ValueError(f"the file has {', '.join(map(quote, names[:5])) or 'no variable'}")
        yield found
    except (_DamagedError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: not a valid MATLAB file ({error}); get it again") from None


def elements(found: Matrix, fields: Sequence[str], most: int, name_of_array: str) -> Iterator[Mapping[str, Matrix]]:
    """The elements of a struct array, in order, as dictionaries of some fields; nothing for an empty array of any kind.

    ValueError, naming the array `what`, if it is not a struct, has more than `most` elements, or lacks a field.
    """
    count = math.prod(found.shape)
    if not count:
        return
    if found.kind != _STRUCT:
        raise ValueError(f"{name_of_array} is not a struct")
    if count > most:
        raise ValueError(f"{name_of_array} has {quote(count)} elements, more than {most}")
    _, length, data = _element(found.content, found.order)
    _, raw, data = _element(data, found.order)
    width = int.from_bytes(length, "little" if found.order == "<" else "big")
    if len(length) != 4 or not width or len(raw) % width or len(raw) // width > _MOST_FIELDS:
        raise _DamagedError("a struct has no field names")
    cut = [bytes(raw[place : place + width]).split(b"\0")[0] for place in range(0, len(raw), width)]
    names = [name.decode("ascii", "replace") for name in cut]
    if missing := [name for name in fields if name not in names]:
        raise ValueError(f"{name_of_array} has no field {missing[0]!r}")
    for _ in range(count):
        element = {}
        for name in names:
            kind, content, data = _element(data, found.order)
            if kind != _MATRIX:
                raise _DamagedError("a field of a struct is not an array")
            if name in fields:
                element[name] = _matrix(content, found.order)
        yield element


def numbers(found: Matrix, what: str) -> Numbers:
    """The real numbers of a full array, possibly in a cell, in the file's own type; ValueError for other kinds."""
    while found.kind == _CELL and math.prod(found.shape) == 1:
        found = _matrix(_element(found.content, found.order)[1], found.order)
    if found.kind not in _NUMERIC or found.is_complex:
        raise ValueError(f"{what} is not a full array of real numbers")
    kind, raw, _ = _element(found.content, found.order)
    if kind not in _STORED:
        raise _DamagedError(f"an array has numbers of type {kind}")
    dtype = np.dtype(found.order + _STORED[kind])
    if math.prod(found.shape) * dtype.itemsize != len(raw):
        raise _DamagedError(f"an array of {quote(list(found.shape))} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(found.shape, order="F")


def text(found: Matrix, what: str) -> str:
    """A string of 1 to `MAX_NAME` printable ASCII characters; ValueError otherwise."""
    kind, raw, _ = _element(found.content, found.order) if found.kind == _CHAR else (0, found.content, None)
    if kind in _TEXT and 0 < len(raw) <= 2 * MAX_NAME and not len(raw) % np.dtype(_TEXT[kind]).itemsize:
        codes = np.frombuffer(raw, np.dtype(found.order + _TEXT[kind]))
        if found.shape == (1, len(codes)) and len(codes) <= MAX_NAME and codes.min() >= 32 and codes.max() < 127:
            return bytes(codes.astype(np.uint8)).decode("ascii")
    raise ValueError(f"{what} is not a string of 1 to {MAX_NAME} ASCII characters")


def whole_numbers(values: Numbers) -> IntArray:
    """Convert integers to int64; ValueError for a fraction, NaN, infinity, or more than 2**53."""
    if values.dtype.kind == "f" and not ((np.abs(values) <= 2**53) & (values == np.rint(values))).all():
        raise ValueError("it has a number that is too large or not an integer")
    return values.astype(np.int64)


def _variables(data: memoryview, order: str) -> Iterator[Matrix]:
    """The variables of a file, one at a time; only uncompressed ones are padded."""
    while data:
        kind, content, after = _element(data, order, pad=False)
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(content, MAX_MATLAB_BYTES)
            if not unpacker.eof:
                raise _DamagedError("a variable is too large or truncated")
            kind, content, _ = _element(memoryview(unpacked), order)
        elif len(content) % 8:
            after = after[-len(content) % 8 :]
        if kind != _MATRIX:
            raise _DamagedError(f"an element of type {kind} instead of a variable")
        yield _matrix(content, order)
        data = after


def _element(data: memoryview, order: str, *, pad: bool = True) -> tuple[int, memoryview, memoryview]:
    """Kind and content of the first element, and the remaining data."""
    word, size = struct.unpack(f"{order}II", data[:8])
    if word >> 16:  # a small element: size and kind share a word, followed by four bytes
        kind, size, begin, end = word & 0xFFFF, word >> 16, 4, 8
        if size > 4:
            raise _DamagedError("a small element is too large")
    else:
        kind, begin = word, 8
        end = begin + size + (-size % 8 if pad else 0)
    if begin + size > len(data):
        raise _DamagedError("truncated")
    return kind, data[begin : begin + size], data[end:]


def _matrix(data: memoryview, order: str) -> Matrix:
    if not data:  # MATLAB writes this for a field that was never set
        return Matrix(6, False, (0, 0), b"", memoryview(struct.pack(f"{order}II", 9, 0)), order)
    _, flags, data = _element(data, order)
    word = struct.unpack(f"{order}II", flags)[0]
    kind, dimensions, data = (5, memoryview(bytes(8)), data) if word & 0xFF == _OPAQUE else _element(data, order)
    _, name, data = _element(data, order)
    if kind != 5 or not 8 <= len(dimensions) <= 4 * 32 or len(dimensions) % 4:
        raise _DamagedError("invalid array header")
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    if min(shape) < 0:
        raise _DamagedError("an array has a negative size")
    return Matrix(word & 0xFF, bool(word & _COMPLEX), shape, bytes(name[:64]), data, order)
