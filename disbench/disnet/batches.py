"""The data that DISNet's parts exchange: clicks, proposals, and the kept proposal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from disbench.core.clicks import Click

Rows = Tensor | slice
"""Samples of a batch: int64 or bool (n,), or a slice."""
Record = TypeVar("Record", "ClickBatch", "Proposals", "Kept")


def _each(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    parts = {field.name: getattr(record, field.name) for field in fields(record)}
    changed: dict[str, Any] = {name: change(part) for name, part in parts.items() if isinstance(part, Tensor)}
    return replace(record, **changed)


@dataclass(frozen=True, slots=True)
class ClickBatch:
    """The clicks of several samples, the first click at number 0, padded to equal counts.

    Attributes:
        points: float32 (batch, clicks, 2): x, y in pixels of the network's input; whole numbers are pixel centers.
        positive: bool (batch, clicks).
        given: bool (batch, clicks), False for padding.
    """

    points: Tensor
    positive: Tensor
    given: Tensor

    def signed(self, positive: bool) -> Tensor:
        """Which clicks are given and have this sign: bool (batch, clicks)."""
        return self.given & (self.positive == positive)

    @property
    def first(self) -> ClickBatch:
        """The first clicks alone."""
        return _each(self, lambda part: part[:, :1])

    def to(self, device: torch.device | str) -> ClickBatch:
        """The same on another device."""
        return _each(self, lambda part: part.to(device))

    def rows(self, rows: Rows) -> ClickBatch:
        """The clicks of some samples."""
        return _each(self, lambda part: part[rows])


def click_batch(
    clicks: Sequence[Sequence[Click]],
    scales: Sequence[tuple[float, float]],
    offsets: Sequence[tuple[float, float]] | None = None,
) -> ClickBatch:
    """Clicks on images as the network takes them: point = scale * click + offset.

    Args:
        clicks: at least one for each sample.
        scales: (x, y) for each sample: pixels of the network's input to one of the image.
        offsets: (x, y) for each sample, pixels of the input; None for zeros.
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
        logits: float (batch, N, h, w), the masks on the grid of F^-1 (a quarter of the input's side).
        objectness: float (batch, N), logits of "this candidate is an object that the click may mean".
        queries: float (batch, N, query width), Q after the decoder.
        features: float (batch, channels, h, w), F^-1.
        context: the image's encoding, if the refinement network needs it.
        earlier: logits and objectness after the earlier decoder layers, which have losses of their own.
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
        """The proposals of some samples, without those of earlier layers."""
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
        """The same without a gradient to M_s: the two stages train in one run (a reading of section 4.2)."""
        return replace(self, logits=self.logits.detach())

    def rows(self, rows: Rows) -> Kept:
        """The kept proposals of some samples."""
        context = None if self.context is None else self.context[rows]
        return Kept(self.query[rows], self.features[rows], self.logits[rows], context)


def stacked(kept: Sequence[Kept]) -> Kept:
    """Several samples as one batch."""
    parts = [[getattr(own, field.name) for own in kept] for field in fields(Kept)]
    return Kept(*(None if own[0] is None else torch.cat(own) for own in parts))  # type: ignore[arg-type]
