"""Shards for other tools: RITM's `hannotation.pickle` with its masks, and COCO's instances JSON."""

from __future__ import annotations

import itertools
import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from disbench.core.arrays import ByteArray
from disbench.core.errors import InputError, shown
from disbench.core.limits import MAX_FILE_NAME
from disbench.core.masks import Rle, areas, boxes, decode
from disbench.core.painting import png
from disbench.core.scenes import SampledScene, Scene
from disbench.datasets.hannotation import ANNOTATION, MASKS, is_file_name, is_number
from disbench.io.files import whole_file
from disbench.shards.reader import ShardReader

MASKS_A_LAYER = 255


def export_ritm(shards: Path, out: Path) -> int:
    """Write shards as one split of RITM's COCO+LVIS (docs/hierarchy.md, "RITM's files"); how many scenes were written.

    `out/hannotation.pickle` has the tree of every image and `out/masks/ID.pickle` its masks: the instances in the order
    of the shards, then the stuff. Recipes without a hierarchy give isolated roots. Diverse sets have no place in this
    format. A scene without an instance is left out, as RITM's loader draws until it has an object; it reads
    `out/images/ID.jpg`. Ids are whole numbers; if one is not ("2008_000051" of SBD, or with leading zeros), all are
    text, which the loader accepts too.

    The pickles refer only to `numpy.frombuffer`, so NumPy 1 and 2 both read them. The annotation is written last, and
    every file appears whole; files of these names in `out` are replaced.

    Raises:
        InputError: the shards are unfinished or damaged, an image occurs twice or its id cannot be a file
            name, or stuff precedes an instance.
    """
    reader = ShardReader(shards)
    (out / MASKS).mkdir(parents=True, exist_ok=True)
    (out / ANNOTATION).unlink(missing_ok=True)  # an old one would vouch for masks that are not all written
    images: dict[str, dict[str, Any]] = {}
    for sampled in reader:
        name, stuff = sampled.scene.image_id, [item.kind == "stuff" for item in sampled.scene.objects]
        if stuff != sorted(stuff):
            raise InputError(f"{shards}: image {name}: stuff precedes an instance; sample again")
        if name in images:
            raise InputError(f"{shards}: image {name} occurs twice; sample again")
        if not is_file_name(name) or len(name.encode("utf-8", "replace")) > MAX_FILE_NAME:
            raise InputError(f"{shards}: the image id {shown(name)} cannot be a file name; rename the image")
        if instances := stuff.count(False):
            layers, places = pack_masks(sampled.scene.rles)
            _dump(
                out / MASKS / f"{name}.pickle",
                ([np.frombuffer(png(labels), dtype=np.uint8) for labels in layers], places),
            )
            images[name] = {"num_instance_masks": instances, "hierarchy": _hierarchy(sampled, instances)}
    numbers = all(is_number(name) and name == str(int(name)) for name in images)
    _dump(out / ANNOTATION, {int(name): images[name] for name in images} if numbers else images)
    return len(images)


def export_coco(shards: Path, out: Path) -> int:
    """Write shards as one COCO instances JSON, which `pycocotools.coco.COCO` opens; how many scenes were written.

    An image's `id` is its id in the shards where that is a number and otherwise a running number; the id of the shards
    is kept as `disbench_id`. Beyond COCO's keys annotations, whose masks are compressed RLE, have `parent_id`, by which
    `disbench sample coco-hierarchy` makes the same trees again, and `synset`, where there is one. Categories are
    numbered from 1 in the order of their names, with `synset` where a category has one only.

    A further array, `diverse_sets`, has `image_id`, `center`, `members` (inner to outer; each is the union of the
    annotations that it lists) and `click_excludes`, all by annotation id. Stuff is left out, except in scenes with a
    set that names some of it, where all of it is kept.

    `out` appears whole or not at all, and replaces an older file. The same shards give the same bytes.

    Raises:
        InputError: the shards are unfinished or damaged, an image occurs twice, or `out` is a folder.
    """
    reader = ShardReader(shards)
    if out.is_dir():
        raise InputError(f"{out}: a folder; name the JSON file to write")
    out.parent.mkdir(parents=True, exist_ok=True)
    names, categories = _survey(reader)
    numbers = _image_numbers(shards, names)
    ids = {category["name"]: category["id"] for category in categories}
    with whole_file(out) as file:
        about = {"description": "Diverse ground truth by disbench", "recipe": reader.manifest.recipe}
        file.write(b'{"info":' + orjson.dumps(about))
        # The arrays follow each other in the file, so each is a pass over the shards: none is ever held.
        _write_array(file, "images", (_image(sampled.scene, numbers) for sampled in reader))
        _write_array(file, "annotations", _annotations(reader, numbers, ids))
        _write_array(file, "categories", categories)
        _write_array(file, "diverse_sets", _diverse_sets(reader, numbers))
        file.write(b"}\n")
    return len(reader)


