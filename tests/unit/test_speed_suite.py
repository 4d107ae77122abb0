"""The machinery of benchmarks/suite.py: by a clock that is set by hand; nothing here depends on time."""

import itertools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import history
import paired_timing
import suite
import workloads
from paired_timing import Pair, Ratio, measured

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
    told = {name: Ratio(*numbers, 0.001) for name, numbers in ratios.items()}
    return {"processor": processor, "data": data, "commit": commit, "ratios": history.as_ratios(told)}


def test_ratio_is_the_median_of_the_rounds_and_both_sides_take_turns():
    clock = FakeClock()
    found = measured(pair(clock, [1, 2, 4, 3], [1], rounds=3, turns=1))
    assert (found.median, found.low, found.high) == (3, 2, 4)
    assert found.seconds == 2 / 4
    assert clock.calls == ["ours", "reference"] * 4


def test_a_round_keeps_the_best_of_its_turns():
    found = measured(pair(FakeClock(), [9, 2, 8, 9, 2], [5, 1, 2, 7, 1], rounds=2, turns=2))
    assert (found.low, found.high) == (2, 2)


def test_quick_sides_are_repeated_to_fill_a_slice():
    clock = FakeClock()
    found = measured(pair(clock, [0.25], [0.5], rounds=1, turns=1, slice_seconds=1))
    assert found.median == 0.5
    assert (clock.calls.count("ours"), clock.calls.count("reference")) == (1 + 4, 1 + 2)


def test_a_side_that_times_itself_is_believed():
    clock = FakeClock()
    timed = Pair("figure", lambda: 6.0, clock.side("reference", 2), "nothing", 1, "thing", clock, rounds=1)
    assert measured(timed).median == 3


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


def test_damaged_lines_are_named_and_left_out(tmp_path):
    path = tmp_path / "history.jsonl"
    good = json.dumps(record({"figure": (1, 1, 1)}))
    bad = ['{"processor": "P"', "[]", '{"processor": "P", "data": "photos", "commit": "", "ratios": {"a": 3}}', "\xff"]
    path.write_bytes("\n".join([good, *bad, good[:40]]).encode("latin-1"))
    records, complaints = history.read_history(path)
    assert records == [json.loads(good)]
    assert [number for number in range(1, 7) if any(f"line {number} " in text for text in complaints)] == [
        2,
        3,
        4,
        5,
        6,
    ]
    history.appended(path, record({"figure": (2, 2, 2)}))
    assert [found["ratios"]["figure"]["median"] for found in history.read_history(path)[0]] == [1, 2]


def test_no_history_is_an_empty_one(tmp_path):
    assert history.read_history(tmp_path / "none.jsonl") == ([], [])


def test_records_of_several_writers_stay_whole(tmp_path):
    path = tmp_path / "history.jsonl"
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda n: history.appended(path, record({"f" * 999: (n, n, n)})), range(1, 41)))
    records, complaints = history.read_history(path)
    assert not complaints
    assert sorted(found["ratios"]["f" * 999]["median"] for found in records) == list(range(1, 41))


def test_a_record_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "history.jsonl"
    history.appended(path, record({"figure": (1, 1, 1)}))
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(history.os, "write", lambda to, line: write(to, line[:10]))
    with pytest.raises(OSError, match="disk is full"):
        history.appended(path, record({"figure": (2, 2, 2)}))
    assert path.read_bytes() == before


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
    records, complaints = history.read_history(path)
    assert [found["ratios"]["figure"]["median"] for found in records] == [1, 0.5]
    assert not complaints
    assert {"date", "commit", "versions", "processor", "load", "rounds"} <= set(records[0])
    assert records[0]["rounds"] == paired_timing.ROUNDS
