"""Stored runs joined with their dataset: which samples are hard, and the sheets of pictures."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.metrics import iou
from disbench.harness.store import CLICKS, StoredRun, write_clicks
from disbench.reports.entries import read_entries
from disbench.reports.samples import hard_samples, open_same_dataset, read_samples, write_failures
from tests.refusals import refuses
from tests.toy_methods import Discs
from tests.unit.run_tools import draw_ious, photos, sample, write_photo_run, write_run


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
    refuses("--data", write_failures, [tmp_path / "run"], tmp_path / "out", None)
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


NAMES = [photos().ids[number] for number in (60, 3)]


def damaged(run: StoredRun, **columns: object) -> StoredRun:
    table = pq.read_table(run.folder / CLICKS)
    for name, value in columns.items():
        at = table.schema.get_field_index(name)
        values = table[name].to_pylist()
        values[8] = value
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.array(values, field.type))
    write_clicks(run.folder / CLICKS, [table])
    return run


def test_masks_and_clicks_are_those_that_were_measured(tmp_path: Path) -> None:
    run = write_photo_run(tmp_path / "run")
    found = read_samples(run, open_same_dataset(run, None), NAMES)
    assert [one.sample.id for one in found] == NAMES
    for one, number in zip(found, (60, 3), strict=True):
        assert np.array_equal(one.sample.target, sample(number).target)
        assert len(one.rows) == 6
        assert one.clicks(2) == tuple(Click(row.x, row.y, row.positive) for row in one.rows[:2])
        for click in (1, 6):
            mask, candidates = one.mask(click), one.candidates(click)
            assert mask is not None and candidates is not None
            assert iou(one.sample.target, mask) == one.rows[click - 1].iou
            assert np.array_equal(candidates[one.rows[click - 1].kept], mask)


@pytest.mark.parametrize(("store", "masks", "candidates"), [("none", 0, 0), ("kept", 1, 0), ("all", 1, 3)])
def test_what_was_stored(tmp_path: Path, store: str, masks: int, candidates: int) -> None:
    run = write_photo_run(tmp_path / "run", store, numbers=(3,), max_clicks=1)
    (found,) = read_samples(run, photos(), NAMES[1:])
    assert (found.mask(1) is not None) == bool(masks)
    assert len(found.candidates(1) or ()) == candidates


def test_another_dataset_or_sample(tmp_path: Path) -> None:
    small = {"numbers": (3,), "max_clicks": 1}
    other = write_photo_run(tmp_path / "run", dataset={"content_hash": "ab" * 32}, **small)
    mine = write_photo_run(tmp_path / "mine", dataset={"name": "mine"}, **small)
    for run, words in ((other, "abababab"), (write_run(tmp_path / "grabcut"), "grabcut.* --data"), (mine, "'mine'")):
        refuses(words, open_same_dataset, run, None)
    assert open_same_dataset(mine, None, "photos").ids == photos().ids
    for name in ("nobody", photos().ids[5]):
        with pytest.raises(InputError, match=re.escape(repr(name))):
            read_samples(mine, photos(), [name])


@pytest.mark.parametrize("column", [{"x": 100_000}, {"y": -1}, {"height": 7}, {"click": 9}, {"kept": 3}])
def test_rows_that_are_no_clicks_on_the_image(tmp_path: Path, column: dict[str, int]) -> None:
    run = damaged(write_photo_run(tmp_path / "run"), **column)
    with pytest.raises(InputError, match="row 3: not a valid click on the"):
        read_samples(run, photos(), NAMES)


def test_damaged_run_lengths(tmp_path: Path) -> None:
    found = read_samples(damaged(write_photo_run(tmp_path / "run"), mask=b"PPP0"), photos(), NAMES)
    with pytest.raises(InputError, match=r"click 3: .* run it again"):
        found[0].mask(3)
