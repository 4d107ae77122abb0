"""Measures of a run, in one table used by all reports, comparisons and verification.

To add a measure, add an entry to `MEASURES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from disbench.core.arrays import BoolArray, Float32Array, FloatArray, IntArray
from disbench.core.click_policies import BUDGETS
from disbench.core.errors import InputError
from disbench.core.metrics import FailureRule, area_under_curve, clicks_to_reach, miou_curve, nof
from disbench.core.statistics import bootstrap_interval
from disbench.harness.record import UNREAD
from disbench.harness.store import CLICKS, SECONDS, StoredRun, damage_of, split_by_sample

PERCENTS = (80, 85, 90, 95)  # IoU thresholds of NoC and NoF
OVERVIEW = (85, 90)  # thresholds in the overview, as in the paper's Table 1
SOLVED = 90  # a sample that never reaches this IoU is never solved
AT_CLICKS = (1, 3, 5, 20)  # clicks after which mean IoUs are reported
SHORT = 20  # the usual cap; runs with more clicks also report NoC and NoF at it
ONLY_IOUS = "not available: the run was imported, with its IoUs alone"
NOT_A_NUMBER = "not available: the value of some sample is not a number"

Place = Literal["clicks", "quality", "overview", "leaderboard", "budgets", "comparison"]
"""Tables that show measures."""
Group = Literal["counts", "budget", "clicks", "failures", "iou", "boundary", "solved", "seconds"]
GROUPS: Sequence[Group] = ("counts", "budget", "clicks", "failures", "iou", "boundary", "solved", "seconds")
"""Groups in the order of a table's columns."""
BySample = Callable[["RunRows"], npt.NDArray[Any]]
ByClick = Float32Array | Sequence[Float32Array | FloatArray]
"""Values after each click: (samples, clicks), or one array per sample if their numbers of clicks differ."""


class UnavailableError(Exception):
    """A run does not have a measure; the message says why."""


@dataclass(frozen=True)
class RunRows:
    """Rows of a run as arrays, from which measures, curves and comparisons are computed.

    `max_clicks`, `stop_at` and `budget` are as in `Protocol`.

    Attributes:
        samples: ids, in the dataset's order.
        ious: IoU after each click; samples that ended early are padded to `max_clicks` (`StoredRun.by_sample`).
        clicks: number of rows.
        failures: id and reason of each sample on which the method failed, or that cannot be read.
        boundary_ious: like `ious`; () for an imported run.
        ran_out: number of samples whose recorded clicks ended before `max_clicks`.
        first: which rows are a sample's first click, (clicks,), without samples that cannot be read.
        seconds: column -> (clicks,), rows as for `first`; opening the image counts to click 1. {} for an imported run.
    """

    samples: Sequence[str]
    ious: ByClick
    clicks: int
    failures: Sequence[tuple[str, str]]
    max_clicks: int
    stop_at: float | None = None
    budget: str = ""
    boundary_ious: ByClick = ()
    ran_out: int = 0
    first: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    seconds: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def without_curves(self) -> str:
        """Why the mean IoU after each click is not available; "" if it is."""
        if self.budget:
            points = BUDGETS[self.budget].title if self.budget in BUDGETS else self.budget
            return f"not available: the method gets {points} and answers once"
        if self.stop_at is not None:
            return f"not available: samples of this run end at an IoU of {self.stop_at:g}"
        return ""

    def reaches(self, percent: int) -> bool:
        """True if samples are not stopped before this IoU (compared as float32, like results)."""
        return not self.budget and (self.stop_at is None or bool(np.float32(percent / 100) <= np.float32(self.stop_at)))

    @cached_property
    def miou(self) -> FloatArray | None:
        """Mean IoU after each click, (max_clicks,), nan if a sample's is; None if samples end early."""
        return None if self.without_curves else miou_curve(self.ious, self.max_clicks)

    @cached_property
    def boundary_miou(self) -> FloatArray | None:
        """Like `miou`, for the boundary IoU."""
        missing = self.without_curves or not len(self.boundary_ious)
        return None if missing else miou_curve(self.boundary_ious, self.max_clicks)

    @property
    def unread(self) -> list[str]:
        """Samples that cannot be read."""
        return [name for name, reason in self.failures if reason.startswith(UNREAD)]

    @cached_property
    def undefined(self) -> list[str]:
        """Samples with an IoU of nan (empty union), which reaches no threshold."""
        return [name for name, row in zip(self.samples, self.ious, strict=True) if np.isnan(row).any()]


