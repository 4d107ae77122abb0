"""A scene: one image with all its objects, as a dataset's reader gives it to the samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from disbench.core.arrays import IntArray
from disbench.core.clicks import Click
from disbench.core.masks import Rle, areas, boxes, difference, pixel, union

Kind = Literal["thing", "crowd", "stuff", "group"]

LINK = "link: "  # how `Scene.dropped` names what happened to a declared link


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One annotated mask of an image.

    Attributes:
        rle: the mask, of the image's size.
        area: its pixels.
        box: x, y, width, height of the mask in whole pixels, both ends included.
        category: the dataset's name for it.
        synset: WordNet synset ("cup.n.01") where the dataset tells it.
        annotation_id: the dataset's number for the annotation, where it has one.
        source: which dataset it comes from ("lvis", "coco", "sbd", ...).
        kind: countable, a region of many things, stuff, or like parts of one whole, which the sampler adds.
        keys: what makes parts alike, the finest first ("left front leg", "front leg", "leg"), as `part_key` writes it;
            empty: the part's name in `category`. Not stored in shards.
    """

    rle: Rle
    area: int
    box: tuple[int, int, int, int]
    category: str
    synset: str | None = None
    annotation_id: int | None = None
    source: str = ""
    kind: Kind = "thing"
    keys: tuple[str, ...] = ()


def scene_objects(rles: Sequence[Rle], about: Iterable[tuple[Any, ...]]) -> tuple[SceneObject, ...]:
    """Objects of masks, which are measured here; `about` has the fields of `SceneObject` from `category` on."""
    columns = zip(rles, areas(rles).tolist(), map(tuple, boxes(rles).tolist()), about, strict=True)
    return tuple([SceneObject(rle, area, box, *rest) for rle, area, box, rest in columns])


@dataclass(frozen=True, slots=True)
class Links:
    """The wholes that a dataset declares for the parts of a scene, as it says them; the sampler checks them.

    Attributes:
        parents: of each object, empty and small ones included, the number of its declared parent; -1 for none, and for
            one that is missing, which the reader counts (or refuses).
        nest: whether parts of one whole may also lie in each other, by geometry: for datasets that declare one level.
    """

    parents: tuple[int, ...]
    nest: bool = False


def links_by_id(
    ids: Sequence[Hashable],
    parents: Sequence[Hashable],
    refuse: Callable[[int, str], None],
    dropped: Counter[str],
    *,
    nest: bool = False,
) -> Links:
    """The declared links of a scene, from what a file says by ids.

    Args:
        ids: of the objects, in their order; None for one that cannot be a parent.
        parents: the id of each object's parent; None, or its own id, for none.
        refuse: called with an object's number and what is wrong with its link (a parent that is missing, a cycle);
            raises where the user asked for it. Otherwise the object becomes a root.
        dropped: gets the count of missing parents; the sampler counts the rest.
        nest: as in `Links`.
    """
    place = {name: number for number, name in enumerate(ids) if name is not None}
    found = []
    for number, (name, parent) in enumerate(zip(ids, parents, strict=True)):
        alone = parent is None or parent == name
        if not alone and parent not in place:
            refuse(number, f"its parent {parent} is not an annotation of the same image")
            dropped[f"{LINK}parent missing"] += 1
        found.append(-1 if alone else place.get(parent, -1))
    for number in sorted(on_cycles(found)):
        refuse(number, "its parents lead back to itself")
    return Links(tuple(found), nest)


def on_cycles(parents: Sequence[int]) -> set[int]:
    """The numbers from which a way up (-1: no parent) leads back to themselves."""
    walks = [0] * len(parents)  # the walk in which a number was met first, from 1
    cyclic: set[int] = set()
    for start in range(len(parents)):
        node, path = start, []
        while node >= 0 and not walks[node]:
            walks[node] = start + 1
            path.append(node)
            node = parents[node]
        if node >= 0 and walks[node] == start + 1:
            cyclic.update(path[path.index(node) :])
    return cyclic


