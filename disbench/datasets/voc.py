"""PascalVOC: instance and class maps as palette PNGs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from disbench.core.arrays import ByteArray
from disbench.core.errors import InputError
from disbench.core.samples import SampleSource
from disbench.core.scenes import Scene
from disbench.datasets.label_maps import (
    VOC_CATEGORIES,
    joint_sha256,
    objects_of_labels,
    read_label_png,
    read_split,
)
from disbench.datasets.records import FileSamples, Record, in_threads
from disbench.datasets.targets import VOID, gray_of_index

Ids = Literal["palette", "gray"]


class VocScenes:
    """Scenes of one split of PascalVOC (a `SceneSource`), in the order of its list.

    Instances are numbered by palette index. Void pixels belong to no object.

    Args:
        folder: with `SegmentationObject/`, `SegmentationClass/` and `ImageSets/Segmentation/`.
        split: the name of a list, such as `train`, `val` or `trainval`.

    Raises:
        InputError: the list is missing or empty.
    """

    name = "voc"

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.folder, self.split = folder, split
        self.names = read_split(self._list)

    @property
    def _list(self) -> Path:
        return self.folder / "ImageSets" / "Segmentation" / f"{self.split}.txt"

    def __len__(self) -> int:
        """Images in the list."""
        return len(self.names)

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        """The scenes of these numbers, in this order."""
        for index in indices:
            name = self.names[index]
            instances = read_label_png(self.folder / "SegmentationObject" / f"{name}.png")
            path = self.folder / "SegmentationClass" / f"{name}.png"
            classes = read_label_png(path)
            if classes.shape != instances.shape:
                raise InputError(f"{path}: another size than its file in SegmentationObject; get it again")
            height, width = instances.shape
            yield Scene(
                image_id=name,
                file_name=f"JPEGImages/{name}.jpg",
                height=height,
                width=width,
                source=self.name,
                objects=objects_of_labels(
                    instances, instance_categories(instances, classes), self.name, ignored=(0, VOID)
                ),
            )

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the list and of all its maps together."""
        return {
            f"voc:{self.split}.txt": joint_sha256([self._list]),
            **{
                f"voc:{folder}": joint_sha256(self.folder / folder / f"{name}.png" for name in self.names)
                for folder in ("SegmentationObject", "SegmentationClass")
            },
        }


def open_voc(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """One sample for every instance of a split, in the order of its list, then by number.

    Opening reads every instance map once, for the numbers in it.

    Args:
        name: of the card.
        folder: with `JPEGImages/`, `SegmentationObject/` and `ImageSets/Segmentation/`.
        options: `split`, the name of a list; `ids`, how instances are numbered: by `palette` index, or by
            the `gray` value of the palette's colour, as RITM's family does, where some instances merge.
        facts: to record.

    Raises:
        InputError: the list or a map is missing or damaged.
    """
    names = read_split(folder / "ImageSets" / "Segmentation" / f"{options['split']}.txt")
    paths = [folder / "SegmentationObject" / f"{stem}.png" for stem in names]
    found = in_threads(partial(instance_numbers, ids=options["ids"]), paths)
    records = [
        Record(f"{stem}/{number}", f"JPEGImages/{stem}.jpg", f"SegmentationObject/{stem}.png", number)
        for stem, numbers in zip(names, found, strict=True)
        for number in numbers
    ]
    return FileSamples(name, folder, f"voc-{options['ids']}", records, facts)


def instance_numbers(path: Path, ids: Ids = "palette") -> list[int]:
    """The instances of a map, ascending: background and void are none.

    Raises:
        InputError: missing or damaged, or without the palette that `gray` needs.
    """
    present = np.flatnonzero(np.bincount(read_label_png(path).ravel(), minlength=256))
    present = present[(present != 0) & (present != VOID)]
    numbers = gray_of_index(path)[present] if ids == "gray" else present
    return [int(number) for number in np.unique(numbers)]


def instance_categories(instances: ByteArray, classes: ByteArray) -> dict[int, str]:
    """The category of each instance: the class of most of its pixels.

    Args:
        instances: uint8 (height, width), instance numbers.
        classes: uint8 (height, width), class numbers 0..20, 255 void.
    """
    found = {}
    for value in np.unique(instances).tolist():
        number = int(np.bincount(classes[instances == value]).argmax())
        found[value] = VOC_CATEGORIES[number] if number < len(VOC_CATEGORIES) else f"category {number}"
    return found
