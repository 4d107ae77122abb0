"""Report on ambiguity: tables, figure, CSV and page from stored runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from disbench.core.errors import InputError
from disbench.harness.measures import SOLVED, significant
from disbench.io.files import write_files
from disbench.reports.ambiguity.intents import ANSWERED, BINS, PERCENTS, WITHIN, read_intents
from disbench.reports.ambiguity.numbers import FAMILIES, NOTHING, RECALLS, Number, Numbers, read_numbers
from disbench.reports.ambiguity.pictures import PictureOptions, draw_intents, draw_pictures
from disbench.reports.curves import Curve, Panel, draw_curves
from disbench.reports.entries import alike, split_runs
from disbench.reports.render import DASH, Cell, Column, Table, counted, csv_text, latex, markdown, number_cell

Run = TypeVar("Run")
FIGURE = "Coverage against candidates kept; clicks to reach the intended mask"
_INTERVALS = "In brackets: 95 % bootstrap intervals over images."


@dataclass(frozen=True)
class _Metric:
    """A column of numbers.

    Attributes:
        group: group of the measure.
        above: heading of a group of columns.
        text: formats a number.
        kept: number of candidates kept, for coverage curves; a run with fewer keeps all.
        absent: text for a run without the number.
    """

    heading: str
    measure: str
    group: str = ""
    above: str = ""
    text: Callable[[float], str] = "{:.3f}".format
    interval: bool = True
    kept: int = 0
    absent: str = DASH

    def cell(self, run: Numbers, group: str = "", ending: str = "") -> Cell:
        """The number of a run or of one of its groups; `ending` is appended to the measure's name."""
        found = run.of(self.measure + ending)
        number = found.get(str(min(self.kept, len(found))) if self.kept else self.group or group)
        if number is None or number.value is None:
            return Cell(self.absent)
        bounded = self.interval and number.low is not None and number.high is not None
        ends = [end for end in (number.low, number.high) if end is not None] if bounded else ()
        return number_cell(number.value, self.text, ends)


_CLICKS = "{:.2f}".format
_SAME_CLICK = (
    "The same first click, with each mask of its set in turn as the target. The second click is the first to indicate "
    "which mask is meant."
)
_SIZE = "Area of the mask relative to the outermost mask of its set: at least the first number, below the second."
_KINDS = (
    ("", "clicks to reach the intended mask", "Intent", _SAME_CLICK),
    ("_by_level", "by place in the set", "Place", "Place of the mask in its set, innermost first."),
    ("_by_relative_size", "by relative size", "Size", _SIZE),
    ("_by_part", "by part", "Part", "The clicked part itself, by name; the most frequent names."),
)
"""Tables of the intents task: suffix of the measures, title, heading of the groups, caption."""
_Row = tuple[tuple[str, ...], Numbers, str, str]
"""A row: labels, run, group, suffix of the measures."""
_METHOD, _RIGHT = ("Method", "Selection"), ("Targets", "Pairs", "IoU")
"""Headings of row labels; those in `_RIGHT` are numbers."""
_CANDIDATES = _Metric("Candidates", "candidates", text="{:.3g}".format)


def by_sets(runs: Sequence[Numbers]) -> list[list[Numbers]]:
    """Group runs by `Who.key`, in order of first occurrence."""
    return list(alike(runs, lambda run: run.who.key).values())


def tables_of(numbers: Sequence[Numbers], intents: Sequence[Numbers]) -> list[Table]:
    """All tables, dataset by dataset."""
    found = []
    for place, group in enumerate(by_sets(numbers), start=1):
        chosen = [run for run in group if run.of("own_choice_means")]
        for name, words, runs, make in (
            ("coverage", "coverage", group, _coverage),
            ("candidates", "candidates and scores", group, _candidates),
            ("groups", "by relation and size", group, _groups),
            ("meant", "what one answer means", chosen, _meant),
        ):
            if runs:
                rows = [((run.who.label,), run, "", "") for run in runs]
                title = f"{group[0].who.title}: {words}"
                found.append(_table(f"{name}-{place}", title, *make(runs), ("Method",), rows))
    for place, group in enumerate(by_sets(intents), start=1):
        kinds = [kind for kind in _KINDS if any(run.of(f"iou_1{kind[0]}") for run in group)]
        found += [_intents_table(group, place, *kind) for kind in kinds]
        found += [_whole_sets_table(group, place), *_containment_table(group, place)]
    return found


