"""Runs on diverse sets and recorded clicks from elsewhere: a valid result, or one sentence that names the file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_tools import run_diverse

from disbench.baselines.cards import method_spec
from disbench.core.clicks import Click
from disbench.harness.protocol import SetProtocol
from disbench.harness.record import Choice
from disbench.harness.set_source import SetSource
from disbench.harness.set_task import ANSWERS, SETS, SetTask, StoredAnswers, read_answers
from disbench.harness.store import RUN
from disbench.io import recorded_clicks
from disbench.io.recorded_clicks import ClickSequence, read_recording, read_sequences, to_parquet
from disbench.reports.ambiguity.numbers import read_numbers
from disbench.reports.ambiguity.pictures import PictureOptions, draw_pictures
from disbench.reports.ambiguity.report import csv_rows, tables_of
from disbench.reports.render import latex, markdown
from tests import toy_methods
from tests.fuzz.stored_forms import copied, in_a_child, result_or_refusal, spoilt
from tests.fuzz.tools import examples

FILES = (SETS, ANSWERS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photo_shards: Path) -> StoredAnswers:
    """Three sets, two candidates a click, with their masks."""
    source = SetSource(photo_shards, "embedded", choice=Choice(3, min_members=2))
    out = tmp_path_factory.mktemp("runs") / "run"
    method = method_spec(f"{toy_methods.__file__}:Discs", ["candidates=2"])
    return run_diverse(method, source, out, SetTask(SetProtocol(), store="all"))


def read_everything(folder: Path, shards: Path, *, drawn: bool = True) -> None:
    """All that a report takes from a run, in each of its forms, and a sheet of pictures (half a second)."""

    def report() -> None:
        found = read_answers(folder)
        numbers = read_numbers(found)
        for table in tables_of([numbers], []):
            (markdown.table(table) + latex.table(table, table.name)).encode()
        json.dumps(csv_rows([numbers]), default=str)
        if drawn:
            draw_pictures([(numbers, found)], PictureOptions((shards,), "embedded", count=1))

    result_or_refusal(report, folder.name)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@examples(80)
@given(name=st.sampled_from((RUN, *FILES)), data=st.data())
def test_spoilt_files(run: StoredAnswers, photo_shards: Path, name: str, data: st.DataObject) -> None:
    drawn = data.draw(st.integers(0, 3)) == 3
    with copied(run.folder, **{name.partition(".")[0]: data.draw(spoilt(run.folder / name))}) as folder:
        read_everything(folder, photo_shards, drawn=drawn)


# ------------------------------------------------------------------------------------------------ recorded clicks

CLICKS = to_parquet(
    [
        ClickSequence("a/1", "ann", (Click(3, 4, positive=True), Click(5, 6, positive=False))),
        ClickSequence("a/2", "bo", (Click(1, 1, positive=True),)),
    ]
)


@examples(140)
@given(data=st.data())
def test_spoilt_recorded_clicks(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "clicks.parquet"
        path.write_bytes(CLICKS)
        path.write_bytes(data.draw(spoilt(path)))
        for read in (read_sequences, read_recording):
            result_or_refusal(lambda read=read: read(path), path)  # type: ignore[misc]


def test_a_bomb_of_recorded_clicks(tmp_path: Path) -> None:
    """One name of a megabyte, a hundred thousand times: some kilobytes of Parquet, 100 GB of texts."""
    count = 100_000
    names = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * (1 << 20)]))
    numbers = pa.array([1] * count, pa.int32())
    table = pa.table(
        [names, numbers, numbers, numbers, pa.array([True] * count), names], names=recorded_clicks.SCHEMA.names
    )
    path = tmp_path / "bomb.parquet"
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=1 << 22)
    said, grown = in_a_child(read_sequences, path)
    assert said.startswith("refused")
    assert str(path) in said
    assert grown < 512
