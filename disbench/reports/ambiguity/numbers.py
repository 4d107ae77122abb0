"""The numbers of a run of the diverse task, from its stored rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from disbench.reports.entries import alike, run_label, told
from disbench.reports.render import plain

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
    """The stored answer to a click on a set; one of a method that failed, or ended early, has no candidates.

    Attributes:
        families: of the set's members.
        ious: float32 (members, candidates).
        agreement: IoU of each pair of candidates.
        unmoved: IoU of each candidate of the unmoved click with each of this one, row-major.
    """

    image: str
    families: tuple[str, ...]
    ious: Float32Array
    scores: Sequence[float] | None = None
    agreement: Sequence[float] = ()
    unmoved: Sequence[float] | None = None
    failed: bool = True

    @property
    def nearest(self) -> FloatArray:
        """IoU of each candidate with its nearest member."""
        return np.asarray(np.nan_to_num(self.ious).max(axis=0), dtype=np.float64)

    @property
    def chosen(self) -> int | None:
        """The candidate that the method itself chooses; None without candidates or scores."""
        return ambiguity.top1(self.scores, self.ious.shape[1])

    @property
    def numbers(self) -> dict[str, float]:
        """Measures of the click, nan where one does not apply; a run's number is the mean over its clicks."""
        own = math.nan if self.chosen is None else float(self.ious[:, self.chosen].mean())
        within = ambiguity.rank_correlation(self.scores, self.nearest) if self.scores else math.nan
        recalls = zip(RECALLS, ambiguity.THRESHOLDS, strict=True)
        return {
            "coverage": ambiguity.coverage(self.ious),
            **{f"recall_{percent}": ambiguity.recall(self.ious, threshold) for percent, threshold in recalls},
            "coverage_own_choice": 0.0 if self.failed else own,
            "redundancy": ambiguity.redundancy(self.agreement),
            "waste": ambiguity.waste(self.ious),
            "calibration_error": math.nan,  # of all clicks together
            "rank_correlation_within": within,
        }

    def held(self, after: Answer) -> tuple[float, float]:
        """How far the own choice and the best candidates hold when the click is moved; 0 if the method then fails."""
        if after.failed:
            return 0.0, 0.0
        between = np.asarray(after.unmoved, dtype=np.float64).reshape(self.ious.shape[1], after.ious.shape[1])
        return (
            ambiguity.held_top1(self.scores, after.scores, between),
            ambiguity.held_best(self.ious, after.ious, between),
        )