@dataclass(frozen=True, slots=True)
class Scene:
    """One image with its objects, in the order of the dataset.

    Attributes:
        image_id: the dataset's name for the image; a number is written in digits.
        file_name: of the image, relative to the folder of images.
        height, width: pixels.
        source: the dataset or datasets ("lvis", "coco+lvis").
        objects: the masks that take part.
        parents: each object's parent (-1 for a root) where the dataset brings a finished hierarchy, otherwise None.
        dropped: how many annotations were left out, by reason, and links that were changed (`link: ...`).
        links: where the dataset declares parts, the links as it says them; otherwise None.
    """

    image_id: str
    file_name: str
    height: int
    width: int
    source: str
    objects: tuple[SceneObject, ...]
    parents: tuple[int, ...] | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    links: Links | None = None

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

    Optional, looked for by name: `object_counts(images)`, how many objects each image of a range has, or an estimate,
    by which work is divided evenly; `check_unchanged()`: `InputError` if its file is no longer the one that was opened.
    """

    @property
    def name(self) -> str:
        """The dataset or datasets: "lvis", "coco+lvis", "sbd" ..."""

    def __len__(self) -> int:
        """How many images there are, those without a mask included."""

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        """The scenes of these numbers, in this order; InputError for a malformed record."""

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of everything that decides the scenes, by file name."""


class KeyedScenes(ABC):
    """A `SceneSource` that has a key for each image, in the order of its scenes, and reads a scene by its key."""

    keys: Sequence[Any]

    def __len__(self) -> int:
        """How many images there are, those without a mask included."""
        return len(self.keys)

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        """The scenes with these indices, in this order; `InputError` for a malformed record."""
        return (self._scene(self.keys[index]) for index in indices)

    @abstractmethod
    def _scene(self, key: Any) -> Scene: ...


Combination = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetOfObjects:
    """One diverse set, by the numbers of its objects.

    Attributes:
        center: the object that the click is meant for.
        members: the masks, inner to outer; each is the union of the objects that it names.
        click_excludes: objects whose pixels are not part of the click region.
        left_out: combinations that were not looked at once the cap was reached; some might have repeated a mask.
        repeated: combinations whose union another one has already.
    """

    center: int
    members: tuple[Combination, ...]
    click_excludes: Combination = ()
    left_out: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class SampledScene:
    """A scene with the relations between its objects and its diverse sets. One row of a shard.

    Attributes:
        scene: the objects that take part, in the order that their numbers mean.
        parents: each object's parent, -1 for a root; None without a hierarchy, and for stuff, which is not in it.
        levels: 0 for a root; None likewise.
        neighbours: of each object those that touch it, ascending; empty without a proximity graph.
    """

    scene: Scene
    parents: tuple[int | None, ...]
    levels: tuple[int | None, ...]
    neighbours: tuple[tuple[int, ...], ...]
    sets: tuple[SetOfObjects, ...]


def click_region(rles: Sequence[Rle], chosen: SetOfObjects) -> Rle:
    """The pixels from which the first click is drawn."""
    return difference(rles[chosen.center], [rles[index] for index in chosen.click_excludes])


def set_masks(rles: Sequence[Rle], chosen: SetOfObjects) -> list[Rle]:
    """The masks of a set, inner to outer."""
    return [union([rles[index] for index in member]) for member in chosen.members]


def draw_click(region: Rle, generator: np.random.Generator) -> Click:
    """A positive click, uniform over the pixels of a region; ValueError for an empty one."""
    area = int(areas([region])[0])
    if area == 0:
        raise ValueError("no click can be drawn from an empty region")
    x, y = pixel(region, int(generator.integers(area)))
    return Click(x, y, positive=True)


def relation(sampled: SampledScene, center: int, member: Combination) -> str:
    """The relation of a member of a set to its center.

    Returns:
        `self`; `parent`, `grandparent`, `ancestor-3`, ... (alone, or united with what lies between); `group`: like
            parts of one whole, which is no step up;
        `with-1-neighbour`, `with-2-neighbours`, ...: united with objects that touch it; `container`: another object
        that contains it; `with-1-other`, ...: united with unrelated objects.
    """
    others = [number for number in member if number != center]
    if not others:
        return "self"
    up = ancestors(sampled.parents, center)
    if all(number in up for number in others):
        kinds = [sampled.scene.objects[number].kind for number in up[: max(map(up.index, others)) + 1]]
        if kinds[-1] == "group":
            return "group"
        depth = len(kinds) - kinds.count("group")
        return {1: "parent", 2: "grandparent"}.get(depth, f"ancestor-{depth}")
    if center not in member:
        return "container"
    kind = "neighbour" if set(others) <= set(sampled.neighbours[center]) else "other"
    return f"with-{len(others)}-{kind}{'s' if len(others) > 1 else ''}"


def ancestors(parents: Sequence[int | None], node: int) -> list[int]:
    """A node's parent, grandparent and so on; empty without a tree."""
    found: list[int] = []
    parent = parents[node]
    while parent is not None and parent >= 0:
        found.append(parent)
        parent = parents[parent]
    return found
