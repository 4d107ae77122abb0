"""MATLAB 5 files as SBD and Pascal-Part use them: numbers and text in the fields of structs.

scipy.io.loadmat trusts the file: 200 bytes make it reserve 8 GiB for a cell array, and nested cells overflow the stack
and end the process. A child process would contain that, at the price of a process to supervise, and would not be
faster (loadmat takes 1.1 ms for a file of SBD, this reader 0.9 ms). It reads the fields of structs that a caller asks
for, one struct at a time, skips the rest, and takes no more memory than the file's numbers do.
"""

from __future__ import annotations

import math
import re
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
from disbench.core.errors import InputError, shown
from disbench.core.limits import MAX_MATLAB_BYTES, MAX_NAME
from disbench.io.files import bounded_bytes

Numbers = npt.NDArray[Any]
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""MATLAB's type number -> NumPy's type."""
_TEXT = {1: "u1", 2: "u1", 4: "u2", 16: "u1", 17: "u2"}
"""The same for characters."""
_CELL, _STRUCT, _CHAR, _NUMERIC, _OPAQUE = 1, 2, 4, range(6, 16), 17
"""Kinds of arrays; an opaque one (a string, a table) has no sides."""
_COMPLEX = 0x0800
_MOST_FIELDS = 1000
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATLAB_4 = {1000 * order + 10 * numbers + kind for order in range(2) for numbers in range(6) for kind in range(3)}
"""First numbers of a file of version 4."""


class _DamagedError(Exception):
    """The bytes violate the format."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A MATLAB array: its head, and the bytes of its content, which `elements`, `numbers` and `text` read."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: bytes
    content: memoryview
    order: str


def read_struct(path: Path, name: str, fields: Sequence[str]) -> dict[str, Numbers]:
    """Some fields, with real numbers, of a variable that is one struct: field -> array in the file's own type.

    Memory: the file (of version 5 to 7.2), the variable, and a copy of each field.

    Raises:
        InputError: the file is missing, damaged, of another version, or larger than MAX_MATLAB_BYTES.
        ValueError: the variable is missing, or not one struct with these fields.
    """
    with opened_variable(path, name) as found:
        if found.kind != _STRUCT or math.prod(found.shape) != 1:
            raise ValueError("it is not one struct")
        (element,) = elements(found, fields, 1, "it")
        return {field: numbers(element[field], f"its field {field!r}") for field in fields}


@contextmanager
def opened_variable(path: Path, name: str) -> Iterator[Matrix]:
    """A variable of a file, to be read in the `with` block, where bytes that violate the format are an `InputError`.

    Raises:
        InputError: as `read_struct`.
        ValueError: the file has no such variable.
    """
    data = memoryview(bounded_bytes(path, MAX_MATLAB_BYTES, "get the dataset's own file"))
    try:
        order = _byte_order(data)
        found, names = None, []
        for matrix in _variables(data[_HEADER:], order):
            names.append(matrix.name.decode("ascii", "replace"))
            found = matrix if names[-1] == name else found
        if found is None:
            raise ValueError(f"the file has {', '.join(map(shown, names[:5])) or 'no variable'}")
        yield found
    except (_DamagedError, struct.error, zlib.error) as error:
        if form := _other_form(bytes(data[:520])):
            problem = f"saved as {form}, which is not read; load it and save it again with save(FILE, '{name}', '-v7')"
        else:
            problem = f"not a whole MATLAB file ({error}); get it again"
        raise InputError(f"{path}: {problem}") from None


