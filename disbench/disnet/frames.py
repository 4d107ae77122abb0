"""How an image lies in the network's square input: stretched to it, or padded at the bottom and right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from disbench.baselines.sam.session import inner_size, unpadded
from disbench.core.arrays import BoolArray, Float32Array, FloatArray
from disbench.core.opencv import opencv

Size = tuple[int, int]
STRIDE = 4
"""Pixels of the input to a cell of F^-1, where masks are predicted."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The network's input, and the grid of its masks, a quarter as wide.

    Attributes:
        kind: "stretched": the whole image at side x side, aspect ratio not kept (the paper's); "padded": the long
            side fills the input, the rest is zeros (SAM's).
        side: pixels, a multiple of 4.
    """

    kind: Literal["stretched", "padded"]
    side: int

    @property
    def grid(self) -> int:
        """Cells along a side of the masks' grid."""
        return self.side // STRIDE

    def scale(self, size: Size) -> tuple[float, float]:
        """(x, y): pixels of the input to a pixel of an image of this size (height, width)."""
        if self.kind == "padded":
            return self.side / max(size), self.side / max(size)
        return self.side / size[1], self.side / size[0]

    def offset(self, size: Size) -> tuple[float, float]:
        """(x, y) to add to a scaled click, pixels of the input, which maps pixel centers to pixel centers."""
        if self.kind == "padded":  # SAM only scales its points
            return 0.0, 0.0
        scale_x, scale_y = self.scale(size)
        return (scale_x - 1) / 2, (scale_y - 1) / 2

    def inner(self, size: Size) -> Size:
        """(height, width) of the image's part of the grid, cells, at least 1."""
        if self.kind == "stretched":
            return self.grid, self.grid
        height, width = inner_size(size, self.grid)
        return max(height, 1), max(width, 1)

    def valid(self, size: Size) -> BoolArray:
        """Cells of the grid that lie in the image: bool (grid, grid)."""
        height, width = self.inner(size)
        cells = np.zeros((self.grid, self.grid), dtype=np.bool_)
        cells[:height, :width] = True
        return cells

    def masks(self, masks: BoolArray) -> BoolArray:
        """Masks on the grid, bool (k, height, width) to (k, grid, grid): cells of which at least half is object."""
        height, width = self.inner((masks.shape[1], masks.shape[2]))
        result = np.zeros((len(masks), self.grid, self.grid), dtype=np.bool_)
        for number, mask in enumerate(masks):
            result[number, :height, :width] = _object_share(mask, (height, width)) >= 0.5
        return result

    def to_image(self, logits: Float32Array, size: Size) -> Float32Array:
        """A mask's logits, float32 (grid, grid), at an image's size (height, width), bilinear."""
        if self.kind == "padded":
            return unpadded(logits, size, self.side)
        found: Float32Array = opencv().resize(logits, size[::-1])
        return found


def _object_share(mask: BoolArray, size: Size) -> Float32Array | FloatArray:
    """The share of each cell of a grid of this size that belongs to a mask."""
    # OpenCV averages over areas only if neither axis grows
    if mask.shape[0] >= size[0] and mask.shape[1] >= size[1]:
        cv2 = opencv()
        shares: Float32Array = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        return shares
    rows, columns = (_overlaps(*pair) for pair in zip(size, mask.shape, strict=True))
    return rows @ mask @ columns.T


def _overlaps(cells: int, pixels: int) -> FloatArray:
    """The share of each cell that each pixel covers, along one axis: (cells, pixels)."""
    edges = np.arange(cells + 1) * pixels / cells
    covered = np.clip(edges[:, None] - np.arange(pixels), 0, 1)
    overlaps: FloatArray = np.diff(covered, axis=0) * cells / pixels
    return overlaps
