"""The task `first-clicks`: the standard first click on a sample, and every recorded one, each from the start.

Its stored run has `first_clicks.parquet` beside `run.json`, a row a click.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.clicks import next_click
from disbench.core.errors import InputError
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.samples import Sample
from disbench.harness.candidates import checked_candidates
from disbench.harness.protocol import Protocol
from disbench.harness.record import FIRST_CLICKS, FirstClicksRecord, parse_record
from disbench.harness.replay import with_first_clicks
from disbench.harness.store import RUN, SCHEMA, ClickRow, grouped, open_rows, unfinished
from disbench.harness.tasks import Loop
from disbench.io.files import naming, whole_file
from disbench.io.parquet import read_rows

FIRST = "first_clicks.parquet"
_WITHOUT = ("mask", "candidate_masks")
FIRST_SCHEMA = pa.schema(
    [
        *(field for field in SCHEMA if field.name not in _WITHOUT),
        pa.field("user", pa.string()),
        pa.field("on_target", pa.bool_(), nullable=False),
    ],
    metadata={"disbench.first-clicks": "1"},
)
"""One row a first click; columns are those of `disbench.harness.store.SCHEMA`. `click` numbers the rows of a sample: 1
is the protocol's standard click, with the user null, then follow the recorded ones. `kept` is the candidate of the
highest score, or the first where there are no scores; `on_target`: whether the click lies on the object. A sample on
which the method fails ends with that row."""


@dataclass(frozen=True, slots=True)
class FirstClickRow(ClickRow):
    """The outcome of one first click; the fields are the columns of `FIRST_SCHEMA`."""

    user: str | None = None
    on_target: bool = False


@dataclass(frozen=True)
class FirstClicksTask:
    """All first clicks (`disbench.harness.tasks.Task`); the protocol has a recording, `users` whose its clicks are."""

    protocol: Protocol
    users: Mapping[str, Sequence[str]]

    schema = FIRST_SCHEMA

    @classmethod
    def of(cls, policy: str, threshold: float) -> FirstClicksTask:
        """The task for the recording that a policy `replay:FILE` or `replay:FILE,user=NAME` names.

        Raises:
            InputError: another policy, or clicks that cannot be read.
        """
        protocol = Protocol(1, threshold, "score", policy, initial_masks=False)
        return cls(*with_first_clicks(protocol))

    def begin(self, sample: Sample, harness_seconds: float) -> FirstClickLoop:
        """The loop of a sample."""
        return FirstClickLoop(sample, self, harness_seconds)

    def unread(self, sample: str, reason: str) -> FirstClickRow:
        """The only row of a sample that cannot be read."""
        return FirstClickRow(sample, 1, 0, 0, positive=False, failure=reason)

    def kept(self, rows: Sequence[FirstClickRow]) -> Sequence[FirstClickRow]:
        """All rows."""
        return rows

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `first_clicks.parquet`."""
        path = folder / FIRST
        with naming(path), whole_file(path) as file, pq.ParquetWriter(file, FIRST_SCHEMA, compression="zstd") as writer:
            for table in grouped(tables):
                writer.write_table(table)


class FirstClickLoop(Loop):
    """The state of one sample: one click follows another, in one session if it can be restarted."""

    def __init__(self, sample: Sample, task: FirstClicksTask, harness_seconds: float = 0.0) -> None:
        begun = time.perf_counter()
        super().__init__(sample.image, harness_seconds)
        self.sample, self.task = sample, task
        self._boundary = TargetBoundary(sample.target)
        recording = task.protocol.recording
        assert recording is not None  # the task's condition
        recording.check_inside(sample.id, sample.target.shape)
        standard = next_click(sample.target, np.zeros(sample.target.shape, dtype=bool))
        real = zip(task.users[sample.id], recording.clicks[sample.id], strict=True)
        self._asked = iter([(None, standard), *real])
        self._number = 0
        self._next()
        self.again = False
        self.harness_seconds += time.perf_counter() - begun

    def _next(self) -> None:
        """Ask for the next click from the start, if there is one."""
        asked = next(self._asked, None)
        if asked is None:
            self.done = True
            return
        user, click = asked
        self._number += 1
        self.clicks, self.again = [click], True
        height, width = self.sample.target.shape
        self.pending = FirstClickRow(
            self.sample.id,
            self._number,
            click.x,
            click.y,
            click.positive,
            height=height,
            width=width,
            user=user,
            on_target=bool(self.sample.target[click.y, click.x] == 1),
        )

    def take(self, prediction: object, keep: Callable[[int], None] = lambda _: None) -> FirstClickRow:
        """Check a method's candidates and measure them; none is kept in the session (`Loop.take`)."""
        begun = time.perf_counter()
        height, width = self.sample.target.shape
        found = checked_candidates(prediction, height, width, self.task.protocol.threshold)
        ious = tuple(iou(self.sample.target, mask) for mask in found.masks)
        kept = 0 if found.scores is None else int(np.argmax(found.scores))
        asked, boundary_iou = self.pending, self._boundary.iou(found.masks[kept])
        self._next()
        self.harness_seconds += time.perf_counter() - begun
        row: FirstClickRow = self._finished(
            asked,
            iou=ious[kept],
            boundary_iou=boundary_iou,
            kept=kept,
            candidates=len(found.masks),
            candidate_ious=ious,
            candidate_scores=found.scores,
        )
        return row


@dataclass(frozen=True)
class StoredFirstClicks:
    """A finished run of the task."""

    folder: Path
    record: FirstClicksRecord

    def rows(self) -> pa.Table:
        """The rows, of `FIRST_SCHEMA`; `InputError` for a missing or damaged file."""
        path = self.folder / FIRST
        with open_rows(path, str(path), FIRST_SCHEMA) as file:
            return read_rows(file, FIRST_SCHEMA)


def read_first_clicks_run(folder: Path) -> StoredFirstClicks:
    """The finished run of the task in a folder; `InputError` if there is none, or a damaged one."""
    path = folder / RUN
    if not path.is_file():
        raise unfinished(folder)
    record = parse_record(path.read_bytes(), str(path))
    if not isinstance(record, FirstClicksRecord):
        raise InputError(f"{folder}: not a run of --task {FIRST_CLICKS}")
    if not (folder / FIRST).is_file():
        raise InputError(f"{folder}: {FIRST} is missing; run it again with --existing overwrite")
    return StoredFirstClicks(folder, record)
