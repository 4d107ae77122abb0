"""Whether a folder of shards is one: its manifest's kinds, and that a scene's numbers name what is there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from disbench.core.limits import MAX_PIXELS, MAX_ROWS
from disbench.core.masks import Rle, are_well_formed, areas, boxes, from_foreign_rle
from disbench.core.scenes import Kind
from disbench.io.archives import safe_path

Row = Mapping[str, Any]
_KINDS = get_args(Kind)
_OPTIONAL: Mapping[str, type] = {"recipe": dict, "dropped": dict, "images": int, "source": str, "scenes": int}
"""Keys of a manifest that are read where they are there, and the kinds of their values; null is as good as none."""


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """See that what is read of a manifest is of the right kind.

    Args:
        manifest: the object of `manifest.json`, of a known schema.

    Raises:
        ValueError: it is not; says what.
    """
    files = manifest.get("files")
    if not isinstance(files, list):
        raise ValueError("it names no files")
    for entry in files:
        _check_entry(entry)
    for key, kind in _OPTIONAL.items():
        value = manifest.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ValueError(f"{key} is {value!r}"[:200])
    for key, count in (manifest.get("dropped") or {}).items():
        if not _is_count(count):
            raise ValueError(f"dropped: {key!r} is {count!r}"[:200])
    for key in ("images", "scenes"):
        if manifest.get(key) is not None and not _is_count(manifest[key]):
            raise ValueError(f"{key} is {manifest[key]!r}"[:200])


def _check_entry(entry: object) -> None:
    if not isinstance(entry, Mapping):
        raise ValueError(f"a file is {entry!r}"[:200])
    name = entry.get("name")
    if not isinstance(name, str):  # that it is a plain one is looked at where the file is opened
        raise ValueError(f"a file's name is {name!r}"[:200])
    for key in ("rows", "bytes"):
        if not _is_count(entry.get(key)):
            raise ValueError(f"{key} of {name!r} is {entry.get(key)!r}"[:200])
    if not isinstance(entry.get("sha256"), str | None):
        raise ValueError(f"sha256 of {name!r} is {entry['sha256']!r}"[:200])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ROWS


def masks_are_well_formed(rows: Iterable[Row]) -> bool:
    """Whether all masks of some rows are as the encoder writes them: told at once, faster than row by row."""
    return are_well_formed(
        [{"size": [row["height"], row["width"]], "counts": item["rle"]} for row in rows for item in row["objects"]]
    )


def check_row(row: Row, *, well_formed: bool = False) -> None:
    """See that a row of a shard is a scene.

    Args:
        row: of `disbench.shards.reader.SCHEMA`.
        well_formed: whether it is known that its masks are (`masks_are_well_formed`).

    Raises:
        ValueError: a size that is none or larger than `MAX_PIXELS`, an image outside its folder, a mask that is none
            of the image or has another area or box, relations that are none, or a number that names no object.
    """
    height, width, objects = row["height"], row["width"], row["objects"]
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"an image of {width} x {height} pixels")
    safe_path(row["file_name"], "its image")
    if any(item["count"] < 0 for item in row["dropped"]):
        raise ValueError("a negative number of annotations was left out")
    _check_objects(objects, height, width, well_formed=well_formed or masks_are_well_formed([row]))
    _check_hierarchy(objects)
    for number, item in enumerate(row["sets"]):
        _check_set(item, number, len(objects))


def _check_objects(objects: Sequence[Row], height: int, width: int, *, well_formed: bool) -> None:
    for number, item in enumerate(objects):
        if item["id"] != number or item["kind"] not in _KINDS:
            raise ValueError(f"object {number} has the id {item['id']} and the kind {item['kind']!r}")
        _check_numbers(item["neighbours"], len(objects), f"a neighbour of object {number}")
    rles: list[Rle] = [{"size": [height, width], "counts": item["rle"]} for item in objects]
    if not well_formed:  # the slow way tells what is wrong
        rles = [_mask(number, rle, height, width) for number, rle in enumerate(rles)]
    for number, (item, area, box) in enumerate(zip(objects, areas(rles).tolist(), boxes(rles).tolist(), strict=True)):
        if item["area"] != area or item["box"] != box or not area:
            raise ValueError(f"object {number} has {area} pixels in the box {box}, not {item['area']} in {item['box']}")


def _mask(number: int, rle: Rle, height: int, width: int) -> Rle:
    try:
        return from_foreign_rle(rle, height, width)
    except ValueError as error:
        raise ValueError(f"object {number}: {error}") from error


def _check_hierarchy(objects: Sequence[Row]) -> None:
    """Levels that rise by one from a parent to its children leave no room for a circle."""
    for number, item in enumerate(objects):
        level, parent = item["level"], item["parent"]
        if parent is not None:
            _check_numbers([parent], len(objects), f"the parent of object {number}")
        above = -1 if parent is None else objects[parent]["level"]
        node = level is not None and above is not None and level == above + 1 and item["kind"] != "stuff"
        if not node and (level, parent) != (None, None):
            raise ValueError(f"object {number} has the level {level} below its parent's, {above}")


def _check_set(item: Row, number: int, count: int) -> None:
    _check_numbers([item["center"], *item["click_excludes"]], count, f"an object of set {number}")
    if not item["members"] or not all(item["members"]):
        raise ValueError(f"set {number} has no mask, or one without an object")
    for member in item["members"]:
        _check_numbers(member, count, f"an object of set {number}")
    for key in ("left_out", "repeated"):
        if not (math.isfinite(item[key]) and item[key] >= 0):
            raise ValueError(f"set {number}: {key} is {item[key]}")


def _check_numbers(numbers: Sequence[int | None], count: int, what: str) -> None:
    for number in numbers:
        if number is None or not 0 <= number < count:
            raise ValueError(f"{what} is {number}, where there are {count} objects")
