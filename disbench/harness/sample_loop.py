"""Evaluation loop of one sample: simulate a click, predict, select a candidate, measure (PROTOCOL "ritm")."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from disbench.core import ambiguity, masks
from disbench.core.arrays import BoolArray
from disbench.core.choices import Store
from disbench.core.click_policies import EXTREMES, REPLAY, ClickPolicy, budget_points
from disbench.core.clicks import Click, next_click
from disbench.core.errors import InputError
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.samples import Sample
from disbench.harness.protocol import ORACLES, Protocol
from disbench.harness.record import FirstClicksRecord, RunRecord
from disbench.harness.store import (
    CLICKS,
    SCHEMA,
    ClickRow,
    StoredRun,
    columns_of,
    open_rows,
    pad_to_cap,
    read_record,
    table_writer,
    write_clicks,
)
from disbench.harness.tasks import Candidates, Loop, SingleClickLoop, Task, checked_candidates, choose
from disbench.io import addresses
from disbench.io.parquet import as_input_error, open_parquet, read_rows
from disbench.io.recorded_clicks import read_first_clicks

GRANULARITIES = "granularities.parquet"  # granularity passed to the method in each target's stored loop, if any
TRIALS = "trials.parquet"
"""x, y and IoU of all candidates tried for each click, in a run of `worst` or `best`; the IoU is null for a failure."""
_TOLD = pa.schema([SCHEMA.field("sample"), pa.field("granularity", pa.float64())])
_TRIAL = pa.struct({"x": pa.int32(), "y": pa.int32(), "iou": pa.float32()})
_TRIALS = pa.schema([SCHEMA.field("sample"), SCHEMA.field("click"), pa.field("trials", pa.list_(_TRIAL))])


@dataclass(frozen=True, slots=True)
class LoopRow(ClickRow):
    """A row with additional columns stored beside it: granularity, policy (if several), and the clicks tried."""

    granularity: float | None = None
    policy: str = ""
    trials: tuple[tuple[int, int, float | None], ...] = ()


@dataclass
class Trials:
    """Clicks of one loop of `worst` or `best`: those made, and the candidates for the next one.

    Attributes:
        sign: factor that makes the wanted IoU the largest.
        made: clicks so far, with the index of the mask that was kept after each.
        seen: number of these clicks that the session has received since it started.
        left: candidates not yet tried, next first.
        tried: x, y and IoU of candidates tried; None if the method failed.
        best: row and mask of the best candidate so far.
    """

    sign: int
    made: list[tuple[Click, int]] = field(default_factory=list)
    seen: int = 0
    left: Sequence[Click] = ()
    tried: tuple[tuple[int, int, float | None], ...] = ()
    best: tuple[LoopRow, BoolArray] | None = None

    @property
    def returning(self) -> bool:
        """True if the session is being brought back to the state before the click."""
        return self.seen < len(self.made)

    @property
    def clicks(self) -> list[Click]:
        """Clicks for the session's next call."""
        clicks = [click for click, _ in self.made[: self.seen + 1]]
        return clicks if self.returning else [*clicks, self.left[0]]

    def note(self, row: LoopRow, mask: BoolArray) -> LoopRow | None:
        """Note a candidate's row; once all are tried, return the best, or None if the method failed on all.

        Ties are broken by boundary IoU, then by the order of the candidates.
        """
        failed = row.failure is not None
        self.left, self.tried = self.left[1:], (*self.tried, (row.x, row.y, None if failed else row.iou))
        if not failed and (self.best is None or self._worth(row) > self._worth(self.best[0])):
            self.best = row, mask
        if self.left or self.best is None:
            return None
        chosen = self.best[0]
        self.made.append((Click(chosen.x, chosen.y, chosen.positive), chosen.kept))
        return replace(chosen, trials=self.tried)

    def _worth(self, row: LoopRow) -> tuple[float, float]:
        return self.sign * row.iou, self.sign * row.boundary_iou


