"""Time ours against a reference, alternating in one run: other load on the machine hardly affects the ratios.

A round runs both sides alternately a few times and keeps the best of each; the result is the median of the rounds'
ratios, and its spread their minimum and maximum.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Side = Callable[[], float | None]
"""Does the work once; returns its seconds if it times itself, otherwise None."""
Clock = Callable[[], float]

ROUNDS = 7
TURNS = 2
SLICE = 0.01
"""Minimum seconds for which a side is repeated at a time."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sides to compare.

    Attributes:
        name: name of the figure.
        ours: what disbench does.
        reference: the bare work.
        against: the reference in a few words.
        items: number of items that one call of `ours` handles.
        item: what the items are called.
        clock: CPU time by default, which other load on the machine hardly affects.
        rounds: number of rounds.
        turns: runs of each side per round.
        slice_seconds: minimum seconds for which a side is repeated at a time.
        share: fraction of the reference's work to count, if it does more than ours.
    """

    name: str
    ours: Side
    reference: Side
    against: str
    items: int
    item: str
    clock: Clock = time.process_time
    rounds: int = ROUNDS
    turns: int = TURNS
    slice_seconds: float = SLICE
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of ours over the reference; below 1 if ours is faster.

    Attributes:
        median: median over the rounds.
        low: minimum over the rounds.
        high: maximum over the rounds.
        seconds: best time of ours per item on this machine, for information only.
    """

    median: float
    low: float
    high: float
    seconds: float


def measure(pair: Pair) -> Ratio:
    """Measure the ratio of a pair, after one warm-up call of each side."""
    sides = (pair.ours, pair.reference)
    once = [_seconds(side, pair.clock, 1) for side in sides]
    repeats = [max(1, math.ceil(pair.slice_seconds / max(seconds, 1e-7))) for seconds in once]
    ratios, best_of_all = [], math.inf
    for _ in range(pair.rounds):
        best = [math.inf, math.inf]
        for _ in range(pair.turns):
            for number, side in enumerate(sides):
                best[number] = min(best[number], _seconds(side, pair.clock, repeats[number]))
        ratios.append(best[0] / (best[1] * pair.share))
        best_of_all = min(best_of_all, best[0])
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), best_of_all / pair.items)


def _seconds(side: Side, clock: Clock, repeats: int) -> float:
    """Mean seconds per call."""
    self_timed = 0.0
    begun = clock()
    for _ in range(repeats):
        self_timed += side() or 0.0
    elapsed = clock() - begun
    return (self_timed or elapsed) / repeats
