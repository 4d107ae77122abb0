"""Shards: scenes with their diverse sets as Parquet, one row a scene (docs/datasets.md, "Shards").

`objects` is a list of structs, `sets` another that names objects by number, so that no mask is stored
twice. A folder of shards is complete when it has its `manifest.json`, which is written last.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.arrays import IntArray
from disbench.core.diverse_sets import SampledScene, SetOfObjects, click_region, set_masks
from disbench.core.errors import InputError
from disbench.core.limits import MAX_PIXELS
from disbench.core.masks import Rle
from disbench.core.scenes import Scene, SceneObject
from disbench.io.files import file_sha256
from disbench.io.parquet import complaining, has_columns, open_parquet, weigh, written_out
from disbench.io.parquet_footer import RowGroup
from disbench.shards.checks import check_scenes
from disbench.shards.manifest import SCHEMA_VERSION, read_manifest

ROWS_A_GROUP = 32
"""Scenes a Parquet row group: what a reader decodes to get at one scene."""

_MOST_LEFT_OUT = 2**1023
"""Combinations that are counted at most: a float holds no more."""

_OBJECT = pa.struct(
    [
        pa.field("id", pa.int32(), nullable=False),
        pa.field("annotation_id", pa.int64()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("synset", pa.string()),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("box", pa.list_(pa.int32(), 4), nullable=False),
        pa.field("rle", pa.binary(), nullable=False),
        pa.field("parent", pa.int32()),
        pa.field("level", pa.int32()),
        pa.field("neighbours", pa.list_(pa.int32()), nullable=False),
    ]
)
_SET = pa.struct(
    [
        pa.field("center", pa.int32(), nullable=False),
        pa.field("members", pa.list_(pa.list_(pa.int32())), nullable=False),
        pa.field("click_excludes", pa.list_(pa.int32()), nullable=False),
        pa.field("left_out", pa.float64(), nullable=False),
        pa.field("repeated", pa.float64(), nullable=False),
    ]
)
_DROPPED = pa.struct([pa.field("reason", pa.string(), nullable=False), pa.field("count", pa.int32(), nullable=False)])
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("objects", pa.list_(_OBJECT), nullable=False),
        pa.field("sets", pa.list_(_SET), nullable=False),
        pa.field("dropped", pa.list_(_DROPPED), nullable=False),
    ],
    metadata={"disbench.schema": SCHEMA_VERSION},
)
"""Columns of a shard. `rle` holds the counts of a COCO compressed RLE of (height, width); a member of a set
is the union of the objects that it lists; `left_out` and `repeated` are counts that can exceed 2**53."""


def to_batch(scenes: Sequence[SampledScene]) -> pa.RecordBatch:
    """Rows of a shard.

    Raises:
        InputError: an image of more than `MAX_PIXELS` pixels.
    """
    for scene in (sampled.scene for sampled in scenes):
        if scene.height * scene.width > MAX_PIXELS:
            raise InputError(
                f"image {scene.image_id}: {scene.width} x {scene.height} pixels; shards have images of at most "
                f"{MAX_PIXELS:,}, so leave it out"
            )
    objects = [item for sampled in scenes for item in sampled.scene.objects]
    sets = [item for sampled in scenes for item in sampled.sets]
    parents = [parent for sampled in scenes for parent in sampled.parents]
    columns: dict[str, Sequence[Any]] = {
        "id": [i for sampled in scenes for i in range(len(sampled.scene.objects))],
        "annotation_id": [item.annotation_id for item in objects],
        "source": [item.source for item in objects],
        "kind": [item.kind for item in objects],
        "category": [item.category for item in objects],
        "synset": [item.synset for item in objects],
        "area": [item.area for item in objects],
        "box": [item.box for item in objects],
        "rle": [item.rle["counts"] for item in objects],
        "parent": [None if parent is None or parent < 0 else parent for parent in parents],
        "level": [level for sampled in scenes for level in sampled.levels],
        "neighbours": [row for sampled in scenes for row in sampled.neighbours],
    }
    set_columns: dict[str, Sequence[Any]] = {
        "center": [item.center for item in sets],
        "members": [item.members for item in sets],
        "click_excludes": [item.click_excludes for item in sets],
        "left_out": [float(min(item.left_out, _MOST_LEFT_OUT)) for item in sets],
        "repeated": [float(min(item.repeated, _MOST_LEFT_OUT)) for item in sets],
    }
    rows = [sampled.scene for sampled in scenes]
    arrays = [
        pa.array([row.image_id for row in rows], pa.string()),
        pa.array([row.file_name for row in rows], pa.string()),
        pa.array([row.height for row in rows], pa.int32()),
        pa.array([row.width for row in rows], pa.int32()),
        pa.array([row.source for row in rows], pa.string()),
        _lists(_OBJECT, columns, [len(row.objects) for row in rows]),
        _lists(_SET, set_columns, [len(sampled.sets) for sampled in scenes]),
        pa.array(
            [[{"reason": r, "count": n} for r, n in sorted(row.dropped.items())] for row in rows], pa.list_(_DROPPED)
        ),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def row_bytes(sampled: SampledScene) -> int:
    """A scene's size in a shard before compression, within a few per cent; decides where shards end."""
    masks = sum(len(item.rle["counts"]) for item in sampled.scene.objects)
    members = sum(sum(map(len, item.members)) for item in sampled.sets)
    return 128 + masks + 112 * len(sampled.scene.objects) + 48 * len(sampled.sets) + 8 * members


