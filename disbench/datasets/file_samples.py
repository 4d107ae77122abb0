"""Samples stored as image and mask files, and the content hash of a dataset."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.choices import Exif
from disbench.core.errors import InputError, quote
from disbench.core.masks import Rle, decode
from disbench.core.samples import Content, Sample, Target
from disbench.datasets.images import RgbImage, exif_note, read_rgb, size_hint
from disbench.datasets.targets import RULES
from disbench.io.files import file_sha256

Item = TypeVar("Item")
Result = TypeVar("Result")
HASH_FORMAT = "disbench samples 1"  # first value of the first line of the content hash's input
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Record:
    """One sample on disk; paths are relative to the dataset's folder, with forward slashes.

    Attributes:
        instance: value of the object in an instance map, 0 for a mask of one object.
        initial: the initial mask to correct, if the dataset has one.
        alike: True if every rule that may be recognised for the dataset reads the mask the same way.
    """

    id: str
    image: str
    mask: str
    instance: int = 0
    initial: str | None = None
    unambiguous: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """All files, in the order of the content hash."""
        return (self.image, self.mask) if self.initial is None else (self.image, self.mask, self.initial)


class HashedSamples(ABC):
    """A `SampleSource` with a content hash (docs/benchmark-datasets.md)."""

    def content_hash(self) -> str:
        """SHA-256 of the rule, the ids, and the files and masks of all samples."""
        return self._content(self._sha256_of).whole

    def content(self) -> Content:
        """The content hash of the dataset and of each sample; unreadable files hash as null."""
        return self._content(or_none(self._sha256_of))

    @abstractmethod
    def _sha256_of(self, item: Any) -> str:
        """The hash of a file of the samples."""

    @abstractmethod
    def _content(self, digest: Callable[[Any], str | None]) -> Content: ...


class ObjectSamples(HashedSamples):
    """Samples from annotated images, one per object.

    `rule` names how annotations become targets, `facts` are JSON-ready facts to record, `left_out` counts objects that
    are not samples. `images` has the image of each sample, as accepted by `_image_path`.
    """

    def __init__(
        self,
        name: str,
        rule: str,
        facts: Mapping[str, object],
        left_out: Counter[str],
        ids: Sequence[str],
        images: Sequence[Any],
        exif: Exif = "ignore",
    ) -> None:
        self.name, self.rule, self.ids, self.exif = name, rule, ids, exif
        self._images, self._facts, self._left_out = images, dict(facts), left_out

    def read(self, index: int) -> Sample:
        """One sample; `InputError` for a missing or damaged file, or if image and annotation sizes differ."""
        path = self._image_path(self._images[index])
        image, target = read_rgb(path, self.exif), decode(self._mask(index)).astype(np.int8)
        check_target(target, image, path, self.ids[index], path)
        return Sample(self.ids[index], image, target)

    def facts(self) -> dict[str, object]:
        """Title and options of the card, the rule, the number of images with samples, and `left_out`."""
        images = len(set(self._images))
        return {**self._facts, "rule": self.rule, "images": images, "left_out": dict(+self._left_out)}

    def _sha256_of(self, item: Any) -> str:
        return file_sha256(self._image_path(item))

    def _content(self, digest: Callable[[Any], str | None]) -> Content:
        digests = _digests(digest, self._images)
        rows = enumerate(zip(self.ids, self._images, strict=True))
        parts = ([one, 0, digests[image], self._mask_sha256(index)] for index, (one, image) in rows)
        return joint_content(f"{self.rule}{'' if self.exif == 'ignore' else '-exif'}", parts)

    @abstractmethod
    def _image_path(self, image: Any) -> Path:
        """The file of an image; `InputError` if it is missing."""

    @abstractmethod
    def _mask(self, index: int) -> Rle: ...

    @abstractmethod
    def _mask_sha256(self, index: int) -> str: ...


class FileSamples(HashedSamples):
    """A dataset of image and mask files (a `SampleSource`).

    `rule` is a key of `targets.RULES`; `facts` (title, options) and `notes` (sentences) are printed and recorded.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        rule: str,
        records: Sequence[Record],
        facts: Mapping[str, object],
        notes: Sequence[str] = (),
        exif: Exif = "ignore",
    ) -> None:
        self.name, self.folder, self.rule, self.exif, self._notes = name, folder, rule, exif, tuple(notes)
        self._records, self._facts = tuple(records), dict(facts)
        if not records:
            raise InputError(f"{folder}: no samples found; check the folder's layout and the options")
        check_unique(self.ids, folder, "rename one of the files")

    @property
    def ids(self) -> Sequence[str]:
        """Sample ids, in the dataset's order."""
        return [record.id for record in self._records]

    def read(self, index: int) -> Sample:
        """One sample; `InputError` for a missing or damaged file, different sizes, or an empty target."""
        record = self._records[index]
        photo, mask = self.folder / record.image, self.folder / record.mask
        image = read_rgb(photo, self.exif)
        target = RULES[self.rule](mask, record.instance)
        check_target(target, image, mask, record.id, photo)
        return Sample(record.id, image, target, self._initial(record, image))

    def _sha256_of(self, item: str) -> str:
        return file_sha256(self.folder / item)

    def _content(self, digest: Callable[[str], str | None]) -> Content:
        digests = _digests(digest, (name for record in self._records for name in record.files))
        parts = ([record.id, record.instance, *(digests[name] for name in record.files)] for record in self._records)
        exif = "" if self.exif == "ignore" else "-exif"
        rules = [exif if record.unambiguous else self.rule + exif for record in self._records]
        return joint_content(self.rule + exif, parts, rules)

    def facts(self) -> dict[str, object]:
        """Title and options of the card, the target rule, the number of image files, and notes."""
        images = list(dict.fromkeys(self.folder / record.image for record in self._records))
        notes = [*self._notes, exif_note(images) if self.exif == "ignore" else ""]
        return {**self._facts, "rule": self.rule, "images": len(images), **notes_fact(notes)}

    def _initial(self, record: Record, image: RgbImage) -> BoolArray | None:
        if record.initial is None:
            return None
        path = self.folder / record.initial
        mask = RULES[self.rule](path, record.instance)
        _check_size(mask.shape, image, path, record.id, self.folder / record.image)
        return np.asarray(mask == 1)


