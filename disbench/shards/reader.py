"""Read folders of shards and find their images; a folder is finished once it has its `manifest.json`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import ne
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.arrays import IntArray
from disbench.core.errors import InputError
from disbench.core.masks import Rle
from disbench.core.scenes import SampledScene, Scene, SetOfObjects, click_region, set_masks
from disbench.datasets.images import ImageFinder, RgbImage, exif_note, read_rgb, size_hint
from disbench.io import addresses
from disbench.io.files import file_sha256
from disbench.io.parquet import as_input_error, check_decoded_size, has_columns, open_parquet
from disbench.shards.manifest import ShardFile, read_manifest
from disbench.shards.rows import ROWS_PER_GROUP, SCHEMA, Rows

_logger = logging.getLogger("disbench.shards")
_WARNED_FOLDERS: set[Path] = set()  # folders already warned about EXIF rotation, once per process
FindImage = Callable[[str], Path | None]  # maps a scene's `file_name` to the image's path, or None if not found
Images = str | Path | FindImage | None  # a folder of images or a function that finds them; None: the embedded photos
DEFAULT_IMAGES = {  # folders under the data root to search for a source's images
    "lvis": ("lvis", "coco"),
    "coco": ("coco",),
    "coco+lvis": ("coco", "lvis"),
    "sbd": ("SBD",),
    "voc": ("VOC2012", "VOC2007"),
}


@dataclass(frozen=True, slots=True)
class DiverseSet:
    """The candidate masks of a first click on one object (index `center` in its scene).

    Attributes:
        masks: inner to outer, RLEs of the image's size.
        click_region: RLE of the pixels from which the first click is drawn.
        file_name: image path relative to the folder of images.
        category: the center's category.
    """

    image_id: str
    center: int
    masks: tuple[Rle, ...]
    click_region: Rle
    file_name: str
    category: str


def diverse_set(scene: Scene, chosen: SetOfObjects) -> DiverseSet:
    """Resolve a set's object indices to masks."""
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
    """Random access to the scenes of a finished folder of shards; caches a few decoded row groups.

    Each shard's hash and each row group's content (`Rows.check`) are verified once, on first use. Row groups are
    decoded one at a time, within the limits of `disbench.core.limits` on values and on bytes of strings and masks.

    Raises:
        InputError: no manifest, a newer schema, or a shard that is missing or has the wrong size. Reading raises it for
            a damaged shard, wrong columns or rows, or an inconsistent scene.
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
        self._open_shards: dict[int, pq.ParquetFile] = {}
        self._hashed_shards: set[int] = set()
        self._checked_groups: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> SampledScene:
        """Scene number `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        group, row = divmod(index - int(self._starts[shard]), ROWS_PER_GROUP)
        key = (shard, group)
        self._cache[key] = rows = self._cache.pop(key) if key in self._cache else self._rows(*key)
        if len(self._cache) > self._cached_groups:
            del self._cache[next(iter(self._cache))]
        return rows.scene(row)

    def __iter__(self) -> Iterator[SampledScene]:
        for shard, group in self._groups():
            yield from self._rows(shard, group)

    def names(self) -> tuple[list[str], list[str]]:
        """Image ids and file names of all scenes; reads no masks."""
        rows = list(self._columns("image_id", "file_name"))
        return [row["image_id"] for row in rows], [row["file_name"] for row in rows]

    def sets_per_scene(self) -> IntArray:
        """Number of sets in each scene: int64 (scenes,); reads no masks."""
        return np.array([len(row["sets"]) for row in self._columns("sets.list.element.center")], dtype=np.int64)

    def centers_and_sizes(self) -> list[list[tuple[int, int]]]:
        """For each scene, the (center, number of masks) of each set; reads no masks."""
        rows = self._columns("sets.list.element.center", "sets.list.element.members")
        return [[(item["center"], len(item["members"])) for item in row["sets"]] for row in rows]

    def __getstate__(self) -> dict[str, Any]:
        """State without cached rows or open files, for another process."""
        return {**self.__dict__, "_cache": {}, "_open_shards": {}}

    def _groups(self) -> Iterator[tuple[int, int]]:
        """(shard, row group) indices, in order."""
        for shard, file in enumerate(self.manifest.files):
            for group in range(-(-file.rows // ROWS_PER_GROUP)):
                yield shard, group

    def _parquet(self, shard: int) -> pq.ParquetFile:
        """Open a shard; its SHA-256 is verified once for this reader and its copies."""
        if shard not in self._open_shards:
            file = self.manifest.files[shard]
            if shard not in self._hashed_shards and file.sha256 not in (None, file_sha256(self.folder / file.name)):
                raise ValueError("its SHA-256 differs from the manifest")
            self._open_shards[shard] = open_shard(self.folder, file)
            self._hashed_shards.add(shard)
        return self._open_shards[shard]

    def _columns(self, *paths: str) -> Iterator[dict[str, Any]]:
        """Some columns of all rows as Python values."""
        for shard, group in self._groups():
            with as_input_error(self.folder / self.manifest.files[shard].name, "not a whole shard", "sample again"):
                table = self._parquet(shard).read_row_group(group, columns=list(paths))
                check_decoded_size(table)
                rows = table.to_pylist()
            yield from rows

    def _rows(self, shard: int, group: int) -> Rows:
        """Read a row group, checked once."""
        with as_input_error(self.folder / self.manifest.files[shard].name, "not a whole shard", "sample again"):
            rows = Rows(self._parquet(shard).read_row_group(group))
            if (shard, group) not in self._checked_groups:
                rows.check()
                self._checked_groups.add((shard, group))
            return rows


def shard_problem(folder: Path, file: ShardFile) -> str | None:
    """How a shard differs from its manifest entry, or None; decodes nothing."""
    if problem := file.problem(folder):
        return problem
    try:
        open_shard(folder, file).close()
    except (OSError, pa.ArrowException, ValueError) as error:
        return f"{file.name}: {error}"
    return None


def open_shard(folder: Path, file: ShardFile) -> pq.ParquetFile:
    """Open a shard, reading only its footer.

    Raises:
        ValueError: columns, rows or row groups do not match the manifest; also as `open_parquet`.
        OSError, ArrowException: not Parquet.
    """
    parquet, row_groups = open_parquet(folder / file.name, SCHEMA)
    if not has_columns(parquet, SCHEMA):
        raise ValueError("its columns are not those of a shard")
    starts = range(0, file.rows, ROWS_PER_GROUP)
    expected = (min(ROWS_PER_GROUP, file.rows - start) for start in starts)
    if len(starts) != len(row_groups) or any(map(ne, expected, (group.rows for group in row_groups))):
        raise ValueError(f"its row groups do not hold {file.rows} rows, {ROWS_PER_GROUP} per group")
    return parquet


class DiverseSets(Sequence[DiverseSet]):
    """All diverse sets of a folder of shards, as a sequence; raises as `ShardReader`."""

    def __init__(self, folder: str | Path) -> None:
        self.reader = ShardReader(folder)
        self._starts = np.concatenate([[0], np.cumsum(self.reader.sets_per_scene())])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[DiverseSet]:
        for sampled in self.reader:
            for chosen in sampled.sets:
                yield diverse_set(sampled.scene, chosen)

    def __getitem__(self, index: Any) -> Any:
        """Set number `index`, or a list for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        sampled, number = self.locate(int(index))
        return diverse_set(sampled.scene, sampled.sets[number])

    def locate(self, index: int) -> tuple[SampledScene, int]:
        """The scene that set `index` belongs to, and the set's index in that scene; IndexError if out of range."""
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"set {index} of {len(self)}")
        row = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self.reader[row], number - int(self._starts[row])


def read_sets(folder: str | Path) -> DiverseSets:
    """The diverse sets of a finished folder of shards, holding a few row groups in memory; raises as `ShardReader`."""
    return DiverseSets(folder)


def image_finder(reader: ShardReader, *folders: Path) -> ImageFinder:
    """Search `folders`, in this order, for the images of shards."""
    return ImageFinder(folders, partial(_names, reader), reader.folder)


def _names(reader: ShardReader) -> Iterable[tuple[str, str]]:
    return zip(*reader.names(), strict=True)


def resolve_images(reader: ShardReader, images: Images) -> FindImage:
    """Turn the user's `images` argument into a function that finds the images of shards."""
    if callable(images):
        return images
    if images is not None:
        return image_finder(reader, Path(images))
    from disbench.datasets.photos import photo_path  # noqa: PLC0415

    return photo_path


def image_lookup(folder: Path, images: Path | None, data: Path | None) -> FindImage:
    """A function that finds the images of a folder of shards.

    It searches `images`, the user's folder; by default the embedded photos for shards made from them, and otherwise the
    source's usual folders under the data root `data`.
    """
    reader = ShardReader(folder)
    if images is None and (source := reader.manifest.source) != "photos":
        return image_finder(reader, *image_folders(source, data))
    if images is not None and addresses.address_of(images) is None and not images.is_dir():
        raise InputError(f"{images}: not a folder; give the folder of the images")
    return resolve_images(reader, images)


def image_folders(source: str, data: Path | None) -> list[Path]:
    """Existing folders under the data root that may hold a source's images."""
    if data is None:
        return []
    return [data / name for name in DEFAULT_IMAGES.get(source, ()) if addresses.exists(data / name)]


def read_scene_image(path: Path, image_id: str, size: tuple[int, int]) -> RgbImage:
    """Read a scene's image, uint8 RGB (height, width, 3); `InputError` if damaged or not of the masks' `size`."""
    image = read_rgb(path)
    if path.parent not in _WARNED_FOLDERS and (note := exif_note([path], "if the masks were drawn so, save it turned")):
        _WARNED_FOLDERS.add(path.parent)
        _logger.warning("%s: %s", path.parent, note)
    if image.shape[:2] != size:
        raise InputError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but the masks of image {image_id} are {size[1]} x "
            f"{size[0]}; give the folder of images that the shards were made from{size_hint(path)}"
        )
    return image
