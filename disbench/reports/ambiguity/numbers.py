"""The numbers of one run of the diverse task, and of one run on each intent, from their stored rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from disbench.core import ambiguity
from disbench.core.arrays import BoolArray, Float32Array, FloatArray
from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach
from disbench.core.statistics import Estimate
from disbench.harness.answers import ANSWERS, SETS, StoredAnswers, read_sets_table
from disbench.harness.record import RunRecord, SetRunRecord
from disbench.harness.store import CLICKS, SECONDS, StoredRun
from disbench.reports.entries import run_label
from disbench.reports.render.text import plain

FAMILIES = (
    "self",
    "parent",
    "grandparent",
    "further ancestor",
    "container",
    "with 1 neighbour",
    "with several neighbours",
    "with other objects",
)
"""What a report tells of the relation of a mask to the clicked object."""
NOTHING = "nothing"
"""What a top candidate means that is near to no member."""
SIZES = ("1", "2", "3", "4 or more")
"""Masks of a set."""
MOST_ANSWERS = 1 << 24
"""First clicks of all sets of a run together."""
PERCENTS = (85, 90)
"""IoUs that a user's mask has to reach."""


def family(relation: str) -> str:
    """The family that a stored relation belongs to."""
    if relation in FAMILIES:
        return relation
    if relation.startswith("ancestor-"):
        return "further ancestor"
    if relation == "with-1-neighbour":
        return "with 1 neighbour"
    return "with several neighbours" if relation.endswith("-neighbours") else "with other objects"


@dataclass(frozen=True)
class Who:
    """A run as a report on ambiguity names it; every text is one printable line.

    Attributes:
        folder: where it lies.
        label: the method, with the options that are not its card's defaults.
        dataset: the sets' name.
        content_hash: of the sets.
        shards: content hash of the shards that they are of.
        sets: how many were taken, of how many.
        command: that made it.
        settings: how it was asked, in words.
        asked: that part of it which rows of one table must share: what decides the first clicks, and when they end.
        moved: pixels by which first clicks were moved; 0 where none was.
    """

    folder: Path
    label: str
    dataset: str
    content_hash: str
    shards: str
    sets: str
    command: str
    settings: str
    asked: str
    moved: int

    @property
    def title(self) -> str:
        """The sets, by name and content hash."""
        return f"{self.dataset} ({self.content_hash[:8]})"

    @property
    def key(self) -> tuple[str, str, str]:
        """Runs on the same sets, with the same first clicks, share it."""
        return self.dataset, self.content_hash, self.asked


@dataclass(frozen=True)
class Group:
    """A measure of some members or sets.

    Attributes:
        count: how many.
        coverage: mean IoU of the best candidate.
        recall: IoU in per cent -> share of members that reach it.
    """

    count: int
    coverage: Estimate
    recall: Mapping[int, float]


@dataclass(frozen=True)
class Numbers:
    """The numbers of a run of the diverse task; None where a measure does not apply.

    Attributes:
        who: the run.
        sets: how many.
        images: how many.
        clicks: first clicks, without the moved ones.
        failed: sets on which the method failed.
        candidates: mean number a click.
        coverage: of all members.
        recall: IoU in per cent -> recall.
        by_relation: family -> its members, in the order of `FAMILIES`.
        by_size: number of masks -> the sets of that size, in the order of `SIZES`.
        own: coverage where the first 1, 2, ... candidates by the method's own score are kept.
        oracle: the largest that so many candidates could have.
        redundancy: mean IoU between candidates.
        waste: share of candidates that match nothing.
        calibration: expected calibration error of the score.
        rank: rank correlation of the score with the IoU, over all candidates.
        rank_within: the same within each click, mean over clicks.
        top1: coverage by the one candidate that the method chooses.
        meant: in sets of two masks or more, family (or `NOTHING`) -> share of clicks at which the chosen candidate
            means it.
        held_top1: IoU of the chosen candidates before and after a click is moved.
        held_best: IoU of the candidates nearest to each member before and after.
        seconds: mean seconds of the method a click.
    """

    who: Who
    sets: int
    images: int
    clicks: int
    failed: int
    candidates: float
    coverage: Estimate
    recall: Mapping[int, Estimate]
    by_relation: Mapping[str, Group]
    by_size: Mapping[str, Group]
    own: FloatArray | None
    oracle: FloatArray
    redundancy: Estimate | None
    waste: Estimate | None
    calibration: Estimate | None
    rank: float | None
    rank_within: Estimate | None
    top1: Estimate | None
    meant: Mapping[str, float]
    held_top1: Estimate | None
    held_best: Estimate | None
    seconds: float


