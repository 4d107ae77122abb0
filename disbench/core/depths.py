"""The deepest pixels of errors: where the largest Euclidean distance to anything else is.

A distance transform of the whole frame answers the question, at the price of a distance for every pixel.
Here squares tell first where the largest distance can be, and only those few pixels are measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np

from disbench.core.arrays import BoolArray, ByteArray, Float32Array, IntArray
from disbench.core.opencv import opencv

_Box = tuple[tuple[int, int], tuple[int, int]]
"""(first, behind last) row and column."""

_RADIUS = 64
"""Up to this distance, in pixels, single pixels may be measured without a distance transform."""

_SAMPLE = 16
"""How many pixels are measured to learn about how large the largest distance is."""

_LISTING = 16
"""If more than one pixel in 16 could be the deepest, a transform is cheaper than listing them."""

_FEW = 1 << 15
"""Up to this number of pixels times neighbours, all pixels are measured."""

_BLOCK = 1 << 14
"""How many neighbours are looked up at a time."""


class _Pixel(Protocol):
    """Whole pixels from the top left; a `Click` is one."""

    @property
    def x(self) -> int: ...
    @property
    def y(self) -> int: ...


class Depth(NamedTuple):
    """The largest distance of one kind of errors, and the first pixel in the image that has it."""

    distance: float
    x: int
    y: int
    missed: bool


def deepest(missed: BoolArray, excess: BoolArray, clicked: Sequence[_Pixel] = ()) -> Depth | None:
    """The pixel with the largest distance to what is not an error of its own kind.

    Distances are from pixel centre to pixel centre, in the float32 of `transform`; everything beyond the
    border counts as correct. Of equal distances an excess pixel wins over a missed one, then the first row by row.

    Why little has to be looked at: around a pixel at distance d, all within d is error, so the square of side
    2 * ceil(d / sqrt(2)) - 1 centred on it is. Conversely the centre of a square of errors of side s has
    a distance of at least (s + 1) // 2. So the largest square of errors bounds the largest distance from both
    sides, and only the centres of squares nearly as large can be the answer. Components of the errors are
    not separated: correct pixels lie between two of them, and so nearer than the other one.

    Args:
        missed: boolean (height, width), errors of one kind.
        excess: boolean (height, width), errors of the other kind.
        clicked: pixels (x, y) of the image that are not looked for; they count as errors all the same.

    Returns:
        The pixel; None if all errors are in `clicked`.

    Raises:
        InputError: OpenCV cannot be imported.
    """
    kinds = [_Kind.of(missed, True, clicked), _Kind.of(excess, False, clicked)]
    kinds = [kind for kind in kinds if kind.centres(1).any()]
    if not kinds:
        return None
    first, side, limit = _largest_square(kinds)
    depth = _deepest_of(first, ((side + 1) // 2) ** 2, limit**2 // 2, side)
    assert depth is not None
    # Distances are rounded: what ties with the first must still be found.
    least = math.ceil(depth.distance**2 * (1 - 1e-6))
    others = (_deepest_of(kind, least, limit**2 // 2) for kind in kinds if kind is not first)
    found = [depth, *(other for other in others if other is not None)]
    return max(found, key=lambda depth: (depth.distance, not depth.missed))


def transform(mask: ByteArray) -> Float32Array:
    """OpenCV's own precise Euclidean distance transform of uint8 with a zero somewhere: float32 to the nearest zero.

    They are the float32 square roots of whole numbers, so equal distances are exactly equal. Some builds of
    OpenCV hand the transform to Intel's library when they have one thread or a small image; the last bits
    then depend on where in memory the result lies, so that library is not used.
    """
    cv2 = opencv()
    intel = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        return np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    finally:
        cv2.ipp.setUseIPP(intel)


@dataclass(frozen=True, slots=True)
class _Kind:
    """The errors of one kind, cut to the box that holds them all.

    Attributes:
        missed: which kind.
        mask: boolean (height, width), the box; no error of this kind is outside it.
        top, left: of the box in the image.
        clicked: (row, column) in the box of the errors that are not looked for.
        squares: `squares[k]` is true where a square of side 2**k, all of errors, has its top left corner.
    """

    missed: bool
    mask: BoolArray
    top: int
    left: int
    clicked: list[tuple[int, int]]
    squares: list[BoolArray]

    @classmethod
    def of(cls, errors: BoolArray, missed: bool, clicked: Sequence[_Pixel]) -> _Kind:
        top, bottom = _span(np.any(errors, axis=1))
        left, right = _span(np.any(errors[top:bottom], axis=0))
        box = errors[top:bottom, left:right]
        return cls(missed, box, top, left, [(at.y - top, at.x - left) for at in clicked if errors[at.y, at.x]], [box])

    def centres(self, side: int) -> BoolArray:
        """Where a square of this side, all of errors, has its top left corner, its centre not being clicked.

        The centre is `(side - 1) // 2` down and right of the corner.
        """
        corners = self._corners(side)
        if not self.clicked:
            return corners
        shift = (side - 1) // 2
        hidden = [(row - shift, column - shift) for row, column in self.clicked]
        hidden = [at for at in hidden if 0 <= at[0] < corners.shape[0] and 0 <= at[1] < corners.shape[1]]
        if hidden:
            corners = corners.copy()
            corners[tuple(np.transpose(hidden))] = False
        return corners

    def _corners(self, side: int) -> BoolArray:
        power = side.bit_length() - 1
        while len(self.squares) <= power:
            self.squares.append(_overlap(self.squares[-1], 1 << (len(self.squares) - 1)))
        return _overlap(self.squares[power], side - (1 << power))

    def depth(self, distance: float, row: int, column: int) -> Depth:
        """What is at a pixel of the box."""
        return Depth(distance, self.left + column, self.top + row, self.missed)


def _span(holds: BoolArray) -> tuple[int, int]:
    """(first, behind last) true value; (0, 0) where there is none."""
    first = int(holds.argmax())
    return (first, len(holds) - int(holds[::-1].argmax())) if holds[first] else (0, 0)


def squares_of(mask: BoolArray, side: int) -> BoolArray:
    """Where a square of this side (pixels, at least 1), all of a mask's, has its top left corner.

    Boolean (height - side + 1, width - side + 1); an axis has length 0 where the square does not fit.
    """
    corners, reached = mask, 1
    while 2 * reached <= side:
        corners, reached = _overlap(corners, reached), 2 * reached
    return _overlap(corners, side - reached)


def _overlap(squares: BoolArray, step: int) -> BoolArray:
    """Squares of side s + step from those of side s >= step: four of these cover one."""
    if step == 0:
        return squares
    columns = squares[:, step:] & squares[:, :-step]
    return np.asarray(columns[step:] & columns[:-step])


def _largest_square(kinds: Sequence[_Kind]) -> tuple[_Kind, int, int]:
    """A kind with about the largest square, the side of that square, and a larger side that no kind has."""
    side = 1
    while holders := [kind for kind in kinds if kind.centres(2 * side).any()]:
        kinds, side = holders, 2 * side
    return kinds[0], side, 2 * side


def _deepest_of(kind: _Kind, least: int, bound: int, side: int = 0) -> Depth | None:
    """The first pixel of the largest distance of one kind, if its square is at least `least`; it is at most `bound`.

    `side` is of a square of errors; where many pixels qualify, the centres of such squares tell first about how large
    the largest distance is. 0 where `least` is known to be that.
    """
    half = math.isqrt((least - 1) // 2)  # the largest square around a pixel that the least distance spans
    corners = kind.centres(2 * half + 1)
    count = int(np.count_nonzero(corners))
    if not count:
        return None
    if count * _LISTING > kind.mask.size:
        return _deepest_of_all(kind)
    if count * bound > _FEW and side and least < _RADIUS**2:
        return _deepest_of(kind, max(least, _sampled(kind, side, bound)), bound)
    pixels = _pixels(corners, 2 * half + 1)
    around, sure = _Surroundings.of(kind.mask, pixels, bound), (half + 1) ** 2
    if count * bound > _FEW:
        left, sure = around.reaching(sure, least)
        if not len(left):
            return None
        pixels, around = pixels.only(left), around.only(left)
    distances = _distances(kind.mask, pixels, around, sure, bound)
    at = int(distances.argmax())  # the first of equals, and pixels come row by row
    return kind.depth(float(distances[at]), int(pixels.rows[at]), int(pixels.columns[at]))


def _sampled(kind: _Kind, side: int, bound: int) -> int:
    """The square of a distance that some pixel of a kind has at least: the best of some centres of squares."""
    corners = kind.centres(side)
    pixels = _pixels(corners, side, 1 + int(np.count_nonzero(corners)) // _SAMPLE)
    return int(_Surroundings.of(kind.mask, pixels, bound).rings(((side + 1) // 2) ** 2).max())


def _deepest_of_all(kind: _Kind) -> Depth:
    """The first pixel of the largest distance of one kind, by a transform of the whole box."""
    height, width = kind.mask.shape
    distances = transform(_patch(kind.mask, ((-1, height + 1), (-1, width + 1))))[1:-1, 1:-1]
    for at in kind.clicked:
        distances[at] = 0
    row, column = divmod(int(distances.argmax()), width)
    return kind.depth(float(distances[row, column]), row, column)


def _distances(mask: BoolArray, pixels: _Pixels, around: _Surroundings, sure: int, bound: int) -> Float32Array:
    """float32 (n,): the distances of the deepest of some pixels; of the others these or less."""
    part = pixels.box(math.isqrt(bound) + 1, mask.shape)
    if bound <= _RADIUS**2 and len(pixels.rows) * bound < math.prod(end - begin for begin, end in part):
        return np.sqrt(around.rings(sure).astype(np.float32))
    (top, _), (left, _) = part
    return transform(_patch(mask, part))[pixels.rows - top, pixels.columns - left]


class _Pixels(NamedTuple):
    """Pixels of a mask, row by row: int64 (n,) each."""

    rows: IntArray
    columns: IntArray

    def only(self, which: IntArray | slice) -> _Pixels:
        return _Pixels(self.rows[which], self.columns[which])

    def box(self, margin: int, shape: tuple[int, ...] | None = None) -> _Box:
        """The box of the pixels and a margin; with a shape, no more than one pixel outside a mask of it."""
        top, bottom = int(self.rows[0]) - margin, int(self.rows[-1]) + margin + 1
        left, right = int(self.columns.min()) - margin, int(self.columns.max()) + margin + 1
        if shape is None:
            return (top, bottom), (left, right)
        return (max(top, -1), min(bottom, shape[0] + 1)), (max(left, -1), min(right, shape[1] + 1))


def _pixels(corners: BoolArray, side: int, step: int = 1) -> _Pixels:
    """The centres of squares, given where their top left corners are; every `step`-th of them."""
    rows, columns = np.divmod(np.flatnonzero(corners)[::step], corners.shape[1])
    return _Pixels(rows + (side - 1) // 2, columns + (side - 1) // 2)


def _patch(mask: BoolArray, box: _Box) -> ByteArray:
    """A part of a mask, with zeros where it leaves the mask."""
    (top, bottom), (left, right) = box
    patch = np.zeros((bottom - top, right - left), dtype=np.uint8)
    part = mask[max(top, 0) : bottom, max(left, 0) : right]
    down, across = max(-top, 0), max(-left, 0)
    patch[down : down + part.shape[0], across : across + part.shape[1]] = part
    return patch


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """Some pixels of a mask and their neighbours up to a distance, in the part of the mask that holds them all.

    The part is one axis, `flat`; pixels are `at` places of it, and each has `steps` to its neighbours, of which
    `squares` are the squared distances, nearest first.
    """

    flat: ByteArray
    at: IntArray
    squares: IntArray
    steps: IntArray

    @classmethod
    def of(cls, mask: BoolArray, pixels: _Pixels, bound: int) -> _Surroundings:
        """Neighbours up to the square of a distance, or up to the largest distance that is looked at."""
        squares, dy, dx = _neighbours()
        end = int(np.searchsorted(squares, bound, side="right"))
        box = pixels.box(min(math.isqrt(bound), _RADIUS))
        (top, _), (left, right) = box
        at = (pixels.rows - top) * (right - left) + pixels.columns - left
        steps = dy[:end] * (right - left) + dx[:end]
        return cls(_patch(mask, box).reshape(-1), at, squares[:end], steps)

    def only(self, which: IntArray) -> _Surroundings:
        return replace(self, at=self.at[which])

    def reaching(self, begin: int, least: int) -> tuple[IntArray, int]:
        """Which pixels have no zero nearer than the root of `least`, and the square within which that is certain.

        More are named where it would take long to tell. Farthest neighbours first: those rule out most. No pixel
        has a zero within the root of `begin`.
        """
        first, last = (int(at) for at in np.searchsorted(self.squares, (begin, least)))
        left, effort = np.arange(len(self.at)), len(self.flat)
        while first < last and len(left):
            if effort < 0:
                return left, begin
            block = slice(max(first, last - max(8, _BLOCK // len(left))), last)
            effort -= len(left) * (block.stop - block.start)
            left = left[self._full(left, block).all(axis=0)]
            last = block.start
        return left, min(least, int(self.squares[-1]) + 1)

    def rings(self, begin: int) -> IntArray:
        """int64 (n,): squared distances of the deepest pixels, 0 for the others; none is less than `begin`.

        Pixels without a zero among the neighbours have the squared distance of the last of these.
        """
        depths = np.zeros(len(self.at), dtype=np.int64)
        left, first = np.arange(len(self.at)), int(np.searchsorted(self.squares, begin))
        while first < len(self.squares):
            last = min(first + max(8, _BLOCK // len(left)), len(self.squares)) - 1
            # Whole rings: pixels that meet a zero in one block are never as deep as those that do not.
            last = int(np.searchsorted(self.squares, self.squares[last], side="right"))
            full = self._full(left, slice(first, last))
            alive = full.all(axis=0)
            if not alive.any():
                depths[left] = self.squares[first + full.argmin(axis=0)]
                return depths
            left, first = left[alive], last
        depths[left] = self.squares[-1]
        return depths

    def _full(self, which: IntArray, block: slice) -> BoolArray:
        """Boolean (neighbours, pixels): which are errors."""
        return np.asarray(self.flat.take(self.steps[block, None] + self.at[which]) != 0)


@cache
def _neighbours() -> tuple[IntArray, IntArray, IntArray]:
    """Squared distance, dy and dx of all neighbours up to the radius, nearest first."""
    span = np.arange(-_RADIUS, _RADIUS + 1)
    dy, dx = (axis.reshape(-1) for axis in np.meshgrid(span, span, indexing="ij"))
    squares = dy * dy + dx * dx
    order = np.argsort(squares, kind="stable")
    order = order[(squares[order] > 0) & (squares[order] <= _RADIUS**2)]
    return squares[order], dy[order], dx[order]
