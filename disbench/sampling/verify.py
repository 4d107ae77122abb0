"""Is a folder of shards whole, and is it what its manifest says?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from disbench.parquet import has_columns, open_parquet
from disbench.sampling.shards import SCHEMA, file_sha256, is_shard, read_manifest


@dataclass(frozen=True)
class Verification:
    """What was found out about a folder of shards.

    Attributes:
        folder: of the shards.
        shards: how many the manifest names.
        scenes: how many it says that they hold.
        problems: everything that is wrong, one sentence each; none if the shards are whole.
    """

    folder: Path
    shards: int
    scenes: int
    problems: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def lines(self) -> list[str]:
        """The verification as lines of text."""
        state = "whole" if self.holds else "not whole"
        return [
            f"{self.folder}: {self.scenes:,} scenes in {self.shards:,} shard{'s'[: self.shards != 1]}: {state}",
            *(f"  {problem}" for problem in self.problems),
        ]


def verify_shards(folder: Path, *, progress: bool = False) -> Verification:
    """Hold every shard against the manifest: that it is there, its bytes, SHA-256, schema and rows.

    Args:
        folder: with `manifest.json`.
        progress: show a progress bar on standard error.

    Raises:
        InputError: no manifest, or one that cannot be read.
    """
    from tqdm import tqdm  # noqa: PLC0415

    manifest = read_manifest(folder)
    entries = manifest["files"]
    problems = []
    for entry in tqdm(entries, unit="shard", disable=not progress):
        problems += _problems(folder, entry)
    named = {str(entry["name"]) for entry in entries}
    problems += [
        f"{path.name}: a shard that the manifest does not name"
        for path in sorted(folder.glob("shard-*.parquet"))
        if path.name not in named
    ]
    scenes = sum(int(entry["rows"]) for entry in entries)
    if manifest.get("scenes", scenes) != scenes:
        problems.append(
            f"{manifest['scenes']!r} scenes in the manifest, {scenes} in the shards that it names"
        )
    return Verification(folder, len(entries), scenes, tuple(problems))


def _problems(folder: Path, entry: Mapping[str, Any]) -> list[str]:
    name, rows, size = str(entry["name"]), int(entry["rows"]), int(entry["bytes"])
    path = folder / name
    if not is_shard(folder, name):
        return [f"{repr(name)[:200]}: it is not there"]
    if path.stat().st_size != size:
        return [f"{name}: {path.stat().st_size} bytes, where the manifest says {size}"]
    if file_sha256(path) != entry.get("sha256"):
        return [f"{name}: its SHA-256 is not the manifest's"]
    try:
        file, groups = open_parquet(path, SCHEMA)
        with file:
            found, known = sum(group.rows for group in groups), has_columns(file, SCHEMA)
    except (OSError, pa.ArrowException, ValueError) as error:
        return [f"{name}: not readable as Parquet ({error})"]
    return [
        *([] if known else [f"{name}: its columns are not a shard's"]),
        *([] if found == rows else [f"{name}: {found} rows, where the manifest says {rows}"]),
    ]