@dataclass(frozen=True)
class Intent:
    """Clicks that it costs to be understood, of one family of relations."""

    count: int
    noc: Mapping[int, Estimate]
    first: Estimate
    second: Estimate | None


@dataclass(frozen=True)
class Intents:
    """The numbers of a run on each intent.

    Attributes:
        who: the run.
        selection: how a candidate is kept.
        samples: how many.
        all: of all targets.
        by_relation: family -> its targets, in the order of `FAMILIES`.
    """

    who: Who
    selection: str
    samples: int
    all: Intent
    by_relation: Mapping[str, Intent]


@dataclass(frozen=True)
class _Answer:
    """One click, as stored."""

    click: int
    moved: bool
    ious: Float32Array
    scores: Sequence[float] | None
    agreement: Sequence[float]
    unmoved: Sequence[float] | None
    failed: bool


@dataclass(frozen=True)
class _Set:
    """A set and its clicks; where the method ended early, clicks that are missing have no candidates."""

    image: str
    families: tuple[str, ...]
    drawn: tuple[_Answer, ...]
    moved: tuple[_Answer, ...]

    @property
    def size(self) -> str:
        count = len(self.families)
        return SIZES[min(count, len(SIZES)) - 1]


def read_numbers(run: StoredAnswers) -> Numbers:
    """The numbers of a run of the diverse task.

    Raises:
        InputError: its files are damaged, or do not fit each other.
    """
    with _fitting(run.folder):
        return _numbers(run)


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    """A stranger's description and tables need not fit each other: whatever that comes to is one kind of error."""
    try:
        yield
    except (AttributeError, KeyError, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder}: its files do not fit each other ({repr(error)[:200]}); run it again with --existing overwrite"
        ) from error


def is_on_intents(run: StoredRun) -> bool:
    """Whether a run was made on each intent of diverse sets."""
    return "choice" in run.record.dataset.facts


def read_intents(run: StoredRun) -> Intents:
    """The numbers of a run on each intent.

    Raises:
        InputError: not such a run, one that ends early, or without its table of sets.
    """
    with _fitting(run.folder):
        return _intents(run)


def _intents(run: StoredRun) -> Intents:
    if run.protocol.stop_at is not None:
        raise InputError(f"{run.folder}: its samples end early; run it again without --stop-at")
    if run.archive is not None or not (run.folder / SETS).is_file():
        raise InputError(f"{run.folder}: there is no {SETS}, which a packed run has not; name the run's folder")
    relations = {
        f"{row['sample']}/{member}": family(name)
        for row in read_sets_table(run.folder).to_pylist()
        for member, name in enumerate(row["relations"])
    }
    rows = run.by_sample()
    if unknown := [name for name in rows if name not in relations]:
        raise InputError(f"{run.place(CLICKS)}: {SETS} does not have the sample {unknown[0]!r}; run it again")
    cap = run.protocol.max_clicks
    ious = np.stack([values[:cap] for values in rows.values()])
    families = np.array([relations[name] for name in rows])
    images = np.array([name.rsplit("/", 2)[0] for name in rows])
    present = [name for name in FAMILIES if (families == name).any()]
    return Intents(
        who=_who(run.folder, run.record),
        selection=run.protocol.selection,
        samples=len(rows),
        all=_intent(ious, images, cap),
        by_relation={name: _intent(ious[families == name], images[families == name], cap) for name in present},
    )


