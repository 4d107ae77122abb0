"""Which samples are hard for a run, and the sheets of pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from disbench.core.errors import InputError
from disbench.reports.entries import read_entries
from disbench.reports.samples import hard_samples, write_failures
from tests.toy_methods import Discs
from tests.unit.picture_tools import write_photo_run
from tests.unit.run_tools import draw_ious, write_run


def test_hard_samples_against_loops_over_the_rows(tmp_path: Path) -> None:
    ious = draw_ious(40, seed=4)
    ious[3:5] = 0.6  # equal ones stand in the dataset's order
    ious[5, :19], ious[5, 19] = 0.5, 0.9  # at the very last click: solved
    run = write_run(tmp_path / "run", ious)
    never, late = hard_samples(*read_entries([run]))
    firsts = [next((c for c, v in enumerate(row, 1) if v >= np.float32(0.9)), None) for row in ious]
    assert {one.sample for one in never} == {f"s{i}" for i, first in enumerate(firsts) if first is None}
    assert {one.sample for one in late} == {f"s{i}" for i, first in enumerate(firsts) if first and first > 1}
    assert [one.final for one in never] == sorted(one.final for one in never)
    assert [one.noc for one in late] == sorted((one.noc for one in late), reverse=True)
    assert [one.sample for one in never if one.sample in ("s3", "s4")] == ["s3", "s4"]
    assert (late[0].sample, late[0].noc, late[0].solved) == ("s5", 20, True)


def test_a_failed_sample_is_the_worst(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [[0.5] * 20, [0.6, 0.7], [0.1] * 20], failed={1: "a bad day"})
    assert next((one.sample, one.final) for one in hard_samples(*read_entries([run]))[0]) == ("s1", 0.0)


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    early = write_run(tmp_path / "early", [[0.86]], protocol={"stop_at": 0.85})
    with pytest.raises(InputError, match="--stop-at"):
        hard_samples(*read_entries([early]))
    write_run(tmp_path / "run")
    with pytest.raises(InputError, match="--data"):
        write_failures([tmp_path / "run"], tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_sheets(tmp_path: Path) -> None:
    write_photo_run(tmp_path / "runs" / "a b", "kept", fails={60: 2})
    write_photo_run(tmp_path / "runs" / "a-b", "none", method=Discs(8.0))
    lines = write_failures([tmp_path / "runs"], tmp_path / "out", None, samples=2)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a-b-2.png", "a-b.png", "failures.csv"]
    assert len(lines) == 3
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    rows = list(csv.DictReader(before["failures.csv"].decode().splitlines()))
    assert {row["run"] for row in rows} == {"a b", "a-b"}
    write_failures([tmp_path / "runs"], tmp_path / "out", None, samples=2)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before
