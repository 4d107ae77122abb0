"""A run's measures against literal loops over its rows; one entry of the table is all that a new measure needs."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from disbench.core.errors import InputError
from disbench.core.statistics import bootstrap_interval
from disbench.harness.measures import MEASURES, PERCENTS, Measure, Place, RunRows, Value, measure_run, read_rows
from disbench.harness.store import StoredRun
from disbench.reports.comparison import compare_runs, comparison_lines
from disbench.reports.report import make_report
from tests.unit.run_tools import draw_ious, write_run


def measured(run: StoredRun) -> dict[str, Value]:
    return measure_run(run, read_rows(run))


def number(values: dict[str, Value], name: str) -> float:
    found = values[name].number
    assert found is not None
    return found


def first_click(row: list[float], percent: int) -> int | None:
    """By the protocol's text: the first click whose IoU, as float32, is at least the threshold as float32."""
    for click, value in enumerate(row, start=1):
        if np.float32(value) >= np.float32(percent / 100):
            return click
    return None


@pytest.mark.parametrize("cap", [1, 6, 20])
def test_noc_and_nof(tmp_path: Path, cap: int) -> None:
    ious = draw_ious(40, cap, seed=cap).tolist()
    ious[0] = [0.5] * (cap - 1) + [0.9]  # at the very last click
    found = measured(write_run(tmp_path / "run", ious, protocol={"max_clicks": cap}))
    for percent in PERCENTS:
        firsts = [first_click(row, percent) for row in ious]
        clicks = [cap if first is None else first for first in firsts]
        noc = found[f"noc_{percent}"]
        assert noc.number == pytest.approx(sum(clicks) / len(clicks), rel=1e-12)
        assert (noc.low, noc.high) == bootstrap_interval(clicks)
        assert found[f"nof_{percent}_strict"].number == firsts.count(None)
        assert found[f"nof_{percent}_ritm"].number == clicks.count(cap)
    assert number(found, "nof_90_ritm") > number(found, "nof_90_strict")
    assert number(found, "never_solved_90") == number(found, "nof_90_strict") / 40


def test_curves_and_seconds(tmp_path: Path) -> None:
    ious, edges = draw_ious(7), draw_ious(7, seed=5)
    run = write_run(tmp_path / "run", ious, boundary=edges)
    rows = read_rows(run)
    assert rows.miou is not None
    assert rows.boundary_miou is not None
    for click in range(20):
        assert rows.miou[click] == pytest.approx(sum(float(row[click]) for row in ious) / 7)
        assert rows.boundary_miou[click] == pytest.approx(sum(float(row[click]) for row in edges) / 7)
    found = measure_run(run, rows)
    assert number(found, "mean_iou_5") == rows.miou[4]
    assert number(found, "mean_boundary_iou_20") == rows.boundary_miou[19]
    later = sum(0.01 * (1 + number) for number in range(7)) / 7
    assert number(found, "model_seconds_first_click") == pytest.approx(0.5)
    assert number(found, "model_seconds_later_clicks") == pytest.approx(later)
    assert number(found, "model_seconds") == pytest.approx((0.5 + 19 * later) / 20)
    assert number(found, "harness_seconds") == pytest.approx(0.002)
    assert (number(found, "samples"), number(found, "clicks")) == (7, 140)


def test_a_failed_sample_counts_as_0_from_there_on(tmp_path: Path) -> None:
    ious = [[0.95, 0.95, 0.95], [0.95, 0.2], [0.5, 0.95, 0.95]]  # the second fails at its second click
    run = write_run(tmp_path / "run", ious, failed={1: "predict raised"}, protocol={"max_clicks": 3})
    rows = read_rows(run)
    assert rows.failures == [("s1", "predict raised")]
    assert rows.miou is not None and rows.boundary_miou is not None
    assert rows.miou.tolist() == pytest.approx([2.4 / 3, 1.9 / 3, 1.9 / 3])
    assert rows.boundary_miou[2] == pytest.approx(0.9 * 1.9 / 3)
    assert number(measure_run(run, rows), "noc_95") == (1 + 1 + 2) / 3  # what was reached before stays reached
    at_once = measured(write_run(tmp_path / "other", [[0.9]], failed={0: "open raised"}, protocol={"max_clicks": 3}))
    assert [number(at_once, name) for name in ("noc_80", "nof_80_strict", "never_solved_90")] == [3, 1, 1]


