"""Tasks and loops, candidates of a method, and evaluation of samples, alone or in lockstep, as a stream of events.

A task defines what a loop asks a method and the columns of its rows, so that all tasks share resuming, supervision and
distribution. The events tell a worker's parent whether the method hangs.
"""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from disbench.baselines.bridge.child import plain_array
from disbench.core.arrays import BoolArray
from disbench.core.choices import Selection
from disbench.core.clicks import Click
from disbench.core.errors import InputError, describe_error, one_line, quote
from disbench.core.limits import MAX_CANDIDATES
from disbench.core.prediction import Method, MethodError, Prediction, RgbImage, Session, call_method
from disbench.harness.record import UNREAD, Record

ROUNDING = 1e-3  # tolerance for probabilities outside [0, 1], for rounding by resizing and 16-bit floats


@dataclass(frozen=True, slots=True)
class Candidates:
    """Masks for one click, boolean (n, height, width) with n at least 1, and n finite scores or None.

    The masks are a copy, not a view of the method's.
    """

    masks: BoolArray
    scores: tuple[float, ...] | None


def predicted(session: Any, clicks: Sequence[Click]) -> Prediction:
    """A session's prediction for all clicks so far, as NumPy arrays; MethodError if it fails."""
    if not callable(getattr(session, "predict", None)):
        raise MethodError(f"open returned a {type(session).__name__}, which has no predict(clicks)")
    return call_method("predict", lambda: numpy_prediction(session.predict(list(clicks))))


def notify_kept(session: Any, index: int) -> None:
    """Tell a session which candidate was kept, if it has `keep`; MethodError if that fails."""
    keep = getattr(session, "keep", None)
    if keep is not None:
        call_method("keep", lambda: keep(index))


def numpy_prediction(prediction: object) -> Prediction:
    """Convert a prediction's tensors, images, lists or generators to NumPy arrays; MethodError if it has no masks."""
    names = ("masks", "scores")
    masks, scores = call_method("reading the answer", lambda: [getattr(prediction, name, None) for name in names])
    if masks is None:
        raise MethodError(f"predict returned a {type(prediction).__name__}, not a Prediction with masks")
    plain = call_method("reading the masks", lambda: plain_array(masks))
    return Prediction(plain, None if scores is None else call_method("reading the scores", lambda: plain_array(scores)))


def checked_candidates(prediction: object, height: int, width: int, threshold: float) -> Candidates:
    """Masks and scores of a prediction; probabilities are thresholded, booleans unchanged.

    MethodError for no masks, a wrong shape or dtype, values outside [0, 1] by more than `ROUNDING`, or a score that is
    missing or not finite.
    """
    plain = numpy_prediction(prediction)
    masks, scores = plain.masks, plain.scores
    if masks.ndim != 3 or masks.shape[0] == 0 or masks.shape[1:] != (height, width):
        raise MethodError(f"masks of shape {masks.shape} instead of (candidates, {height}, {width})")
    if len(masks) > MAX_CANDIDATES:
        raise MethodError(f"{len(masks)} candidates; at most {MAX_CANDIDATES} are taken")
    if masks.dtype == np.bool_:
        return Candidates(masks.copy(), _checked_scores(scores, len(masks)))
    if masks.dtype.kind != "f":
        raise MethodError(f"masks of dtype {masks.dtype}; give booleans or probabilities")
    low, high = float(masks.min()), float(masks.max())
    if np.isnan(low) or np.isnan(high):
        raise MethodError("masks with NaN in them")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise MethodError(f"mask values from {low:.4g} to {high:.4g}; probabilities lie in [0, 1] (are these logits?)")
    return Candidates(masks > threshold, _checked_scores(scores, len(masks)))


def choose(selection: Selection, click: int, candidates: Candidates, ious: Sequence[float], previous: BoolArray) -> int:
    """Index of the candidate selected at a click (from 1); ties go to the lowest index, nan counts as the lowest IoU.

    Only oracles use `ious`. Without scores, the method's own choice is the candidate nearest to `previous`;
    MethodError if the selection is `score`.
    """
    kept = choose_by_numbers(selection, click, ious, candidates.scores)
    if kept is not None:
        return kept
    return _first_best([pair_iou(previous, mask) for mask in candidates.masks])


