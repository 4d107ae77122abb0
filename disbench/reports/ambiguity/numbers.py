"""The numbers of a run of the diverse task, from its stored rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from disbench.core import ambiguity
from disbench.core.arrays import BoolArray, Float32Array, FloatArray
from disbench.core.errors import InputError
from disbench.core.limits import MAX_ANSWERS
from disbench.harness.record import RunRecord, SetRunRecord
from disbench.harness.set_task import ANSWERS, SETS, StoredAnswers
from disbench.harness.store import SECONDS
from disbench.io.parquet import complaining
from disbench.reports.entries import run_label, told
from disbench.reports.render.table import plain

FAMILIES = (
    "self",
    "group",
    "parent",
    "grandparent",
    "further ancestor",
    "container",
    "with 1 neighbour",
    "with several neighbours",
    "with other objects",
)
"""Relations of a mask to the clicked object, as a report groups them."""
NOTHING = "nothing"
"""The meaning of a chosen candidate that is near no member."""
SIZES = ("1", "2", "3", "4 or more")
"""Masks of a set."""
RECALLS = tuple(round(100 * threshold) for threshold in ambiguity.THRESHOLDS)


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
class Answer:
    """The stored answer to a click.

    Attributes:
        click: number of the draw, from 1.
        ious: float32 (members, candidates).
        agreement: IoU of each pair of candidates.
        unmoved: IoU of each candidate of the unmoved click with each of this one, row-major.
    """

    click: int
    moved: bool
    ious: Float32Array
    scores: Sequence[float] | None
    agreement: Sequence[float]
    unmoved: Sequence[float] | None
    failed: bool

    @property
    def nearest(self) -> FloatArray:
        """IoU of each candidate with its nearest member."""
        return np.asarray(np.nan_to_num(self.ious).max(axis=0), dtype=np.float64)

    @property
    def chosen(self) -> int | None:
        """The candidate that the method itself chooses; None without candidates or scores."""
        return ambiguity.top1(self.scores, self.ious.shape[1])

    def between(self, after: Answer) -> FloatArray:
        """IoU of each candidate of this click with each of the same click moved."""
        return np.asarray(after.unmoved, dtype=np.float64).reshape(self.ious.shape[1], after.ious.shape[1])


def _own_choice(answer: Answer) -> float:
    if answer.failed:
        return 0.0
    return math.nan if answer.chosen is None else float(answer.ious[:, answer.chosen].mean())


def _recall(threshold: float) -> Callable[[Answer], float]:
    return lambda answer: ambiguity.recall(answer.ious, threshold)


OF_CLICKS: Mapping[str, Callable[[Answer], float]] = {
    "coverage": lambda answer: ambiguity.coverage(answer.ious),
    **{f"recall_{round(100 * threshold)}": _recall(threshold) for threshold in ambiguity.THRESHOLDS},
    "coverage_own_choice": _own_choice,
    "redundancy": lambda answer: ambiguity.redundancy(answer.agreement),
    "waste": lambda answer: ambiguity.waste(answer.ious),
}
"""Measures of one click, nan where one does not apply. A run's number is the mean over the other clicks."""
OF_MOVED: Mapping[str, Callable[[Answer, Answer], float]] = {
    "held_own_choice": lambda before, after: ambiguity.held_top1(before.scores, after.scores, before.between(after)),
    "held_best": lambda before, after: ambiguity.held_best(before.ious, after.ious, before.between(after)),
}
"""Measures of a click and of the same click moved, where the method did not fail on the latter."""


@dataclass(frozen=True)
class Who:
    """How a report names a run; every text is one printable line.

    Attributes:
        label: the method, with the options that are not its card's defaults.
        content_hash: of the sets.
        shards: content hash of the shards that they are from.
        sets: from how many they were taken.
        asked: the split, and the settings that decide the first clicks and when they end.
        moved: pixels by which first clicks were moved, or 0.
        told: what the method was told of the answer (`disbench.reports.entries.told`), or "".
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
    told: str = ""

    @property
    def title(self) -> str:
        """The sets, by name and content hash, and what a method was told of the answer."""
        return ", ".join(filter(None, (f"{self.dataset} ({self.content_hash[:8]})", self.told)))

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal for runs on the same sets with the same first clicks."""
        return self.dataset, self.content_hash, self.asked