def overview(runs: Sequence[Numbers]) -> Table:
    """One row per run, over all sets."""
    shown = (
        _CANDIDATES,
        _Metric("Coverage", "coverage"),
        _Metric("Recall at 0.75", "recall_75"),
        _Metric("Coverage by its own choice", "coverage_own_choice"),
        _Metric("Redundancy", "redundancy"),
        _Metric("Waste", "waste"),
        _Metric("Held when moved", "held_own_choice"),
    )
    caption = (
        "Coverage: mean over a set's masks of the best candidate's IoU. "
        f"{_INTERVALS} Rows on different sets or first clicks are not comparable."
    )
    rows = [
        ((f"{run.who.title}, {run.sets:,}", run.who.label), run, "", "") for group in by_sets(runs) for run in group
    ]
    return _table("ambiguity", "Ambiguity of the first click", caption, shown, ("Sets", "Method"), rows)


def _table(
    name: str, title: str, caption: str, shown: Sequence[_Metric], labels: Sequence[str], rows: Sequence[_Row]
) -> Table:
    """A table; `labels` are the headings of the row labels."""
    cells = tuple(
        (*map(Cell, texts), *(column.cell(run, group, ending) for column in shown))
        for texts, run, group, ending in rows
    )
    columns = [Column(label, number=label in _RIGHT) for label in labels]
    columns += [Column(column.heading, column.above) for column in shown]
    return Table(name, title, caption, tuple(columns), cells, {})


def _coverage(runs: Sequence[Numbers]) -> tuple[str, Sequence[_Metric]]:
    first = runs[0]
    caption = (
        f"{first.sets:,} sets ({first.who.sets}) on {first.images:,} images, {first.clicks:,} first clicks "
        f"({first.who.asked}). Coverage: mean over a set's masks of the best candidate's IoU. {_INTERVALS}"
    )
    return caption, (
        _CANDIDATES,
        _Metric("Coverage", "coverage"),
        *(_Metric(f"{percent} %", f"recall_{percent}", above="recall at IoU", interval=False) for percent in RECALLS),
        _Metric("own score", "coverage_own_choice", above="coverage by one"),
        _Metric("oracle", "coverage_oracle", above="coverage by one", kept=1),
        _Metric("own score", "coverage_own_order", above="coverage by three", kept=3),
        _Metric("oracle", "coverage_oracle", above="coverage by three", kept=3),
        _Metric("Failed", "failed", text="{:.0f}".format),
        _Metric("s/click", "model_seconds", text=significant),
    )


def _candidates(runs: Sequence[Numbers]) -> tuple[str, Sequence[_Metric]]:
    distances = sorted({run.who.moved for run in runs if run.who.moved})
    several = " (see the list of runs)" if len(distances) > 1 else ""
    moved = f" a click is moved by {' or '.join(map(str, distances))} pixels{several}" if distances else ""
    caption = (
        "Redundancy: mean IoU between candidates. Waste: share of candidates below an IoU of 0.5 with every mask. "
        "Calibration and rank correlation: score against IoU with the nearest mask. Held when moved: IoU of "
        f"predictions before and after{moved}. {_INTERVALS}"
    )
    return caption, (
        _Metric("Redundancy", "redundancy"),
        _Metric("Waste", "waste"),
        _Metric("error", "calibration_error", above="calibration"),
        _Metric("all", "rank_correlation", above="rank correlation"),
        _Metric("within a click", "rank_correlation_within", above="rank correlation"),
        _Metric("own choice", "held_own_choice", above="held when moved"),
        _Metric("best candidates", "held_best", above="held when moved"),
    )


def _groups(runs: Sequence[Numbers]) -> tuple[str, Sequence[_Metric]]:
    kinds = {"coverage_by_relation": "coverage of masks", "coverage_by_size": "coverage of sets by number of masks"}
    shown = [
        _Metric(f"{name} ({number.count:,})", measure, name, above)
        for measure, above in kinds.items()
        for name, number in runs[0].of(measure).items()
    ]
    return f"Relation of the mask to the clicked object; number of masks in parentheses. {_INTERVALS}", shown


def _meant(runs: Sequence[Numbers]) -> tuple[str, Sequence[_Metric]]:
    caption = (
        "In sets of at least two masks: share of clicks for which the method's own choice is nearest to the mask of "
        "this relation, with an IoU of at least 0.5."
    )
    names = [name for name in (*FAMILIES, NOTHING) if any(name in run.of("own_choice_means") for run in runs)]
    return caption, [_Metric(name, "own_choice_means", name, text=_percent, absent=_percent(0)) for name in names]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _intents_table(runs: Sequence[Numbers], place: int, kind: str, title: str, heading: str, caption: str) -> Table:
    shown = (
        *(_Metric(f"NoC@{percent}", f"noc_{percent}{kind}", text=_CLICKS) for percent in PERCENTS),
        _Metric("1", f"iou_1{kind}", above="IoU after click"),
        _Metric("2", f"iou_2{kind}", above="IoU after click"),
    )
    text = f"{caption} Asked with {runs[0].who.asked}. {_INTERVALS}"
    name = f"intents{kind.replace('_', '-')}-{place}"
    rows = _grouped(runs, f"iou_1{kind}")
    return _table(name, f"{runs[0].who.title}: {title}", text, shown, (*_METHOD, heading, "Targets"), rows)


