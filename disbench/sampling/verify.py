"""Verify a folder of shards: files against the manifest, scenes against the recipe."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from disbench.core.errors import quote
from disbench.core.masks import areas, boxes, contained_shares, union
from disbench.core.scenes import SampledScene, ancestors, click_region
from disbench.io.settings import settings_from
from disbench.sampling.links import DECLARED
from disbench.sampling.recipes import Recipe
from disbench.sampling.sampled_scene import related
from disbench.shards.manifest import MANIFEST, ShardFile, ShardManifest, read_manifest
from disbench.shards.reader import open_shard, shard_problem
from disbench.shards.rows import ROWS_A_GROUP, Rows
from disbench.workers import LocalEngine

TOLD = 20
"""Maximum number of problems listed; further ones are only counted."""
_OWN_TREE = "hannotation"
"""The source whose tree was made from other masks and cannot be recomputed."""


@dataclass(frozen=True)
class Verification:
    """The result of verifying a folder of shards: the first 20 problems and the number of all.

    `shards` and `scenes` are counts from the manifest; `quick`: scenes were not checked.
    """

    folder: Path
    shards: int
    scenes: int
    problems: tuple[str, ...]
    count: int
    quick: bool = False

    @property
    def holds(self) -> bool:
        """True if there are no problems."""
        return not self.count

    def lines(self) -> list[str]:
        """The verification as lines of text."""
        state = ("" if self.holds else "not ") + "whole" + (" (masks and sets were not checked)" if self.quick else "")
        more = self.count - len(self.problems)
        return [
            f"{self.folder}: {self.scenes:,} scenes in {self.shards:,} shard{'s'[: self.shards != 1]}: {state}",
            *(f"  {problem}" for problem in self.problems),
            *([f"  and {more:,} more problems"] if more else []),
        ]


@dataclass(slots=True)
class _Found:
    """The first problems, the number of all, and the objects and sets of the checked scenes."""

    problems: list[str] = field(default_factory=list)
    count: int = 0
    objects: int = 0
    sets: int = 0

    def tell(self, problems: Iterable[str]) -> None:
        """Keep the first problems and count all."""
        for problem in problems:
            self.count += 1
            if len(self.problems) < TOLD:
                self.problems.append(problem)

    def add(self, other: _Found) -> None:
        """Add another shard's findings."""
        self.problems += other.problems[: TOLD - len(self.problems)]
        self.count += other.count
        self.objects += other.objects
        self.sets += other.sets


def verify_shards(folder: Path, *, quick: bool = False, workers: int = 1, progress: bool = False) -> Verification:
    """Compare every shard with the manifest and every scene with the recipe.

    Shards must match the manifest in size, SHA-256, columns and rows. In every scene, masks must decode to the image's
    size and match their area and box, and the recipe must reproduce the relations and sets. If a row group fails
    `Rows.check`, only its first problem is reported.

    Args:
        folder: has `manifest.json`.
        quick: skip the scenes.
        workers: worker processes; does not affect the result. With more than 1, a script must make this call under
            `if __name__ == "__main__":`.
        progress: show a progress bar on standard error.

    Raises:
        InputError: a missing or unreadable manifest, or a shard whose worker process was killed three times.
    """
    from tqdm import tqdm  # noqa: PLC0415

    manifest = read_manifest(folder)
    # A manifest written by hand may have only the recipe's name.
    where = f"{folder / MANIFEST}, recipe"
    recipe = settings_from(Recipe, manifest.recipe, where) if "method" in manifest.recipe else None
    found = _Found()
    with tempfile.TemporaryDirectory() as place:
        checked = LocalEngine(workers).in_order(_ShardChecks(folder, recipe, quick), manifest.files, Path(place))
        with contextlib.closing(checked):
            for one in tqdm(checked, total=len(manifest.files), unit="shard", disable=not progress):
                found.add(one)
    found.tell(list(_wrong_totals(manifest, found, folder, quick=quick)))
    return Verification(folder, len(manifest.files), manifest.rows, tuple(found.problems), found.count, quick)


