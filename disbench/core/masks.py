"""Masks as COCO run-length encodings: rasterising, areas, boxes, overlaps, unions, dilation.

A stored mask is a COCO compressed RLE, `{"size": [height, width], "counts": bytes}`; runs are column-major (Fortran
order) and start with background. A decoded mask is a boolean array (height, width). Only `encode`, `decode` and the
`fillpoly` raster allocate an array of the mask's size.

pycocotools is the reference for all of it. rlemasklib adds what pycocotools lacks (dilation, difference) and is several
times faster at encoding and decoding (`benchmarks/run_lengths.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, chain, islice
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from rlemasklib import RLEMask

from disbench.core.arrays import BoolArray, FloatArray, IntArray
from disbench.core.errors import opencv, quote
from disbench.core.limits import MAX_MASK_BYTES, MAX_OUTLINE

Raster = Literal["pycocotools", "fillpoly"]

POLYGON_MARGIN = 1.0  # pixels by which a polygon may leave its image without being counted: outlines follow the border
_MAX_COORDINATE = 2.0**28  # largest coordinate: pycocotools counts fifths of a pixel in 32 bits
_MIN_COORDINATES = 6  # coordinates of the smallest ring with an area: three points
_NUMBERS = (int, float, str, np.integer, np.floating)
_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]{0,18}))(?:\.0+)?")
_UPSAMPLING = 5  # factor by which pycocotools refines the grid that it draws polygons on
_MAX_GROUPS = 7  # 5-bit groups, including the sign, in the longest run that fits an image
_BATCH_BYTES = 20_000  # bytes of compressed masks decoded together; for larger arrays, malloc maps new memory each time
_BATCH_ROWS = 16  # masks that `pairwise_overlaps` compares in one call


class Rle(TypedDict):
    """COCO compressed RLE: `size` is [height, width], `counts` the ASCII run lengths."""

    size: list[int]
    counts: bytes


def encode(mask: BoolArray) -> Rle:
    """Encode a boolean (height, width) array."""
    if mask.ndim != 2:
        raise ValueError(f"a mask must have two axes (height, width), not {mask.ndim}")
    return _to_coco(RLEMask.from_array(np.ascontiguousarray(mask, dtype=np.uint8)))


def from_grey_png(data: bytes, threshold: int) -> Rle:
    """Mask of the pixels of a grey PNG that are at least `threshold`, 1 to 255; several times faster than via an array.

    The size claimed by the header is not checked. ValueError if the PNG is damaged or not plain 8-bit grey.
    """
    return _to_coco(RLEMask.from_png(data=data, threshold=threshold))


def decode(rle: Rle, order: Literal["F", "C"] = "F") -> BoolArray:
    """Decode to a boolean (height, width) array, stored column-major ("F", faster) or row-major ("C")."""
    return np.asarray(RLEMask.from_dict(rle).to_array(order=order)).view(np.bool_)


def pixel(rle: Rle, number: int) -> tuple[int, int]:
    """(x, y) of a mask's pixel by its column-major index among the mask's pixels; IndexError if out of range."""
    runs = RLEMask.from_dict(rle).counts.astype(np.int64)  # background first
    ends = np.cumsum(runs[1::2])
    run = int(np.searchsorted(ends, number, side="right"))
    if number < 0 or run == len(ends):
        raise IndexError(f"pixel {number} of a mask of {ends[-1] if len(ends) else 0}")
    return divmod(number + int(runs[: 2 * run + 1 : 2].sum()), rle["size"][0])


def areas(rles: Sequence[Rle]) -> IntArray:
    """Number of pixels of each mask: int64 (n,)."""
    # pycocotools counts masks in eight bits here: more than 255 in one call overflow.
    parts = [coco_mask.area(list(rles[i : i + 255])) for i in range(0, len(rles), 255)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def boxes(rles: Sequence[Rle]) -> IntArray:
    """Bounding boxes: int64 (n, 4) of x, y, width, height in whole pixels; zeros for an empty mask."""
    return np.asarray(coco_mask.toBbox(list(rles)) if rles else []).astype(np.int64).reshape(-1, 4)


def contained_shares(rle: Rle, others: Sequence[Rle]) -> FloatArray:
    """Share of a mask's area that lies in each other mask: |rle and other| / |rle|, float64 (n,)."""
    return _coco_ious([rle], others, crowd=True).reshape(-1)


def shares_inside(rles: Sequence[Rle], other: Rle) -> FloatArray:
    """Share of each mask's area that lies in another mask: |rle and other| / |rle|, float64 (n,)."""
    return _coco_ious(rles, [other], crowd=True).reshape(-1)


