"""Several click policies in one go, each the run that it is alone; `worst` and `best` against a restatement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from disbench.core.click_policies import ClickPolicy, parse_series
from disbench.core.clicks import Click, next_click
from disbench.core.errors import InputError
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.prediction import Prediction
from disbench.core.samples import Sample
from disbench.harness import evaluate
from disbench.harness.measures import read_rows
from disbench.harness.protocol import Protocol
from disbench.harness.sample_loop import TargetsTask
from disbench.harness.store import read_run
from disbench.harness.tasks import Reader, RowFinished, run_chunk
from disbench.reports.entries import find_runs, read_entries
from disbench.reports.report import make_report
from disbench.reports.sensitivity import depth_series, depth_tables, extremes, extremes_table
from tests.commands import disbench, printed
from tests.toy_methods import Answers, AnswersSession, Discs, DiscsSession
from tests.toy_samples import make_samples
from tests.unit.run_tools import draw_ious, write_run

TOY = Path(__file__).parents[2] / "toy_methods.py"
PROTOCOL = Protocol(max_clicks=4)
POLICIES = tuple(str(policy) for policy in parse_series("slices:3"))


def fails_once(session: AnswersSession, clicks: Sequence[Click]) -> Prediction:
    """At the second click of the second session."""
    if (session.number, len(clicks)) == (2, 2):
        raise RuntimeError("once")
    return DiscsSession.predict(session, clicks)


def rows_of(method: Any, samples: Sequence[Any], batched: bool = False) -> dict[str, list[Any]]:
    """Policy -> its rows, as they would be stored."""
    task = TargetsTask(PROTOCOL, policies=POLICIES)
    readers = [Reader(number, sample.id, lambda sample=sample: sample) for number, sample in enumerate(samples)]
    by_sample: dict[int, list[Any]] = {}
    for event in run_chunk(method, readers, task, batched=batched):
        if isinstance(event, RowFinished):
            by_sample.setdefault(event.number, []).append(event.row)
    rows = [row for number in sorted(by_sample) for row in task.kept(by_sample[number])]
    return {policy: [row for row in rows if row.policy == policy] for policy in POLICIES}


def told(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [(row.sample, row.click, row.x, row.y, row.positive, row.iou, row.boundary_iou) for row in rows]


@pytest.mark.parametrize("batched", [False, True])
def test_each_policy_is_the_run_that_it_is_alone(batched: bool) -> None:
    samples, method = list(make_samples(3)), Answers(verb="restart", radius=6)
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
    found = rows_of(Answers(fails_once), [sample])
    assert [len(rows) for rows in found.values()] == [4, 2, 4, 4]
    assert [rows[-1].failure is None for rows in found.values()] == [True, False, True, True]
    task = TargetsTask(PROTOCOL, policies=POLICIES)
    assert [row.policy for row in task.kept([task.unread("lost", "no file")])] == list(POLICIES)


def test_the_command(tmp_path: Path) -> None:
    """Run, leave what is finished, report; a slice alone gives the same rows, and other settings are refused."""
    common = ("run", "--method", f"{TOY}:Discs", "--dataset", "photos", "--every", "90", "--max-clicks", "3")
    arguments = (*common, "--policy", "slices:3", "--out", "all")
    printed(*arguments, cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["D1", "D2", "D3", "base"]
    records = {path: path.read_bytes() for path in (tmp_path / "all").rglob("run.json")}
    printed(*arguments, cwd=tmp_path)
    assert {path: path.read_bytes() for path in records} == records
    refusal = disbench(*arguments, "--seed", "1", cwd=tmp_path)
    assert refusal.returncode == 2 and "seed" in refusal.stderr
    printed(*common, "--policy", "slice:group=2,of=3", "--out", "one", cwd=tmp_path)
    one, among = read_run(tmp_path / "one"), read_run(tmp_path / "all" / "D2")
    columns = ["sample", "click", "x", "y", "positive", "iou", "boundary_iou"]
    assert one.rows(columns) == among.rows(columns)
    assert one.protocol.click_policy == among.protocol.click_policy
    printed("verify", "all/D2", cwd=tmp_path)
    printed("report", "all", "--out", "report", "--page", cwd=tmp_path)
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


WORST, BEST = "worst:candidates=6", "best:candidates=6"


def restated(target: np.ndarray, mask: np.ndarray, clicks: Sequence[Click], count: int) -> list[Click]:
    first = next_click(target, mask, clicks)
    errors = (target == 1) & ~mask if first.positive else (target == 0) & mask
    depth = cv2.distanceTransform(np.pad(errors, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    before = {(click.x, click.y) for click in clicks}
    pixels = [(x, y) for y, x in np.argwhere(errors).tolist() if (x, y) not in before]
    region = [(x, y) for x, y in pixels if depth[y, x] >= 1.5] or pixels
    chosen = [(first.x, first.y)]
    while len(chosen) < count:
        nearest = [min((x - cx) ** 2 + (y - cy) ** 2 for cx, cy in chosen) for x, y in region]
        if not any(nearest):
            break
        chosen.append(region[nearest.index(max(nearest))])
    return [Click(x, y, first.positive) for x, y in chosen]


def loop(method: Any, sample: Sample, sign: int, clicks: int = 3, count: int = 6) -> list[tuple[Click, float]]:
    """Every candidate in a session of its own, which gets all clicks and is told what was kept of each."""
    made: list[tuple[Click, int]] = []
    mask, rows = np.zeros(sample.target.shape, dtype=bool), []
    for _ in range(clicks):
        outcomes = []
        for number, candidate in enumerate(restated(sample.target, mask, [c for c, _ in made], count)):
            session = method.open(sample.image)
            for position, (_, kept) in enumerate(made):
                session.predict([c for c, _ in made[: position + 1]])
                session.keep(kept)
            masks = session.predict([*(c for c, _ in made), candidate]).masks
            ious = [iou(sample.target, own) for own in masks]
            kept = int(np.argmax(ious))
            measures = (sign * ious[kept], sign * TargetBoundary(sample.target).iou(masks[kept]))
            outcomes.append((measures, -number, candidate, kept, masks[kept], ious[kept]))
        _, _, click, kept, mask, value = max(outcomes, key=lambda outcome: outcome[:2])
        made.append((click, kept))
        rows.append((click, value))
    return rows


def feedback(session: AnswersSession, clicks: Sequence[Click]) -> Prediction:
    """What was kept before moves the answers, so that a session that was not taken back answers otherwise."""
    assert len(session.kept) == len(clicks) - 1
    grown = session.method.radius + sum(session.kept)
    return Prediction(np.stack([session._discs(clicks, grown + 4 * number) for number in range(3)]))


def steps(rows: Sequence[Any]) -> list[tuple[Click, float]]:
    return [(Click(row.x, row.y, row.positive), row.iou) for row in rows]


@pytest.mark.parametrize("verb", ["", "restart", "undo"])
def test_the_extreme_of_all_candidates_from_the_same_state(verb: str) -> None:
    samples, method = make_samples(3), Answers(feedback, verb, radius=5)
    for policy, sign in ((WORST, -1), (BEST, 1)):
        method.told.clear()
        found = evaluate(method, samples, max_clicks=3, policy=policy, selection="oracle-all")
        assert (method.opened == len(samples)) == bool(verb)
        for sample in samples:
            own = [row for row in found.rows if row.sample == sample.id]
            assert steps(own) == loop(Answers(feedback, radius=5), sample, sign)
    if verb == "undo":
        batched = evaluate(Discs(radius=5), samples, max_clicks=3, policy=BEST, batch=3)
        assert steps(batched.rows) == steps(evaluate(Discs(radius=5), samples, max_clicks=3, policy=BEST).rows)


def test_the_first_click_lies_between_the_extremes() -> None:
    worst, base, best = (
        [row.iou for row in evaluate(Discs(radius=7), make_samples(6), max_clicks=1, policy=policy).rows]
        for policy in (WORST, "center", BEST)
    )
    assert all(low <= middle <= high for low, middle, high in zip(worst, base, best, strict=True))
    assert sum(worst) < sum(base)


def test_candidates_of_thin_and_used_up_errors() -> None:
    policy = ClickPolicy.parse(BEST)
    line = np.zeros((5, 5), dtype=np.int8)
    line[2, 1:4] = 1
    empty = np.zeros((5, 5), dtype=bool)
    assert policy.candidates(line, empty) == [Click(1, 2, True), Click(3, 2, True), Click(2, 2, True)]
    assert policy.candidates(line, empty, [Click(1, 2, True)]) == [Click(2, 2, True), Click(3, 2, True)]
    assert policy.candidates(line, line == 1) == [Click(0, 0, False)]


class Deaf(Discs):
    """Ignores its clicks."""

    def open(self, image: np.ndarray) -> DiscsSession:
        return DeafSession(self, image)


class DeafSession(DiscsSession):
    def predict(self, clicks: Sequence[Click]) -> Prediction:
        return super().predict([Click(20, 20, True)])


def test_a_method_that_ignores_clicks_has_no_extremes() -> None:
    samples = make_samples(3)
    worst, base, best = (steps(evaluate(Deaf(), samples, max_clicks=4, policy=p).rows) for p in (WORST, "center", BEST))
    assert worst == base == best


@pytest.mark.parametrize("limit", [30, 1000])
def test_a_candidate_that_fails_is_skipped_and_all_fail_the_sample(limit: int) -> None:
    """On clicks in the left part of the image, or on all of them."""

    def fussy(session: AnswersSession, clicks: Sequence[Click]) -> Prediction:
        if clicks[-1].x < limit:
            raise RuntimeError("too far left")
        return DiscsSession.predict(session, clicks)

    (sample,) = make_samples(1)
    results = evaluate(Answers(fussy, radius=6), [sample], max_clicks=2, policy=BEST)
    if limit == 1000:
        assert list(results.failures) == [sample.id] and len(results.rows) == 1
        return
    assert not results.failures and len(results.rows) == 2
    tried = [iou for row in results.rows for *_, iou in row.trials]
    assert None in tried and len(tried) > 2
    for row in results.rows:
        assert row.x >= limit and row.iou == max(iou for *_, iou in row.trials if iou is not None)


def test_extremes_by_the_command(tmp_path: Path) -> None:
    """Three runs in one go; the same with two workers; verified; the trials beside the rows."""
    common = ("run", "--method", f"{TOY}:Discs", "--dataset", "photos", "--every", "120", "--store", "kept")
    options = ("--policy", "extremes:4", "--max-clicks", "2")
    for workers, out in (("1", "one"), ("2", "two")):
        printed(*common, *options, "--workers", workers, "--out", out, cwd=tmp_path)
    columns = ["sample", "click", "x", "y", "positive", "iou", "boundary_iou", "mask"]
    rows = {name: read_run(tmp_path / "one" / name).rows(columns) for name in ("base", "worst", "best")}
    assert rows == {name: read_run(tmp_path / "two" / name).rows(columns) for name in rows}
    for name, extreme in (("worst", min), ("best", max)):
        trials = pq.read_table(tmp_path / "one" / name / "trials.parquet").to_pylist()
        assert trials == pq.read_table(tmp_path / "two" / name / "trials.parquet").to_pylist()
        assert rows[name]["iou"].to_pylist() == [extreme(t["iou"] for t in own["trials"]) for own in trials]
        assert all(len(own["trials"]) == 4 for own in trials)
        printed("verify", f"one/{name}", cwd=tmp_path)
    areas = {name: np.array(own["iou"].to_pylist()).reshape(-1, 2).mean(axis=1) for name, own in rows.items()}
    parse_series = extremes(read_entries(find_runs([tmp_path / "one"])))
    (cells,) = extremes_table(parse_series).rows
    assert [cell.value for cell in cells[3:6]] == pytest.approx([areas[n].mean() for n in ("worst", "base", "best")])
    assert cells[9].value == pytest.approx(100 * (areas["best"] - areas["worst"]).mean())
    deviations = [np.std([t["iou"] for t in own["trials"]]) for own in trials if own["click"] == 1]
    assert cells[10].text == f"{np.mean(deviations):.3f}"
    printed("report", "one", "--out", "report", cwd=tmp_path)
    assert "Extreme clicks" in (tmp_path / "report/report.md").read_text()
    assert not (tmp_path / "one/base/trials.parquet").exists()
    printed(*common, "--policy", "worst:candidates=2", "--out", "alone", cwd=tmp_path)
    assert read_run(tmp_path / "alone").protocol.max_clicks == 5