class SampleLoop(Loop):
    """Evaluation of one sample; the first click is made at once, the next by `take`.

    A granularity oracle runs several loops in a row, each in its own session; several policies likewise, in one session
    if it can be restarted. With `worst` and `best`, several candidates are tried for every click, each after the
    session undid the one before, or was restarted and brought back to the same state.
    """

    def __init__(
        self,
        sample: Sample,
        protocol: Protocol,
        store: Store = "none",
        harness_seconds: float = 0.0,
        policies: Sequence[str] = (),
    ) -> None:
        begun = time.perf_counter()
        super().__init__(sample.image, harness_seconds, _initial(sample, protocol))
        self.sample, self.store = sample, store
        if protocol.recording is not None:
            protocol.recording.check_inside(sample.id, sample.target.shape)
        self._boundary = TargetBoundary(sample.target)
        self._fewest = protocol.max_clicks
        self._policies = bool(policies)
        protocols = [replace(protocol, policy=policy) for policy in policies] or [protocol]
        self._loops = iter(list(product(protocols, _granularities(sample, protocol))))
        self._begin()
        self.harness_seconds += time.perf_counter() - begun

    def _begin(self) -> None:
        """Begin the next loop of clicks, if any; another granularity needs a new session."""
        following = next(self._loops, None)
        if following is None:
            return
        self.protocol, self.granularity = following
        if self.granularity is not None:
            self.session = None
        self.again, self.undo = self.session is not None, False
        self._policy = self.protocol.click_policy
        self._trials = Trials(EXTREMES[self._policy.name]) if self._policy.name in EXTREMES else None
        self.clicks, self.done, self._reached = [], False, False
        self._kept = first_mask(self.sample, self.protocol)
        self.pending = self._click()

    def take(self, prediction: object, keep: Callable[[int], None] = lambda _: None) -> LoopRow | None:
        """Check a prediction, select one of its candidates, and measure it (`Loop.take`)."""
        begun, model_before, row = time.perf_counter(), self._model_seconds, None
        if self._trials is not None and self._trials.returning:
            keep(self._trials.made[self._trials.seen][1])
            self._trials.seen += 1
        else:
            row, mask = self._measured(prediction)
            if self._trials is not None:
                row = self._tried(self._trials, row, mask)
            else:
                keep(row.kept)
                self._kept = mask
        self.harness_seconds += time.perf_counter() - begun - (self._model_seconds - model_before)
        return self._continued(row)

    def _measured(self, prediction: object) -> tuple[LoopRow, BoolArray]:
        """The pending row with the results of a prediction, and the selected mask."""
        height, width = self.sample.target.shape
        found = checked_candidates(prediction, height, width, self.protocol.threshold)
        ious = tuple(iou(self.sample.target, mask) for mask in found.masks)
        kept = choose(self.protocol.selection, self.pending.click, found, ious, self._kept)
        mask = found.masks[kept]
        every = tuple(masks.encode(one)["counts"] for one in found.masks) if self.store == "all" else None
        row = replace(
            self.pending,
            iou=ious[kept],
            boundary_iou=self._boundary.iou(mask),
            kept=kept,
            candidates=len(found.masks),
            candidate_ious=ious,
            candidate_scores=found.scores,
            mask=masks.encode(mask)["counts"] if self.store == "kept" else every and every[kept],
            candidate_masks=every,
        )
        return row, mask

    def _tried(self, trials: Trials, row: LoopRow, mask: BoolArray) -> LoopRow | None:
        """Note a candidate, and take the session back to the state before it, by `undo` or by starting again."""
        chosen = trials.note(row, mask)
        if chosen is not None and trials.best is not None:
            self._kept = trials.best[1]
        self.undo = hasattr(self.session, "undo")
        if not self.undo:
            self.again, trials.seen = self.session is not None, 0
        return chosen

    def _continued(self, row: LoopRow | None) -> LoopRow | None:
        """Ask for the click's next candidate, or finish its row and make the next click or begin the next loop."""
        if row is None:
            assert self._trials is not None
            self.clicks = self._trials.clicks
            x, y, positive = self._trials.left[0]
            self.pending = replace(self.pending, x=x, y=y, positive=positive)
            return None
        stop_at = self.protocol.stop_at
        self.done = (
            row.click >= self.protocol.max_clicks
            or (stop_at is not None and bool(np.float32(row.iou) >= np.float32(stop_at)))
            or self._policy.is_exhausted(self.sample.id, row.click)
            or self._beaten(row.iou)
        )
        finished: LoopRow = self._finished(row)
        begun = time.perf_counter()
        if self.done:
            self._begin()
        else:
            self.pending = self._click()
        self.harness_seconds += time.perf_counter() - begun
        return finished

    def fail(self, reason: str) -> LoopRow | None:
        """The method failed on the pending answer: skip the candidate, or end the loop.

        Other candidates, and loops of other policies, continue in new sessions.
        """
        if self._trials is not None:
            self.session = None
            row = self._tried(self._trials, replace(self.pending, failure=reason), self._kept)
            if row is not None or self._trials.left:
                return self._continued(row)
        ended: LoopRow = self.end(reason)
        if self._policies:
            self.session = None
            self._begin()
        return ended

    def _beaten(self, iou: float) -> bool:
        """True if this loop needs more clicks than an earlier one to reach the oracle's IoU (GraCo)."""
        goal = ORACLES.get(self.protocol.granularity)
        if goal is None or self._reached:
            return False
        self._reached = bool(np.float32(iou) >= np.float32(goal))
        if self._reached:
            self._fewest = min(self._fewest, self.pending.click)
        return not self._reached and self.pending.click > self._fewest

    def _click(self) -> LoopRow:
        """Make the next click, or all points of a budget, whose first is stored in the row."""
        sample, number = self.sample, len(self.clicks) + 1
        given = None if self.clicks else sample.first_click
        if self.protocol.budget:
            self.clicks = budget_points(self.protocol.budget, sample.target)
            click = self.clicks[0]
        elif self._trials is not None:
            trials, made = self._trials, [click for click, _ in self._trials.made]
            number = len(made) + 1
            left = [given] if given and not made else self._policy.candidates(sample.target, self._kept, made)
            trials.left, trials.tried, trials.best = left, (), None
            click, self.clicks = left[0], trials.clicks
        else:
            click = given or self._policy.simulate(
                sample.target, self._kept, self.clicks, seed=self.protocol.seed, sample=sample.id
            )
            self.clicks.append(click)
        height, width = sample.target.shape
        policy = self.protocol.policy if self._policies else ""
        return LoopRow(
            sample.id, number, *click, height=height, width=width, granularity=self.granularity, policy=policy
        )


