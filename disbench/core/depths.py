"""The deepest pixels of errors: those with the largest Euclidean distance to any other pixel.

A distance transform of the whole image would compute a distance for every pixel. Here, squares of errors first bound
where the largest distance can be, and only those few pixels are measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, ByteArray, Float32Array, IntArray
from disbench.core.errors import opencv

_RADIUS = 128  # up to this distance, in pixels, single pixels may be measured without a distance transform
_WORD = 64  # pixels per word of a map of squares, one bit each
_SAMPLE = 1 << 16  # neighbours looked up to estimate the largest distance
_PRECISION = 8  # the side of the largest square is found to within 1 / 8 of it
_LOOKUPS = 2  # neighbour lookups in the time of a distance transform of one pixel
_BLOCK = 1 << 13  # neighbours looked up at a time
BitArray = npt.NDArray[np.uint64]


class Depth(NamedTuple):
    """The largest distance of one kind of error, and the first pixel that has it."""

    distance: float
    x: int
    y: int
    missed: bool


def deepest(missed: BoolArray, excess: BoolArray, clicked: Sequence[Any] = ()) -> Depth | None:
    """The pixel with the largest distance to the nearest pixel that is not an error of its kind.

    Distances are between pixel centres, in the float32 of `transform`; everything beyond the border counts as correct.
    Ties go to excess pixels before missed ones, then to row-major order.

    Few pixels need measuring: around a pixel at distance d, the square of side 2 * ceil(d / sqrt(2)) - 1 is all errors;
    conversely the centre of a square of errors of side s has a distance of at least (s + 1) // 2. So the largest square
    bounds the largest distance from both sides, and only centres of squares nearly as large can be the answer.

    Args:
        missed: boolean (height, width), errors of one kind.
        excess: boolean (height, width), errors of the other kind.
        clicked: clicks, or other pixels (x, y), to exclude; they still count as errors. None is returned if no other
            errors are left.
    """
    packed = [np.packbits(errors, axis=1, bitorder="little") for errors in (excess, missed)]
    either = packed[0] | packed[1]
    rows, columns = _true_range(np.any(either, axis=1)), _true_range(np.any(either, axis=0))  # columns of eight pixels
    height, reach = rows.stop - rows.start, columns.stop - columns.start
    both = np.zeros((2 * height + 3, 8 * (reach // 8 + 1)), dtype=np.uint8)
    for begin, errors in zip((1, height + 2), packed, strict=True):
        both[begin : begin + height, :reach] = errors[rows, columns]
    width, top, left = 8 * both.shape[1], rows.start - 1, 8 * columns.start
    made = [(at.y - top) * width + at.x - left for at in clicked if missed[at.y, at.x] or excess[at.y, at.x]]
    places = np.array([*made, *(place + (height + 1) * width for place in made)], dtype=np.int64)
    found = _deepest(_Errors(both.view("<u8").reshape(-1), width, places, []))
    if found is None:
        return None
    distance, (row, column) = found[0], divmod(found[1], width)
    is_missed = row > height
    return Depth(distance, left + column, top + row - is_missed * (height + 1), is_missed)


def transform(mask: ByteArray) -> Float32Array:
    """OpenCV's own precise Euclidean distance transform of uint8 with at least one zero: float32 to the nearest zero.

    Distances are square roots of integers, so equal distances compare equal. Intel's library, which some builds use
    with one thread or for small images, is disabled: its last bits depend on the memory address.
    """
    cv2 = opencv()
    intel = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        return np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    finally:
        cv2.ipp.setUseIPP(intel)


@dataclass(frozen=True, slots=True)
class _Errors:
    """Errors of both kinds, excess above missed, with a row of zeros above, between and below them.

    A pixel is a bit, and rows follow one another: a pixel's place is a single number, and all are shifted at once.
    Every row ends with a zero, so squares cannot wrap into the next row.

    Attributes:
        bits: uint64 (height * width / 64,), lowest bit first.
        width: length of a row.
        clicked: excluded places.
        squares: `squares[k]` marks top left corners of squares of errors of side 2**k; filled as needed.
    """

    bits: BitArray
    width: int
    clicked: IntArray
    squares: list[BitArray]

    def corners(self, side: int) -> BitArray:
        """Top left corners of all squares of errors of this side whose centre was not clicked.

        The centre is `(side - 1) // 2` down and right of the corner.
        """
        power = side.bit_length() - 1
        for last in range(len(self.squares) - 1, power):
            self.squares.append(_overlap(self.squares[last], 1 << last, self.width) if last >= 0 else self.bits)
        corners = _overlap(self.squares[power], side - (1 << power), self.width)
        hidden = self.clicked - (side - 1) // 2 * (self.width + 1)
        hidden = hidden[(hidden >= 0) & (hidden < _WORD * len(corners))]
        if len(hidden):
            corners = corners.copy()
            in_bytes = corners.view(np.uint8)
            for place in hidden.tolist():
                in_bytes[place // 8] &= 255 - (1 << place % 8)
        return corners

    def centres(self, side: int) -> IntArray:
        """Places of the centres of these squares, in row-major order."""
        corners = self.corners(side)
        words = np.flatnonzero(corners)
        which, bits = np.nonzero(np.unpackbits(corners[words].view(np.uint8), bitorder="little").reshape(-1, _WORD))
        return words[which] * _WORD + bits + (side - 1) // 2 * (self.width + 1)

    def deepest(self, places: IntArray, sure: int, bound: int, least: int = 0) -> tuple[float, int]:
        """The largest distance among some places, and the first place that has it.

        Its square is at least `least`; those of all places are between `sure` and `bound`.
        """
        reach, words = math.isqrt(bound) + 1, self.width // _WORD
        top = max(int(places[0]) // self.width - reach, 0)
        part = self.bits[top * words : (int(places[-1]) // self.width + reach + 1) * words]
        flat = np.unpackbits(part.view(np.uint8), bitorder="little")
        at = places - top * self.width
        if bound <= _RADIUS**2:
            squares, _, _ = _neighbours()
            first, last = (int(found) for found in np.searchsorted(squares, (sure, least)))
            some = slice(max(first, last - max(8, _BLOCK // len(at))), last)  # the farthest exclude the most
            at = at[self._full(flat, at, some).all(axis=0)]
            while len(at) * (bound - squares[first]) <= _LOOKUPS * len(flat):  # nearest first
                last = min(first + max(8, _BLOCK // len(at)), len(squares)) - 1
                last = int(np.searchsorted(squares, squares[last], side="right"))  # whole rings
                full = self._full(flat, at, slice(first, last))
                alive = full.all(axis=0)
                if not alive.any():
                    distances = squares[first + full.argmin(axis=0)]
                    return float(np.sqrt(np.float32(distances.max()))), int(at[distances.argmax()]) + top * self.width
                at, first = at[alive], last
        rows, columns = np.divmod(at, self.width)
        left, right = max(int(columns.min()) - reach, 0), int(columns.max()) + reach + 1
        patch = np.pad(flat.reshape(-1, self.width)[:, left:right], ((0, 0), (1, 0)))
        distances = transform(patch)[rows, columns - left + 1]
        return float(distances.max()), int(at[distances.argmax()]) + top * self.width

    def _full(self, flat: ByteArray, at: IntArray, block: slice) -> BoolArray:
        """Which neighbours of which pixels are errors: boolean (neighbours, pixels)."""
        _, dy, dx = _neighbours()
        return flat.view(np.bool_).take(at + (dy[block] * self.width + dx[block])[:, None], mode="clip")


def _deepest(errors: _Errors) -> tuple[float, int] | None:
    """The largest distance, and the first place that has it; None if all errors were clicked."""
    side, limit = 0, 1
    while errors.corners(limit).any():
        side, limit = limit, 2 * limit
    if not side:
        return None
    while limit - side > 1 + side // _PRECISION:
        middle = (side + limit) // 2
        side, limit = (middle, limit) if errors.corners(middle).any() else (side, middle)
    bound, least = limit * limit // 2, ((side + 1) // 2) ** 2
    if bound <= _RADIUS**2:
        places = errors.centres(side)
        step = 1 + len(places) // min(16, 1 + _SAMPLE // (bound - least))
        distance, _ = errors.deepest(places[::step], least, bound)
        # Distances are rounded: ties must still be found.
        least = math.ceil(distance**2 * (1 - 1e-6))
    half = math.isqrt((least - 1) // 2)  # half of the largest square that the smallest possible distance covers
    return errors.deepest(errors.centres(2 * half + 1), (half + 1) ** 2, bound, least)


def _true_range(flags: BoolArray) -> slice:
    """From the first true value to the last; empty if there is none."""
    first = int(flags.argmax())
    return slice(first, len(flags) - int(flags[::-1].argmax()) if flags[first] else first)


def squares_of(mask: BoolArray, side: int) -> BoolArray:
    """Top left corners of all squares of one side (pixels, at least 1) inside a mask.

    Boolean (height - side + 1, width - side + 1); an axis has length 0 if the square does not fit.
    """
    height, width = mask.shape
    words = width // _WORD + 1
    rows = np.zeros((height, 8 * words), dtype=np.uint8)
    packed = np.packbits(mask, axis=1, bitorder="little")
    rows[:, : packed.shape[1]] = packed
    corners, reached = rows.view("<u8").reshape(-1), 1
    while 2 * reached <= side:
        corners, reached = _overlap(corners, reached, _WORD * words), 2 * reached
    corners = _overlap(corners, side - reached, _WORD * words)
    found = np.unpackbits(corners.view(np.uint8), bitorder="little").view(np.bool_)
    whole = found[: len(found) // (_WORD * words) * _WORD * words].reshape(-1, _WORD * words)
    return whole[: max(0, height - side + 1), : max(0, width - side + 1)]


def _overlap(squares: BitArray, step: int, width: int) -> BitArray:
    """Squares of side s + step from those of side s >= step, in rows of `width` pixels: four of these cover one."""
    if step == 0:
        return squares
    words, bits = divmod(step, _WORD)
    columns = squares[words:] >> bits
    if bits:
        columns[:-1] |= squares[words + 1 :] << (_WORD - bits)
    columns &= squares[: len(columns)]
    down = step * width // _WORD
    return np.asarray(columns[down:] & columns[:-down])


@cache
def _neighbours() -> tuple[IntArray, IntArray, IntArray]:
    """Squared distance, dy and dx of all neighbours up to the radius, nearest first."""
    span = np.arange(-_RADIUS, _RADIUS + 1)
    dy, dx = (axis.reshape(-1) for axis in np.meshgrid(span, span, indexing="ij"))
    squares = dy * dy + dx * dx
    order = np.argsort(squares, kind="stable")
    order = order[(squares[order] > 0) & (squares[order] <= _RADIUS**2)]
    return squares[order], dy[order], dx[order]
