"""Whether rows of a shard are scenes: masks decode, and numbers name objects of their scene."""

from __future__ import annotations

import re
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from disbench.core.arrays import BoolArray, IntArray
from disbench.core.errors import shown
from disbench.core.limits import MAX_PIXELS
from disbench.core.masks import Rle, are_well_formed, areas, from_foreign_rle
from disbench.core.scenes import Kind
from disbench.io.archives import safe_path

_PLAIN_PATH = re.compile(r"(\w[\w. -]*/){0,8}\w[\w. -]*", re.ASCII)
"""Paths that need no closer look, as nearly all are."""


def check_scenes(table: pa.Table) -> None:
    """Check that rows of a shard are scenes: masks that decode, numbers that name an object of their scene.

    Areas and boxes are believed: the manifest hashes the file, and `disbench verify` measures them again.

    Args:
        table: of `disbench.shards.reader.SCHEMA`, in one chunk.

    Raises:
        ValueError: an image without pixels or of more than `MAX_PIXELS`, or outside its folder; a mask that is empty or
            not of its image; relations that are no tree; a number that names no object.
    """
    names = table["image_id"].to_pylist()

    def check(holds: BoolArray, rows: IntArray, what: str) -> None:
        if not holds.all():
            raise ValueError(f"image {shown(names[int(rows[np.argmin(holds)])])}: {what}")

    height, width = (_numbers(table[name].combine_chunks()) for name in ("height", "width"))
    rows = np.arange(len(table))
    check((np.minimum(height, width) >= 1) & (height * width <= MAX_PIXELS), rows, "its size is not an image's")
    for name in table["file_name"].to_pylist():
        if not _PLAIN_PATH.fullmatch(name):
            safe_path(name, "its image")
    dropped_rows, dropped, _ = _inner(table["dropped"].combine_chunks(), rows)
    check(_numbers(_columns(dropped)["count"]) >= 0, dropped_rows, "a negative number of annotations was left out")

    object_rows, objects, counts = _inner(table["objects"].combine_chunks(), rows)
    columns = _columns(objects)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    stuff = columns["kind"].to_numpy(zero_copy_only=False) == "stuff"
    check(_numbers(columns["id"]) == np.arange(len(objects)) - first, object_rows, "its objects are not numbered")
    known = pc.is_in(columns["kind"], pa.array(get_args(Kind)))
    check(known.to_numpy(zero_copy_only=False), object_rows, "an object's kind is unknown")
    neighbour_rows, neighbours, _ = _inner(columns["neighbours"], object_rows)
    check(_name_objects(neighbours, counts[neighbour_rows]), neighbour_rows, "a neighbour does not name an object")

    parent, level = _numbers(columns["parent"]), _numbers(columns["level"])
    check((parent == _NULL) | _in_range(parent, counts[object_rows]), object_rows, "a parent does not name an object")
    above = np.where(parent == _NULL, -1, level[np.where(parent == _NULL, 0, parent + first)])
    no_node = (parent == _NULL) & (level == _NULL)
    node = (level == above + 1) & (level != _NULL) & ~stuff  # levels that rise by one leave no room for a circle
    check(no_node | node, object_rows, "an object's level is not the one below its parent's")

    set_rows, sets, _ = _inner(table["sets"].combine_chunks(), rows)
    set_columns = _columns(sets)
    check(_in_range(_numbers(set_columns["center"]), counts[set_rows]), set_rows, "a center does not name an object")
    excluded_rows, excluded, _ = _inner(set_columns["click_excludes"], set_rows)
    check(_name_objects(excluded, counts[excluded_rows]), excluded_rows, "click_excludes does not name an object")
    member_rows, members, masks = _inner(set_columns["members"], set_rows)
    check(masks > 0, set_rows, "a set has no mask")
    number_rows, numbers, united = _inner(members, member_rows)
    check(united > 0, member_rows, "a mask of a set has no object")
    check(_name_objects(numbers, counts[number_rows]), number_rows, "a mask of a set does not name an object")
    for name in ("left_out", "repeated"):
        found = set_columns[name].to_numpy(zero_copy_only=False)
        check(np.isfinite(found) & (found >= 0), set_rows, f"{name} of a set is not a count")

    sizes = np.stack([height, width], axis=1).tolist()
    rles: list[Rle] = [
        {"size": sizes[row], "counts": counts_}
        for row, counts_ in zip(object_rows.tolist(), columns["rle"].to_pylist(), strict=True)
    ]
    if not are_well_formed(rles):  # the slow way tells what is wrong
        for row, rle in zip(object_rows.tolist(), rles, strict=True):
            _check_mask(rle, names[row])


_NULL = -(2**40)
"""In place of null: no number of a shard is as small."""


def _columns(structs: pa.StructArray) -> dict[str, pa.Array]:
    return dict(zip((field.name for field in structs.type), structs.flatten(), strict=True))


def _inner(lists: pa.ListArray, rows: IntArray) -> tuple[IntArray, Any, IntArray]:
    """What is in some lists: the row of each item, the items, and how many each list has; null is an empty list."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.repeat(rows, lengths), lists.flatten(), lengths


def _numbers(values: pa.Array) -> IntArray:
    """Numbers with `_NULL` for null."""
    return np.asarray(values.cast(pa.int64()).fill_null(_NULL).to_numpy(zero_copy_only=False))


def _in_range(numbers: IntArray, counts: IntArray) -> BoolArray:
    return np.asarray((numbers >= 0) & (numbers < counts), dtype=np.bool_)


def _name_objects(values: pa.Array, counts: IntArray) -> BoolArray:
    return _in_range(_numbers(values), counts)


def _check_mask(rle: Rle, image_id: str) -> None:
    try:
        if not areas([from_foreign_rle(rle, *rle["size"])])[0]:
            raise ValueError("a mask is empty")
    except ValueError as error:
        raise ValueError(f"image {shown(image_id)}: {error}") from error
