"""Panoptic Parts of Cityscapes and PASCAL: one uid per pixel encodes class, instance and part.

D. de Geus et al. Part-aware panoptic segmentation. CVPR 2021.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from disbench.core import masks
from disbench.core.arrays import IntArray
from disbench.core.errors import InputError
from disbench.core.limits import MAX_OBJECTS
from disbench.core.scenes import KeyedScenes, Kind, Links, Scene, scene_objects
from disbench.datasets.label_maps import distinct, joint_sha256, open_mask
from disbench.datasets.pascal_part import VOC_PLACES, keys_fingerprint, part_keys
from disbench.datasets.scene_sources import BadAnnotations, refuse
from disbench.io.files import is_utf8

_CITY_MAPS = ("gtFinePanopticParts", "gtFinePanopticParts_trainval/gtFinePanopticParts")
_CITY_IMAGES = ("leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit")
_CITY_MAP, _CITY_IMAGE = "_gtFinePanopticParts.tif", "_leftImg8bit.png"
_PASCAL_FOLDERS = {"train": "training", "val": "validation"}
# Uids below these limits have a class (stuff); class and instance; class, instance and part.
_CLASSES, _INSTANCES, _PARTS = 100, 100_000, 10_000_000
_NO_SCENE = 3  # Cityscapes' classes up to this one are not part of the scene, such as the ego vehicle
_HUMANS, _VOID_PART = ("person", "rider"), 5  # some Cityscapes files have this undefined part of humans


class PanopticPartsScenes(KeyedScenes):
    """Scenes of Cityscapes or PASCAL Panoptic Parts (a `SceneSource`), sorted by file; detected by their folders.

    Things are sorted by uid, each followed by its disjoint parts; stuff is last. `annotation_id` is the uid. Memory: 24
    bytes per pixel.

    `folder` has `gtFinePanopticParts` and `leftImg8bit`, or `training` and `validation` and VOC2010's `JPEGImages`;
    `split` is `train` or `val`. Invalid uids count as malformed records. `InputError` if the split's files are missing.
    """

    name = "panoptic-parts"

    def __init__(self, folder: Path, split: str = "train", bad: BadAnnotations = "fail") -> None:
        self.folder, self.split, self.bad = folder, split, bad
        pascal = _PASCAL_FOLDERS.get(split, split)
        city = [path for place in _CITY_MAPS for path in (folder / place / split).glob(f"*/[!.]*{_CITY_MAP}")]
        self._city = bool(city)
        found = city or (folder / pascal).glob("[!.]*.tif")
        self.keys = sorted(path.relative_to(folder).as_posix() for path in found)
        if not self.keys:
            maps = f"{_CITY_MAPS[0]}/{split}/CITY/NAME{_CITY_MAP}"
            raise InputError(
                f"{folder}: no {maps} of Cityscapes and no {pascal}/NAME.tif of PASCAL; give another folder"
            )
        if odd := next((name for name in self.keys if not is_utf8(name)), None):
            raise InputError(f"{folder}: the name of {odd!a} is not UTF-8; rename the file")
        places = _CITY_IMAGES if self._city else tuple(f"{place}JPEGImages" for place in VOC_PLACES)
        self._images = next((place for place in places if (folder / place).is_dir()), places[0])

    def fingerprint(self) -> dict[str, str]:
        """Joint SHA-256 of all label maps, and SHA-256 of the table of names and part keys."""
        maps = joint_sha256(self.folder / path for path in self.keys)
        return {f"{self.name}:{self.split}": maps, **keys_fingerprint()}

    def _scene(self, key: str) -> Scene:
        path = self.folder / key
        with open_mask(path, ("I",)) as opened:
            labels = np.array(opened)
        dropped: Counter[str] = Counter()
        names = part_keys().cityscapes if self._city else part_keys().pascal_panoptic
        wholes: dict[int, list[tuple[int, masks.Rle]]] = {}
        found: list[_Region] = []
        stuff: list[_Region] = []
        for uid, rle in masks.from_label_map(labels, self._left_out(path, labels, dropped)).items():
            if uid < _CLASSES:
                stuff.append(_Region(uid, rle, names.class_name(uid), "stuff"))
                continue
            whole, part = (uid, 0) if uid < _INSTANCES else divmod(uid, 100)
            wholes.setdefault(whole, []).append((part, rle))
        for whole, pieces in sorted(wholes.items()):
            category = names.class_name(whole // 1000)
            parent = len(found)
            found.append(_Region(whole, masks.union([rle for _, rle in pieces]), category))
            for part, rle in pieces:
                if self._city and part == _VOID_PART and category in _HUMANS:
                    dropped["part that is not defined"] += 1
                elif part:
                    title, keys = names.part(category, part)
                    found.append(_Region(100 * whole + part, rle, f"{category}:{title}", "thing", keys, parent))
        found += stuff
        about = ((one.category, None, one.uid, self.name, one.kind, one.keys) for one in found)
        objects, (height, width) = scene_objects([one.rle for one in found], about), labels.shape
        links = Links(tuple(one.parent for one in found))
        return Scene(*self._image(key), height, width, self.name, objects, dropped=+dropped, links=links)

    def _image(self, name: str) -> tuple[str, str]:
        path = PurePosixPath(name)
        if not self._city:
            return path.stem, f"{self._images}/{path.stem}.jpg"
        stem = path.name.removesuffix(_CITY_MAP)
        return stem, f"{self._images}/{self.split}/{path.parent.name}/{stem}{_CITY_IMAGE}"

    def _left_out(self, path: Path, labels: IntArray, dropped: Counter[str]) -> list[int]:
        """Labels of a map to ignore; an invalid uid raises or is counted."""
        values = distinct(labels)
        if len(values) > MAX_OBJECTS:
            raise InputError(f"{path}: {len(values):,} different numbers, more than {MAX_OBJECTS:,}; get it again")
        wrong = values[(values < 0) | ((values >= _CLASSES) & (values < 1000)) | (values >= _PARTS)].tolist()
        for uid in wrong:
            refuse(self.bad, f"{path}: {uid} is not a uid (1, 2 or 4 to 7 digits)", dropped)
        return [*range(_NO_SCENE + 1 if self._city else 1), *wrong]


class _Region(NamedTuple):
    uid: int
    rle: masks.Rle
    category: str
    kind: Kind = "thing"
    keys: tuple[str, ...] = ()
    parent: int = -1
