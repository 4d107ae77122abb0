"""Pascal-Part, and the table `part_keys.toml` of part names and the keys that like parts share."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from disbench.core import masks
from disbench.core.arrays import BoolArray
from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_FILE_OBJECTS, MAX_OBJECT_PARTS, MAX_PIXELS
from disbench.core.scenes import LINK, KeyedScenes, Scene, resolve_links, scene_objects
from disbench.datasets.images import open_image
from disbench.datasets.label_maps import joint_sha256, read_lines
from disbench.datasets.matlab import Matrix, elements, numbers, open_variable, text
from disbench.datasets.scene_sources import BadAnnotations, refuse
from disbench.io import definitions
from disbench.io.archives import safe_path
from disbench.io.files import file_sha256
from disbench.io.settings import settings_from

TABLE = Path(__file__).with_name("part_keys.toml")
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class NumberedNames:
    """Names for a dataset that has only numbers.

    Attributes:
        classes: class names, from number 0.
        parts: class -> names of its parts, from number 1.
        counted: class -> name -> first and last number of numbered parts ("wheel_1", "wheel_2" ...).
    """

    classes: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counted: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)

    def class_name(self, number: int) -> str:
        """The name of a class; "class 33" for a number without a name."""
        return self.classes[number] if number < len(self.classes) else f"class {number}"

    def part(self, class_name: str, number: int) -> tuple[str, tuple[str, ...]]:
        """The name and keys of a part number (from 1); "part 7" for a number without a name."""
        for name, (first, last) in self.counted.get(class_name, {}).items():
            if first <= number <= last:
                return f"{name}_{number - first + 1}", (name,)
        names = self.parts.get(class_name, ())
        name = names[number - 1] if number <= len(names) else f"part {number}"
        return name, (name,)


@dataclass(frozen=True, slots=True)
class PartKeys:
    """The table: Pascal-Part's alternative spellings and keys by name, and names for Panoptic Parts' numbers."""

    version: int
    spellings: Mapping[str, str]
    pascal: Mapping[str, tuple[str, ...]]
    cityscapes: NumberedNames
    pascal_panoptic: NumberedNames

    def pascal_part(self, name: str) -> tuple[str, tuple[str, ...]]:
        """The usual spelling of a Pascal-Part name and its keys, finest first; no keys for an unknown name."""
        number = _NUMBER.search(name)
        stem = name[: number.start()] if number else name
        stem = self.spellings.get(stem, stem)
        return stem + (number[0] if number else ""), self.pascal.get(stem, ())


@cache
def part_keys() -> PartKeys:
    """Load the packaged table."""
    return settings_from(PartKeys, definitions.load(TABLE), str(TABLE))


def keys_fingerprint() -> dict[str, str]:
    """SHA-256 of the table by name and version, for the fingerprint of scenes."""
    return {f"{TABLE.name} {part_keys().version}": file_sha256(TABLE)}


# Subfolders that may contain VOC2010's `ImageSets` and `JPEGImages`.
VOC_PLACES = ("", "VOC2010/", "VOCdevkit/VOC2010/")
_ANNOTATIONS = ("Annotations_Part/", "trainval/Annotations_Part/")
_NUMBERS = 1000  # annotation ids per object: its own, and one for each of its parts


class PascalPartScenes(KeyedScenes):
    """Scenes of Pascal-Part (a `SceneSource`), in the order of a list in VOC2010's `ImageSets/Main`.

    Objects are in file order, each followed by its parts. `annotation_id` is 1000 times the object's number plus the
    part's; both count from 1, and an object itself is part 0. Memory: a file, its variable and RLEs, and 12 bytes per
    pixel of one mask.

    Attributes:
        dropped: dropped images and lines of the list, by reason.

    `folder` has `Annotations_Part` (or `trainval/Annotations_Part`) and VOC2010's folders (or `VOC2010`, or
    `VOCdevkit/VOC2010`); `split` is the name of a list. `bad` also applies to images without a file of parts.
    `InputError` for a missing or empty folder or list, or a listed image without a file of parts.
    """

    name = "pascal-part"

    def __init__(self, folder: Path, split: str = "train", bad: BadAnnotations = "fail") -> None:
        self.bad = bad
        voc = _find_place(folder, VOC_PLACES, "ImageSets/Main", "from VOC2010's archive VOCtrainval_03-May-2010")
        self._voc, self._images = folder / voc, f"{voc}JPEGImages"
        self._annotations = folder / _find_place(folder, _ANNOTATIONS, "", "from Pascal-Part's archive trainval.tar.gz")
        self._folder, self._list = folder, self._voc / f"ImageSets/Main/{split}.txt"
        lines = [(number, line.split()[0]) for number, line in read_lines(self._list)]
        for number, name in lines:
            safe_path(name, f"{self._list}: line {number}")
        listed = list(dict.fromkeys(name for _, name in lines))
        is_file = [os.path.isfile(self._file(name)) for name in listed]  # noqa: PTH113  (Path.is_file raises on long names)
        if not all(is_file) and bad == "fail":
            lacking = f"{self._file(listed[is_file.index(False)])}: no such file, but {self._list} lists its image"
            raise InputError(f"{lacking}; get the dataset again, or skip such images with bad_annotations=drop")
        self.keys = list(compress(listed, is_file))
        if not self.keys:
            raise InputError(f"{self._list}: no image with a file of parts in {self._annotations}; use another split")
        left_out = {"image without a file of parts": len(listed) - len(self.keys)}
        self.dropped = +Counter({**left_out, "image that the list names again": len(lines) - len(listed)})

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the list, a joint one over all files of parts, and that of the table of part keys."""
        return {
            f"{self.name}:{self._list.name}": joint_sha256([self._list]),
            f"{self.name}:{self._annotations.name}": joint_sha256(map(self._file, self.keys)),
            **keys_fingerprint(),
        }

    def _file(self, name: str) -> Path:
        return self._annotations / f"{name}.mat"

    def _scene(self, key: str) -> Scene:
        path, image = self._file(key), f"{self._images}/{key}.jpg"
        dropped: Counter[str] = Counter()
        found: list[_Annotation] = []
        rles: list[masks.Rle] = []
        size: tuple[int, int] | None = None
        try:
            with open_variable(path, "anno") as anno:
                for item in _annotations(anno):
                    try:
                        mask = _mask(item, size)
                    except ValueError as error:
                        refuse(self.bad, f"{path}: {error}", dropped)
                        continue
                    size = mask.shape[0], mask.shape[1]
                    rles.append(masks.encode(mask))
                    found.append(item)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{path}: {error}; get Pascal-Part's original file") from None
        if size is None:  # an image without objects
            with open_image(self._folder / image, "the size of an image without objects is not known") as opened:
                size = opened.height, opened.width
        about = ((item.category, None, item.number, self.name, "thing", item.keys) for item in found)
        ids = [item.number for item in found]
        wholes = [item.number - item.number % _NUMBERS for item in found]
        dropped[f"{LINK}part name unknown"] = sum(item.number % _NUMBERS > 0 and not item.keys for item in found)
        links = resolve_links(ids, wholes, lambda *_: None, dropped, nest=True)
        return Scene(key, image, *size, self.name, scene_objects(rles, about), dropped=+dropped, links=links)


