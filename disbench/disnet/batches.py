"""Data passed between DISNet's parts: the input frame, clicks, proposals, and the kept proposal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from disbench.baselines.sam.session import inner_size, unpadded
from disbench.core.arrays import BoolArray, Float32Array, FloatArray
from disbench.core.clicks import Click
from disbench.core.errors import opencv

Size = tuple[int, int]
STRIDE = 4  # input pixels per cell of F^-1, where masks are predicted


@dataclass(frozen=True, slots=True)
class Frame:
    """The network's square input, and the grid of its masks, with a quarter of the input's side.

    Attributes:
        kind: "stretched": the image is resized to side x side without keeping the aspect ratio (the paper); "padded":
            the long side fills the input, the rest is zeros (SAM).
        side: pixels, a multiple of 4.
    """

    kind: Literal["stretched", "padded"]
    side: int

    @property
    def grid(self) -> int:
        """Side of the mask grid, cells."""
        return self.side // STRIDE

    def scale(self, size: Size) -> tuple[float, float]:
        """(x, y): input pixels per pixel of an image of this size (height, width)."""
        if self.kind == "padded":
            return self.side / max(size), self.side / max(size)
        return self.side / size[1], self.side / size[0]

    def offset(self, size: Size) -> tuple[float, float]:
        """(x, y) to add to a scaled click, input pixels, so that pixel centers map to pixel centers."""
        if self.kind == "padded":  # SAM only scales its points
            return 0.0, 0.0
        scale_x, scale_y = self.scale(size)
        return (scale_x - 1) / 2, (scale_y - 1) / 2

    def inner(self, size: Size) -> Size:
        """(height, width) of the part of the grid that the image covers, cells, at least 1."""
        if self.kind == "stretched":
            return self.grid, self.grid
        height, width = inner_size(size, self.grid)
        return max(height, 1), max(width, 1)

    def valid(self, size: Size) -> BoolArray:
        """Cells of the grid that are inside the image: bool (grid, grid)."""
        height, width = self.inner(size)
        cells = np.zeros((self.grid, self.grid), dtype=np.bool_)
        cells[:height, :width] = True
        return cells

    def masks(self, masks: BoolArray) -> BoolArray:
        """Resize masks to the grid, bool (k, height, width) to (k, grid, grid): cells at least half covered."""
        height, width = self.inner((masks.shape[1], masks.shape[2]))
        result = np.zeros((len(masks), self.grid, self.grid), dtype=np.bool_)
        for number, mask in enumerate(masks):
            result[number, :height, :width] = _object_share(mask, (height, width)) >= 0.5
        return result

    def to_image(self, logits: Float32Array, size: Size) -> Float32Array:
        """Resize a mask's logits, float32 (grid, grid), to an image's size (height, width), bilinear."""
        if self.kind == "padded":
            return unpadded(logits, size, self.side)
        found: Float32Array = opencv().resize(logits, size[::-1])
        return found


def _object_share(mask: BoolArray, size: Size) -> Float32Array | FloatArray:
    """The fraction of each grid cell that is covered by a mask."""
    # OpenCV averages over areas only if neither axis is enlarged
    if mask.shape[0] >= size[0] and mask.shape[1] >= size[1]:
        cv2 = opencv()
        shares: Float32Array = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        return shares
    rows, columns = (_overlaps(*pair) for pair in zip(size, mask.shape, strict=True))
    return rows @ mask @ columns.T


def _overlaps(cells: int, pixels: int) -> FloatArray:
    """The fraction of each cell that each pixel covers, along one axis: (cells, pixels)."""
    edges = np.arange(cells + 1) * pixels / cells
    covered = np.clip(edges[:, None] - np.arange(pixels), 0, 1)
    overlaps: FloatArray = np.diff(covered, axis=0) * cells / pixels
    return overlaps


Rows = Tensor | slice  # samples of a batch: int64 or bool (n,), or a slice
Record = TypeVar("Record", "ClickBatch", "Proposals", "Kept")


def _each(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    parts = {field.name: getattr(record, field.name) for field in fields(record)}
    changed: dict[str, Any] = {name: change(part) for name, part in parts.items() if isinstance(part, Tensor)}
    return replace(record, **changed)


@dataclass(frozen=True, slots=True)
class ClickBatch:
    """The clicks of a batch, the first click at index 0, padded to equal length.

    Attributes:
        points: float32 (batch, clicks, 2): x, y in input pixels; integers are pixel centers.
        positive: bool (batch, clicks).
        given: bool (batch, clicks), False for padding.
    """

    points: Tensor
    positive: Tensor
    given: Tensor

    def signed(self, positive: bool) -> Tensor:
        """Mask of the given clicks with this sign: bool (batch, clicks)."""
        return self.given & (self.positive == positive)

    @property
    def first(self) -> ClickBatch:
        """Only the first clicks."""
        return _each(self, lambda part: part[:, :1])

    def to(self, device: torch.device | str) -> ClickBatch:
        """Move to a device."""
        return _each(self, lambda part: part.to(device))

    def rows(self, rows: Rows) -> ClickBatch:
        """The clicks of some samples."""
        return _each(self, lambda part: part[rows])


def click_batch(
    clicks: Sequence[Sequence[Click]],
    scales: Sequence[tuple[float, float]],
    offsets: Sequence[tuple[float, float]] | None = None,
) -> ClickBatch:
    """Batch clicks in input pixels: point = scale * click + offset.

    Args:
        clicks: at least one per sample.
        scales: (x, y) per sample, input pixels per image pixel.
        offsets: (x, y) per sample, input pixels; None for zeros.
    """
    points = [
        torch.tensor([(float(click.x), float(click.y)) for click in own]) * torch.tensor(scale) + torch.tensor(offset)
        for own, scale, offset in zip(clicks, scales, offsets or [(0.0, 0.0)] * len(clicks), strict=True)
    ]
    positive = [torch.tensor([click.positive for click in own]) for own in clicks]
    given = [torch.ones(len(own), dtype=torch.bool) for own in clicks]
    return ClickBatch(*(pad_sequence(parts, batch_first=True) for parts in (points, positive, given)))


@dataclass(frozen=True, slots=True)
class Proposals:
    """The proposal network's output (paper, eq. 2).

    Attributes:
        logits: float (batch, N, h, w), mask logits on the grid of F^-1 (a quarter of the input's side).
        objectness: float (batch, N), logits that a candidate is an object that the click may mean.
        queries: float (batch, N, query width), Q after the decoder.
        features: float (batch, channels, h, w), F^-1.
        context: the image's encoding, if the refinement network needs it.
        earlier: logits and objectness after earlier decoder layers, for auxiliary losses.
    """

    logits: Tensor
    objectness: Tensor
    queries: Tensor
    features: Tensor
    context: Tensor | None = None
    earlier: tuple[tuple[Tensor, Tensor], ...] = ()

    def keep(self, index: Tensor) -> Kept:
        """Keep one candidate of each sample for the refinement network; index: int64 (batch,)."""
        rows = torch.arange(len(index), device=index.device)
        return Kept(self.queries[rows, index], self.features, self.logits[rows, index], self.context)

    def rows(self, rows: Rows) -> Proposals:
        """The proposals of some samples, without `earlier`."""
        return _each(replace(self, earlier=()), lambda part: part[rows])


@dataclass(frozen=True, slots=True)
class Kept:
    """The refinement network's input from stage 1 (paper, eq. 3); fixed after the first click.

    Attributes:
        query: float (batch, query width), Q_s.
        features: float (batch, channels, h, w), F^-1.
        logits: float (batch, h, w), the logits of M_s.
        context: as in `Proposals`.
    """

    query: Tensor
    features: Tensor
    logits: Tensor
    context: Tensor | None = None

    def detached_mask(self) -> Kept:
        """Detach M_s, so that the two stages train in one run (an interpretation of section 4.2)."""
        return replace(self, logits=self.logits.detach())

    def rows(self, rows: Rows) -> Kept:
        """The kept proposals of some samples."""
        context = None if self.context is None else self.context[rows]
        return Kept(self.query[rows], self.features[rows], self.logits[rows], context)


def stacked(kept: Sequence[Kept]) -> Kept:
    """Concatenate samples to one batch."""
    parts = [[getattr(own, field.name) for own in kept] for field in fields(Kept)]
    return Kept(*(None if own[0] is None else torch.cat(own) for own in parts))  # type: ignore[arg-type]