def _grouped(runs: Sequence[Numbers], measure: str) -> list[_Row]:
    """One row per run and group of a measure, with the group's count."""
    return [
        ((run.who.label, run.selection, group, f"{number.count:,}"), run, group, "")
        for run in runs
        for group, number in run.of(measure).items()
    ]


def _whole_sets_table(runs: Sequence[Numbers], place: int) -> Table:
    shown = [
        *(_Metric(str(clicks), "all_within", str(clicks), "all found within clicks", _percent) for clicks in WITHIN),
        _Metric("Gap", "gap", text=_CLICKS),
    ]
    caption = (
        "Share of sets in which every mask reaches the IoU within this many clicks. Gap of granularity: the largest "
        f"minus the smallest mean NoC over places in a set. {_INTERVALS}"
    )
    rows = [
        ((run.who.label, run.selection, f"{percent} %"), run, "", f"_{percent}") for run in runs for percent in PERCENTS
    ]
    title = f"{runs[0].who.title}: all intents"
    return _table(f"whole-sets-{place}", title, caption, shown, (*_METHOD, "IoU"), rows)


def _containment_table(runs: Sequence[Numbers], place: int) -> list[Table]:
    """The table, or nothing if no set has two masks."""
    if not any(number.count for run in runs for number in run.of("gap_85").values()):
        return []
    found = {"IoU": "_iou", "containment": "", "relative to truth": "_of_truth"}
    shown = [_Metric("ground truth", "containment_truth", interval=False)]
    for name in ANSWERED:
        above = f"after the {name} click"
        shown += [_Metric(heading, f"containment_{name}{ending}", above=above) for heading, ending in found.items()]
    without = ", ".join(run.who.label for run in runs if not run.of("containment_truth"))
    caption = (
        "Share of a mask's prediction inside the prediction for the next mask of its set; the ground truth's share; "
        "and their quotient, at most 1. A method that predicts the same mask for all targets has a containment of 1, "
        f"so the mean IoU of both predictions is given too. {_INTERVALS}"
        + (f" Not measured without masks: {without}; run with --store kept." if without else "")
    )
    title, rows = f"{runs[0].who.title}: containment of predictions", _grouped(runs, "containment_truth")
    return [_table(f"containment-{place}", title, caption, shown, (*_METHOD, "Masks", "Pairs"), rows)]


def csv_rows(runs: Sequence[Numbers]) -> list[dict[str, Any]]:
    """Every number, unrounded: one row per run, measure and group."""
    return [
        {
            "run": run.who.folder.name,
            "label": run.who.label,
            "dataset": run.who.dataset,
            "content_hash": run.who.content_hash,
            "selection": run.selection,
            "measure": measure,
            "group": group,
            **vars(number),
        }
        for run in runs
        for (measure, group), number in run.values.items()
    ]


def draw_ambiguity(numbers: Sequence[Numbers], intents: Sequence[Numbers]) -> dict[str, bytes]:
    """Draw the figure as `png` and `svg`, with panels for each dataset and task."""
    labels = dict.fromkeys(run.who.label for run in (*numbers, *intents))
    styles = {label: number for number, label in enumerate(labels)}
    coverage = [_coverage_panel(group, styles) for group in by_sets(numbers)]
    by_relation = ("", FAMILIES, "What the first click means")
    by_size = ("_by_relative_size", BINS, "Relative size")
    wanted = (("noc_90", *by_relation), ("noc_90", *by_size), ("iou_1", *by_size))
    clicks = [_groups_panel(group, styles, *panel) for group in by_sets(intents) for panel in wanted]
    return draw_curves([*coverage, *clicks])


def _coverage_panel(runs: Sequence[Numbers], styles: Mapping[str, int]) -> Panel:
    curves = []
    for run in runs:
        own, oracle = run.curve("coverage_own_order"), run.curve("coverage_oracle")
        remark = f"{run.value('coverage'):.3f}{'' if len(own) else ' (no score)'}"
        curves.append(Curve(run.who.label, remark, own, styles[run.who.label], bound=oracle))
    notes = ("solid: the method's own score; dotted: an oracle",)
    return Panel(runs[0].who.title, tuple(curves), notes, "Candidates kept", "Coverage")


