"""COCO, LVIS and the embedded photos: one sample for each annotation of a JSON file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import orjson

from disbench.core import masks
from disbench.core.errors import InputError, shown
from disbench.core.masks import Raster, Rle
from disbench.core.samples import Sample, SampleSource
from disbench.datasets.file_samples import check_target, in_threads, joint_hash
from disbench.datasets.images import ImageFinder, read_rgb
from disbench.datasets.instances import AnnotationFile, Dialect, is_whole, open_annotations
from disbench.io.files import file_sha256

FileFinder = Callable[[str], Path | None]
_SURELY_VISIBLE = 10.0
"""Square pixels; an annotation of a smaller declared area is drawn to see whether it has a pixel."""


class AnnotatedSamples:
    """One sample for each annotation except crowd regions (a `SampleSource`).

    Samples are in ascending order of image id, then in the order of the file. A sample's id is the stem of the image
    file and the annotation's id: "000000000139/230831"; where that repeats, images that share a stem are named by their
    whole file_name: "video1/001.jpg/1". Annotations of less than ten declared square pixels are drawn
    when the dataset is opened, and left out if they have no pixel.

    Args:
        name: name of the dataset's card.
        file: the annotations.
        find: the path of an image from its name in the annotations, None where there is none.
        raster: how polygons become masks.
        facts: JSON-ready facts to record.
        digest: SHA-256 (hex) of an image for the content hash.

    Raises:
        InputError: no annotation to sample; a missing or repeated annotation id.
    """

    def __init__(
        self,
        name: str,
        file: AnnotationFile,
        find: FileFinder,
        raster: Raster,
        facts: Mapping[str, object],
        digest: Callable[[Path], str] = file_sha256,
    ) -> None:
        self.name, self.raster = name, raster
        self._file, self._find, self._facts, self._digest = file, find, dict(facts), digest
        self._left_out = {"crowd": 0, "no pixel": 0}
        chosen = list(self._chosen())
        if not chosen:
            raise InputError(f"{file.path}: no annotation to sample; name another file")
        self._places = np.array([place for _, place, _ in chosen], dtype=np.int64)
        self.ids: Sequence[str] = self._named([(image_id, number) for image_id, _, number in chosen])
        self._images = len({image_id for image_id, *_ in chosen})

    def read(self, index: int) -> Sample:
        """One sample by its index.

        Raises:
            InputError: a missing or damaged image, one whose size differs from the annotations', or a malformed
                annotation.
        """
        annotation = self._file.annotation(int(self._places[index]))
        path = self._image_path(annotation["image_id"])
        image = read_rgb(path)
        target = masks.decode(self._mask(annotation)).astype(np.int8)
        check_target(target, image, path, self.ids[index])
        return Sample(self.ids[index], image, target)

    def content_hash(self) -> str:
        """SHA-256 of ids, images and segmentations (docs/benchmark-datasets.md)."""
        found = [self._hashed(place) for place in self._places.tolist()]
        images = list(dict.fromkeys(image_id for image_id, _ in found))
        digests = dict(zip(images, in_threads(lambda one: self._digest(self._image_path(one)), images), strict=True))
        parts = (
            [sample_id, 0, digests[image_id], segmentation]
            for sample_id, (image_id, segmentation) in zip(self.ids, found, strict=True)
        )
        return joint_hash(f"annotation-{self.raster}", parts)

    def facts(self) -> dict[str, object]:
        """Title and options of the card, the number of images with a sample, and what was left out."""
        return {
            **self._facts,
            "rule": f"annotation-{self.raster}",
            "images": self._images,
            "left_out": dict(self._left_out),
        }

    def _named(self, chosen: Sequence[tuple[int, int]]) -> list[str]:
        """The sample ids of annotations, given by their image's id and their own."""
        names = {image_id: self._file.images[image_id].file_name for image_id, _ in chosen}
        stems = {image_id: PurePosixPath(name).stem for image_id, name in names.items()}
        ids = [f"{stems[image_id]}/{number}" for image_id, number in chosen]
        if len(set(ids)) < len(ids):  # numbers start again with every image
            counts = Counter(stems.values())
            ids = [f"{(stems if counts[stems[one]] == 1 else names)[one]}/{number}" for one, number in chosen]
        (repeated, times), *_ = Counter(ids).most_common(1)
        if times > 1:
            first, second, *_ = (one for one, sample_id in zip(chosen, ids, strict=True) if sample_id == repeated)
            raise InputError(
                f"{self._file.path}: two annotations of {shown(names[first[0]])} have the id {first[1]} (image "
                f"{first[0]} and image {second[0]}); give each annotation an id of its own"
            )
        return ids

    def _chosen(self) -> Iterator[tuple[int, int, int]]:
        """Image id, place and annotation id of every annotation that is a sample."""
        for image_id in sorted(self._file.slices):
            for place in range(*self._file.slices[image_id]):
                annotation = self._file.annotation(place)
                if annotation.get("iscrowd"):
                    self._left_out["crowd"] += 1
                elif self._is_empty(annotation):
                    self._left_out["no pixel"] += 1
                elif not is_whole(number := annotation.get("id")):
                    raise self._file.error(annotation, image_id, "samples are named by the id, a whole number")
                else:
                    yield image_id, place, number

    def _is_empty(self, annotation: Mapping[str, Any]) -> bool:
        area = annotation.get("area")
        if isinstance(area, int | float) and area >= _SURELY_VISIBLE:
            return False
        return not masks.areas([self._mask(annotation)])[0]

    def _mask(self, annotation: Mapping[str, Any]) -> Rle:
        try:
            return self._file.mask(annotation, self.raster)
        except ValueError as error:
            raise self._file.error(annotation, annotation["image_id"], error) from None

    def _image_path(self, image_id: int) -> Path:
        name = self._file.images[image_id].file_name
        if not name:
            raise InputError(f"{self._file.path}: image {image_id} has no file_name; name its file there")
        path = self._find(name)
        if path is None:
            raise InputError(
                f"{self._file.path}: image {image_id}: no {shown(name)} in {self._find}; name its folder with "
                "images=..."
            )
        return path

    def _hashed(self, place: int) -> tuple[int, str]:
        """Image id and SHA-256 of the segmentation, which does not depend on how the JSON is written."""
        annotation = self._file.annotation(place)
        try:
            text = orjson.dumps(annotation.get("segmentation"), option=orjson.OPT_SORT_KEYS)
        except TypeError:  # nested too deep, or a number of more than 64 bits
            problem = "the segmentation is neither polygons nor run lengths"
            raise self._file.error(annotation, annotation["image_id"], problem) from None
        return annotation["image_id"], hashlib.sha256(text).hexdigest()


