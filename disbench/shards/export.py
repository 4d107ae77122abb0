"""Export shards as RITM's `hannotation.pickle` with its masks, or as COCO instances JSON."""

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
from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_FILE_NAME
from disbench.core.masks import Rle, areas, boxes, decode
from disbench.core.painting import encode_png
from disbench.core.scenes import SampledScene, Scene
from disbench.datasets.hannotation import ANNOTATION, MASKS, is_file_name, is_number
from disbench.io.files import atomic_write
from disbench.shards.reader import ShardReader

MASKS_PER_LAYER = 255


def export_ritm(shards: Path, out: Path) -> int:
    """Write shards as one split of RITM's COCO+LVIS (docs/hierarchy.md, "RITM's files"); return the number of scenes.

    `out/hannotation.pickle` has the tree of each image and `out/masks/ID.pickle` its masks: instances in shard order,
    then stuff. Without a hierarchy, all masks are isolated roots. The format cannot hold diverse sets. Scenes without
    an instance are skipped, since RITM's loader resamples until it finds an object; it reads `out/images/ID.jpg`. Image
    ids are integers, or all strings if one is not an integer ("2008_000051" in SBD, leading zeros); the loader accepts
    both.

    The pickles refer only to `numpy.frombuffer`, so both NumPy 1 and 2 read them. Existing files are replaced
    atomically, the annotation last.

    Raises:
        InputError: the shards are unfinished or damaged, an image occurs twice or its id cannot be a file
            name, or stuff precedes an instance.
    """
    reader = ShardReader(shards)
    (out / MASKS).mkdir(parents=True, exist_ok=True)
    (out / ANNOTATION).unlink(missing_ok=True)  # if interrupted, a stale annotation would refer to missing masks
    images: dict[str, dict[str, Any]] = {}
    for sampled in reader:
        name, stuff = sampled.scene.image_id, [item.kind == "stuff" for item in sampled.scene.objects]
        if stuff != sorted(stuff):
            raise InputError(f"{shards}: image {name}: stuff precedes an instance; sample again")
        if name in images:
            raise InputError(f"{shards}: image {name} occurs twice; sample again")
        if not is_file_name(name) or len(name.encode("utf-8", "replace")) > MAX_FILE_NAME:
            raise InputError(f"{shards}: the image id {quote(name)} cannot be a file name; rename the image")
        if instances := stuff.count(False):
            layers, places = pack_masks(sampled.scene.rles)
            encoded = [np.frombuffer(encode_png(labels), dtype=np.uint8) for labels in layers]
            _write_pickle(out / MASKS / f"{name}.pickle", (encoded, places))
            images[name] = {"num_instance_masks": instances, "hierarchy": _hierarchy(sampled, instances)}
    numbers = all(is_number(name) and name == str(int(name)) for name in images)
    _write_pickle(out / ANNOTATION, {int(name): images[name] for name in images} if numbers else images)
    return len(images)


def export_coco(shards: Path, out: Path) -> int:
    """Write shards as one COCO instances JSON, which `pycocotools.coco.COCO` opens; return the number of scenes.

    An image's `id` is its shard id if numeric, else a free number; `disbench_id` keeps the shard id. Masks are
    compressed RLE. Besides COCO's keys, annotations have `parent_id`, from which `disbench sample coco-hierarchy`
    rebuilds the same trees, and, where known, `synset`. Categories are numbered from 1, sorted by name, with `synset`
    if a category has exactly one.

    An extra array, `diverse_sets`, has `image_id`, `center`, `members` (inner to outer; each the union of the
    annotations it lists) and `click_excludes`, all as annotation ids. Stuff is omitted, except in scenes where a set
    refers to some; those keep all of it.

    `out` is replaced atomically. The same shards give the same bytes.

    Raises:
        InputError: the shards are unfinished or damaged, an image occurs twice, or `out` is a folder.
    """
    reader = ShardReader(shards)
    if out.is_dir():
        raise InputError(f"{out}: a folder; name the JSON file to write")
    out.parent.mkdir(parents=True, exist_ok=True)
    names, categories = _ids_and_categories(reader)
    numbers = _coco_image_ids(shards, names)
    ids = {category["name"]: category["id"] for category in categories}
    with atomic_write(out) as file:
        info = {"description": "Diverse ground truth by disbench", "recipe": reader.manifest.recipe}
        file.write(b'{"info":' + orjson.dumps(info))
        # Each array is streamed in its own pass over the shards, so none is held in memory.
        _write_array(file, "images", (_image(sampled.scene, numbers) for sampled in reader))
        _write_array(file, "annotations", _annotations(reader, numbers, ids))
        _write_array(file, "categories", categories)
        _write_array(file, "diverse_sets", _diverse_sets(reader, numbers))
        file.write(b"}\n")
    return len(reader)


