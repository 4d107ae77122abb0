"""Instance annotations in JSON: LVIS v0.5 and v1, COCO instances, COCO panoptic, and COCO joined with LVIS.

All have the arrays images, annotations and categories. LVIS adds WordNet synsets and, from v1 on, has only `coco_url`
instead of file names; COCO adds crowd regions as RLE; panoptic annotations refer to PNGs whose colours encode segment
ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np

from disbench.core import masks
from disbench.core.arrays import IntArray
from disbench.core.errors import InputError, quote
from disbench.core.masks import Raster, as_integer
from disbench.core.scenes import LINK, KeyedScenes, Kind, Links, Scene, SceneObject, resolve_links, scene_objects
from disbench.datasets import json_index
from disbench.datasets.images import ImageFinder
from disbench.datasets.json_index import Id, Json, JsonArrays, Offsets, RecordFile
from disbench.datasets.label_maps import joint_sha256, read_label_png
from disbench.datasets.scene_sources import BadAnnotations, image_size, refuse
from disbench.io.files import Stamp, relative_path

Dialect = Literal["lvis", "coco", "panoptic", "photos"]
Join = Literal["inner", "outer"]
_LINKS = ("parent_id", "obj_ann_id")  # keys with the id of a part's object; PACO's objects refer to themselves
_BLOCK_BYTES = 1 << 22  # bytes of JSON parsed together; parsing takes up to 60 times as much memory


@dataclass(frozen=True, slots=True)
class Category:
    """A category of an annotation file, with its WordNet synset if known; `is_part` is for PACO's part categories."""

    name: str
    synset: str | None = None
    is_thing: bool = True
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of an annotation file; sizes in pixels."""

    file_name: str
    height: int
    width: int


class AnnotatedObject(NamedTuple):
    """An object with the index of its annotation in `spans`, its own id and its parent's."""

    place: int
    item: SceneObject
    id: Id | None = None
    parent: Id | None = None


