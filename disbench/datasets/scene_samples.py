"""Datasets of scenes as benchmarks: one sample for each object and part with a pixel."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError, shown
from disbench.core.masks import Rle
from disbench.core.samples import SampleSource
from disbench.core.scenes import Scene, SceneSource
from disbench.datasets.file_samples import ObjectSamples
from disbench.datasets.images import ImageFinder
from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.datasets.scene_sources import open_folder_scenes


class SceneSamples(ObjectSamples):
    """One sample for each thing with a pixel, parts included (a `SampleSource`).

    Samples are in the order of the scenes, then of their objects; a sample's id is the image's id and the annotation's:
    "ADE_val_00000001/17", or "object-3" where it has none. All scenes are read when the dataset is opened.

    `find` gives the path of an image from a scene's `file_name`, None where there is none.

    Raises:
        InputError: a malformed record, no object with a pixel, or two with one id.
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
            raise InputError(f"{name}: no object with a pixel in {len(source)} images; choose another split")
        (repeated, times), *_ = Counter(ids).most_common(1)
        if times > 1:
            raise InputError(f"{name}: two objects have the id {repeated!r}; get the dataset's own files")
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
            raise InputError(f"{self.name}: no {shown(image)} in {self._find}; name its folder with images=...")
        return path


def open_scenes(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """The objects and parts of a dataset that is opened by its folder.

    Options: `reader`, a key of `scene_sources.READERS`; `split`; `images`, folders in which images are looked for, in
    this order, relative to `folder` ("." is the folder itself); `bad_annotations`, "fail" (default) or "drop".
    """
    bad = options.get("bad_annotations", "fail")
    source = open_folder_scenes(options["reader"], folder, options["split"], bad)
    return SceneSamples(name, source, _finder(folder, options), facts)


def open_panoptic(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """The things of a COCO panoptic file.

    Options: `annotations`, the JSON; `masks`, the folder of its PNGs; `images`, folders in which images are looked for,
    in this order; all relative to `folder`; `bad_annotations`, "fail" (default) or "drop".
    """
    bad = options.get("bad_annotations", "fail")
    path, pngs = folder / options["annotations"], folder / options["masks"]
    file = open_annotations(path, "panoptic", bad=bad, option="--dataset-option", png_folder=pngs)
    source = AnnotatedImages([file], coco_masks="panoptic")
    return SceneSamples(name, source, _finder(folder, options), facts)


def _finder(folder: Path, options: Mapping[str, Any]) -> ImageFinder:
    return ImageFinder([folder / part for part in options["images"]], source=folder)