@dataclass(frozen=True)
class _ShardChecks:
    """Checking shards, as work for an engine."""

    folder: Path
    recipe: Recipe | None
    quick: bool
    own_process = False

    def make_worker(self, path: Path) -> _ShardChecks:
        return self

    def run(self, file: ShardFile) -> _Found:
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

    def terminate(self) -> None:
        pass

    def describe(self, file: ShardFile) -> str:
        return f"{self.folder / file.name}"


def _wrong_totals(manifest: ShardManifest, found: _Found, folder: Path, *, quick: bool) -> Iterator[str]:
    named = {file.name for file in manifest.files}
    for path in sorted(folder.glob("shard-*.parquet")):
        if path.name not in named:
            yield f"{path.name}: not in the manifest"
    counted = [("scenes", manifest.scenes, manifest.rows)]
    if not (quick or found.count):  # otherwise not all scenes were counted
        counted += [("objects", manifest.objects, found.objects), ("sets", manifest.sets, found.sets)]
    for what, said, count in counted:
        if said not in (None, count):
            yield f"{said} {what} in the manifest, but {count} in its shards"


def _scene_problems(sampled: SampledScene, recipe: Recipe | None) -> Iterator[str]:
    """Problems of a scene: inconsistent values, or differences from what its recipe (if known) makes."""
    scene = sampled.scene
    if not scene.objects:
        yield "no objects"
    measured = zip(scene.objects, areas(scene.rles).tolist(), boxes(scene.rles).tolist(), strict=True)
    wrong = [
        f"object {number}: area {item.area} and box {list(item.box)}, but its mask has {area} pixels and the box {box}"
        for number, (item, area, box) in enumerate(measured)
        if (area, box) != (item.area, list(item.box))
    ]
    yield from wrong
    for number, chosen in enumerate(sampled.sets):
        if not areas([click_region(scene.rles, chosen)])[0]:
            yield f"set {number}: its click region is empty"
    if recipe and not wrong:
        yield from _recipe_problems(sampled, recipe)


def _recipe_problems(sampled: SampledScene, recipe: Recipe) -> Iterator[str]:
    scene = sampled.scene
    declared = scene.source.endswith(DECLARED)
    if declared:
        yield from _link_problems(sampled, recipe)
    made = related(scene, recipe, sampled.parents if declared or scene.source == _OWN_TREE else None)
    centers, wanted = ([chosen.center for chosen in one.sets] for one in (sampled, made))
    if centers != wanted:
        yield f"its sets have the centers {quote(str(centers))}, but the recipe makes {quote(str(wanted))}"
    of_center = {chosen.center: chosen for chosen in made.sets}
    compared = [
        (f"object {number}: its {name}", here, there)
        for name in ("parents", "levels", "neighbours")
        for number, (here, there) in enumerate(zip(getattr(sampled, name), getattr(made, name), strict=True))
    ] + [
        (f"set {number}: its {name}", getattr(chosen, name), getattr(of_center.get(chosen.center, chosen), name))
        for number, chosen in enumerate(sampled.sets)
        for name in ("members", "click_excludes")
    ]
    for what, here, there in compared:
        if here != there:
            yield f"{what} are {quote(str(here))}, but the recipe makes {quote(str(there))}"


def _link_problems(sampled: SampledScene, recipe: Recipe) -> Iterator[str]:
    """Check that parts lie inside their declared parents (`keep_share`) and that groups are unions of their parts."""
    objects, rles = sampled.scene.objects, sampled.scene.rles
    parts: dict[int, list[int]] = {}
    for number, parent in enumerate(sampled.parents):
        if parent is None or parent < 0:
            continue
        parts.setdefault(parent, []).append(number)
        whole = next((i for i in ancestors(sampled.parents, number) if objects[i].kind != "group"), parent)
        share = contained_shares(rles[number], [rles[whole]])[0]
        if objects[number].kind != "group" and share < recipe.keep_share:
            yield f"object {number}: only {share:.3f} of it in its parent {whole}, less than {recipe.keep_share:g}"
    for number, item in enumerate(objects):
        own = [rles[part] for part in parts.get(number, ())]
        if item.kind == "group" and (not own or union(own)["counts"] != item.rle["counts"]):
            yield f"object {number}: a group that is not the union of its parts"
