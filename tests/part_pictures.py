"""A picture of a whole with parts: W, its top T, its left and right wheels L and R, and a rim S in the left wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from disbench.core.arrays import BoolArray
from disbench.core.masks import areas, encode
from disbench.core.scenes import SampledScene, click_region

SIZE = HEIGHT, WIDTH = 40, 60
RECTANGLES = {
    "W": (4, 35, 6, 53),
    "T": (4, 15, 6, 53),
    "L": (24, 35, 8, 17),
    "R": (24, 35, 40, 49),
    "S": (25, 33, 8, 17),
}
"""First and last row, first and last column."""


def mask(names: str) -> BoolArray:
    """The union of some rectangles ("LR"): bool (40, 60)."""
    found = np.zeros(SIZE, dtype=bool)
    for name in names:
        top, bottom, left, right = RECTANGLES[name]
        found[top : bottom + 1, left : right + 1] = True
    return found


def rle(names: str) -> dict[str, object]:
    """The same as the compressed RLE of a JSON file."""
    return {"size": [*SIZE], "counts": encode(mask(names))["counts"].decode()}


def polygon(name: str) -> list[list[int]]:
    """The outline of a rectangle, of which pycocotools makes the same mask."""
    top, bottom, left, right = RECTANGLES[name]
    return [[left, top, right + 1, top, right + 1, bottom + 1, left, bottom + 1]]


def photo(path: Path) -> Path:
    """Write a photograph of this size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(path)
    return path


def sets_of(sampled: SampledScene) -> dict[str, tuple[list[str], int]]:
    """For each center's category, those of its set's masks and the number of pixels that a click may fall on."""
    objects, rles = sampled.scene.objects, sampled.scene.rles
    return {
        objects[chosen.center].category: (
            [objects[number].category for (number,) in chosen.members],
            int(areas([click_region(rles, chosen)])[0]),
        )
        for chosen in sampled.sets
    }
