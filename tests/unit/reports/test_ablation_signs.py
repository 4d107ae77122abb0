"""Signs of an ablation beside the paper's: the numbers by other means, what is decided, what cannot be compared."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from disbench.harness.measures import MEASURES
from disbench.reports.ablation.plans import load_plan
from disbench.reports.ablation.report import (
    FIRST,
    Estimate,
    PaperDifference,
    Sign,
    estimate,
    read_results,
    report_ablation,
)
from tests.refusals import refuses
from tests.unit.ablation_tools import HASHES, write_cell

PLAN = load_plan("table5")
DATASETS = tuple(HASHES)
NOC, NOF = MEASURES["noc_90"], MEASURES["nof_90_ritm"]


def ious(clicks: list[int], first: float = 0.5) -> npt.NDArray[np.float64]:
    """Of each sample 20 IoUs that reach 0.9 at a click (21: never) and stay there."""
    values = np.full((len(clicks), 20), first)
    for row, click in zip(values, clicks, strict=True):
        row[click - 1 :] = 0.95
    return values


def signs_of(folder: Path) -> list[dict[str, str]]:
    report_ablation(PLAN, folder)
    return list(csv.DictReader(io.StringIO((folder / "report" / "signs-table5.csv").read_text())))


def one(rows: list[dict[str, str]], contrast: str, dataset: str, measure: str) -> dict[str, str]:
    (found,) = [
        row for row in rows if (row["contrast"], row["dataset"], row["measure"]) == (contrast, dataset, measure)
    ]
    return found


def test_differences_beside_the_paper(tmp_path: Path) -> None:
    """Baseline to FC: fewer clicks on Berkeley, as the paper prints; more on GrabCut, where it prints nothing."""
    folder = tmp_path / "table5"
    for seed, shift in ((0, 0), (1, 1), (2, 0)):
        slow, fast = [10 + shift, 12, 14, 21], [6, 7 + shift, 8, 9]
        write_cell(folder, "baseline", {"berkeley": ious(slow), "grabcut": ious(fast)}, seed)
        write_cell(folder, "fc", {"berkeley": ious(fast, 0.6), "grabcut": ious(slow)}, seed)
    rows = signs_of(folder)
    found = one(rows, "FC", "berkeley", "noc90")
    assert (found["paper_before"], found["paper_after"], found["paper_difference"]) == ("2.35", "2.09", "-0.26")
    assert float(found["measured_before"]) == pytest.approx((56 + 57 + 56) / 12)
    assert float(found["difference"]) == pytest.approx((30 + 31 + 30 - 56 - 57 - 56) / 12)
    assert (found["sign"], found["finding"], found["seeds"], found["samples"]) == ("same", "holds", "0 1 2", "4")
    assert one(rows, "FC", "grabcut", "noc90")["paper_difference"] == ""
    assert one(rows, "FC", "grabcut", "noc90")["finding"] == "worse"
    assert one(rows, "FC", "berkeley", "iou1")["finding"] == "better"
    failures = one(rows, "FC", "berkeley", "nof90")
    assert (failures["difference"], failures["samples_high"]) == ("-1.0", "0.0")
    assert failures["finding"] == "not decided", "one failure of four samples"
    assert one(rows, "MO", "berkeley", "noc90")["finding"] == "not run"
    page = (folder / "report" / "signs-table5.md").read_text()
    assert "**FC: fc against baseline**" in page
    assert "**MO:" not in page
    assert "was not run: MO; MCA alone; FCG alone; MCA beside FCG; FCG beside MCA; Refinement at the first" in page
    assert "Every row is trained for 75 steps of 4 examples of the training small." in page
    assert "The paper also prints numbers on SBD, DAVIS, where nothing was run." in page
    assert "Of 1 sign that the paper prints: 1 holds, 0 against, 0 not decided." in page


def test_intervals_over_samples_and_over_seeds() -> None:
    draws = np.random.default_rng(0)
    values = draws.integers(-5, 6, (3, 4)).astype(float)
    means = np.array([values[:, list(chosen)].mean() for chosen in product(range(4), repeat=4)])
    low, high = np.quantile(means, (0.025, 0.975), method="inverted_cdf")
    assert estimate(values, NOC).samples == pytest.approx((low, high))
    assert estimate(values, NOF).samples == pytest.approx((4 * low, 4 * high)), "failures are counted"
    assert estimate(values, NOF).mean == pytest.approx(4 * values.mean())
    values = np.random.default_rng(1).normal(0.2, 1.0, (5, 30))
    wanted = stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.95)
    assert estimate(values, FIRST).seeds == pytest.approx((wanted.low, wanted.high))
    assert estimate(values[:1], FIRST).seeds is None


@pytest.mark.parametrize(
    ("samples", "seeds", "paper", "finding"),
    [
        ((-2.0, -0.1), (-3.0, -0.2), -0.5, "holds"),
        ((0.1, 2.0), (0.1, 3.0), -0.5, "against"),
        ((-2.0, -0.1), (-3.0, 0.2), -0.5, "not decided"),
        ((-2.0, -0.1), None, 0.0, "better"),
        ((0.1, 2.0), None, None, "worse"),
    ],
)
def test_what_is_decided(
    samples: tuple[float, float], seeds: tuple[float, float] | None, paper: float | None, finding: str
) -> None:
    printed = PaperDifference(difference=None if paper is None else Decimal(str(paper)))
    ours = Estimate((samples[0] + samples[1]) / 2, samples, seeds)
    sign = Sign(PLAN.contrasts[0], "berkeley", NOC, printed, ours=ours)
    assert sign.finding == finding
    assert sign.agreement == ("" if not paper else "same" if (ours.mean < 0) == (paper < 0) else "opposite")
    assert replace(sign, measure=FIRST).finding == {"better": "worse", "worse": "better"}.get(finding, finding)


def test_stopping_early_changes_no_number(tmp_path: Path) -> None:
    """Samples that end at 0.90 give the same files, byte for byte."""
    texts = []
    for stop in (None, 0.9):
        folder = tmp_path / str(stop) / "table5"
        draws = np.random.default_rng(2)
        for row in ("full", "full-refined", "fc"):
            whole = draws.uniform(0.3, 1.0, (6, 20)).astype(np.float32)
            ends = [next((n + 1 for n, iou in enumerate(one) if iou >= np.float32(0.9)), 20) for one in whole]
            cut = [list(values[: end if stop else 20]) for values, end in zip(whole, ends, strict=True)]
            write_cell(folder, row, {"grabcut": cut}, protocol={"stop_at": stop})
        report_ablation(PLAN, folder)
        texts.append({path.name: path.read_bytes() for path in (folder / "report").iterdir()})
    assert texts[0] == texts[1]
    refined = next(line for line in texts[0]["signs-table5.csv"].decode().splitlines() if "Refinement" in line)
    assert ",noc90,,,0.3," in refined


def test_a_number_that_is_not_there_has_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "table5"
    broken = ious([3, 4])
    broken[0, 0] = np.nan
    write_cell(folder, "baseline", {"grabcut": broken, "berkeley": [[0.5, 0.86]] * 2}, protocol={"stop_at": 0.85})
    write_cell(folder, "fc", {"grabcut": ious([2, 3]), "berkeley": [[0.86]] * 2}, protocol={"stop_at": 0.85})
    rows = signs_of(folder)
    assert one(rows, "FC", "berkeley", "noc90")["finding"].endswith("samples of this run end at an IoU of 0.85")
    assert one(rows, "FC", "grabcut", "iou1")["finding"] == "not available: the value of some sample is not a number"
    assert one(rows, "FC", "berkeley", "iou1")["finding"] == "better"
    assert "|  |" not in (folder / "report" / "signs-table5.md").read_text()


def test_failed_samples_and_subsets_are_marked(tmp_path: Path) -> None:
    folder = tmp_path / "table5"
    run: dict[str, Any] = {"failed": {1: "it broke"}, "protocol": {"every": 3}}
    write_cell(folder, "fc", {"grabcut": ious([3, 4])}, **run)
    report_ablation(PLAN, folder)
    page = (folder / "report" / "signs-table5.md").read_text()
    assert "the method failed on 1 sample, which count with an IoU of 0" in page
    assert "samples: every 3rd (2 of 2)" in page
    assert "No sign that the paper prints was measured" in page


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"steps": 2}},
        {"protocol": {"limit": 1}},
        {"protocol": {"threshold": 0.6}},
        {"runs": {"grabcut": ious([2, 3])}},
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = tmp_path / "table5"
    write_cell(folder, "fc", {"grabcut": ious([2, 3, 4])})
    write_cell(folder, "fc-mo", change.pop("runs", {"grabcut": ious([2, 3, 4])}), **change)
    refuses(re.escape(str(folder)), report_ablation, PLAN, folder)
    assert not (folder / "report").exists()


def test_records_that_are_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "table5"
    refuses("table5", read_results, folder)
    write_cell(folder, "fc", {"grabcut": ious([2, 3])})
    record = folder / "fc" / "seed-0" / "row.json"
    text = record.read_text()
    for bad in (
        text.replace('"training_seed": 0', '"training_seed": 1'),
        text.replace('"format": 1', '"format": 2'),
        text.replace('"steps": 75, ', "").replace('"steps": 75,', ""),
        text[:-9],
        "[]",
    ):
        record.write_text(bad)
        refuses("seed-0", read_results, folder)
