"""Read large annotation JSON files record by record.

LVIS's training file is 1 GB of JSON and takes more than 5 GB of memory if parsed at once. Instead, one pass over the
bytes locates each record of the top-level arrays by quotes and brackets, and orjson parses records on demand.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from disbench.core.arrays import IntArray
from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_ARRAYS, MAX_NAME, MAX_RECORD_BYTES
from disbench.core.masks import as_integer
from disbench.io.archives import open_unpacked
from disbench.io.files import has_control_character

Offsets = IntArray
Json = Mapping[str, Any]
Id = int | str  # id of an image, annotation or category; 1, 1.0 and "1" are equal, other strings are allowed
_CHUNK = 4 * 2**20
_BLOCK = 2**18  # bytes of records parsed together; parsing takes up to 60 times as much memory
_SPACE = b" \t\r\n"

_STEP = np.zeros(256, dtype=np.int8)
_STEP[[ord("{"), ord("[")]] = 1
_STEP[[ord("}"), ord("]")]] = -1
_STRUCTURAL = _STEP != 0
_STRUCTURAL[ord('"')] = True


class RecordFile:
    """Random access to the bytes of an unpacked UTF-8 file; each process opens it on first read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from `begin` to `end`, or to the end of the file."""
        if self._file is None:
            self._file = open_unpacked(self.path)
        return os.pread(self._file.fileno(), end - begin, begin)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None}  # file descriptors are per process

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True)
class JsonArrays:
    """The positions of the records of a JSON file.

    Attributes:
        records: top-level array -> int64 (n, 2), first and end byte of each record.
        bounds: array -> (first byte inside its brackets, position of the closing bracket).
        rest: the top-level object with empty lists in place of the arrays.
    """

    path: Path
    file: RecordFile
    sha256: str
    records: dict[str, Offsets]
    bounds: dict[str, tuple[int, int]]
    rest: dict[str, Any]

    def iterate(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of an array in order, parsed block by block; `InputError` if any is not an object."""
        spans, (position, stop) = self.records[name], self.bounds[name]
        first = 0
        while first < len(spans):
            last = first + max(1, int(np.searchsorted(spans[first : first + 4096, 1], position + _BLOCK)))
            end = int(spans[last - 1, 1])
            data = (b"[{}" if first else b"[") + self.file.read(position, end) + b"]"  # later blocks begin with ","
            try:
                found = _loaded(data)[bool(first) :]
            except (ValueError, RecursionError):
                for number, span in enumerate(spans[first:last].tolist(), first):  # one by one, to find the bad one
                    parse_record(self.path, self.file.read(*span), name, number)
                found = []
            if len(found) != last - first or set(map(type, found)) != {dict}:
                raise InputError(f"{self.path}: {quote(name)} has a non-object near record {first}; fix the file")
            yield from found
            del found  # free it before parsing the next block
            first, position = last, end
        if tail := self.file.read(position, stop).strip(_SPACE):
            text = quote(tail[:40].decode("utf-8", "replace"))
            raise InputError(f"{self.path}: {text} at the end of {quote(name)}, an array of objects; fix the file")


def parse_records(path: Path, pieces: Sequence[bytes], name: str, first: int) -> list[dict[str, Any]]:
    """Parse several records, like `parse_record`; `first` is the index of the first."""
    try:
        found: list[dict[str, Any]] = orjson.loads(b"[" + b",".join(pieces) + b"]")
    except ValueError:
        return [parse_record(path, piece, name, number) for number, piece in enumerate(pieces, first)]
    return found


