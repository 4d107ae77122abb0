"""The diverse task: make a first click on a set, and measure how a method's candidates cover what it may mean.

A stored run has `sets.parquet` and `answers.parquet` beside `run.json`: one row per set, and per click on it (drawn, or
moved to measure stability).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core import masks
from disbench.core.arrays import BoolArray, Float32Array
from disbench.core.clicks import Click
from disbench.core.limits import MAX_GROUP_VALUES
from disbench.core.masks import Rle, decode
from disbench.core.prediction import RgbImage
from disbench.core.scenes import draw_click
from disbench.harness.protocol import SetProtocol
from disbench.harness.record import SetRunRecord
from disbench.harness.store import Float32, Int16, Int32, columns_of, grouped, open_rows, read_record, table_writer
from disbench.harness.tasks import Candidates, SingleClickLoop, Task, pair_iou
from disbench.io.parquet import as_input_error, read_rows

SETS, ANSWERS = "sets.parquet", "answers.parquet"
_FORM = {"disbench.diverse": "1"}

SETS_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("center", pa.int32(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("members", pa.int16(), nullable=False),
        pa.field("relations", pa.list_(pa.string()), nullable=False),
        pa.field("areas", pa.list_(pa.int64()), nullable=False),
        pa.field("click_area", pa.int64(), nullable=False),
        pa.field("contained", pa.list_(pa.float64()), nullable=False),
    ],
    metadata=_FORM,
)
"""One row per set. `relations` (`disbench.core.scenes.relation`), `areas` (pixels) and `contained` (share of a member
that lies in the next one; 1 for the last) have one entry per member, inner to outer; `click_area` is the area of the
region that the first click is drawn from."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """The outcome of one click: the columns of `answers.parquet`.

    If the method fails on a click, the set ends with a row without candidates whose `failure` says why.

    Attributes:
        click: number of the draw on its set, from 1.
        dx, dy: how far it was moved; 0, 0 for the drawn click.
        agreement: IoU of each pair of candidates, (0, 1), (0, 2), ..., (1, 2), ...
        unmoved: for a moved click, IoU of each candidate of the drawn click with each of its own, row-major.
        candidate_masks: COCO compressed run lengths of the set's height and width, or None.
        ious: IoU of each member with each candidate, row-major.
    """

    sample: str
    image_id: str
    center: Int32
    click: Int16
    dx: Int16
    dy: Int16
    x: Int32
    y: Int32
    members: Int16
    candidates: Int16 = 0
    scores: tuple[float, ...] | None = None
    agreement: tuple[Float32, ...] = ()
    unmoved: tuple[Float32, ...] | None = None
    model_seconds: float = 0.0
    harness_seconds: float = 0.0
    failure: str | None = None
    candidate_masks: tuple[bytes, ...] | None = None
    ious: tuple[Float32, ...] = ()


ANSWERS_SCHEMA = pa.schema(columns_of(AnswerRow), _FORM)


def write_sets(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `sets.parquet` from rows with the columns of `SETS_SCHEMA`."""
    with table_writer(path, SETS_SCHEMA) as file:
        _write(file, pa.Table.from_pylist(list(rows), schema=SETS_SCHEMA))


@dataclass(frozen=True, slots=True)
class SetSample:
    """One diverse set with its image; a click in `click_region` may mean any of the masks `members`, inner to outer.

    `id` is `image_id/center`; `center` is the index of the center object in its scene.
    """

    id: str
    image_id: str
    center: int
    image: RgbImage
    members: tuple[Rle, ...]
    click_region: Rle


