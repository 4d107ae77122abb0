"""Datasets of scenes as benchmarks: one sample for each object and part with a pixel."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core import masks
from disbench.core.errors import InputError, shown
from disbench.core.samples import Content, Sample, SampleSource
from disbench.core.scenes import Scene, SceneSource
from disbench.datasets.file_samples import check_target, in_threads, joint_content, or_none
from disbench.datasets.images import ImageFinder, read_rgb
from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.datasets.scene_sources import open_folder_scenes
from disbench.io.files import file_sha256


class SceneSamples:
    """One sample for each thing with a pixel, parts included (a `SampleSource`).

    Samples are in the order of the scenes, then of their objects; a sample's id is the image's id and the annotation's:
    "ADE_val_00000001/17", or "object-3" where it has none. All scenes are read when the dataset is opened.

    Args:
        name: name of the dataset's card.
        source: the scenes.
        find: the path of an image from a scene's `file_name`, None where there is none.
        facts: JSON-ready facts to record.

    Raises:
        InputError: a malformed record, no object with a pixel, or two with one id.
    """

    def __init__(
        self, name: str, source: SceneSource, find: Callable[[str], Path | None], facts: Mapping[str, object]
    ) -> None:
        self.name, self._source, self._find, self._facts = name, source, find, dict(facts)
        self._left_out = Counter(getattr(source, "dropped", {}))
        self._places: list[tuple[int, int]] = []
        self._files: list[str] = []
        self._digests: list[str] = []
        ids: list[str] = []
        for index, scene in enumerate(source.read(range(len(source)))):
            self._left_out.update(scene.dropped)
            for number, item in enumerate(scene.objects):
                if item.kind != "thing" or not item.area:
                    self._left_out["empty mask" if not item.area else f"{item.kind} region"] += 1
                    continue
                self._places.append((index, number))
                self._files.append(scene.file_name)
                self._digests.append(hashlib.sha256(item.rle["counts"]).hexdigest())
                known = item.annotation_id is not None
                ids.append(f"{scene.image_id}/{item.annotation_id if known else f'object-{number}'}")
        self.ids: Sequence[str] = ids
        if not ids:
            raise InputError(f"{name}: no object with a pixel in {len(source)} images; choose another split")
        (repeated, times), *_ = Counter(ids).most_common(1)
        if times > 1:
            raise InputError(f"{name}: two objects have the id {repeated!r}; get the dataset's own files")
        self._kept: tuple[int, Scene] | None = None

    def read(self, index: int) -> Sample:
        """One sample by its index.

        Raises:
            InputError: a missing or damaged file, or an image of another size than its annotations.
        """
        place, number = self._places[index]
        if self._kept is None or self._kept[0] != place:
            self._kept = place, next(iter(self._source.read([place])))
        scene, path = self._kept[1], self._path(self._files[index])
        image = read_rgb(path)
        target = masks.decode(scene.objects[number].rle).astype(np.int8)
        check_target(target, image, path, self.ids[index], path)
        return Sample(self.ids[index], image, target)

    def content_hash(self) -> str:
        """SHA-256 of ids, images and masks (docs/benchmark-datasets.md)."""
        return self._content(self._image_digest).whole

    def content(self) -> Content:
        """The content hash, and that of each sample; null stands for an image that cannot be read."""
        return self._content(or_none(self._image_digest))

    def facts(self) -> dict[str, object]:
        """Title and options of the card, the number of images with a sample, and what was left out."""
        images = len(set(self._files))
        return {**self._facts, "rule": "scene-object", "images": images, "left_out": dict(+self._left_out)}

    def _image_digest(self, file_name: str) -> str:
        return file_sha256(self._path(file_name))

    def _content(self, digest: Callable[[str], str | None]) -> Content:
        files = list(dict.fromkeys(self._files))
        images = dict(zip(files, in_threads(digest, files), strict=True))
        columns = zip(self.ids, self._files, self._digests, strict=True)
        return joint_content("scene-object", ([one, 0, images[file], mask] for one, file, mask in columns))

    def _path(self, file_name: str) -> Path:
        path = self._find(file_name)
        if path is None:
            raise InputError(f"{self.name}: no {shown(file_name)} in {self._find}; name its folder with images=...")
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