def ious(rle: Rle, others: Sequence[Rle]) -> FloatArray:
    """IoU of a mask with each of the others: float64 (n,); 0 if the union is empty."""
    return _coco_ious([rle], others, crowd=False).reshape(-1)


def pairwise_overlaps(
    wanted: BoolArray, rles: Sequence[Rle], others: Sequence[Rle], measure: Literal["iou", "contained"]
) -> FloatArray:
    """Overlaps of only the `wanted` pairs, bool (n, m), of n masks and m others, measured in a few calls.

    float64 (n, m), 0 for other pairs: the IoU, or for `contained` the share of mask i that lies in other mask j.
    """
    found = np.zeros(wanted.shape)
    (rows,) = np.nonzero(wanted.any(axis=1))
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows[start : start + _BATCH_ROWS]
        (columns,) = np.nonzero(wanted[batch].any(axis=0))
        these, those = [rles[i] for i in batch.tolist()], [others[j] for j in columns.tolist()]
        found[batch[:, None], columns] = _coco_ious(these, those, crowd=measure == "contained")
    found[~wanted] = 0
    return found


def union(rles: Sequence[Rle]) -> Rle:
    """Union of one or more masks of the same size."""
    return _merge(rles, intersect=False)


def intersection(rles: Sequence[Rle]) -> Rle:
    """Intersection of one or more masks of the same size."""
    return _merge(rles, intersect=True)


def _merge(rles: Sequence[Rle], *, intersect: bool) -> Rle:
    merged: Rle = rles[0] if len(rles) == 1 else coco_mask.merge(list(rles), intersect)
    return merged


def difference(rle: Rle, removed: Sequence[Rle]) -> Rle:
    """Pixels of a mask that lie in none of the removed masks."""
    if not removed:
        return rle
    return _to_coco(RLEMask.from_dict(rle) - RLEMask.from_dict(union(removed)))


def dilate(rle: Rle, iterations: int = 1) -> Rle:
    """Repeated dilation by a 3 x 3 square, clipped at the image border."""
    mask = RLEMask.from_dict(rle)
    for _ in range(iterations):
        mask = mask.dilate3x3(connectivity=8)
    return _to_coco(mask)


def empty(height: int, width: int) -> Rle:
    """A mask without pixels."""
    return _to_coco(RLEMask.zeros((height, width)))