@dataclass(frozen=True, slots=True)
class Value:
    """A measure of one run with its 95 % bootstrap interval, if any; or why it is missing."""

    number: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str = ""


@dataclass(frozen=True)
class Measure:
    """How a measure is computed from a run's rows, and how tables show it.

    Attributes:
        name: its column in `results.csv`.
        title: its name in text.
        group: measures of a group are adjacent in a table.
        of: computes it from a run; may raise `UnavailableError`.
        text: formats a number for tables.
        unit: clicks, samples, seconds, or "" for a ratio.
        better: which numbers are better; "" if runs are not ranked by it.
        headings: table that shows it -> heading of its column group ("" for none), heading of its column.
        by_sample: values (samples,), for comparisons and intervals; may raise `UnavailableError`.
        interval: True if reports give the 95 % bootstrap interval over samples.
        claim: path of keys to the number in a packed run's manifest; () if it is not there.
        in_csv: True if `results.csv` has it.
        optional: left out of tables if no run has it.
    """

    name: str
    title: str
    group: Group
    of: Callable[[RunRows], float]
    text: Callable[[float], str]
    unit: str = ""
    better: Literal["lower", "higher", ""] = ""
    headings: Mapping[Place, tuple[str, str]] = field(default_factory=dict)
    by_sample: BySample | None = None
    interval: bool = False
    claim: tuple[str, ...] = ()
    in_csv: bool = True
    optional: bool = False

    def value(self, rows: RunRows, *, interval: bool = True) -> Value:
        """Compute the measure for a run."""
        try:
            number = self.of(rows)
            if math.isnan(number):
                return Value(missing=NOT_A_NUMBER)
            if not interval or not self.interval or self.by_sample is None:
                return Value(number)
            return Value(number, *bootstrap_interval(self.by_sample(rows)))
        except UnavailableError as reason:
            return Value(missing=str(reason))


def measures_in(place: Place) -> list[Measure]:
    """Measures shown by a table, in the order of its columns."""
    shown = [measure for measure in MEASURES.values() if place in measure.headings]
    return sorted(shown, key=lambda measure: GROUPS.index(measure.group))


def read_rows(run: StoredRun) -> RunRows:
    """Read the rows of a stored run; InputError if the file is damaged, out of range, or does not match `run.json`."""
    place, protocol = run.place(CLICKS), run.protocol
    known = ("iou",) if run.record.imported else ("iou", "boundary_iou", *SECONDS)
    table = run.rows(("sample", "click", "failure", *known))
    _check_numbers(table, known, place)
    with damage_of(place):
        measured = [name for name in ("iou", "boundary_iou") if name in known]
        values = [split_by_sample(table, name, protocol.max_clicks, replayed=run.replayed) for name in measured]
    ious, *others = values
    if len(ious) != (said := run.record.result.samples) or not ious:
        raise InputError(f"{place}: {len(ious)} samples, where run.json says {said}; run it with --existing overwrite")
    failed = table.filter(table["failure"].is_valid())
    asked = table.filter(pc.fill_null(pc.invert(pc.starts_with(table["failure"], UNREAD)), True))
    failures = list(zip(failed["sample"].to_pylist(), failed["failure"].to_pylist(), strict=True))
    return RunRows(
        samples=list(ious),
        ious=_stacked(ious),
        clicks=len(table),
        failures=failures,
        max_clicks=protocol.max_clicks,
        stop_at=protocol.stop_at,
        budget=protocol.budget,
        boundary_ious=_stacked(others[0]) if others else (),
        ran_out=_ran_out(table, protocol.max_clicks) if run.replayed else 0,
        first=asked["click"].to_numpy() == 1,
        seconds={name: asked[name].to_numpy() for name in SECONDS if name in known},
    )


