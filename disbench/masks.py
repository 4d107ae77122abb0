"""Masks as COCO run lengths: rasterising, areas, boxes, overlaps, unions, dilation.

A mask at rest is a COCO compressed RLE, `{"size": [height, width], "counts": bytes}`; runs go down the
columns (Fortran order) and start with background. In hand it is a boolean array (height, width). Nothing
in this module but `encode`, `decode` and the `fillpoly` raster makes an array of the mask's size.

pycocotools is the reference for all of it. rlemasklib does what pycocotools lacks (dilation, difference) and
what it does several times faster (encoding, decoding: `benchmarks/run_lengths.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from rlemasklib import RLEMask

from disbench.errors import InputError

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Raster = Literal["pycocotools", "fillpoly"]

POLYGON_MARGIN = 1.0
"""Pixels by which a polygon may leave its image: annotators' outlines run along the border."""


class Rle(TypedDict):
    """COCO compressed RLE: `size` is [height, width], `counts` the ASCII run lengths."""

    size: list[int]
    counts: bytes


def encode(mask: BoolArray) -> Rle:
    """Run lengths of a boolean (height, width) array."""
    if mask.ndim != 2:
        raise ValueError(f"a mask has two axes (height, width), this one {mask.ndim}")
    return _to_coco(RLEMask.from_array(np.ascontiguousarray(mask, dtype=np.uint8)))


def decode(rle: Rle, order: Literal["F", "C"] = "F") -> BoolArray:
    """Boolean (height, width) array of a mask.

    Args:
        rle: the mask.
        order: how the array lies in memory: column by column ("F"), as run lengths go, which is faster, or row by
            row ("C"), which is faster than to turn it afterwards. The values are the same.
    """
    return np.asarray(RLEMask.from_dict(rle).to_array(order=order)).view(np.bool_)


def pixel(rle: Rle, number: int) -> tuple[int, int]:
    """(x, y) of one of a mask's pixels, counted column by column from 0; the mask is not decoded.

    Args:
        rle: the mask.
        number: in [0, area).

    Raises:
        IndexError: the mask has no such pixel.
    """
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
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)


def boxes(rles: Sequence[Rle]) -> IntArray:
    """Bounding boxes in whole pixels: int64 (n, 4) of x, y, width, height.

    Inclusive: width is last column - first column + 1. An empty mask has a box of zeros.
    """
    if not rles:
        return np.zeros((0, 4), dtype=np.int64)
    return np.asarray(coco_mask.toBbox(list(rles))).astype(np.int64).reshape(-1, 4)


def contained_shares(rle: Rle, others: Sequence[Rle]) -> FloatArray:
    """For each other mask, its share of this mask's area: |rle and other| / |rle|, float64 (n,)."""
    return _coco_ious(rle, others, crowd=True)  # "crowd" in COCO's sense: the union is the first mask


def ious(rle: Rle, others: Sequence[Rle]) -> FloatArray:
    """IoU of a mask with each of the others: float64 (n,); 0 where a union is empty."""
    return _coco_ious(rle, others, crowd=False)


def union(rles: Sequence[Rle]) -> Rle:
    """Union of one mask or more of the same size."""
    if len(rles) == 1:
        return rles[0]
    merged: Rle = coco_mask.merge(list(rles))
    return merged


def intersection(rles: Sequence[Rle]) -> Rle:
    """Intersection of one mask or more of the same size."""
    if len(rles) == 1:
        return rles[0]
    merged: Rle = coco_mask.merge(list(rles), True)
    return merged


def difference(rle: Rle, removed: Sequence[Rle]) -> Rle:
    """The mask's pixels that lie in none of the removed masks."""
    if not removed:
        return rle
    return _to_coco(RLEMask.from_dict(rle) - RLEMask.from_dict(union(removed)))


def dilate(rle: Rle, iterations: int = 1) -> Rle:
    """Dilation by a 3 x 3 square, repeated; the image's border cuts it off."""
    mask = RLEMask.from_dict(rle)
    for _ in range(iterations):
        mask = mask.dilate3x3(connectivity=8)
    return _to_coco(mask)


def empty(height: int, width: int) -> Rle:
    """The mask without a pixel."""
    return _to_coco(RLEMask.zeros((height, width)))


def from_polygons(
    rings: Sequence[Sequence[float]], height: int, width: int, raster: Raster = "pycocotools"
) -> Rle:
    """Rasterise the rings of one object and unite them.

    Args:
        rings: each a flat list x0, y0, x1, y1, ... of at least three points, in pixels, x to the right
            and y down from the image's top left corner.
        height: of the image, pixels.
        width: of the image, pixels.
        raster: `pycocotools` (upsampled by 5, the COCO reference), or `fillpoly` (points rounded to whole
            pixels and OpenCV's `fillPoly`, as RITM does; differs by boundary pixels).

    Raises:
        ValueError: no ring, a ring of fewer than three points or an odd number of coordinates, a value
            that is not a finite number, or a point more than `POLYGON_MARGIN` pixels outside the image.
    """
    checked = [_checked_ring(ring, height, width) for ring in rings]
    if not checked:
        raise ValueError("the polygon has no ring")
    if raster not in ("pycocotools", "fillpoly"):
        raise ValueError(f"raster is 'pycocotools' or 'fillpoly', not {raster!r}")
    if raster == "fillpoly":
        return _fill_polygons(checked, height, width)
    return union(coco_mask.frPyObjects(checked, height, width))


