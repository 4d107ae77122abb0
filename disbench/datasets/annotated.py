"""COCO, LVIS and the embedded photos: one sample per annotation of a JSON file."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import orjson

from disbench.core import masks
from disbench.core.choices import Exif
from disbench.core.errors import InputError, quote
from disbench.core.masks import Raster, Rle
from disbench.core.samples import SampleSource
from disbench.core.scenes import Scene, SceneSource
from disbench.datasets.file_samples import ObjectSamples, check_unique, notes_fact
from disbench.datasets.images import ImageFinder, exif_note, read_rgb
from disbench.datasets.instances import AnnotatedImages, AnnotationFile, Dialect, open_annotations
from disbench.datasets.json_index import Id, read_id
from disbench.datasets.scene_sources import open_folder_scenes
from disbench.io.files import file_sha256

FileFinder = Callable[[str], Path | None]
_OPTION = "--dataset-option"
_CROWD = "crowd region"


class AnnotatedSamples(ObjectSamples):
    """One sample per non-empty annotation, crowd regions only if requested (a `SampleSource`).

    Samples are sorted by image id, then in file order. A sample's id is the image file's stem and the annotation id:
    "000000000139/230831". If such ids repeat, images that share a stem use their full file_name: "video1/001.jpg/1".
    Opening the dataset reads all annotations.

    `find` maps an image's name in the annotations to its path, or None; `digest` gives its SHA-256 (hex) for the
    content hash; `raster` is how polygons are rasterized; other arguments are as for `ObjectSamples`.
    """

    def __init__(
        self,
        name: str,
        file: AnnotationFile,
        find: FileFinder,
        raster: Raster,
        facts: Mapping[str, object],
        digest: Callable[[Path], str] = file_sha256,
        *,
        crowds: bool = False,
        exif: Exif = "ignore",
    ) -> None:
        self.raster, self._file, self._find, self._digest = raster, file, find, digest
        left_out = Counter(file.dropped)
        chosen = list(self._chosen(crowds, left_out))
        if not chosen:
            found = ", ".join(f"{count} x {reason}" for reason, count in left_out.items()) or "it has none"
            fix = f"keep crowd regions with {_OPTION} crowds=keep, or " if left_out[_CROWD] else ""
            raise InputError(f"{file.path}: no annotation to sample ({found}); {fix}use another file")
        self._places = np.array([place for _, place, _ in chosen], dtype=np.int64)
        ids = self._named([(image_id, number) for image_id, _, number in chosen])
        images = [image_id for image_id, *_ in chosen]
        super().__init__(name, f"annotation-{raster}", facts, left_out, ids, images, exif)

    def facts(self) -> dict[str, object]:
        """The facts of `ObjectSamples`, plus notes."""
        return {**super().facts(), **notes_fact([exif_note(self._photos()) if self.exif == "ignore" else ""])}

    def _mask(self, index: int) -> Rle:
        record, annotation = self._file.images[self._images[index]], self._file.annotation(int(self._places[index]))
        segmentations = [annotation["segmentation"]]
        return masks.from_segmentations(segmentations, record.height, record.width, self.raster)[0]

    def _sha256_of(self, item: Id) -> str:
        return self._digest(self._image_path(item))

    def _photos(self) -> Iterator[Path]:
        """The samples' images; missing ones are reported when they are read."""
        for image_id in dict.fromkeys(self._images):
            with contextlib.suppress(InputError):
                yield self._image_path(image_id)

    def _named(self, chosen: Sequence[tuple[Id, Id]]) -> list[str]:
        names = {image_id: self._file.images[image_id].file_name for image_id, _ in chosen}
        stems = {image_id: PurePosixPath(name).stem for image_id, name in names.items()}
        ids = [f"{stems[image_id]}/{number}" for image_id, number in chosen]
        if len(set(ids)) < len(ids):  # annotation ids restart with every image
            counts = Counter(stems.values())
            ids = [f"{(stems if counts[stems[one]] == 1 else names)[one]}/{number}" for one, number in chosen]
        check_unique(ids, self._file.path, "give each annotation a unique id")
        return ids

    def _chosen(self, crowds: bool, left_out: Counter[str]) -> Iterator[tuple[Id, int, Id]]:
        """(image id, place, annotation id) of each annotation that becomes a sample."""
        for image_id in self._file.slices:
            for place, item, *_ in self._file.objects(image_id, self.raster, left_out):
                annotation = self._file.annotation(place)
                if not item.area:
                    left_out["empty mask"] += 1
                elif item.kind == "crowd" and not crowds:
                    left_out[_CROWD] += 1
                elif (number := read_id(annotation.get("id"))) is None:
                    self._file.refuse(annotation, "no id, which names the sample", left_out)
                else:
                    yield image_id, place, number

    def _image_path(self, image: Id) -> Path:
        name = self._file.images[image].file_name
        if not name:
            raise InputError(f"{self._file.path}: image {image} has no file_name; add it")
        path = self._find(name)
        if path is None:
            lacking = f"image {image}: no {quote(name)} in {self._find}"
            raise InputError(f"{self._file.path}: {lacking}; give its folder with images=...")
        return path

    def _mask_sha256(self, index: int) -> str:
        """SHA-256 (hex) of a segmentation, independent of JSON formatting."""
        place = int(self._places[index])
        segmentation = self._file.annotation(place)["segmentation"]
        try:
            return hashlib.sha256(orjson.dumps(segmentation, option=orjson.OPT_SORT_KEYS)).hexdigest()
        except TypeError as error:  # nested too deeply, or a number of more than 64 bits
            raise InputError(f"{self._file.path}: annotation {place}: segmentation: {error}; fix the file") from None