def measure_run(run: StoredRun, rows: RunRows) -> dict[str, Value]:
    """All measures of a stored run, by name; InputError for impossible rows, such as samples that end too early."""
    try:
        return {measure.name: measure.value(rows) for measure in MEASURES.values()}
    except ValueError as error:
        raise InputError(f"{run.place(CLICKS)}: {error}; run it again with --existing overwrite") from error


def claimed_values(rows: RunRows) -> dict[str, Value]:
    """Measures claimed by a packed run's manifest, by name, without intervals; ValueError as for `miou_curve`."""
    return {measure.name: measure.value(rows, interval=False) for measure in MEASURES.values() if measure.claim}


def as_claims(values: Mapping[str, Value]) -> dict[str, Any]:
    """Values of `claimed_values` in the form of the manifest."""
    claims: dict[str, Any] = {}
    for name, value in values.items():
        *tables, key = MEASURES[name].claim
        table = claims
        for part in tables:
            table = table.setdefault(part, {})
        if value.number is not None:
            table[key] = value.number
    return claims


def as_lines(values: Mapping[str, Value]) -> list[str]:
    """Values as text, one line per group."""
    lines: dict[Group, list[str]] = {}
    for name, value in values.items():
        if value.number is not None:
            measure = MEASURES[name]
            lines.setdefault(measure.group, []).append(f"{measure.title} {measure.text(value.number)}")
    return [", ".join(texts) for texts in lines.values()]


def significant(value: float) -> str:
    """Format with three significant digits, never with an exponent."""
    if value <= 0:
        return "0"
    return f"{value:.{max(0, min(6, 2 - math.floor(math.log10(value))))}f}"


def _check_numbers(table: pa.Table, names: Sequence[str], place: str) -> None:
    for name in names:
        values = table[name].to_numpy()
        timed = name in SECONDS
        bad = (values < 0) | (np.isinf(values) if timed else values > 1)
        if bad.any() or (timed and np.isnan(values).any()):
            raise InputError(f"{place}: {name} has invalid numbers; run it again")


def _ran_out(table: pa.Table, max_clicks: int) -> int:
    """Number of samples with fewer than `max_clicks` clicks and no failure."""
    names, counts = np.unique(table["sample"].to_numpy(), return_counts=True)
    failed = table.filter(table["failure"].is_valid())["sample"].to_pylist()
    return len(set(names[counts < max_clicks]).difference(failed))


def _stacked(by_sample: Mapping[str, FloatArray]) -> ByClick:
    """One array if all samples have the same number of clicks, which is far faster to measure."""
    rows = [row.astype(np.float32) for row in by_sample.values()]
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else rows


def _reaching(rows: RunRows, percent: int) -> RunRows:
    if not rows.reaches(percent):
        raise UnavailableError(rows.without_curves)
    return rows


def _clicks_to_reach(rows: RunRows, percent: int) -> IntArray:
    return clicks_to_reach(_reaching(rows, percent).ious, percent / 100, rows.max_clicks)


def _failing(rows: RunRows, percent: int, rule: FailureRule) -> int:
    return nof(_reaching(rows, percent).ious, percent / 100, rows.max_clicks, rule)


def _fails(rows: RunRows, percent: int, rule: FailureRule) -> IntArray:
    """1 for each sample that fails."""
    firsts = _reaching(rows, percent).ious
    return np.array([nof([ious], percent / 100, rows.max_clicks, rule) for ious in firsts])