@dataclass
class AnnotationFile:
    """An annotation file with the byte ranges of each image's annotations; made by `open_annotations`.

    Picklable; takes a few dozen bytes of memory per annotation.

    Attributes:
        dialect: format of the file, and `source` of its objects.
        part_categories: categories of parts, if PACO's file lists them separately.
        spans: int64 (n, 2), first and end byte of each annotation, grouped by image in file order.
        slices: image id -> (first, end) in `spans`, in the order of `images`.
        numbers: int64 (n,), position of each annotation in the file if some ids are strings; otherwise None.
        link: key with the id of an annotation's whole ("parent_id" or "obj_ann_id"), or "".
        dropped: number of annotations dropped because their image is missing, by reason.
        bad, option: whether malformed annotations raise or are dropped, and how the user's command sets it.
        png_folder: folder of the PNGs of panoptic annotations.
    """

    path: Path
    dialect: Dialect
    sha256: str
    stamp: Stamp
    records: RecordFile
    images: dict[Id, ImageRecord]
    categories: dict[Id, Category]
    part_categories: dict[Id, Category]
    spans: Offsets
    slices: dict[Id, tuple[int, int]]
    numbers: IntArray | None
    link: str
    dropped: Counter[str]
    bad: BadAnnotations
    option: str
    png_folder: Path | None

    def __post_init__(self) -> None:
        self._find_png = ImageFinder([self.png_folder] if self.png_folder else [], self._png_names, self.path)
        self._part_names = {category.name for category in self.categories.values() if category.is_part}

    def image_names(self) -> list[tuple[Id, str]]:
        """Id and file_name of every image."""
        return [(image_id, image.file_name) for image_id, image in self.images.items()]

    def check_unchanged(self) -> None:
        """Raise `InputError` if the file's size or modification time changed since it was opened."""
        if not self.stamp.matches(self.path):
            fix = "restore it and run the same command again, or use the new one with --existing overwrite"
            raise InputError(f"{self.path}: changed while it was read; {fix}")

    def annotations(self, image_id: Id) -> Iterator[dict[str, Any]]:
        """The annotations of an image, in file order."""
        first, end = self.slices.get(image_id, (0, 0))
        for place in range(first, end):
            yield self.annotation(place)

    def annotation(self, place: int) -> dict[str, Any]:
        """The annotation at an index of `spans`."""
        begin, stop = self.spans[place].tolist()
        return json_index.parse_record(self.path, self.records.read(begin, stop), "annotations", place)

    def refuse(self, annotation: Json, problem: object, dropped: Counter[str]) -> None:
        """Raise `InputError` for a malformed annotation, or count it, depending on `bad`."""
        place = f"annotation {quote(annotation.get('id'))} (image {quote(annotation.get('image_id'))})"
        refuse(self.bad, f"{self.path}: {place}: {problem}", dropped, "fix the file", self.option)

    def png_paths(self) -> Iterator[Path]:
        """The PNGs of panoptic annotations, sorted by image id."""
        return (self._png_path(name) for _, name in self._png_names())

    def _png_path(self, name: str) -> Path:
        assert self.png_folder is not None
        return self._find_png(name) or self.png_folder / name

    def _png_names(self) -> Iterator[tuple[Id, str]]:
        return ((key, self._png_name(found, key)) for key in self.slices for found in self.annotations(key))

    def _png_name(self, annotation: Json, image_id: Id) -> str:
        name = annotation.get("file_name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{self.path}: the annotation of image {image_id} has no file_name; add that of its PNG")
        return _relative(name, image_id, self.path)

    def objects(self, image_id: Id, raster: Raster, dropped: Counter[str]) -> list[AnnotatedObject]:
        """The objects of an image, with ids and parents if the file declares parts.

        Includes objects without a mask or pixels, with area 0. `dropped` counts dropped annotations. `InputError` for a
        malformed annotation if `bad` is "fail".
        """
        if self.dialect == "panoptic":
            return self._panoptic_objects(image_id, dropped)
        found: list[AnnotatedObject] = []
        first, end = self.slices.get(image_id, (0, 0))
        together = int(np.diff(self.spans[first:end]).sum()) <= _BLOCK_BYTES
        for begin in range(first, end, max(1, end - first) if together else 1):
            spans = self.spans[begin : end if together else begin + 1].tolist()
            pieces = [self.records.read(*span) for span in spans]
            block = json_index.parse_records(self.path, pieces, "annotations", begin)
            try:
                found += self._read(image_id, begin, block, raster, dropped)
            except ValueError:  # one by one, to find the bad one
                for place, annotation in enumerate(block, begin):
                    try:
                        found += self._read(image_id, place, [annotation], raster, dropped)
                    except ValueError as error:
                        self.refuse(annotation, error, dropped)
                    self._check_total(found, image_id)
            self._check_total(found, image_id)
        return found

    def _read(
        self, image_id: Id, first: int, annotations: Sequence[Json], raster: Raster, dropped: Counter[str]
    ) -> list[AnnotatedObject]:
        """The objects of annotations from index `first` on; ValueError if one is malformed, without counting it."""
        image = self.images[image_id]
        kinds: list[Kind] = ["crowd" if _is_crowd(annotation) else "thing" for annotation in annotations]
        categories = [self._category(annotation) for annotation in annotations]
        numbers = [self._number(annotation, place) for place, annotation in enumerate(annotations, first)]
        changes: Counter[str] = Counter()
        segmentations = [annotation.get("segmentation") for annotation in annotations]
        rles = masks.from_segmentations(segmentations, image.height, image.width, raster, changes)
        dropped.update(+changes)
        columns = zip(categories, numbers, kinds, strict=True)
        about = ((category.name, category.synset, number, self.dialect, kind) for category, number, kind in columns)
        found = enumerate(scene_objects(rles, about), first)
        if not self.link:
            return list(starmap(AnnotatedObject, found))
        ids = [(json_index.read_id(annotation.get("id")), self._parent(annotation)) for annotation in annotations]
        return [AnnotatedObject(place, item, *pair) for (place, item), pair in zip(found, ids, strict=True)]

    def links(self, image_id: Id, found: Sequence[AnnotatedObject], dropped: Counter[str]) -> Links:
        """The declared links of an image's objects; -1 and 0 mean no parent unless an annotation has that id.

        `InputError` for a missing parent, one in another image, or a cycle, if `bad` is "fail".
        """
        ids = {one.id for one in found}
        if self._part_names:
            alone = [one for one in found if one.parent in (None, one.id) and one.item.category in self._part_names]
            dropped[f"{LINK}part without an object"] += len(alone)
        parents = [None if one.parent in (-1, 0) and one.parent not in ids else one.parent for one in found]

        def odd(number: int, problem: str) -> None:
            self.refuse({"id": found[number].id, "image_id": image_id}, f"{self.link}: {problem}", Counter())

        return resolve_links([one.id for one in found], parents, odd, dropped, nest=self.link == "obj_ann_id")

    def _number(self, annotation: Json, place: int) -> int | None:
        """The id of an annotation, or its position in the file if some ids are strings."""
        number = json_index.optional_id(annotation, "id")
        if self.numbers is not None:
            return int(self.numbers[place])
        return number if isinstance(number, int) else None

    def _parent(self, annotation: Json) -> Id | None:
        """The id of an annotation's whole (possibly its own), or None."""
        return None if annotation.get(self.link) == "" else json_index.optional_id(annotation, self.link)

    def _category(self, annotation: Json) -> Category:
        value = annotation.get("category_id")
        number, known = json_index.read_id(value), self.categories
        if self.part_categories and self._parent(annotation) not in (None, json_index.read_id(annotation.get("id"))):
            known = self.part_categories
        if not known:
            return Category("object" if json_index.is_missing(value) else str(number))
        if number is None or number not in known:
            raise ValueError(f"unknown {'part ' if known is self.part_categories else ''}category {quote(value)}")
        return known[number]

    def _panoptic_objects(self, image_id: Id, dropped: Counter[str]) -> list[AnnotatedObject]:
        """The segments of an image's PNG, in the order of `segments_info`; a damaged PNG always raises."""
        objects: list[AnnotatedObject] = []
        image = self.images[image_id]
        for place in range(*self.slices.get(image_id, (0, 0))):
            annotation = self.annotation(place)
            path = self._png_path(self._png_name(annotation, image_id))
            colours = read_label_png(path, channels=3, size=(image.height, image.width))
            ids: IntArray = colours.astype(np.int64) @ np.array([1, 256, 65536])
            segments = annotation.get("segments_info")
            for found in segments if isinstance(segments, list) else [segments]:
                segment = found if isinstance(found, dict) else {}
                try:
                    objects.append(AnnotatedObject(place, self._segment(segment, ids)))
                except ValueError as error:
                    self.refuse({**segment, "image_id": image_id}, error, dropped)
                self._check_total(objects, image_id)
        return objects

    def _check_total(self, objects: Sequence[AnnotatedObject], image_id: Id) -> None:
        try:
            masks.check_mask_bytes(sum(len(one.item.rle["counts"]) for one in objects))
        except ValueError as error:
            raise InputError(f"{self.path}: image {image_id}: {error}; fix the file") from None

    def _segment(self, segment: Json, ids: IntArray) -> SceneObject:
        category, number = self._category(segment), as_integer(segment.get("id"))
        if number is None:
            raise ValueError("the segment's id is not an integer")
        thing: Kind = "crowd" if _is_crowd(segment) else "thing"
        kind = thing if category.is_thing else "stuff"
        (item,) = scene_objects([masks.encode(ids == number)], [(category.name, None, number, "coco", kind)])
        return item