class _Annotation(NamedTuple):
    number: int
    category: str
    mask: Matrix
    keys: tuple[str, ...] = ()


def _annotations(anno: Matrix) -> Iterator[_Annotation]:
    for top in elements(anno, ["objects"], 1, "'anno'"):
        whole_fields = ["class", "mask", "parts"]
        for number, whole in enumerate(elements(top["objects"], whole_fields, MAX_FILE_OBJECTS, "'anno.objects'"), 1):
            category = text(whole["class"], f"the class of object {number}")
            yield _Annotation(_NUMBERS * number, category, whole["mask"])
            what = f"the field 'parts' of object {number}"
            for place, part in enumerate(elements(whole["parts"], ["part_name", "mask"], MAX_OBJECT_PARTS, what), 1):
                name = text(part["part_name"], f"the name of part {place} of object {number}")
                name, keys = part_keys().pascal_part(name)
                yield _Annotation(_NUMBERS * number + place, f"{category}:{name}", part["mask"], keys)


def _mask(item: _Annotation, size: tuple[int, int] | None) -> BoolArray:
    """The mask of an annotation; all masks of an image have the same `size`."""
    whole, part = divmod(item.number, _NUMBERS)
    what = f"the mask of {quote(item.category)} ({f'part {part} of ' if part else ''}object {whole})"
    values = numbers(item.mask, what)
    if values.ndim != 2 or not 0 < values.size <= MAX_PIXELS or size not in (None, values.shape):
        expected = f"{size[0]} x {size[1]}" if size else "two dimensions and at least one pixel"
        raise ValueError(f"{what} has the shape {quote(list(values.shape))}, not {expected}")
    mask: BoolArray = values == 1
    if not (mask | (values == 0)).all():
        raise ValueError(f"{what} has a value other than 0 and 1")
    return mask


def _find_place(folder: Path, places: Sequence[str], inner: str, origin: str) -> str:
    for place in places:
        if (folder / place / inner).is_dir():
            return place
    paths = " or ".join(f"{place}{inner}".rstrip("/") for place in places)
    raise InputError(f"{folder}: no folder {paths}; put it there {origin}")
