"""PartImageNet: one tree per image, an object of an ImageNet class and its parts. Also SPIN, with subparts.

There are two releases. `PartImageNet_Seg` has label maps of parts, with one mask per part class, and of wholes.
`PartImageNet_OOD` has polygons in COCO format without wholes; the whole is the union of the parts.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from disbench.core import masks
from disbench.core.arrays import ByteArray
from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_OBJECTS
from disbench.core.masks import Rle, pairwise_overlaps
from disbench.core.scenes import LINK, Links, Scene, SceneObject, scene_objects
from disbench.datasets.instances import AnnotatedImages, AnnotationFile, FileScenes, open_annotations
from disbench.datasets.json_index import Id
from disbench.datasets.label_maps import joint_sha256, read_label_png
from disbench.datasets.scene_sources import BadAnnotations, refuse
from disbench.io.archives import safe_path

NAME = "partimagenet"
# Part classes by their label in the maps, from 0.
PARTS = (
    *(f"Quadruped {part}" for part in ("Head", "Body", "Foot", "Tail")),
    *(f"Biped {part}" for part in ("Head", "Body", "Hand", "Foot", "Tail")),
    *(f"Fish {part}" for part in ("Head", "Body", "Fin", "Tail")),
    *(f"Bird {part}" for part in ("Head", "Body", "Wing", "Foot", "Tail")),
    *(f"Snake {part}" for part in ("Head", "Body")),
    *(f"Reptile {part}" for part in ("Head", "Body", "Foot", "Tail")),
    *(f"Car {part}" for part in ("Body", "Tier", "Side Mirror")),
    *(f"Bicycle {part}" for part in ("Body", "Head", "Seat", "Tier")),
    *(f"Boat {part}" for part in ("Body", "Sail")),
    *(f"Aeroplane {part}" for part in ("Head", "Body", "Engine", "Wing", "Tail")),
    *(f"Bottle {part}" for part in ("Mouth", "Body")),
)
NO_PART, NO_WHOLE = 40, 158  # background labels in maps of parts and of wholes
_SYNSET = re.compile(r"n\d{8}(?=_)")


class PartImageNetScenes(FileScenes):
    """Scenes of one split of PartImageNet (a `SceneSource`), sorted by map name or image id.

    A scene has the parts, in the order of their classes or the file, and then the whole, whose category is the ImageNet
    class in the image's name ("n01440764"). Without a map of wholes, the whole is the union of the parts.

    `folder` has `annotations/SPLIT` and `annotations/SPLIT_whole` (Seg), or `SPLIT.json` (OOD); `split` is train, val
    or test. Unknown classes are malformed annotations. `InputError` if neither release has this split.
    """

    name = NAME

    def __init__(self, folder: Path, split: str, bad: BadAnnotations) -> None:
        self.split, self.bad = split, bad
        self._parts, self._wholes = (folder / "annotations" / part for part in (split, f"{split}_whole"))
        self.keys, self.files = [], []
        self._file: AnnotatedImages | None = None
        if self._parts.is_dir():
            with os.scandir(self._parts) as entries:
                names = [entry.name for entry in entries]
            self.keys = sorted(name[:-4] for name in names if name.endswith(".png") and name[0] != ".")
            for name in self.keys:
                safe_path(name, self._parts)
        elif (file := folder / f"{split}.json").is_file():
            self._file = AnnotatedImages([open_annotations(file, "coco", bad=bad)])
            self.keys, self.files = range(len(self._file)), self._file.files
        if self._file is None and not self.keys:
            seg, ood = f"PNGs in annotations/{split} (PartImageNet_Seg)", f"{split}.json (PartImageNet_OOD)"
            raise InputError(f"{folder}: neither {seg} nor {ood}; give their folder, and the split train, val or test")

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the JSON, or joint ones over the maps of parts and of wholes."""
        if self._file is not None:
            return self._file.fingerprint()
        wholes = filter(Path.is_file, self._paths(self._wholes))
        return {
            f"{NAME}:{self.split}": joint_sha256(self._paths(self._parts)),
            f"{NAME}:{self.split}_whole": joint_sha256(wholes),
        }

    def _paths(self, folder: Path) -> Iterator[Path]:
        return (folder / f"{name}.png" for name in self.keys)

    def _scene(self, key: Any) -> Scene:
        if self._file is None:
            return self._of_maps(key)
        (scene,) = self._file.read([key])
        parts = tuple(dataclasses.replace(item, source=NAME) for item in scene.objects)
        file = PurePosixPath(scene.file_name).name
        scene = dataclasses.replace(scene, file_name=f"{self.split}/{file[:9]}/{file}", source=NAME)
        return _with_whole(scene, parts, None, None)

    def _of_maps(self, name: str) -> Scene:
        dropped: Counter[str] = Counter()
        path = self._parts / f"{name}.png"
        labels = read_label_png(path)
        height, width = labels.shape
        found = masks.from_label_map(labels, (NO_PART,))
        for number in [number for number in found if number > NO_PART]:
            refuse(self.bad, f"{path}: part class {number}, not 0 to {NO_PART - 1}", dropped)
            del found[number]
        whole = self._whole(name, labels, dropped)
        parts = scene_objects(list(found.values()), ((PARTS[number], None, number, NAME) for number in found))
        scene = Scene(name, f"images/{self.split}/{name}.JPEG", height, width, NAME, (), dropped=dropped)
        return _with_whole(scene, parts, whole, NO_PART)

    def _whole(self, name: str, parts: ByteArray, dropped: Counter[str]) -> Rle | None:
        """The whole's mask from the map of wholes; None if the map is missing or empty."""
        path = self._wholes / f"{name}.png"
        if not path.is_file():
            return None
        labels = read_label_png(path, size=parts.shape)
        inside = labels != NO_WHOLE
        classes = np.unique(labels[inside]).tolist()
        if len(classes) > 1 or max(classes, default=0) > NO_WHOLE:
            refuse(self.bad, f"{path}: classes {quote(classes)} of wholes, not one of 0 to {NO_WHOLE - 1}", dropped)
            return None
        if classes and (inside != (parts != NO_PART)).any():
            dropped[f"{LINK}whole differs from its parts"] += 1
        return masks.encode(inside) if classes else None