def _on_curve(rows: RunRows, curve: str, click: int) -> float:
    values: FloatArray | None = getattr(rows, curve)
    if values is None:
        raise UnavailableError(rows.without_curves or ONLY_IOUS)
    if click > rows.max_clicks:
        clicks = "1 click" if rows.max_clicks == 1 else f"{rows.max_clicks:,} clicks"
        raise UnavailableError(f"not available: the run has {clicks} a sample")
    return float(values[click - 1])


def _ious_at(rows: RunRows, click: int) -> FloatArray:
    _on_curve(rows, "miou", click)
    return np.array([row[click - 1] for row in rows.ious], dtype=np.float64)


def _at_budget(rows: RunRows, column: str) -> FloatArray:
    if not rows.budget:
        raise UnavailableError("not available: the method answers click by click")
    return np.array([row[0] for row in getattr(rows, column)], dtype=np.float64)


def _areas(rows: RunRows, group: Group) -> FloatArray:
    curve, ious = ("miou", rows.ious) if group == "iou" else ("boundary_miou", rows.boundary_ious)
    _on_curve(rows, curve, 1)
    return area_under_curve(ious, rows.max_clicks)


def _mean_seconds(rows: RunRows, column: str, which: str) -> float:
    if column not in rows.seconds:
        raise UnavailableError(ONLY_IOUS)
    values = rows.seconds[column]
    if which != "all":
        values = values[rows.first == (which == "first")]
    if not len(values):
        raise UnavailableError(f"not available: the run has no {which} clicks")
    return float(values.mean())


_whole, _two, _three = "{:,}".format, "{:.2f}".format, "{:.3f}".format


def _mean(name: str, title: str, group: Group, by_sample: BySample, **more: Any) -> Measure:
    """Mean of per-sample values, higher is better, with an interval."""
    how = {"text": _three, "better": "higher", "interval": True, **more}
    return Measure(name, title, group, lambda rows: float(by_sample(rows).mean()), by_sample=by_sample, **how)


def _count(name: str, title: str, of: Callable[[RunRows], float], *claim: str) -> Measure:
    return Measure(name, title, "counts", of, _whole, "clicks" if name == "clicks" else "samples", claim=claim)


def _budget(name: str, title: str, column: str, **more: Any) -> Measure:
    of = partial(_at_budget, column=column)
    return _mean(name, f"mean {title}", "budget", of, headings={"budgets": ("", title)}, **more)


def _noc(percent: int) -> Measure:
    title, of = f"NoC@{percent}", partial(_clicks_to_reach, percent=percent)
    places = ["clicks", "leaderboard", "comparison", *(["overview"] if percent in OVERVIEW else [])]
    how = {"text": _two, "unit": "clicks", "better": "lower", "headings": dict.fromkeys(places, ("", title))}
    return _mean(f"noc_{percent}", title, "clicks", of, claim=("noc", str(percent)), **how)


def _nof(percent: int, rule: FailureRule) -> Measure:
    title = f"NoF@{percent} {rule}"
    headings: dict[Place, tuple[str, str]] = {"clicks": (f"NoF@{percent}", rule)} if percent >= SOLVED else {}
    return Measure(
        f"nof_{percent}_{rule}",
        title,
        "failures",
        partial(_failing, percent=percent, rule=rule),
        _whole,
        unit="samples",
        better="lower",
        headings={**headings, **({"leaderboard": ("", title)} if percent == SOLVED else {})},
        claim=(f"nof_{rule}", str(percent)),
        by_sample=partial(_fails, percent=percent, rule=rule),
    )


def _short(measure: Measure, percent: int, rule: FailureRule | None = None) -> Measure:
    """A measure restricted to the first `SHORT` clicks of a longer run."""

    def first_clicks(rows: RunRows) -> RunRows:
        if rows.max_clicks <= SHORT:
            raise UnavailableError(f"not available: the run has no more than {SHORT} clicks a sample")
        return replace(rows, max_clicks=SHORT)

    by_sample, title = measure.by_sample, measure.title.replace("@", f"{SHORT}@")
    return replace(
        measure,
        name=measure.name.replace("_", f"{SHORT}_", 1),
        title=title,
        of=lambda rows: measure.of(first_clicks(rows)),
        by_sample=None if by_sample is None else lambda rows: by_sample(first_clicks(rows)),
        headings={"clicks": (f"NoF{SHORT}@{percent}", rule) if rule else ("", title)},
        claim=(),
        optional=True,
    )


