"""Ours against a reference, measured by turns in one run: ratios, which other work on the machine hardly changes.

A round takes both sides by turns a few times and keeps the best of each; the figure is the median of the rounds'
ratios, and its spread their lowest and highest.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Side = Callable[[], float | None]
"""Does the work once. What times itself gives its seconds; of the rest the clock tells."""
Clock = Callable[[], float]

ROUNDS = 7
TURNS = 2
SLICE = 0.01
"""Seconds that a side is repeated for at a time, at least."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sides to compare.

    Attributes:
        name: of the figure.
        ours: what disbench does.
        reference: the bare work.
        against: the reference in a few words.
        items: how many things `ours` handles in one call, for the time of one.
        item: what those things are called.
        clock: of the process's own time, which other work on the machine hardly lengthens.
        rounds: how many.
        turns: of each side in a round.
        slice_seconds: that a side is repeated for at a time, at least.
        share: of the reference's work, what counts: where it does more than ours.
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
    """Ours over the reference; below 1 ours is faster.

    Attributes:
        median: of the rounds.
        low: the lowest of them.
        high: the highest.
        seconds: of ours for one item, the best of the run: what it costs here, and no verdict.
    """

    median: float
    low: float
    high: float
    seconds: float


def measured(pair: Pair) -> Ratio:
    """The ratio of a pair, after one call of each side to warm up."""
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
    """Of one call: the mean of a few."""
    told = 0.0
    begun = clock()
    for _ in range(repeats):
        told += side() or 0.0
    spent = clock() - begun
    return (told or spent) / repeats
