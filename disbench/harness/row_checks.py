"""Whether a run's rows fit each other and its `run.json`: all that can be told without images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa

from disbench.core import masks
from disbench.core.arrays import FloatArray
from disbench.core.click_policies import CLICKING_ON, REPLAY
from disbench.core.clicks import NO_ERROR, Click
from disbench.core.errors import InputError
from disbench.harness.candidates import choose_by_numbers
from disbench.harness.measures import RunRows, Value, claimed_values
from disbench.harness.problems import Problems
from disbench.harness.protocol import Protocol
from disbench.harness.record import Failure
from disbench.harness.store import CLICKS, MOST_IOUS, RUN, SCHEMA, SECONDS, StoredRun, filled_up

Row = Mapping[str, Any]
"""One row of `clicks.parquet`: the columns of `SCHEMA`."""

_LISTS = ("candidate_ious", "candidate_scores", "candidate_masks")
_COLUMNS_OF_MASKS = {"none": (), "kept": ("mask",), "all": ("mask", "candidate_masks")}
"""What is stored -> the columns that are not null."""
_SECONDS_OFF = 1e-9
"""By which share sums of seconds may differ: the order of the additions is not recorded."""
_LONGEST = 200
"""Characters of a text from outside that a problem quotes."""
_EXACT_IOU = 1 << 24
"""Up to so many pixels an IoU of 1 as float32 has no wrong pixel behind it."""


class RowChecks:
    """Holds rows against each other and against `run.json`, sample by sample.

    Args:
        run: its record and the place of its rows.
        protocol: of the run.
        stored: which masks the rows should have: `none`, `kept` or `all`.
        problems: added to.
    """

    def __init__(self, run: StoredRun, protocol: Protocol, stored: str, problems: Problems) -> None:
        self._place = run.place(CLICKS)
        self._record, self._protocol, self._problems = run.record, protocol, problems
        self._masks = _COLUMNS_OF_MASKS[stored]
        self._policy = protocol.click_policy
        self._replayed = self._policy.name == REPLAY
        self._clicks_on = self._replayed or self._policy.name in CLICKING_ON
        self._seen: set[str] = set()
        self._ious: list[tuple[FloatArray, bool]] = []
        self._failed: list[Failure] = []
        self._clicks = 0
        self._seconds = dict.fromkeys(SECONDS, 0.0)

    def add(self, table: pa.Table) -> list[dict[str, Any]] | None:
        """Check the rows of one sample.

        Returns:
            The rows; None if they cannot be held against images: out of order, out of the image, or without
            the masks that they should have.
        """
        try:
            rows: list[dict[str, Any]] = table.to_pylist()
        except UnicodeDecodeError as error:
            self._problems.add("sample with a text that is not UTF-8", str(error))
            return None
        self._count(rows)
        if any(_has_holes(row) for row in rows):
            self._problems.add("sample with an empty entry in a list", repr(rows[0]["sample"]))
            return None
        order = list(self._order(rows))
        forms = [list(self._form(row)) for row in rows]
        sound = [row for row, problems in zip(rows, forms, strict=True) if not problems]
        for kind, example in [*order, *chain.from_iterable(forms), *self._values(sound)]:
            self._problems.add(kind, example)
        return rows if not order and len(sound) == len(rows) else None

    def end(self) -> dict[str, Value] | None:
        """Hold the sums of all rows against `run.json`.

        Returns:
            The measures that a packed run claims; None where none follow from the rows.
        """
        result, expected = self._record.result, len(self._record.numbers)
        kind = f"figure of {RUN} that its rows do not have"
        counts = [("samples", result.samples, len(self._seen)), ("clicks", result.clicks, self._clicks)]
        if not self._replayed:  # which samples have recorded clicks is seen with the dataset
            counts.append(("samples by dataset, every and limit", expected, len(self._seen)))
        for name, said, found in counts:
            if said != found:
                self._problems.add(kind, f"{name}: {said}, in the rows {found}")
        if list(result.failed) != self._failed:
            self._problems.add(kind, _difference_of_failures(result.failed, self._failed))
        for name, seconds in self._seconds.items():
            said = getattr(result, name)
            if not math.isclose(said, seconds, rel_tol=_SECONDS_OFF, abs_tol=_SECONDS_OFF):
                self._problems.add(kind, f"{name}: {said}, in the rows {seconds}")
        try:
            protocol, most = self._protocol, self._protocol.max_clicks
            return claimed_values(
                RunRows(
                    samples=list(self._seen),
                    ious=[filled_up(ious, most, failed=failed, replayed=self._replayed) for ious, failed in self._ious],
                    clicks=self._clicks,
                    failures=[(failure.sample, failure.reason) for failure in self._failed],
                    max_clicks=most,
                    stop_at=protocol.stop_at,
                    budget=protocol.budget,
                )
            )
        except ValueError as error:
            self._problems.add("run whose rows have no figures", str(error))
            return None

    def _count(self, rows: Sequence[Row]) -> None:
        self._clicks += len(rows)
        last, ious = rows[-1], np.array([row["iou"] for row in rows], dtype=np.float64)
        if last["failure"] is not None:
            self._failed.append(Failure(last["sample"], last["click"], last["failure"]))
        failed, most = last["failure"] is not None, self._protocol.max_clicks
        early = len(self._ious) + 1 if self._replayed else len(self._failed)
        if early * most > MOST_IOUS:
            raise InputError(
                f"{self._place}: {early} samples that may end early, of {most} clicks each, which is more than any run "
                "has; get it again"
            )
        self._ious.append((ious, failed))  # filled up when all are counted
        for name in SECONDS:
            self._seconds[name] += sum(row[name] for row in rows)

    def _order(self, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
        """Whether a sample has the rows that the protocol gives it."""
        sample, count, most = rows[0]["sample"], len(rows), self._protocol.max_clicks
        if sample in self._seen:
            yield "sample whose rows do not stand together", repr(sample)
        self._seen.add(sample)
        if [row["click"] for row in rows] != list(range(1, count + 1)):
            yield "sample whose clicks are not numbered 1, 2, 3, ...", repr(sample)
        if len({(row["height"], row["width"]) for row in rows}) > 1:
            yield "sample whose height and width change", repr(sample)
        ends = [self._ends(row) for row in rows]
        if any(ends[:-1]):
            yield "row after a sample's end", f"{_where(rows[ends.index(True) + 1])}"
        if count > most:
            yield "sample with more clicks than the protocol gives", f"{sample!r} ({count} of {most})"
        if count < most and not ends[-1] and not self._may_end(sample, count):
            yield "sample that ends early", f"{sample!r} (after {count} of {most} clicks)"

    def _may_end(self, sample: str, clicks: int) -> bool:
        """Whether recorded clicks end there, as far as can be told: without the recording they may end anywhere."""
        return self._replayed and (self._protocol.recording is None or self._policy.ends(sample, clicks))

    def _ends(self, row: Row) -> bool:
        """A failure, or the IoU at which samples stop."""
        stop_at = self._protocol.stop_at
        reached = stop_at is not None and bool(np.float32(row["iou"]) >= np.float32(stop_at))
        return reached or row["failure"] is not None

    def _form(self, row: Row) -> Iterator[tuple[str, str]]:
        """Whether a row can be looked at further."""
        if not (0 <= row["x"] < row["width"] and 0 <= row["y"] < row["height"]):
            example = f"{_where(row)} (x {row['x']}, y {row['y']} in {row['width']} x {row['height']} pixels)"
            yield "click outside the image", example
        good = row["failure"] is None
        stored = [name for name in ("mask", "candidate_masks") if row[name] is not None]
        if stored != list(self._masks if good else ()):
            yield (
                f"row with other masks than {RUN} says",
                f"{_where(row)} ({' and '.join(stored) or 'none'})",
            )
            return
        for mask in stored_masks(row):
            try:
                masks.from_foreign_rle(
                    {"size": [row["height"], row["width"]], "counts": mask}, row["height"], row["width"]
                )
            except ValueError as error:
                yield "mask that is no mask of the image", f"{_where(row)} ({error})"
        if good and (row["candidates"] < 1 or row["candidates"] != len(row["candidate_ious"])):
            yield (
                "row whose number of candidates is not that of their IoUs",
                f"{_where(row)} ({row['candidates']}, {len(row['candidate_ious'])} IoUs)",
            )
        elif good and not 0 <= row["kept"] < row["candidates"]:
            yield (
                "row that keeps a candidate that is not there",
                f"{_where(row)} ({row['kept']} of {row['candidates']})",
            )
        elif good:
            yield from self._scores(row)

    def _scores(self, row: Row) -> Iterator[tuple[str, str]]:
        scores, count = row["candidate_scores"], row["candidates"]
        if scores is None and count > 1 and self._protocol.selection == "score":
            yield "candidates without the scores that the selection needs", _where(row)
        if scores is not None and not (len(scores) == count and all(map(math.isfinite, scores))):
            yield "row whose scores are not one finite number a candidate", _where(row)

    def _values(self, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
        clicked: set[tuple[int, int]] = set()
        before: Row | None = None
        for row in rows:
            click = Click(row["x"], row["y"], row["positive"])
            again = (row["x"], row["y"]) in clicked or _is_perfect(before, row)
            if again and click != NO_ERROR and not self._clicks_on:
                yield "click where nothing is left to correct", _where(row)
            clicked.add((row["x"], row["y"]))
            before = row
            for name in SECONDS:
                if not (math.isfinite(row[name]) and row[name] >= 0):
                    yield "time that is no time", f"{_where(row)} ({name} {row[name]})"
            yield from self._failure(row) if row["failure"] is not None else self._measures(row)

    def _failure(self, row: Row) -> Iterator[tuple[str, str]]:
        found = [row[name] for name in ("iou", "boundary_iou", "kept", "candidates", "candidate_scores")]
        if found != [0.0, 0.0, -1, 0, None] or row["candidate_ious"] or not row["failure"]:
            yield "failure with a result", _where(row)

    def _measures(self, row: Row) -> Iterator[tuple[str, str]]:
        for value in (row["iou"], row["boundary_iou"], *row["candidate_ious"]):
            if not (math.isnan(value) or 0 <= value <= 1):
                yield "IoU outside [0, 1]", f"{_where(row)} ({value})"
        own = row["candidate_ious"][row["kept"]]
        if not same(own, row["iou"]):
            yield "IoU that is not its kept candidate's", f"{_where(row)} ({row['iou']}, {own})"
        kept = choose_by_numbers(self._protocol.selection, row["click"], row["candidate_ious"], row["candidate_scores"])
        if kept is not None and kept != row["kept"]:
            yield (
                f"candidate that the selection '{self._protocol.selection}' does not keep",
                f"{_where(row)} ({row['kept']}, not {kept})",
            )


def check_schema(run: StoredRun, problems: Problems) -> bool:
    """Whether the rows have the columns of `SCHEMA`, in their order and of their types.

    Raises:
        InputError: the file is damaged.
    """
    schema = run.schema()
    form = (schema.metadata or {}).get(b"disbench.run")
    if schema.equals(SCHEMA) and form == SCHEMA.metadata[b"disbench.run"]:
        return True
    known = {field.name: field for field in SCHEMA}
    odd = [field.name for field in schema if not known.pop(field.name, field.with_name("")).equals(field)]
    example = f"{CLICKS} (other names or types: {odd}; missing: {list(known)}; form {form!r})"
    problems.add("file whose columns are not this version's", example[:_LONGEST])
    return False


def stored_masks(row: Row) -> list[bytes]:
    """All masks of a row, the kept one first."""
    return [*([] if row["mask"] is None else [row["mask"]]), *(row["candidate_masks"] or [])]


def same(first: float, second: float) -> bool:
    """Equal, or both not a number."""
    return first == second or (math.isnan(first) and math.isnan(second))


def _has_holes(row: Row) -> bool:
    return any(None in (row[name] or ()) for name in _LISTS)


def _where(row: Row) -> str:
    return f"{repr(row['sample'])[:_LONGEST]}, click {row['click']}"


def _is_perfect(before: Row | None, row: Row) -> bool:
    """Whether the click just before left nothing to correct."""
    if before is None or before["click"] != row["click"] - 1:
        return False
    return bool(before["iou"] == 1 and row["height"] * row["width"] <= _EXACT_IOU)


def _difference_of_failures(said: Sequence[Any], found: Sequence[Any]) -> str:
    one, other = next((pair for pair in zip_longest(said, found) if pair[0] != pair[1]), (said, found))
    differing = f"{one}"[:_LONGEST], f"{other}"[:_LONGEST]
    return f"failed: {len(said)}, in the rows {len(found)}; the first that differs: {differing[0]}, {differing[1]}"
