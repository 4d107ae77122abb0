"""History of the speed suite: an append-only file with one line of JSON per run, and detection of slowdowns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from paired_timing import Ratio

Record = dict[str, Any]


class Change(NamedTuple):
    """A ratio and the last one measured on the same processor with the same data.

    Attributes:
        now: ratio of this run.
        before: ratio of the earlier run, or None.
        commit: commit of the earlier run.
    """

    now: Ratio
    before: Ratio | None
    commit: str

    @property
    def slower(self) -> bool:
        """Whether the spreads do not overlap: this run's lowest ratio is above the earlier run's highest."""
        return self.before is not None and self.now.low > self.before.high


def append(path: Path, record: Record) -> None:
    """Append a record as one line."""
    with path.open("ab", buffering=0) as file:  # a single write, so that lines never interleave
        file.write(json.dumps(record, sort_keys=True).encode() + b"\n")


def read_history(path: Path) -> list[Record]:
    """The records of a file, oldest first; empty if there is no file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []


def changes(now: Record, records: list[Record]) -> dict[str, Change]:
    """Each ratio of a run with the last one of the same name, processor and data."""
    alike = [record for record in records if all(record[key] == now[key] for key in ("processor", "data"))]
    found = {}
    for name, values in now["ratios"].items():
        last = next((record for record in reversed(alike) if name in record["ratios"]), None)
        before = Ratio(**last["ratios"][name]) if last else None
        found[name] = Change(Ratio(**values), before, last["commit"] if last else "")
    return found


def rounded_ratios(ratios: Mapping[str, Ratio]) -> dict[str, dict[str, float]]:
    """Ratios as stored in a record: four significant digits."""
    return {
        name: {key: float(f"{value:.4g}") for key, value in asdict(ratio).items()} for name, ratio in ratios.items()
    }