def open_annotations(
    path: Path, dialect: Dialect, *, bad: BadAnnotations = "fail", option: str = "--set", png_folder: Path | None = None
) -> AnnotationFile:
    """Index an annotation file: LVIS (v0.5, v1), COCO instances or COCO panoptic JSON, plain or compressed.

    `bad`: whether malformed annotations and annotations of missing images raise or are dropped and counted; `option` is
    how the user's command sets it. `png_folder` has the PNGs of panoptic annotations; by default, the JSON's path
    without suffix. `InputError` if the file is missing, truncated or not JSON, or an image is duplicate, missing or
    has no size.
    """
    stamp = Stamp.of(path)  # before reading
    index = json_index.index_json(path)
    for name in ("images", "annotations", "categories"):
        is_optional = name == "categories" and dialect != "panoptic"  # panoptic needs `isthing`
        if name not in index.records and not (is_optional and index.rest.get(name) is None):
            raise InputError(
                f"{path}: no array {name!r} (the keys: {quote(list(index.rest)[:4])}); give {dialect} annotations"
            )
    found = {_id_of(record, path): _image(record, path) for record in index.iterate("images")}
    if len(found) != len(index.records["images"]):
        raise InputError(f"{path}: two records of 'images' have the same image id; fix the file")
    images = {image_id: found[image_id] for image_id in sorted(found, key=_ascending)}
    categories = _categories(index, "categories")
    spans, slices, numbers, link, dropped = _group_by_image(index, images, bad, option)
    listed_apart = link == "obj_ann_id" and not any(category.is_part for category in categories.values())
    parts = _categories(index, "part_categories") if listed_apart else {}
    pngs = (png_folder or path.with_suffix("")) if dialect == "panoptic" else None
    about = (images, categories, parts, spans, slices, numbers, link, dropped, bad, option, pngs)
    return AnnotationFile(path, dialect, index.sha256, stamp, index.file, *about)


