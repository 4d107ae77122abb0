"""Tables of ambiguity, and all of its numbers as rows for a CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from disbench.core.statistics import Estimate
from disbench.harness.measures import significant
from disbench.reports.ambiguity.numbers import FAMILIES, NOTHING, PERCENTS, Group, Intents, Numbers, Who
from disbench.reports.render.table import Cell, Column, Table
from disbench.reports.render.text import DASH

Run = TypeVar("Run", Numbers, Intents)
_INTERVALS = "In brackets: 95 % bootstrap intervals over images."
_METHOD = Column("Method", number=False)


def by_sets(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs on the same sets with the same first clicks together, in the order of their first."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.who.key, []).append(run)
    return list(groups.values())


def coverage_table(runs: Sequence[Numbers], number: int = 1) -> Table:
    """Coverage of runs on the same sets."""
    columns = (
        _METHOD,
        Column("Candidates"),
        Column("Coverage"),
        *(Column(f"{percent} %", "recall at IoU") for percent in runs[0].recall),
        Column("own score", "coverage by one"),
        Column("oracle", "coverage by one"),
        Column("own score", "coverage by three"),
        Column("oracle", "coverage by three"),
        Column("Failed"),
        Column("s/click"),
    )
    rows = tuple(
        (
            Cell(run.who.label),
            Cell(f"{run.candidates:.3g}"),
            _estimate(run.coverage),
            *(Cell(f"{found.mean:.3f}") for found in run.recall.values()),
            _estimate(run.top1),
            Cell(f"{run.oracle[0]:.3f}"),
            Cell(DASH if run.own is None else f"{run.own[min(2, len(run.own) - 1)]:.3f}"),
            Cell(f"{run.oracle[min(2, len(run.oracle) - 1)]:.3f}"),
            Cell(str(run.failed)),
            Cell(significant(run.seconds)),
        )
        for run in runs
    )
    first = runs[0]
    caption = (
        f"{first.sets:,} sets ({first.who.sets}) on {first.images:,} images, {first.clicks:,} first clicks "
        f"({first.who.asked}). Coverage: mean over a set's masks of the best candidate's IoU. {_INTERVALS}"
    )
    return Table(f"coverage-{number}", _title(first.who, "coverage"), caption, columns, rows, {})


def candidates_table(runs: Sequence[Numbers], number: int = 1) -> Table:
    """What the candidates are like, whether scores hold, and whether a moved click changes the answer."""
    columns = (
        _METHOD,
        Column("Redundancy"),
        Column("Waste"),
        Column("error", "calibration"),
        Column("all", "rank correlation"),
        Column("within a click", "rank correlation"),
        Column("own choice", "held when moved"),
        Column("best candidates", "held when moved"),
    )
    rows = tuple(
        (
            Cell(run.who.label),
            *(_estimate(found) for found in (run.redundancy, run.waste, run.calibration)),
            Cell(DASH if run.rank is None else f"{run.rank:.3f}"),
            *(_estimate(found) for found in (run.rank_within, run.held_top1, run.held_best)),
        )
        for run in runs
    )
    distances = sorted({run.who.moved for run in runs if run.who.moved})
    caption = (
        "Redundancy: mean IoU between candidates. Waste: share of candidates below an IoU of 0.5 with every mask. "
        "Calibration and rank correlation: the score against the IoU with the nearest mask. Held when moved: IoU of "
        f"the answers before and after{_by_pixels(distances)}. {_INTERVALS}"
    )
    return Table(f"candidates-{number}", _title(runs[0].who, "candidates and scores"), caption, columns, rows, {})


def groups_table(runs: Sequence[Numbers], number: int = 1) -> Table:
    """Coverage by relation and by size of set."""
    relations, sizes = runs[0].by_relation, runs[0].by_size
    columns = (
        _METHOD,
        *(Column(f"{name} ({group.count:,})", "coverage of masks") for name, group in relations.items()),
        *(Column(f"{size} ({group.count:,})", "coverage of sets of so many masks") for size, group in sizes.items()),
    )
    rows = tuple(
        (
            Cell(run.who.label),
            *(_group(run.by_relation.get(name)) for name in relations),
            *(_group(run.by_size.get(size)) for size in sizes),
        )
        for run in runs
    )
    caption = f"What a mask is to the clicked object; in parentheses how many. {_INTERVALS}"
    return Table(f"groups-{number}", _title(runs[0].who, "by relation and size"), caption, columns, rows, {})


def meant_table(runs: Sequence[Numbers], number: int = 1) -> Table | None:
    """Which member the chosen candidate means; None where no set has two masks, or no method chooses."""
    chosen = [run for run in runs if run.meant]
    if not chosen:
        return None
    names = [name for name in (*FAMILIES, NOTHING) if any(name in run.meant for run in chosen)]
    columns = (_METHOD, *(Column(name) for name in names))
    rows = tuple(
        (Cell(run.who.label), *(Cell(f"{100 * run.meant.get(name, 0.0):.0f} %") for name in names)) for run in chosen
    )
    caption = (
        "In sets of two masks or more: share of clicks at which the candidate that the method itself chooses is "
        "nearest to the mask of this relation, with an IoU of 0.5 or more."
    )
    return Table(f"meant-{number}", _title(chosen[0].who, "what one answer means"), caption, columns, rows, {})


def intents_table(runs: Sequence[Intents], number: int = 1) -> Table:
    """Clicks to be understood, for each relation of the meant mask to the clicked object."""
    columns = (
        _METHOD,
        Column("Selection", number=False),
        Column("Meant", number=False),
        Column("Targets"),
        *(Column(f"NoC@{percent}") for percent in PERCENTS),
        Column("1", "IoU after click"),
        Column("2", "IoU after click"),
    )
    rows = tuple(
        (
            Cell(run.who.label),
            Cell(run.selection),
            Cell(name),
            Cell(f"{intent.count:,}"),
            *(_estimate(intent.noc[percent], 2) for percent in PERCENTS),
            _estimate(intent.first),
            _estimate(intent.second),
        )
        for run in runs
        for name, intent in {"any": run.all, **run.by_relation}.items()
    )
    caption = (
        "The same first click, each mask of its set in turn as the target. The second click is the first that says "
        f"which is meant. Asked with {runs[0].who.asked}. {_INTERVALS}"
    )
    return Table(f"intents-{number}", _title(runs[0].who, "clicks to be understood"), caption, columns, rows, {})


def overview(runs: Sequence[Numbers]) -> Table:
    """A row a run, of all sets: for a page that has other tables too."""
    columns = (
        Column("Sets", number=False),
        _METHOD,
        Column("Candidates"),
        Column("Coverage"),
        Column("Recall at 0.75"),
        Column("Coverage by its own choice"),
        Column("Redundancy"),
        Column("Waste"),
        Column("Held when moved"),
    )
    rows = tuple(
        (
            Cell(f"{run.who.dataset} ({run.who.content_hash[:8]}), {run.sets:,}"),
            Cell(run.who.label),
            Cell(f"{run.candidates:.3g}"),
            _estimate(run.coverage),
            _estimate(run.recall.get(75)),
            *(_estimate(found) for found in (run.top1, run.redundancy, run.waste, run.held_top1)),
        )
        for group in by_sets(runs)
        for run in group
    )
    caption = (
        "How far a method's candidates for one click cover all that it may mean: mean over a set's masks of the best "
        f"candidate's IoU. {_INTERVALS} Rows of different sets, or with other first clicks, cannot be compared."
    )
    return Table("ambiguity", "Ambiguity of the first click", caption, columns, rows, {})


def csv_rows(runs: Sequence[Numbers], intents: Sequence[Intents]) -> list[dict[str, Any]]:
    """Every number, unrounded: one row a measure and group."""
    found = [_row(run.who, "", *row) for run in runs for row in _measures(run)]
    return found + [_row(run.who, run.selection, *row) for run in intents for row in _intent_measures(run)]


_Measure = tuple[str, str, int, float | None, float | None, float | None]


def _row(
    who: Who, selection: str, measure: str, group: str, count: int, value: Any, low: Any, high: Any
) -> dict[str, Any]:
    return {
        "run": who.folder.name,
        "label": who.label,
        "dataset": who.dataset,
        "content_hash": who.content_hash,
        "selection": selection,
        "measure": measure,
        "group": group,
        "count": count,
        "value": value,
        "low": low,
        "high": high,
    }


def _measures(run: Numbers) -> Iterator[_Measure]:
    whole: Mapping[str, Estimate | None] = {
        "coverage": run.coverage,
        **{f"recall_{percent}": found for percent, found in run.recall.items()},
        "coverage_own_choice": run.top1,
        "redundancy": run.redundancy,
        "waste": run.waste,
        "calibration_error": run.calibration,
        "rank_correlation_within": run.rank_within,
        "held_own_choice": run.held_top1,
        "held_best": run.held_best,
    }
    for name, found in whole.items():
        yield _measure(name, "", run.clicks, found)
    yield "rank_correlation", "", run.clicks, run.rank, None, None
    yield "candidates", "", run.clicks, run.candidates, None, None
    yield "failed", "", run.sets, run.failed, None, None
    yield "model_seconds", "", run.clicks, run.seconds, None, None
    for kind, groups in (("relation", run.by_relation), ("size", run.by_size)):
        for name, group in groups.items():
            yield _measure(f"coverage_by_{kind}", name, group.count, group.coverage)
            for percent, share in group.recall.items():
                yield f"recall_{percent}_by_{kind}", name, group.count, share, None, None
    for name, share in run.meant.items():
        yield "own_choice_means", name, run.clicks, share, None, None
    for name, curve in (("coverage_own_order", run.own), ("coverage_oracle", run.oracle)):
        for kept, value in enumerate(() if curve is None else curve, start=1):
            yield name, str(kept), run.clicks, float(value), None, None


def _intent_measures(run: Intents) -> Iterator[_Measure]:
    for name, intent in {"any": run.all, **run.by_relation}.items():
        for percent, found in intent.noc.items():
            yield _measure(f"noc_{percent}", name, intent.count, found)
        yield _measure("iou_1", name, intent.count, intent.first)
        yield _measure("iou_2", name, intent.count, intent.second)


def _measure(name: str, group: str, count: int, found: Estimate | None) -> _Measure:
    if found is None:
        return name, group, count, None, None, None
    return name, group, count, found.mean, found.low, found.high


def _estimate(found: Estimate | None, digits: int = 3) -> Cell:
    if found is None:
        return Cell(DASH)
    return Cell(f"{found.mean:.{digits}f}", interval=f"{found.low:.{digits}f}, {found.high:.{digits}f}")


def _group(group: Group | None) -> Cell:
    return _estimate(None if group is None else group.coverage)


def _by_pixels(distances: Sequence[int]) -> str:
    if not distances:
        return ""
    several = " (the list of runs says which by how many)" if len(distances) > 1 else ""
    return f" a click is moved by {' or '.join(map(str, distances))} pixels{several}"


def _title(who: Who, what: str) -> str:
    return f"{who.dataset} ({who.content_hash[:8]}): {what}"
