"""What is asked of a method: a loop of answers for each sample, and the rows that come of it.

The harness steps loops, alone or in lockstep, in worker processes that it watches, and keeps rows in a journal; a
task says what a loop asks and what its rows are. So every task is resumed, watched and spread alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.prediction import RgbImage, Session
from disbench.core.samples import Sample
from disbench.harness.answers import AnswerRow
from disbench.harness.protocol import Protocol as Conduct
from disbench.harness.record import Store
from disbench.harness.sample_loop import SampleLoop
from disbench.harness.store import CLICKS, SCHEMA, ClickRow, to_table, write_clicks

Row = ClickRow | AnswerRow
"""What one call of a method came to."""


class Loop(Protocol):
    """The state of one sample: who steps it opens a session, lets it answer `clicks`, and hands the outcome over.

    Attributes:
        session: the method's; None where the caller must open one before the next answer.
    """

    session: Session | None

    @property
    def image(self) -> RgbImage:
        """What the session is opened with."""

    @property
    def clicks(self) -> Sequence[Click]:
        """All clicks of the pending answer."""

    @property
    def pending(self) -> Row:
        """The row of the pending answer, as it stands if the method fails on it."""

    @property
    def done(self) -> bool:
        """No answer is due any more."""

    @property
    def initial(self) -> BoolArray | None:
        """The mask that a session starts from, if there is one."""

    def spend(self, seconds: float) -> None:
        """Account for time that the method took for the pending answer."""

    def take(self, prediction: object, keep: Callable[[int], None] | None = None) -> Row:
        """Check and measure an answer; the finished row.

        Raises:
            MethodError: it is not as it should be.
        """

    def fail(self, reason: str) -> Row:
        """End the sample: the method failed on the pending answer."""


class Task(Protocol):
    """Picklable: every worker has it."""

    @property
    def schema(self) -> pa.Schema:
        """Of the rows as they lie in the journal; `sample`, `click`, `failure` and the seconds are among them."""

    def begin(self, sample: Any, harness_seconds: float) -> Loop:
        """The loop of a sample, on which so much time was spent already (reading it)."""

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """Rows as they lie in the journal."""

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write the rows of a finished run, in the order of the samples, as files that are whole or not there."""


@dataclass(frozen=True)
class TargetsTask:
    """Clicks until one target is met: the benchmark's own task.

    Attributes:
        protocol: how to evaluate.
        store: which masks the rows carry.
    """

    protocol: Conduct
    store: Store = "none"

    @property
    def schema(self) -> pa.Schema:
        """`disbench.harness.store.SCHEMA`."""
        return SCHEMA

    def begin(self, sample: Sample, harness_seconds: float) -> SampleLoop:
        """The loop of a sample."""
        return SampleLoop(sample, self.protocol, self.store, harness_seconds)

    def table(self, rows: Sequence[ClickRow]) -> pa.Table:
        """Rows as `disbench.harness.store.SCHEMA` says."""
        return to_table(rows)

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `clicks.parquet`."""
        write_clicks(folder / CLICKS, tables)