def as_integer(value: object) -> int | None:
    """The integer that a JSON value represents: 640, 640.0, "640" or "640.0"; None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    found = _INTEGER.fullmatch(value) if isinstance(value, str) else None
    return int(found[1]) if found else None


def from_polygons(
    rings: Sequence[Sequence[float]],
    height: int,
    width: int,
    raster: Raster = "pycocotools",
    changes: Counter[str] | None = None,
) -> Rle:
    """Rasterise the rings of one object and unite them, clipped to the image.

    Args:
        rings: each a flat list x0, y0, x1, y1, ... in pixels, y down from the image's top left corner. Rings of fewer
            than three points have no area; without others the mask is empty.
        height: image height, pixels.
        width: image width, pixels.
        raster: `pycocotools` (upsampled by 5, the COCO reference), or `fillpoly` (points rounded to whole pixels and
            OpenCV's `fillPoly`, as in RITM; differs in boundary pixels).
        changes: updated with counts of rings left out and of polygons clipped by more than `POLYGON_MARGIN` pixels.

    Raises:
        ValueError: pairs [x, y] instead of flat lists, an odd number of coordinates, a value that is not a finite
            number or exceeds 2**28, or outlines longer than `MAX_OUTLINE` fifths of a pixel in total.
    """
    found = list(map(_check_ring, rings))
    checked = [ring for ring in found if ring.size >= _MIN_COORDINATES]
    if not checked:
        if len(found) >= 3 and all(ring.size == 2 for ring in found):
            raise ValueError("a polygon is a list of pairs [x, y]; write it as one flat list [x0, y0, x1, y1, ...]")
        return empty(height, width)
    if sum(map(_outline_length, checked)) > MAX_OUTLINE:
        raise ValueError(f"the polygon's outline is longer than {MAX_OUTLINE // _UPSAMPLING} pixels")
    if changes is not None:
        changes.update({"ring of fewer than three points": len(found) - len(checked)})
        changes.update({"part of a polygon outside its image": sum(_exceeds(ring, height, width) for ring in checked)})
    return _draw(checked, [len(checked)], height, width, raster)[0]


def from_segmentations(
    segmentations: Sequence[object],
    height: int,
    width: int,
    raster: Raster = "pycocotools",
    changes: Counter[str] | None = None,
) -> list[Rle]:
    """Masks of the objects of one image, from any form of segmentation in COCO annotations.

    Each is a list of rings, one ring, an RLE, a list of RLEs, or nothing (None, NaN, an empty list), which gives an
    empty mask. Other arguments and errors are as for `from_polygons` and `from_foreign_rle`; also ValueError if the
    masks exceed `MAX_MASK_BYTES` in total.
    """
    polygons = [found for found in segmentations if isinstance(found, list)]
    rings = _check_rings_together(polygons, height, width)
    drawn = iter(_draw(rings, list(map(len, polygons)), height, width, raster)) if rings else None
    encoded = iter(_check_rles_together([found for found in segmentations if isinstance(found, dict)], height, width))
    masks: list[Rle] = []
    size = 0
    for found in segmentations:
        if drawn and isinstance(found, list):
            masks.append(next(drawn))
        elif isinstance(found, dict) and (rle := next(encoded, None)):
            masks.append(rle)
        else:
            masks.append(_from_segmentation(found, height, width, raster, changes))
        size += len(masks[-1]["counts"])
        check_mask_bytes(size)
    return masks


def _from_segmentation(found: object, height: int, width: int, raster: Raster, changes: Counter[str] | None) -> Rle:
    if not found or (isinstance(found, float) and np.isnan(found)):
        return empty(height, width)
    if not isinstance(found, list):
        return from_foreign_rle(found, height, width)
    parts = found if {list, dict} & set(map(type, found)) else [found]
    masks = [from_foreign_rle(part, height, width) for part in parts if isinstance(part, dict)]
    rings: list[Any] = [part for part in parts if not isinstance(part, dict)]
    if rings:
        masks.append(from_polygons(rings, height, width, raster, changes))
    return union(masks)


def from_foreign_rle(rle: object, height: int, width: int) -> Rle:
    """Convert an untrusted RLE (`counts` compressed or a list of runs); ValueError if it is not a mask of this size."""
    if not isinstance(rle, dict) or "counts" not in rle or "size" not in rle:
        raise ValueError(f"the segmentation is {quote(rle)}, neither polygons nor an RLE with 'size' and 'counts'")
    size, counts = rle["size"], rle["counts"]
    if not isinstance(size, list | tuple) or list(map(as_integer, size)) != [height, width]:
        raise ValueError(f"the mask's size {quote(size)} is not its image's [{height}, {width}]")
    runs = _runs_from_list(counts) if isinstance(counts, list) else _runs_from_compressed(counts)
    # Check everything here: pycocotools checks nothing and would write out of bounds.
    if runs.size and (lowest := int(runs.min())) < 0:
        raise ValueError(f"the RLE's counts contain {lowest}; they must be whole numbers from 0 on")
    if (runs.size and runs.max() > height * width) or runs.sum() != height * width:
        raise ValueError(f"the RLE's runs add up to {sum(runs.tolist())}, not to {height} x {width} pixels")
    if not runs[1:].all():
        runs = _merge_zero_runs(runs)
    plain = {"size": [height, width], "counts": runs.tolist()}
    compressed: Rle = coco_mask.frPyObjects(plain, height, width)
    return compressed


def are_canonical(rles: Sequence[Rle]) -> bool:
    """True if all RLEs are canonical and non-empty, so that `from_foreign_rle` would keep them as they are.

    Canonical: all runs but the first are positive, they add up to the number of pixels, and each is encoded in the
    fewest groups of bits. All are decoded together, which is many times faster for small masks.
    """
    batch: list[Rle] = []
    size = 0
    for rle in rles:
        if batch and size + len(rle["counts"]) > _BATCH_BYTES:
            if not _batch_is_canonical(batch):
                return False
            batch, size = [], 0
        batch.append(rle)
        size += len(rle["counts"])
    return not batch or _batch_is_canonical(batch)


def _batch_is_canonical(rles: Sequence[Rle]) -> bool:
    try:
        runs, first, are_short = _decode_runs([rle["counts"] for rle in rles])
    except ValueError:
        return False
    pixels = np.array([rle["size"][0] * rle["size"][1] for rle in rles])
    has_pixels = np.diff(first, append=len(runs)) > 1
    only_first = np.count_nonzero(runs <= 0) == np.count_nonzero(runs[first] == 0)  # only first runs may be 0
    return bool(are_short and has_pixels.all() and only_first and (np.add.reduceat(runs, first) == pixels).all())


def _decode_runs(counts: Sequence[bytes]) -> tuple[IntArray, IntArray, bool]:
    """Runs of compressed masks, concatenated; where each mask begins; and whether all are encoded shortest.

    A run is 5-bit groups, lowest first, each with a continuation bit; from the fourth on, a run is stored as the
    difference to the run two before it. ValueError for any other content.
    """
    if not all(counts):
        raise ValueError("the RLE's counts are empty")
    groups = np.frombuffer(b"".join(counts), dtype=np.uint8) - np.uint8(48)  # smaller values wrap around
    stops = np.cumsum(list(map(len, counts)))
    if groups.max() > 63:
        raise ValueError("the RLE's counts are not in COCO's compressed form")
    if (groups[stops - 1] & 32).any():
        raise ValueError("the RLE's counts end in the middle of a run")
    ends = np.flatnonzero(groups < 32)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > _MAX_GROUPS:
        raise ValueError("the RLE's counts have a run that is longer than any image")
    stored = (groups[ends] ^ 16).astype(np.int64) - 16  # the highest group of each run, which carries the sign
    are_short = True
    longer = np.flatnonzero(lengths > 1)
    for number in range(1, int(lengths.max())):
        values = stored[longer] * 32 + (groups[ends[longer] - number] & 31)
        # A highest group that only repeats the sign of the group below is redundant.
        are_short &= number > 1 or not ((values >= -16) & (values < 16)).any()
        stored[longer] = values
        longer = longer[lengths[longer] > number + 1]
    first = np.zeros(len(counts), dtype=np.int64)
    first[1:] = np.searchsorted(ends, stops[:-1])
    return _undo_differences(stored, first), first, are_short


def _undo_differences(stored: IntArray, first: IntArray) -> IntArray:
    """Undo the differences in concatenated runs, from each mask's fourth run on; masks begin at `first`."""
    runs = np.empty_like(stored)
    stops = np.append(first[1:], len(stored))
    for parity in (0, 1):  # every other run; a mask's sums begin with its second or third
        sums = np.append(0, np.cumsum(stored[parity::2]))
        places = [(ends - parity + 1) // 2 for ends in (first, stops)]
        heads = (first + 1 + (first + 1 + parity) % 2 - parity) // 2
        runs[parity::2] = sums[1:] - np.repeat(sums[heads], places[1] - places[0])
    runs[first] = stored[first]
    return runs


def check_mask_bytes(size: int) -> None:
    """Raise ValueError if the RLEs of a scene exceed `MAX_MASK_BYTES` bytes in total."""
    if size > MAX_MASK_BYTES:
        raise ValueError(f"the run lengths of its masks take more than {MAX_MASK_BYTES} bytes")


def from_label_map(labels: npt.NDArray[np.integer], ignored: Sequence[int] = (0,)) -> dict[int, Rle]:
    """One mask per value of an integer (height, width) map, in ascending order of the values."""
    found = [int(value) for value in np.unique(labels) if int(value) not in ignored]
    return {value: encode(labels == value) for value in found}


def _coco_ious(rles: Sequence[Rle], others: Sequence[Rle], *, crowd: bool) -> FloatArray:
    """IoU of all pairs; with `crowd`, as in COCO, the union is the area of the first mask."""
    if not rles or not others:
        return np.zeros((len(rles), len(others)))
    return np.asarray(coco_mask.iou(list(rles), list(others), [crowd] * len(others)))


def _check_rles_together(rles: Sequence[dict[str, Any]], height: int, width: int) -> list[Rle]:
    """Compressed RLEs, checked together; empty if any needs to be checked individually."""
    texts = [rle.get("counts") for rle in rles]
    if any(rle.get("size") != [height, width] for rle in rles) or not all(
        isinstance(text, str) and text.isascii() for text in texts
    ):
        return []
    found: list[Rle] = [{"size": [height, width], "counts": text.encode("ascii")} for text in texts if text]
    return found if len(found) == len(texts) and are_canonical(found) else []


def _check_rings_together(polygons: Sequence[list[Any]], height: int, width: int) -> list[FloatArray]:
    """Rings of all polygons, checked together; empty if any needs to be checked individually."""
    rings = list(chain.from_iterable(polygons))
    if not all(polygons) or set(map(type, rings)) != {list}:
        return []
    values = list(chain.from_iterable(rings))
    sizes = list(map(len, rings))
    side = _UPSAMPLING * (max(height, width) + 3)  # longest side of a polygon in the image
    if (
        not set(map(type, values)) <= {int, float}
        or min(sizes) < 6
        or any(size % 2 for size in sizes)
        or side * len(values) > MAX_MASK_BYTES  # a step along an outline gives at most one byte of run lengths
        or side * max(sum(map(len, polygon)) for polygon in polygons) > MAX_OUTLINE
    ):
        return []
    try:
        points = np.array(values, dtype=np.float64)
    except OverflowError:
        return []
    if not np.isfinite(points).all() or _exceeds(points, height, width):
        return []
    return [points[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _draw(rings: Sequence[FloatArray], counts: Sequence[int], height: int, width: int, raster: Raster) -> list[Rle]:
    """Masks from checked rings; `counts` is the number of rings of each mask."""
    if raster == "fillpoly":
        parts = iter(rings)
        return [_fill_polygons(list(islice(parts, count)), height, width) for count in counts]
    drawn: list[Rle] = coco_mask.frPyObjects(list(rings), height, width) if rings else []
    if len(drawn) == len(counts):
        return drawn
    masks = iter(drawn)
    return [union(list(islice(masks, count))) for count in counts]


def _check_ring(ring: Sequence[float]) -> FloatArray:
    # Check before np.array, which would make every item as long as the longest string.
    kinds = set(map(type, ring)) if isinstance(ring, list | tuple | np.ndarray) else {list}
    if kinds & {list, tuple, dict, np.ndarray}:
        raise ValueError("a polygon is not a flat list of numbers [x0, y0, x1, y1, ...]")
    if not all(issubclass(kind, _NUMBERS) and kind is not bool for kind in kinds):
        raise ValueError("a polygon's coordinates are not all numbers")
    try:
        points = np.array([float(value) for value in ring])
    except ValueError:
        raise ValueError("a polygon's coordinates are not all numbers") from None
    except OverflowError:
        points = np.array([np.inf])
    if points.size and not np.abs(points).max() <= _MAX_COORDINATE:
        raise ValueError("a polygon has a coordinate that is not a finite number, or is far too large")
    if points.size >= _MIN_COORDINATES and points.size % 2:
        raise ValueError(f"a polygon has an odd number of coordinates ({points.size}), not x and y of each point")
    return points


def _exceeds(points: FloatArray, height: int, width: int) -> bool:
    """True if a ring leaves its image by more than the margin."""
    right, bottom = points.reshape(-1, 2).max(axis=0).tolist()
    return bool(points.min() < -POLYGON_MARGIN or right > width + POLYGON_MARGIN or bottom > height + POLYGON_MARGIN)


def _outline_length(points: FloatArray) -> float:
    """Steps that pycocotools walks along a closed outline: the longer extent of each side."""
    corners = points.reshape(-1, 2)
    sides = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
    return _UPSAMPLING * float(sides.sum()) + len(corners)


def _runs_from_list(counts: list[object]) -> IntArray:
    runs: list[Any] = counts if set(map(type, counts)) == {int} else list(map(as_integer, counts))
    if None in runs:
        wrong = quote(counts[runs.index(None)])
        raise ValueError(f"the RLE's counts contain {wrong}; they must be whole numbers from 0 on")
    try:
        return np.array(runs, dtype=np.int64)
    except OverflowError:
        raise ValueError("the RLE's counts have a run that is longer than any image") from None


def _runs_from_compressed(counts: object) -> IntArray:
    """The runs of a compressed RLE."""
    if isinstance(counts, str) and counts.isascii():
        if counts.startswith("b'"):  # repr of Python bytes
            counts = counts[2:-1].replace("\\\\", "\\")
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes):
        raise ValueError("the RLE's counts are neither an ASCII string nor a list of runs")
    return _decode_runs([counts])[0]


def _merge_zero_runs(runs: IntArray) -> IntArray:
    """Canonical runs: none of length 0 but the first."""
    present = np.flatnonzero(runs)
    colours = present % 2
    starts = np.flatnonzero(np.concatenate([[True], colours[1:] != colours[:-1]]))
    merged = np.add.reduceat(runs[present], starts)
    return np.concatenate([[0], merged]) if colours[0] else merged


def _fill_polygons(rings: Sequence[FloatArray], height: int, width: int) -> Rle:
    canvas = np.zeros((height, width), dtype=np.uint8)
    for ring in rings:
        opencv().fillPoly(canvas, [np.round(ring.reshape(-1, 2)).astype(np.int32)], 1)
    return encode(canvas.astype(bool))


def _to_coco(mask: RLEMask) -> Rle:
    plain = mask.to_dict()
    return {"size": [int(side) for side in plain["size"]], "counts": plain["counts"]}
