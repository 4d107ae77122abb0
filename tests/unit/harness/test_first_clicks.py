"""The task first-clicks: a plain loop's numbers, images opened once, failures, and its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from disbench.baselines.cards import method_spec
from disbench.core.clicks import Click, next_click
from disbench.core.errors import InputError
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.prediction import Prediction
from disbench.harness.run import run_task
from disbench.harness.sample_loop import FirstClicksTask, StoredFirstClicks, read_first_clicks_run
from disbench.harness.store import read_run
from disbench.harness.tasks import Clicked, Reader, run_chunk
from disbench.io.recorded_clicks import Sequenced, as_parquet
from disbench.reports.report import make_report
from disbench.reports.sensitivity import first_clicks_table, read_first_click_numbers
from tests import toy_methods
from tests.toy_methods import Discs
from tests.toy_samples import ToySource

SOURCE = ToySource()
REAL = {
    "s1": {"pc-0001": (20, 20), "pc-0002": (5, 5), "mobile-0001": (30, 12)},
    "s4": {"pc-0001": (8, 9)},
    "s5": {"pc-0001": (20, 20), "pc-0002": (21, 20)},
}


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.parquet"
    made = [
        Sequenced(sample, user, (Click(*place, positive=True), Click(0, 0, positive=False)))
        for sample, users in REAL.items()
        for user, place in users.items()
    ]
    path.write_bytes(as_parquet(made))
    return path


def finished(clicks: Path, *options: str, method: str = "Discs", source: ToySource = SOURCE) -> StoredFirstClicks:
    spec = method_spec(f"{toy_methods.__file__}:{method}", options)
    run_task(spec, source, clicks.parent / "run", FirstClicksTask.of(f"replay:{clicks}", spec.threshold))
    return read_first_clicks_run(clicks.parent / "run")


@pytest.mark.parametrize("scores", [True, False])
def test_rows_are_those_of_a_plain_loop(clicks: Path, *, scores: bool) -> None:
    run = finished(clicks, "candidates=3", f"scores={scores}".lower())
    expected = []
    for sample, users in REAL.items():
        read = SOURCE.read(SOURCE.ids.index(sample))
        standard = next_click(read.target, np.zeros(read.target.shape, dtype=bool))
        made = {None: standard} | {user: Click(*place, positive=True) for user, place in users.items()}
        for number, (user, click) in enumerate(made.items(), 1):
            masks = Discs(candidates=3).open(read.image).predict([click]).masks
            ious = [iou(read.target, mask) for mask in masks]
            on_target = bool(read.target[click.y, click.x] == 1)
            boundary = TargetBoundary(read.target).iou(masks[0])
            expected.append((sample, number, user, click.x, click.y, on_target, 0, ious[0], boundary, ious))
    names = ("sample", "click", "user", "x", "y", "on_target", "kept", "iou", "boundary_iou", "candidate_ious")
    found = [tuple(row[name] for name in names) for row in run.rows().to_pylist()]
    assert [row[:7] for row in found] == [row[:7] for row in expected]
    for got, wanted in zip(found, expected, strict=True):
        assert np.allclose(np.hstack(got[7:]), np.hstack(wanted[7:]))
    assert run.record.protocol.policy.startswith("replay:clicks.parquet,clicks=")
    with pytest.raises(InputError, match="first-clicks"):
        read_run(run.folder)


def test_the_table_is_the_means_over_samples(clicks: Path) -> None:
    run = finished(clicks, "candidates=3")
    numbers = read_first_click_numbers(run)
    own = {sample: [row for row in run.rows().to_pylist() if row["sample"] == sample] for sample in REAL}
    real = {sample: [row["iou"] for row in rows[1:]] for sample, rows in own.items()}
    assert np.allclose(numbers.recorded, [np.mean(values) for values in real.values()])
    assert np.allclose(numbers.standard, [rows[0]["iou"] for rows in own.values()])
    assert np.allclose(numbers.deviation, [np.std(values) for values in real.values()])
    assert np.allclose(numbers.best[1], [np.mean([max(r["candidate_ious"]) for r in o[1:]]) for o in own.values()])
    for percent, (_, others) in zip((75, 90), numbers.others, strict=True):
        cut = np.float32(percent / 100)
        rescued = [[r["iou"] < cut <= max(r["candidate_ious"]) for r in rows[1:]] for rows in own.values()]
        assert np.allclose(others, [np.mean(of_sample) for of_sample in rescued])
    (row,) = first_clicks_table([numbers]).rows
    assert [cell.text for cell in row[2:5]] == ["3", "6", str(numbers.off_target)]
    make_report([run.folder], clicks.parent / "report")
    page = (clicks.parent / "report" / "report.md").read_text()
    assert f"{numbers.recorded.mean():.3f}" in page
    assert "First clicks of people" in page
    assert read_first_clicks_run(run.folder).rows().equals(run.rows())


def test_a_sample_with_a_failure_counts_nothing(clicks: Path) -> None:
    run = finished(clicks, method="Misbehaves", source=ToySource(faults=(0, 1)))
    numbers = read_first_click_numbers(run)
    assert [failure.sample for failure in run.record.result.failed] == ["s1"]
    assert (numbers.failed, numbers.standard[0], numbers.recorded[0]) == (1, 0, 0)
    assert numbers.recorded[2] > 0


class Restarted:
    """Counts openings and restarts; answers by all clicks since the last of them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def open(self, image: np.ndarray) -> Restarted:
        self.events.append("open")
        self.size = image.shape[:2]
        return self

    def restart(self) -> None:
        self.events.append("restart")

    def predict(self, clicks: list[Click]) -> Prediction:
        assert len(clicks) == 1
        self.events.append("click")
        return Prediction(np.ones((1, *self.size), dtype=bool))


def test_an_image_is_opened_once_and_reset_between_clicks(clicks: Path) -> None:
    method, task = Restarted(), FirstClicksTask.of(f"replay:{clicks}", 0.5)
    number = SOURCE.ids.index("s5")
    events = list(run_chunk(method, [Reader(number, "s5", lambda: SOURCE.read(number))], task))
    assert method.events == ["open", "click", "restart", "click", "restart", "click"]
    assert [event.done for event in events if isinstance(event, Clicked)] == [False, False, True]


def test_what_the_task_refuses(clicks: Path) -> None:
    with pytest.raises(InputError, match="center"):
        FirstClicksTask.of("center", 0.5)
    with pytest.raises(InputError, match="'pc-0009'"):
        FirstClicksTask.of(f"replay:{clicks},user=pc-0009", 0.5)
    assert set(FirstClicksTask.of(f"replay:{clicks},user=pc-0002", 0.5).users) == {"s1", "s5"}