def _intent(ious: FloatArray, images: npt.NDArray[np.str_], cap: int) -> Intent:
    def estimate(values: npt.NDArray[Any]) -> Estimate:
        return Estimate(float(values.mean()), *ambiguity.mean_interval(values, images))

    return Intent(
        count=len(ious),
        noc={percent: estimate(clicks_to_reach(ious, percent / 100, cap)) for percent in PERCENTS},
        first=estimate(np.nan_to_num(ious[:, 0])),
        second=estimate(np.nan_to_num(ious[:, 1])) if ious.shape[1] > 1 else None,
    )


def _who(folder: Path, record: RunRecord | SetRunRecord) -> Who:
    method, dataset, facts = record.method, record.dataset, record.dataset.facts
    protocol = {**record.protocol.as_dict(), "every": record.every, "limit": record.limit}
    options = {name: value for name, value in method.options.items() if name != "cache"}  # it changes no answer
    shown = {
        name: protocol[name]
        for name in ("selection", "policy", "max_clicks", "clicks", "seed", "move", "every", "limit")
        if protocol.get(name) is not None and not (name == "every" and protocol[name] == 1)
    }
    choice = {name: value for name, value in facts["choice"].items() if value is not None}
    asked = {name: value for name, value in shown.items() if name not in ("selection", "move")}
    return Who(
        folder=folder,
        label=run_label(plain(method.name), options, method.facts, record.protocol.threshold),
        dataset=plain(dataset.name),
        content_hash=plain(dataset.content_hash),
        shards=plain(facts["shards"]["content_hash"]),
        sets=plain(f"of {facts['shards']['sets']:,} in the shards"),
        command=record.command,
        settings=_in_words({**choice, **shown}),
        asked=_in_words(asked),
        moved=int(protocol.get("move", 0)),
    )


def _in_words(settings: Mapping[str, Any]) -> str:
    return plain(", ".join(f"{name} {value}" for name, value in settings.items()))


def _numbers(run: StoredAnswers) -> Numbers:
    sets = _read_sets(run)
    drawn = [(one, answer) for one in sets for answer in one.drawn]
    images = np.array([one.image for one, _ in drawn])
    best = [ambiguity.best_ious(answer.ious) for _, answer in drawn]
    curves = _curves([answer for _, answer in drawn])
    seconds = run.answers(["model_seconds"])["model_seconds"].to_numpy()
    scored = [(image, answer) for image, (_, answer) in zip(images, drawn, strict=True) if answer.scores]
    moved = [(one.image, pair) for one in sets for pair in _pairs(one)]
    return Numbers(
        who=_who(run.folder, run.record),
        sets=len(sets),
        images=len(set(images.tolist())),
        clicks=len(drawn),
        failed=len(run.record.result.failed),
        candidates=float(np.mean([answer.ious.shape[1] for _, answer in drawn])),
        coverage=_estimated([values.mean() for values in best], images),
        recall={
            round(100 * t): _estimated([ambiguity.recall(a.ious, t) for _, a in drawn], images)
            for t in ambiguity.THRESHOLDS
        },
        by_relation=_by_relation(drawn, best, images),
        by_size=_by_size(drawn, best, images),
        own=curves[0],
        oracle=curves[1],
        redundancy=_known([ambiguity.redundancy(a.agreement) for _, a in drawn], images),
        waste=_known([ambiguity.waste(a.ious) for _, a in drawn], images),
        calibration=_calibration(scored),
        rank=_rank(scored),
        rank_within=_known(
            [ambiguity.rank_correlation(a.scores or (), _nearest(a)) for _, a in scored],
            [image for image, _ in scored],
        ),
        top1=_known([_top1(answer) for _, answer in drawn], images),
        meant=_meant([(one, answer) for one, answer in drawn if len(one.families) > 1]),
        held_top1=_known([_held_top1(*pair) for _, pair in moved], [image for image, _ in moved]),
        held_best=_known([_held_best(*pair) for _, pair in moved], [image for image, _ in moved]),
        seconds=float(seconds.mean()),
    )


