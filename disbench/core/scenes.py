"""A scene: one image with all its objects, as a dataset's reader gives it to the samplers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from disbench.core.arrays import IntArray
from disbench.core.masks import Rle

Kind = Literal["thing", "crowd", "stuff"]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One annotated mask of an image.

    Attributes:
        rle: the mask, of the image's size, not empty.
        area: pixels of the mask.
        box: x, y, width, height of the mask in whole pixels (inclusive: width = last - first + 1).
        category: the dataset's name for it.
        synset: WordNet synset ("cup.n.01") where the dataset tells it.
        annotation_id: the dataset's number for the annotation, where it has one.
        source: which dataset it comes from ("lvis", "coco", "sbd", ...).
        kind: a countable `thing`, a `crowd` region (many things in one mask), or `stuff`.
    """

    rle: Rle
    area: int
    box: tuple[int, int, int, int]
    category: str
    synset: str | None = None
    annotation_id: int | None = None
    source: str = ""
    kind: Kind = "thing"


@dataclass(frozen=True, slots=True)
class Scene:
    """One image with its objects, in the order of the dataset.

    Attributes:
        image_id: the dataset's name for the image; a number is written in digits.
        file_name: of the image, relative to the folder of images.
        height: pixels.
        width: pixels.
        source: the dataset or datasets ("lvis", "coco+lvis").
        objects: the masks that take part.
        parents: where the dataset brings its own hierarchy, each object's parent (-1 for a root; always
            an object of this scene); otherwise None.
        dropped: how many annotations were left out, by reason.
    """

    image_id: str
    file_name: str
    height: int
    width: int
    source: str
    objects: tuple[SceneObject, ...]
    parents: tuple[int, ...] | None = None
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def rles(self) -> list[Rle]:
        """The masks of all objects, in order."""
        return [item.rle for item in self.objects]

    @property
    def areas(self) -> IntArray:
        """Pixels of all objects: int64 (n,)."""
        return np.array([item.area for item in self.objects], dtype=np.int64)

    @property
    def boxes(self) -> IntArray:
        """Boxes of all objects: int64 (n, 4) of x, y, width, height."""
        return np.array([item.box for item in self.objects], dtype=np.int64).reshape(-1, 4)


class SceneSource(Protocol):
    """A dataset that scenes are read from. Picklable: worker processes read scenes by number.

    A source may also offer `object_counts(images)`, how many objects each image of a range has, or an estimate: by it
    work is divided evenly; and `check_unchanged()`, which raises `InputError` if its file is not the one any more that
    was opened.
    """

    @property
    def name(self) -> str:
        """The dataset or datasets: "lvis", "coco+lvis", "sbd" ..."""

    def __len__(self) -> int:
        """How many images there are, those without a mask included."""

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        """The scenes of these numbers, in this order.

        Raises:
            InputError: a malformed record; names the file, the record and the fix.
        """

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of everything that decides the scenes, by file name."""
