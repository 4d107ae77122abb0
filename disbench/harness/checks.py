"""Checks for verification: whether a run's rows fit each other, `run.json`, the targets, and the stored masks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from disbench.core import masks
from disbench.core.arrays import BoolArray, FloatArray
from disbench.core.click_policies import (
    CLICKS_WITHOUT_ERROR,
    EXTREMES,
    REPLAY,
    ClickPolicy,
    budget_points,
    error_distances,
)
from disbench.core.clicks import NO_ERROR, Click, error_masks
from disbench.core.depths import Depth
from disbench.core.errors import InputError
from disbench.core.limits import MAX_IOUS
from disbench.core.metrics import TargetBoundary, iou
from disbench.core.samples import Sample, Target
from disbench.harness.measures import RunRows, Value, claimed_values
from disbench.harness.protocol import Protocol
from disbench.harness.record import UNREAD, Failure
from disbench.harness.sample_loop import first_mask
from disbench.harness.store import CLICKS, RUN, SCHEMA, SECONDS, StoredRun, pad_to_cap
from disbench.harness.tasks import Candidates, choose, choose_by_numbers

Row = Mapping[str, Any]  # a row of `clicks.parquet`, with the columns of `SCHEMA`
Judgement = Literal["same", "moved", "wrong"]
# Pixels by which a click's distance may be below the largest: OpenCV releases differ in the last bits.
TOLERANCE = 1e-3
_LISTS = ("candidate_ious", "candidate_scores", "candidate_masks")
_COLUMNS_OF_MASKS = {"none": (), "kept": ("mask",), "all": ("mask", "candidate_masks")}  # columns that are not null
_SECONDS_OFF = 1e-9  # relative tolerance of sums of seconds, which depend on the order of additions
_LONGEST = 200  # maximum length of an id in a message
_EXACT_IOU = 1 << 24  # image size in pixels up to which a float32 IoU of 1 means that all pixels are right
_CENTRES = 100  # centres within the tolerance around which a jittered click is tried
_EXAMPLES = 3  # examples kept per kind of problem


class Problems:
    """Problems counted by kind, with a few examples of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, kind: str, example: str) -> None:
        """Add a problem: its kind (a fixed string), and where it was found."""
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)

    def lines(self) -> list[str]:
        """One line per kind: the number of problems and the first examples."""
        return [
            f"{count:,} x {kind}: {'; '.join(self._examples[kind])}"
            + (f"; and {count - _EXAMPLES:,} more" if count > _EXAMPLES else "")
            for kind, count in self._counts.items()
        ]


