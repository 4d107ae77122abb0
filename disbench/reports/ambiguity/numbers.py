"""Measures of a run of the diverse task, computed from its stored rows."""

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
from disbench.io.parquet import as_input_error
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
"""Relations of a mask to the clicked object, as grouped in reports."""
NOTHING = "nothing"
"""The family of a chosen candidate that is not near any member."""
SIZES = ("1", "2", "3", "4 or more")
"""Numbers of masks in a set."""
RECALLS = tuple(round(100 * threshold) for threshold in ambiguity.THRESHOLDS)


def family(relation: str) -> str:
    """The family of a stored relation."""
    if relation in FAMILIES:
        return relation
    if relation.startswith("ancestor-"):
        return "further ancestor"
    if relation == "with-1-neighbour":
        return "with 1 neighbour"
    return "with several neighbours" if relation.endswith("-neighbours") else "with other objects"


@dataclass(frozen=True)
class Answer:
    """A stored answer to a click on a set; it has no candidates if the method failed or ended early.

    Attributes:
        families: families of the set's members.
        ious: float32 (members, candidates).
        agreement: IoU of each pair of candidates.
        unmoved: IoU of each candidate of the unmoved click with each candidate of this one, row-major.
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
        """Index of the method's own choice; None without candidates or scores."""
        return ambiguity.top1(self.scores, self.ious.shape[1])

    @property
    def numbers(self) -> dict[str, float]:
        """Measures of the click, nan if not applicable; a run reports their mean over clicks."""
        own = math.nan if self.chosen is None else float(self.ious[:, self.chosen].mean())
        within = ambiguity.rank_correlation(self.scores, self.nearest) if self.scores else math.nan
        recalls = zip(RECALLS, ambiguity.THRESHOLDS, strict=True)
        return {
            "coverage": ambiguity.coverage(self.ious),
            **{f"recall_{percent}": ambiguity.recall(self.ious, threshold) for percent, threshold in recalls},
            "coverage_own_choice": 0.0 if self.failed else own,
            "redundancy": ambiguity.redundancy(self.agreement),
            "waste": ambiguity.waste(self.ious),
            "calibration_error": math.nan,  # computed over all clicks together
            "rank_correlation_within": within,
        }

    def held(self, after: Answer) -> tuple[float, float]:
        """IoU of the own choice, and of the best candidates, before and after the move; 0 if the method then fails."""
        if after.failed:
            return 0.0, 0.0
        between = np.asarray(after.unmoved, dtype=np.float64).reshape(self.ious.shape[1], after.ious.shape[1])
        return (
            ambiguity.held_top1(self.scores, after.scores, between),
            ambiguity.held_best(self.ious, after.ious, between),
        )


@dataclass(frozen=True)
class Who:
    """How reports describe a run; every string is one printable line.

    Attributes:
        content_hash: hash of the sets, which were chosen from `shards` (also a content hash).
        asked: the split, and the settings that determine the first clicks and when a sample ends.
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
        """The dataset with its short content hash, and what the method knows of the ground truth."""
        return ", ".join(filter(None, (f"{self.dataset} ({self.content_hash[:8]})", self.told)))

    @property
    def key(self) -> tuple[str, str, str]:
        """Key of the runs on the same sets with the same first clicks."""
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
    """Measures of a run of the diverse or intents task.

    Attributes:
        values: (measure, group), with group "" for the whole run -> number, in CSV order. Diverse task:
            `Answer.numbers`; `held_own_choice`, `held_best` (when moved); `calibration_error` (expected, of the score),
            `rank_correlation` (of score and IoU, over all candidates), `candidates` (mean per click), `failed` (sets),
            `model_seconds` (mean per click); `coverage_by_relation`, `recall_*_by_relation` (over members);
            `coverage_by_size`, `recall_*_by_size` (over clicks on sets of that size); `own_choice_means` (share of
            clicks on sets of two masks or more where the chosen candidate means a family, or `NOTHING`);
            `coverage_own_order` (first 1, 2, ... candidates by the method's own score) and `coverage_oracle` (best
            1, 2, ... candidates). Intents task: see `read_intents`.
        selection: how a candidate is kept, in the intents task.
        sets: number of sets, in the diverse task.
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
        """A measure's value; nan if not applicable."""
        number = self.values.get((measure, group))
        return math.nan if number is None or number.value is None else number.value

    def curve(self, measure: str) -> FloatArray:
        """A measure by number of candidates kept, float64 (candidates,); empty if not applicable."""
        return np.array([number.value for number in self.of(measure).values()], dtype=np.float64)


def fitting(folder: Path) -> AbstractContextManager[None]:
    """Turn errors from inconsistent tables into `InputError`."""
    return as_input_error(folder, "its files are inconsistent", "run it again with --existing overwrite")


def describe_run(folder: Path, record: RunRecord | SetRunRecord) -> Who:
    """Describe a run for reports."""
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
    """Compute the measures of a run of the diverse task; `InputError` if its files are damaged or inconsistent."""
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
        who = describe_run(run.folder, run.record)
        return Numbers(who, values, sets=len(sets), images=len(set(images.tolist())), clicks=count)