def from_foreign_rle(rle: object, height: int, width: int) -> Rle:
    """A mask from outside (`counts` compressed or a list of runs), checked against its image.

    Raises:
        ValueError: not an RLE, of another size than (height, width), or runs that are negative or do not
            add up to that size.
    """
    if not isinstance(rle, dict) or "counts" not in rle or "size" not in rle:
        raise ValueError("the segmentation is neither polygons nor an RLE with 'size' and 'counts'")
    size, counts = rle["size"], rle["counts"]
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise ValueError(f"the mask's size {size!r} is not its image's [{height}, {width}]")
    runs = _checked_runs(counts if isinstance(counts, list) else _decompressed(counts))
    if sum(runs) != height * width:
        raise ValueError(f"the RLE's runs add up to {sum(runs)}, not to {height} x {width} pixels")
    compressed: Rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return compressed


def from_label_map(labels: npt.NDArray[np.integer], ignored: Sequence[int] = (0,)) -> dict[int, Rle]:
    """One mask for each value of an integer (height, width) map, in ascending order of the values."""
    found = [int(value) for value in np.unique(labels) if int(value) not in ignored]
    return {value: encode(labels == value) for value in found}


def _coco_ious(rle: Rle, others: Sequence[Rle], *, crowd: bool) -> FloatArray:
    if not others:
        return np.zeros(0)
    rows: FloatArray = np.asarray(coco_mask.iou([rle], list(others), [int(crowd)] * len(others)))
    return rows.reshape(-1)


def _checked_ring(ring: Sequence[float], height: int, width: int) -> FloatArray:
    try:
        points = np.asarray(ring)
    except ValueError as error:
        raise ValueError("a polygon is not a flat list of numbers") from error
    if points.size and points.dtype.kind not in "iuf":
        raise ValueError("a polygon's coordinates are not all numbers")
    if points.ndim != 1 or points.size % 2:
        raise ValueError("a polygon is not a flat list of x, y pairs")
    if points.size < 6:
        raise ValueError(f"a polygon has {points.size // 2} points, fewer than three")
    low, high_x, high_y = points.min(), points[::2].max(), points[1::2].max()
    if not np.isfinite(low + high_x + high_y):
        raise ValueError("a polygon has a coordinate that is not a finite number (NaN or infinity)")
    if low < -POLYGON_MARGIN or high_x > width + POLYGON_MARGIN or high_y > height + POLYGON_MARGIN:
        raise ValueError(
            f"a polygon reaches outside its image: x up to {high_x:g}, y up to {high_y:g}, lowest {low:g}, "
            f"in an image of {width} x {height}"
        )
    return points.astype(np.float64, copy=False)


def _decompressed(counts: object) -> list[int]:
    """The runs of a compressed RLE.

    A run is groups of 5 bits from the lowest up, each with a continuation bit; from the fourth run on it is
    stored as the difference from the run before the last.
    """
    if isinstance(counts, str) and counts.isascii():
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes):
        raise ValueError("the RLE's counts are neither an ASCII string nor a list of runs")
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        group = byte - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("the RLE's counts are not run lengths in COCO's compressed form")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the RLE's counts end in the middle of a run")
    return runs


def _checked_runs(runs: Sequence[object]) -> list[int]:
    """The runs as the encoder would write them: none of length 0 but the first."""
    merged: list[int] = []
    for place, run in enumerate(runs):
        if not isinstance(run, int) or isinstance(run, bool) or run < 0:
            raise ValueError(f"the RLE's counts have {run!r} where a whole number from 0 on should be")
        if place and run == 0:
            continue
        if place % 2 == len(merged) % 2:
            merged.append(run)
        else:
            merged[-1] += run
    return merged


def _fill_polygons(rings: Sequence[FloatArray], height: int, width: int) -> Rle:
    try:
        import cv2  # noqa: PLC0415  (heavy, and only for parity with RITM)
    except ImportError as error:
        raise InputError(
            f"raster=fillpoly needs OpenCV, which cannot be loaded ({error}); on Debian: apt-get install libgl1 "
            "libglib2.0-0"
        ) from error

    canvas = np.zeros((height, width), dtype=np.uint8)
    for ring in rings:
        cv2.fillPoly(canvas, [np.round(ring.reshape(-1, 2)).astype(np.int32)], 1)
    return encode(canvas.astype(bool))


def _to_coco(mask: RLEMask) -> Rle:
    plain = mask.to_dict()
    return {"size": [int(side) for side in plain["size"]], "counts": plain["counts"]}