@dataclass(frozen=True)
class Who:
    """How a report names a run; every text is one printable line.

    Attributes:
        content_hash: of the sets, which are some of those in the `shards` (their content hash).
        asked: the split, and the settings that decide the first clicks and when they end.
        moved: pixels by which first clicks were moved, or 0.
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
            `Answer.numbers`; `held_own_choice`, `held_best` (when moved); `calibration_error` (expected, of the score),
            `rank_correlation` (of the score with the IoU, over all candidates), `candidates` (mean number a click),
            `failed` (sets), `model_seconds` (mean a click); `coverage_by_relation` and the like (of members),
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

    def in_words(settings: Mapping[str, Any]) -> str:
        return plain(", ".join(f"{name} {value}" for name, value in settings.items()))

    return Who(
        folder=folder,
        label=run_label(record),
        dataset=plain(dataset.name),
        content_hash=plain(dataset.content_hash),
        shards=plain(sets.shards.content_hash),
        sets=f"of {sets.shards.sets:,} in the shards",
        command=record.command,
        settings=in_words({**own, **choice, **shown}),
        asked=in_words(asked),
        moved=int(protocol.get("move", 0)),
        told=told(record.protocol),
    )


def read_numbers(run: StoredAnswers) -> Numbers:
    """The numbers of a run of the diverse task; `InputError` if its files are damaged or do not fit each other."""
    with fitting(run.folder):
        table = run.answers()
        sets = _read_sets(run, table)
        drawn = [answer for answers, _ in sets for answer in answers]
        images, count = np.array([answer.image for answer in drawn]), len(drawn)
        of_clicks = [answer.numbers for answer in drawn]
        values = {(name, ""): mean_of([numbers[name] for numbers in of_clicks], images) for name in of_clicks[0]}
        scored = [answer for answer in drawn if answer.scores]
        values["calibration_error", ""] = _calibration(scored, count)
        moved = [(answers[number - 1], after) for answers, later in sets for number, after in later]
        held = np.array([before.held(after) for before, after in moved]).reshape(-1, 2).T
        of_moved = np.array([before.image for before, _ in moved])
        for name, own in zip(("held_own_choice", "held_best"), held, strict=True):
            values[name, ""] = replace(mean_of(own, of_moved), count=count)
        values["rank_correlation", ""] = Number(count, _rank(scored))
        values["candidates", ""] = Number(count, float(np.mean([answer.ious.shape[1] for answer in drawn])))
        values["failed", ""] = Number(len(sets), len(run.record.result.failed))
        values["model_seconds", ""] = Number(count, float(table["model_seconds"].to_numpy().mean()))
        values |= _by_group(drawn)
        values |= {("own_choice_means", name): Number(count, share) for name, share in _meant(drawn).items()}
        for name, curve in _curves(drawn).items():
            values |= {(name, str(kept)): Number(count, value) for kept, value in enumerate(curve.tolist(), start=1)}
        who = who_of(run.folder, run.record)
        return Numbers(who, values, sets=len(sets), images=len(set(images.tolist())), clicks=count)


def _read_sets(run: StoredAnswers, table: pa.Table) -> list[tuple[list[Answer], list[tuple[int, Answer]]]]:
    """Of each set, in the order of the run: the answers, and the numbers (from 1) and answers of moved clicks."""
    ious = run.ious(table)
    pairs = [pc.list_flatten(table[name]).to_numpy(zero_copy_only=False) for name in ("agreement", "unmoved")]
    if any(((values < 0) | (values > 1)).any() for values in (*ious, *(pair.astype(np.float32) for pair in pairs))):
        raise ValueError("overlaps outside 0 to 1")  # nan is allowed
    for name in SECONDS:
        values = table[name].to_numpy()
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} that are not a time")
    columns = ["sample", "click", "dx", "dy", "scores", "agreement", "unmoved", "failure"]
    rows = zip(table.select(columns).to_pylist(), ious, strict=True)
    known = {row["sample"]: row for row in run.sets(["sample", "image_id", "relations"]).to_pylist()}
    asked, wanted = alike(rows, lambda row: row[0]["sample"]), run.record.protocol.clicks
    if missing := [name for name in asked if name not in known]:
        raise InputError(f"{run.folder / ANSWERS}: {SETS} does not have the set {missing[0]!r}; run it again")
    if not 1 <= wanted * len(asked) <= MAX_ANSWERS:
        raise ValueError(f"{wanted} clicks for each of {len(asked)} sets")
    sets = []
    for name, own in asked.items():
        image, families = known[name]["image_id"], tuple(map(family, known[name]["relations"]))
        none = Answer(image, families, np.zeros((len(families), 0), dtype=np.float32))
        drawn, moved = {}, []
        for row, values in own:
            failed = row["failure"] is not None
            answer = Answer(image, families, values, row["scores"], row["agreement"], row["unmoved"], failed)
            if row["dx"] or row["dy"]:
                moved.append((row["click"], answer))
            else:
                drawn[row["click"]] = replace(answer, ious=none.ious) if failed else answer
        if list(drawn) != list(range(1, len(drawn) + 1)):
            raise ValueError(f"clicks of {name} that are not 1, 2, ...")
        sets.append(([*drawn.values(), *[none] * (wanted - len(drawn))], moved))
    return sets


def _curves(answers: Sequence[Answer]) -> dict[str, FloatArray]:
    """Coverage by candidates kept, by own score and by oracle; a click with fewer candidates keeps its last value."""
    longest = max(1, *(answer.ious.shape[1] for answer in answers))

    def stretched(curve: FloatArray) -> FloatArray:
        return np.pad(curve, (0, longest - len(curve)), mode="edge") if len(curve) else np.zeros(longest)

    own = [ambiguity.coverage_by_own_order(answer.ious, answer.scores) for answer in answers]
    whole = [stretched(curve) for curve in own if curve is not None]
    oracle = [stretched(ambiguity.coverage_by_oracle(answer.ious)) for answer in answers]
    curves = {"coverage_own_order": np.mean(whole, axis=0)} if len(whole) == len(own) else {}
    return {**curves, "coverage_oracle": np.mean(oracle, axis=0)}


def _by_group(drawn: Sequence[Answer]) -> dict[tuple[str, str], Number]:
    """Coverage, and shares of members that reach an IoU, by the members' relation and by the size of the set."""
    best = [ambiguity.best_ious(answer.ious) for answer in drawn]
    families = [(answer.image, name) for answer in drawn for name in answer.families]
    sizes = [(answer.image, SIZES[min(len(answer.families), len(SIZES)) - 1]) for answer in drawn]
    found = {}
    for kind, order, groups, values in (
        ("relation", FAMILIES, families, list(np.concatenate(best)[:, None])),
        ("size", SIZES, sizes, best),
    ):
        images, names = np.array(groups).T
        for name, which in places_of(names, order).items():
            own = [values[number] for number in np.flatnonzero(which)]
            found[f"coverage_by_{kind}", name] = mean_of([one.mean() for one in own], images[which])
            for percent, threshold in zip(RECALLS, ambiguity.THRESHOLDS, strict=True):
                reached = ambiguity.recall(np.concatenate(own)[:, None], threshold)
                found[f"recall_{percent}_by_{kind}", name] = Number(len(own), reached)
    return found


