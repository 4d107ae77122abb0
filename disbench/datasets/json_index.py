"""Large JSON files of annotations, read record by record.

LVIS's training file is 1 GB of JSON; parsed whole it takes more than 5 GB of memory. Here one pass over the bytes
notes where each record of the top-level arrays begins and ends, and records are parsed when they are needed. The pass
looks at quotes and brackets only; each record, and everything around the arrays, is parsed by orjson. The alternative,
msgspec's raw slices over a memory map, opens a file in half the time but keeps all of it resident (223 MiB for 207 MB,
here 24 MiB), and refuses the NaN that Python writes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from disbench.core.arrays import BoolArray, ByteArray, IntArray
from disbench.core.errors import InputError, shown
from disbench.core.limits import MAX_ARRAYS, MAX_RECORD_BYTES
from disbench.io.archives import open_unpacked

Offsets = IntArray
_CHUNK = 4 * 2**20
_BLOCK = 2**18
"""Bytes of records that are parsed together; they take up to 60 times as much."""
_SPACE = b" \t\r\n"
"""Whitespace of JSON."""

_STEP = np.zeros(256, dtype=np.int8)
_STEP[[ord("{"), ord("[")]] = 1
_STEP[[ord("}"), ord("]")]] = -1
_STRUCTURAL = _STEP != 0
_STRUCTURAL[ord('"')] = True


@dataclass(frozen=True, slots=True)
class JsonArrays:
    """The positions of the records of a JSON file.

    Attributes:
        file: the bytes that the positions are in.
        records: for each top-level array the first byte and the byte after the last of every record: int64 (n, 2).
        bounds: for each array the first byte inside its brackets and the byte of the closing bracket.
        rest: the top-level object with empty lists in place of the arrays.
    """

    path: Path
    file: RecordFile
    sha256: str
    records: dict[str, Offsets]
    bounds: dict[str, tuple[int, int]]
    rest: dict[str, Any]

    def iterate(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of an array in order, parsed one at a time from a sequential read.

        Raises:
            InputError: a record is not valid JSON, or the array contains anything but objects.
        """
        spans = self.records[name]
        position, stop = self.bounds[name]
        first = 0
        while first < len(spans):
            block = _block(spans, first, position)
            data = self.file.read(position, int(block[-1, 1]))
            places = (block - position).tolist()
            begin = places[0][0]
            self._check_gap(data[:begin], name, first)
            yield from _parsed(data[begin:], len(block)) or self._one_by_one(data, places, name, first)
            position = int(block[-1, 1])
            first += len(block)
        if tail := self.file.read(position, stop).strip(_SPACE):
            raise self._misplaced(tail, name, len(spans))

    def _one_by_one(self, data: bytes, places: list[list[int]], name: str, first: int) -> Iterator[dict[str, Any]]:
        """The records of a block of which one is not valid JSON, or something else is between them."""
        previous = places[0][0]
        for number, (begin, end) in enumerate(places, first):
            if number > first:
                self._check_gap(data[previous:begin], name, number)
            previous = end
            yield parse_record(self.path, data[begin:end], name, number)

    def _check_gap(self, gap: bytes, name: str, number: int) -> None:
        if gap.strip(_SPACE) != (b"," if number else b""):
            raise self._misplaced(gap, name, number)

    def _misplaced(self, found: bytes, name: str, number: int) -> InputError:
        text = found[:40].decode("utf-8", "replace")
        return InputError(
            f"{self.path}: {text!r} before record {number} of {shown(name)}, an array of objects; fix the file"
        )


def _block(spans: Offsets, first: int, position: int) -> Offsets:
    """The next records that are read at once: of `_BLOCK` bytes together, but at least one."""
    block = spans[first : first + 4096]
    return block[: max(1, int(np.searchsorted(block[:, 1], position + _BLOCK)))]


def _parsed(data: bytes, count: int) -> list[dict[str, Any]] | None:
    """Records with commas between them; None if they are not `count` objects in valid JSON."""
    try:
        records = orjson.loads(b"[" + data + b"]")
    except ValueError:
        return None
    return records if len(records) == count and set(map(type, records)) == {dict} else None


