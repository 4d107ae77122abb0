"""Recorded clicks: replayed by a policy, and as the first clicks of people; honest figures, runs that verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disbench.baselines.cards import method_spec
from disbench.core.clicks import Click, next_click
from disbench.core.metrics import TargetBoundary, clicks_to_reach, iou
from disbench.harness import Execution, Protocol, StoredRun, evaluate, run_benchmark, verify_run
from disbench.harness.run import run_task
from disbench.harness.sample_loop import FirstClicksTask, StoredFirstClicks, read_first_clicks_run
from disbench.harness.store import read_run
from disbench.harness.tasks import Reader, RowFinished, run_chunk
from disbench.io.recorded_clicks import ClickSequence, to_parquet
from disbench.reports.entries import read_entries
from disbench.reports.report import make_report
from disbench.reports.sensitivity import first_clicks_table, read_first_click_numbers
from tests import toy_methods
from tests.refusals import refuses
from tests.toy_methods import Answers, Discs
from tests.toy_samples import ToySource
from tests.unit.run_tools import forged, redescribed

SOURCE = ToySource()
METHOD = f"{Path(__file__).parents[2] / 'toy_methods.py'}:Discs"
ANN = {"s1": ((20, 20, True), (5, 5, False), (30, 12, True)), "s4": ((8, 9, True),)}


def recording(path: Path, clicks: dict[str, Any] | None = None, *more: ClickSequence) -> Path:
    mine = [ClickSequence(s, "ann", tuple(Click(*c) for c in made)) for s, made in (clicks or ANN).items()]
    path.write_bytes(to_parquet([*mine, *more]))
    return path


def replayed(folder: Path, text: str, **more: Any) -> StoredRun:
    protocol = Protocol(max_clicks=5, policy=text)
    return run_benchmark(method_spec(METHOD), SOURCE, folder, protocol, Execution(store="kept"), **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    folder = tmp_path_factory.mktemp("replay")
    recording(folder / "study.parquet", None, ClickSequence("s0", "bo", (Click(1, 1, True),)))
    return replayed(folder / "run", f"replay:{folder / 'study.parquet'},user=ann")


def test_the_rows_are_the_recorded_clicks_and_what_they_give_by_hand(run: StoredRun) -> None:
    rows = run.rows().to_pylist()
    found = [(row["sample"], row["click"], (row["x"], row["y"], row["positive"])) for row in rows]
    assert found == [(s, n, click) for s, made in ANN.items() for n, click in enumerate(made, 1)]
    policy = run.protocol.policy
    assert policy.startswith("replay:study.parquet,user=ann,clicks=")
    assert str(run.folder.parent) not in policy
    sample = SOURCE.read(SOURCE.ids.index("s1"))
    session = Discs().open(sample.image)
    made = [Click(*click) for click in ANN["s1"]]
    expected = [iou(sample.target, session.predict(made[:n]).masks[0]) for n in (1, 2, 3)]
    assert np.allclose([row["iou"] for row in run.rows().to_pylist()[:3]], expected)


def test_the_last_mask_stands(run: StoredRun) -> None:
    ious = run.by_sample()
    own = {s: [row["iou"] for row in run.rows().to_pylist() if row["sample"] == s] for s in ANN}
    for sample, values in ious.items():
        padded = own[sample] + [own[sample][-1]] * (5 - len(own[sample]))
        assert values.tolist() == padded
    highest = max(own["s1"])
    assert clicks_to_reach([ious["s1"]], highest, 5)[0] == own["s1"].index(highest) + 1
    assert clicks_to_reach([ious["s4"]], 0.9999, 5)[0] == 5  # not reached counts as the most


def test_tables_say_so(run: StoredRun, tmp_path: Path) -> None:
    entry = read_entries([run])[0]
    assert entry.rows.ran_out == 2
    assert entry.conditions["samples"] == "all, of them 2 with recorded clicks"
    make_report([run.folder], tmp_path, page=True)
    for name in ("report.md", "results.csv"):
        assert "2 of 2 samples with fewer than 5 recorded clicks" in (tmp_path / name).read_text()


def test_it_verifies_with_the_recording(run: StoredRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = verify_run(run.folder, source=SOURCE)
    assert found.problems == ()
    assert (found.clicks, found.measured, found.unchecked) == (4, 4, ())
    assert "  4 clicks are the recorded ones" in found.lines()
    elsewhere = recording(tmp_path / "moved.parquet")
    assert verify_run(run.folder, source=SOURCE, recording=elsewhere).clicks == 4
    other = redescribed(run, tmp_path / "alone", lambda description: None)
    found = verify_run(other, source=SOURCE)
    assert found.problems == ()
    assert any("study.parquet: no such file here; name it with --recording" in w for w in found.unchecked)
    wrong = recording(tmp_path / "study.parquet", {"s1": [(0, 0, True)]})
    found = verify_run(other, source=SOURCE, recording=wrong)
    assert any("have the digest" in words for words in found.unchecked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1].update(x=rows[1]["x"] + 1), ("not the recorded one", "'s1', click 2 (6,5,-, not 5,5,-)")),
        (lambda rows: rows.pop(2), ("sample that ends early",)),
        (lambda rows: rows.pop(3), ("sample that is missing",)),
    ],
)
def test_a_forged_one_does_not(run: StoredRun, tmp_path: Path, change: Any, words: tuple[str, ...]) -> None:
    other = forged(run, tmp_path / "forged", change)
    found = verify_run(other.folder, source=SOURCE, recording=run.folder.parent / "study.parquet")
    assert any(all(word in problem for word in words) for problem in found.problems), found.problems


@pytest.mark.parametrize(
    ("clicks", "words"),
    [
        ({"s1": [(20, 20, True)], "t9": [(1, 1, True)]}, "'t9'"),
        ({"s1": [(20, 20, True), (4000, 3, True)]}, "click 2 on the sample 's1' is at x = 4000, y = 3, outside"),
    ],
)
def test_clicks_of_no_sample_or_outside_it(tmp_path: Path, clicks: dict[str, Any], words: str) -> None:
    policy = f"replay:{recording(tmp_path / 'study.parquet', clicks)}"
    for call in (lambda: replayed(tmp_path / "run", policy), lambda: evaluate(Discs(), SOURCE, policy=policy)):
        refuses(words, call)


def test_other_errors(run: StoredRun, tmp_path: Path) -> None:
    path = recording(tmp_path / "study.parquet", {"s1": [(20, 20, True)]})
    refuses("recorded clicks of ann", replayed, tmp_path / "run", f"replay:{path}", limit=1)
    refuses("recorded clicks end by themselves", Protocol, policy=f"replay:{path}", stop_at=0.9)
    path = recording(tmp_path / "study.parquet", {**ANN, "s4": ((8, 8, True),)})
    refuses(r"made with other settings \(protocol.policy", replayed, run.folder, f"replay:{path}")


def test_in_this_process_the_same(run: StoredRun) -> None:
    found = evaluate(Discs(), SOURCE, policy=f"replay:{run.folder.parent / 'study.parquet'},user=ann", max_clicks=5)
    assert [row.iou for row in found.rows] == pytest.approx(run.rows()["iou"].to_pylist())
    assert found.noc(0.9999) == 5
    assert found.miou_curve()[-1] == pytest.approx(np.mean([v[-1] for v in run.by_sample().values()]))


REAL = {
    "s1": {"pc-0001": (20, 20), "pc-0002": (5, 5), "mobile-0001": (30, 12)},
    "s4": {"pc-0001": (8, 9)},
    "s5": {"pc-0001": (20, 20), "pc-0002": (21, 20)},
}


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.parquet"
    made = [
        ClickSequence(sample, user, (Click(*place, positive=True), Click(0, 0, positive=False)))
        for sample, users in REAL.items()
        for user, place in users.items()
    ]
    path.write_bytes(to_parquet(made))
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
    refuses("first-clicks", read_run, run.folder)


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


def test_an_image_is_opened_once_and_reset_between_clicks(clicks: Path) -> None:
    method, task = Answers(verb="restart"), FirstClicksTask.of(f"replay:{clicks}", 0.5)
    number = SOURCE.ids.index("s5")
    events = list(run_chunk(method, [Reader(number, "s5", lambda: SOURCE.read(number))], task))
    assert method.told == ["open", 1, "restart", 1, "restart", 1]
    assert [event.done for event in events if isinstance(event, RowFinished)] == [False, False, True]


def test_what_the_task_refuses(clicks: Path) -> None:
    refuses("center", FirstClicksTask.of, "center", 0.5)
    refuses("'pc-0009'", FirstClicksTask.of, f"replay:{clicks},user=pc-0009", 0.5)
    assert set(FirstClicksTask.of(f"replay:{clicks},user=pc-0002", 0.5).users) == {"s1", "s5"}
