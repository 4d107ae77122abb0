"""Two runs compared: numbers, refusals, warnings, and files that hold any text."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from disbench.core.statistics import bootstrap_interval
from disbench.reports.comparison import compare_runs, comparison_lines, draw_differences, write_comparison
from tests.refusals import refuses
from tests.toy_methods import Discs
from tests.unit.run_tools import HASH, draw_ious, write_photo_run, write_run

NASTY = "=x|<b>$1$_\\\u202e\n`"


def test_numbers_against_loops_over_the_rows(tmp_path: Path) -> None:
    of_a, of_b = draw_ious(30, seed=1), draw_ious(30, seed=2, speed=0.2)
    runs = [write_run(tmp_path / name, ious) for name, ious in (("a", of_a), ("b", of_b))]
    found = compare_runs(*runs)
    assert [one.measure.name.removeprefix("mean_") for one in found.measures] == [
        *("noc_80", "noc_85", "noc_90", "noc_95"),
        *("iou_1", "iou_3", "iou_5", "iou_20", "auc"),
    ]
    assert not found.warnings
    for measure in found.measures:
        kind, _, number = measure.measure.name.removeprefix("mean_").partition("_")
        if kind == "auc":  # its own test: tests/unit/core/test_metrics.py
            continue
        pairs = []
        for row_a, row_b in zip(of_a, of_b, strict=True):
            if kind == "iou":
                pairs.append((float(row_a[int(number) - 1]), float(row_b[int(number) - 1])))
                continue
            goal = np.float32(int(number) / 100)
            clicks = [[c for c, v in enumerate(row, 1) if v >= goal] for row in (row_a, row_b)]
            pairs.append(tuple(float(reached[0]) if reached else 20.0 for reached in clicks))
        differences = [a - b for a, b in pairs]
        got = measure.difference
        assert got is not None
        assert got.mean == pytest.approx(sum(differences) / 30, abs=1e-12)
        assert (got.low, got.high) == bootstrap_interval(differences)
        better = [d < 0 if kind == "noc" else d > 0 for d in differences]
        assert (got.a_better, got.ties) == (sum(better), differences.count(0))
        assert got.a_better + got.ties + got.b_better == 30


def test_samples_in_the_order_of_their_difference(tmp_path: Path) -> None:
    of_a = [[0.95] * 20, [0.5] * 20, [0.95] * 20, [0.95] * 20, [0.2] * 20]
    of_b = [[0.95] * 20, [0.5] * 20, [0.5] * 20, [*[0.5] * 4, *[0.95] * 16], [0.7] * 20]
    assert compare_runs(write_run(tmp_path / "a", of_a), write_run(tmp_path / "b", of_b)).order == (2, 3, 4, 0, 1)


def test_other_samples_are_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", draw_ious(4))
    other = write_run(tmp_path / "hash", draw_ious(4), dataset={"content_hash": "0" + HASH[1:]})
    fewer = write_run(tmp_path / "fewer", draw_ious(3), protocol={"limit": 3}, dataset={"samples": 4})
    for b, words in ((other, "on the same samples"), (fewer, "1 only in one, such as s3; .* --limit")):
        refuses(words, compare_runs, a, b)


def test_runs_that_end_early(tmp_path: Path) -> None:
    early = [[*row[: int(np.argmax(row >= np.float32(0.9)))], 0.9] for row in np.full((5, 20), 0.95, np.float32)]
    a, b = (write_run(tmp_path / "a", early, protocol={"stop_at": 0.9}), write_run(tmp_path / "b", draw_ious(5)))
    found = {measure.measure.name.removeprefix("mean_"): measure for measure in compare_runs(a, b).measures}
    assert found["noc_90"].difference is not None
    for key in ("noc_95", "iou_1"):
        assert found[key].difference is None
        assert "end at an IoU of 0.9" in found[key].reason
    short = write_run(tmp_path / "c", [[0.7]] * 5, protocol={"stop_at": 0.5})
    refuses("without --stop-at", compare_runs, short, b)


def test_warnings(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", draw_ious(4))
    ious = draw_ious(4, 6)
    ious[1, 2] = math.nan
    protocol = {"max_clicks": 6, "selection": "score"}
    b = write_run(tmp_path / "b", [ious[0, :3], *ious[1:]], failed={0: "a bad day"}, protocol=protocol)
    found = compare_runs(a, b)
    text = " / ".join(found.warnings)
    for words in ("selection score", "first 6 clicks", "B: the method failed on 1", "B: 1 sample"):
        assert words in text
    reasons = {measure.measure.name.removeprefix("mean_"): measure.reason for measure in found.measures}
    assert "6 clicks a sample" in reasons["iou_20"]
    assert "not a number" in reasons["iou_3"]
    assert not reasons["noc_90"]
    assert sum(line.startswith("warning: ") for line in comparison_lines(found)) == len(found.warnings)


def test_files(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", draw_ious(6), method={"name": NASTY}),
        write_run(tmp_path / "b", draw_ious(6, seed=1)),
    ]
    found = compare_runs(*runs)
    paths = write_comparison(found, tmp_path / "out", b"PNG")
    before = [path.read_bytes() for path in paths]
    assert [path.name for path in paths] == ["comparison.md", "comparison.csv", "differences.png"]
    rows = list(csv.DictReader(io.StringIO(before[1].decode())))
    assert len(rows) == 9
    assert rows[0]["label_a"].startswith("'=x")
    assert all(0 < float(row["p"]) <= 1 for row in rows)
    page = before[0].decode()
    assert "(differences.png)" in page
    assert "\\|\\<b>" in page and "\u202e" not in page
    assert [line.count(" | ") for line in page.splitlines() if line.startswith("|")] == [8] * 11
    again = write_comparison(compare_runs(*runs), tmp_path / "out")
    assert [path.read_bytes() for path in again[1:]] == before[1:2]
    assert not (tmp_path / "out" / "differences.png").exists()


def test_the_picture(tmp_path: Path) -> None:
    a = write_photo_run(tmp_path / "a", "kept")
    found = compare_runs(a, write_photo_run(tmp_path / "b", "none", name="small", method=Discs(8.0)))
    first = draw_differences(found, None, 2)
    assert first == draw_differences(found, None, 2)
    assert first.startswith(b"\x89PNG")
