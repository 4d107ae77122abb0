"""One sample's loop: simulate a click, take the prediction, keep a candidate, measure (PROTOCOL "ritm")."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core import ambiguity, masks
from disbench.core.arrays import BoolArray
from disbench.core.budgets import budget_points
from disbench.core.choices import Store
from disbench.core.click_policies import EXTREMES, ClickPolicy
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.samples import Sample
from disbench.harness.candidates import Candidates, checked_candidates, choose
from disbench.harness.protocol import ORACLES, Protocol
from disbench.harness.store import CLICKS, SCHEMA, ClickRow, StoredRun, filled_up, write_clicks
from disbench.harness.tasks import Loop
from disbench.harness.trials import Trials
from disbench.io.files import naming, whole_file
from disbench.io.parquet import complaining, open_parquet, read_rows

GRANULARITIES = "granularities.parquet"
"""The granularity that each target's stored loop was told, in a run with one."""
TRIALS = "trials.parquet"
"""x, y and IoU of all clicks tried for each click, in a run of `worst` or `best`; the IoU is null where it failed."""
_TOLD = pa.schema([SCHEMA.field("sample"), pa.field("granularity", pa.float64())])
_TRIAL = pa.struct({"x": pa.int32(), "y": pa.int32(), "iou": pa.float32()})
_TRIALS = pa.schema([SCHEMA.field("sample"), SCHEMA.field("click"), pa.field("trials", pa.list_(_TRIAL))])


