"""The policy replay: the recorded clicks and nothing else, honest figures where they end, runs that verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disbench.baselines.cards import method_spec
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach, iou
from disbench.harness import Execution, Protocol, StoredRun, evaluate, run_benchmark, verify_run
from disbench.io.recorded_clicks import Sequenced, as_parquet
from disbench.reports.entries import read_entries
from disbench.reports.report import make_report
from tests.toy_methods import Discs
from tests.toy_samples import ToySource
from tests.unit.forged_runs import forged, redescribed

SOURCE = ToySource()
METHOD = f"{Path(__file__).parents[2] / 'toy_methods.py'}:Discs"
ANN = {"s1": ((20, 20, True), (5, 5, False), (30, 12, True)), "s4": ((8, 9, True),)}


def recording(path: Path, clicks: dict[str, Any] | None = None, *more: Sequenced) -> Path:
    mine = [Sequenced(s, "ann", tuple(Click(*c) for c in made)) for s, made in (clicks or ANN).items()]
    path.write_bytes(as_parquet([*mine, *more]))
    return path


def replayed(folder: Path, text: str, **more: Any) -> StoredRun:
    protocol = Protocol(max_clicks=5, policy=text)
    return run_benchmark(method_spec(METHOD), SOURCE, folder, protocol, Execution(store="kept"), **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    folder = tmp_path_factory.mktemp("replay")
    recording(folder / "study.parquet", None, Sequenced("s0", "bo", (Click(1, 1, True),)))
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
        with pytest.raises(InputError, match=words):
            call()


def test_other_errors(run: StoredRun, tmp_path: Path) -> None:
    path = recording(tmp_path / "study.parquet", {"s1": [(20, 20, True)]})
    with pytest.raises(InputError, match="recorded clicks of ann"):
        replayed(tmp_path / "run", f"replay:{path}", limit=1)
    with pytest.raises(InputError, match="recorded clicks end by themselves"):
        Protocol(policy=f"replay:{path}", stop_at=0.9)
    path = recording(tmp_path / "study.parquet", {**ANN, "s4": ((8, 8, True),)})
    with pytest.raises(InputError, match=r"made with other settings \(protocol.policy"):
        replayed(run.folder, f"replay:{path}")


def test_in_this_process_the_same(run: StoredRun) -> None:
    found = evaluate(Discs(), SOURCE, policy=f"replay:{run.folder.parent / 'study.parquet'},user=ann", max_clicks=5)
    assert [row.iou for row in found.rows] == pytest.approx(run.rows()["iou"].to_pylist())
    assert found.noc(0.9999) == 5
    assert found.miou_curve()[-1] == pytest.approx(np.mean([v[-1] for v in run.by_sample().values()]))