def _with_whole(scene: Scene, parts: tuple[SceneObject, ...], whole: Rle | None, number: int | None) -> Scene:
    """The scene with these parts and their whole, by default their union."""
    rles = [item.rle for item in parts if item.area]
    if whole is None and rles:
        whole = masks.union(rles)
    if whole is None:
        return dataclasses.replace(scene, objects=parts)
    synset = _SYNSET.match(PurePosixPath(scene.file_name).name)
    item = scene_objects([whole], [(synset[0] if synset else "whole", None, number, NAME)])
    return dataclasses.replace(scene, objects=parts + item, links=Links((*(len(parts) for _ in parts), -1)))


SPIN = "spin"
LEVELS = ("wholes", "parts", "subparts")
MIN_CONTAINED = 0.80  # a mask contains another if it has more than this share of its pixels, as in docs/hierarchy.md
_IDS = 10**9  # added to the ids of parts, and twice to those of wholes
_WHOLES = {name.partition(" ")[0].lower() for name in PARTS}
_WORDS = {"tier": "tire"}
_ENDING = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)


class SpinScenes(FileScenes):
    """Scenes of one split of SPIN (SubPartImageNet), all images in any of its files, sorted by name.

    Objects are in file order, wholes before parts before subparts. SPIN declares no links: the parent of a subpart is
    the part that contains it and whose name is a prefix of the subpart's ("Car-Tire", "Car-Tire-Rim"); the same holds
    for parts and wholes. For names of another form, containment alone decides.

    `folder` has `spin_SPLIT_wholes.json`, `spin_SPLIT_parts.json` and `spin_SPLIT_subparts.json`; `split` is train, val
    or test. `InputError` for a missing or damaged file, or files that disagree about an image's size.
    """

    name = SPIN

    def __init__(self, folder: Path, split: str, bad: BadAnnotations) -> None:
        paths = [folder / f"spin_{split}_{level}.json" for level in LEVELS]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path}: no such file; give the folder that has it, and the split train, val or test")
        self.split = split
        self.files = [open_annotations(path, "coco", bad=bad) for path in paths]
        self._ids = [_by_name(file) for file in self.files]
        self.keys = sorted(set().union(*self._ids))

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each file by name."""
        return {f"{SPIN}:{file.path.name}": file.sha256 for file in self.files}

    def _scene(self, key: str) -> Scene:
        dropped: Counter[str] = Counter()
        levels: list[list[SceneObject]] = []
        sizes: dict[tuple[int, int], Path] = {}
        for above, (file, ids) in zip((2, 1, 0), zip(self.files, self._ids, strict=True), strict=True):
            found = file.objects(ids[key], "pycocotools", dropped) if key in ids else []
            levels.append([])
            for item in (one.item for one in found):  # ids may repeat across the files; subparts keep theirs
                number = None if item.annotation_id is None else above * _IDS + item.annotation_id
                levels[-1].append(dataclasses.replace(item, source=SPIN, annotation_id=number))
            if key in ids:
                record = file.images[ids[key]]
                sizes.setdefault((record.height, record.width), file.path)
        ((height, width), path), *others = sizes.items()
        if others:
            raise InputError(f"{others[0][1]}: image {quote(key)} has another size in {path}; get both files again")
        objects = tuple(item for level in levels for item in level)
        # Scenes with more objects are not sampled.
        links = Links(tuple(_parents(levels, dropped))) if len(objects) <= MAX_OBJECTS else None
        image = f"images/{self.split}/{key}.JPEG"
        return Scene(key, image, height, width, SPIN, objects, dropped=dropped, links=links)


def _by_name(file: AnnotationFile) -> dict[str, Id]:
    found: dict[str, Id] = {}
    for image_id, path in file.image_names():
        name = _ENDING.sub("", PurePosixPath(path).name)
        if not name or name in found:
            problem = f"has the file_name {quote(path)} of image {found[name]}" if name else "has no file_name"
            raise InputError(f"{file.path}: image {image_id} {problem}; get the file again")
        found[name] = image_id
    return found


def _parents(levels: Sequence[Sequence[SceneObject]], dropped: Counter[str]) -> Iterator[int]:
    yield from (-1 for _ in levels[0])
    first = 0
    for level, (outers, inners) in enumerate(pairwise(levels)):
        pairs = np.ones((len(inners), len(outers)), np.bool_)
        held = pairwise_overlaps(pairs, [item.rle for item in inners], [item.rle for item in outers], "contained")
        above = [_name_words(item.category, level) for item in outers]
        for inner, shares in zip(inners, held.tolist(), strict=True):
            chain = _name_words(inner.category, level + 1)
            fits = [i for i, name in enumerate(above) if not (name and chain) or chain[: len(name)] == name]
            if not inner.area or not fits:
                dropped[f"{LINK}parent missing"] += inner.area > 0
                yield -1
                continue
            best = max(fits, key=lambda i: (shares[i], -outers[i].area, -(outers[i].annotation_id or 0)))
            dropped[f"{LINK}name unknown"] += not (above[best] and chain)
            dropped[f"{LINK}parent outside"] += shares[best] <= MIN_CONTAINED
            yield first + best if shares[best] > MIN_CONTAINED else -1
        first += len(outers)


def _name_words(category: str, level: int) -> tuple[str, ...]:
    """The words of a name such as "Car-Tire-Rim"; empty for other forms. PartImageNet spells tire "tier"."""
    first, *words = (_WORDS.get(word, word) for word in re.split(r"[\s_-]+", category.strip().lower()))
    is_chain = first in _WHOLES and (len(words) >= level if level else not words)
    return (first, *words) if is_chain else ()
