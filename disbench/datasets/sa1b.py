"""SA-1B: scenes from one JSON of masks per image, without categories or links.

A. Kirillov et al. Segment anything. ICCV 2023.
"""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core import masks
from disbench.core.errors import InputError, quote
from disbench.core.masks import Rle, as_integer
from disbench.core.scenes import KeyedScenes, Scene, scene_objects
from disbench.datasets.json_index import read_json_file
from disbench.datasets.scene_sources import BadAnnotations, check_count, image_size, refuse
from disbench.io.files import Stamp, has_control_character

ALL = "train"  # the split of all images; SA-1B has no other
_FILE = re.compile(r"sa_(0|[1-9][0-9]{0,8})\.(json|jpg)")
_DEPTH = 3  # maximum depth of subfolders searched; annotations/sa_000000 has two levels
_MASK_BYTES = 500  # approximate JSON size of a mask


class Sa1bScenes(KeyedScenes):
    """Scenes of SA-1B (a `SceneSource`), sorted by number.

    `sa_N.json` and `sa_N.jpg` are in the same folder, or in folders `annotations` and `images`, or subfolders of these.
    Images are optional. All masks are things of the category "object".

    Memory: 8 bytes per image, 45 while scanning the folder; paths are not stored.

    `folder` has the files, or the folders from the archives (sa_000000 ...); `split` is "train" for all images, or the
    name of a subfolder. `InputError` if there is no such folder, no `sa_N.json` in it, or two with the same number.
    """

    name = "sa1b"

    def __init__(self, folder: Path, split: str = ALL, bad: BadAnnotations = "fail") -> None:
        self.folder, self._bad = folder, bad
        self._folders: list[str] = []  # relative, with a slash at the end
        self._photos: list[str] = []  # image folder of each folder
        numbers, places, photos = array("I"), array("I"), array("I")
        for prefix in _folders(folder, _start(folder, split)):
            found, before = {"json": numbers, "jpg": photos}, len(photos)
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    if match := _FILE.fullmatch(entry.name):
                        found[match[2]].append(int(match[1]))
            places.extend(array("I", [len(self._folders)]) * (len(numbers) - len(places)))
            self._folders.append(prefix)
            beside = "/".join("images" if part == "annotations" else part for part in prefix.split("/"))
            self._photos.append(prefix if len(photos) > before else beside)
        if not numbers:
            raise InputError(f"{folder}: no sa_N.json in it; give the folder that SA-1B's archives were unpacked to")
        order = np.argsort(np.asarray(numbers), kind="stable")
        self._numbers, self._places = np.asarray(numbers)[order], np.asarray(places)[order]
        self.keys = range(len(numbers))
        (again,) = np.nonzero(self._numbers[1:] == self._numbers[:-1])
        if again.size:
            one, other = (self._path(index) for index in (again[0], again[0] + 1))
            raise InputError(f"{one}: {other} has the same number; remove one of them")
        alone = int(np.isin(np.asarray(photos), self._numbers, invert=True).sum())
        self.dropped = Counter({"image without a JSON": alone} if alone else {})

    def object_counts(self, images: range) -> list[int]:
        """Approximate number of masks per image in a range, from file sizes."""
        return [max(0, Stamp.of(self._path(index)).size) // _MASK_BYTES for index in images]

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the path and size of every JSON file, about ten seconds for a million.

        Reading the files would take as long as sampling them, so changes that keep a file's size go undetected.
        """
        joint = hashlib.sha256()
        for index in self.keys:
            path = self._path(index)
            joint.update(f"{path.relative_to(self.folder).as_posix()} {Stamp.of(path).size}\n".encode())
        return {f"{self.name}:names and sizes": joint.hexdigest()}

    def _path(self, index: int) -> Path:
        return self.folder / f"{self._folders[self._places[index]]}sa_{self._numbers[index]}.json"

    def _scene(self, key: int) -> Scene:
        path, photo = self._path(key), f"sa_{self._numbers[key]}.jpg"
        content = read_json_file(path)
        image, found = content.get("image"), content.get("annotations")
        if not isinstance(image, dict) or not isinstance(found, list):
            raise InputError(f"{path}: no 'image' and 'annotations', as in SA-1B's files; get it again")
        if str(image.get("file_name")).rpartition("/")[2] != photo:
            raise InputError(f"{path}: its image is {quote(image.get('file_name'))}, not {photo}; get it again")
        height, width = image_size(path, image.get("height"), image.get("width"))
        check_count(path, len(found))
        dropped: Counter[str] = Counter()
        try:
            rles = _masks(found, height, width)
        except ValueError:  # one by one, to find the bad one
            rles = {}
            for annotation in found:
                try:
                    ((number, rle),) = _masks([annotation], height, width).items()
                    if rles.setdefault(number, rle) is not rle:
                        raise ValueError("another mask in the image has the same id")
                except ValueError as error:
                    said = quote(annotation.get("id") if isinstance(annotation, dict) else annotation)
                    refuse(self._bad, f"{path}: annotation {said}: {error}", dropped, "fix it")
        objects = scene_objects(list(rles.values()), (("object", None, number, self.name) for number in rles))
        file_name = f"{self._photos[self._places[key]]}{photo}"
        return Scene(photo.removesuffix(".jpg"), file_name, height, width, self.name, objects, dropped=dropped)


def _start(folder: Path, split: str) -> str:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of SA-1B")
    if split == ALL:
        return ""
    known = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if split not in known:
        known_splits = ", ".join(known[:8]) or "none here"
        raise InputError(f"{folder}: no split {quote(split)}; use {ALL} for all images, or a subfolder: {known_splits}")
    return f"{split}/"


def _folders(folder: Path, prefix: str, depth: int = _DEPTH) -> Iterator[str]:
    """Sorted subfolders, including the folder itself, relative to `folder` with a trailing slash."""
    yield prefix
    if depth:
        with os.scandir(folder / prefix) as found:
            names = sorted(entry.name for entry in found if not entry.name.startswith(".") and entry.is_dir())
        for name in names:
            if has_control_character(name):
                raise InputError(f"{folder / prefix}: the name {quote(name)} is not plain text; rename the folder")
            yield from _folders(folder, f"{prefix}{name}/", depth - 1)


def _masks(annotations: Sequence[Any], height: int, width: int) -> dict[int, Rle]:
    """Masks by annotation id; ValueError if one is malformed."""
    ids: list[int] = []
    for annotation in annotations:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("segmentation"), dict):
            raise ValueError("its segmentation is not an RLE")
        if (number := as_integer(annotation.get("id"))) is None:
            raise ValueError("its id is not an integer")
        ids.append(number)
    if len(set(ids)) < len(ids):
        raise ValueError("two masks in the image have the same id")
    segmentations = [annotation["segmentation"] for annotation in annotations]
    return dict(zip(ids, masks.from_segmentations(segmentations, height, width), strict=True))
