"""The numbers of one stored run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from disbench.core.arrays import FloatArray
from disbench.core.errors import InputError
from disbench.core.metrics import IoUs, bootstrap_interval, clicks_to_reach, miou_curve, nof
from disbench.harness import figures
from disbench.harness.store import CLICKS, SECONDS, StoredRun

PERCENTS = figures.PERCENTS
"""The IoUs to reach."""
SOLVED = 90
"""A sample that never reaches this IoU is never solved."""
AT_CLICKS = (1, 3, 5, 20)
"""The clicks after which tables print mean IoUs."""
_COLUMNS = ("sample", "click", "failure", "iou", "boundary_iou", "model_seconds", "harness_seconds")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over samples, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Fails:
    """NoF by both rules: NoC equals the cap (`ritm`), never reached (`strict`)."""

    ritm: int
    strict: int


@dataclass(frozen=True, slots=True)
class Seconds:
    """Mean seconds a click: of all, of the first ones, of those after; None where there are none."""

    every: float
    first: float | None
    later: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample on which the method failed, and why."""

    sample: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """The numbers of one run.

    Attributes:
        samples: how many were run.
        clicks: how many rows.
        failures: samples on which the method failed; from that click on they count with an IoU of 0.
        undefined: samples with an IoU that is not a number (an empty union); it reaches nothing.
        noc: percent -> NoC; where samples end early, only up to the IoU that ends them.
        nof: percent -> NoF, likewise.
        miou: (max_clicks,) mean IoU after each click, nan where a sample has none; None if samples end early.
        boundary: the same of the boundary IoU.
        model: of the method; opening the image belongs to the first click.
        harness: of everything else.
        at_budget: IoU of a run whose method gets a fixed budget of points, and neither NoC, NoF nor curves; None for
            a loop of clicks.
        boundary_at_budget: the same of the boundary IoU.
        ran_out: samples whose recorded clicks ended before the protocol's last, their last mask standing from there on.
    """

    samples: int
    clicks: int
    failures: tuple[Failure, ...]
    undefined: tuple[str, ...]
    noc: Mapping[int, Estimate]
    nof: Mapping[int, Fails]
    miou: FloatArray | None
    boundary: FloatArray | None
    model: Seconds
    harness: Seconds
    at_budget: Estimate | None = None
    boundary_at_budget: Estimate | None = None
    ran_out: int = 0

    @property
    def never_solved(self) -> float | None:
        """Share of the samples that never reach an IoU of 0.90; None if samples end before."""
        return self.nof[SOLVED].strict / self.samples if SOLVED in self.nof else None


def summarise(run: StoredRun) -> Summary:
    """The numbers of a stored run.

    Raises:
        InputError: the rows are damaged, or not those that `run.json` describes.
    """
    max_clicks, stop_at = run.protocol.max_clicks, run.protocol.stop_at
    budget = run.protocol.budget
    looped = stop_at is None and not budget
    rows = run.rows(_COLUMNS)
    _check_numbers(run, rows)
    by_sample = run.by_sample("iou")
    ious = _stacked(by_sample)
    _check_count(run, len(ious))
    numbers = rows["click"].to_numpy()
    failed = rows.filter(rows["failure"].is_valid())
    reached = figures.reached_percents(stop_at, budget)
    try:
        return Summary(
            samples=len(ious),
            clicks=len(numbers),
            failures=tuple(map(Failure, failed["sample"].to_pylist(), failed["failure"].to_pylist())),
            undefined=tuple(name for name, bad in zip(by_sample, _has_nan(ious), strict=True) if bad),
            noc={percent: _noc(ious, percent, max_clicks) for percent in reached},
            nof={percent: _nof(ious, percent, max_clicks) for percent in reached},
            miou=miou_curve(ious, max_clicks) if looped else None,
            boundary=miou_curve(_boundary(run), max_clicks) if looped else None,
            model=_seconds(rows["model_seconds"].to_numpy(), numbers),
            harness=_seconds(rows["harness_seconds"].to_numpy(), numbers),
            ran_out=_ran_out(rows, max_clicks) if run.replayed else 0,
            at_budget=_at_budget(ious) if budget else None,
            boundary_at_budget=_at_budget(_boundary(run)) if budget else None,
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{run.place(CLICKS)}: {error}; run it again with --existing overwrite") from error


def _check_numbers(run: StoredRun, rows: pa.Table) -> None:
    """IoUs are from 0 to 1 or not a number, seconds are finite and not negative."""
    for name in ("iou", "boundary_iou", *SECONDS):
        values = rows[name].to_numpy()
        bad = (values < 0) | (values > (np.finfo(np.float64).max if name in SECONDS else 1))
        if bad.any() or (name in SECONDS and np.isnan(values).any()):
            raise InputError(f"{run.place(CLICKS)}: {name} has numbers that it cannot have; run it again")


def _check_count(run: StoredRun, samples: int) -> None:
    said = run.record.result.samples
    if samples != said:
        raise InputError(
            f"{run.place(CLICKS)}: {samples} samples, where run.json says {said}; run it again with "
            "--existing overwrite"
        )


def _at_budget(ious: IoUs) -> Estimate:
    values = np.array([row[0] for row in ious], dtype=np.float64)
    return Estimate(float(values.mean()), *bootstrap_interval(values))


def _noc(ious: IoUs, percent: int, max_clicks: int) -> Estimate:
    values = clicks_to_reach(ious, percent / 100, max_clicks)
    return Estimate(float(np.mean(values)), *bootstrap_interval(values))


def _nof(ious: IoUs, percent: int, max_clicks: int) -> Fails:
    ritm, strict = (nof(ious, percent / 100, max_clicks, rule) for rule in ("ritm", "strict"))
    return Fails(ritm, strict)


def _boundary(run: StoredRun) -> FloatArray | list[FloatArray]:
    return _stacked(run.by_sample("boundary_iou"))


def _ran_out(rows: pa.Table, max_clicks: int) -> int:
    """Samples with fewer clicks than they may have, and no failure."""
    names = rows["sample"].to_numpy()
    failed = set(rows.filter(rows["failure"].is_valid())["sample"].to_pylist())
    found, counts = np.unique(names, return_counts=True)
    return sum(int(count) < max_clicks for name, count in zip(found, counts, strict=True) if name not in failed)


def _stacked(by_sample: Mapping[str, FloatArray]) -> FloatArray | list[FloatArray]:
    """One array (samples, clicks) where all samples have as many clicks, which is far faster to measure."""
    rows = list(by_sample.values())
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else rows


def _has_nan(ious: FloatArray | list[FloatArray]) -> list[bool]:
    """Of each sample, whether one of its values is not a number."""
    if isinstance(ious, np.ndarray):
        return list(map(bool, np.any(np.isnan(ious), axis=1)))
    return [bool(np.isnan(row).any()) for row in ious]


def _seconds(values: FloatArray, clicks: npt.NDArray[np.int16]) -> Seconds:
    first = clicks == 1
    return Seconds(float(values.mean()), _mean(values[first]), _mean(values[~first]))


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) else None