@dataclass(frozen=True, slots=True)
class DiverseSet:
    """The masks that a first click on one object may mean.

    Attributes:
        image_id: the dataset's name for the image.
        center: number of the center object in its scene.
        masks: the set, inner to outer, as RLE of the image's size.
        click_region: the pixels from which the first click is drawn.
        file_name: of the image, relative to the folder of images.
        category: the center's category.
    """

    image_id: str
    center: int
    masks: tuple[Rle, ...]
    click_region: Rle
    file_name: str
    category: str


def diverse_set(scene: Scene, chosen: SetOfObjects) -> DiverseSet:
    """A set with its masks in hand."""
    rles = scene.rles
    return DiverseSet(
        image_id=scene.image_id,
        center=chosen.center,
        masks=tuple(set_masks(rles, chosen)),
        click_region=click_region(rles, chosen),
        file_name=scene.file_name,
        category=scene.objects[chosen.center].category,
    )


class ShardReader:
    """A finished folder of shards, read by scene number; a few decoded row groups are kept in memory.

    Args:
        folder: with `manifest.json` and the shards that it names.
        cached_groups: row groups kept, at least 1.

    Raises:
        InputError: no manifest, a shard that is missing or of another size, a newer schema. Reading raises it too: a
            shard that is damaged or has other columns or rows, a scene that does not hold together.

    A shard's hash is compared with the manifest's, and each row group looked at, once: whoever wrote it, every mask
    decodes and every number names an object. Areas and boxes are believed (`disbench verify` measures them). One row
    group is decoded at a time; `disbench.core.limits` bounds its values and the bytes of its texts and masks.
    """

    def __init__(self, folder: str | Path, cached_groups: int = 4) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        for file in self.manifest.files:
            if problem := file.problem(self.folder, hashed=False):
                raise InputError(f"{self.folder}: {problem}; sample again")
        self._files = [self.folder / file.name for file in self.manifest.files]
        self._starts = np.cumsum([0, *(file.rows for file in self.manifest.files)])
        self._cached_groups = cached_groups
        self._cache: OrderedDict[tuple[int, int], _RowGroup] = OrderedDict()
        self._open: dict[int, pq.ParquetFile] = {}
        self._groups: dict[int, list[RowGroup]] = {}
        self._unchanged: set[int] = set()
        self._sound: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        """How many scenes there are."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> SampledScene:
        """The scene of this number."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[shard])
        return self._scene_at(shard, row)

    def __iter__(self) -> Iterator[SampledScene]:
        """All scenes in order; no more than a row group is decoded at a time."""
        for shard in range(len(self._files)):
            for group in range(self._count_groups(shard)):
                yield from self._scenes(shard, self._checked(shard, group))

    def sets_a_scene(self) -> IntArray:
        """How many sets each scene has: int64 (number of scenes,); masks are not read for it."""
        counts = [np.zeros(0, dtype=np.int64)]
        for shard in range(len(self._files)):
            for group in range(self._count_groups(shard)):
                sets = self._read(shard, group, ["sets.list.element.center"]).column(0).combine_chunks()
                counts.append(np.asarray(sets.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64))
        return np.concatenate(counts)

    def centers_and_sizes(self) -> list[list[tuple[int, int]]]:
        """For each scene, of each of its sets the center and how many masks it has; masks are not read for it."""
        found: list[list[tuple[int, int]]] = []
        columns = [f"sets.list.element.{name}" for name in ("center", "members")]
        for shard in range(len(self._files)):
            for group in range(self._count_groups(shard)):
                for sets in self._read(shard, group, columns).column(0).to_pylist():
                    found.append([(item["center"], len(item["members"])) for item in sets])
        return found

    def names(self) -> tuple[list[str], list[str]]:
        """Image id and file name of every scene; masks are not read for it."""
        image_ids: list[str] = []
        file_names: list[str] = []
        for shard in range(len(self._files)):
            for group in range(self._count_groups(shard)):
                table = self._read(shard, group, ["image_id", "file_name"])
                with self._complaining(shard):
                    image_ids += table["image_id"].to_pylist()
                    file_names += table["file_name"].to_pylist()
        return image_ids, file_names

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it opens the files itself."""
        return {**self.__dict__, "_cache": OrderedDict(), "_open": {}}

    def _parquet(self, shard: int) -> pq.ParquetFile:
        if shard not in self._open:
            with self._complaining(shard):
                self._check_hash(shard)
                file, groups = open_parquet(self._files[shard], SCHEMA)
                _check_form(file, groups, self.manifest.files[shard].rows)
                self._open[shard], self._groups[shard] = file, groups
        return self._open[shard]

    def _check_hash(self, shard: int) -> None:
        """Check a shard's bytes against the manifest, once for this reader and its copies in other processes."""
        wanted = self.manifest.files[shard].sha256
        if wanted is not None and shard not in self._unchanged and file_sha256(self._files[shard]) != wanted:
            raise ValueError("its SHA-256 is not the manifest's")
        self._unchanged.add(shard)

    def _count_groups(self, shard: int) -> int:
        self._parquet(shard)
        return len(self._groups[shard])

    def _read(self, shard: int, group: int, columns: list[str] | None = None) -> pa.Table:
        with self._complaining(shard):
            table = self._parquet(shard).read_row_group(group, columns=columns)
            if columns is None:
                table = written_out(table, SCHEMA)
            else:
                weigh(table)
            if columns is None and len(table) != self._groups[shard][group].rows:
                raise ValueError(f"row group {group} has other rows than it says")
            return table

    def _checked(self, shard: int, group: int) -> pa.Table:
        """A row group that holds together; looked at where it is read for the first time."""
        table = self._read(shard, group)
        if (shard, group) not in self._sound:
            try:
                check_scenes(table)
            except ValueError as error:
                raise InputError(f"{self._files[shard]}: {error}; sample again") from error
            self._sound.add((shard, group))
        return table

    def _scenes(self, shard: int, table: pa.Table) -> list[SampledScene]:
        with self._complaining(shard):
            return [scene_of(row) for row in table.to_pylist()]

    def _complaining(self, shard: int) -> AbstractContextManager[None]:
        return complaining(self._files[shard], "damaged, or not readable as Parquet", "sample again")

    def _scene_at(self, shard: int, row: int) -> SampledScene:
        group, place = self._group(shard, row // ROWS_A_GROUP), row % ROWS_A_GROUP
        if place not in group.scenes:
            (group.scenes[place],) = self._scenes(shard, group.table.slice(place, 1))
        return group.scenes[place]

    def _group(self, shard: int, group: int) -> _RowGroup:
        key = (shard, group)
        if key in self._cache:
            self._cache.move_to_end(key)
        else:
            self._cache[key] = _RowGroup(self._checked(shard, group))
            while len(self._cache) > self._cached_groups:
                self._cache.popitem(last=False)
        return self._cache[key]


@dataclass(frozen=True)
class _RowGroup:
    """A row group in memory, whose rows become scenes when they are asked for.

    Shuffled reading wants one scene of a group; to make all of them costs more than to read the group.
    """

    table: pa.Table
    scenes: dict[int, SampledScene] = field(default_factory=dict)


class DiverseSets(Sequence[DiverseSet]):
    """All diverse sets of a folder of shards: iterable, with a length, and by number.

    Args:
        folder: a finished folder of shards.

    Raises:
        InputError: as `ShardReader`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.reader = ShardReader(folder)
        self._starts = np.concatenate([[0], np.cumsum(self.reader.sets_a_scene())])

    def __len__(self) -> int:
        """How many sets there are in all scenes."""
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[DiverseSet]:
        """The sets in order, scene by scene."""
        for sampled in self.reader:
            for chosen in sampled.sets:
                yield diverse_set(sampled.scene, chosen)

    def __getitem__(self, index: Any) -> Any:
        """The set of this number, or the sets of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        sampled, number = self.place(int(index))
        return diverse_set(sampled.scene, sampled.sets[number])

    def place(self, index: int) -> tuple[SampledScene, int]:
        """The scene of the set of this number, and the set's number in it.

        Raises:
            IndexError: there is no such set.
        """
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"set {index} of {len(self)}")
        row = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self.reader[row], place - int(self._starts[row])


