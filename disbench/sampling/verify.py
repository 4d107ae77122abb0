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
from disbench.sampling.sampled_scene import relate_objects
from disbench.shards.manifest import MANIFEST, ShardFile, ShardManifest, read_manifest
from disbench.shards.reader import open_shard, shard_problem
from disbench.shards.rows import ROWS_PER_GROUP, Rows
from disbench.workers import LocalEngine

MAX_LISTED = 20  # problems; further ones are only counted
_EXTERNAL_TREE = "hannotation"  # the source whose tree was made from other masks and cannot be recomputed


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
    def ok(self) -> bool:
        """True if there are no problems."""
        return not self.count

    def lines(self) -> list[str]:
        """The verification as lines of text."""
        state = ("" if self.ok else "not ") + "whole" + (" (masks and sets were not checked)" if self.quick else "")
        more = self.count - len(self.problems)
        return [
            f"{self.folder}: {self.scenes:,} scenes in {self.shards:,} shard{'s'[: self.shards != 1]}: {state}",
            *(f"  {problem}" for problem in self.problems),
            *([f"  and {more:,} more problems"] if more else []),
        ]


@dataclass(slots=True)
class _Findings:
    """The first problems, the number of all, and the objects and sets of the checked scenes."""

    problems: list[str] = field(default_factory=list)
    count: int = 0
    objects: int = 0
    sets: int = 0

    def add_problems(self, problems: Iterable[str]) -> None:
        """Keep the first problems and count all."""
        for problem in problems:
            self.count += 1
            if len(self.problems) < MAX_LISTED:
                self.problems.append(problem)

    def add(self, other: _Findings) -> None:
        """Add another shard's findings."""
        self.problems += other.problems[: MAX_LISTED - len(self.problems)]
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
    settings_name = f"{folder / MANIFEST}, recipe"
    recipe = settings_from(Recipe, manifest.recipe, settings_name) if "method" in manifest.recipe else None
    findings = _Findings()
    with tempfile.TemporaryDirectory() as scratch:
        results = LocalEngine(workers).in_order(_ShardChecks(folder, recipe, quick), manifest.files, Path(scratch))
        with contextlib.closing(results):
            for result in tqdm(results, total=len(manifest.files), unit="shard", disable=not progress):
                findings.add(result)
    findings.add_problems(list(_total_problems(manifest, findings, folder, quick=quick)))
    return Verification(folder, len(manifest.files), manifest.rows, tuple(findings.problems), findings.count, quick)


@dataclass(frozen=True)
class _ShardChecks:
    """Checking shards, as work for an engine."""

    folder: Path
    recipe: Recipe | None
    quick: bool
    own_process = False

    def make_worker(self, path: Path) -> _ShardChecks:
        return self

    def run(self, file: ShardFile) -> _Findings:
        findings = _Findings()
        if problem := shard_problem(self.folder, file):
            findings.add_problems([problem])
        elif not self.quick:
            with open_shard(self.folder, file) as parquet:
                for group in range(-(-file.rows // ROWS_PER_GROUP)):
                    try:
                        rows = Rows(parquet.read_row_group(group))
                        rows.check()
                        scenes = list(rows)
                    except (OSError, pa.ArrowException, ValueError) as error:
                        findings.add_problems([f"{file.name}, row group {group}: {error}"])
                        continue
                    for sampled in scenes:
                        name = f"{file.name}, image {sampled.scene.image_id!r}"
                        findings.add_problems(f"{name}: {problem}" for problem in _scene_problems(sampled, self.recipe))
                        findings.objects += len(sampled.scene.objects)
                        findings.sets += len(sampled.sets)
        return findings

    def terminate(self) -> None:
        pass

    def describe(self, file: ShardFile) -> str:
        return f"{self.folder / file.name}"


def _total_problems(manifest: ShardManifest, findings: _Findings, folder: Path, *, quick: bool) -> Iterator[str]:
    named = {file.name for file in manifest.files}
    for path in sorted(folder.glob("shard-*.parquet")):
        if path.name not in named:
            yield f"{path.name}: not in the manifest"
    totals = [("scenes", manifest.scenes, manifest.rows)]
    if not (quick or findings.count):  # otherwise not all scenes were counted
        totals += [("objects", manifest.objects, findings.objects), ("sets", manifest.sets, findings.sets)]
    for name, stated, count in totals:
        if stated not in (None, count):
            yield f"{stated} {name} in the manifest, but {count} in its shards"


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
    expected = relate_objects(scene, recipe, sampled.parents if declared or scene.source == _EXTERNAL_TREE else None)
    centers, expected_centers = ([chosen.center for chosen in one.sets] for one in (sampled, expected))
    if centers != expected_centers:
        yield f"its sets have the centers {quote(str(centers))}, but the recipe makes {quote(str(expected_centers))}"
    expected_sets = {chosen.center: chosen for chosen in expected.sets}
    compared = [
        (f"object {number}: its {name}", stored, wanted)
        for name in ("parents", "levels", "neighbours")
        for number, (stored, wanted) in enumerate(zip(getattr(sampled, name), getattr(expected, name), strict=True))
    ] + [
        (f"set {number}: its {name}", getattr(chosen, name), getattr(expected_sets.get(chosen.center, chosen), name))
        for number, chosen in enumerate(sampled.sets)
        for name in ("members", "click_excludes")
    ]
    for label, stored, wanted in compared:
        if stored != wanted:
            yield f"{label} are {quote(str(stored))}, but the recipe makes {quote(str(wanted))}"


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
        parts_of_group = [rles[part] for part in parts.get(number, ())]
        if item.kind == "group" and (not parts_of_group or union(parts_of_group)["counts"] != item.rle["counts"]):
            yield f"object {number}: a group that is not the union of its parts"
