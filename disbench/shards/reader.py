"""Reading folders of shards; a folder is complete when it has its `manifest.json`, which is written last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.arrays import IntArray
from disbench.core.diverse_sets import SampledScene, SetOfObjects, click_region, set_masks
from disbench.core.errors import InputError
from disbench.core.masks import Rle
from disbench.core.scenes import Scene
from disbench.io.files import file_sha256
from disbench.io.parquet import complaining, has_columns, open_parquet, weigh
from disbench.shards.manifest import ShardFile, read_manifest
from disbench.shards.rows import ROWS_A_GROUP, SCHEMA, Rows


@dataclass(frozen=True, slots=True)
class DiverseSet:
    """The masks that a first click on one object (number `center` of its scene) may mean.

    Attributes:
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

    A shard's hash is compared with the manifest's, and each row group looked at (`Rows.check`), once: every mask
    decodes and every number names an object. One row group is decoded at a time; `disbench.core.limits` bounds its
    values and the bytes of its texts and masks.
    """

    def __init__(self, folder: str | Path, cached_groups: int = 4) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        for file in self.manifest.files:
            if problem := file.problem(self.folder, hashed=False):
                raise InputError(f"{self.folder}: {problem}; sample again")
        self._starts = np.cumsum([0, *(file.rows for file in self.manifest.files)])
        self._cached_groups = cached_groups
        self._cache: OrderedDict[tuple[int, int], Rows] = OrderedDict()
        self._open: dict[int, pq.ParquetFile] = {}
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
        group, row = divmod(index - int(self._starts[shard]), ROWS_A_GROUP)
        key = (shard, group)
        if key not in self._cache:
            self._cache[key] = self._rows(*key)
            while len(self._cache) > self._cached_groups:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key].scene(row)

    def __iter__(self) -> Iterator[SampledScene]:
        """All scenes in order; no more than a row group is decoded at a time."""
        for shard, group in self._groups():
            yield from self._rows(shard, group)

    def names(self) -> tuple[list[str], list[str]]:
        """Image id and file name of every scene; masks are not read for it."""
        rows = list(self._columns("image_id", "file_name"))
        return [row["image_id"] for row in rows], [row["file_name"] for row in rows]

    def sets_a_scene(self) -> IntArray:
        """How many sets each scene has: int64 (number of scenes,); masks are not read for it."""
        return np.array([len(row["sets"]) for row in self._columns("sets.list.element.center")], dtype=np.int64)

    def centers_and_sizes(self) -> list[list[tuple[int, int]]]:
        """For each scene, of each of its sets the center and how many masks it has; masks are not read for it."""
        rows = self._columns("sets.list.element.center", "sets.list.element.members")
        return [[(item["center"], len(item["members"])) for item in row["sets"]] for row in rows]

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it opens the files itself."""
        return {**self.__dict__, "_cache": OrderedDict(), "_open": {}}

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Shard and number of each row group."""
        for shard, file in enumerate(self.manifest.files):
            for group in range(-(-file.rows // ROWS_A_GROUP)):
                yield shard, group

    def _parquet(self, shard: int) -> pq.ParquetFile:
        """A shard whose bytes are the manifest's, which is looked at once for this reader and its copies."""
        if shard not in self._open:
            file = self.manifest.files[shard]
            if shard not in self._unchanged and file.sha256 not in (None, file_sha256(self.folder / file.name)):
                raise ValueError("its SHA-256 is not the manifest's")
            self._open[shard] = open_shard(self.folder, file)
            self._unchanged.add(shard)
        return self._open[shard]

    def _columns(self, *paths: str) -> Iterator[dict[str, Any]]:
        """Some columns of all rows as plain Python values."""
        for shard, group in self._groups():
            with complaining(self.folder / self.manifest.files[shard].name, "not a whole shard", "sample again"):
                table = self._parquet(shard).read_row_group(group, columns=list(paths))
                weigh(table)
                rows = table.to_pylist()
            yield from rows

    def _rows(self, shard: int, group: int) -> Rows:
        """A row group whose scenes hold together, which is looked at where it is read for the first time."""
        with complaining(self.folder / self.manifest.files[shard].name, "not a whole shard", "sample again"):
            rows = Rows(self._parquet(shard).read_row_group(group))
            if (shard, group) not in self._sound:
                rows.check()
                self._sound.add((shard, group))
            return rows


def shard_problem(folder: Path, file: ShardFile) -> str | None:
    """What keeps a shard from being the one that the manifest describes; nothing is decoded."""
    if problem := file.problem(folder):
        return problem
    try:
        open_shard(folder, file).close()
    except (OSError, pa.ArrowException, ValueError) as error:
        return f"{file.name}: {error}"
    return None


def open_shard(folder: Path, file: ShardFile) -> pq.ParquetFile:
    """A shard, nothing of it read but its end.

    Raises:
        ValueError: other columns or rows than the manifest says, row groups that are not of `ROWS_A_GROUP` rows but
            for the last, or as `open_parquet`.
        OSError, ArrowException: not Parquet.
    """
    parquet, found = open_parquet(folder / file.name, SCHEMA)
    if not has_columns(parquet, SCHEMA):
        raise ValueError("its columns are not a shard's")
    groups = [group.rows for group in found]
    full = all(rows == ROWS_A_GROUP for rows in groups[:-1]) and all(0 < rows <= ROWS_A_GROUP for rows in groups[-1:])
    if not full or sum(groups) != file.rows:
        raise ValueError(f"its row groups are not {file.rows} rows, {ROWS_A_GROUP} a group")
    return parquet


class DiverseSets(Sequence[DiverseSet]):
    """All diverse sets of a folder of shards: iterable, with a length, and by number; errors as `ShardReader`."""

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
        """The scene of the set of this number, and the set's number in it; IndexError if there is none."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"set {index} of {len(self)}")
        row = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self.reader[row], place - int(self._starts[row])


def read_sets(folder: str | Path) -> DiverseSets:
    """The diverse sets of a folder of shards that `disbench sample` made; memory is that of a few row groups.

    Raises:
        InputError: the folder is not a finished folder of shards.
    """
    return DiverseSets(folder)
