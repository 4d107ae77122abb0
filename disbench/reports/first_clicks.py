"""The report's table of `--task first-clicks`: where people click first, beside the standard click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disbench.core.arrays import BoolArray, FloatArray
from disbench.core.errors import InputError
from disbench.core.metrics import spread
from disbench.core.statistics import bootstrap_interval
from disbench.harness.sample_loop import FIRST, StoredFirstClicks
from disbench.reports.entries import run_label
from disbench.reports.render.table import DASH, Cell, Column, Footnotes, Table, counted, plain

CAPTION = (
    "IoU after one click, each alone from the start: the protocol's standard click, and all recorded first clicks "
    "of a sample. The candidate of the highest score counts; best: that of the highest IoU. other@t: share of clicks "
    "where the candidate of the highest score has an IoU below t % and another one reaches it. Recorded clicks: mean "
    "over samples of the mean over a sample's clicks; ± and NSR: mean over samples of the population deviation over "
    "clicks, and of its quotient by the mean (where that is not 0). Difference: recorded less standard. In brackets: "
    "95 % bootstrap intervals over samples. Off target: recorded clicks beside the object, which count like the others."
)
PERCENTS = (75, 90)


@dataclass(frozen=True)
class FirstClickNumbers:
    """A run's numbers; arrays are float64 (samples,), of the standard click and of the means over recorded clicks.

    `others` has for each of `PERCENTS` the share of clicks where another candidate than the chosen one reaches it.
    """

    label: str
    dataset: str
    command: str
    clicks: int
    off_target: int
    failed: int
    candidates: int
    standard: FloatArray
    recorded: FloatArray
    deviation: FloatArray
    nsr: FloatArray
    best: tuple[FloatArray, FloatArray]
    others: dict[int, tuple[FloatArray, FloatArray]]


def read_first_click_numbers(run: StoredFirstClicks) -> FirstClickNumbers:
    """The numbers of a run; a sample with a failure counts with an IoU of 0 at every click.

    Raises:
        InputError: a file that is damaged, or does not fit `run.json`.
    """
    table = run.rows()
    rows = table.select(["sample", "user", "iou", "on_target", "kept", "candidate_ious", "failure"]).to_pylist()
    samples: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        samples.setdefault(row["sample"], []).append(row)
    if len(samples) != run.record.result.samples or not samples:
        raise InputError(f"{run.folder / FIRST}: {len(samples)} samples, but run.json says otherwise; run it again")
    failed = {row["sample"] for row in rows if row["failure"] is not None}
    chosen = np.array([0.0 if row["sample"] in failed else row["iou"] for row in rows])
    best = np.array([0.0 if row["sample"] in failed else max(row["candidate_ious"]) for row in rows])
    is_real = np.array([row["user"] is not None for row in rows])
    ends = np.cumsum([len(own) for own in samples.values()])

    def both(values: FloatArray | BoolArray) -> tuple[FloatArray, FloatArray]:
        """Of each sample the standard click's value, and the mean of the recorded ones."""
        parts = np.split(values.astype(np.float64), ends[:-1])
        real = [part[1:] if len(part) > 1 else np.zeros(1) for part in parts]  # a failure may leave the first row alone
        return np.array([part[0] for part in parts]), np.array([part.mean() for part in real])

    spreads = [spread(part[1:]) for part in np.split(chosen, ends[:-1]) if len(part) > 1]
    standard, recorded = both(chosen)
    as_stored = chosen.astype(np.float32), best.astype(np.float32)
    dataset = run.record.dataset
    return FirstClickNumbers(
        label=run_label(run.record),
        dataset=plain(f"{dataset.name} ({dataset.content_hash[:8]})"),
        command=run.record.command,
        clicks=int(is_real.sum()),
        off_target=sum(not row["on_target"] for row in rows if row["user"] is not None),
        failed=len(failed),
        candidates=max(len(row["candidate_ious"]) for row in rows),
        standard=standard,
        recorded=recorded,
        deviation=np.array([float(one.deviation) for one in spreads]),
        nsr=np.array([float(one.nsr) for one in spreads if one.mean]),
        best=both(best),
        others={
            percent: both((as_stored[0] < np.float32(percent / 100)) & (as_stored[1] >= np.float32(percent / 100)))
            for percent in PERCENTS
        },
    )


def first_clicks_table(runs: Sequence[FirstClickNumbers]) -> Table:
    """A row for each run."""
    notes = Footnotes()
    names = ("IoU@1", "best", *(f"other@{percent}" for percent in PERCENTS))
    columns = (
        *(Column(name, number=False) for name in ("Dataset", "Method")),
        *(Column(name) for name in ("Samples", "Clicks", "Off target")),
        *(Column(name, "Standard click") for name in names),
        *(Column(name, "Recorded clicks") for name in (names[0], "±", "NSR", *names[1:])),
        Column("Difference"),
    )
    rows = []
    for run in runs:
        failure = (
            f"the method failed on {counted(run.failed, 'sample')}, or they cannot be read; they count with an IoU of 0"
        )
        rest = [run.best, *run.others.values()] if run.candidates > 1 else []
        missing = [Cell(DASH)] * (0 if rest else 1 + len(PERCENTS))
        rows.append(
            (
                Cell(run.dataset),
                Cell(run.label, notes.marks(failure if run.failed else "")),
                *(_count(count) for count in (len(run.standard), run.clicks, run.off_target)),
                _mean(run.standard),
                *(_mean(standard) for standard, _ in rest),
                *missing,
                _mean(run.recorded),
                *(Cell(f"{part.mean():.3f}" if len(part) else DASH) for part in (run.deviation, run.nsr)),
                *(_mean(recorded) for _, recorded in rest),
                *missing,
                _mean(run.recorded - run.standard, sign="+"),
            )
        )
    return Table("first-clicks", "First clicks of people", CAPTION, columns, tuple(rows), notes.by_mark())


def _count(count: int) -> Cell:
    return Cell(f"{count:,}", value=count)


def _mean(values: FloatArray, sign: str = "") -> Cell:
    mean, ends = float(values.mean()), bootstrap_interval(values)
    return Cell(
        f"{mean:{sign}.3f}", interval=", ".join(f"{end:{sign}.3f}" for end in ends), value=mean, ends=tuple(ends)
    )
