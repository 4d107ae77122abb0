"""Scenes of wholes with declared parts, to draw splits from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from shard_tools import Scenes, scene_object

from disbench.core.scenes import Links, Scene
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import load_recipe

SIZE = (48, 64)
NAMES = ("wheel", "Wheel_2", "door", *(f"panel {letter}" for letter in "abcdefghijklmnopqrstuvwx"))


def parts_scene(rng: np.random.Generator, number: int) -> Scene:
    """Wholes, their parts and parts of parts, some of them small, crowded, alike, or nearly the whole."""
    objects, parents = [], []

    def add(box: tuple[int, int, int, int], parent: int, name: str) -> int:
        mask = np.zeros(SIZE, dtype=bool)
        top, left, height, width = box
        mask[top : top + height, left : left + width] = True
        item = scene_object(mask, "crowd" if rng.random() < 0.05 else "thing", name)
        objects.append(dataclasses.replace(item, annotation_id=100 * number + len(objects), synset=None))
        parents.append(parent)
        return len(objects) - 1

    def inner(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        top, left, height, width = box
        tall, wide = (int(rng.integers(max(3, side // 3), side + 1)) for side in (height, width))
        return top + int(rng.integers(height - tall + 1)), left + int(rng.integers(width - wide + 1)), tall, wide

    for whole in range(int(rng.integers(1, 3))):
        box = (2, 2 + 32 * whole, 40, 28)
        root = add(box, -1, "car")
        for _ in range(int(rng.integers(1, 6))):
            part = inner(box)
            middle = add(part, root, f"car:{rng.choice(NAMES)}")
            if rng.random() < 0.5:
                add(inner(part), middle, "car:rim")
    file_name = f"{'val' if number % 3 else 'train'}2017/{number:06d}.jpg"
    return Scene(str(number), file_name, *SIZE, "parts", tuple(objects), links=Links(tuple(parents)))


def parts_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Scenes numbered from 1."""
    rng = np.random.default_rng(seed)
    return [parts_scene(rng, number) for number in range(1, count + 1)]


def shuffled(scenes: Sequence[Scene], seed: int) -> list[Scene]:
    """The scenes in another order, each with its objects in another order."""
    rng = np.random.default_rng(seed)
    found = []
    for index in rng.permutation(len(scenes)).tolist():
        scene = scenes[index]
        order = rng.permutation(len(scene.objects)).tolist()
        links = scene.links
        assert links is not None
        place = {old: new for new, old in enumerate(order)} | {-1: -1}
        parents = tuple(place[links.parents[old]] for old in order)
        objects = tuple(scene.objects[old] for old in order)
        found.append(dataclasses.replace(scene, objects=objects, links=Links(parents)))
    return found


def parts_shards(folder: Path, scenes: Sequence[Scene], overrides: Sequence[str] = ()) -> Path:
    """Shards of the scenes by the recipe for declared parts, small masks among them."""
    make_shards(Scenes(scenes), load_recipe("paco-parts", ["min_area=20", *overrides]), folder)
    return folder
