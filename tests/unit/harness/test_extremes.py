"""The policies `worst` and `best`, against a literal restatement that asks the method anew for every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from disbench.core.click_policies import ClickPolicy
from disbench.core.clicks import Click, next_click
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.prediction import Prediction
from disbench.core.samples import Sample
from disbench.harness import evaluate
from disbench.harness.store import read_run
from disbench.reports.entries import find_runs, read_entries
from disbench.reports.sensitivity import extremes, extremes_table
from tests.commands import disbench
from tests.toy_methods import Discs, DiscsSession
from tests.toy_samples import make_samples

TOY = Path(__file__).parents[2] / "toy_methods.py"
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


class Feedback(Discs):
    """What was kept before moves the answers, so that a session that was not taken back answers otherwise."""

    opened = 0

    def open(self, image: np.ndarray) -> DiscsSession:
        self.opened += 1
        return FeedbackSession(self, image)


class FeedbackSession(DiscsSession):
    asked = 0

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        self.asked += 1
        assert self.asked == len(clicks) and len(self.kept) == len(clicks) - 1
        grown = self.method.radius + sum(self.kept)
        return Prediction(np.stack([self._discs(clicks, grown + 4 * number) for number in range(3)]))


class Restarts(Feedback):
    def open(self, image: np.ndarray) -> DiscsSession:
        super().open(image)
        return RestartsSession(self, image)


class RestartsSession(FeedbackSession):
    def restart(self) -> None:
        self.asked, self.kept = 0, []


class Undoes(Feedback):
    def open(self, image: np.ndarray) -> DiscsSession:
        super().open(image)
        return UndoesSession(self, image)


class UndoesSession(FeedbackSession):
    def undo(self) -> None:
        self.asked -= 1


def told(rows: Sequence[Any]) -> list[tuple[Click, float]]:
    return [(Click(row.x, row.y, row.positive), row.iou) for row in rows]


@pytest.mark.parametrize("kind", [Feedback, Restarts, Undoes])
def test_the_extreme_of_all_candidates_from_the_same_state(kind: type[Feedback]) -> None:
    samples, method = make_samples(3), kind(radius=5)
    for policy, sign in ((WORST, -1), (BEST, 1)):
        method.opened = 0
        found = evaluate(method, samples, max_clicks=3, policy=policy, selection="oracle-all")
        assert (method.opened == len(samples)) == (kind is not Feedback)
        for sample in samples:
            own = [row for row in found.rows if row.sample == sample.id]
            assert told(own) == loop(Feedback(radius=5), sample, sign)
    if kind is Undoes:
        batched = evaluate(Discs(radius=5), samples, max_clicks=3, policy=BEST, batch=3)
        assert told(batched.rows) == told(evaluate(Discs(radius=5), samples, max_clicks=3, policy=BEST).rows)


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
    worst, base, best = (told(evaluate(Deaf(), samples, max_clicks=4, policy=p).rows) for p in (WORST, "center", BEST))
    assert worst == base == best


class Fussy(Discs):
    """Fails on clicks in the left part of the image, or on all of them."""

    limit = 30

    def open(self, image: np.ndarray) -> DiscsSession:
        return FussySession(self, image)


class FussySession(DiscsSession):
    def predict(self, clicks: Sequence[Click]) -> Prediction:
        if clicks[-1].x < self.method.limit:  # type: ignore[attr-defined]
            raise RuntimeError("too far left")
        return super().predict(clicks)


def test_a_candidate_that_fails_is_skipped_and_all_fail_the_sample() -> None:
    (sample,) = make_samples(1)
    results = evaluate(Fussy(radius=6), [sample], max_clicks=2, policy=BEST)
    assert not results.failures and len(results.rows) == 2
    tried = [iou for row in results.rows for *_, iou in row.trials]
    assert None in tried and len(tried) > 2
    for row in results.rows:
        assert row.x >= Fussy.limit and row.iou == max(iou for *_, iou in row.trials if iou is not None)
    fussy = Fussy()
    fussy.limit = 1000
    failed = evaluate(fussy, [sample], max_clicks=2, policy=BEST)
    assert list(failed.failures) == [sample.id] and len(failed.rows) == 1


def test_the_command(tmp_path: Path) -> None:
    """Three runs in one go; the same with two workers; verified; the trials beside the rows."""
    common = ("run", "--method", f"{TOY}:Discs", "--dataset", "photos", "--every", "120", "--store", "kept")
    options = ("--policy", "extremes:4", "--max-clicks", "2")
    for workers, out in (("1", "one"), ("2", "two")):
        done = disbench(*common, *options, "--workers", workers, "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    columns = ["sample", "click", "x", "y", "positive", "iou", "boundary_iou", "mask"]
    rows = {name: read_run(tmp_path / "one" / name).rows(columns) for name in ("base", "worst", "best")}
    assert rows == {name: read_run(tmp_path / "two" / name).rows(columns) for name in rows}
    for name, extreme in (("worst", min), ("best", max)):
        trials = pq.read_table(tmp_path / "one" / name / "trials.parquet").to_pylist()
        assert trials == pq.read_table(tmp_path / "two" / name / "trials.parquet").to_pylist()
        assert rows[name]["iou"].to_pylist() == [extreme(t["iou"] for t in own["trials"]) for own in trials]
        assert all(len(own["trials"]) == 4 for own in trials)
        assert disbench("verify", f"one/{name}", cwd=tmp_path).returncode == 0
    areas = {name: np.array(own["iou"].to_pylist()).reshape(-1, 2).mean(axis=1) for name, own in rows.items()}
    series = extremes(read_entries(find_runs([tmp_path / "one"])))
    (cells,) = extremes_table(series).rows
    assert [cell.value for cell in cells[3:6]] == pytest.approx([areas[n].mean() for n in ("worst", "base", "best")])
    assert cells[9].value == pytest.approx(100 * (areas["best"] - areas["worst"]).mean())
    deviations = [np.std([t["iou"] for t in own["trials"]]) for own in trials if own["click"] == 1]
    assert cells[10].text == f"{np.mean(deviations):.3f}"
    assert disbench("report", "one", "--out", "report", cwd=tmp_path).returncode == 0
    assert "Extreme clicks" in (tmp_path / "report/report.md").read_text()
    assert not (tmp_path / "one/base/trials.parquet").exists()
    assert disbench(*common, "--policy", "worst:candidates=2", "--out", "alone", cwd=tmp_path).returncode == 0
    assert read_run(tmp_path / "alone").protocol.max_clicks == 5
