"""The figure of ambiguity: coverage against candidates kept, and clicks to be understood by what is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from disbench.harness.measures import SOLVED
from disbench.reports.ambiguity.numbers import FAMILIES, Intents, Numbers
from disbench.reports.ambiguity.tables import by_sets
from disbench.reports.curves import Curve, Panel, draw_curves

FIGURE = "Coverage against candidates kept; clicks to be understood"
"""What the figure shows."""


def draw_ambiguity(runs: Sequence[Numbers], intents: Sequence[Intents]) -> dict[str, bytes]:
    """The figure as `png` and `svg`: a panel for each dataset and kind of run.

    Args:
        runs: of the diverse task.
        intents: on each intent; one of the two has a run.
    """
    labels = dict.fromkeys([*(run.who.label for run in runs), *(run.who.label for run in intents)])
    styles = {label: number for number, label in enumerate(labels)}
    panels = [
        *(_coverage(group, styles) for group in by_sets(runs)),
        *(_clicks(group, styles) for group in by_sets(intents)),
    ]
    return draw_curves(panels)


def _coverage(runs: Sequence[Numbers], styles: Mapping[str, int]) -> Panel:
    curves = [
        Curve(
            run.who.label,
            f"{run.coverage.mean:.3f}{' (no score)' if run.own is None else ''}",
            np.array([]) if run.own is None else run.own,
            styles[run.who.label],
            bound=run.oracle,
        )
        for run in runs
    ]
    notes = ("solid: the method's own score; dotted: an oracle",)
    return Panel(runs[0].who.title, tuple(curves), notes, "Candidates kept", "Coverage")


def _clicks(runs: Sequence[Intents], styles: Mapping[str, int]) -> Panel:
    names = tuple(name for name in FAMILIES if any(name in run.by_relation for run in runs))
    curves = []
    for run in runs:
        found = [run.by_relation[name].noc[SOLVED] if name in run.by_relation else None for name in names]
        values, lows, highs = (
            np.array([np.nan if one is None else getattr(one, part) for one in found])
            for part in ("mean", "low", "high")
        )
        spread = np.maximum([values - lows, highs - values], 0.0)
        remark = f"{run.selection}, {run.all.noc[SOLVED].mean:.2f}"
        style, hollow = styles[run.who.label], run.selection == "score"
        curves.append(Curve(run.who.label, remark, values, style, spread=spread, hollow=hollow))
    notes = ("hollow: selection by score",)
    return Panel(runs[0].who.title, tuple(curves), notes, "What the first click means", f"NoC@{SOLVED}", names)