def parse_records(path: Path, pieces: Sequence[bytes], name: str, first: int) -> list[dict[str, Any]]:
    """Some records of an array from the bytes of each, as `parse_record`; `first` is the number of the first."""
    return _parsed(b",".join(pieces), len(pieces)) or [
        parse_record(path, piece, name, number) for number, piece in enumerate(pieces, first)
    ]


def parse_record(path: Path, data: bytes, name: str, number: int) -> dict[str, Any]:
    """A record from its bytes; NaN, which JSON does not allow, is accepted, so that the caller can name its place.

    `path`, `name` of the array and `number` of the record in it are for the `InputError` where it is not valid JSON.
    """
    try:
        record: dict[str, Any] = _loaded(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: record {number} of {shown(name)} is not valid JSON ({error}); fix the file"
        ) from None
    return record


def read_json_file(path: Path) -> dict[str, Any]:
    """The object of a JSON file with the annotations of one image, plain or compressed.

    Raises:
        InputError: missing, damaged, more than `MAX_RECORD_BYTES`, or not an object of JSON.
    """
    with open_unpacked(path) as file:
        data = file.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise InputError(f"{path}: more than {MAX_RECORD_BYTES} bytes for one image; leave it out")
    try:
        found = _loaded(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged or cut off, not JSON ({error}); get it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: {shown(found)} where an object of JSON should be; get it again")
    return found


def _loaded(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        found = json.loads(data)  # slower, but accepts NaN
        json.dumps(found, ensure_ascii=False).encode()  # refuses half a surrogate pair
        return found


def index_json(path: Path) -> JsonArrays:
    """Find the records of all top-level arrays of a JSON file.

    Memory: 16 bytes per record (three times that while it runs), and at most 32 chunks of 4 MiB.

    Raises:
        InputError: the file is missing, empty, truncated or not a JSON object, or it exceeds a bound of
            `disbench.core.limits`: too many arrays, too large a record.
    """
    return _Scan(path, RecordFile(path)).run()


class _Scan:
    """One pass over the bytes: nesting depth, and the brackets of arrays and records.

    Depth 1 is inside the top-level object, 2 inside a top-level array, 3 inside a record.
    """

    def __init__(self, path: Path, file: RecordFile) -> None:
        self.path, self.file = path, file
        self.depth = 0
        self.in_string = False
        self.skeleton: list[bytes] = []  # the bytes outside the top-level arrays
        self.skeleton_size = 0
        self.in_array = False
        self.arrays: list[list[Offsets]] = []
        self.bounds: list[tuple[int, int]] = []

    def run(self) -> JsonArrays:
        digest = hashlib.sha256()
        position = 0
        while chunk := self._next_chunk(position):
            if position == 0 and chunk.lstrip(_SPACE).startswith(b"["):
                raise InputError(
                    f"{self.path}: a list, such as COCO's results or Label Studio's tasks, not an object with images, "
                    "annotations and categories; export the dataset in COCO's format, or join results with the file "
                    "that has their images"
                )
            digest.update(chunk)
            self._scan_chunk(chunk, position)
            position += len(chunk)
        if position == 0:
            raise InputError(f"{self.path}: the file is empty; get it again")
        if self.depth or self.in_string:
            raise InputError(
                f"{self.path}: the file is truncated: it ends after {position} bytes inside a "
                f"{'string' if self.in_string else 'record'}; get it again"
            )
        return self._result(digest.hexdigest())

    def _next_chunk(self, position: int) -> bytes:
        """A chunk that does not end in a backslash, which would split an escape."""
        chunk = self.file.read(position, position + _CHUNK)
        while chunk.endswith(b"\\") and (more := self.file.read(position + len(chunk), position + len(chunk) + _CHUNK)):
            chunk += more
            if len(chunk) > MAX_RECORD_BYTES + _CHUNK:
                raise InputError(f"{self.path}: a text with more than {MAX_RECORD_BYTES} backslashes; fix the file")
        return chunk

    def _scan_chunk(self, chunk: bytes, position: int) -> None:
        data = np.frombuffer(chunk, dtype=np.uint8)
        places = np.flatnonzero(_STRUCTURAL[data])
        kinds = data[places]
        quotes = kinds == ord('"')
        if b"\\" in chunk:
            real = ~quotes | ~_escaped(data)[places]
            places, kinds, quotes = places[real], kinds[real], quotes[real]
        inside = (np.cumsum(quotes) + self.in_string) % 2 == 1
        brackets = ~quotes & ~inside
        places, kinds = places[brackets], kinds[brackets]
        steps = _STEP[kinds]
        depths = np.cumsum(steps, dtype=np.int64) + self.depth
        if depths.size and depths.min() < 0:
            raise InputError(f"{self.path}: not JSON: more brackets close than open; get the file again")
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
        """Note the arrays that open or close at the top level, and the records in between."""
        cut = 0
        for place, opening in turns:
            if opening:
                self._keep(chunk[cut : place + 1])
                if len(self.arrays) == MAX_ARRAYS:
                    raise InputError(
                        f"{self.path}: more than {MAX_ARRAYS} arrays at the top level; name an annotation file, one "
                        "object of JSON (not one a line)"
                    )
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
            self._keep(chunk[cut:])

    def _keep(self, data: bytes) -> None:
        """Add bytes to the skeleton, which is parsed at the end."""
        self.skeleton.append(data)
        self.skeleton_size += len(data)
        if self.skeleton_size > MAX_RECORD_BYTES:
            raise InputError(
                f"{self.path}: more than {MAX_RECORD_BYTES} bytes outside of arrays of records; name an annotation file"
            )

    def _add_records(self, position: int, begins: Offsets, ends: Offsets, low: int, high: int) -> None:
        """Note the records between two positions of the chunk."""
        first = begins[(begins >= low) & (begins < high)] + position
        last = ends[(ends > low) & (ends <= high)] + position
        self.arrays[-1].append(np.concatenate([-first - 1, last]))  # begins are marked by their sign

    def _result(self, sha256: str) -> JsonArrays:
        skeleton = b"".join(self.skeleton)
        try:
            rest = _loaded(skeleton)
            pairs = json.loads(skeleton, object_pairs_hook=list)  # keeps duplicate keys
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)  # without the place, which is not that in the file
            raise InputError(
                f"{self.path}: not one object of JSON ({reason}); fix the file, or export it again in COCO's "
                "format, not as JSON Lines"
            ) from None
        if not isinstance(rest, dict):
            raise InputError(f"{self.path}: not a JSON object with arrays of records; name an annotation file")
        if len(pairs) > len(rest):
            raise InputError(f"{self.path}: a duplicate key at the JSON's top level; fix the file")
        emptied = [key for key, value in rest.items() if value == []]
        records = {key: self._spans(key, parts) for key, parts in zip(emptied, self.arrays, strict=True)}
        bounds = dict(zip(emptied, self.bounds, strict=True))
        return JsonArrays(self.path, self.file, sha256, records, bounds, rest)

    def _spans(self, name: str, parts: list[Offsets]) -> Offsets:
        marks = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        begins, ends = -marks[marks < 0] - 1, marks[marks >= 0]
        if len(begins) != len(ends):
            raise InputError(f"{self.path}: brackets of a record do not match; get the file again")
        sizes = ends - begins
        if sizes.size and sizes.max() > MAX_RECORD_BYTES:
            raise InputError(
                f"{self.path}: record {sizes.argmax()} of {shown(name)} has {sizes.max()} bytes, more than "
                f"{MAX_RECORD_BYTES}; fix the file"
            )
        return np.stack([begins, ends], axis=1)


def _escaped(data: ByteArray) -> BoolArray:
    """Which bytes follow an odd run of backslashes."""
    slash = np.flatnonzero(data == ord("\\"))
    first = np.concatenate([[True], np.diff(slash) > 1])
    run = np.cumsum(first) - 1
    length = np.bincount(run)
    after = slash[np.flatnonzero(first)] + length
    escaped = np.zeros(data.size + 1, dtype=bool)
    escaped[after[length % 2 == 1]] = True
    return escaped[: data.size]


class RecordFile:
    """Random access to the bytes of a file, unpacked and in UTF-8, which every process opens when it first reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from one position to another, or to the file's end."""
        if self._file is None:
            self._file = open_unpacked(self.path)
        return os.pread(self._file.fileno(), end - begin, begin)

    def __getstate__(self) -> dict[str, Any]:
        """The path only; descriptors belong to one process."""
        return {"path": self.path, "_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()  # type: ignore[union-attr]