@dataclass(frozen=True)
class SetTask(Task):
    """The diverse task; `store="all"` stores the candidates of drawn clicks."""

    protocol: SetProtocol
    store: Literal["none", "all"] = "none"

    kind = SetRunRecord
    schema = ANSWERS_SCHEMA

    def begin(self, sample: SetSample, harness_seconds: float) -> SetLoop:
        """Create the loop of a set."""
        return SetLoop(sample, self, harness_seconds)

    def unread(self, sample: str, reason: str) -> AnswerRow:
        """The only row of a set that cannot be read."""
        image_id, _, center = sample.rpartition("/")
        return AnswerRow(sample, image_id, int(center), 1, 0, 0, 0, 0, members=0, failure=reason)

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `answers.parquet`."""
        with table_writer(folder / ANSWERS, ANSWERS_SCHEMA) as file:
            for table in grouped(tables):
                _write(file, table)


def first_click(region: Rle, seed: int, image_id: str, center: int, number: int = 1) -> Click:
    """Draw a first click on a set, uniformly from its click region (not empty).

    Determined by seed, set and number of the click (from 1) only, so it does not depend on order or worker processes.
    """
    digest = hashlib.sha256(f"{seed}\n{number}\n{center}\n{image_id}".encode()).digest()
    return draw_click(region, np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big"))))


def moved_clicks(click: Click, distance: int, region: BoolArray) -> list[Click]:
    """A click moved in eight directions by a distance (pixels, rounded; 0 gives none), if it stays in a region.

    Directions start on the right and go clockwise on the screen (y down). The region is boolean (height, width).
    """
    diagonal = round(distance / 2**0.5)
    steps = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    lengths = [diagonal if right and down else distance for right, down in steps]
    there = [(click.x + r * length, click.y + d * length) for (r, d), length in zip(steps, lengths, strict=True)]
    inside = [(x, y) for x, y in there if 0 <= x < region.shape[1] and 0 <= y < region.shape[0] and region[y, x]]
    return [Click(x, y, positive=True) for x, y in inside] if distance else []


class SetLoop(SingleClickLoop):
    """Evaluation of one set: each click in its own session, first all drawn clicks, then the moved ones."""

    def __init__(self, sample: SetSample, task: SetTask, harness_seconds: float = 0.0) -> None:
        self.sample, self.task = sample, task
        self._unmoved: dict[int, Candidates] = {}
        threshold = task.protocol.threshold
        super().__init__(sample.image, harness_seconds, threshold, self._all_clicks(), reopens=True)

    def _all_clicks(self) -> Iterator[tuple[Click, AnswerRow]]:
        sample, protocol = self.sample, self.task.protocol
        self._members = [decode(rle, order="C") for rle in sample.members]
        drawn = {
            number: first_click(sample.click_region, protocol.seed, sample.image_id, sample.center, number)
            for number in range(1, protocol.clicks + 1)
        }
        region = decode(sample.click_region)
        moved = [
            (number, there) for number, click in drawn.items() for there in moved_clicks(click, protocol.move, region)
        ]
        for number, click in [*drawn.items(), *moved]:
            by = (click.x - drawn[number].x, click.y - drawn[number].y)
            of_set = (sample.id, sample.image_id, sample.center)
            yield click, AnswerRow(*of_set, number, *by, click.x, click.y, members=len(self._members))

    def _measured(self, found: Candidates, row: AnswerRow) -> AnswerRow:
        stored, unmoved = None, None
        if row.dx or row.dy:
            unmoved = _overlaps(self._unmoved[row.click].masks, found.masks)
        else:
            self._unmoved[row.click] = found
            if self.task.store == "all":
                stored = tuple(masks.encode(mask)["counts"] for mask in found.masks)
        return replace(
            row,
            candidates=len(found.masks),
            scores=found.scores,
            ious=_overlaps(self._members, found.masks),
            agreement=tuple(_iou(a, b) for a, b in combinations(found.masks, 2)),
            unmoved=unmoved,
            candidate_masks=stored,
        )


def _overlaps(first: Iterable[BoolArray], second: Sequence[BoolArray] | BoolArray) -> tuple[float, ...]:
    return tuple(_iou(a, b) for a in first for b in second)


def _iou(first: BoolArray, second: BoolArray) -> float:
    return float(np.float32(pair_iou(first, second)))


@dataclass(frozen=True)
class StoredAnswers:
    """A finished run of the diverse task; reading a missing or damaged file raises `InputError`."""

    folder: Path
    record: SetRunRecord

    def sets(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The sets, with `SETS_SCHEMA`, or some of their columns."""
        return read_sets_table(self.folder, columns)

    def answers(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The clicks, with `ANSWERS_SCHEMA`, or some of their columns."""
        return _read(self.folder / ANSWERS, ANSWERS_SCHEMA, columns)

    def ious(self, answers: pa.Table) -> list[Float32Array]:
        """IoU of each member with each candidate, float32 (members, candidates), one array per row of `answers()`."""
        sizes = (answers[name].to_pylist() for name in ("members", "candidates"))
        with as_input_error(self.folder / ANSWERS, "IoUs for another number of masks", "run it again"):
            return [
                np.asarray(ious.values).reshape(max(members, 0), max(candidates, 0))
                for members, candidates, ious in zip(*sizes, answers["ious"], strict=True)
            ]


def read_answers(folder: Path) -> StoredAnswers:
    """Read the finished run of the diverse task in a folder; InputError if it is missing or damaged."""
    return StoredAnswers(folder, read_record(folder, SetRunRecord, (SETS, ANSWERS)))


def read_sets_table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the table of sets in a run's folder, with `SETS_SCHEMA`, or some of its columns."""
    return _read(folder / SETS, SETS_SCHEMA, columns)


def _read(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    with open_rows(path, str(path), schema, columns) as file:
        return read_rows(file, schema, columns)


def _write(file: pq.ParquetWriter, table: pa.Table) -> None:
    """Write in row groups of bounded size."""
    file.write_table(table, row_group_size=max(1, MAX_GROUP_VALUES // 4 * len(table) // max(1, table.nbytes)))