def read_trials(run: StoredRun) -> list[dict[str, Any]]:
    """Read the rows of `TRIALS`: sample, click and trials (x, y, iou); [] without the file, InputError if damaged."""
    path = run.folder / TRIALS
    if not path.is_file():
        return []
    with as_input_error(path, "not the trials of a run", "run the same command again with --existing overwrite"):
        found: list[dict[str, Any]] = read_rows(open_parquet(path, _TRIALS)[0], _TRIALS).to_pylist()
    return found


def first_mask(sample: Sample, protocol: Protocol) -> BoolArray:
    """Mask that the first click corrects, boolean (height, width): empty unless the sample has an initial mask."""
    initial = _initial(sample, protocol)
    return np.zeros(sample.target.shape, dtype=bool) if initial is None else initial


def _granularities(sample: Sample, protocol: Protocol) -> Sequence[float | None]:
    """Granularity of each of a sample's loops."""
    if protocol.granularity == "none":
        return [None]
    if protocol.granularity in ORACLES:
        return ambiguity.GRANULARITIES
    if sample.granularity is None:
        raise InputError(f"{sample.id}: the target has no granularity, as those of --task intents do")
    return [sample.granularity]


def _initial(sample: Sample, protocol: Protocol) -> BoolArray | None:
    return sample.initial if protocol.initial_masks and not protocol.budget else None


