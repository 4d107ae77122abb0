"""A run's numbers against literal loops over its rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from disbench.core.errors import InputError
from disbench.core.metrics import bootstrap_interval
from disbench.reports.summary import PERCENTS, Seconds, summarise
from tests.unit.run_tools import draw_ious, write_run


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
    found = summarise(write_run(tmp_path / "run", ious, protocol={"max_clicks": cap}))
    assert tuple(found.noc) == tuple(found.nof) == PERCENTS
    for percent in PERCENTS:
        firsts = [first_click(row, percent) for row in ious]
        clicks = [cap if first is None else first for first in firsts]
        assert found.noc[percent].mean == pytest.approx(sum(clicks) / len(clicks), rel=1e-12)
        assert (found.noc[percent].low, found.noc[percent].high) == bootstrap_interval(clicks)
        assert found.nof[percent].strict == firsts.count(None)
        assert found.nof[percent].ritm == clicks.count(cap)
    assert found.nof[90].ritm > found.nof[90].strict
    assert found.never_solved == found.nof[90].strict / 40


def test_curves_and_seconds(tmp_path: Path) -> None:
    ious, edges = draw_ious(7), draw_ious(7, seed=5)
    found = summarise(write_run(tmp_path / "run", ious, boundary=edges))
    assert found.miou is not None
    assert found.boundary is not None
    for click in range(20):
        assert found.miou[click] == pytest.approx(sum(float(row[click]) for row in ious) / 7)
        assert found.boundary[click] == pytest.approx(sum(float(row[click]) for row in edges) / 7)
    later = sum(0.01 * (1 + number) for number in range(7)) / 7
    assert found.model.first == pytest.approx(0.5)
    assert found.model.later == pytest.approx(later)
    assert found.model.every == pytest.approx((0.5 + 19 * later) / 20)
    assert found.harness.every == pytest.approx(0.002)
    assert (found.samples, found.clicks) == (7, 140)


def test_a_failed_sample_counts_as_0_from_there_on(tmp_path: Path) -> None:
    rows = [[0.95, 0.95, 0.95], [0.95, 0.2], [0.5, 0.95, 0.95]]  # the second fails at its second click
    run = write_run(tmp_path / "run", rows, failed={1: "predict raised"}, protocol={"max_clicks": 3})
    found = summarise(run)
    assert [(failure.sample, failure.reason) for failure in found.failures] == [("s1", "predict raised")]
    assert found.miou is not None
    assert found.boundary is not None
    assert found.miou.tolist() == pytest.approx([2.4 / 3, 1.9 / 3, 1.9 / 3])
    assert found.boundary[2] == pytest.approx(0.9 * 1.9 / 3)
    assert found.noc[95].mean == (1 + 1 + 2) / 3  # what was reached before stays reached
    at_once = summarise(write_run(tmp_path / "other", [[0.9]], failed={0: "open raised"}, protocol={"max_clicks": 3}))
    assert (at_once.noc[80].mean, at_once.nof[80].strict, at_once.never_solved) == (3, 1, 1)


def test_one_sample_with_one_click(tmp_path: Path) -> None:
    found = summarise(write_run(tmp_path / "run", [[0.92]], protocol={"max_clicks": 1}))
    assert (found.noc[90].mean, found.noc[90].low, found.noc[90].high) == (1, 1, 1)
    assert (found.nof[90].ritm, found.nof[90].strict) == (1, 0)
    assert found.model == Seconds(0.5, 0.5, None)


def test_an_iou_that_is_not_a_number(tmp_path: Path) -> None:
    rows = [[math.nan, 0.96], [0.96, 0.96]]
    found = summarise(write_run(tmp_path / "run", rows, protocol={"max_clicks": 2}))
    assert found.undefined == ("s0",)
    assert found.noc[95].mean == 1.5
    assert found.miou is not None
    assert math.isnan(found.miou[0])
    assert found.miou[1] == pytest.approx(0.96)


def test_a_run_that_stops_early_says_nothing_above_its_stop(tmp_path: Path) -> None:
    rows = [[0.5, 0.91], [0.85] * 20, [0.9]]
    found = summarise(write_run(tmp_path / "run", rows, protocol={"stop_at": 0.9}))
    assert tuple(found.noc) == (80, 85, 90)
    assert found.noc[90].mean == pytest.approx((2 + 20 + 1) / 3)
    assert found.nof[90].strict == 1
    assert (found.miou, found.boundary) == (None, None)
    low = summarise(write_run(tmp_path / "low", [[0.86]], protocol={"stop_at": 0.85}))
    assert tuple(low.noc) == (80, 85)
    assert low.never_solved is None


def test_rows_that_are_not_those_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clicks.parquet: 2 samples, where run.json says 3"):
        summarise(write_run(tmp_path / "a", draw_ious(2), result={"samples": 3}))
    with pytest.raises(InputError, match=r"clicks.parquet: .*ends after 2 of 20"):
        summarise(write_run(tmp_path / "b", [[0.5, 0.6]]))
