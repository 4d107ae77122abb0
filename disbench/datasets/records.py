"""Samples that are files: an image, a mask, and what of the mask is the target."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.errors import InputError
from disbench.core.samples import Sample, Target
from disbench.datasets.images import RgbImage, read_rgb
from disbench.datasets.targets import RULES
from disbench.io.files import file_sha256

Item = TypeVar("Item")
Result = TypeVar("Result")
HASH_FORMAT = "disbench samples 1"
"""First line of what a content hash is taken of; another format is another number."""
_READERS = 8
_NAMES_IN_A_SENTENCE = 5


@dataclass(frozen=True, slots=True)
class Record:
    """One sample on disk; paths are relative to the dataset's folder, with forward slashes.

    Attributes:
        id: of the sample.
        image: the photograph.
        mask: the mask or map.
        instance: the number of the object in the map; 0 where the mask has one object only.
        initial: the mask that the user corrects from, where the dataset has one.
    """

    id: str
    image: str
    mask: str
    instance: int = 0
    initial: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All its files, in the order in which the content hash takes them."""
        return (self.image, self.mask) if self.initial is None else (self.image, self.mask, self.initial)


class FileSamples:
    """A dataset of image and mask files (a `SampleSource`).

    Args:
        name: of the dataset's card.
        folder: that the records' paths are relative to.
        rule: what masks mean, a name of `targets.RULES`.
        records: the samples, in the dataset's order.
        facts: JSON-ready facts to record: title, options.

    Raises:
        InputError: no record, or two of one id.
    """

    def __init__(
        self, name: str, folder: Path, rule: str, records: Sequence[Record], facts: Mapping[str, object]
    ) -> None:
        self.name, self.folder, self.rule = name, folder, rule
        self._records, self._facts = tuple(records), dict(facts)
        if not records:
            raise InputError(f"{folder}: there is no sample in it; check the folder's layout and the options")
        (most, times), *_ = Counter(self.ids).most_common(1)
        if times > 1:
            raise InputError(f"{folder}: two samples have the id {most!r}; rename one of the files")

    @property
    def ids(self) -> Sequence[str]:
        """The id of every sample, in the dataset's order."""
        return [record.id for record in self._records]

    def read(self, index: int) -> Sample:
        """The sample of a number.

        Raises:
            InputError: a file that is missing or damaged, sizes that differ, or a target without an object.
        """
        record = self._records[index]
        image = read_rgb(self.folder / record.image)
        mask = self.folder / record.mask
        target = RULES[self.rule](mask, record.instance)
        check_target(target, image, mask, record.id)
        return Sample(record.id, image, target, self._initial(record, image))

    def content_hash(self) -> str:
        """SHA-256 of rule, ids, and the bytes of all files (docs/benchmark-datasets.md)."""
        names = list(dict.fromkeys(name for record in self._records for name in record.files))
        digests = dict(zip(names, in_threads(lambda name: file_sha256(self.folder / name), names), strict=True))
        parts = ([record.id, record.instance, *(digests[name] for name in record.files)] for record in self._records)
        return joint_hash(self.rule, parts)

    def facts(self) -> dict[str, object]:
        """Title and options of the card, the target's rule, and how many image files there are."""
        images = len({record.image for record in self._records})
        return {**self._facts, "rule": self.rule, "images": images}

    def _initial(self, record: Record, image: RgbImage) -> BoolArray | None:
        if record.initial is None:
            return None
        path = self.folder / record.initial
        mask = RULES[self.rule](path, record.instance)
        check_size(mask.shape, image, path, record.id)
        return np.asarray(mask == 1)


def check_target(target: Target, image: RgbImage, path: Path, name: str) -> None:
    """See that a target has its image's size and an object.

    Raises:
        InputError: names the mask's file and the sample.
    """
    check_size(target.shape, image, path, name)
    if not (target == 1).any():
        raise InputError(f"{path}: sample {name!r} has no object pixel; mend the mask or leave the sample out")


def check_size(shape: tuple[int, ...], image: RgbImage, path: Path, name: str) -> None:
    """See that a mask has its image's size.

    Raises:
        InputError: names the mask's file and the sample.
    """
    if shape != image.shape[:2]:
        raise InputError(
            f"{path}: the mask of sample {name!r} has {shape[1]} x {shape[0]} pixels, its image "
            f"{image.shape[1]} x {image.shape[0]}; get the two that belong together"
        )


def joint_hash(rule: str, parts: Iterable[Sequence[object]]) -> str:
    """SHA-256 (hex) of lines of JSON: format and rule, then one line a sample.

    Args:
        rule: what decides how files become targets.
        parts: of each sample its id, the number of its object, and the SHA-256 of each of its files.
    """
    digest = hashlib.sha256()
    for line in ([HASH_FORMAT, rule], *parts):
        digest.update(json.dumps(list(line), separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The function of every item, in order; reading and hashing files leave the interpreter free."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(function, items))


def listed(names: Iterable[Any]) -> str:
    """The first few names, for a sentence: "a, b, c and 7 more"."""
    found = [str(name) for name in names]
    first = ", ".join(found[:_NAMES_IN_A_SENTENCE])
    more = len(found) - _NAMES_IN_A_SENTENCE
    return f"{first} and {more} more" if more > 0 else first