def elements(found: Matrix, fields: Sequence[str], most: int, what: str) -> Iterator[Mapping[str, Matrix]]:
    """The elements of a struct array, in order: some of their fields, by name; nothing for an empty array of any kind.

    Raises:
        ValueError: another kind of array, more than `most` elements, or a field that is missing; it names the array as
            `what`.
    """
    count = math.prod(found.shape)
    if not count:
        return
    if found.kind != _STRUCT:
        raise ValueError(f"{what} is not a struct")
    if count > most:
        raise ValueError(f"{what} has {shown(count)} elements; at most {most} are read")
    _, length, data = _element(found.content, found.order)
    if len(length) != 4:
        raise _DamagedError("a struct has no names of fields")
    (width,) = struct.unpack(f"{found.order}i", length)
    _, raw, data = _element(data, found.order)
    if width < 1 or len(raw) % width or len(raw) // width > _MOST_FIELDS:
        raise _DamagedError("a struct has no names of fields")
    cut = [bytes(raw[place : place + width]).split(b"\0")[0] for place in range(0, len(raw), width)]
    names = [name.decode("ascii", "replace") for name in cut]
    if missing := [name for name in fields if name not in names]:
        raise ValueError(f"{what} has no field {missing[0]!r}")
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
    """The real numbers of a full array, or of one in a cell, in the file's own type; ValueError for another kind."""
    while found.kind == _CELL and math.prod(found.shape) == 1:
        found = _matrix(_element(found.content, found.order)[1], found.order)
    if found.kind not in _NUMERIC or found.is_complex:
        raise ValueError(f"{what} is not a full array of real numbers")
    kind, raw, _ = _element(found.content, found.order)
    if kind not in _STORED:
        raise _DamagedError(f"an array has numbers of kind {kind}")
    dtype = np.dtype(found.order + _STORED[kind])
    if math.prod(found.shape) * dtype.itemsize != len(raw):
        raise _DamagedError(f"an array of {shown(list(found.shape))} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(found.shape, order="F")


def text(found: Matrix, what: str) -> str:
    """A row of 1 to `MAX_NAME` printable ASCII characters; ValueError for something else."""
    kind, raw, _ = _element(found.content, found.order) if found.kind == _CHAR else (0, found.content, None)
    if kind in _TEXT and 0 < len(raw) <= 2 * MAX_NAME and not len(raw) % np.dtype(_TEXT[kind]).itemsize:
        codes = np.frombuffer(raw, np.dtype(found.order + _TEXT[kind]))
        if found.shape == (1, len(codes)) and len(codes) <= MAX_NAME and codes.min() >= 32 and codes.max() < 127:
            return bytes(codes.astype(np.uint8)).decode("ascii")
    raise ValueError(f"{what} is not a text of 1 to {MAX_NAME} ASCII characters")


def _other_form(begin: bytes) -> str | None:
    """What a file is that is not of version 5 to 7.2, from its first 520 bytes."""
    if begin.startswith(b"MATLAB 7.3") or _HDF5 in (begin[:8], begin[512:]):
        return "MATLAB 7.3 (HDF5)"
    if begin.startswith((b"Octave", b"# Created by Octave")):
        return "Octave's own format"
    if begin and re.fullmatch(rb"[\s\d.eE+,;-]+", begin):
        return "MATLAB's text"
    first = {int.from_bytes(begin[:4], order) for order in ("little", "big")}
    return "MATLAB 4" if len(begin) > 20 and first & _MATLAB_4 else None


def _byte_order(data: memoryview) -> str:
    """The file's byte order, as struct and NumPy write it."""
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[_HEADER - 2 : _HEADER]))
    if order is None or struct.unpack(f"{order}H", data[_HEADER - 4 : _HEADER - 2])[0] >> 8 != 1:
        raise _DamagedError("its head is not that of version 5")
    return order


def _variables(data: memoryview, order: str) -> Iterator[Matrix]:
    """The variables of a file, one at a time; only uncompressed ones are padded."""
    while data:
        kind, content, after = _element(data, order, pad=False)
        if kind == _COMPRESSED:
            kind, content, _ = _element(_decompressed(content), order)
        elif len(content) % 8:
            after = after[-len(content) % 8 :]
        if kind != _MATRIX:
            raise _DamagedError(f"an element of type {kind} in place of a variable")
        yield _matrix(content, order)
        data = after


def _decompressed(data: memoryview) -> memoryview:
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(data, MAX_MATLAB_BYTES)
    if not unpacker.eof:
        large = len(content) == MAX_MATLAB_BYTES
        raise _DamagedError("a variable is too large" if large else "a variable is cut off")
    return memoryview(content)


def _element(data: memoryview, order: str, *, pad: bool = True) -> tuple[int, memoryview, memoryview]:
    """Kind and content of the first element, and what follows it."""
    word, size = struct.unpack(f"{order}II", data[:8])
    if word >> 16:  # a small element: size and kind share a word, four bytes follow
        kind, size, begin, end = word & 0xFFFF, word >> 16, 4, 8
        if size > 4:
            raise _DamagedError("a small element is too large")
    else:
        kind, begin = word, 8
        end = begin + size + (-size % 8 if pad else 0)
    if begin + size > len(data):
        raise _DamagedError("it is cut off")
    return kind, data[begin : begin + size], data[end:]


def _matrix(data: memoryview, order: str) -> Matrix:
    if not data:  # what MATLAB writes for a field that was never set
        return Matrix(6, False, (0, 0), b"", memoryview(struct.pack(f"{order}II", 9, 0)), order)
    _, flags, data = _element(data, order)
    if len(flags) != 8:
        raise _DamagedError("the head of an array is wrong")
    (word,) = struct.unpack(f"{order}I", flags[:4])
    kind, dimensions, data = (5, memoryview(bytes(8)), data) if word & 0xFF == _OPAQUE else _element(data, order)
    _, name, data = _element(data, order)
    if kind != 5 or not 8 <= len(dimensions) <= 4 * 32 or len(dimensions) % 4:
        raise _DamagedError("the head of an array is wrong")
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    if min(shape) < 0:
        raise _DamagedError("an array has a negative size")
    return Matrix(word & 0xFF, bool(word & _COMPLEX), shape, bytes(name[:64]), data, order)


def whole_numbers(values: Numbers) -> IntArray:
    """Whole numbers as int64; raises `ValueError` for a fraction, NaN, infinity, or more than 2**53."""
    if values.dtype.kind == "f" and not (np.abs(values) <= 2**53).all():
        raise ValueError("it has a number that is not finite, or too large")
    whole = values.astype(np.int64)
    if values.dtype.kind == "f" and (whole != values).any():
        raise ValueError("it has a number that is not whole")
    return whole
