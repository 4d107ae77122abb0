"""Discs around the clicks: the floor that every method must beat."""

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
    """The object is what lies within a radius of a positive click, and nearer to it than to a negative one.

    The image's content is not used. Among equally near clicks the latest counts.

    Attributes:
        radius: the discs' radius, as a share of the image's shorter side.
    """

    radius: Annotated[float, Bounds(0.001, 2)] = 0.2

    def __post_init__(self) -> None:
        check_fields(self)

    def open(self, image: RgbImage) -> DiskSession:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        height, width = image.shape[:2]
        return DiskSession(height, width, self.radius * min(height, width))

    def predict_batch(self, sessions: Sequence[DiskSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """The same as `predict` on each session with its clicks."""
        return [session.predict(own) for session, own in zip(sessions, clicks, strict=True)]


class DiskSession:
    """One image being segmented; all lengths are pixels."""

    def __init__(self, height: int, width: int, radius: float) -> None:
        self._size, self._radius = (height, width), radius

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One candidate, bool (1, height, width)."""
        return Prediction((seed_discs(clicks, self._size, *self._size, self._radius) > 0)[None])