@dataclass(frozen=True)
class Number:
    """A measure over `count` clicks, sets, members or targets (None: not applicable), 95 % interval over images."""

    count: int
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Numbers:
    """The numbers of a run of the diverse task, or of a run on each intent.

    Attributes:
        values: measure and group ("" for the whole run) -> number, in the order of the CSV. Of the diverse task
            `OF_CLICKS`, `OF_MOVED`, `calibration_error` (expected, of the score), `rank_correlation` (of the score with
            the IoU, over all candidates), `rank_correlation_within` (within each click), `candidates` (mean number a
            click), `failed` (sets), `model_seconds` (mean a click); `coverage_by_relation` and the like (of members),
            `coverage_by_size` and the like (of clicks on sets of that size); `own_choice_means` (in sets of two masks
            or more, share of clicks at which the chosen candidate means a family, or `NOTHING`); `coverage_own_order`
            (keeping the first 1, 2, ... candidates by the method's own score) and `coverage_oracle` (the largest with
            1, 2, ... candidates). Of intents those of `disbench.reports.ambiguity.intents`.
        selection: how a candidate is kept, in a run on each intent.
        sets: number of sets, in a run of the diverse task.
        clicks: number of first clicks, without the moved ones.
    """

    who: Who
    values: Mapping[tuple[str, str], Number]
    selection: str = ""
    sets: int = 0
    images: int = 0
    clicks: int = 0

    def of(self, measure: str) -> dict[str, Number]:
        """Group -> number of a measure."""
        return {group: number for (name, group), number in self.values.items() if name == measure}

    def value(self, measure: str, group: str = "") -> float:
        """A measure's value; nan where it does not apply."""
        number = self.values.get((measure, group))
        return math.nan if number is None or number.value is None else number.value

    def curve(self, measure: str) -> FloatArray:
        """A measure by candidates kept, (candidates,); empty where it does not apply."""
        return np.array([number.value for number in self.of(measure).values()], dtype=np.float64)


@dataclass(frozen=True)
class _Set:
    """A set and its clicks; those missing where the method ended early have no candidates."""

    image: str
    families: tuple[str, ...]
    drawn: tuple[Answer, ...]
    moved: tuple[Answer, ...]


def fitting(folder: Path) -> AbstractContextManager[None]:
    """Turn errors from tables that do not fit each other into `InputError`."""
    return complaining(folder, "its files do not fit each other", "run it again with --existing overwrite")


def who_of(folder: Path, record: RunRecord | SetRunRecord) -> Who:
    """How a report names a run."""
    dataset, sets = record.dataset, record.dataset.sets
    protocol = {**record.protocol.as_dict(), "every": record.every, "limit": record.limit}
    shown = {
        name: protocol[name]
        for name in ("selection", "policy", "max_clicks", "granularity", "clicks", "seed", "move", "every", "limit")
        if protocol.get(name) is not None and not (name == "every" and protocol[name] == 1)
    }
    own = {} if sets.choice.split is None else {"own split": sets.choice.split}
    choice = {name: value for name, value in asdict(sets.choice).items() if value is not None and name != "split"}
    asked = own | {name: value for name, value in shown.items() if name not in ("selection", "move")}
    return Who(
        folder=folder,
        label=run_label(record),
        dataset=plain(dataset.name),
        content_hash=plain(dataset.content_hash),
        shards=plain(sets.shards.content_hash),
        sets=f"of {sets.shards.sets:,} in the shards",
        command=record.command,
        settings=_in_words({**own, **choice, **shown}),
        asked=_in_words(asked),
        moved=int(protocol.get("move", 0)),
        told=told(record.protocol),
    )


def _in_words(settings: Mapping[str, Any]) -> str:
    return plain(", ".join(f"{name} {value}" for name, value in settings.items()))