def _read_sets(run: StoredAnswers) -> list[_Set]:
    """Sets that were asked about, with their clicks, in the order of the run."""
    table = run.answers()
    ious = run.ious(table)
    _check_values(table, ious)
    asked: dict[str, list[_Answer]] = {}
    columns = ["sample", "click", "dx", "dy", "scores", "agreement", "unmoved", "failure"]
    for row, values in zip(table.select(columns).to_pylist(), ious, strict=True):
        asked.setdefault(row["sample"], []).append(
            _Answer(
                click=row["click"],
                moved=bool(row["dx"] or row["dy"]),
                ious=values,
                scores=row["scores"],
                agreement=row["agreement"],
                unmoved=row["unmoved"],
                failed=row["failure"] is not None,
            )
        )
    known = {row["sample"]: row for row in run.sets().to_pylist()}
    if missing := [name for name in asked if name not in known]:
        raise InputError(f"{run.folder / ANSWERS}: {SETS} does not have the set {missing[0]!r}; run it again")
    wanted = run.record.protocol.clicks
    if not 1 <= wanted * len(asked) <= MOST_ANSWERS:
        raise ValueError(f"{wanted} clicks for each of {len(asked)} sets")
    return [_joined(known[name], answers, wanted) for name, answers in asked.items()]


def _check_values(answers: pa.Table, ious: Sequence[Float32Array]) -> None:
    """Overlaps are from 0 to 1 or not a number, seconds are finite and not negative.

    Raises:
        ValueError: some are not.
    """
    shares = [*ious, *(_flat(answers[name]) for name in ("agreement", "unmoved"))]
    if any((values < 0).any() or (values > 1).any() for values in shares):
        raise ValueError("overlaps outside 0 to 1")
    for name in SECONDS:
        values = answers[name].to_numpy()
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} with what is no time")


def _flat(column: pa.ChunkedArray) -> Float32Array:
    return np.asarray(pc.list_flatten(column).to_numpy(zero_copy_only=False), dtype=np.float32)


def _joined(row: Mapping[str, Any], answers: Sequence[_Answer], wanted: int) -> _Set:
    families = tuple(map(family, row["relations"]))
    drawn = [answer for answer in answers if not answer.moved]
    nothing = np.zeros((len(families), 0), dtype=np.float32)
    drawn += [_Answer(number, False, nothing, None, (), None, True) for number in range(len(drawn) + 1, wanted + 1)]
    return _Set(row["image_id"], families, tuple(drawn), tuple(answer for answer in answers if answer.moved))


def _curves(answers: Sequence[_Answer]) -> tuple[FloatArray | None, FloatArray]:
    """Coverage by candidates kept, by own score and by oracle; a click with fewer candidates keeps its last value."""
    longest = max(1, *(answer.ious.shape[1] for answer in answers)) if answers else 1

    def stretched(curve: FloatArray) -> FloatArray:
        return np.pad(curve, (0, longest - len(curve)), mode="edge") if len(curve) else np.zeros(longest)

    own = [ambiguity.coverage_by_own_order(a.ious, a.scores) for a in answers]
    oracle = [stretched(ambiguity.coverage_by_oracle(a.ious)) for a in answers]
    whole = [stretched(curve) for curve in own if curve is not None]
    return np.mean(whole, axis=0) if len(whole) == len(own) else None, np.mean(oracle, axis=0)


def _by_relation(
    drawn: Sequence[tuple[_Set, _Answer]], best: Sequence[FloatArray], images: npt.NDArray[np.str_]
) -> dict[str, Group]:
    families = np.array([name for one, _ in drawn for name in one.families])
    of_image = np.repeat(images, [len(one.families) for one, _ in drawn])
    values = np.concatenate(best)
    return {name: _group(values, of_image, families == name) for name in FAMILIES if (families == name).any()}


def _by_size(
    drawn: Sequence[tuple[_Set, _Answer]], best: Sequence[FloatArray], images: npt.NDArray[np.str_]
) -> dict[str, Group]:
    sizes = np.array([one.size for one, _ in drawn])
    means = np.array([values.mean() for values in best])
    found = {}
    for size in SIZES:
        chosen = sizes == size
        if chosen.any():
            members = np.concatenate([values for values, own in zip(best, chosen, strict=True) if own])
            found[size] = Group(int(chosen.sum()), _estimated(means[chosen], images[chosen]), _recalls(members))
    return found