class RowChecks:
    """Compares rows with each other and with `run.json`, sample by sample.

    `protocol` has its recording if that was found; `stored` is the expected `Store` of masks.
    """

    def __init__(self, run: StoredRun, protocol: Protocol, stored: str, problems: Problems) -> None:
        self._place = run.place(CLICKS)
        self._record, self._protocol, self._problems = run.record, protocol, problems
        self._masks = _COLUMNS_OF_MASKS[stored]
        self._policy = protocol.click_policy
        self._replayed = self._policy.name == REPLAY
        self._clicks_on = self._replayed or self._policy.name in CLICKS_WITHOUT_ERROR
        self._seen: set[str] = set()
        self._ious: list[tuple[FloatArray, bool]] = []
        self._failed: list[Failure] = []
        self._clicks = 0
        self._seconds = dict.fromkeys(SECONDS, 0.0)

    def add(self, table: pa.Table) -> list[dict[str, Any]] | None:
        """Check the rows of one sample; returns them, or None if they are not fit for comparison with images."""
        try:
            rows: list[dict[str, Any]] = table.to_pylist()
        except UnicodeDecodeError as error:
            self._problems.add("sample with a text that is not UTF-8", str(error))
            return None
        self._count(rows)
        if any(None in (row[name] or ()) for row in rows for name in _LISTS):
            self._problems.add("sample with an empty entry in a list", repr(rows[0]["sample"]))
            return None
        problems = list(self._order(rows))
        clicked: set[tuple[int, int]] = set()
        before: Row | None = None
        for row in rows:
            found = list(self._form(row))
            if not found:  # the row's values can be compared
                found = list(self._click(row, before, (row["x"], row["y"]) in clicked))
                found += self._measures(row) if row["failure"] is None else _failure(row)
                clicked.add((row["x"], row["y"]))
                before = row
            problems += found
        for kind, example in problems:
            self._problems.add(kind, example)
        return None if problems else rows

    def end(self) -> dict[str, Value] | None:
        """Compare sums over all rows with `run.json`; returns the measures that a packed run claims, or None."""
        result, protocol = self._record.result, self._protocol
        kind = f"figure of {RUN} that its rows do not have"
        counts = [("samples", result.samples, len(self._seen)), ("clicks", result.clicks, self._clicks)]
        if not self._replayed:  # which samples have recorded clicks depends on the dataset
            counts.append(("samples by dataset, every and limit", len(self._record.numbers), len(self._seen)))
        for name, said, found in counts:
            if said != found:
                self._problems.add(kind, f"{name}: {said}, in the rows {found}")
        if list(result.failed) != self._failed:
            pairs = zip_longest(result.failed, self._failed)
            one, other = (f"{part}"[:_LONGEST] for part in next(pair for pair in pairs if pair[0] != pair[1]))
            numbers = f"failed: {len(result.failed)}, in the rows {len(self._failed)}"
            self._problems.add(kind, f"{numbers}; the first that differs: {one}, {other}")
        for name, seconds in self._seconds.items():
            said = getattr(result, name)
            if not math.isclose(said, seconds, rel_tol=_SECONDS_OFF, abs_tol=_SECONDS_OFF):
                self._problems.add(kind, f"{name}: {said}, in the rows {seconds}")
        most, failures = protocol.max_clicks, [(failure.sample, failure.reason) for failure in self._failed]
        try:
            ious = [pad_to_cap(ious, most, failed=failed, replayed=self._replayed) for ious, failed in self._ious]
            how = (most, protocol.stop_at, protocol.budget)
            return claimed_values(RunRows(list(self._seen), ious, self._clicks, failures, *how))
        except ValueError as error:
            self._problems.add("run whose rows have no figures", str(error))
            return None

    def _count(self, rows: Sequence[Row]) -> None:
        last, most = rows[-1], self._protocol.max_clicks
        failed = last["failure"] is not None
        if failed:
            self._failed.append(Failure(last["sample"], last["click"], last["failure"]))
        early = len(self._ious) + 1 if self._replayed else len(self._failed)
        if early * most > MAX_IOUS:
            raise InputError(f"{self._place}: {early} samples of {most} clicks are more than any run has; get it again")
        self._clicks += len(rows)
        self._ious.append((np.array([row["iou"] for row in rows], dtype=np.float64), failed))  # padded in `end`
        for name in SECONDS:
            self._seconds[name] += sum(row[name] for row in rows)

    def _order(self, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
        sample, count, most = rows[0]["sample"], len(rows), self._protocol.max_clicks
        if sample in self._seen:
            yield "sample whose rows are not together", repr(sample)
        self._seen.add(sample)
        if [row["click"] for row in rows] != list(range(1, count + 1)):
            yield "sample whose clicks are not numbered 1, 2, 3, ...", repr(sample)
        if len({(row["height"], row["width"]) for row in rows}) > 1:
            yield "sample whose height and width change", repr(sample)
        stop_at = self._protocol.stop_at
        least = np.float32(np.inf if stop_at is None else stop_at)
        ends = [row["failure"] is not None or bool(np.float32(row["iou"]) >= least) for row in rows]
        if any(ends[:-1]):
            yield "row after a sample's end", _where(rows[ends.index(True) + 1])
        if count > most:
            yield "sample with more clicks than the protocol gives", f"{sample!r} ({count} of {most})"
        recorded_end = self._replayed and (self._protocol.recording is None or self._policy.is_exhausted(sample, count))
        if count < most and not ends[-1] and not recorded_end:  # without the recording, any end is accepted
            yield "sample that ends early", f"{sample!r} (after {count} of {most} clicks)"

    def _form(self, row: Row) -> Iterator[tuple[str, str]]:
        """Check that a row's click, masks and lists fit each other, so that its values can be compared."""
        size = (row["height"], row["width"])
        if is_unread(row):
            if (row["x"], row["y"], row["click"], *size) != (0, 0, 1, 0, 0):
                yield "sample that cannot be read, with a click", _where(row)
        elif not (0 <= row["x"] < row["width"] and 0 <= row["y"] < row["height"]):
            place = f"x {row['x']}, y {row['y']} in {row['width']} x {row['height']} pixels"
            yield "click outside the image", f"{_where(row)} ({place})"
        good = row["failure"] is None
        stored = [name for name in ("mask", "candidate_masks") if row[name] is not None]
        if stored != list(self._masks if good else ()):
            yield f"row with other masks than {RUN} says", f"{_where(row)} ({' and '.join(stored) or 'none'})"
            return
        every = (row["mask"], *(row["candidate_masks"] or ()))
        for mask in (one for one in every if one is not None):
            try:
                masks.from_foreign_rle({"size": list(size), "counts": mask}, *size)
            except ValueError as error:
                yield "mask that does not fit the image", f"{_where(row)} ({error})"
        if good and (row["candidates"] < 1 or row["candidates"] != len(row["candidate_ious"])):
            example = f"{_where(row)} ({row['candidates']}, {len(row['candidate_ious'])} IoUs)"
            yield "row whose number of candidates is not that of their IoUs", example
        elif good and not 0 <= row["kept"] < row["candidates"]:
            yield "row that keeps a missing candidate", f"{_where(row)} ({row['kept']} of {row['candidates']})"
        elif good:
            scores, count = row["candidate_scores"], row["candidates"]
            if scores is None and count > 1 and self._protocol.selection == "score":
                yield "candidates without the scores that the selection needs", _where(row)
            if scores is not None and not (len(scores) == count and all(map(math.isfinite, scores))):
                yield "row whose scores are not one finite number a candidate", _where(row)

    def _click(self, row: Row, before: Row | None, again: bool) -> Iterator[tuple[str, str]]:
        """Check that a click corrects an error left by earlier ones, and that times are valid."""
        if before is not None and before["click"] == row["click"] - 1 and before["iou"] == 1:
            again |= row["height"] * row["width"] <= _EXACT_IOU
        if again and (row["x"], row["y"], row["positive"]) != NO_ERROR and not self._clicks_on:
            yield "click where nothing is left to correct", _where(row)
        for name in SECONDS:
            if not (math.isfinite(row[name]) and row[name] >= 0):
                yield "time that is negative or not finite", f"{_where(row)} ({name} {row[name]})"

    def _measures(self, row: Row) -> Iterator[tuple[str, str]]:
        for value in (row["iou"], row["boundary_iou"], *row["candidate_ious"]):
            if not (math.isnan(value) or 0 <= value <= 1):
                yield "IoU outside [0, 1]", f"{_where(row)} ({value})"
        own = row["candidate_ious"][row["kept"]]
        if not _same(own, row["iou"]):
            yield "IoU that is not its kept candidate's", f"{_where(row)} ({row['iou']}, {own})"
        kept = choose_by_numbers(self._protocol.selection, row["click"], row["candidate_ious"], row["candidate_scores"])
        if kept is not None and kept != row["kept"]:
            kind = f"candidate that the selection '{self._protocol.selection}' does not keep"
            yield kind, f"{_where(row)} ({row['kept']}, not {kept})"


def _failure(row: Row) -> Iterator[tuple[str, str]]:
    found = [row[name] for name in ("iou", "boundary_iou", "kept", "candidates", "candidate_scores")]
    if found != [0.0, 0.0, -1, 0, None] or row["candidate_ious"] or not row["failure"]:
        yield "failure with a result", _where(row)


def is_unread(row: Row) -> bool:
    """True if the row belongs to a sample that cannot be read."""
    return str(row["failure"]).startswith(UNREAD)


def check_schema(run: StoredRun, problems: Problems) -> bool:
    """True if the rows have exactly the columns of `SCHEMA`."""
    schema = run.schema()
    form = (schema.metadata or {}).get(b"disbench.run")
    if schema.equals(SCHEMA) and form == SCHEMA.metadata[b"disbench.run"]:
        return True
    known = {field.name: field for field in SCHEMA}
    odd = [field.name for field in schema if not known.pop(field.name, field.with_name("")).equals(field)]
    example = f"{CLICKS} (other names or types: {odd}; missing: {list(known)}; form {form!r})"
    problems.add("file whose columns are not this version's", example[:_LONGEST])
    return False


def _same(first: float, second: float) -> bool:
    """Equal, or both nan."""
    return first == second or (math.isnan(first) and math.isnan(second))


def _where(row: Row) -> str:
    return f"{repr(row['sample'])[:_LONGEST]}, click {row['click']}"


def judge_click(
    policy: ClickPolicy,
    target: Target,
    prediction: BoolArray,
    before: Sequence[Click],
    click: Click,
    *,
    seed: int = 0,
    sample: str = "",
) -> Judgement:
    """Compare a click with the one that the policy simulates (arguments as for `ClickPolicy.simulate`).

    `moved` means a different click whose distance is within `TOLERANCE` of the largest over both kinds of error, on an
    error pixel of the kind that its sign implies (for `jitter`: around another centre of that kind).
    """
    tries = policy.name in EXTREMES
    simulated = policy.simulate(target, prediction, before, seed=seed, sample=sample)
    if click == simulated or (tries and click in policy.candidates(target, prediction, before)):
        return "same"
    if tries or policy.name in ("random", "removed-center", "slice"):
        return "wrong"  # determined by the method or a random draw
    errors = error_masks(target, prediction)
    depths = [error_distances(of_kind, before) for of_kind in errors]
    largest, kind = max(float(of_kind.max()) for of_kind in depths), 0 if click.positive else 1
    own, least = depths[kind], largest - TOLERANCE
    if largest == 0:
        return "wrong"
    if policy.name in ("center", "scipy-center", "scipy-restart"):
        return "moved" if own[click.y, click.x] >= least else "wrong"
    for y, x in islice(np.argwhere(own >= least).tolist(), _CENTRES):
        center = Depth(float(own[y, x]), x, y, click.positive)
        if policy.jitter(errors[kind], center, before, seed=seed, sample=sample) == click:
            return "moved"
    return "wrong"


class ClickChecks:
    """Replays samples click by click; counts `clicks` compared, `moved` within the tolerance, and IoUs `measured`."""

    def __init__(self, protocol: Protocol, problems: Problems) -> None:
        self._protocol, self._problems = protocol, problems
        self._policy = protocol.click_policy
        self.clicks = self.moved = self.measured = 0

    def add(self, sample: Sample, rows: Sequence[Row]) -> None:
        """Replay the rows of one sample (from `RowChecks.add`) as far as its masks allow: one click without masks."""
        size = sample.target.shape
        if size != (rows[0]["height"], rows[0]["width"]):
            found = f"{rows[0]['height']} x {rows[0]['width']}, not {size[0]} x {size[1]}"
            self._problems.add("sample of another size than in the dataset", f"{sample.id!r} ({found})")
            return
        boundary = TargetBoundary(sample.target)
        kept = first_mask(sample, self._protocol)
        before: list[Click] = []
        for row in rows:
            click = Click(row["x"], row["y"], row["positive"])
            self._judge(sample, kept, before, click)
            before.append(click)
            if row["mask"] is None:
                return
            previous, kept = kept, _mask(row["mask"], row)
            self._measure(sample, boundary, row, kept, previous)

    def _judge(self, sample: Sample, kept: BoolArray, before: Sequence[Click], click: Click) -> None:
        recording, seed = self._protocol.recording, self._protocol.seed
        if self._policy.name == REPLAY and recording is None:
            return
        self.clicks += 1
        expected: Click | None
        if recording is not None:
            expected = next(iter(recording.clicks.get(sample.id, ())[len(before) :]), None)
            kind = "click that is not the recorded one"
        elif self._protocol.budget:
            expected = budget_points(self._protocol.budget, sample.target)[0]
            kind = "point that does not follow from the target"
        elif sample.first_click is not None and not before:
            expected, kind = sample.first_click, "first click that is not the sample's own"
        else:
            judgement = judge_click(self._policy, sample.target, kept, before, click, seed=seed, sample=sample.id)
            self.moved += judgement == "moved"
            if judgement != "wrong":
                return
            expected = self._policy.simulate(sample.target, kept, before, seed=seed, sample=sample.id)
            kind = "click that does not follow from the mask before it"
        if click != expected:
            said = f"not {_text(expected)}" if expected else "after the last recorded one"
            self._problems.add(kind, f"{sample.id!r}, click {len(before) + 1} ({_text(click)}, {said})")

    def _measure(self, sample: Sample, edges: TargetBoundary, row: Row, kept: BoolArray, previous: BoolArray) -> None:
        self.measured += 1
        where = f"{sample.id!r}, click {row['click']}"
        for name, found in (("iou", iou(sample.target, kept)), ("boundary_iou", edges.iou(kept))):
            if not _same(row[name], found):
                self._problems.add(f"{name} that its mask does not have", f"{where} ({row[name]}, {found})")
        if row["candidate_masks"] is None:
            return
        every = np.stack([_mask(counts, row) for counts in row["candidate_masks"]])
        ious = [iou(sample.target, mask) for mask in every]
        for number, (said, found) in enumerate(zip(row["candidate_ious"], ious, strict=True)):
            if not _same(said, found):
                example = f"{where}, candidate {number} ({said}, {found})"
                self._problems.add("candidate's IoU that its mask does not have", example)
        if not np.array_equal(every[row["kept"]], kept):
            self._problems.add("mask that is not its kept candidate's", where)
        selection, offered = self._protocol.selection, Candidates(every, row["candidate_scores"])
        chosen = choose(selection, row["click"], offered, ious, previous)
        if chosen != row["kept"]:
            kind = f"candidate that the selection '{selection}' does not keep, by its masks"
            self._problems.add(kind, f"{where} ({row['kept']}, not {chosen})")


def _mask(counts: bytes, row: Row) -> BoolArray:
    return masks.decode({"size": [row["height"], row["width"]], "counts": counts})


def _text(click: Click) -> str:
    return f"{click.x},{click.y},{'+' if click.positive else '-'}"