def read_numbers(run: StoredAnswers) -> Numbers:
    """The numbers of a run of the diverse task; `InputError` if its files are damaged or do not fit each other."""
    with fitting(run.folder):
        table = run.answers()
        sets = _read_sets(run, table)
        drawn = [(one, answer) for one in sets for answer in one.drawn]
        answers = [answer for _, answer in drawn]
        images = np.array([one.image for one, _ in drawn])
        count, values = len(answers), _of_clicks(sets, answers, images)
        candidates = np.mean([answer.ious.shape[1] for answer in answers])
        values["rank_correlation", ""] = Number(count, _rank([answer for answer in answers if answer.scores]))
        values["candidates", ""] = Number(count, float(candidates))
        values["failed", ""] = Number(len(sets), len(run.record.result.failed))
        values["model_seconds", ""] = Number(count, float(table["model_seconds"].to_numpy().mean()))
        values |= _by_group(drawn)
        values |= {("own_choice_means", name): Number(count, share) for name, share in _meant(drawn).items()}
        for name, curve in _curves(answers).items():
            values |= {(name, str(kept)): Number(count, value) for kept, value in enumerate(curve.tolist(), start=1)}
        who = who_of(run.folder, run.record)
        return Numbers(who, values, sets=len(sets), images=len(set(images.tolist())), clicks=count)


def _of_clicks(
    sets: Sequence[_Set], answers: Sequence[Answer], images: npt.NDArray[np.str_]
) -> dict[tuple[str, str], Number]:
    pairs = [(one.image, one.drawn[after.click - 1], after) for one in sets for after in one.moved]
    moved_images = np.array([image for image, _, _ in pairs])
    found = {name: mean_of([measure(answer) for answer in answers], images) for name, measure in OF_CLICKS.items()}
    found["calibration_error"] = _calibration(answers, images)
    within = [
        ambiguity.rank_correlation(answer.scores, answer.nearest) if answer.scores else math.nan for answer in answers
    ]
    found["rank_correlation_within"] = mean_of(within, images)
    for name, measure in OF_MOVED.items():
        values = [0.0 if after.failed else measure(before, after) for _, before, after in pairs]
        number = mean_of(values, moved_images)
        found[name] = replace(number, count=len(answers))
    return {(name, ""): number for name, number in found.items()}


def _read_sets(run: StoredAnswers, table: pa.Table) -> list[_Set]:
    """The sets with their clicks, in the order of the run."""
    ious = run.ious(table)
    _check_values(table, ious)
    asked: dict[str, list[Answer]] = {}
    columns = ["sample", "click", "dx", "dy", "scores", "agreement", "unmoved", "failure"]
    for row, values in zip(table.select(columns).to_pylist(), ious, strict=True):
        moved, failed = bool(row["dx"] or row["dy"]), row["failure"] is not None
        answer = Answer(row["click"], moved, values, row["scores"], row["agreement"], row["unmoved"], failed)
        asked.setdefault(row["sample"], []).append(answer)
    known = {row["sample"]: row for row in run.sets(["sample", "image_id", "relations"]).to_pylist()}
    if missing := [name for name in asked if name not in known]:
        raise InputError(f"{run.folder / ANSWERS}: {SETS} does not have the set {missing[0]!r}; run it again")
    wanted = run.record.protocol.clicks
    if not 1 <= wanted * len(asked) <= MAX_ANSWERS:
        raise ValueError(f"{wanted} clicks for each of {len(asked)} sets")
    return [_joined(known[name], answers, wanted) for name, answers in asked.items()]


def _check_values(answers: pa.Table, ious: Sequence[Float32Array]) -> None:
    """Raise `ValueError` for overlaps outside 0 to 1 (nan is allowed), and for seconds that are not a time."""
    pairs = (pc.list_flatten(answers[name]).to_numpy(zero_copy_only=False) for name in ("agreement", "unmoved"))
    if any(((values < 0) | (values > 1)).any() for values in (*ious, *(pair.astype(np.float32) for pair in pairs))):
        raise ValueError("overlaps outside 0 to 1")
    for name in SECONDS:
        values = answers[name].to_numpy()
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} that are not a time")


def _joined(row: Mapping[str, Any], answers: Sequence[Answer], wanted: int) -> _Set:
    families = tuple(map(family, row["relations"]))
    nothing = np.zeros((len(families), 0), dtype=np.float32)
    drawn = [replace(answer, ious=nothing) if answer.failed else answer for answer in answers if not answer.moved]
    drawn += [Answer(number, False, nothing, None, (), None, True) for number in range(len(drawn) + 1, wanted + 1)]
    if [answer.click for answer in drawn] != list(range(1, len(drawn) + 1)):
        raise ValueError(f"clicks of {row['sample']} that are not 1, 2, ...")
    return _Set(row["image_id"], families, tuple(drawn), tuple(answer for answer in answers if answer.moved))


