"""A run that was made honestly holds; one that was changed afterwards does not, as far as its masks can tell."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core import masks
from disbench.core.samples import Sample
from disbench.harness import StoredRun, store, verify_run
from disbench.harness.verification import Verification
from tests.toy_methods import Discs, Misbehaves
from tests.toy_samples import ToySource, make_samples
from tests.unit.run_tools import Rows, forged, redescribed, toy_run

SAMPLES = make_samples(6)


class Ready(ToySource):
    """Toy samples that are made once."""

    def read(self, index: int) -> Sample:
        return SAMPLES[index]


SOURCE = Ready()
THREE = Discs(candidates=3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredRun]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "none": toy_run(folder / "none", SOURCE, THREE, store="none"),
        "kept": toy_run(folder / "kept", SOURCE, THREE, store="kept"),
        "all": toy_run(folder / "all", SOURCE, THREE, store="all"),
    }


def verify(run: StoredRun | Path, source: Any = SOURCE) -> Verification:
    return verify_run(run if isinstance(run, Path) else run.folder, source=source)


@dataclass(frozen=True)
class WithInitial(ToySource):
    """Toy samples, every other with an initial mask."""

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        if index % 2:
            return sample
        initial = np.zeros(sample.target.shape, dtype=bool)
        initial[5:25, 5:25] = True
        return replace(sample, initial=initial)


@pytest.mark.parametrize("stored", ["none", "kept", "all"])
def test_an_honest_run_holds(runs: dict[str, StoredRun], stored: str) -> None:
    found = verify(runs[stored])
    assert found.problems == ()
    assert found.figures is not None
    assert [found.figures[name].number for name in ("samples", "clicks")] == [6, 30]
    assert (found.clicks, found.measured) == ((6, 0) if stored == "none" else (30, 30))
    assert found.moved == 0
    assert ["there are no masks" in what for what in found.unchecked] == [True] * (stored == "none")
    state = ", as far as it could be checked" if stored == "none" else ""
    assert found.lines()[0] == f"{runs[stored].folder}: the run holds{state}"


@pytest.mark.parametrize(
    ("method", "source", "protocol"),
    [
        (Discs(), SOURCE, {"policy": "random", "seed": 4}),
        (Discs(), SOURCE, {"policy": "jitter:sigma=0.6", "seed": 4}),
        (Discs(), SOURCE, {"stop_at": 0.5}),
        (Discs(), SOURCE, {"every": 4}),
        (THREE, SOURCE, {"selection": "score"}),
        (THREE, SOURCE, {"selection": "oracle-all"}),
        (Discs(candidates=3, scores=False), SOURCE, {}),
        (Discs(), WithInitial(), {"initial_masks": False}),
        (Discs(), WithInitial(), {}),
    ],
)
def test_every_protocol_can_be_verified(
    tmp_path: Path, method: Discs, source: ToySource, protocol: dict[str, Any]
) -> None:
    run = toy_run(tmp_path / "run", source, method, **protocol)
    found = verify(run, source)
    assert (found.problems, found.unchecked, found.notes) == ((), (), ())
    assert found.clicks == found.measured == len(run.rows())


def test_failures_are_verified(tmp_path: Path) -> None:
    source = ToySource(5, (0, 1, 2, 3, 4))
    run = toy_run(tmp_path / "run", source, Misbehaves())
    found = verify(run, source)
    assert found.problems == ()
    assert found.figures is not None and found.figures["failed"].number == 4
    for values, words in (
        ({"failure": "another"}, "failed: 4, in the rows 4"),
        ({"iou": 0.5}, "failure with a result"),
    ):
        changed = forged(run, tmp_path / words, lambda rows, values=values: rows[5].update(values))
        assert any(words in problem for problem in verify(changed, source).problems)


def another_iou(value: float) -> float:
    return float(np.float32(value + (0.01 if value < 0.5 else -0.01)))


def another_mask(row: dict[str, Any], counts: bytes) -> bytes:
    """With one pixel, which counts, turned round."""
    target = SAMPLES[int(row["sample"][1:])].target
    mask = masks.decode({"size": [row["height"], row["width"]], "counts": counts})
    y, x = np.argwhere(target >= 0)[0]
    mask[y, x] = not mask[y, x]
    return masks.encode(mask)["counts"]


def item(values: Any, at: int, change: Callable[[Any], Any]) -> tuple[Any, ...]:
    return (*values[:at], change(values[at]), *values[at + 1 :])


CHANGES: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "sample": lambda row, at: row["sample"] + "x",
    "click": lambda row, at: row["click"] + 1,
    "x": lambda row, at: (row["x"] + 3 + at) % row["width"],
    "y": lambda row, at: (row["y"] + 3 + at) % row["height"],
    "positive": lambda row, at: not row["positive"],
    "iou": lambda row, at: another_iou(row["iou"]),
    "boundary_iou": lambda row, at: another_iou(row["boundary_iou"]),
    "kept": lambda row, at: (row["kept"] + 1 + at) % 4,
    "candidates": lambda row, at: row["candidates"] + 1,
    "candidate_ious": lambda row, at: item(row["candidate_ious"], at, another_iou),
    "candidate_scores": lambda row, at: item(row["candidate_scores"], at, lambda value: math.inf),
    "model_seconds": lambda row, at: row["model_seconds"] + 0.1,
    "harness_seconds": lambda row, at: row["harness_seconds"] * 2,
    "height": lambda row, at: row["height"] + 1,
    "width": lambda row, at: row["width"] - 1,
    "failure": lambda row, at: "a bad day",
    "mask": lambda row, at: [None, b"", another_mask(row, row["mask"])][at],
    "candidate_masks": lambda row, at: item(row["candidate_masks"], at, lambda counts: another_mask(row, counts)),
}
"""A change of one value of each column; `at` is 0, 1 or 2."""
NOT_ALONE = ("x", "y", "positive", "boundary_iou")
"""What rows without masks cannot tell, from the second click on (docs/submitting.md)."""


def change(column: str, number: int, at: int) -> Callable[[Rows], object]:
    return lambda rows: rows[number].update({column: CHANGES[column](rows[number], at)})


@given(st.sampled_from(sorted(CHANGES)), st.integers(0, 29), st.integers(0, 2))
@settings(max_examples=30)
def test_with_masks_no_changed_value_passes(runs: dict[str, StoredRun], column: str, number: int, at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = verify(forged(runs["all"], Path(folder) / "run", change(column, number, at)))
    assert not found.holds or (column in ("x", "y") and found.moved == 1)


@pytest.mark.parametrize("column", sorted(set(CHANGES) - {"mask", "candidate_masks"}))
def test_what_rows_alone_can_tell(runs: dict[str, StoredRun], tmp_path: Path, column: str) -> None:
    """With the dataset, the first click besides."""
    changed = forged(runs["none"], tmp_path / "run", change(column, 8, 0))
    assert verify_run(changed.folder).holds == (column in NOT_ALONE)
    if column in ("x", "y", "positive"):
        (problem, *_) = verify(forged(runs["none"], tmp_path / "first", change(column, 10, 0))).problems
        assert "click that does not follow" in problem and "'s2', click 1" in problem


def in_row_3(**values: object) -> Callable[[Rows], object]:
    return lambda rows: rows[3].update(values)


def widen(rows: Rows) -> None:
    for row in rows[:5]:
        row["width"] += 1


@pytest.mark.parametrize(
    ("stored", "what", "words"),
    [
        ("all", lambda rows: rows.insert(0, rows.pop()), "are not together"),
        ("all", lambda rows: rows.pop(), "ends early"),
        ("all", lambda rows: rows.clear(), "samples: 6, in the rows 0"),
        ("all", lambda rows: rows.append({**rows[-1], "click": 6}), "more clicks than"),
        ("all", lambda rows: rows.append({**rows[0], "sample": "t"}), "limit do not give: 't'"),
        ("all", lambda rows: rows.__delitem__(slice(5, 10)), "1 x sample that is missing: 's1'"),
        (
            "all",
            lambda rows: rows.sort(key=lambda row: row["sample"] == "s0"),
            "1 x sample out of the dataset's order: 's0'",
        ),
        ("all", lambda rows: rows[3].update(x=rows[2]["x"], y=rows[2]["y"]), "nothing is left to correct"),
        ("all", in_row_3(candidate_ious=(None, 0.1, 0.2)), "empty entry"),
        ("all", in_row_3(candidate_masks=(None,) * 3), "empty entry"),
        ("all", in_row_3(mask=b"garbage"), "mask that does not fit the image"),
        ("all", in_row_3(candidate_masks=None), "other masks than"),
        ("all", in_row_3(x=1000), "outside the image"),
        ("all", in_row_3(model_seconds=math.nan), "time that is negative or not finite"),
        ("all", in_row_3(model_seconds=-1.0), "time that is negative or not finite"),
        ("all", in_row_3(iou=7.0, candidate_ious=(7.0,) * 3), "outside [0, 1]"),
        ("all", widen, "mask that does not fit the image"),
        ("none", widen, "1 x sample of another size than in the dataset: 's0'"),
    ],
)
def test_rows_that_do_not_fit(
    runs: dict[str, StoredRun], tmp_path: Path, stored: str, what: Callable[[Rows], object], words: str
) -> None:
    found = verify(forged(runs[stored], tmp_path / "run", what))
    assert any(words in problem for problem in found.problems), found.problems


def test_iou_and_candidate_changed_together_need_masks(runs: dict[str, StoredRun], tmp_path: Path) -> None:
    def together(rows: Rows) -> None:
        row, value = rows[7], another_iou(rows[7]["iou"])
        row.update(iou=value, candidate_ious=item(row["candidate_ious"], row["kept"], lambda _: value))

    assert verify(forged(runs["none"], tmp_path / "none", together)).holds
    for stored in ("kept", "all"):
        found = verify(forged(runs[stored], tmp_path / stored, together))
        assert any("iou that its mask does not have" in problem for problem in found.problems)


def test_a_choice_by_the_masks_themselves(tmp_path: Path) -> None:
    """Without scores the candidate nearest to the mask kept before is kept: only all masks can tell."""
    run = toy_run(tmp_path / "run", SOURCE, Discs(candidates=3, scores=False))

    def another(rows: Rows) -> None:
        row = rows[4]
        other = (row["kept"] + 1) % 3
        row.update(kept=other, iou=row["candidate_ious"][other], mask=row["candidate_masks"][other])

    problems = verify(forged(run, tmp_path / "forged", another)).problems
    assert any("does not keep, by its masks: 's0', click 5" in problem for problem in problems)


@dataclass(frozen=True)
class Bars(ToySource):
    """A bar, whose middle line is equally deep."""

    count: int = 1

    def read(self, index: int) -> Sample:
        target = np.zeros((40, 60), dtype=np.int8)
        target[10:21, 10:50] = 1
        return Sample("s0", np.zeros((40, 60, 3), dtype=np.uint8), target)


def test_a_click_moved_within_the_tolerance_is_told_and_not_refused(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", Bars(), max_clicks=1)
    row = run.rows().to_pylist()[0]
    assert (row["x"], row["y"]) == (15, 15)
    moved = verify(forged(run, tmp_path / "moved", lambda rows: rows[0].update(x=30)), Bars())
    assert (moved.holds, moved.moved, moved.clicks) == (True, 1, 1)
    assert "1 of 1 clicks are not where they are simulated here" in moved.notes[0]
    for number, place in enumerate(({"x": 47}, {"y": 16}, {"x": 5}, {"x": 30, "positive": False})):
        wrong = forged(run, tmp_path / f"wrong-{number}", lambda rows, place=place: rows[0].update(place))
        assert "x click that does not follow" in verify(wrong, Bars()).problems[0]


def test_a_jittered_click_around_a_moved_centre(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", Bars(), max_clicks=1, policy="jitter", seed=2)
    row = run.rows().to_pylist()[0]
    moved = forged(run, tmp_path / "moved", lambda rows: rows[0].update(x=row["x"] + 4))
    assert (verify(moved, Bars()).holds, verify(moved, Bars()).moved) == (True, 1)
    wrong = forged(run, tmp_path / "wrong", lambda rows: rows[0].update(y=row["y"] + 1))
    assert not verify(wrong, Bars()).holds
    drawn = toy_run(tmp_path / "drawn", Bars(), max_clicks=1, policy="random")
    wrong = forged(drawn, tmp_path / "drawn-wrong", lambda rows: rows[0].update(x=rows[0]["x"] ^ 1))
    assert not verify(wrong, Bars()).holds


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("protocol", "max_clicks", 6),
        ("protocol", "selection", "score"),
        ("protocol", "policy", "random"),
        ("protocol", "stop_at", 0.3),
        ("protocol", "every", 2),
        ("protocol", "limit", 3),
        ("dataset", "samples", 7),
        ("execution", "store", "kept"),
        ("result", "samples", 5),
        ("result", "clicks", 31),
        ("result", "failed", [{"sample": "s0", "click": 1, "reason": "x"}]),
        ("result", "model_seconds", 0.0),
        ("result", "harness_seconds", 1e6),
    ],
)
def test_a_record_that_does_not_fit_the_rows(
    runs: dict[str, StoredRun], tmp_path: Path, part: str, key: str, value: Any
) -> None:
    place = redescribed(runs["all"], tmp_path / "run", lambda said: said[part].update({key: value}))
    assert not verify(place).holds


def test_another_dataset_is_told(runs: dict[str, StoredRun]) -> None:
    found = verify(runs["all"], ToySource(7))
    assert (found.holds, found.clicks) == (True, 0)
    assert "the dataset 'toy' here has the content hash" in found.unchecked[0]
    found = verify_run(runs["all"].folder)
    assert "'toy' is not a dataset of disbench; name its card or folder with --dataset" in found.unchecked[0]


def test_a_sample_without_end_is_read_in_pieces(
    runs: dict[str, StoredRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def repeat(rows: Rows) -> None:
        rows[1:5] = [{**rows[1], "click": 2 + number} for number in range(2000)]

    monkeypatch.setattr(store, "MOST_CLICKS", 600)
    run = forged(runs["none"], tmp_path / "run", repeat)
    assert [len(table) for table in run.samples()] == [640, 640, 640, 81, 5, 5, 5, 5, 5]
    assert any("are not together: 's0'" in problem for problem in verify(run).problems)