def pack_masks(rles: Sequence[Rle]) -> tuple[list[ByteArray], list[tuple[int, int]]]:
    """Pack masks of one size, which may overlap, into as few label maps as a first fit needs.

    The masks are taken by descending area (of equal areas the later one first); each goes into the first
    layer that holds fewer than 255 masks and where it overlaps none, under the next value there.

    Returns:
        The layers, uint8 (height, width), 0 for the background; and for each mask its layer and its value there.
    """
    layers: list[ByteArray] = []
    held: list[int] = []
    places = [(0, 0)] * len(rles)
    box = boxes(rles).tolist()
    for index in np.argsort(areas(rles), kind="stable")[::-1].tolist():
        x, y, width, height = box[index]
        window = (slice(y, y + height), slice(x, x + width))
        pixels = decode(rles[index])[window]
        with_room = (n for n, count in enumerate(held) if count < MASKS_A_LAYER)
        layer = next((n for n in with_room if not layers[n][window][pixels].any()), len(layers))
        if layer == len(layers):
            layers.append(np.zeros(rles[index]["size"], dtype=np.uint8))
            held.append(0)
        held[layer] += 1
        layers[layer][window][pixels] = held[layer]
        places[index] = (layer, held[layer])
    return layers, places


def _hierarchy(sampled: SampledScene, instances: int) -> dict[int, dict[str, Any] | None]:
    """The tree of the instances; children by descending area, as they are attached when a tree is built."""
    parents = [None if parent is None or parent < 0 else parent for parent in sampled.parents[:instances]]
    children = defaultdict(list)
    for index in np.argsort(areas(sampled.scene.rles[:instances]), kind="stable")[::-1].tolist():
        children[parents[index]].append(index)
    return {
        index: {"children": children[index], "parent": parent, "node_level": sampled.levels[index]}
        if parent is not None or index in children
        else None
        for index, parent in enumerate(parents)
    }


class _PortablePickler(pickle.Pickler):
    """Writes uint8 arrays by a name that NumPy 1 and 2 share; NumPy's own way names `numpy._core`."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 1:
            return np.frombuffer, (value.tobytes(), "uint8")
        return NotImplemented


def _dump(path: Path, content: object) -> None:
    with whole_file(path) as file:
        _PortablePickler(file, protocol=4).dump(content)


def _write_array(file: BinaryIO, name: str, records: Iterable[dict[str, Any]]) -> None:
    file.write(b',"' + name.encode() + b'":[')
    for number, record in enumerate(records):
        file.write((b",\n" if number else b"\n") + orjson.dumps(record))
    file.write(b"]")


def _image_numbers(shards: Path, names: Iterable[str]) -> dict[str, int]:
    """COCO's number for each image: the id where it is digits, for the others numbers that are free."""
    numbers: dict[str, int | None] = {}
    taken = set()
    for name in names:
        if name in numbers:
            raise InputError(f"{shards}: image {name} occurs twice; sample again")
        numbers[name] = int(name) if is_number(name) and int(name) not in taken else None
        taken.add(numbers[name])
    free = (number for number in itertools.count(1) if number not in taken)
    return {name: next(free) if number is None else number for name, number in numbers.items()}


def _survey(reader: ShardReader) -> tuple[list[str], list[dict[str, Any]]]:
    """The ids of all images, and the categories of all objects that are kept."""
    names = []
    synsets: dict[str, set[str]] = defaultdict(set)
    for sampled, ids in _numbered(reader):
        names.append(sampled.scene.image_id)
        for item in (sampled.scene.objects[index] for index in ids):
            synsets[item.category].update([item.synset] if item.synset else [])
    return names, [
        {"id": number, "name": name} | ({"synset": min(known)} if len(known) == 1 else {})
        for number, (name, known) in enumerate(sorted(synsets.items()), 1)
    ]


def _numbered(reader: ShardReader) -> Iterator[tuple[SampledScene, dict[int, int]]]:
    """Every scene, with the annotation ids of its objects: without stuff, unless a set names some."""
    following = 1
    for sampled in reader:
        objects = sampled.scene.objects
        named = (i for s in sampled.sets for i in (s.center, *s.click_excludes, *itertools.chain(*s.members)))
        keep_stuff = any(objects[index].kind == "stuff" for index in named)
        kept = [index for index, item in enumerate(objects) if keep_stuff or item.kind != "stuff"]
        yield sampled, dict(zip(kept, itertools.count(following)))
        following += len(kept)


def _image(scene: Scene, numbers: dict[str, int]) -> dict[str, Any]:
    return {
        "id": numbers[scene.image_id],
        "file_name": scene.file_name,
        "height": scene.height,
        "width": scene.width,
        "disbench_id": scene.image_id,
    }


def _annotations(reader: ShardReader, numbers: dict[str, int], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    for sampled, ids in _numbered(reader):
        for index, number in ids.items():
            item, parent = sampled.scene.objects[index], sampled.parents[index]
            annotation: dict[str, Any] = {
                "id": number,
                "image_id": numbers[sampled.scene.image_id],
                "category_id": categories[item.category],
                "segmentation": {"size": item.rle["size"], "counts": item.rle["counts"].decode("ascii")},
                "area": item.area,
                "bbox": item.box,
                "iscrowd": int(item.kind == "crowd"),
            }
            if parent is not None and parent >= 0:
                annotation["parent_id"] = ids[parent]
            if item.synset:
                annotation["synset"] = item.synset
            yield annotation


def _diverse_sets(reader: ShardReader, numbers: dict[str, int]) -> Iterator[dict[str, Any]]:
    for sampled, ids in _numbered(reader):
        for item in sampled.sets:
            yield {
                "image_id": numbers[sampled.scene.image_id],
                "center": ids[item.center],
                "members": [[ids[index] for index in member] for member in item.members],
                "click_excludes": [ids[index] for index in item.click_excludes],
            }
