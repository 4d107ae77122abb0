"""Learning rates over a training: a linear warm-up, then half a cosine (paper, section 4.2)."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, warmup: int, rate: float, first: float) -> float:
    """The learning rate of a step.

    Args:
        step: from 0 to steps - 1.
        steps: of the whole training.
        warmup: steps of the warm-up, from `first` up to `rate`; 0 leaves it out.
        rate: after the warm-up; from there it falls along half a cosine towards 0.
        first: at step 0 of a warm-up.
    """
    if step < warmup:
        return first + (rate - first) * step / warmup
    return rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