def _groups_panel(
    runs: Sequence[Numbers], styles: Mapping[str, int], measure: str, kind: str, order: Sequence[str], x_label: str
) -> Panel:
    text, y_label = (_CLICKS, f"NoC@{SOLVED}") if measure.startswith("noc") else ("{:.3f}".format, "IoU after click 1")
    groups = [run.of(f"{measure}{kind}") for run in runs]
    names = tuple(name for name in order if any(name in own for own in groups))
    curves = []
    for run, own in zip(runs, groups, strict=True):
        found = [own.get(name, Number(0, None)) for name in names]
        values, lows, highs = np.array([(one.value, one.low, one.high) for one in found], dtype=np.float64).T
        spread = np.maximum([values - lows, highs - values], 0.0)
        remark = f"{run.selection}, {text(run.value(measure, 'any'))}"
        style, hollow = styles[run.who.label], run.selection == "score"
        curves.append(Curve(run.who.label, remark, values, style, spread=spread, hollow=hollow))
    notes = ("hollow: selection by score",)
    return Panel(runs[0].who.title, tuple(curves), notes, x_label, y_label, names)


PAGE, NUMBERS, TABLES = "ambiguity.md", "ambiguity.csv", "tables.tex"
PNG, SVG = "ambiguity.png", "ambiguity.svg"
SHEET = "Clicks, the masks that they may mean, and what methods answer"


def make_ambiguity_report(folders: Sequence[Path], out: Path, pictures: PictureOptions | None = None) -> list[str]:
    """Write a report with tables, a figure and pictures from stored runs; the same runs give the same bytes.

    Args:
        folders: runs of the diverse or intents task, or folders that contain them; other runs are ignored.
        out: created if missing; files of an earlier report are replaced.
        pictures: shards and images of the runs; without shards no pictures are drawn.

    Returns:
        Lines for the terminal about each file and run.

    Raises:
        InputError: no such run, an unfinished or damaged run, or shards or images that differ from those of the runs.
    """
    targets, answers, _ = split_runs(folders)
    numbers = [read_numbers(run) for run in answers]
    on_sets = [run for run in targets if run.record.dataset.has_sets]
    intents = [read_intents(run) for run in on_sets]
    if not numbers and not intents:
        raise InputError(
            f"{', '.join(map(str, folders))}: no run of --task diverse or --task intents; make one with disbench run"
        )
    wanted, sheets = pictures or PictureOptions(), {}
    for place, group in enumerate(_with_runs(numbers, answers), start=1):
        sheets[f"pictures-{place}.png"] = draw_pictures(group, wanted)
    for place, sets in enumerate(_with_runs(intents, on_sets), start=1):
        sheets[f"pictures-intents-{place}.png"] = draw_intents(sets, wanted)
    drawn = {name: sheet for name, sheet in sheets.items() if sheet is not None}
    tables, figure = tables_of(numbers, intents), draw_ambiguity(numbers, intents)
    text = markdown.render(
        "ambiguity.md.jinja",
        tables=tables,
        figure=FIGURE,
        sheet=SHEET,
        runs=[run.who for run in (*numbers, *intents)],
        pictures=list(drawn),
        **{"png": PNG, "svg": SVG, "numbers": NUMBERS, "latex": TABLES},
    )
    contents: dict[str, bytes | None] = {
        PAGE: text.encode(),
        NUMBERS: csv_text(csv_rows([*numbers, *intents])).encode(),
        TABLES: latex.document({table.name: table for table in tables}).encode(),
        PNG: figure["png"],
        SVG: figure["svg"],
        **{path.name: None for path in out.glob("pictures-*.png")},
        **drawn,
    }
    write_files(contents, out)
    return _lines(numbers, intents, drawn, out)


def _with_runs(numbers: Sequence[Numbers], runs: Sequence[Run]) -> list[list[tuple[Numbers, Run]]]:
    """The groups of `by_sets`, paired with their runs."""
    return list(alike(list(zip(numbers, runs, strict=True)), lambda pair: pair[0].who.key).values())


def _lines(numbers: Sequence[Numbers], intents: Sequence[Numbers], sheets: Mapping[str, bytes], out: Path) -> list[str]:
    lines = [f"{out / PAGE}: {counted(len(numbers) + len(intents), 'run')}"]
    for run in numbers:
        own = run.value("coverage_own_choice")
        chosen = "no choice of its own" if math.isnan(own) else f"by its own choice alone {own:.3f}"
        lines.append(f"  {run.who.label} on {run.who.dataset}: coverage {run.value('coverage'):.3f}, {chosen}")
    for one in intents:
        noc = one.value("noc_90", "any")
        lines.append(f"  {one.who.label} ({one.selection}) on {one.who.dataset}: NoC@90 {noc:.2f}")
    return [*lines, *(f"{out / name}: pictures" for name in (PNG, *sheets))]