def _read_sets(run: StoredAnswers, table: pa.Table) -> list[tuple[list[Answer], list[tuple[int, Answer]]]]:
    """For each set in run order: its answers, and the numbers (from 1) and answers of moved clicks."""
    ious = run.ious(table)
    pairs = [pc.list_flatten(table[name]).to_numpy(zero_copy_only=False) for name in ("agreement", "unmoved")]
    if any(((values < 0) | (values > 1)).any() for values in (*ious, *(pair.astype(np.float32) for pair in pairs))):
        raise ValueError("IoUs outside [0, 1]")  # nan is allowed
    for name in SECONDS:
        values = table[name].to_numpy()
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} must be finite and >= 0")
    columns = ["sample", "click", "dx", "dy", "scores", "agreement", "unmoved", "failure"]
    rows = zip(table.select(columns).to_pylist(), ious, strict=True)
    known = {row["sample"]: row for row in run.sets(["sample", "image_id", "relations"]).to_pylist()}
    asked, wanted = alike(rows, lambda row: row[0]["sample"]), run.record.protocol.clicks
    if missing := [name for name in asked if name not in known]:
        raise InputError(f"{run.folder / ANSWERS}: set {missing[0]!r} is missing from {SETS}; run it again")
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
            raise ValueError(f"clicks of {name} are not numbered 1, 2, ...")
        sets.append(([*drawn.values(), *[none] * (wanted - len(drawn))], moved))
    return sets


def _curves(answers: Sequence[Answer]) -> dict[str, FloatArray]:
    """Coverage by number of candidates kept, by own score and oracle; shorter curves repeat their last value."""
    longest = max(1, *(answer.ious.shape[1] for answer in answers))

    def stretched(curve: FloatArray) -> FloatArray:
        return np.pad(curve, (0, longest - len(curve)), mode="edge") if len(curve) else np.zeros(longest)

    own = [ambiguity.coverage_by_score(answer.ious, answer.scores) for answer in answers]
    whole = [stretched(curve) for curve in own if curve is not None]
    oracle = [stretched(ambiguity.coverage_by_oracle(answer.ious)) for answer in answers]
    curves = {"coverage_own_order": np.mean(whole, axis=0)} if len(whole) == len(own) else {}
    return {**curves, "coverage_oracle": np.mean(oracle, axis=0)}


def _by_group(drawn: Sequence[Answer]) -> dict[tuple[str, str], Number]:
    """Coverage and recall by the members' relation and by the size of the set."""
    best = [ambiguity.best_ious(answer.ious) for answer in drawn]
    families = [(answer.image, name) for answer in drawn for name in answer.families]
    sizes = [(answer.image, SIZES[min(len(answer.families), len(SIZES)) - 1]) for answer in drawn]
    found = {}
    for kind, order, groups, values in (
        ("relation", FAMILIES, families, list(np.concatenate(best)[:, None])),
        ("size", SIZES, sizes, best),
    ):
        images, names = np.array(groups).T
        for name, which in locate_sets(names, order).items():
            own = [values[number] for number in np.flatnonzero(which)]
            found[f"coverage_by_{kind}", name] = mean_of([one.mean() for one in own], images[which])
            for percent, threshold in zip(RECALLS, ambiguity.THRESHOLDS, strict=True):
                reached = ambiguity.recall(np.concatenate(own)[:, None], threshold)
                found[f"recall_{percent}_by_{kind}", name] = Number(len(own), reached)
    return found


def locate_sets(names: npt.NDArray[np.str_], order: Sequence[str]) -> dict[str, BoolArray]:
    """Boolean mask of each name that occurs, in the given order."""
    return {name: names == name for name in order if (names == name).any()}


def _calibration(scored: Sequence[Answer], count: int) -> Number:
    if not scored:
        return Number(count, None)
    sums = np.stack([ambiguity.calibration_sums(answer.scores or (), answer.nearest) for answer in scored])
    error = float(ambiguity.calibration_error(sums.sum(axis=0)))
    images = [answer.image for answer in scored]
    return Number(count, error, *ambiguity.grouped_interval(sums, images, ambiguity.calibration_error))


def _rank(scored: Sequence[Answer]) -> float | None:
    if not scored:
        return None
    scores = np.concatenate([np.asarray(answer.scores, dtype=np.float64) for answer in scored])
    found = ambiguity.rank_correlation(scores, np.concatenate([answer.nearest for answer in scored]))
    return None if math.isnan(found) else found


def _meant(drawn: Sequence[Answer]) -> dict[str, float]:
    """Share of each family among the meanings of chosen candidates; empty for a method without scores."""
    names = []
    for answer in drawn:
        if len(answer.families) > 1:
            if answer.chosen is None and not answer.failed:
                return {}
            member = None if answer.chosen is None else ambiguity.intended_member(answer.ious, answer.chosen)
            names.append(NOTHING if member is None else answer.families[member])
    return {name: names.count(name) / len(names) for name in (*FAMILIES, NOTHING) if name in names}


def mean_of(values: Sequence[float] | npt.NDArray[Any], images: npt.NDArray[np.str_]) -> Number:
    """Mean of the values that are not nan, with its interval over images."""
    given = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(given)
    if not known.any():
        return Number(len(images), None)
    return Number(len(given), float(given[known].mean()), *ambiguity.mean_interval(given[known], images[known]))