def _open_annotated(
    dialect: Dialect, name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]
) -> SampleSource:
    """The samples of an annotation file of COCO's or LVIS's layout.

    Options: `annotations`, the JSON; `images`, folders in which images are looked for, in this order; both relative
    to `folder`; `raster`, how polygons become masks.
    """
    file = open_annotations(folder / options["annotations"], dialect)
    folders = [folder / part for part in options["images"]]
    find = ImageFinder(folders, file.image_names, file.path)
    return AnnotatedSamples(name, file, find, options["raster"], facts)


open_coco = partial(_open_annotated, "coco")
open_lvis = partial(_open_annotated, "lvis")


def open_photo_samples(
    name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]
) -> SampleSource:
    """The objects of the embedded photos; `folder` and `options` are not used."""
    from disbench.datasets.photos import open_photos, photo_path  # noqa: PLC0415

    return AnnotatedSamples(name, open_photos(), photo_path, "pycocotools", facts, _photo_sha256)


def _photo_sha256(path: Path) -> str:
    """SHA-256 (hex) of a PNG photo's pixels, or of a JPEG's bytes.

    The packages that contain the photos may compress a PNG differently without changing a pixel; a JPEG's pixels
    depend on the decoder, its bytes do not.
    """
    if path.suffix.lower() != ".png":
        return file_sha256(path)
    pixels = read_rgb(path)
    return hashlib.sha256(f"{pixels.shape}\n".encode() + pixels.tobytes()).hexdigest()