def _open_annotated(
    dialect: Dialect, name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]
) -> SampleSource:
    """The samples of an annotation file in COCO's or LVIS's format.

    Options: `annotations`, the JSON; `images`, folders to search for images, in order; both relative to `folder`;
    `raster`, how polygons are rasterized; `bad_annotations`, "fail" (default) or "drop"; `crowds`, "drop" (default) or
    "keep"; `exif`, "ignore" (default) or "apply" the images' EXIF orientation.
    """
    bad = options.get("bad_annotations", "fail")
    file = open_annotations(folder / options["annotations"], dialect, bad=bad, option=_OPTION)
    find = ImageFinder([folder / part for part in options["images"]], file.image_names, file.path)
    kept = {"crowds": options.get("crowds") == "keep", "exif": options.get("exif", "ignore")}
    return AnnotatedSamples(name, file, find, options["raster"], facts, **kept)


open_coco = partial(_open_annotated, "coco")
open_lvis = partial(_open_annotated, "lvis")


def open_photo_samples(
    name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]
) -> SampleSource:
    """The objects of the embedded photos; `folder` and `options` are ignored."""
    from disbench.datasets.photos import open_photos, photo_path  # noqa: PLC0415

    return AnnotatedSamples(name, open_photos(), photo_path, "pycocotools", facts, _photo_sha256)


def _photo_sha256(path: Path) -> str:
    """SHA-256 (hex) of a PNG photo's pixels, or of a JPEG's bytes.

    The packages with the photos may recompress a PNG without changing pixels; a JPEG's pixels depend on the decoder.
    """
    if path.suffix.lower() != ".png":
        return file_sha256(path)
    pixels = read_rgb(path)
    return hashlib.sha256(f"{pixels.shape}\n".encode() + pixels.tobytes()).hexdigest()


class SceneSamples(ObjectSamples):
    """One sample per non-empty thing, including parts (a `SampleSource`).

    Samples are in the order of scenes and their objects. A sample's id is the image id and the annotation id:
    "ADE_val_00000001/17", or "object-3" without an annotation id. Opening the dataset reads all scenes.

    `find` maps a scene's `file_name` to the image's path, or None.
    """

    def __init__(
        self, name: str, source: SceneSource, find: Callable[[str], Path | None], facts: Mapping[str, object]
    ) -> None:
        self._source, self._find = source, find
        left_out = Counter(getattr(source, "dropped", {}))
        self._places: list[tuple[int, int]] = []
        self._digests: list[str] = []
        files: list[str] = []
        ids: list[str] = []
        for index, scene in enumerate(source.read(range(len(source)))):
            left_out.update(scene.dropped)
            for number, item in enumerate(scene.objects):
                if item.kind != "thing" or not item.area:
                    left_out["empty mask" if not item.area else f"{item.kind} region"] += 1
                    continue
                self._places.append((index, number))
                files.append(scene.file_name)
                self._digests.append(hashlib.sha256(item.rle["counts"]).hexdigest())
                known = item.annotation_id is not None
                ids.append(f"{scene.image_id}/{item.annotation_id if known else f'object-{number}'}")
        if not ids:
            raise InputError(f"{name}: no non-empty object in {len(source)} images; use another split")
        check_unique(ids, name, "get the dataset's original files")
        self._kept: tuple[int, Scene] | None = None
        super().__init__(name, "scene-object", facts, left_out, ids, files)

    def _mask(self, index: int) -> Rle:
        place, number = self._places[index]
        if self._kept is None or self._kept[0] != place:
            self._kept = place, next(iter(self._source.read([place])))
        return self._kept[1].objects[number].rle

    def _mask_sha256(self, index: int) -> str:
        return self._digests[index]

    def _image_path(self, image: str) -> Path:
        path = self._find(image)
        if path is None:
            raise InputError(f"{self.name}: no {quote(image)} in {self._find}; give its folder with images=...")
        return path


def open_scenes(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """The objects and parts of a dataset opened by its folder.

    Options: `reader`, a key of `scene_sources.READERS`; `split`; `images`, folders to search for images, in order,
    relative to `folder` ("." is the folder itself); `bad_annotations`, "fail" (default) or "drop".
    """
    bad = options.get("bad_annotations", "fail")
    source = open_folder_scenes(options["reader"], folder, options["split"], bad)
    return SceneSamples(name, source, _finder(folder, options), facts)


def open_panoptic(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """The things of a COCO panoptic file.

    Options: `annotations`, the JSON; `masks`, the folder of its PNGs; `images`, folders to search for images, in order;
    all relative to `folder`; `bad_annotations`, "fail" (default) or "drop".
    """
    bad = options.get("bad_annotations", "fail")
    path, pngs = folder / options["annotations"], folder / options["masks"]
    file = open_annotations(path, "panoptic", bad=bad, option="--dataset-option", png_folder=pngs)
    source = AnnotatedImages([file], coco_masks="panoptic")
    return SceneSamples(name, source, _finder(folder, options), facts)


def _finder(folder: Path, options: Mapping[str, Any]) -> ImageFinder:
    return ImageFinder([folder / part for part in options["images"]], source=folder)
