"""Is a folder of shards whole, is it what its manifest says, and are its scenes what the recipe promises?"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from disbench.core.arrays import BoolArray
from disbench.core.errors import shown
from disbench.core.masks import areas, boxes, contained_shares, union
from disbench.core.scenes import SampledScene, SetOfObjects, ancestors, click_region, set_masks
from disbench.io.settings import settings_from
from disbench.sampling.hierarchy import containment_matrix
from disbench.sampling.links import DECLARED
from disbench.sampling.recipes import Recipe
from disbench.shards.manifest import MANIFEST, ShardFile, ShardManifest, read_manifest
from disbench.shards.reader import open_shard, shard_problem
from disbench.shards.rows import ROWS_A_GROUP, Rows
from disbench.workers import LocalEngine

TOLD = 20
"""Problems that are listed; the others are only counted."""
_OWN_TREE = "hannotation"
"""The source that brings its own tree, made from masks other than these: no containment is promised."""


@dataclass(frozen=True)
class Verification:
    """The result of verifying a folder of shards: the first 20 problems, one sentence each, and the number of all.

    Shards and scenes are those of the manifest; after a `quick` verification scenes were not checked.
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
    objects, begin with the center, leave room for a click, and be what the recipe's method promises. Of a row group
    that is not of scenes at all (`Rows.check`), the first problem is told.

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
    # A manifest written by hand may tell only the recipe's name.
    where = f"{folder / MANIFEST}, recipe"
    recipe = settings_from(Recipe, manifest.recipe, where) if "method" in manifest.recipe else None
    found = _Found()
    with tempfile.TemporaryDirectory() as place:
        checked = LocalEngine(workers).in_order(_ShardChecks(folder, recipe, quick), manifest.files, Path(place))
        with contextlib.closing(checked):
            for one in tqdm(checked, total=len(manifest.files), unit="shard", disable=not progress):
                found.add(one)
    found.tell(_unnamed_shards(manifest, folder))
    found.tell(_wrong_totals(manifest, found, quick=quick))
    return Verification(folder, len(manifest.files), manifest.rows, tuple(found.problems), found.count, quick)


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
        found = _Found()
        if problem := shard_problem(self.folder, file):
            found.tell([problem])
        elif not self.quick:
            with open_shard(self.folder, file) as parquet:
                for group in range(-(-file.rows // ROWS_A_GROUP)):
                    try:
                        rows = Rows(parquet.read_row_group(group))
                        rows.check()
                        scenes = list(rows)
                    except (OSError, pa.ArrowException, ValueError) as error:
                        found.tell([f"{file.name}, row group {group}: {error}"])
                        continue
                    for sampled in scenes:
                        name = f"{file.name}, image {sampled.scene.image_id!r}"
                        found.tell(f"{name}: {problem}" for problem in _scene_problems(sampled, self.recipe))
                        found.objects += len(sampled.scene.objects)
                        found.sets += len(sampled.sets)
        return found

    def end(self) -> None:
        pass

    def describe(self, file: ShardFile) -> str:
        return f"{self.folder / file.name}"


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


def _scene_problems(sampled: SampledScene, recipe: Recipe | None) -> Iterator[str]:
    """A sentence for each thing in a scene that is not as stored, or not as its recipe (if known) promises."""
    scene, method = sampled.scene, recipe.method if recipe else None
    if not scene.objects:
        yield "it has no object"
    columns = (scene.objects, areas(scene.rles).tolist(), boxes(scene.rles).tolist(), sampled.levels)
    for number, (item, area, box, level) in enumerate(zip(*columns, strict=True)):
        if (area, box) != (item.area, list(item.box)):
            stored = f"area {item.area} and box {list(item.box)}"
            yield f"object {number}: {stored}, but its mask has {area} pixels and the box {box}"
        if recipe and (level is not None) != (method == "hierarchy" and item.kind != "stuff"):
            yield f"object {number}: level {level}, which the method {method} does not give to a {item.kind}"
    for number, row in enumerate(sampled.neighbours):
        if list(row) != sorted({*row} - {number}):
            yield f"object {number}: its neighbours {shown(row)} are not other objects in ascending order"
        yield from (
            f"object {number}: {other} is its neighbour, but it is not {other}'s"
            for other in row
            if number not in sampled.neighbours[other]
        )
    contains = _containment(sampled, recipe)
    if recipe and scene.source.endswith(DECLARED):
        yield from _link_problems(sampled, recipe)
    if method == "hierarchy" and contains is not None:
        for number, parent in enumerate(sampled.parents):
            if parent is not None and parent >= 0 and not contains[parent, number]:
                yield f"object {number}: its parent {parent} does not contain it, by the rule of the recipe"
    centers = [chosen.center for chosen in sampled.sets]
    for number, chosen in enumerate(sampled.sets):
        if chosen.center in centers[:number]:
            yield f"set {number}: object {chosen.center} is the center of a set before it"
        yield from (f"set {number}: {problem}" for problem in _set_problems(sampled, chosen, recipe, contains))


def _containment(sampled: SampledScene, recipe: Recipe | None) -> BoolArray | None:
    """Which object contains which, as `containment_matrix` says it; None where the recipe promises nothing of it."""
    given = sampled.scene.source == _OWN_TREE or sampled.scene.source.endswith(DECLARED)
    if recipe is None or not (recipe.method == "containment" or (recipe.method == "hierarchy" and not given)):
        return None
    return containment_matrix(sampled.scene.rles, recipe.box_share, recipe.mask_share)


def _link_problems(sampled: SampledScene, recipe: Recipe) -> Iterator[str]:
    """Parts lie in their declared parents by the recipe's share; a group is the union of its parts, and no center."""
    objects, rles = sampled.scene.objects, sampled.scene.rles
    parts: dict[int, list[int]] = {}
    for number, parent in enumerate(sampled.parents):
        if parent is None or parent < 0:
            continue
        parts.setdefault(parent, []).append(number)
        whole = next((i for i in ancestors(sampled.parents, number) if objects[i].kind != "group"), parent)
        share = contained_shares(rles[number], [rles[whole]])[0]
        if objects[number].kind != "group" and share < recipe.keep_share:
            yield f"object {number}: {share:.3f} of it lies in its parent {whole}, less than {recipe.keep_share:g}"
    for number, item in enumerate(objects):
        if item.kind != "group":
            continue
        if len(parts.get(number, ())) < 2 or sampled.parents[number] in (None, -1):
            yield f"object {number}: a group, but not of two parts or more of a whole"
        elif union([rles[part] for part in parts[number]])["counts"] != item.rle["counts"]:
            yield f"object {number}: a group, but not the union of its parts"
        if number in (chosen.center for chosen in sampled.sets):
            yield f"object {number}: a group is the center of a set"


def _set_problems(
    sampled: SampledScene, chosen: SetOfObjects, recipe: Recipe | None, contains: BoolArray | None
) -> Iterator[str]:
    if chosen.center not in chosen.members[0]:
        yield f"its first member does not have the center {chosen.center}"
    if chosen.click_excludes and not areas([click_region(sampled.scene.rles, chosen)])[0]:
        yield "its click region is empty"
    if recipe is None:
        return
    if chosen.members[0] != (chosen.center,):
        yield "its first member is not the center alone"
    if recipe.method == "hierarchy":
        yield from _hierarchy_problems(sampled, chosen, recipe)
        return
    if chosen.click_excludes:
        yield "its click leaves out objects, which the recipe does not"
    if contains is None:
        yield from _union_problems(sampled, chosen, recipe)
        return
    objects = sampled.scene.objects
    outer = sorted(np.flatnonzero(contains[:, chosen.center]).tolist(), key=lambda i: (objects[i].area, i))
    if chosen.members[1:] != tuple((number,) for number in outer):
        yield "its members are not the center and all that contain it, by the rule of the recipe, smallest first"


def _hierarchy_problems(sampled: SampledScene, chosen: SetOfObjects, recipe: Recipe) -> Iterator[str]:
    """The set goes from the center up to the root; with `nest` = `union` each mask holds all of the one before."""
    path = [chosen.center, *ancestors(sampled.parents, chosen.center)]
    starts = [0] * len(path) if recipe.nest == "union" else list(range(len(path)))
    if chosen.members != tuple(tuple(path[start : end + 1]) for end, start in enumerate(starts)):
        yield "its members are not the center and its parents up to the root"
    children = {number for number, parent in enumerate(sampled.parents) if parent == chosen.center}
    if set(chosen.click_excludes) != children:
        yield "its click leaves out something else than the center's children"
    if recipe.nest == "union":
        for depth, (inner, outer) in enumerate(pairwise(set_masks(sampled.scene.rles, chosen)), start=1):
            if contained_shares(inner, [outer])[0] < 1:
                yield f"mask {depth} does not contain mask {depth - 1}"


def _union_problems(sampled: SampledScene, chosen: SetOfObjects, recipe: Recipe) -> Iterator[str]:
    """Every mask is the center with others, no mask comes twice."""
    things = {number for number, item in enumerate(sampled.scene.objects) if item.kind == "thing"}
    allowed, united = things - {chosen.center}, "other things"
    if recipe.method == "proximity":
        allowed, united = allowed.intersection(sampled.neighbours[chosen.center]), "neighbours of it"
    for depth, (center, *others) in enumerate(chosen.members):
        if center != chosen.center or not allowed.issuperset(others) or len(set(others)) != len(others):
            yield f"mask {depth} is not the center with {united}"
        elif recipe.method == "random-merge" and len(others) > recipe.largest_merge:
            yield f"mask {depth} unites {len(others)} objects with the center, more than {recipe.largest_merge}"
    if chosen.center not in things:
        yield "its center is not a thing"
    if len(chosen.members) > recipe.cap:
        yield f"{len(chosen.members)} masks, more than {recipe.cap}"
    if len({rle["counts"] for rle in set_masks(sampled.scene.rles, chosen)}) < len(chosen.members):
        yield "a mask comes twice"