def _categories(index: JsonArrays, name: str) -> dict[Id, Category]:
    found, path = {}, index.path
    for record in index.iterate(name) if name in index.records else ():
        title, synset = _text(record, "name", path) or "", _text(record, "synset", path)
        is_thing = json_index.read_flag(record.get("isthing"), missing=True) is not False
        found[_id_of(record, path)] = Category(title, synset, is_thing, record.get("supercategory") == "PART")
    return found


def _group_by_image(
    index: JsonArrays, images: Mapping[Id, ImageRecord], bad: BadAnnotations, option: str
) -> tuple[Offsets, dict[Id, tuple[int, int]], IntArray | None, str, Counter[str]]:
    """Spans by image (in file order), slices, positions in the file if an id is a string, link key, and drop counts."""
    ranks = {image_id: rank for rank, image_id in enumerate(images)}
    owners = np.empty(len(index.records["annotations"]), dtype=np.int64)
    has_texts = False
    link = ""
    for place, annotation in enumerate(index.iterate("annotations")):
        owner = json_index.read_id(annotation.get("image_id"))
        owners[place] = -1 if owner is None else ranks.get(owner, -1)
        has_texts = has_texts or isinstance(json_index.read_id(annotation.get("id")), str)
        if link != _LINKS[0]:
            link = next((key for key in _LINKS if not json_index.is_missing(annotation.get(key))), link)
        if owners[place] < 0:
            owned = f"is of image {quote(annotation.get('image_id'))}, which is missing"
            said = f"annotation {quote(annotation.get('id'))} {owned}"
            refuse(bad, f"{index.path}: {said}", Counter(), "fix the file", option)
    order = np.argsort(owners, kind="stable")
    lost = int((owners < 0).sum())
    order = order[lost:]
    values, firsts, counts = np.unique(owners[order], return_index=True, return_counts=True)
    ids, ends = list(images), (firsts + counts).tolist()
    pairs = zip(firsts.tolist(), ends, strict=True)
    slices = {ids[value]: pair for value, pair in zip(values.tolist(), pairs, strict=True)}
    dropped = Counter({"annotation of a missing image": lost} if lost else {})
    return index.records["annotations"][order], slices, order if has_texts else None, link, dropped


