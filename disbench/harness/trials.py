"""The policies `worst` and `best`: several clicks are tried on the method, each from the same state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.harness.store import ClickRow


@dataclass
class Trials:
    """The clicks of one loop: those made, and the candidates for the next one.

    Attributes:
        sign: times the IoU of which the largest is chosen.
        made: the clicks so far, and which of the method's masks was kept after each.
        seen: how many of these the session has been given since it began.
        left: candidates that were not tried, the next first.
        tried: x, y and IoU of those that were; None where the method failed.
        best: the row and the mask of the best so far.
    """

    sign: int
    made: list[tuple[Click, int]] = field(default_factory=list)
    seen: int = 0
    left: Sequence[Click] = ()
    tried: tuple[tuple[int, int, float | None], ...] = ()
    best: tuple[ClickRow, BoolArray] | None = None

    def begin(self, candidates: Sequence[Click]) -> None:
        """Begin a click."""
        self.left, self.tried, self.best = candidates, (), None

    @property
    def returning(self) -> bool:
        """Whether the session is being led back to the state before the click."""
        return self.seen < len(self.made)

    @property
    def clicks(self) -> list[Click]:
        """What the session is asked next."""
        clicks = [click for click, _ in self.made[: self.seen + 1]]
        return clicks if self.returning else [*clicks, self.left[0]]

    def note(self, row: ClickRow, mask: BoolArray) -> ClickRow | None:
        """Note a candidate's row; once all are tried, choose: the row, or None if the method failed on all.

        Equal IoUs are decided by boundary IoU, then by the order of the candidates.
        """
        failed = row.failure is not None
        self.left, self.tried = self.left[1:], (*self.tried, (row.x, row.y, None if failed else row.iou))
        if not failed and (self.best is None or self._worth(row) > self._worth(self.best[0])):
            self.best = row, mask
        if self.left or self.best is None:
            return None
        chosen = self.best[0]
        self.made.append((Click(chosen.x, chosen.y, chosen.positive), chosen.kept))
        return replace(chosen, trials=self.tried)

    def _worth(self, row: ClickRow) -> tuple[float, float]:
        return self.sign * row.iou, self.sign * row.boundary_iou
