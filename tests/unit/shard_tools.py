"""Folders of shards made by hand, without the sampler: random scenes, and a writer of one shard."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.masks import Rle, areas, boxes, encode
from disbench.core.scenes import Kind, SampledScene, Scene, SceneObject, SetOfObjects
from disbench.io.files import file_sha256
from disbench.sampling.diverse_sets import containment_sets, hierarchy_sets
from disbench.sampling.hierarchy import build_forest, containment_matrix
from disbench.shards.manifest import MANIFEST, SCHEMA_VERSION
from disbench.shards.rows import ROWS_PER_GROUP, SCHEMA, to_batch

SHARD = "shard-00000.parquet"


@dataclass
class Scenes:
    """Scenes in memory; the empty ones are images without a mask."""

    scenes: Sequence[Scene]
    dropped: Counter[str] = field(default_factory=lambda: Counter({"of no image": 7}))
    fails_at: int = -1

    name = "lvis"

    def __len__(self) -> int:
        return len(self.scenes)

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        for index in indices:
            if index == self.fails_at:
                raise OSError("gone")
            yield self.scenes[index]

    def fingerprint(self) -> dict[str, str]:
        return {"lvis:made.json": "0" * 64}


def size_and_hash(path: Path) -> dict[str, Any]:
    """What a manifest says of a shard's bytes."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Write a folder's manifest anew, changed."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rewrite_shard(folder: Path, rows: list[dict[str, Any]], name: str = SHARD, group: int = ROWS_PER_GROUP) -> None:
    """A shard with other rows, and a manifest that fits it."""
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / name, row_group_size=group)

    def change(manifest: dict[str, Any]) -> None:
        (entry,) = (one for one in manifest["files"] if one["name"] == name)
        entry.update(size_and_hash(folder / name), rows=len(rows))

    change_manifest(folder, change)


def write_shards(folder: Path, scenes: Sequence[SampledScene]) -> Path:
    """One shard with these scenes and the manifest that makes the folder a finished one."""
    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(folder / SHARD, SCHEMA) as writer:
        for first in range(0, len(scenes), ROWS_PER_GROUP):
            writer.write_batch(to_batch(scenes[first : first + ROWS_PER_GROUP]))
    entry = {"name": SHARD, "rows": len(scenes), **size_and_hash(folder / SHARD)}
    manifest = {"schema": SCHEMA_VERSION, "files": [entry], "recipe": {"name": "by-hand"}}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def scene_object(mask: npt.NDArray[np.bool_], kind: Kind = "thing", category: str = "object") -> SceneObject:
    """An object of a boolean (height, width) mask."""
    rle = encode(mask)
    x, y, width, height = boxes([rle])[0].tolist()
    return SceneObject(
        rle=rle,
        area=int(areas([rle])[0]),
        box=(x, y, width, height),
        category=category,
        synset=None if kind == "stuff" else f"{category}.n.01",
        source="by-hand",
        kind=kind,
    )


def random_rectangles(rng: np.random.Generator, count: int, height: int, width: int) -> list[npt.NDArray[np.bool_]]:
    """Non-empty rectangles that overlap each other and hold each other."""
    masks = []
    for _ in range(count):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        mask = np.zeros((height, width), dtype=bool)
        mask[top : top + int(rng.integers(1, height + 1)), left : left + int(rng.integers(1, width + 1))] = True
        masks.append(mask)
    return masks


def random_scene(
    rng: np.random.Generator,
    image_id: str,
    *,
    things: int = 8,
    stuff: int = 2,
    size: tuple[int, int] = (24, 31),
    tree: bool = True,
) -> SampledScene:
    """A scene of random rectangles: things (the last of several is a crowd), then stuff.

    Args:
        rng: decides the masks.
        image_id: of the scene.
        things: how many instances.
        stuff: how many stuff regions.
        size: (height, width).
        tree: with a hierarchy and its sets, or with containment sets and no hierarchy.
    """
    kinds: list[Kind] = ["thing"] * things + ["stuff"] * stuff
    if things > 2:
        kinds[things - 1] = "crowd"
    masks = random_rectangles(rng, things + stuff, *size)
    names = [f"kind-{int(rng.integers(4))}" if kind != "stuff" else "sky-other" for kind in kinds]
    objects = tuple(map(scene_object, masks, kinds, names))
    scene = Scene(image_id, f"train2017/{image_id}.jpg", *size, source="by-hand", objects=objects)
    return with_hierarchy(scene, things) if tree else without_hierarchy(scene)


def with_hierarchy(scene: Scene, things: int) -> SampledScene:
    """The scene with the hierarchy of its first objects and its sets."""
    rles = scene.rles[:things]
    forest = build_forest(containment_matrix(rles), areas(rles))
    padding = (None,) * (len(scene.objects) - things)
    return SampledScene(
        scene=scene,
        parents=forest.parents + padding,
        levels=forest.levels + padding,
        neighbours=((),) * len(scene.objects),
        sets=tuple(hierarchy_sets(rles, forest)),
    )


def without_hierarchy(scene: Scene, sets: Sequence[SetOfObjects] | None = None) -> SampledScene:
    """The scene without a hierarchy, with these sets or those of the containment method."""
    rles: list[Rle] = scene.rles
    nothing = (None,) * len(rles)
    chosen = containment_sets(containment_matrix(rles), areas(rles)) if sets is None else sets
    return SampledScene(scene, nothing, nothing, ((),) * len(rles), tuple(chosen))