def _image(record: Json, path: Path) -> ImageRecord:
    size = image_size(f"{path}: record {quote(record.get('id'))}", record.get("height"), record.get("width"))
    name = _text(record, "file_name", path)
    if not name:  # LVIS v1 has only the image's URL
        name = "/".join(PurePosixPath(_text(record, "coco_url", path) or "").parts[-2:])
    return ImageRecord(_relative(name, record.get("id"), path), *size)


def _relative(name: str, image_id: object, path: Path) -> str:
    try:
        return relative_path(name)
    except ValueError as error:
        raise InputError(f"{path}: image {quote(image_id)}: file_name {quote(name)}: {error}; rename it") from None


def _text(record: Json, key: str, path: Path) -> str | None:
    """A string of a record, or None; numbers are converted."""
    value = record.get(key)
    if json_index.is_missing(value):
        return None
    if type(value) not in (str, int, float):
        raise InputError(f"{path}: {key!r} of record {quote(record.get('id'))} is {quote(value)}, not a string; fix it")
    return str(value)


def _id_of(record: Json, path: Path) -> Id:
    if (found := json_index.read_id(record.get("id"))) is None:
        raise InputError(f"{path}: the id {quote(record.get('id'))} is neither an integer nor a string; fix the file")
    return found


def _ascending(image_id: Id) -> tuple[bool, Id]:
    return isinstance(image_id, str), image_id


def _is_crowd(record: Json) -> bool:
    if (found := json_index.read_flag(record.get("iscrowd"), missing=False)) is None:
        raise ValueError(f"its iscrowd {quote(record['iscrowd'])} is not 0 or 1")
    return found


def _dataset(file: AnnotationFile) -> str:
    """The dataset of a file; panoptic annotations are COCO's."""
    return "coco" if file.dialect == "panoptic" else file.dialect


class FileScenes(KeyedScenes):
    """Scenes of annotation files."""

    files: Sequence[AnnotationFile]

    @property
    def dropped(self) -> Counter[str]:
        """Number of annotations and images dropped before making scenes, by reason."""
        return sum((file.dropped for file in self.files), Counter())

    def check_unchanged(self) -> None:
        """Raise `InputError` if a file was changed, replaced or deleted since it was opened."""
        for file in self.files:
            file.check_unchanged()


