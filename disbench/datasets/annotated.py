"""COCO, LVIS and the embedded photos: one sample for every annotation of a JSON file."""

from __future__ import annotations

import hashlib
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
from disbench.datasets.images import find_image, read_rgb
from disbench.datasets.instances import CURE, AnnotationFile, Dialect, is_whole, open_annotations
from disbench.io.files import file_sha256

FileFinder = Callable[[str], Path]
_SURELY_VISIBLE = 10.0
"""Square pixels; an annotation of a smaller declared area may have no pixel and is drawn to find out."""


class AnnotatedSamples:
    """One sample for every annotation but crowd regions (a `SampleSource`).

    Images come in ascending order of their id, annotations of one in the order of the file. The id of a
    sample is the image file's stem and the annotation's id: "000000000139/230831". Annotations of less than
    ten declared square pixels are drawn when the dataset is opened, and left out if they have no pixel.

    Args:
        name: of the dataset's card.
        file: the annotations.
        find: the path of an image from its name in the annotations.
        raster: how polygons become masks.
        facts: JSON-ready facts to record.
        digest: SHA-256 (hex) of an image for the content hash.

    Raises:
        InputError: no annotation to sample; one without an id, or with one that another has.
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
            raise InputError(f"{file.path}: there is no annotation to sample in it; name another file")
        self._places = np.array([place for _, place, _ in chosen], dtype=np.int64)
        self.ids: Sequence[str] = [sample_id for *_, sample_id in chosen]
        self._images = len({image_id for image_id, *_ in chosen})
        if len(set(self.ids)) < len(self.ids):
            raise InputError(f"{file.path}: two annotations of an image have one id; mend the file")

    def read(self, index: int) -> Sample:
        """The sample of a number.

        Raises:
            InputError: an image that is missing or damaged or of another size than the annotations say, or
                an annotation that is not as it should be.
        """
        annotation = self._file.annotation(int(self._places[index]))
        path = self._find(self._image_name(annotation))
        image = read_rgb(path)
        target = masks.decode(self._mask(annotation)).astype(np.int8)
        check_target(target, image, path, self.ids[index])
        return Sample(self.ids[index], image, target)

    def content_hash(self) -> str:
        """SHA-256 of ids, images and segmentations (docs/benchmark-datasets.md)."""
        found = [self._deciding(place) for place in self._places.tolist()]
        names = list(dict.fromkeys(name for name, _ in found))
        digests = dict(zip(names, in_threads(lambda name: self._digest(self._find(name)), names), strict=True))
        parts = (
            [sample_id, 0, digests[name], segmentation]
            for sample_id, (name, segmentation) in zip(self.ids, found, strict=True)
        )
        return joint_hash(f"annotation-{self.raster}", parts)

    def facts(self) -> dict[str, object]:
        """Title and options of the card, how many images have a sample, and what was left out."""
        return {
            **self._facts,
            "rule": f"annotation-{self.raster}",
            "images": self._images,
            "left_out": dict(self._left_out),
        }

    def _chosen(self) -> Iterator[tuple[int, int, str]]:
        """Image id, place and sample id of every annotation that is a sample."""
        for image_id in sorted(self._file.slices):
            stem = PurePosixPath(self._file.images[image_id].file_name).stem
            for place in range(*self._file.slices[image_id]):
                annotation = self._file.annotation(place)
                if annotation.get("iscrowd"):
                    self._left_out["crowd"] += 1
                elif self._is_empty(annotation):
                    self._left_out["no pixel"] += 1
                else:
                    yield image_id, place, f"{stem}/{self._number(annotation)}"

    def _is_empty(self, annotation: Mapping[str, Any]) -> bool:
        area = annotation.get("area")
        if isinstance(area, int | float) and area >= _SURELY_VISIBLE:
            return False
        return not masks.areas([self._mask(annotation)])[0]

    def _number(self, annotation: Mapping[str, Any]) -> int:
        number = annotation.get("id")
        if not is_whole(number):
            raise InputError(
                f"{self._file.path}: an annotation of image {annotation['image_id']} has the id {shown(number)}; "
                "samples are named by it, so give it a whole number"
            )
        return number

    def _mask(self, annotation: Mapping[str, Any]) -> Rle:
        try:
            return self._file.mask(annotation, self.raster)
        except ValueError as error:
            raise InputError(
                f"{self._file.path}: annotation {shown(annotation.get('id'))} (image {annotation['image_id']}): "
                f"{error}; mend the file"
            ) from None

    def _image_name(self, annotation: Mapping[str, Any]) -> str:
        return self._file.images[annotation["image_id"]].file_name

    def _deciding(self, place: int) -> tuple[str, str]:
        """The image's name and the segmentation's SHA-256 of an annotation."""
        annotation = self._file.annotation(place)
        try:
            return self._image_name(annotation), _segmentation_sha256(annotation)
        except TypeError:  # what is nested too deep, or a number of more than 64 bits
            raise InputError(
                f"{self._file.path}: annotation {shown(annotation.get('id'))} (image {annotation['image_id']}): "
                "the segmentation is neither polygons nor run lengths; mend the file"
            ) from None


def open_annotated(
    name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object], dialect: Dialect
) -> SampleSource:
    """The samples of an annotation file of COCO's or LVIS's layout.

    Args:
        name: of the card.
        folder: that the options' paths are relative to.
        options: `annotations`, the JSON; `images`, folders in which images are looked for, in this order;
            `raster`, how polygons become masks.
        facts: to record.
        dialect: `coco` or `lvis`.

    Raises:
        InputError: the JSON is missing, damaged, or has no annotation to sample.
    """
    try:
        file = open_annotations(folder / options["annotations"], dialect)
    except InputError as error:  # its cure is an option of recipes
        raise InputError(str(error).replace(CURE, "mend the file")) from None
    find = partial(_find, tuple(folder / part for part in options["images"]))
    return AnnotatedSamples(name, file, find, options["raster"], facts)


def open_coco(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """The samples of COCO's instance annotations; see `open_annotated`."""
    return open_annotated(name, folder, options, facts, "coco")


def open_lvis(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """The samples of LVIS's annotations, v0.5 or v1; see `open_annotated`."""
    return open_annotated(name, folder, options, facts, "lvis")


def open_photo_samples(
    name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]
) -> SampleSource:
    """The objects of the embedded photos; `folder` and `options` are not needed."""
    from disbench.datasets.photos import open_photos, photo_path  # noqa: PLC0415

    return AnnotatedSamples(name, open_photos(), photo_path, "pycocotools", facts, photo_sha256)


def photo_sha256(path: Path) -> str:
    """SHA-256 (hex) of a photo's pixels if its format keeps them (PNG), else of its bytes.

    The packages that bring the photos may compress a PNG anew without changing a pixel; a JPEG's pixels
    depend on who decodes it, its bytes do not.
    """
    if path.suffix.lower() != ".png":
        return file_sha256(path)
    pixels = read_rgb(path)
    return hashlib.sha256(f"{pixels.shape}\n".encode() + pixels.tobytes()).hexdigest()


def _find(folders: Sequence[Path], file_name: str) -> Path:
    for folder in folders:
        if path := find_image(folder, file_name):
            return path
    looked = " or ".join(map(str, folders))
    raise InputError(f"{file_name}: there is no such image in {looked}; name its folder with images=...")


def _segmentation_sha256(annotation: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a segmentation, however the JSON around it is written."""
    text = orjson.dumps(annotation.get("segmentation"), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()
