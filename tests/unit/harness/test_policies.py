"""Several click policies in one go: each the run that it is alone, with every image opened once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disbench.core.click_policies import series
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.prediction import Prediction
from disbench.harness import evaluate
from disbench.harness.measures import read_rows
from disbench.harness.protocol import Protocol
from disbench.harness.sample_loop import TargetsTask
from disbench.harness.store import read_run
from disbench.harness.tasks import Clicked, Reader, run_chunk
from disbench.reports.entries import find_runs, read_entries
from disbench.reports.report import make_report
from disbench.reports.sensitivity import depth_series, depth_tables
from tests.commands import disbench
from tests.toy_methods import Discs, DiscsSession
from tests.toy_samples import make_samples
from tests.unit.run_tools import draw_ious, write_run

TOY = Path(__file__).parents[2] / "toy_methods.py"
PROTOCOL = Protocol(max_clicks=4)
POLICIES = tuple(str(policy) for policy in series("slices:3"))


class Counting(Discs):
    """Counts the images that it opens; its sessions can be restarted."""

    opened = 0

    def open(self, image: np.ndarray) -> DiscsSession:
        self.opened += 1
        return Restarted(self, image)


class Restarted(DiscsSession):
    asked = 0

    def restart(self) -> None:
        self.kept, self.asked = [], 0

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        self.asked += 1
        assert self.asked == len(clicks)
        return super().predict(clicks)


class FailsOnce(Discs):
    """Fails at the second click of its second session."""

    opened = 0

    def open(self, image: np.ndarray) -> DiscsSession:
        self.opened += 1
        return Failing(self, image) if self.opened == 2 else DiscsSession(self, image)


class Failing(DiscsSession):
    def predict(self, clicks: Sequence[Click]) -> Prediction:
        if len(clicks) == 2:
            raise RuntimeError("once")
        return super().predict(clicks)


def rows_of(method: Any, samples: Sequence[Any], batched: bool = False) -> dict[str, list[Any]]:
    """Policy -> its rows, as they would be stored."""
    task = TargetsTask(PROTOCOL, policies=POLICIES)
    readers = [Reader(number, sample.id, lambda sample=sample: sample) for number, sample in enumerate(samples)]
    by_sample: dict[int, list[Any]] = {}
    for event in run_chunk(method, readers, task, batched=batched):
        if isinstance(event, Clicked):
            by_sample.setdefault(event.number, []).append(event.row)
    rows = [row for number in sorted(by_sample) for row in task.kept(by_sample[number])]
    return {policy: [row for row in rows if row.policy == policy] for policy in POLICIES}


def told(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [(row.sample, row.click, row.x, row.y, row.positive, row.iou, row.boundary_iou) for row in rows]


@pytest.mark.parametrize("batched", [False, True])
def test_each_policy_is_the_run_that_it_is_alone(batched: bool) -> None:
    samples, method = list(make_samples(3)), Counting(radius=6)
    found = rows_of(method, samples, batched)
    assert method.opened == len(samples)
    for policy, rows in found.items():
        assert told(rows) == told(evaluate(Discs(radius=6), samples, max_clicks=4, policy=policy).rows)
    reopened = rows_of(Discs(radius=6), samples)
    assert {policy: told(rows) for policy, rows in reopened.items()} == {
        policy: told(rows) for policy, rows in found.items()
    }


def test_a_failure_ends_one_loop_and_an_unread_sample_is_in_all_runs() -> None:
    (sample,) = make_samples(1)
    found = rows_of(FailsOnce(), [sample])
    assert [len(rows) for rows in found.values()] == [4, 2, 4, 4]
    assert [rows[-1].failure is None for rows in found.values()] == [True, False, True, True]
    task = TargetsTask(PROTOCOL, policies=POLICIES)
    assert [row.policy for row in task.kept([task.unread("lost", "no file")])] == list(POLICIES)


def test_the_command(tmp_path: Path) -> None:
    """Run, leave what is finished, report; a slice alone gives the same rows, and other settings are refused."""
    common = ("run", "--method", f"{TOY}:Discs", "--dataset", "photos", "--every", "90", "--max-clicks", "3")
    arguments = (*common, "--policy", "slices:3", "--out", "all")
    done = disbench(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["D1", "D2", "D3", "base"]
    records = {path: path.read_bytes() for path in (tmp_path / "all").rglob("run.json")}
    assert disbench(*arguments, cwd=tmp_path).returncode == 0
    assert {path: path.read_bytes() for path in records} == records
    refusal = disbench(*arguments, "--seed", "1", cwd=tmp_path)
    assert refusal.returncode == 2 and "seed" in refusal.stderr
    assert disbench(*common, "--policy", "slice:group=2,of=3", "--out", "one", cwd=tmp_path).returncode == 0
    one, among = read_run(tmp_path / "one"), read_run(tmp_path / "all" / "D2")
    columns = ["sample", "click", "x", "y", "positive", "iou", "boundary_iou"]
    assert one.rows(columns) == among.rows(columns)
    assert one.protocol.click_policy == among.protocol.click_policy
    assert disbench("verify", "all/D2", cwd=tmp_path).returncode == 0
    assert disbench("report", "all", "--out", "report", "--page", cwd=tmp_path).returncode == 0
    assert "D1 (of 3)" in (tmp_path / "report/report.md").read_text()
    assert {"depth.png", "depth.svg"} <= {path.name for path in (tmp_path / "report").iterdir()}


def test_the_table_of_depths(tmp_path: Path) -> None:
    ious = {policy: draw_ious(8, seed=number) for number, policy in enumerate(POLICIES)}
    for number, policy in enumerate(POLICIES):
        write_run(tmp_path / "runs" / str(number), ious[policy], protocol={"policy": policy})
    entries = read_entries(find_runs([tmp_path / "runs"]))
    (series_found,) = depth_series(entries)
    (table,) = depth_tables([series_found])
    noc, _, auc, _ = table.rows
    clicks = np.array(
        [
            [next((n for n, v in enumerate(row, 1) if np.float32(v) >= np.float32(0.9)), 20) for row in ious[policy]]
            for policy in POLICIES
        ]
    )
    areas = np.array(
        [[(sum(row) - (row[0] + row[-1]) / 2) / 19 for row in ious[policy].tolist()] for policy in POLICIES]
    )
    assert [cell.value for cell in noc[3:7]] == pytest.approx(clicks.mean(axis=1))
    assert [cell.value for cell in auc[3:7]] == pytest.approx(areas.mean(axis=1), abs=1e-6)
    assert noc[8].value == pytest.approx(((clicks[1:].mean(axis=0) - clicks[0]) / clicks[0]).mean())
    assert noc[9].value == pytest.approx(((clicks[1] - clicks[3]) / clicks[3]).mean())
    assert auc[8].value == pytest.approx((areas[1:].mean(axis=0) - areas[0]).mean(), abs=1e-6)
    low, high = auc[9].ends
    assert low <= auc[9].value <= high  # type: ignore[operator]
    assert depth_series(entries[:-1]) == []  # a slice is missing


def test_the_first_20_of_100_clicks(tmp_path: Path) -> None:
    samples = list(make_samples(4))
    long, short = (evaluate(Discs(radius=4), samples, max_clicks=cap) for cap in (100, 20))
    assert told([row for row in long.rows if row.click <= 20]) == told(short.rows)
    runs = [
        write_run(tmp_path / str(cap), list(results.ious.values()), protocol={"max_clicks": cap})
        for cap, results in ((100, long), (20, short))
    ]
    of_long, of_short = (entry.values for entry in read_entries(runs))
    for name in ("noc_90", "nof_90_ritm", "nof_90_strict"):
        at_20 = name.replace("_", "20_", 1)
        assert of_long[at_20] == of_short[name] and of_short[at_20].number is None
        assert of_long[name].number is not None
    assert len(read_rows(runs[0]).ious[0]) == 100
    make_report([tmp_path / "100"], tmp_path / "out")
    make_report([tmp_path / "20"], tmp_path / "out-20")
    assert "NoC20@90" in (tmp_path / "out/report.md").read_text()
    assert "NoC20@90" not in (tmp_path / "out-20/report.md").read_text()
    with pytest.raises(InputError):
        Protocol(policy="slices:10")