def notes_fact(notes: Sequence[str]) -> dict[str, object]:
    """Non-empty sentences as the fact `notes`, which a run prints and records; {} if there are none."""
    return {"notes": said} if (said := [note for note in notes if note]) else {}


def check_unique(ids: Sequence[str], place: object, fix: str) -> None:
    """Raise `InputError` if two samples have the same id."""
    repeated, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise InputError(f"{place}: two samples have the id {quote(repeated)}; {fix}")


def check_target(target: Target, image: RgbImage, path: Path, sample: str, photo: Path) -> None:
    """Raise `InputError` if a target (the mask at `path`) is empty or differs in size from its image (at `photo`)."""
    _check_size(target.shape, image, path, sample, photo)
    if not (target == 1).any():
        raise InputError(f"{path}: the target of sample {sample!r} is empty; fix the mask or leave the sample out")


def _check_size(shape: tuple[int, ...], image: RgbImage, path: Path, sample: str, photo: Path) -> None:
    if shape != image.shape[:2]:
        own, photo_size = f"{shape[1]} x {shape[0]}", f"{image.shape[1]} x {image.shape[0]}{size_hint(photo)}"
        raise InputError(f"{path}: the mask of sample {sample!r} has {own} pixels, its image {photo_size}; match them")


def joint_content(rule: str, parts: Iterable[Sequence[object]], rules: Sequence[str] = ()) -> Content:
    """SHA-256 (hex) of JSON lines: format and rule, then one line per sample; and of each line with its rule.

    `parts` has each sample's id, object number, and the SHA-256 of each of its files; `rules` overrides `rule` per
    sample.
    """
    head, *lines = (
        json.dumps(list(line), separators=(",", ":")).encode() + b"\n" for line in ([HASH_FORMAT, rule], *parts)
    )
    samples = zip(rules or [rule] * len(lines), lines, strict=True)
    return Content(_sha256(head, *lines), [_sha256(own.encode(), b"\n", line) for own, line in samples])


def _sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def or_none(digest: Callable[[Item], Result]) -> Callable[[Item], Result | None]:
    """Wrap a function to return None for a missing or unreadable file."""

    def digest_or_none(item: Item) -> Result | None:
        try:
            return digest(item)
        except (InputError, OSError):
            return None

    return digest_or_none


def _digests(digest: Callable[[Item], Result], items: Iterable[Item]) -> dict[Item, Result]:
    different = list(dict.fromkeys(items))
    return dict(zip(different, map_in_threads(digest, different), strict=True))


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Map a function over items in threads, in order; reading and hashing files release the GIL."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))
