"""Reading folders of shards, and where their images are; a folder is complete when it has its `manifest.json`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.arrays import IntArray
from disbench.core.errors import InputError
from disbench.core.masks import Rle
from disbench.core.scenes import SampledScene, Scene, SetOfObjects, click_region, set_masks
from disbench.datasets.images import ImageFinder, RgbImage, read_rgb, size_hint, turned
from disbench.io import addresses
from disbench.io.files import file_sha256
from disbench.io.parquet import complaining, has_columns, open_parquet, weigh
from disbench.shards.manifest import ShardFile, read_manifest
from disbench.shards.rows import ROWS_A_GROUP, SCHEMA, Rows

_logger = logging.getLogger("disbench.shards")
_SAID: set[Path] = set()  # folders with a photograph to be turned, each said once in a process
FindImage = Callable[[str], Path | None]  # a function from a scene's `file_name` to its image, None where there is none
Images = str | Path | FindImage | None  # a folder of images, or a function that finds them; None: the embedded photos
DEFAULT_IMAGES = {
    "lvis": ("lvis", "coco"),
    "coco": ("coco",),
    "coco+lvis": ("coco", "lvis"),
    "sbd": ("SBD",),
    "voc": ("VOC2012", "VOC2007"),
}
"""Folders under the data root in which a source's images are looked for."""


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
    """A finished folder of shards, read by scene number; a few decoded row groups stay in memory.

    A shard's hash is compared with the manifest's, and each row group looked at (`Rows.check`), once: every mask
    decodes and every number names an object. One row group is decoded at a time; `disbench.core.limits` bounds its
    values and the bytes of its texts and masks.

    Raises:
        InputError: no manifest, a shard that is missing or of another size, a newer schema. Reading raises it too: a
            shard that is damaged or has other columns or rows, a scene that does not hold together.
    """

    def __init__(self, folder: str | Path, cached_groups: int = 4) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        for file in self.manifest.files:
            if problem := file.problem(self.folder, hashed=False):
                raise InputError(f"{self.folder}: {problem}; sample again")
        self._starts = np.cumsum([0, *(file.rows for file in self.manifest.files)])
        self._cached_groups = cached_groups
        self._cache: dict[tuple[int, int], Rows] = {}
        self._open: dict[int, pq.ParquetFile] = {}
        self._unchanged: set[int] = set()
        self._sound: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> SampledScene:
        """The scene of this number."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        group, row = divmod(index - int(self._starts[shard]), ROWS_A_GROUP)
        key = (shard, group)
        self._cache[key] = self._cache.pop(key) if key in self._cache else self._rows(*key)
        if len(self._cache) > self._cached_groups:
            del self._cache[next(iter(self._cache))]
        return self._cache[key].scene(row)

    def __iter__(self) -> Iterator[SampledScene]:
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
        return {**self.__dict__, "_cache": {}, "_open": {}}

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
        """A row group whose scenes hold together."""
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
        ValueError: other columns, rows or row groups than the manifest says, or as `open_parquet`.
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
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[DiverseSet]:
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
    """The diverse sets of a finished folder of shards, else `InputError`; memory is that of a few row groups."""
    return DiverseSets(folder)


def finder(reader: ShardReader, *folders: Path) -> ImageFinder:
    """What finds the images of shards in some folders, in this order."""
    return ImageFinder(folders, partial(_names, reader), reader.folder)


def _names(reader: ShardReader) -> Iterable[tuple[str, str]]:
    return zip(*reader.names(), strict=True)


def finder_of(reader: ShardReader, images: Images) -> FindImage:
    """A function that finds the images of shards, from what the user said of them."""
    if callable(images):
        return images
    if images is not None:
        return finder(reader, Path(images))
    from disbench.datasets.photos import photo_path  # noqa: PLC0415

    return photo_path


def lookup(folder: Path, images: Path | None, data: Path | None) -> FindImage:
    """A function that finds the images of shards: in `images`, the folder that the user named; the embedded photos.

    Without `images`, shards of other sources have theirs in the usual folders under `data`, the root of the datasets.
    """
    reader = ShardReader(folder)
    if images is None and (source := reader.manifest.source) != "photos":
        return finder(reader, *image_folders(source, data))
    if images is not None and addresses.address_of(images) is None and not images.is_dir():
        raise InputError(f"{images}: not a folder; name the folder of the images")
    return finder_of(reader, images)


def image_folders(source: str, data: Path | None) -> list[Path]:
    """Existing folders under the data root that may hold a source's images."""
    if data is None:
        return []
    return [data / name for name in DEFAULT_IMAGES.get(source, ()) if addresses.there(data / name)]


def read_scene_image(path: Path, image_id: str, size: tuple[int, int]) -> RgbImage:
    """The image of a scene, uint8 (height, width, 3), RGB; `InputError` if damaged or not of its masks' `size`."""
    image = read_rgb(path)
    if path.parent not in _SAID and (note := turned([path], "if the masks were drawn so, save it turned")):
        _SAID.add(path.parent)
        _logger.warning("%s: %s", path.parent, note)
    if image.shape[:2] != size:
        raise InputError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but the masks of image {image_id} have {size[1]} x "
            f"{size[0]}; name the folder of the images that the shards were made for"
            f"{size_hint(path)}"
        )
    return image
