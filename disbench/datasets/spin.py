"""SPIN (SubPartImageNet): wholes, parts and subparts of PartImageNet's images, in three COCO files a split.

No link is declared. A subpart hangs on the part that holds it and whose name its own begins with ("Car-Tire-Rim" on
"Car-Tire"), a part on the whole likewise; where a name is not of that form, on the one that holds it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from disbench.core.errors import InputError, shown
from disbench.core.limits import MAX_OBJECTS
from disbench.core.masks import overlaps_where
from disbench.core.scenes import LINK, Links, Scene, SceneObject
from disbench.datasets.instances import AnnotationFile, FileScenes, Id, open_annotations
from disbench.datasets.partimagenet import PARTS
from disbench.datasets.scene_sources import BadAnnotations

NAME = "spin"
LEVELS = ("wholes", "parts", "subparts")
HELD = 0.80
"""What holds a mask has more than this share of its pixels, as in docs/hierarchy.md."""
_IDS = 10**9
"""What ids of parts are raised by; those of wholes by twice as much."""
_WHOLES = {name.partition(" ")[0].lower() for name in PARTS}
_WORDS = {"tier": "tire"}
_ENDING = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)


class SpinScenes(FileScenes):
    """Scenes of one split of SPIN (a `SceneSource`): images that one of its files has, in the order of their names.

    Objects are in the order of their files, wholes before parts before subparts.

    `folder` has `spin_SPLIT_wholes.json`, `spin_SPLIT_parts.json` and `spin_SPLIT_subparts.json`; `split` is train, val
    or test.

    Raises:
        InputError: a missing or damaged file, or files that disagree about an image's size.
    """

    name = NAME

    def __init__(self, folder: Path, split: str, bad: BadAnnotations) -> None:
        paths = [folder / f"spin_{split}_{level}.json" for level in LEVELS]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path}: no such file; name the folder that has it, and the split train, val or test")
        self.split = split
        self.files = [open_annotations(path, "coco", bad=bad) for path in paths]
        self._ids = [_by_name(file) for file in self.files]
        self.keys = sorted(set().union(*self._ids))

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each file by name."""
        return {f"{NAME}:{file.path.name}": file.sha256 for file in self.files}

    def _scene(self, key: str) -> Scene:
        dropped: Counter[str] = Counter()
        levels: list[list[SceneObject]] = []
        sizes: dict[tuple[int, int], Path] = {}
        for above, (file, ids) in zip((2, 1, 0), zip(self.files, self._ids, strict=True), strict=True):
            found = file.objects(ids[key], "pycocotools", dropped) if key in ids else []
            levels.append([_of_level(one.item, above) for one in found])
            if key in ids:
                record = file.images[ids[key]]
                sizes.setdefault((record.height, record.width), file.path)
        ((height, width), path), *others = sizes.items()
        if others:
            raise InputError(f"{others[0][1]}: image {shown(key)} has another size in {path}; get both files again")
        objects = tuple(item for level in levels for item in level)
        # Of more objects no sets are made.
        links = Links(tuple(_parents(levels, dropped))) if len(objects) <= MAX_OBJECTS else None
        image = f"images/{self.split}/{key}.JPEG"
        return Scene(key, image, height, width, NAME, objects, dropped=dropped, links=links)


def _of_level(item: SceneObject, above: int) -> SceneObject:
    """The object with an id that no other level has: the three files may number alike. Subparts keep theirs."""
    number = None if item.annotation_id is None else above * _IDS + item.annotation_id
    return dataclasses.replace(item, source=NAME, annotation_id=number)


def _by_name(file: AnnotationFile) -> dict[str, Id]:
    """The image id of each image's name, without an ending."""
    found: dict[str, Id] = {}
    for image_id, path in file.image_names():
        name = _ENDING.sub("", PurePosixPath(path).name)
        if not name or name in found:
            problem = f"has the file_name {shown(path)} of image {found[name]}" if name else "has no file_name"
            raise InputError(f"{file.path}: image {image_id} {problem}; get the file again")
        found[name] = image_id
    return found


def _parents(levels: Sequence[Sequence[SceneObject]], dropped: Counter[str]) -> Iterator[int]:
    """The number of each object's parent, -1 for a root."""
    yield from (-1 for _ in levels[0])
    first = 0
    for level, (outers, inners) in enumerate(pairwise(levels)):
        pairs = np.ones((len(inners), len(outers)), np.bool_)
        held = overlaps_where(pairs, [item.rle for item in inners], [item.rle for item in outers], "contained")
        above = [_chain(item.category, level) for item in outers]
        for inner, shares in zip(inners, held.tolist(), strict=True):
            chain = _chain(inner.category, level + 1)
            fits = [i for i, name in enumerate(above) if not (name and chain) or chain[: len(name)] == name]
            if not inner.area or not fits:
                dropped[f"{LINK}parent missing"] += inner.area > 0
                yield -1
                continue
            best = max(fits, key=lambda i: (shares[i], -outers[i].area, -(outers[i].annotation_id or 0)))
            dropped[f"{LINK}name unknown"] += not (above[best] and chain)
            dropped[f"{LINK}parent outside"] += shares[best] <= HELD
            yield first + best if shares[best] > HELD else -1
        first += len(outers)


def _chain(category: str, level: int) -> tuple[str, ...]:
    """The words of a name that tells its whole, its part ...; empty if it does not. PartImageNet writes tyre "tier"."""
    first, *words = (_WORDS.get(word, word) for word in re.split(r"[\s_-]+", category.strip().lower()))
    is_chain = first in _WHOLES and (len(words) >= level if level else not words)
    return (first, *words) if is_chain else ()