def _curves(answers: Sequence[Answer]) -> dict[str, FloatArray]:
    """Coverage by candidates kept, by own score and by oracle; a click with fewer candidates keeps its last value."""
    longest = max(1, *(answer.ious.shape[1] for answer in answers)) if answers else 1

    def stretched(curve: FloatArray) -> FloatArray:
        return np.pad(curve, (0, longest - len(curve)), mode="edge") if len(curve) else np.zeros(longest)

    own = [ambiguity.coverage_by_own_order(answer.ious, answer.scores) for answer in answers]
    oracle = [stretched(ambiguity.coverage_by_oracle(answer.ious)) for answer in answers]
    whole = [stretched(curve) for curve in own if curve is not None]
    curves = {"coverage_own_order": np.mean(whole, axis=0)} if len(whole) == len(own) else {}
    return {**curves, "coverage_oracle": np.mean(oracle, axis=0)}


def _by_group(drawn: Sequence[tuple[_Set, Answer]]) -> dict[tuple[str, str], Number]:
    """Coverage, and shares of members that reach an IoU, by the members' relation and by the size of the set."""
    best = [ambiguity.best_ious(answer.ious) for _, answer in drawn]
    sizes = [SIZES[min(len(one.families), len(SIZES)) - 1] for one, _ in drawn]
    families = [(one.image, name) for one, _ in drawn for name in one.families]
    members = list(np.concatenate(best)[:, None])
    found = {}
    for kind, order, groups, values in (
        ("relation", FAMILIES, families, members),
        ("size", SIZES, [(one.image, size) for (one, _), size in zip(drawn, sizes, strict=True)], best),
    ):
        images, names = np.array(groups).T
        for name, which in places_of(names, order).items():
            own = [values[number] for number in np.flatnonzero(which)]
            found[f"coverage_by_{kind}", name] = mean_of([one.mean() for one in own], images[which])
            found |= {
                (f"recall_{percent}_by_{kind}", name): Number(
                    len(own), ambiguity.recall(np.concatenate(own)[:, None], at)
                )
                for percent, at in zip(RECALLS, ambiguity.THRESHOLDS, strict=True)
            }
    return found


def places_of(names: npt.NDArray[np.str_], order: Sequence[str]) -> dict[str, BoolArray]:
    """Where each name occurs, in the given order."""
    return {name: names == name for name in order if (names == name).any()}


def _calibration(answers: Sequence[Answer], images: npt.NDArray[np.str_]) -> Number:
    scored = [(image, answer) for image, answer in zip(images, answers, strict=True) if answer.scores]
    if not scored:
        return Number(len(answers), None)
    sums = np.stack([ambiguity.calibration_sums(answer.scores or (), answer.nearest) for _, answer in scored])
    error = float(ambiguity.calibration_error(sums.sum(axis=0)))
    groups = [image for image, _ in scored]
    return Number(len(answers), error, *ambiguity.interval_over_groups(sums, groups, ambiguity.calibration_error))


def _rank(scored: Sequence[Answer]) -> float | None:
    if not scored:
        return None
    scores = np.concatenate([np.asarray(answer.scores, dtype=np.float64) for answer in scored])
    found = ambiguity.rank_correlation(scores, np.concatenate([answer.nearest for answer in scored]))
    return None if math.isnan(found) else found


def _meant(drawn: Sequence[tuple[_Set, Answer]]) -> dict[str, float]:
    """Shares of the families that the chosen candidates mean; empty for a method without scores."""
    names = []
    for one, answer in drawn:
        if len(one.families) > 1:
            if answer.chosen is None and not answer.failed:
                return {}
            member = None if answer.chosen is None else ambiguity.meant_member(answer.ious, answer.chosen)
            names.append(NOTHING if member is None else one.families[member])
    return {name: names.count(name) / len(names) for name in (*FAMILIES, NOTHING) if name in names}


def mean_of(values: Sequence[float] | npt.NDArray[Any], images: npt.NDArray[np.str_]) -> Number:
    """The mean of the values that are not nan."""
    given = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(given)
    if not known.any():
        return Number(len(images), None)
    return Number(len(given), float(given[known].mean()), *ambiguity.mean_interval(given[known], images[known]))