class SampleLoop(Loop):
    """The state of one sample while it is evaluated; the first click is made at once, the next by `take`.

    With an oracle of the granularity one loop follows another, each in a session of its own; so it is with several
    policies, in one session if it can be restarted. With `worst` and `best` every click is one of several that are
    tried in turn, each after the session undid the one before, or was led there again.
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
        self.sample, self.protocol, self.store = sample, protocol, store
        self.clicks = []
        if protocol.recording is not None:
            protocol.recording.check_inside(sample.id, sample.target.shape)
        self._boundary = TargetBoundary(sample.target)
        self._fewest = protocol.max_clicks
        self._policies = bool(policies)
        protocols = [replace(protocol, policy=policy) for policy in policies] or [protocol]
        self._loops = iter(list(product(protocols, _granularities(sample, protocol))))
        self._begin(*next(self._loops))
        self.harness_seconds += time.perf_counter() - begun

    def _begin(self, protocol: Protocol, granularity: float | None) -> None:
        """Begin a loop of clicks; a session that was told another granularity, or failed, cannot be restarted."""
        if granularity is not None:
            self.session = None
        self.protocol, self.granularity, self.again = protocol, granularity, self.session is not None
        self._policy, self.undo = protocol.click_policy, False
        self._trials = Trials(EXTREMES[self._policy.name]) if self._policy.name in EXTREMES else None
        self.clicks, self.done, self._reached = [], False, False
        self._kept = first_mask(self.sample, self.protocol)
        self.pending = self._click()

    def take(self, prediction: object, keep: Callable[[int], None] = lambda _: None) -> ClickRow | None:
        """Check a prediction, keep one of its candidates, and measure it (`Loop.take`)."""
        begun, model_before, row = time.perf_counter(), self._model_seconds, None
        if self._trials is not None and self._trials.returning:
            keep(self._trials.made[self._trials.seen][1])
            self._trials.seen += 1
        else:
            row, mask = self._measured(prediction)
            if self._trials is not None:
                row = self._tried(row, mask)
            else:
                keep(row.kept)
                self._kept = mask
        self.harness_seconds += time.perf_counter() - begun - (self._model_seconds - model_before)
        return self._continued(row)

    def _measured(self, prediction: object) -> tuple[ClickRow, BoolArray]:
        """The pending row with the outcome of a prediction, and the mask that is kept."""
        height, width = self.sample.target.shape
        found = checked_candidates(prediction, height, width, self.protocol.threshold)
        ious = tuple(iou(self.sample.target, mask) for mask in found.masks)
        kept = choose(self.protocol.selection, self.pending.click, found, ious, self._kept)
        mask, candidate_masks = self._stored(found, kept)
        row = replace(
            self.pending,
            iou=ious[kept],
            boundary_iou=self._boundary.iou(found.masks[kept]),
            kept=kept,
            candidates=len(found.masks),
            candidate_ious=ious,
            candidate_scores=found.scores,
            mask=mask,
            candidate_masks=candidate_masks,
        )
        return row, found.masks[kept]

    def _tried(self, row: ClickRow, mask: BoolArray) -> ClickRow | None:
        """Note a candidate, and take the session back: with `undo` at once, otherwise it begins again."""
        assert self._trials is not None
        chosen = self._trials.note(row, mask)
        if chosen is not None and self._trials.best is not None:
            self._kept = self._trials.best[1]
        self.undo = hasattr(self.session, "undo")
        if not self.undo:
            self.again, self._trials.seen = self.session is not None, 0
        return chosen

    def _continued(self, row: ClickRow | None) -> ClickRow | None:
        """Ask for more before a click has its row, or finish the row and make the next click or begin the next loop."""
        if row is None:
            self._ask()
            return None
        stop_at = self.protocol.stop_at
        self.done = (
            row.click >= self.protocol.max_clicks
            or (stop_at is not None and bool(np.float32(row.iou) >= np.float32(stop_at)))
            or self._policy.ends(self.sample.id, row.click)
            or self._beaten(row.iou)
        )
        finished: ClickRow = self._finished(row)
        begun = time.perf_counter()
        if not self.done:
            self.pending = self._click()
        else:
            self._go_on()
        self.harness_seconds += time.perf_counter() - begun
        return finished

    def fail(self, reason: str) -> ClickRow | None:
        """The method failed on the pending answer: skip the candidate, or end the loop.

        Other candidates, and the loops of other policies, go on in new sessions.
        """
        if self._trials is not None:
            self.session = None
            row = self._tried(replace(self.pending, failure=reason), self._kept)
            if row is not None or self._trials.left:
                return self._continued(row)
        ended: ClickRow = self.end(reason)
        if self._policies:
            self.session = None
            self._go_on()
        return ended

    def _go_on(self) -> None:
        if (following := next(self._loops, None)) is not None:
            self._begin(*following)

    def _beaten(self, iou: float) -> bool:
        """Whether this loop needs more clicks than an earlier one to the IoU that the oracle goes by (GraCo)."""
        goal = ORACLES.get(self.protocol.granularity)
        if goal is None or self._reached:
            return False
        self._reached = bool(np.float32(iou) >= np.float32(goal))
        if self._reached:
            self._fewest = min(self._fewest, self.pending.click)
        return not self._reached and self.pending.click > self._fewest

    def _click(self) -> ClickRow:
        """Make the next click, or all points of a budget, of which the row shows the first."""
        height, width = self.sample.target.shape
        if self.protocol.budget:
            self.clicks = budget_points(self.protocol.budget, self.sample.target)
            click, number = self.clicks[0], 1
        elif self._trials is not None:
            made = [click for click, _ in self._trials.made]
            given = [] if made or self.sample.first_click is None else [self.sample.first_click]
            self._trials.begin(given or self._policy.candidates(self.sample.target, self._kept, made))
            click, number = self._trials.left[0], len(made) + 1
            self.clicks = self._trials.clicks
        else:
            click, number = self._simulated(), len(self.clicks) + 1
            self.clicks.append(click)
        policy = self.protocol.policy if self._policies else ""
        return ClickRow(
            self.sample.id,
            number,
            click.x,
            click.y,
            click.positive,
            height=height,
            width=width,
            granularity=self.granularity,
            policy=policy,
        )

    def _ask(self) -> None:
        """Ask for the next candidate, or first for the clicks before it."""
        assert self._trials is not None
        self.clicks = self._trials.clicks
        x, y, positive = self._trials.left[0]
        self.pending = replace(self.pending, x=x, y=y, positive=positive)

    def _simulated(self) -> Click:
        if self.sample.first_click is not None and not self.clicks:
            return self.sample.first_click
        return self._policy.simulate(
            self.sample.target, self._kept, self.clicks, seed=self.protocol.seed, sample=self.sample.id
        )

    def _stored(self, found: Candidates, kept: int) -> tuple[bytes | None, tuple[bytes, ...] | None]:
        if self.store == "none":
            return None, None
        if self.store == "kept":
            return masks.encode(found.masks[kept])["counts"], None
        every = tuple(masks.encode(mask)["counts"] for mask in found.masks)
        return every[kept], every


def read_trials(run: StoredRun) -> list[dict[str, Any]]:
    """The rows of `TRIALS`: sample, click and trials (x, y, iou); [] without the file, InputError for a damaged one."""
    path = run.folder / TRIALS
    if not path.is_file():
        return []
    with complaining(path, "not the trials of a run", "run the same command again with --existing overwrite"):
        found: list[dict[str, Any]] = read_rows(open_parquet(path, _TRIALS)[0], _TRIALS).to_pylist()
    return found


def first_mask(sample: Sample, protocol: Protocol) -> BoolArray:
    """The mask that the first click corrects, boolean (height, width): empty unless the sample has an initial one."""
    initial = _initial(sample, protocol)
    return np.zeros(sample.target.shape, dtype=bool) if initial is None else initial


def _granularities(sample: Sample, protocol: Protocol) -> Sequence[float | None]:
    """What the loops of a sample are told."""
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
class TargetsTask:
    """The benchmark's own task, clicks on one target (`disbench.harness.tasks.Task`).

    Attributes:
        protocol: how to evaluate.
        store: which masks the rows carry.
        policies: those of several loops on each sample, in place of the protocol's; each makes a run of its own.
    """

    protocol: Protocol
    store: Store = "none"
    policies: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """`SCHEMA`, with the granularity that the method is told, the policy among several, and the clicks tried."""
        fields = [] if self.protocol.granularity == "none" else [_TOLD.field("granularity")]
        fields += [pa.field("policy", pa.string())] if self.policies else []
        tries = any(ClickPolicy.parse(one).name in EXTREMES for one in self.policies or [self.protocol.policy])
        return pa.schema([*SCHEMA, *fields, *([_TRIALS.field("trials")] if tries else [])], SCHEMA.metadata)

    def parts(self) -> dict[str, TargetsTask]:
        """The runs that it makes: folder below its own -> task of a single policy; "" is the folder itself."""
        if not self.policies:
            return {"": self}
        labels = [ClickPolicy.parse(policy).label for policy in self.policies]
        names = ["base" if label == "center" else label.partition(" ")[0] for label in labels]
        tasks = [TargetsTask(replace(self.protocol, policy=policy), self.store) for policy in self.policies]
        return dict(zip(names, tasks, strict=True))

    def begin(self, sample: Sample, harness_seconds: float) -> SampleLoop:
        """The loop of a sample."""
        return SampleLoop(sample, self.protocol, self.store, harness_seconds, self.policies)

    def unread(self, sample: str, reason: str) -> ClickRow:
        """The only row of a sample that cannot be read."""
        return ClickRow(sample, 1, 0, 0, positive=False, failure=reason)

    def kept(self, rows: Sequence[ClickRow]) -> Sequence[ClickRow]:
        """All rows, or of several granularities those of the best, or of the one in which the method failed.

        Where the sample ended before some policies were reached, each of these gets the last row, a failure.
        """
        if self.policies:
            missing = [policy for policy in self.policies if policy not in {row.policy for row in rows}]
            ended = [replace(rows[-1], click=1, policy=policy) for policy in missing]
            return [*(row for row in rows if row.policy), *ended]
        loops = [list(loop) for _, loop in groupby(rows, key=lambda row: row.granularity)]
        if len(loops) == 1 or rows[-1].failure is not None:
            return loops[-1]
        cap = self.protocol.max_clicks
        ious = [filled_up(np.array([row.iou for row in loop]), cap, failed=True, replayed=False) for loop in loops]
        return loops[ambiguity.best_loop(ious, ORACLES[self.protocol.granularity], cap)]

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `clicks.parquet`, and what belongs beside it: `GRANULARITIES`, `TRIALS`."""
        beside = {GRANULARITIES: _TOLD, TRIALS: _TRIALS}
        parts: dict[str, list[pa.Table]] = {n: [] for n, s in beside.items() if s.names[-1] in self.schema.names}

        def without(table: pa.Table) -> pa.Table:
            for name, part in parts.items():
                own = table.select(beside[name].names)
                part.append(own.slice(0, 1) if name == GRANULARITIES else own)
            return table.select(SCHEMA.names).cast(SCHEMA)

        write_clicks(folder / CLICKS, map(without, tables))
        for name, part in parts.items():
            with naming(folder / name), whole_file(folder / name) as file:
                pq.write_table(pa.concat_tables(part).cast(beside[name]), file, compression="zstd")
