"""Scenes (one image with all its objects), as dataset readers pass them to the samplers."""

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

LINK = "link: "  # prefix in `Scene.dropped` of changes to declared links


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One annotated mask of an image.

    Attributes:
        rle: the mask, of the image's size.
        area: number of pixels.
        box: x, y, width, height of the mask in whole pixels, both ends included.
        category: the dataset's category name.
        synset: WordNet synset ("cup.n.01") if the dataset has it.
        annotation_id: the dataset's id of the annotation, if any.
        source: the dataset it comes from ("lvis", "coco", "sbd", ...).
        kind: a countable thing, a crowd, stuff, or a group of similar parts of one whole, added by the sampler.
        keys: keys that group similar parts, finest first ("left front leg", "front leg", "leg"), as written by
            `part_key`; empty for the part's name in `category`. Not stored in shards.
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
    """Objects with the areas and boxes of their masks; `about` has the fields of `SceneObject` from `category` on."""
    columns = zip(rles, areas(rles).tolist(), map(tuple, boxes(rles).tolist()), about, strict=True)
    return tuple([SceneObject(rle, area, box, *rest) for rle, area, box, rest in columns])


@dataclass(frozen=True, slots=True)
class Links:
    """Wholes that a dataset declares for the parts in a scene, unchecked; the sampler checks them.

    Attributes:
        parents: index of each object's declared parent, including empty and small objects; -1 for none and for a
            missing parent, which the reader counts (or refuses).
        nest: True if parts of one whole may also be nested by geometry, for datasets that declare one level.
    """

    parents: tuple[int, ...]
    nest: bool = False


def resolve_links(
    ids: Sequence[Hashable],
    parents: Sequence[Hashable],
    refuse: Callable[[int, str], None],
    dropped: Counter[str],
    *,
    nest: bool = False,
) -> Links:
    """Declared links of a scene, from ids in a file.

    Args:
        ids: id of each object; None for an object that cannot be a parent.
        parents: id of each object's parent; None, or its own id, for none.
        refuse: called with an object's index and what is wrong with its link (a missing parent, a cycle); raises if
            the user asked for it. Otherwise the object becomes a root.
        dropped: updated with the count of missing parents; the sampler counts the rest.
        nest: as in `Links`.
    """
    place = {name: number for number, name in enumerate(ids) if name is not None}
    found = []
    for number, (name, parent) in enumerate(zip(ids, parents, strict=True)):
        is_root = parent is None or parent == name
        if not is_root and parent not in place:
            refuse(number, f"its parent {parent} is not an annotation of the same image")
            dropped[f"{LINK}parent missing"] += 1
        found.append(-1 if is_root else place.get(parent, -1))
    for number in sorted(on_cycles(found)):
        refuse(number, "its parents lead back to itself")
    return Links(tuple(found), nest)


def on_cycles(parents: Sequence[int]) -> set[int]:
    """Indices of all nodes on a cycle; a parent of -1 means none."""
    walks = [0] * len(parents)  # the walk, from 1, that first visited a node
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
        image_id: the dataset's id of the image, as a string.
        file_name: path of the image, relative to the folder of images.
        height, width: pixels.
        source: the dataset or datasets ("lvis", "coco+lvis").
        objects: the objects used.
        parents: each object's parent (-1 for a root) if the dataset has a finished hierarchy, otherwise None.
        dropped: number of annotations left out, by reason, and of links that were changed (`link: ...`).
        links: the declared links if the dataset declares parts, otherwise None.
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
        """Masks of all objects, in order."""
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
    """A dataset that scenes are read from. Picklable: worker processes read scenes by index.

    Optional methods: `object_counts(images)`: exact or estimated number of objects of each image in a range, used to
    divide work evenly; `check_unchanged()`: `InputError` if its file has changed since it was opened.
    """

    @property
    def name(self) -> str:
        """Name of the dataset or datasets: "lvis", "coco+lvis", "sbd" ..."""

    def __len__(self) -> int:
        """Number of images, including those without masks."""

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        """Read the scenes at these indices, in this order; InputError for a malformed record."""

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of everything that determines the scenes, by file name."""


class KeyedScenes(ABC):
    """A `SceneSource` with one key per image, in order, that reads a scene by its key."""

    keys: Sequence[Any]

    def __len__(self) -> int:
        """Number of images, including those without masks."""
        return len(self.keys)

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        """Read the scenes at these indices, in this order; `InputError` for a malformed record."""
        return (self._scene(self.keys[index]) for index in indices)

    @abstractmethod
    def _scene(self, key: Any) -> Scene: ...


Combination = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetOfObjects:
    """One diverse set, by indices of its objects.

    Attributes:
        center: the object that the click is meant for.
        members: the masks, inner to outer; each is the union of the objects listed.
        click_excludes: objects whose pixels are not part of the click region.
        left_out: combinations not examined after the cap was reached; some might have repeated a mask.
        repeated: combinations whose union equals an earlier one.
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
        scene: the objects used; all indices refer to this order.
        parents: each object's parent, -1 for a root; None without a hierarchy, and for stuff.
        levels: depth in the hierarchy, 0 for a root; None as for `parents`.
        neighbours: objects that touch each object, ascending; empty without a proximity graph.
    """

    scene: Scene
    parents: tuple[int | None, ...]
    levels: tuple[int | None, ...]
    neighbours: tuple[tuple[int, ...], ...]
    sets: tuple[SetOfObjects, ...]


def click_region(rles: Sequence[Rle], chosen: SetOfObjects) -> Rle:
    """Pixels from which the first click is drawn."""
    return difference(rles[chosen.center], [rles[index] for index in chosen.click_excludes])


def set_masks(rles: Sequence[Rle], chosen: SetOfObjects) -> list[Rle]:
    """Masks of a set, inner to outer."""
    return [union([rles[index] for index in member]) for member in chosen.members]


def draw_click(region: Rle, generator: np.random.Generator) -> Click:
    """Draw a positive click uniformly from a region; ValueError if it is empty."""
    area = int(areas([region])[0])
    if area == 0:
        raise ValueError("cannot draw a click from an empty region")
    x, y = pixel(region, int(generator.integers(area)))
    return Click(x, y, positive=True)


def relation(sampled: SampledScene, center: int, member: Combination) -> str:
    """Relation of a member of a set to its center.

    Returns:
        `self`; `parent`, `grandparent`, `ancestor-3`, ... (alone, or united with objects in between); `group`: similar
            parts of one whole, which does not count as a level; `with-1-neighbour`, `with-2-neighbours`, ...: united
            with objects that touch it; `container`: another object that contains it; `with-1-other`, ...: united with
            unrelated objects.
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
    """Parent, grandparent and so on of a node; empty without a hierarchy."""
    found: list[int] = []
    parent = parents[node]
    while parent is not None and parent >= 0:
        found.append(parent)
        parent = parents[parent]
    return found
