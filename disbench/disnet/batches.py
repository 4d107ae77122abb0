"""What travels between DISNet's parts: clicks, proposals, and the proposal that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disbench.core.clicks import Click


@dataclass(frozen=True, slots=True)
class ClickBatch:
    """The clicks of several samples, the first click at number 0, padded to equal counts.

    Attributes:
        points: float32 (batch, clicks, 2): x to the right, y down, pixels of the network's input; whole numbers
            are pixel centers.
        positive: bool (batch, clicks).
        given: bool (batch, clicks), False where a sample has fewer clicks; what stands there changes nothing.
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
        return ClickBatch(self.points[:, :1], self.positive[:, :1], self.given[:, :1])

    def to(self, device: torch.device | str) -> ClickBatch:
        """The same on another device."""
        return ClickBatch(self.points.to(device), self.positive.to(device), self.given.to(device))

    def row(self, number: int) -> ClickBatch:
        """One sample's clicks without padding: a batch of one."""
        kept = self.given[number]
        return ClickBatch(
            self.points[number, kept][None], self.positive[number, kept][None], self.given[number, kept][None]
        )


def click_batch(
    clicks: Sequence[Sequence[Click]],
    scales: Sequence[tuple[float, float]],
    offsets: Sequence[tuple[float, float]] | None = None,
) -> ClickBatch:
    """Clicks on images as the network takes them: point = scale * click + offset.

    Args:
        clicks: of each sample, at least one.
        scales: of each sample, (x, y): pixels of the network's input to one of the image.
        offsets: of each sample, (x, y), pixels of the input; none without a word.

    Raises:
        ValueError: a sample without a click.
    """
    if not all(clicks):
        raise ValueError("each sample needs at least one click")
    most = max(len(given) for given in clicks)
    points = torch.zeros(len(clicks), most, 2)
    positive = torch.zeros(len(clicks), most, dtype=torch.bool)
    given = torch.zeros(len(clicks), most, dtype=torch.bool)
    shifts = offsets or [(0.0, 0.0)] * len(clicks)
    for number, (own, scale, shift) in enumerate(zip(clicks, scales, shifts, strict=True)):
        count = len(own)
        places = torch.tensor([(float(c.x), float(c.y)) for c in own])
        points[number, :count] = places * torch.tensor(scale) + torch.tensor(shift)
        positive[number, :count] = torch.tensor([c.positive for c in own])
        given[number, :count] = True
    return ClickBatch(points, positive, given)


@dataclass(frozen=True, slots=True)
class Proposals:
    """What the proposal network answers to first clicks (paper, eq. 2).

    Attributes:
        logits: float (batch, N, h, w), of the masks, on the grid of F^-1 (a quarter of the input's side).
        objectness: float (batch, N), logits of "this candidate is an object that the click may mean".
        queries: float (batch, N, width of a query), Q after the decoder.
        features: float (batch, channels, h, w), F^-1.
        context: what the refinement network needs besides (an encoding of the image), or None.
        earlier: logits and objectness after the earlier decoder layers, for losses of their own.
    """

    logits: Tensor
    objectness: Tensor
    queries: Tensor
    features: Tensor
    context: Tensor | None = None
    earlier: tuple[tuple[Tensor, Tensor], ...] = ()

    def keep(self, index: Tensor) -> Kept:
        """The candidate of each sample that goes on to the refinement network; index: int64 (batch,)."""
        rows = torch.arange(len(index), device=index.device)
        return Kept(self.queries[rows, index], self.features, self.logits[rows, index], self.context)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the refinement network knows of stage 1 (paper, eq. 3); it stays as it is after the first click.

    Attributes:
        query: float (batch, width of a query), Q_s.
        features: float (batch, channels, h, w), F^-1.
        logits: float (batch, h, w), of M_s.
        context: as in `Proposals`.
    """

    query: Tensor
    features: Tensor
    logits: Tensor
    context: Tensor | None = None

    def detached_mask(self) -> Kept:
        """The same, with no gradient to M_s: the two stages are trained in one run (a reading of section 4.2)."""
        return Kept(self.query, self.features, self.logits.detach(), self.context)
