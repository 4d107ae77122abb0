"""Is a folder of shards whole, is it what its manifest says, and are its scenes what the recipe promises?"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from disbench.core.errors import InputError
from disbench.io.files import file_sha256
from disbench.io.parquet import has_columns, open_parquet, weigh
from disbench.sampling.recipes import Recipe, parse_recipe
from disbench.sampling.scene_checks import row_problems
from disbench.shards.reader import MANIFEST, ROWS_A_GROUP, SCHEMA, is_shard, read_manifest
from disbench.workers.processes import die_with_parent, interrupts_held_back

TOLD = 20
"""Problems that are told; the others are counted."""


@dataclass(frozen=True)
class Verification:
    """What was found out about a folder of shards.

    Attributes:
        folder: of the shards.
        shards: how many the manifest names.
        scenes: how many it says that they hold.
        problems: what is wrong, one sentence each, the first 20; none if nothing is.
        count: of all problems.
        quick: whether the scenes were left alone.
    """

    folder: Path
    shards: int
    scenes: int
    problems: tuple[str, ...]
    count: int
    quick: bool = False

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.count

    def lines(self) -> list[str]:
        """The verification as lines of text."""
        state = "whole" if self.holds else "not whole"
        alone = " (masks and sets were not looked at)" if self.quick else ""
        more = self.count - len(self.problems)
        return [
            f"{self.folder}: {self.scenes:,} scenes in {self.shards:,} shard{'s'[: self.shards != 1]}: {state}{alone}",
            *(f"  {problem}" for problem in self.problems),
            *([f"  and {more:,} more problems"] if more else []),
        ]


@dataclass(slots=True)
class _Found:
    """Problems, and what was counted on the way.

    Attributes:
        problems: the first ones.
        count: of all problems.
        objects: in the scenes that were looked at.
        sets: likewise.
    """

    problems: list[str] = field(default_factory=list)
    count: int = 0
    objects: int = 0
    sets: int = 0

    def tell(self, problems: Iterable[str]) -> None:
        """Keep the first problems, and count all."""
        for problem in problems:
            self.count += 1
            if len(self.problems) < TOLD:
                self.problems.append(problem)

    def add(self, other: _Found) -> None:
        """Add what was found elsewhere."""
        self.problems += other.problems[: TOLD - len(self.problems)]
        self.count += other.count
        self.objects += other.objects
        self.sets += other.sets


def verify_shards(folder: Path, *, quick: bool = False, workers: int = 1, progress: bool = False) -> Verification:
    """Hold every shard against the manifest, and every scene against the recipe.

    A shard's bytes, SHA-256, columns and rows must be the manifest's. In every scene, masks must decode to the
    image's size and to their area and box; parents, levels and neighbours must fit together; sets must name
    objects, begin with the center, leave room for a click, and be what the recipe's method promises.

    Args:
        folder: with `manifest.json`.
        quick: leave the scenes alone.
        workers: processes that look at shards; does not change what is found. With more than 1, a script must make
            this call under `if __name__ == "__main__":`.
        progress: show a progress bar on standard error.

    Raises:
        InputError: no manifest, one that cannot be read, or a worker process that was killed.
    """
    from tqdm import tqdm  # noqa: PLC0415

    manifest = read_manifest(folder)
    entries = manifest["files"]
    check = partial(_check_shard, folder, _recipe_of(folder, manifest), quick)
    found = _Found()
    for one in tqdm(_in_order(check, entries, workers), total=len(entries), unit="shard", disable=not progress):
        found.add(one)
    found.tell(_unnamed_shards(folder, entries))
    found.tell(_wrong_totals(manifest, found, quick=quick))
    scenes = sum(int(entry["rows"]) for entry in entries)
    return Verification(folder, len(entries), scenes, tuple(found.problems), found.count, quick)


def shard_problems(folder: Path, entry: Mapping[str, Any]) -> list[str]:
    """What keeps a shard from being the one that the manifest's entry describes; nothing is decoded."""
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


def _recipe_of(folder: Path, manifest: Mapping[str, Any]) -> Recipe | None:
    """The recipe that the manifest tells; None where it tells only a name, as of shards made by hand."""
    content = manifest.get("recipe")
    if not isinstance(content, Mapping) or "method" not in content:
        return None
    return parse_recipe(content, f"{folder / MANIFEST}, recipe")


def _in_order(check: partial[_Found], entries: Sequence[Mapping[str, Any]], workers: int) -> Iterator[_Found]:
    """What is found in each shard, in the order of the manifest."""
    if workers <= 1 or len(entries) <= 1:
        yield from map(check, entries)
        return
    count = min(workers, len(entries))
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), die_with_parent)
    try:
        with interrupts_held_back():  # the processes start here
            waiting = [pool.submit(check, entry) for entry in entries]
        for future in waiting:
            yield future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process ended before its work (killed, or out of memory?); run the same command again with fewer "
            "workers; a script must call this under `if __name__ == '__main__':`"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _check_shard(folder: Path, recipe: Recipe | None, quick: bool, entry: Mapping[str, Any]) -> _Found:
    found = _Found()
    found.tell(shard_problems(folder, entry))
    if quick or found.count:
        return found
    name = entry["name"]
    try:
        file, groups = open_parquet(folder / name, SCHEMA)
        with file:
            found.tell(f"{name}: {problem}" for problem in _group_problems([group.rows for group in groups]))
            for number in range(len(groups)):
                table = file.read_row_group(number)
                weigh(table)
                for row in table.to_pylist():
                    problems = row_problems(row, recipe)
                    found.tell(f"{name}, image {row['image_id']!r}: {problem}" for problem in problems)
                    found.objects += len(row["objects"])
                    found.sets += len(row["sets"])
    except (OSError, pa.ArrowException, ValueError) as error:
        found.tell([f"{name}: damaged ({error})"])
    return found


def _group_problems(lengths: Sequence[int]) -> Iterator[str]:
    """Row groups of another length than readers count on."""
    left = sum(lengths)
    for group, rows in enumerate(lengths):
        if rows != min(left, ROWS_A_GROUP):
            yield f"row group {group} has {rows} rows, not {min(left, ROWS_A_GROUP)}"
            return
        left -= rows


def _unnamed_shards(folder: Path, entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    named = {str(entry["name"]) for entry in entries}
    for path in sorted(folder.glob("shard-*.parquet")):
        if path.name not in named:
            yield f"{path.name}: a shard that the manifest does not name"


def _wrong_totals(manifest: Mapping[str, Any], found: _Found, *, quick: bool) -> Iterator[str]:
    scenes = sum(int(entry["rows"]) for entry in manifest["files"])
    if manifest.get("scenes", scenes) != scenes:
        yield f"{manifest['scenes']!r} scenes in the manifest, {scenes} in the shards that it names"
    if quick or found.count:  # what was not looked at was not counted
        return
    for what, count in (("objects", found.objects), ("sets", found.sets)):
        if manifest.get(what, count) != count:
            yield f"{manifest[what]!r} {what} in the manifest, {count} in the shards that it names"