def test_one_sample_with_one_click(tmp_path: Path) -> None:
    found = measured(write_run(tmp_path / "run", [[0.92]], protocol={"max_clicks": 1}))
    assert found["noc_90"] == Value(1, 1, 1)
    assert (number(found, "nof_90_ritm"), number(found, "nof_90_strict")) == (1, 0)
    assert number(found, "model_seconds") == number(found, "model_seconds_first_click") == 0.5
    assert found["model_seconds_later_clicks"].missing == "not available: the run has no later clicks"


def test_an_iou_that_is_not_a_number(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [[math.nan, 0.96], [0.96, 0.96]], protocol={"max_clicks": 2})
    rows, found = read_rows(run), measured(run)
    assert rows.undefined == ["s0"] and rows.miou is not None
    assert rows.miou.tolist() == pytest.approx([math.nan, 0.96], nan_ok=True)
    assert number(found, "noc_95") == 1.5 and found["mean_iou_1"].number is None


def test_a_run_that_stops_early_says_nothing_above_its_stop(tmp_path: Path) -> None:
    ious = [[0.5, 0.91], [0.85] * 20, [0.9]]
    run = write_run(tmp_path / "run", ious, protocol={"stop_at": 0.9})
    rows, found = read_rows(run), measured(run)
    assert [percent for percent in PERCENTS if found[f"noc_{percent}"].number is not None] == [80, 85, 90]
    assert number(found, "noc_90") == pytest.approx((2 + 20 + 1) / 3)
    assert number(found, "nof_90_strict") == 1
    assert (rows.miou, rows.boundary_miou) == (None, None)
    low = measured(write_run(tmp_path / "low", [[0.86]], protocol={"stop_at": 0.85}))
    assert [percent for percent in PERCENTS if low[f"noc_{percent}"].number is not None] == [80, 85]
    assert low["never_solved_90"].number is None


def test_rows_that_are_not_those_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clicks.parquet: 2 samples, where run.json says 3"):
        measured(write_run(tmp_path / "a", draw_ious(2), result={"samples": 3}))
    with pytest.raises(InputError, match=r"clicks.parquet: .*ends after 2 of 20"):
        measured(write_run(tmp_path / "b", [[0.5, 0.6]]))


def test_a_new_measure_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest step back of a sample's IoU: in Markdown, LaTeX, CSV, page and comparison, and nowhere by name."""

    def steps_back(rows: RunRows) -> npt.NDArray[np.float64]:
        return np.array([max(0.0, -float(np.diff(row).min())) for row in rows.ious])

    places: tuple[Place, ...] = ("quality", "leaderboard", "comparison")
    measure = Measure(
        "step_back",
        "step back",
        "iou",
        lambda rows: float(steps_back(rows).mean()),
        "{:.4f}".format,
        better="lower",
        headings=dict.fromkeys(places, ("", "step back")),
        by_sample=steps_back,
        interval=True,
    )
    monkeypatch.setitem(MEASURES, "step_back", measure)
    runs = [write_run(tmp_path / "runs" / name, draw_ious(seed=seed)) for seed, name in enumerate("ab")]
    value = measured(runs[0])["step_back"]
    assert value.number is not None and value.low is not None and value.low < value.number
    shown = f"{value.number:.4f}"
    make_report([tmp_path / "runs"], tmp_path / "out", page=True)
    files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".png"}
    for name in ("report.md", "tables.tex", "leaderboard.html"):
        assert "step back" in files[name] and shown in files[name]
    row = next(csv.DictReader(io.StringIO(files["results.csv"])))
    assert float(row["step_back"]) == value.number and float(row["step_back_low"]) == value.low
    compared = "\n".join(comparison_lines(compare_runs(*runs))).splitlines()
    assert any(line.startswith("step back") and shown in line for line in compared)
