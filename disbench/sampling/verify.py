"""Is a folder of shards whole, is it what its manifest says, and are its scenes what the recipe promises?"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from disbench.io.parquet import has_columns, open_parquet, weigh
from disbench.sampling.recipes import Recipe, parse_recipe
from disbench.sampling.scene_checks import row_problems
from disbench.shards.manifest import MANIFEST, ShardFile, ShardManifest, read_manifest
from disbench.shards.reader import ROWS_A_GROUP, SCHEMA
from disbench.workers import LocalEngine

TOLD = 20
"""Problems that are listed; the others are only counted."""


@dataclass(frozen=True)
class Verification:
    """The result of verifying a folder of shards.

    Attributes:
        folder: the folder.
        shards: shards in the manifest.
        scenes: scenes in these shards, by the manifest.
        problems: the first 20, one sentence each.
        count: all problems.
        quick: whether scenes were not checked.
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
    """The first problems, the number of all, and the objects and sets of the scenes that were checked."""

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
    """Compare every shard with the manifest, and every scene with the recipe.

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
        InputError: no manifest, one that cannot be read, or a shard whose worker process was killed
            three times.
    """
    from tqdm import tqdm  # noqa: PLC0415

    manifest = read_manifest(folder)
    work = _ShardChecks(folder, _recipe_of(folder, manifest), quick)
    found = _Found()
    with tempfile.TemporaryDirectory() as place:
        checked = LocalEngine(workers).in_order(work, manifest.files, Path(place))
        with contextlib.closing(checked):
            for one in tqdm(checked, total=len(manifest.files), unit="shard", disable=not progress):
                found.add(one)
    found.tell(_unnamed_shards(manifest, folder))
    found.tell(_wrong_totals(manifest, found, quick=quick))
    return Verification(folder, len(manifest.files), manifest.rows, tuple(found.problems), found.count, quick)


def shard_problem(folder: Path, file: ShardFile) -> str | None:
    """What keeps a shard from being the one that the manifest describes; nothing is decoded."""
    if problem := file.problem(folder):
        return problem
    try:
        parquet, groups = open_parquet(folder / file.name, SCHEMA)
        with parquet:
            rows, known = sum(group.rows for group in groups), has_columns(parquet, SCHEMA)
    except (OSError, pa.ArrowException, ValueError) as error:
        return f"{file.name}: not readable as Parquet ({error})"
    if not known:
        return f"{file.name}: its columns are not a shard's"
    return None if rows == file.rows else f"{file.name}: {rows} rows, where the manifest says {file.rows}"


def _recipe_of(folder: Path, manifest: ShardManifest) -> Recipe | None:
    """The manifest's recipe; None where it tells only a name, as in manifests written by hand."""
    return parse_recipe(manifest.recipe, f"{folder / MANIFEST}, recipe") if "method" in manifest.recipe else None


@dataclass(frozen=True)
class _ShardChecks:
    """Checking shards, as work for an engine."""

    folder: Path
    recipe: Recipe | None
    quick: bool
    watched = False

    def begin(self, path: Path) -> _ShardChecks:
        return self

    def do(self, file: ShardFile) -> _Found:
        return _check_shard(self.folder, self.recipe, self.quick, file)

    def end(self) -> None:
        pass

    def describe(self, file: ShardFile) -> str:
        return f"{self.folder / file.name}"


def _check_shard(folder: Path, recipe: Recipe | None, quick: bool, file: ShardFile) -> _Found:
    found, name = _Found(), file.name
    if problem := shard_problem(folder, file):
        found.tell([problem])
    if quick or found.count:
        return found
    try:
        parquet, groups = open_parquet(folder / name, SCHEMA)
        with parquet:
            found.tell(f"{name}: {problem}" for problem in _group_problems([group.rows for group in groups]))
            for number in range(len(groups)):
                table = parquet.read_row_group(number)
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


def _unnamed_shards(manifest: ShardManifest, folder: Path) -> Iterator[str]:
    named = {file.name for file in manifest.files}
    for path in sorted(folder.glob("shard-*.parquet")):
        if path.name not in named:
            yield f"{path.name}: a shard that the manifest does not name"


def _wrong_totals(manifest: ShardManifest, found: _Found, *, quick: bool) -> Iterator[str]:
    counted = [("scenes", manifest.scenes, manifest.rows)]
    if not (quick or found.count):  # what was not looked at was not counted
        counted += [("objects", manifest.objects, found.objects), ("sets", manifest.sets, found.sets)]
    for what, said, count in counted:
        if said not in (None, count):
            yield f"{said} {what} in the manifest, {count} in the shards that it names"
