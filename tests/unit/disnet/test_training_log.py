"""The log of a training: its rows, what a resumed training drops, columns that come later."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from disbench.disnet.training.log import TrainingLog


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_there_as_they_are_added_also_without_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = TrainingLog(tmp_path, "log", 0)
    assert not log.path.exists()
    log.add(10, {"loss": 1.23456789, "rate": 5e-5})
    assert (tmp_path / "log.csv").read_text() == "step,loss,rate\n10,1.23457,5e-05\n"
    log.add(20, {"loss": 1.0, "rate": 0.0})
    assert [row["step"] for row in rows(log.path)] == ["10", "20"]
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"], "no partial file, no folder without TensorBoard"


def test_a_resumed_training_drops_what_comes_again(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "log", 0)
    for step in (10, 20, 30):
        log.add(step, {"loss": float(step)})
    resumed = TrainingLog(tmp_path, "log", 20)
    assert len(rows(log.path)) == 3, "until there is something new"
    resumed.add(20, {"loss": -1.0})
    assert [(row["step"], row["loss"]) for row in rows(log.path)] == [("10", "10"), ("20", "-1")]


def test_columns_that_come_later_are_empty_before(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "validation", 0)
    log.add(1, {"miou@1": 0.5})
    log.add(2, {"noc@90": 3.0})
    assert rows(tmp_path / "validation.csv") == [
        {"step": "1", "miou@1": "0.5", "noc@90": ""},
        {"step": "2", "miou@1": "", "noc@90": "3"},
    ]
    again = TrainingLog(tmp_path, "validation", 3)
    again.add(3, {"miou@1": 0.25, "noc@90": 2.0})
    assert len(rows(again.path)) == 3


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path, "log", 0)
    for step in (1, 2):
        log.add(step, {"loss": step / 2})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("log/loss")] == [(1, 0.5), (2, 1.0)]