@dataclass(frozen=True)
class TargetsTask(Task):
    """The benchmark's task: clicks on one target.

    Attributes:
        protocol: how to evaluate.
        store: which masks the rows contain.
        policies: policies of several loops per sample, instead of the protocol's; each makes its own run.
    """

    protocol: Protocol
    store: Store = "none"
    policies: tuple[str, ...] = ()
    kind = RunRecord

    @property
    def schema(self) -> pa.Schema:
        """`SCHEMA`, plus granularity, policy (if several), and clicks tried."""
        fields = [] if self.protocol.granularity == "none" else [_TOLD.field("granularity")]
        fields += [pa.field("policy", pa.string())] if self.policies else []
        tries = any(ClickPolicy.parse(one).name in EXTREMES for one in self.policies or [self.protocol.policy])
        return pa.schema([*SCHEMA, *fields, *([_TRIALS.field("trials")] if tries else [])], SCHEMA.metadata)

    def parts(self) -> dict[str, Task]:
        """One run per policy if there are several: `base` for `center`, D1, D2, ... for slices, `worst` and `best`."""
        if not self.policies:
            return {"": self}
        labels = [ClickPolicy.parse(policy).label.partition(" ")[0] for policy in self.policies]
        tasks = [TargetsTask(replace(self.protocol, policy=policy), self.store) for policy in self.policies]
        return dict(zip(["base" if label == "center" else label for label in labels], tasks, strict=True))

    def begin(self, sample: Sample, harness_seconds: float) -> SampleLoop:
        """Create the loop of a sample."""
        return SampleLoop(sample, self.protocol, self.store, harness_seconds, self.policies)

    def unread(self, sample: str, reason: str) -> LoopRow:
        """The only row of a sample that cannot be read."""
        return LoopRow(sample, 1, 0, 0, positive=False, failure=reason)

    def kept(self, rows: Sequence[LoopRow]) -> Sequence[LoopRow]:
        """Rows to store: all, or with several granularities those of the best loop, or of the loop that failed.

        If the sample ended before some policies were reached, each of these gets the last row, a failure.
        """
        if self.policies:
            missing = [policy for policy in self.policies if policy not in {row.policy for row in rows}]
            ended = [replace(rows[-1], click=1, policy=policy) for policy in missing]
            return [*(row for row in rows if row.policy), *ended]
        loops = [list(loop) for _, loop in groupby(rows, key=lambda row: row.granularity)]
        if len(loops) == 1 or rows[-1].failure is not None:
            return loops[-1]
        cap = self.protocol.max_clicks
        ious = [pad_to_cap(np.array([row.iou for row in loop]), cap, failed=True, replayed=False) for loop in loops]
        return loops[ambiguity.best_loop(ious, ORACLES[self.protocol.granularity], cap)]

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `clicks.parquet`, and `GRANULARITIES` and `TRIALS` if the rows have them."""
        beside = {GRANULARITIES: _TOLD, TRIALS: _TRIALS}
        parts: dict[str, list[pa.Table]] = {n: [] for n, s in beside.items() if s.names[-1] in self.schema.names}

        def without(table: pa.Table) -> pa.Table:
            for name, part in parts.items():
                own = table.select(beside[name].names)
                part.append(own.slice(0, 1) if name == GRANULARITIES else own)
            return table.select(SCHEMA.names).cast(SCHEMA)

        write_clicks(folder / CLICKS, map(without, tables))
        for name, part in parts.items():
            with table_writer(folder / name, beside[name]) as file:
                file.write_table(pa.concat_tables(part).cast(beside[name]))


FIRST = "first_clicks.parquet"


@dataclass(frozen=True, slots=True)
class FirstClickRow(ClickRow):
    """The outcome of one first click.

    `click` numbers the rows of a sample: 1 is the protocol's standard click, with user None, followed by the recorded
    ones. `kept` is the candidate with the highest score, or the first if there are no scores; `on_target` is True if
    the click lies on the object. If the method fails, the sample ends with that row.
    """

    user: str | None = None
    on_target: bool = False


FIRST_SCHEMA = pa.schema(
    [column for column in columns_of(FirstClickRow) if column.name not in ("mask", "candidate_masks")],
    {"disbench.first-clicks": "1"},
)


@dataclass(frozen=True)
class FirstClicksTask(Task):
    """All first clicks; the protocol has a recording, and `users` are the users of its clicks."""

    protocol: Protocol
    users: Mapping[str, Sequence[str]]

    kind = FirstClicksRecord
    schema = FIRST_SCHEMA

    @classmethod
    def of(cls, policy: str, threshold: float) -> FirstClicksTask:
        """First clicks of every user in the recording of a policy `replay:FILE` or `replay:FILE,user=NAME`.

        InputError for another policy, or clicks that cannot be read.
        """
        named = ClickPolicy.parse(policy).recording
        if named is None:
            raise InputError(f"policy {policy}: first clicks need a recording; name it with --policy {REPLAY}:FILE")
        found, users = read_first_clicks(Path(addresses.localize(named.file)), named.user, named.digest)
        replay = str(ClickPolicy(REPLAY, recording=found))
        return cls(Protocol(1, threshold, "score", replay, initial_masks=False, recording=found), users)

    def begin(self, sample: Sample, harness_seconds: float) -> FirstClickLoop:
        """Create the loop of a sample."""
        return FirstClickLoop(sample, self, harness_seconds)

    def unread(self, sample: str, reason: str) -> FirstClickRow:
        """The only row of a sample that cannot be read."""
        return FirstClickRow(sample, 1, 0, 0, positive=False, failure=reason)

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `first_clicks.parquet`."""
        write_clicks(folder / FIRST, tables, FIRST_SCHEMA)


class FirstClickLoop(SingleClickLoop):
    """Evaluation of one sample: one click after another, in one session if it can be restarted."""

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
        """The rows, with `FIRST_SCHEMA`; `InputError` for a missing or damaged file."""
        path = self.folder / FIRST
        with open_rows(path, str(path), FIRST_SCHEMA) as file:
            return read_rows(file, FIRST_SCHEMA)


def read_first_clicks_run(folder: Path) -> StoredFirstClicks:
    """Read the finished run of the task in a folder; `InputError` if it is missing or damaged."""
    return StoredFirstClicks(folder, read_record(folder, FirstClicksRecord, (FIRST,)))
