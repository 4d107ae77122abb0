"""Fixed budgets: methods without a click loop get a few points of the target at once, and answer once.

DEXTR takes four extreme points; IOG a box, told by two of its corners, and a point inside. What they reach is an IoU at
their budget, never a number of clicks (PROTOCOL: deviations between peers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click, checked_target, next_click


@dataclass(frozen=True, slots=True)
class Budget:
    """Points that a method gets at once: their number and a description.

    `points` makes them from an object, bool (height, width) with at least one pixel, and its target.
    """

    count: int
    words: str
    points: Callable[[BoolArray, npt.NDArray[np.int8]], list[Click]]


def budget_points(name: str, target: npt.ArrayLike) -> list[Click]:
    """The points that a budget (of `BUDGETS`) gives for a target, int (height, width) of 1, 0, -1, with an object."""
    checked = checked_target(target)
    return BUDGETS[name].points(checked == 1, checked)


def extreme_points(found: BoolArray, target: npt.NDArray[np.int8]) -> list[Click]:
    """Left, top, right and bottom-most pixel of the object; of several the middle one (the first of two middles).

    DEXTR (Maninis et al. 2018, section 3) draws one of several, and in training moves it by up to ten pixels.
    """
    del target
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    left, right, top, bottom = columns[0], columns[-1], rows[0], rows[-1]
    return [
        Click(int(left), _middle(found[:, left]), True),
        Click(_middle(found[top]), int(top), True),
        Click(int(right), _middle(found[:, right]), True),
        Click(_middle(found[bottom]), int(bottom), True),
    ]


def inside_and_corners(found: BoolArray, target: npt.NDArray[np.int8]) -> list[Click]:
    """The protocol's first click, and as background clicks the top left and bottom right corner of the object's box.

    IOG (Zhang et al. 2020, section 3): an inside point near the center, and two corners of the box, of which the others
    follow. The box is the tight one, in inclusive pixels; a method that wants a margin adds it.
    """
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return [
        next_click(target, np.zeros_like(found)),
        Click(int(columns[0]), int(rows[0]), False),
        Click(int(columns[-1]), int(rows[-1]), False),
    ]


def _middle(line: BoolArray) -> int:
    places = np.flatnonzero(line)
    return int(places[(len(places) - 1) // 2])


BUDGETS: Mapping[str, Budget] = {
    "extreme-points": Budget(4, "4 extreme points", extreme_points),
    "inside-and-corners": Budget(3, "a point inside and 2 corners of the box", inside_and_corners),
}
