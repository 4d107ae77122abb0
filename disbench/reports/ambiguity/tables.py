"""Tables and the figure of ambiguity, and all of its numbers as rows for a CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from disbench.core.statistics import Estimate
from disbench.harness.measures import SOLVED, significant
from disbench.reports.ambiguity.numbers import FAMILIES, NOTHING, PERCENTS, RECALLS, Group, Intents, Numbers, Who
from disbench.reports.curves import Curve, Panel, draw_curves
from disbench.reports.render.table import Cell, Column, Table
from disbench.reports.render.text import DASH

FIGURE = "Coverage against candidates kept; clicks to be understood"
"""What the figure shows."""
Run = TypeVar("Run", Numbers, Intents)
_Parts = Sequence[tuple[Column, Callable[[Numbers], Cell]]]
_INTERVALS = "In brackets: 95 % bootstrap intervals over images."


def by_sets(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs on the same sets with the same first clicks together, in the order of their first."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.who.key, []).append(run)
    return list(groups.values())


def tables_of(numbers: Sequence[Numbers], intents: Sequence[Intents]) -> list[Table]:
    """All tables, dataset by dataset."""
    found = []
    for place, group in enumerate(by_sets(numbers), start=1):
        for name, what, make in (
            ("coverage", "coverage", _coverage),
            ("candidates", "candidates and scores", _candidates),
            ("groups", "by relation and size", _groups),
            ("meant", "what one answer means", _meant),
        ):
            caption, parts = make(group)
            shown = group if name != "meant" else [run for run in group if run.meant]
            if shown:
                found.append(_table(f"{name}-{place}", f"{group[0].who.title}: {what}", caption, parts, shown))
    return found + [_intents_table(group, place) for place, group in enumerate(by_sets(intents), start=1)]


def overview(runs: Sequence[Numbers]) -> Table:
    """A row a run, of all sets: for a page that has other tables too."""
    parts: _Parts = (
        (Column("Sets", number=False), lambda run: Cell(f"{run.who.title}, {run.sets:,}")),
        *_METHOD,
        *_measures(
            {
                "Coverage": "coverage",
                "Recall at 0.75": "recall_75",
                "Coverage by its own choice": "coverage_own_choice",
                "Redundancy": "redundancy",
                "Waste": "waste",
                "Held when moved": "held_own_choice",
            }
        ),
    )
    caption = (
        "How far a method's candidates for one click cover all that it may mean: mean over a set's masks of the best "
        f"candidate's IoU. {_INTERVALS} Rows of different sets, or with other first clicks, cannot be compared."
    )
    ordered = [run for group in by_sets(runs) for run in group]
    return _table("ambiguity", "Ambiguity of the first click", caption, parts, ordered)


def _table(name: str, title: str, caption: str, parts: _Parts, runs: Sequence[Numbers]) -> Table:
    columns = tuple(column for column, _ in parts)
    return Table(name, title, caption, columns, tuple(tuple(cell(run) for _, cell in parts) for run in runs), {})


def _measures(columns: Mapping[str, str], group: str = "") -> _Parts:
    """Columns of estimates: heading -> name of the measure."""
    return [(Column(heading, group), partial(_measured, name=name)) for heading, name in columns.items()]


def _measured(run: Numbers, name: str) -> Cell:
    return _estimate(run.estimates[name])


_METHOD: _Parts = (
    (Column("Method", number=False), lambda run: Cell(run.who.label)),
    (Column("Candidates"), lambda run: Cell(f"{run.candidates:.3g}")),
)


def _coverage(runs: Sequence[Numbers]) -> tuple[str, _Parts]:
    """Coverage of runs on the same sets."""
    first = runs[0]

    def own(run: Numbers) -> Cell:
        return Cell(DASH if run.own is None else f"{run.own[min(2, len(run.own) - 1)]:.3f}")

    def recall(run: Numbers, percent: int) -> Cell:
        found = run.estimates[f"recall_{percent}"]
        return Cell(DASH if found is None else f"{found.mean:.3f}")

    parts: _Parts = (
        *_METHOD,
        *_measures({"Coverage": "coverage"}),
        *((Column(f"{percent} %", "recall at IoU"), partial(recall, percent=percent)) for percent in RECALLS),
        *_measures({"own score": "coverage_own_choice"}, "coverage by one"),
        (Column("oracle", "coverage by one"), lambda run: Cell(f"{run.oracle[0]:.3f}")),
        (Column("own score", "coverage by three"), own),
        (Column("oracle", "coverage by three"), lambda run: Cell(f"{run.oracle[min(2, len(run.oracle) - 1)]:.3f}")),
        (Column("Failed"), lambda run: Cell(str(run.failed))),
        (Column("s/click"), lambda run: Cell(significant(run.seconds))),
    )
    caption = (
        f"{first.sets:,} sets ({first.who.sets}) on {first.images:,} images, {first.clicks:,} first clicks "
        f"({first.who.asked}). Coverage: mean over a set's masks of the best candidate's IoU. {_INTERVALS}"
    )
    return caption, parts


def _candidates(runs: Sequence[Numbers]) -> tuple[str, _Parts]:
    """What the candidates are like, whether scores hold, and whether a moved click changes the answer."""
    parts: _Parts = (
        _METHOD[0],
        *_measures({"Redundancy": "redundancy", "Waste": "waste"}),
        *_measures({"error": "calibration_error"}, "calibration"),
        (Column("all", "rank correlation"), lambda run: Cell(DASH if run.rank is None else f"{run.rank:.3f}")),
        *_measures({"within a click": "rank_correlation_within"}, "rank correlation"),
        *_measures({"own choice": "held_own_choice", "best candidates": "held_best"}, "held when moved"),
    )
    distances = sorted({run.who.moved for run in runs if run.who.moved})
    several = " (the list of runs says which by how many)" if len(distances) > 1 else ""
    moved = f" a click is moved by {' or '.join(map(str, distances))} pixels{several}" if distances else ""
    caption = (
        "Redundancy: mean IoU between candidates. Waste: share of candidates below an IoU of 0.5 with every mask. "
        "Calibration and rank correlation: the score against the IoU with the nearest mask. Held when moved: IoU of "
        f"the answers before and after{moved}. {_INTERVALS}"
    )
    return caption, parts


def _groups(runs: Sequence[Numbers]) -> tuple[str, _Parts]:
    """Coverage by relation and by size of set."""

    def relation(run: Numbers, name: str) -> Cell:
        return _group(run.by_relation.get(name))

    def size(run: Numbers, name: str) -> Cell:
        return _group(run.by_size.get(name))

    parts: _Parts = (
        _METHOD[0],
        *(
            (Column(f"{name} ({group.count:,})", "coverage of masks"), partial(relation, name=name))
            for name, group in runs[0].by_relation.items()
        ),
        *(
            (Column(f"{name} ({group.count:,})", "coverage of sets of so many masks"), partial(size, name=name))
            for name, group in runs[0].by_size.items()
        ),
    )
    return f"What a mask is to the clicked object; in parentheses how many. {_INTERVALS}", parts


def _meant(runs: Sequence[Numbers]) -> tuple[str, _Parts]:
    """Which member the chosen candidate means, of runs with sets of two masks whose method chooses."""

    def share(run: Numbers, name: str) -> Cell:
        return Cell(f"{100 * run.meant.get(name, 0.0):.0f} %")

    names = [name for name in (*FAMILIES, NOTHING) if any(name in run.meant for run in runs)]
    caption = (
        "In sets of two masks or more: share of clicks at which the candidate that the method itself chooses is "
        "nearest to the mask of this relation, with an IoU of 0.5 or more."
    )
    return caption, (_METHOD[0], *((Column(name), partial(share, name=name)) for name in names))


def _intents_table(runs: Sequence[Intents], place: int) -> Table:
    """Clicks to be understood, for each relation of the meant mask to the clicked object."""
    columns = (
        *(Column(name, number=False) for name in ("Method", "Selection", "Meant")),
        Column("Targets"),
        *(Column(f"NoC@{percent}") for percent in PERCENTS),
        Column("1", "IoU after click"),
        Column("2", "IoU after click"),
    )
    rows = tuple(
        (
            *map(Cell, (run.who.label, run.selection, name, f"{intent.count:,}")),
            *(_estimate(intent.noc[percent], 2) for percent in PERCENTS),
            _estimate(intent.first),
            _estimate(intent.second),
        )
        for run in runs
        for name, intent in run.groups.items()
    )
    caption = (
        "The same first click, each mask of its set in turn as the target. The second click is the first that says "
        f"which is meant. Asked with {runs[0].who.asked}. {_INTERVALS}"
    )
    return Table(f"intents-{place}", f"{runs[0].who.title}: clicks to be understood", caption, columns, rows, {})


def csv_rows(runs: Sequence[Numbers], intents: Sequence[Intents]) -> list[dict[str, Any]]:
    """Every number, unrounded: one row a measure and group."""
    found = [_row(run.who, "", *row) for run in runs for row in _numbers(run)]
    return found + [_row(run.who, run.selection, *row) for run in intents for row in _intents(run)]


def _row(
    who: Who, selection: str, measure: str, group: str, count: int, value: Estimate | float | None
) -> dict[str, Any]:
    mean, low, high = (value.mean, value.low, value.high) if isinstance(value, Estimate) else (value, None, None)
    return {
        "run": who.folder.name,
        "label": who.label,
        "dataset": who.dataset,
        "content_hash": who.content_hash,
        "selection": selection,
        "measure": measure,
        "group": group,
        "count": count,
        "value": mean,
        "low": low,
        "high": high,
    }


def _numbers(run: Numbers) -> Iterator[tuple[str, str, int, Estimate | float | None]]:
    for name, found in run.estimates.items():
        yield name, "", run.clicks, found
    yield "rank_correlation", "", run.clicks, run.rank
    yield "candidates", "", run.clicks, run.candidates
    yield "failed", "", run.sets, run.failed
    yield "model_seconds", "", run.clicks, run.seconds
    for kind, groups in (("relation", run.by_relation), ("size", run.by_size)):
        for name, group in groups.items():
            yield f"coverage_by_{kind}", name, group.count, group.coverage
            for percent, share in group.recall.items():
                yield f"recall_{percent}_by_{kind}", name, group.count, share
    for name, share in run.meant.items():
        yield "own_choice_means", name, run.clicks, share
    for name, curve in (("coverage_own_order", run.own), ("coverage_oracle", run.oracle)):
        for kept, value in enumerate(() if curve is None else curve, start=1):
            yield name, str(kept), run.clicks, float(value)


def _intents(run: Intents) -> Iterator[tuple[str, str, int, Estimate | None]]:
    for name, intent in run.groups.items():
        for percent, found in intent.noc.items():
            yield f"noc_{percent}", name, intent.count, found
        yield "iou_1", name, intent.count, intent.first
        yield "iou_2", name, intent.count, intent.second


def _estimate(found: Estimate | None, digits: int = 3) -> Cell:
    if found is None:
        return Cell(DASH)
    return Cell(f"{found.mean:.{digits}f}", interval=f"{found.low:.{digits}f}, {found.high:.{digits}f}")


def _group(group: Group | None) -> Cell:
    return _estimate(None if group is None else group.coverage)


def draw_ambiguity(runs: Sequence[Numbers], intents: Sequence[Intents]) -> dict[str, bytes]:
    """The figure as `png` and `svg`: a panel for each dataset and kind of run; one of the two has a run."""
    labels = dict.fromkeys([*(run.who.label for run in runs), *(run.who.label for run in intents)])
    styles = {label: number for number, label in enumerate(labels)}
    return draw_curves(
        [
            *(_coverage_panel(group, styles) for group in by_sets(runs)),
            *(_clicks_panel(group, styles) for group in by_sets(intents)),
        ]
    )


def _coverage_panel(runs: Sequence[Numbers], styles: Mapping[str, int]) -> Panel:
    curves = [
        Curve(
            run.who.label,
            f"{run.coverage:.3f}{' (no score)' if run.own is None else ''}",
            np.array([]) if run.own is None else run.own,
            styles[run.who.label],
            bound=run.oracle,
        )
        for run in runs
    ]
    notes = ("solid: the method's own score; dotted: an oracle",)
    return Panel(runs[0].who.title, tuple(curves), notes, "Candidates kept", "Coverage")


def _clicks_panel(runs: Sequence[Intents], styles: Mapping[str, int]) -> Panel:
    names = tuple(name for name in FAMILIES if any(name in run.groups for run in runs))
    curves = []
    for run in runs:
        found = [run.groups[name].noc[SOLVED] if name in run.groups else None for name in names]
        values, lows, highs = (
            np.array([np.nan if one is None else getattr(one, part) for one in found])
            for part in ("mean", "low", "high")
        )
        spread = np.maximum([values - lows, highs - values], 0.0)
        remark = f"{run.selection}, {run.groups['any'].noc[SOLVED].mean:.2f}"
        style, hollow = styles[run.who.label], run.selection == "score"
        curves.append(Curve(run.who.label, remark, values, style, spread=spread, hollow=hollow))
    notes = ("hollow: selection by score",)
    return Panel(runs[0].who.title, tuple(curves), notes, "What the first click means", f"NoC@{SOLVED}", names)
