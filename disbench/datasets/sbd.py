"""SBD: instance maps in MATLAB files (`inst/*.mat`, field `GTinst`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core.samples import SampleSource
from disbench.core.scenes import Scene
from disbench.datasets.label_maps import (
    VOC_CATEGORIES,
    joint_sha256,
    objects_of_labels,
    read_instances,
    read_split,
)
from disbench.datasets.records import FileSamples, Record, in_threads


class SbdScenes:
    """Scenes of one split of SBD (a `SceneSource`), in the order of its list.

    Args:
        folder: with `img/`, `inst/` and the split lists.
        split: `train` or `val`, the name of a list.

    Raises:
        InputError: the list is missing or empty.
    """

    name = "sbd"

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.folder, self.split = folder, split
        self.names = read_split(folder / f"{split}.txt")

    def __len__(self) -> int:
        """Images in the list."""
        return len(self.names)

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        """The scenes of these numbers, in this order."""
        for index in indices:
            name = self.names[index]
            labels, numbers = read_instances(self.folder / "inst" / f"{name}.mat")
            categories = {i: _category(number) for i, number in enumerate(numbers, start=1)}
            height, width = labels.shape
            yield Scene(
                image_id=name,
                file_name=f"img/{name}.jpg",
                height=height,
                width=width,
                source=self.name,
                objects=objects_of_labels(labels, categories, self.name),
            )

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the list and of all its instance files together."""
        return {
            f"sbd:{self.split}.txt": joint_sha256([self.folder / f"{self.split}.txt"]),
            "sbd:inst": joint_sha256(self.folder / "inst" / f"{name}.mat" for name in self.names),
        }


def open_sbd(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """One sample for every instance of a split, in the order of its list, then by number; none is too small.

    Opening reads every instance file once, for the numbers in it.

    Args:
        name: of the card.
        folder: with `img/`, `inst/` and the split lists.
        options: `split`, the name of a list.
        facts: to record.

    Raises:
        InputError: the list or an instance file is missing or damaged.
    """
    names = read_split(folder / f"{options['split']}.txt")
    found = in_threads(lambda stem: _numbers(folder / "inst" / f"{stem}.mat"), names)
    records = [
        Record(f"{stem}/{number}", f"img/{stem}.jpg", f"inst/{stem}.mat", number)
        for stem, numbers in zip(names, found, strict=True)
        for number in numbers
    ]
    return FileSamples(name, folder, "sbd-instance", records, facts)


def _category(number: int) -> str:
    return VOC_CATEGORIES[number] if 0 < number < len(VOC_CATEGORIES) else f"category {number}"


def _numbers(path: Path) -> list[int]:
    """The instances of a file that have a pixel, ascending."""
    labels, _ = read_instances(path)
    return [int(number) for number in np.flatnonzero(np.bincount(labels.ravel())) if number]