def _auc(name: str, title: str, group: Group, *places: Place) -> Measure:
    return _mean(name, title, group, partial(_areas, group=group), headings=dict.fromkeys(places, ("", title)))


def _iou(click: int) -> Measure:
    headings: dict[Place, tuple[str, str]] = {
        "quality": ("mean IoU at click", str(click)),
        "comparison": ("", f"IoU at click {click}"),
        **({"leaderboard": ("", "mIoU@1")} if click == 1 else {}),
    }
    name, title, by_sample = f"mean_iou_{click}", f"mIoU@{click}", partial(_ious_at, click=click)
    of = partial(_on_curve, curve="miou", click=click)
    return Measure(name, title, "iou", of, _three, better="higher", headings=headings, by_sample=by_sample)


def _boundary(click: int) -> Measure:
    headings: Mapping[Place, tuple[str, str]] = {"quality": ("boundary IoU at click", str(click))}
    name, title = f"mean_boundary_iou_{click}", f"boundary mIoU@{click}"
    of = partial(_on_curve, curve="boundary_miou", click=click)
    return Measure(name, title, "boundary", of, _three, better="higher", headings=headings)


def _seconds(whose: str, which: str, **headings: tuple[str, str]) -> Measure:
    name = f"{whose}_seconds{'' if which == 'all' else f'_{which}_click'}{'s' if which == 'later' else ''}"
    of = partial(_mean_seconds, column=f"{whose}_seconds", which=which)
    how: Any = {"unit": "seconds", "better": "lower", "headings": headings}
    return Measure(name, f"{whose} s/click, {which}", "seconds", of, significant, **how)


def _never_solved(rows: RunRows) -> float:
    return _failing(rows, SOLVED, "strict") / len(rows.samples)


_S = "method s/click"

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        _budget("iou_at_budget", "IoU at the budget", "ious", claim=("iou_at_budget",)),
        _budget("boundary_iou_at_budget", "boundary IoU", "boundary_ious", in_csv=False),
        _count("samples", "samples", lambda rows: len(rows.samples), "samples"),
        _count("clicks", "clicks", lambda rows: rows.clicks, "clicks"),
        _count("failed", "failed samples", lambda rows: len(rows.failures), "failed"),
        _count("not_a_number", "samples over an empty union", lambda rows: len(rows.undefined)),
        *(make for percent in PERCENTS for make in (_noc(percent), _nof(percent, "ritm"), _nof(percent, "strict"))),
        _short(_noc(SOLVED), SOLVED),
        *(_short(_nof(SOLVED, rule), SOLVED, rule) for rule in get_args(FailureRule)[::-1]),
        *map(_iou, AT_CLICKS),
        _auc("auc", "AuC", "iou", "quality", "leaderboard", "comparison"),
        *map(_boundary, AT_CLICKS),
        _auc("boundary_auc", "boundary AuC", "boundary", "quality", "leaderboard"),
        Measure(
            f"never_solved_{SOLVED}",
            "never solved",
            "solved",
            _never_solved,
            lambda share: f"{100 * share:.1f} %",
            better="lower",
            headings=dict.fromkeys(("quality", "leaderboard"), ("", "never solved")),
        ),
        _seconds("model", "all", quality=(_S, "all"), leaderboard=("", "s/click"), budgets=("", "method s")),
        _seconds("model", "first", quality=(_S, "first")),
        _seconds("model", "later", quality=(_S, "later")),
        _seconds("harness", "all", quality=("", "harness s/click")),
        _seconds("harness", "first"),
        _seconds("harness", "later"),
    )
}
"""Measures by name, in the order of the columns of `results.csv`."""