def read_sets(folder: str | Path) -> DiverseSets:
    """The diverse sets of a folder of shards.

    Args:
        folder: as `disbench sample --out` made it.

    Returns:
        A sequence of `DiverseSet`; memory stays that of a few row groups.

    Raises:
        InputError: the folder is not a finished folder of shards.
    """
    return DiverseSets(folder)


def _lists(struct: pa.StructType, columns: Mapping[str, Sequence[Any]], lengths: Sequence[int]) -> pa.Array:
    """A list column of structs from flat columns and the number of structs in each row."""
    leaves = [pa.array(columns[field.name], field.type) for field in struct]
    flat = pa.StructArray.from_arrays(leaves, fields=list(struct))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, flat, type=pa.list_(struct))


def _check_form(file: pq.ParquetFile, found: Sequence[RowGroup], rows: int) -> None:
    """Columns, number of rows, and row groups of `ROWS_A_GROUP` rows but for the last: so scenes are found.

    Raises:
        ValueError: they are others.
    """
    if not has_columns(file, SCHEMA):
        raise ValueError("its columns are not a shard's")
    groups = [group.rows for group in found]
    full, rest = divmod(rows, ROWS_A_GROUP)
    if groups != [ROWS_A_GROUP] * full + ([rest] if rest else []):
        raise ValueError(f"its row groups are not {rows} rows, {ROWS_A_GROUP} a group")