def choose_by_numbers(
    selection: Selection, click: int, ious: Sequence[float], scores: Sequence[float] | None
) -> int | None:
    """Like `choose`, from IoUs and scores alone; None if the masks are needed."""
    if len(ious) == 1:
        return 0
    if selection == "oracle-all" or (selection == "oracle-first" and click == 1):
        return _first_best(ious)
    if scores is not None:
        return _first_best(scores)
    if selection == "score":
        raise MethodError(f"{len(ious)} candidates without scores; the selection 'score' needs them")
    return None


def pair_iou(first: BoolArray, second: BoolArray) -> float:
    """IoU of two masks over all pixels; 1 for two empty masks."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def _first_best(values: Sequence[float]) -> int:
    return int(np.argmax(np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-np.inf)))


def _checked_scores(scores: object, count: int) -> tuple[float, ...] | None:
    if scores is None:
        return None
    try:
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise MethodError(f"scores that are not numbers: {quote(np.ravel(np.asarray(scores)).tolist())}") from None
    if found.shape != (count,):
        raise MethodError(f"scores of shape {found.shape} for {count} candidates")
    if not np.isfinite(found).all():
        raise MethodError("scores that are not finite numbers")
    return tuple(found.tolist())


Row = Any  # the result of one call of a method: a dataclass with the columns of its task's schema


class Loop(ABC):
    """State of one sample: the caller opens a session, asks it for `clicks`, and passes the answer back.

    Attributes:
        image: opened by the session.
        harness_seconds: spent on the sample since the last row.
        initial: mask that a session starts from, or None.
        granularity: passed when opening a session, or None.
        session: None if the caller must open one before the next answer.
        again: restart the session, on the same image, before the next answer.
        undo: undo the session's last answer before the next one; needs a session with `undo`.
        clicks: all clicks of the pending answer.
        pending: row of the pending answer if the method fails on it.
        done: True if the sample is finished.
    """

    clicks: list[Click]
    pending: Row
    granularity: float | None = None

    def __init__(self, image: RgbImage, harness_seconds: float, initial: BoolArray | None = None) -> None:
        self.image, self.initial, self.harness_seconds, self._model_seconds = image, initial, harness_seconds, 0.0
        self.session: Session | None = None
        self.done = self.again = self.undo = False

    def spend(self, seconds: float) -> None:
        """Add time that the method took for the pending answer."""
        self._model_seconds += seconds

    @abstractmethod
    def take(self, prediction: object, keep: Callable[[int], None]) -> Row | None:
        """Check and measure an answer; returns the finished row, or None if the loop needs more answers for it.

        Calls `keep` with the index of the selected candidate, if any; MethodError if the answer is malformed.
        """

    def fail(self, reason: str) -> Row | None:
        """The method failed on the pending answer; ends the sample, unless a loop continues; returns as `take`."""
        return self.end(reason)

    def end(self, reason: str) -> Row:
        """End the sample because the method failed on the pending answer."""
        self.done = True
        return self._finished(self.pending, failure=reason)

    def _finished(self, row: Row, **values: object) -> Row:
        row = replace(row, model_seconds=self._model_seconds, harness_seconds=self.harness_seconds, **values)
        self._model_seconds = self.harness_seconds = 0.0
        return row


class SingleClickLoop(Loop):
    """A loop of single clicks, each answered independently; no candidate is kept.

    `asked` has each click and its pending row. With `reopens`, each click gets its own session, otherwise all share one
    if it can be restarted.
    """

    def __init__(
        self,
        image: RgbImage,
        harness_seconds: float,
        threshold: float,
        asked: Iterable[tuple[Click, Row]],
        *,
        reopens: bool = False,
    ) -> None:
        begun = time.perf_counter()
        super().__init__(image, harness_seconds)
        self._threshold, self._asked, self._reopens = threshold, iter(asked), reopens
        self._next()
        self.harness_seconds += time.perf_counter() - begun

    def _next(self) -> None:
        asked = next(self._asked, None)
        if asked is None:
            self.done = True
            return
        click, self.pending = asked
        self.clicks, self.again = [click], self.session is not None
        if self._reopens:
            self.session = None

    def take(self, prediction: object, keep: Callable[[int], None] = lambda _: None) -> Row:
        """Check and measure a method's candidates (`Loop.take`)."""
        begun = time.perf_counter()
        height, width = self.image.shape[:2]
        row = self._measured(checked_candidates(prediction, height, width, self._threshold), self.pending)
        self._next()
        self.harness_seconds += time.perf_counter() - begun
        return self._finished(row)

    @abstractmethod
    def _measured(self, found: Candidates, row: Row) -> Row:
        """The pending row with the results."""


