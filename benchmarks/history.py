"""The history of the speed suite: one line of JSON a run, never rewritten; and what became slower since."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from paired_timing import Ratio

Record = dict[str, Any]


class Change(NamedTuple):
    """A ratio beside the last one that was measured on the same processor with the same data.

    Attributes:
        now: of this run.
        before: of that one; None where there is none.
        commit: that it was measured at.
    """

    now: Ratio
    before: Ratio | None
    commit: str

    @property
    def slower(self) -> bool:
        """Beyond both spreads: this run's lowest is above that run's highest."""
        return self.before is not None and self.now.low > self.before.high


def appended(path: Path, record: Record) -> None:
    """Add a record as one line: whole or not at all, whoever else adds one meanwhile.

    A last line that was cut off (a full disk, a kill) is ended first, so that it spoils no other.
    """
    line = json.dumps(record, sort_keys=True).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(f"{path}: the disk is full; the record was not kept")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_history(path: Path) -> tuple[list[Record], list[str]]:
    """The records of a file, oldest first, and a sentence for each line that is none."""
    records, complaints = [], []
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = json.loads(line)
            _ = record["processor"], record["data"], record["commit"]
            for values in record["ratios"].values():
                Ratio(**values)
        except (ValueError, KeyError, TypeError, AttributeError):
            complaints.append(f"{path}: line {number} is no record of this suite, and is left out; delete it")
        else:
            records.append(record)
    return records, complaints


def changes(now: Record, records: list[Record]) -> dict[str, Change]:
    """Each ratio of a run beside the last one of the same name, processor and data."""
    alike = [record for record in records if all(record[key] == now[key] for key in ("processor", "data"))]
    found = {}
    for name, values in now["ratios"].items():
        last = next((record for record in reversed(alike) if name in record["ratios"]), None)
        before = Ratio(**last["ratios"][name]) if last else None
        found[name] = Change(Ratio(**values), before, last["commit"] if last else "")
    return found


def as_ratios(ratios: Mapping[str, Ratio]) -> dict[str, dict[str, float]]:
    """Ratios as a record holds them: four digits."""
    return {
        name: {key: float(f"{value:.4g}") for key, value in asdict(ratio).items()} for name, ratio in ratios.items()
    }


def _lines(path: Path) -> Iterator[bytes]:
    if path.is_file():
        yield from (line for line in path.read_bytes().split(b"\n") if line.strip())
