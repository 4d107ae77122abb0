"""Samples of a few discs each, drawn by a seed; the image's first pixel tells a toy method how to misbehave."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np

from disbench.core.errors import InputError
from disbench.core.samples import Sample


def make_samples(count: int = 4, seed: int = 0, faults: tuple[int, ...] = ()) -> list[Sample]:
    noise = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        height, width = int(noise.integers(40, 70)), int(noise.integers(40, 70))
        rows, columns = np.mgrid[:height, :width]
        target = np.zeros((height, width), dtype=np.int8)
        for _ in range(3):
            y, x, radius = (noise.integers(10, height - 10), noise.integers(10, width - 10), noise.integers(6, 16))
            target[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 1
        target[noise.integers(0, height) :, :3] = -1
        image = np.full((height, width, 3), 99, dtype=np.uint8)
        image[0, 0, 0] = faults[number] if number < len(faults) else 0
        samples.append(Sample(f"s{number}", image, target))
    return samples


@dataclass(frozen=True)
class ToySource:
    """The samples as a dataset (a `SampleSource`)."""

    count: int = 6
    faults: tuple[int, ...] = ()
    unreadable: int = -1
    deadly: int = -1
    name: str = "toy"

    @property
    def ids(self) -> list[str]:
        return [f"s{number}" for number in range(self.count)]

    def read(self, index: int) -> Sample:
        if index == self.deadly:
            os._exit(9)
        if index == self.unreadable:
            raise InputError("toy/s.png: not a whole image; get it again")
        return make_samples(self.count, faults=self.faults)[index]

    def content_hash(self) -> str:
        return hashlib.sha256(repr((self.count, self.faults)).encode()).hexdigest()

    def facts(self) -> dict[str, object]:
        return {"title": "Toy discs"}
