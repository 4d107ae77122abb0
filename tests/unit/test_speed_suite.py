"""The machinery of benchmarks/suite.py: by a clock that is set by hand; nothing here depends on time."""

import itertools
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import history
import paired_timing
import suite
import workloads
from paired_timing import Pair, Ratio, measure

from disbench.core.errors import InputError
from disbench.workers import threads


class FakeClock:
    """Time passes only where a side of a pair spends it."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def side(self, name, *seconds):
        durations = itertools.cycle(seconds)

        def spend():
            self.calls.append(name)
            self.now += next(durations)

        return spend


def pair(clock, ours, reference, **others):
    sides = clock.side("ours", *ours), clock.side("reference", *reference)
    return Pair("figure", *sides, "nothing", 4, "thing", clock, **others)


def record(ratios, processor="P", data="photos", commit="abc"):
    stored = {name: Ratio(*numbers, 0.001) for name, numbers in ratios.items()}
    return {"processor": processor, "data": data, "commit": commit, "ratios": history.rounded_ratios(stored)}


def test_a_ratio_is_of_the_best_turns_and_the_median_round():
    clock = FakeClock()
    found = measure(pair(clock, [1, 2, 4, 3], [1], rounds=3, turns=1))
    assert (found.median, found.low, found.high) == (3, 2, 4)
    assert found.seconds == 2 / 4
    assert clock.calls == ["ours", "reference"] * 4
    found = measure(pair(FakeClock(), [9, 2, 8, 9, 2], [5, 1, 2, 7, 1], rounds=2, turns=2))
    assert (found.low, found.high) == (2, 2)
    clock = FakeClock()
    found = measure(pair(clock, [0.25], [0.5], rounds=1, turns=1, slice_seconds=1))
    assert found.median == 0.5
    assert (clock.calls.count("ours"), clock.calls.count("reference")) == (1 + 4, 1 + 2)
    clock = FakeClock()
    timed = Pair("figure", lambda: 6.0, clock.side("reference", 2), "nothing", 1, "thing", clock, rounds=1)
    assert measure(timed).median == 3


def test_slower_is_what_grew_beyond_both_spreads():
    before = record({"worse": (2, 1.9, 2.1), "wider": (2, 1.9, 2.1), "better": (2, 1.9, 2.1), "even": (2, 2, 2)})
    now = {"worse": (2.3, 2.2, 2.4), "wider": (2.6, 2.05, 3), "better": (1, 0.9, 1.1), "even": (2, 2, 2)}
    found = history.changes(record(now | {"new": (9, 9, 9)}), [before])
    assert [name for name, change in found.items() if change.slower] == ["worse"]
    assert found["new"].before is None
    assert found["worse"].commit == "abc"


def test_only_the_last_record_of_the_processor_and_the_data_counts():
    records = [
        record({"figure": (1, 1, 1)}, commit="old"),
        record({"figure": (5, 5, 5)}, commit="last"),
        record({"other": (1, 1, 1)}, commit="part"),
        record({"figure": (1, 1, 1)}, processor="Q"),
        record({"figure": (1, 1, 1)}, data="real"),
    ]
    change = history.changes(record({"figure": (3, 3, 3)}), records)["figure"]
    assert (change.commit, change.slower) == ("last", False)
    elsewhere = history.changes(record({"figure": (3, 3, 3)}, processor="R"), records)["figure"]
    assert (elsewhere.before, elsewhere.slower) == (None, False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The smallest workload: one scene, one target."""
    folder = tmp_path_factory.mktemp("speed")
    return workloads.Workload(None, folder, scenes=1, targets=1, json_bytes=0)


STARTS_PROCESSES = ("startup", "loading-1", "loading-2")


@pytest.mark.parametrize("name", [name for name in workloads.FIGURES if name not in STARTS_PROCESSES])
def test_a_figure_is_of_two_sides_that_run(photos, name):
    found = next(workloads.pairs(photos, [name]))
    assert found.name == name and found.items > 0
    for side in (found.ours, found.reference):
        seconds = side()
        assert seconds is None or seconds >= 0


def test_unknown_figures_are_refused(tmp_path):
    with pytest.raises(InputError, match="click"):
        next(workloads.pairs(workloads.Workload(None, tmp_path), ["clik"]))


def test_the_command_keeps_compares_and_fails(tmp_path, monkeypatch, capsys):
    path = tmp_path / "history.jsonl"
    monkeypatch.setattr(threads, "limit", lambda count: None)
    monkeypatch.delenv("DISBENCH_DATA", raising=False)
    cost = 1.0

    def pairs(work, only):
        clock = FakeClock()
        return [pair(clock, [cost], [1], rounds=2)]

    monkeypatch.setattr(workloads, "pairs", pairs)
    arguments = ["--history", str(path), "--compare", "--fail"]
    assert suite.main(arguments) == 0
    cost = 1.5
    assert suite.main([*arguments, "--no-history"]) == 1
    assert "SLOWER" in capsys.readouterr().out
    cost = 0.5
    assert suite.main(arguments) == 0
    records = history.read_history(path)
    assert [found["ratios"]["figure"]["median"] for found in records] == [1, 0.5]
    assert {"date", "commit", "versions", "processor", "load", "rounds"} <= set(records[0])
    assert records[0]["rounds"] == paired_timing.ROUNDS