def parse_record(path: Path, data: bytes, name: str, number: int) -> dict[str, Any]:
    """Parse a record; accepts NaN, which is not valid JSON, so that the caller can report where it is.

    `path`, the array's `name` and the record's index `number` are for the `InputError` raised for invalid JSON.
    """
    try:
        record: dict[str, Any] = _loaded(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: record {number} of {quote(name)}: not valid JSON ({error}); fix the file") from None
    return record


def read_json_file(path: Path) -> dict[str, Any]:
    """Read a JSON file with the annotations of one image, plain or compressed.

    `InputError` if it is missing, damaged, larger than `MAX_RECORD_BYTES`, or not a JSON object.
    """
    with open_unpacked(path) as file:
        data = file.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise InputError(f"{path}: more than {MAX_RECORD_BYTES} bytes for one image; leave it out")
    try:
        found = _loaded(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged or truncated, not JSON ({error}); get it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: {quote(found)} is not a JSON object; get it again")
    return found


def _loaded(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        found = json.loads(data)  # slower, but accepts NaN
        json.dumps(found, ensure_ascii=False).encode()  # rejects lone surrogates
        return found


def index_json(path: Path) -> JsonArrays:
    """Locate the records of all top-level arrays of a JSON file.

    Memory: 16 bytes per record (three times that while running), and at most 32 chunks of 4 MiB. `InputError` if the
    file is missing, empty, truncated or not a JSON object, or exceeds a limit of `disbench.core.limits`.
    """
    return _Scan(path).run()


class _Scan:
    """One pass over the bytes: depth 1 is inside the top-level object, 2 in a top-level array, 3 in a record."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, RecordFile(path)
        self.depth, self.in_string, self.in_array = 0, False, False
        self.skeleton = bytearray()  # the bytes outside the top-level arrays, parsed at the end
        self.arrays: list[list[Offsets]] = []
        self.bounds: list[tuple[int, int]] = []

    def run(self) -> JsonArrays:
        digest = hashlib.sha256()
        position = 0
        while chunk := self._next_chunk(position):
            if position == 0 and chunk.lstrip(_SPACE).startswith(b"["):
                raise InputError(
                    f"{self.path}: a list (such as COCO's results or Label Studio's tasks), not an object with images, "
                    "annotations and categories; export the dataset in COCO's format"
                )
            digest.update(chunk)
            self._scan_chunk(chunk, position)
            position += len(chunk)
        if position == 0:
            raise InputError(f"{self.path}: the file is empty; get it again")
        if self.depth or self.in_string:
            inside = "string" if self.in_string else "record"
            raise InputError(f"{self.path}: truncated after {position} bytes inside a {inside}; get it again")
        return self._result(digest.hexdigest())

    def _next_chunk(self, position: int) -> bytes:
        """A chunk that does not end inside an escape sequence."""
        chunk = self.file.read(position, position + _CHUNK)
        slashes = len(chunk) - len(chunk.rstrip(b"\\"))
        return chunk[:-1] if slashes % 2 and len(chunk) > 1 else chunk

    def _scan_chunk(self, chunk: bytes, position: int) -> None:
        plain = chunk.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in chunk else chunk
        data = np.frombuffer(plain, dtype=np.uint8)
        places = np.flatnonzero(_STRUCTURAL[data])
        kinds = data[places]
        quotes = kinds == ord('"')
        inside = (np.cumsum(quotes) + self.in_string) % 2 == 1
        brackets = ~quotes & ~inside
        places, kinds = places[brackets], kinds[brackets]
        steps = _STEP[kinds]
        depths = np.cumsum(steps, dtype=np.int64) + self.depth
        if depths.size and depths.min() < 0:
            raise InputError(f"{self.path}: not JSON: more closing than opening brackets; get the file again")
        opens = places[(depths == 2) & (steps == 1) & (kinds == ord("["))]
        closes = places[(depths == 1) & (steps == -1) & (kinds == ord("]"))]
        turns = sorted([(place, True) for place in opens.tolist()] + [(place, False) for place in closes.tolist()])
        begins = places[(depths == 3) & (steps == 1) & (kinds == ord("{"))]
        ends = places[(depths == 2) & (steps == -1) & (kinds == ord("}"))] + 1
        self._note(chunk, position, turns, begins, ends)
        self.in_string = bool((int(quotes.sum()) + self.in_string) % 2)
        self.depth = int(depths[-1]) if depths.size else self.depth

    def _note(
        self, chunk: bytes, position: int, turns: Sequence[tuple[int, bool]], begins: Offsets, ends: Offsets
    ) -> None:
        cut = 0
        for place, opening in turns:
            if opening:
                self.skeleton += chunk[cut : place + 1]
                if len(self.arrays) == MAX_ARRAYS:
                    raise InputError(f"{self.path}: more than {MAX_ARRAYS} arrays; give one JSON object, not lines")
                self.arrays.append([])
                self.bounds.append((position + place + 1, 0))
            elif self.in_array:
                self._add_records(position, begins, ends, cut, place)
                self.bounds[-1] = (self.bounds[-1][0], position + place)
            else:
                continue  # an unmatched bracket: parsing the skeleton fails
            self.in_array, cut = opening, place + (1 if opening else 0)
        if self.in_array:
            self._add_records(position, begins, ends, cut, len(chunk))
        else:
            self.skeleton += chunk[cut:]
        if len(self.skeleton) > MAX_RECORD_BYTES:
            raise InputError(f"{self.path}: more than {MAX_RECORD_BYTES} bytes outside of arrays; give annotations")

    def _add_records(self, position: int, begins: Offsets, ends: Offsets, low: int, high: int) -> None:
        first = begins[(begins >= low) & (begins < high)] + position
        last = ends[(ends > low) & (ends <= high)] + position
        self.arrays[-1].append(np.concatenate([-first - 1, last]))  # negative numbers mark begins

    def _result(self, sha256: str) -> JsonArrays:
        try:
            rest = _loaded(bytes(self.skeleton))
            pairs = json.loads(self.skeleton, object_pairs_hook=list)  # keeps duplicate keys
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)  # without the position, which differs from that in the file
            raise InputError(
                f"{self.path}: not a single JSON object ({reason}); fix the file, or export it again in COCO's format"
            ) from None
        if not isinstance(rest, dict):
            raise InputError(f"{self.path}: not a JSON object with arrays of records; give an annotation file")
        if len(pairs) > len(rest):
            raise InputError(f"{self.path}: a duplicate key at the JSON's top level; fix the file")
        names = [key for key, value in rest.items() if value == []]
        records = {key: self._spans(key, parts) for key, parts in zip(names, self.arrays, strict=True)}
        bounds = dict(zip(names, self.bounds, strict=True))
        return JsonArrays(self.path, self.file, sha256, records, bounds, rest)

    def _spans(self, name: str, parts: list[Offsets]) -> Offsets:
        marks = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        begins, ends = -marks[marks < 0] - 1, marks[marks >= 0]
        if len(begins) != len(ends):
            raise InputError(f"{self.path}: unbalanced brackets in a record; get the file again")
        sizes = ends - begins
        if sizes.size and sizes.max() > MAX_RECORD_BYTES:
            large = f"record {sizes.argmax()} of {quote(name)} has {sizes.max()} bytes, more than {MAX_RECORD_BYTES}"
            raise InputError(f"{self.path}: {large}; fix the file")
        return np.stack([begins, ends], axis=1)


def optional_id(annotation: Json, key: str) -> Id | None:
    """The id stored under a key, or None if missing; ValueError if invalid."""
    value = annotation.get(key)
    if (found := read_id(value)) is None and not is_missing(value):
        raise ValueError(f"its {key} {quote(value)} is neither an integer nor a string")
    return found


def read_id(value: object) -> Id | None:
    """Convert a JSON value to an id, a 64-bit integer or a string; None if invalid."""
    number = value if type(value) is int else as_integer(value)
    if number is None:
        return (
            value
            if isinstance(value, str) and 0 < len(value) <= MAX_NAME and not has_control_character(value)
            else None
        )
    return number if -(2**63) <= number < 2**63 else str(number)


def read_flag(value: object, *, missing: bool) -> bool | None:
    """Convert a number, boolean, or string of one to a flag; None if invalid."""
    if is_missing(value) or value == "":
        return missing
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), as_integer(value))
    return bool(value) if isinstance(value, int | float) else None


def is_missing(value: object) -> bool:
    """True for null, or NaN, which pandas writes for missing values."""
    return value is None or (isinstance(value, float) and math.isnan(value))
