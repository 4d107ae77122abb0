"""Discs around the clicks: the baseline that every method must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from disbench.baselines.classical.seeds import seed_discs
from disbench.core.clicks import Click
from disbench.core.prediction import Prediction, RgbImage
from disbench.io.settings import Bounds, check_fields


@dataclass(frozen=True)
class Disk:
    """Object pixels are those within a radius of a positive click and nearer to it than to any negative click.

    Ignores the image's content. Ties go to the latest click.

    Attributes:
        radius: radius of the discs, as a fraction of the image's shorter side.
    """

    radius: Annotated[float, Bounds(0.001, 2)] = 0.2

    def __post_init__(self) -> None:
        check_fields(self)

    def open(self, image: RgbImage) -> DiskSession:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        height, width = image.shape[:2]
        return DiskSession(height, width, self.radius * min(height, width))

    def predict_batch(self, sessions: Sequence[DiskSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """Call `predict` on each session with its clicks."""
        return [session.predict(own) for session, own in zip(sessions, clicks, strict=True)]


class DiskSession:
    """One image being segmented; lengths are in pixels."""

    def __init__(self, height: int, width: int, radius: float) -> None:
        self._size, self._radius = (height, width), radius

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One candidate, bool (1, height, width)."""
        return Prediction((seed_discs(clicks, self._size, *self._size, self._radius) > 0)[None])