class Task(ABC):
    """Defines what a run asks a method. Picklable, since every worker gets it."""

    protocol: Any
    kind: ClassVar[type[Record]]
    """Class of the run's record."""

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Schema of the rows in the journal; includes `sample`, `click`, `failure` and the seconds."""

    @abstractmethod
    def begin(self, sample: Any, harness_seconds: float) -> Loop:
        """Create the loop of a sample; reading the sample took `harness_seconds`."""

    @abstractmethod
    def unread(self, sample: str, reason: str) -> Row:
        """The only row of a sample that cannot be read."""

    @abstractmethod
    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write the rows of a finished run, in the order of the samples."""

    def kept(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Select the rows of a finished sample to store."""
        return rows

    def parts(self) -> Mapping[str, Task]:
        """The runs that the task makes: subfolder ("" for the run's folder itself) -> task."""
        return {"": self}


class CallStarted(NamedTuple):
    """A call of the method (`what`) begins; `rows` are the samples' rows in case the call never returns."""

    rows: dict[int, Row]
    what: str


class CallEnded(NamedTuple):
    """The call returned."""


class RowFinished(NamedTuple):
    """A row of a sample is finished, its last if `done`."""

    number: int
    row: Row
    done: bool


class BatchFailed(NamedTuple):
    """`predict_batch` failed for this reason; the sessions are asked one by one."""

    reason: str


Event = CallStarted | CallEnded | RowFinished | BatchFailed


class Reader(NamedTuple):
    """Index and id of a sample, and a function that reads it."""

    number: int
    sample: str
    read: Callable[[], Any]


def run_chunk(method: Method, samples: Sequence[Reader], task: Task, *, batched: bool = False) -> Iterator[Event]:
    """Evaluate a method on a few samples.

    `batched` steps all samples in lockstep, with one `predict_batch` per click; otherwise samples run one by one.

    Yields:
        Events in order; each sample ends with a `RowFinished` that is `done`.

    Raises:
        InputError: the method cannot start from an initial mask, takes no granularity, or `make_ready` failed.
    """
    for group in [samples] if batched and samples else [[one] for one in samples]:
        yield from _run_together(method, group, task, batched=batched)


def _run_together(method: Method, samples: Sequence[Reader], task: Task, *, batched: bool) -> Iterator[Event]:
    going: dict[int, Loop] = {}
    for reader in samples:
        loop = yield from _begin(reader, task)
        if loop is not None and (yield from _open(method, reader.number, loop)):
            going[reader.number] = loop
    while going:
        predictions = (yield from _predict_batch(method, going)) if batched else {}
        for number, loop in going.items():
            yield from _step(number, loop, predictions)
        going = {number: loop for number, loop in going.items() if not loop.done}
        for number, loop in list(going.items()):
            if (loop.session is None or loop.again or loop.undo) and not (yield from _open(method, number, loop)):
                del going[number]


def _begin(reader: Reader, task: Task) -> Generator[Event, None, Loop | None]:
    """Create the loop of a sample; None if it cannot be read, as its row says."""
    begun = time.perf_counter()
    yield CallStarted({reader.number: task.unread(reader.sample, "")}, UNREAD)
    sample, reason = None, ""
    try:
        sample = reader.read()
    except Exception as error:
        reason = one_line(str(error)) if isinstance(error, InputError) else describe_error(error)
    yield CallEnded()
    if sample is None:
        yield RowFinished(reader.number, task.unread(reader.sample, f"{UNREAD}: {reason}"), done=True)
        return None
    return task.begin(sample, time.perf_counter() - begun)


def _open(method: Method, number: int, loop: Loop) -> Generator[Event, None, bool]:
    """Open a session for a loop, restart it if possible, or undo its last answer; True if that worked."""
    restart = getattr(loop.session, "restart", None) if loop.again else None
    undo = getattr(loop.session, "undo", None) if loop.undo else None
    loop.again = loop.undo = False
    try:
        if undo is not None:
            yield from _calling({number: loop}, "undo", undo)
            return True
        if restart is not None:
            yield from _calling({number: loop}, "restart", restart)
        else:
            loop.session = yield from _calling({number: loop}, "open", _opening(method, loop))
        if loop.initial is not None:
            yield from _calling({number: loop}, "start", _starting(loop, loop.initial))
    except MethodError as failure:
        yield RowFinished(number, loop.end(str(failure)), done=True)
        return False
    return True


def _opening(method: Method, loop: Loop) -> Callable[[], Session]:
    if (make_ready := getattr(method, "make_ready", None)) is not None:
        call_method("make_ready", make_ready, InputError)  # an InputError ends the run
    image = loop.image.copy()  # the method may modify it
    if loop.granularity is None:
        return partial(method.open, image)
    takes = getattr(method, "takes_granularity", None)  # set by the bridge, where it depends on the child process
    if takes is None:
        takes = "granularity" in call_method("open", lambda: inspect.signature(method.open).parameters)
    if not takes:
        raise InputError(
            f"{loop.pending.sample}: the method takes no granularity (its 'open' has no argument of this name); leave "
            "out --granularity"
        )
    return partial(method.open, image, granularity=loop.granularity)  # type: ignore[call-arg]


def _starting(loop: Loop, initial: BoolArray) -> Callable[[], object]:
    start = getattr(loop.session, "start", None)
    if start is None:
        raise InputError(
            f"{loop.pending.sample}: the method cannot start from the sample's initial mask (its session has no "
            "'start'); use --initial-masks ignore to start from nothing"
        )
    return partial(start, initial.copy())


def _step(number: int, loop: Loop, predictions: dict[int, Any]) -> Generator[Event, None, None]:
    """One click of one sample, unless already predicted."""

    def keep(index: int) -> None:
        _timed([loop], lambda: notify_kept(loop.session, index))

    yield CallStarted({number: loop.pending}, "predict")
    try:
        if number in predictions:
            prediction = predictions[number]
        else:
            prediction = _timed([loop], lambda: predicted(loop.session, loop.clicks))
        row = call_method("measuring the answer", lambda: loop.take(prediction, keep))
    except MethodError as failure:
        row = loop.fail(str(failure))
    yield CallEnded()
    if row is not None:
        yield RowFinished(number, row, done=loop.done)


def _predict_batch(method: Any, going: dict[int, Loop]) -> Generator[Event, None, dict[int, Any]]:
    """Predictions of all samples in one call; {} if it fails."""
    sessions = [loop.session for loop in going.values()]
    clicks = [list(loop.clicks) for loop in going.values()]

    def ask() -> list[Prediction]:
        found = method.predict_batch(sessions, clicks)
        if not isinstance(found, Sequence) or len(found) != len(going):
            raise MethodError(f"predict_batch did not return a list of {len(going)} predictions")
        return [numpy_prediction(prediction) for prediction in found]

    try:
        found = yield from _calling(going, "predict_batch", ask)
    except MethodError as failure:
        yield BatchFailed(str(failure))
        return {}
    return dict(zip(going, found, strict=True))


def _calling(loops: Mapping[int, Loop], what: str, call: Callable[[], Any]) -> Generator[Event, None, Any]:
    yield CallStarted({number: loop.pending for number, loop in loops.items()}, what)
    try:
        return _timed(loops.values(), lambda: call_method(what, call))
    finally:
        yield CallEnded()


def _timed(loops: Collection[Loop], call: Callable[[], Any]) -> Any:
    """Call the method, dividing the time equally among the samples of the call."""
    begun = time.perf_counter()
    try:
        return call()
    finally:
        share = (time.perf_counter() - begun) / len(loops)
        for loop in loops:
            loop.spend(share)