def pack_masks(rles: Sequence[Rle]) -> tuple[list[ByteArray], list[tuple[int, int]]]:
    """Pack masks of one size, which may overlap, into label maps by first fit.

    In order of descending area (later mask first on ties), each mask takes the next value of the first layer that has
    fewer than 255 masks and where it overlaps none.

    Returns:
        The layers, uint8 (height, width), 0 for the background; and the (layer, value) of each mask.
    """
    layers: list[ByteArray] = []
    counts: list[int] = []
    places = [(0, 0)] * len(rles)
    box = boxes(rles).tolist()
    for index in np.argsort(areas(rles), kind="stable")[::-1].tolist():
        x, y, width, height = box[index]
        window = (slice(y, y + height), slice(x, x + width))
        pixels = decode(rles[index])[window]
        open_layers = (n for n, count in enumerate(counts) if count < MASKS_PER_LAYER)
        layer = next((n for n in open_layers if not layers[n][window][pixels].any()), len(layers))
        if layer == len(layers):
            layers.append(np.zeros(rles[index]["size"], dtype=np.uint8))
            counts.append(0)
        counts[layer] += 1
        layers[layer][window][pixels] = counts[layer]
        places[index] = (layer, counts[layer])
    return layers, places


def _hierarchy(sampled: SampledScene, instances: int) -> dict[int, dict[str, Any] | None]:
    """The tree of the instances; children by descending area, the order in which `build_forest` attaches them."""
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
    """Pickles uint8 arrays through `numpy.frombuffer`: NumPy 2's own pickles name `numpy._core`, which 1.x lacks."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 1:
            return np.frombuffer, (value.tobytes(), "uint8")
        return NotImplemented


def _write_pickle(path: Path, content: object) -> None:
    with atomic_write(path) as file:
        _PortablePickler(file, protocol=4).dump(content)


def _write_array(file: BinaryIO, name: str, records: Iterable[dict[str, Any]]) -> None:
    file.write(b',"' + name.encode() + b'":[')
    for number, record in enumerate(records):
        file.write((b",\n" if number else b"\n") + orjson.dumps(record))
    file.write(b"]")


def _coco_image_ids(shards: Path, names: Iterable[str]) -> dict[str, int]:
    """COCO's integer id for each image: its own id if numeric and not taken, else the next free number."""
    numbers: dict[str, int | None] = {}
    used = set()
    for name in names:
        if name in numbers:
            raise InputError(f"{shards}: image {name} occurs twice; sample again")
        numbers[name] = int(name) if is_number(name) and int(name) not in used else None
        used.add(numbers[name])
    free = (number for number in itertools.count(1) if number not in used)
    return {name: next(free) if number is None else number for name, number in numbers.items()}


def _ids_and_categories(reader: ShardReader) -> tuple[list[str], list[dict[str, Any]]]:
    """All image ids, and the categories of all exported objects."""
    names = []
    synsets: dict[str, set[str]] = defaultdict(set)
    for sampled, ids in _with_annotation_ids(reader):
        names.append(sampled.scene.image_id)
        for item in (sampled.scene.objects[index] for index in ids):
            synsets[item.category].update([item.synset] if item.synset else [])
    return names, [
        {"id": number, "name": name} | ({"synset": min(known)} if len(known) == 1 else {})
        for number, (name, known) in enumerate(sorted(synsets.items()), 1)
    ]


def _with_annotation_ids(reader: ShardReader) -> Iterator[tuple[SampledScene, dict[int, int]]]:
    """Each scene with the annotation ids of its objects; stuff is omitted unless a set refers to some."""
    next_id = 1
    for sampled in reader:
        objects = sampled.scene.objects
        members = [
            member for chosen in sampled.sets for member in ((chosen.center,), chosen.click_excludes, *chosen.members)
        ]
        keep_stuff = any(objects[index].kind == "stuff" for member in members for index in member)
        kept = [index for index, item in enumerate(objects) if keep_stuff or item.kind != "stuff"]
        yield sampled, dict(zip(kept, itertools.count(next_id)))
        next_id += len(kept)


def _image(scene: Scene, numbers: dict[str, int]) -> dict[str, Any]:
    size = {"height": scene.height, "width": scene.width}
    return {"id": numbers[scene.image_id], "file_name": scene.file_name, **size, "disbench_id": scene.image_id}


def _annotations(reader: ShardReader, numbers: dict[str, int], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    for sampled, ids in _with_annotation_ids(reader):
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
    for sampled, ids in _with_annotation_ids(reader):
        for item in sampled.sets:
            yield {
                "image_id": numbers[sampled.scene.image_id],
                "center": ids[item.center],
                "members": [[ids[index] for index in member] for member in item.members],
                "click_excludes": [ids[index] for index in item.click_excludes],
            }