def _group(values: FloatArray, images: npt.NDArray[np.str_], chosen: BoolArray) -> Group:
    return Group(int(chosen.sum()), _estimated(values[chosen], images[chosen]), _recalls(values[chosen]))


def _recalls(values: FloatArray) -> dict[int, float]:
    return {round(100 * t): ambiguity.recall(values[:, None], t) for t in ambiguity.THRESHOLDS}


def _calibration(scored: Sequence[tuple[str, _Answer]]) -> Estimate | None:
    if not scored:
        return None
    sums = np.stack([ambiguity.calibration_sums(a.scores or (), _nearest(a)) for _, a in scored])
    images = [image for image, _ in scored]
    error = float(ambiguity.calibration_error(sums.sum(axis=0)))
    return Estimate(error, *ambiguity.interval_over_groups(sums, images, ambiguity.calibration_error))


def _rank(scored: Sequence[tuple[str, _Answer]]) -> float | None:
    if not scored:
        return None
    scores = np.concatenate([np.asarray(a.scores, dtype=np.float64) for _, a in scored])
    found = ambiguity.rank_correlation(scores, np.concatenate([_nearest(a) for _, a in scored]))
    return None if math.isnan(found) else found


def _nearest(answer: _Answer) -> FloatArray:
    """Of each candidate the IoU with the member that it is nearest to."""
    return np.asarray(np.nan_to_num(answer.ious).max(axis=0), dtype=np.float64)


def _top1(answer: _Answer) -> float:
    """Coverage by the chosen candidate alone; nan where a method has no order, 0 where it failed."""
    if answer.failed:
        return 0.0
    chosen = ambiguity.top1(answer.scores, answer.ious.shape[1])
    return math.nan if chosen is None else float(answer.ious[:, chosen].mean())


def _meant(drawn: Sequence[tuple[_Set, _Answer]]) -> dict[str, float]:
    """Shares of families that the chosen candidates mean; empty where a method has no order."""
    names = []
    for one, answer in drawn:
        chosen = ambiguity.top1(answer.scores, answer.ious.shape[1])
        if chosen is None and not answer.failed:
            return {}
        member = None if chosen is None else ambiguity.meant_member(answer.ious, chosen)
        names.append(NOTHING if member is None else one.families[member])
    return {name: names.count(name) / len(names) for name in (*FAMILIES, NOTHING) if name in names}


def _pairs(one: _Set) -> list[tuple[_Answer, _Answer]]:
    """Each moved click with the one that it was moved from."""
    by_number = {answer.click: answer for answer in one.drawn}
    return [(by_number[answer.click], answer) for answer in one.moved]


def _held_top1(before: _Answer, after: _Answer) -> float:
    return 0.0 if after.failed else ambiguity.held_top1(before.scores, after.scores, _between(before, after))


def _held_best(before: _Answer, after: _Answer) -> float:
    return 0.0 if after.failed else ambiguity.held_best(before.ious, after.ious, _between(before, after))


def _between(before: _Answer, after: _Answer) -> FloatArray:
    shape = before.ious.shape[1], after.ious.shape[1]
    return np.asarray(after.unmoved, dtype=np.float64).reshape(shape)


def _estimated(values: Sequence[float] | FloatArray, images: Sequence[str] | npt.NDArray[np.str_]) -> Estimate:
    given = np.asarray(values, dtype=np.float64)
    return Estimate(float(given.mean()), *ambiguity.mean_interval(given, images))


def _known(values: Sequence[float] | FloatArray, images: Sequence[str] | npt.NDArray[np.str_]) -> Estimate | None:
    """Of those that are numbers; None if none is."""
    given = np.asarray(values, dtype=np.float64)
    there = ~np.isnan(given)
    return _estimated(given[there], np.asarray(images)[there]) if there.any() else None