def places_of(names: npt.NDArray[np.str_], order: Sequence[str]) -> dict[str, BoolArray]:
    """Where each name occurs, in the given order."""
    return {name: names == name for name in order if (names == name).any()}


def _calibration(scored: Sequence[Answer], count: int) -> Number:
    if not scored:
        return Number(count, None)
    sums = np.stack([ambiguity.calibration_sums(answer.scores or (), answer.nearest) for answer in scored])
    error = float(ambiguity.calibration_error(sums.sum(axis=0)))
    images = [answer.image for answer in scored]
    return Number(count, error, *ambiguity.interval_over_groups(sums, images, ambiguity.calibration_error))


def _rank(scored: Sequence[Answer]) -> float | None:
    if not scored:
        return None
    scores = np.concatenate([np.asarray(answer.scores, dtype=np.float64) for answer in scored])
    found = ambiguity.rank_correlation(scores, np.concatenate([answer.nearest for answer in scored]))
    return None if math.isnan(found) else found


def _meant(drawn: Sequence[Answer]) -> dict[str, float]:
    """Shares of the families that the chosen candidates mean; empty for a method without scores."""
    names = []
    for answer in drawn:
        if len(answer.families) > 1:
            if answer.chosen is None and not answer.failed:
                return {}
            member = None if answer.chosen is None else ambiguity.meant_member(answer.ious, answer.chosen)
            names.append(NOTHING if member is None else answer.families[member])
    return {name: names.count(name) / len(names) for name in (*FAMILIES, NOTHING) if name in names}


def mean_of(values: Sequence[float] | npt.NDArray[Any], images: npt.NDArray[np.str_]) -> Number:
    """The mean of the values that are not nan."""
    given = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(given)
    if not known.any():
        return Number(len(images), None)
    return Number(len(given), float(given[known].mean()), *ambiguity.mean_interval(given[known], images[known]))