class AnnotatedImages(FileScenes):
    """Scenes of COCO, LVIS, or both joined by image id (a `SceneSource`).

    Scenes are sorted by image id, numbers before strings. Within a scene, COCO's objects come first, then LVIS's, each
    in file order, then COCO's stuff. `name` joins the datasets: "lvis", "coco+lvis" ...

    Args:
        files: LVIS, COCO or panoptic annotation files, possibly several of a kind.
        raster: how polygons are rasterized.
        coco_masks: take COCO's things from the `instances` or `panoptic` files.
        join: for COCO with LVIS, `inner` takes the images in both, as RITM did (docs/hierarchy.md, 1), `outer` all
            images.

    `InputError` if files disagree about an image's size, a file is given twice, or `coco_masks` needs panoptic files.
    """

    def __init__(
        self,
        files: Sequence[AnnotationFile],
        *,
        raster: Raster = "pycocotools",
        coco_masks: Literal["instances", "panoptic"] = "instances",
        join: Join = "inner",
    ) -> None:
        if coco_masks == "panoptic" and all(file.dialect != "panoptic" for file in files):
            raise InputError("coco_masks=panoptic needs COCO's panoptic annotations; give them with --panoptic")
        rank = {"coco": 0, "lvis": 1, "photos": 1, "panoptic": 2}
        self.files = sorted(files, key=lambda file: rank[file.dialect])
        self.name = "+".join(sorted({_dataset(file) for file in self.files}))
        self.raster, self.coco_masks = raster, coco_masks
        self.keys, self._unjoined = self._join(join)
        self._check_files()

    @property
    def dropped(self) -> Counter[str]:
        """Number of dropped annotations and images, by reason."""
        return super().dropped + self._unjoined

    def object_counts(self, images: range) -> list[int]:
        """Number of annotations per image in a range, over all files."""
        ids = self.keys[images.start : images.stop]
        spans = ([file.slices.get(image_id, (0, 0)) for file in self.files] for image_id in ids)
        return [sum(end - first for first, end in each) for each in spans]

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each annotation file by name, and a joint one for the PNGs of each panoptic file."""
        several = Counter(file.dialect for file in self.files)
        seen: Counter[str] = Counter()
        found = {}
        for file in self.files:
            seen[file.dialect] += 1
            # Numbered, because file order determines object order, and names may repeat.
            number = f" {seen[file.dialect]}" if several[file.dialect] > 1 else ""
            found[f"{file.dialect}{number}:{file.path.name}"] = file.sha256
            if file.dialect == "panoptic":
                found[f"panoptic{number}:PNGs"] = joint_sha256(file.png_paths())
        return found

    def _scene(self, key: Id) -> Scene:
        dropped: Counter[str] = Counter()
        objects: list[tuple[SceneObject, int]] = []
        parents: list[int] = []
        for file in self.files:
            if key not in file.slices or (file.dialect == "coco" and self.coco_masks == "panoptic"):
                continue
            found = file.objects(key, self.raster, dropped)
            if file.dialect == "panoptic" and self.coco_masks == "instances":
                found = [one for one in found if one.item.kind == "stuff"]
            above = file.links(key, found, dropped).parents if file.link else [-1] * len(found)
            parents += [parent + len(objects) if parent >= 0 else -1 for parent in above]
            objects += [(one.item, len(objects) + number) for number, one in enumerate(found)]
        # Stable sort: COCO's things (also panoptic ones) before LVIS's, stuff last.
        objects.sort(key=lambda one: (one[0].kind == "stuff", one[0].source != "coco"))
        links = None
        if any(file.link for file in self.files):
            place = {old: new for new, (_, old) in enumerate(objects)} | {-1: -1}
            nest = any(file.link == "obj_ann_id" for file in self.files)
            links = Links(tuple(place[parents[old]] for _, old in objects), nest)
        image = next(file.images[key] for file in self.files if key in file.images)
        items = tuple(item for item, _ in objects)
        about = (image.file_name, image.height, image.width, self.name)
        return Scene(str(key), *about, items, dropped=dropped, links=links)

    def _join(self, join: Join) -> tuple[list[Id], Counter[str]]:
        """Sorted image ids, and the number of dropped images by reason."""
        by_dataset: dict[str, set[Id]] = {}
        for file in self.files:
            by_dataset.setdefault(_dataset(file), set()).update(file.images)
        everything = set().union(*by_dataset.values())
        joined = set.intersection(*by_dataset.values()) if join == "inner" else everything
        left_out = +Counter({"image that only one of the datasets has": len(everything) - len(joined)})
        return sorted(joined, key=_ascending), left_out

    def _check_files(self) -> None:
        """Raise if a file occurs twice, or if two disagree about the size of an image."""
        contents: dict[tuple[str, str], Path] = {}
        sizes: dict[Id, tuple[ImageRecord, Path]] = {}
        for file in self.files:
            same = contents.setdefault((file.dialect, file.sha256), file.path)
            if same is not file.path:
                raise InputError(f"{file.path}: same content as {same}; give each file once")
            for image_id, image in file.images.items():
                other, path = sizes.setdefault(image_id, (image, file.path))
                if (other.height, other.width) != (image.height, image.width):
                    raise InputError(f"{file.path}: image {image_id} has another size in {path}; use files of one set")