def scene_of(row: Mapping[str, Any]) -> SampledScene:
    """The scene of a row, from its columns as plain Python values."""
    size = [row["height"], row["width"]]
    objects, levels = row["objects"], tuple([item["level"] for item in row["objects"]])
    parents = tuple([item["parent"] for item in objects])
    if any(level is not None for level in levels):  # a root has no parent, and neither has an object outside the tree
        pairs = zip(parents, levels, strict=True)
        parents = tuple([-1 if parent is None and level is not None else parent for parent, level in pairs])
    return SampledScene(
        scene=Scene(
            image_id=row["image_id"],
            file_name=row["file_name"],
            height=row["height"],
            width=row["width"],
            source=row["source"],
            objects=tuple([_object_of(item, size) for item in objects]),
            dropped=Counter({item["reason"]: item["count"] for item in row["dropped"]}),
        ),
        parents=parents,
        levels=levels,
        neighbours=tuple([tuple(item["neighbours"]) for item in objects]),
        sets=tuple([_set_of(item) for item in row["sets"]]),
    )


def _object_of(item: Mapping[str, Any], size: list[int]) -> SceneObject:
    return SceneObject(
        {"size": size, "counts": item["rle"]},
        item["area"],
        tuple(item["box"]),
        item["category"],
        item["synset"],
        item["annotation_id"],
        item["source"],
        item["kind"],
    )


def _set_of(item: Mapping[str, Any]) -> SetOfObjects:
    return SetOfObjects(
        item["center"],
        tuple(map(tuple, item["members"])),
        tuple(item["click_excludes"]),
        int(item["left_out"]),
        int(item["repeated"]),
    )
