"""The task `first-clicks`: the standard first click on a sample, and every recorded one, each from the start.

Its stored run has `first_clicks.parquet` beside `run.json`, a row a click.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from disbench.core.clicks import Click, next_click
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.samples import Sample
from disbench.harness.candidates import Candidates
from disbench.harness.protocol import Protocol
from disbench.harness.record import FirstClicksRecord
from disbench.harness.replay import with_first_clicks
from disbench.harness.store import ClickRow, columns_of, open_rows, read_record, write_clicks
from disbench.harness.tasks import AskedLoop, Task
from disbench.io.parquet import read_rows

FIRST = "first_clicks.parquet"


@dataclass(frozen=True, slots=True)
class FirstClickRow(ClickRow):
    """The outcome of one first click.

    `click` numbers the rows of a sample: 1 is the protocol's standard click, with the user None, then follow the
    recorded ones. `kept` is the candidate of the highest score, or the first where there are no scores; `on_target`:
    whether the click lies on the object. A sample on which the method fails ends with that row.
    """

    user: str | None = None
    on_target: bool = False


FIRST_SCHEMA = pa.schema(
    [column for column in columns_of(FirstClickRow) if column.name not in ("mask", "candidate_masks")],
    {"disbench.first-clicks": "1"},
)


@dataclass(frozen=True)
class FirstClicksTask(Task):
    """All first clicks; the protocol has a recording, `users` whose its clicks are."""

    protocol: Protocol
    users: Mapping[str, Sequence[str]]

    kind = FirstClicksRecord
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

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `first_clicks.parquet`."""
        write_clicks(folder / FIRST, tables, FIRST_SCHEMA)


class FirstClickLoop(AskedLoop):
    """The state of one sample: one click follows another, in one session if it can be restarted."""

    def __init__(self, sample: Sample, task: FirstClicksTask, harness_seconds: float = 0.0) -> None:
        self.sample, self.task = sample, task
        super().__init__(sample.image, harness_seconds, task.protocol.threshold, self._all_clicks())

    def _all_clicks(self) -> Iterator[tuple[Click, FirstClickRow]]:
        sample, recording = self.sample, self.task.protocol.recording
        assert recording is not None  # the task's condition
        height, width = sample.target.shape
        recording.check_inside(sample.id, (height, width))
        self._boundary = TargetBoundary(sample.target)
        standard = next_click(sample.target, np.zeros(sample.target.shape, dtype=bool))
        real = zip(self.task.users[sample.id], recording.clicks[sample.id], strict=True)
        for number, (user, click) in enumerate([(None, standard), *real], 1):
            on_target = bool(sample.target[click.y, click.x] == 1)
            row = FirstClickRow(sample.id, number, *click, height=height, width=width, user=user, on_target=on_target)
            yield click, row

    def _measured(self, found: Candidates, row: FirstClickRow) -> FirstClickRow:
        ious = tuple(iou(self.sample.target, mask) for mask in found.masks)
        kept = 0 if found.scores is None else int(np.argmax(found.scores))
        return replace(
            row,
            iou=ious[kept],
            boundary_iou=self._boundary.iou(found.masks[kept]),
            kept=kept,
            candidates=len(found.masks),
            candidate_ious=ious,
            candidate_scores=found.scores,
        )


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
    return StoredFirstClicks(folder, read_record(folder, FirstClicksRecord, (FIRST,)))
