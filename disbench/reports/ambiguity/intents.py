"""Measures of a run of the intents task: clicks and IoUs by intent, whole sets, containment of the answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core import ambiguity
from disbench.core.arrays import FloatArray
from disbench.core.errors import InputError
from disbench.core.masks import Rle, from_foreign_rle
from disbench.core.metrics import clicks_to_reach
from disbench.harness.set_task import SETS, read_sets_table
from disbench.harness.store import CLICKS, StoredRun
from disbench.reports.ambiguity.numbers import (
    FAMILIES,
    SIZES,
    Number,
    Numbers,
    describe_run,
    family,
    fitting,
    locate_sets,
    mean_of,
)
from disbench.reports.render import plain
from disbench.sampling.links import part_key

PERCENTS = (85, 90)
"""IoU thresholds in percent."""
WITHIN = (1, 2, 3, 5, 10, 20)
"""Click limits within which all masks of a set must be found."""
SHARES = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
"""Bin edges of |mask| / |outermost mask of its set|; the last bin is closed."""
BINS = tuple(f"{low:g} to {high:g}" for low, high in pairwise(SHARES))
MOST_PARTS = 12
"""Number of part names reported, the most frequent ones."""
NESTED = ("self", "group", "parent", "grandparent", "further ancestor")
"""Families that are nested, as declared by the dataset."""
ANSWERED = ("first", "last")
"""The answers whose containment is measured: after click 1, and after the last click."""


@dataclass(frozen=True)
class _Target:
    """Mask `member` (from 0) of a set: its area as a share of the outermost one, and its share inside the next."""

    set: str
    image: str
    member: int
    members: int
    family: str
    share: float
    contained: float
    part: str

    @property
    def level(self) -> str:
        """The place in the set, innermost first."""
        return SIZES[min(self.member, len(SIZES) - 1)]


@dataclass(frozen=True)
class _Answered:
    """A target's masks (None where the method failed) and IoUs after its first and last click (`ANSWERED`)."""

    sample: str
    masks: tuple[Rle | None, ...]
    ious: tuple[float, ...]


def read_intents(run: StoredRun) -> Numbers:
    """Compute the measures of a run of the intents task; `InputError` if it stops early or lacks its table of sets.

    Measures and groups of `Numbers.values`: `noc_85`, `noc_90`, `iou_1`, `iou_2` for `any` and each family; the same
    `_by_level` (the mask's place in its set, `SIZES`), `_by_relative_size` (`BINS`) and `_by_part` (the clicked part
    itself, by its name); `all_within_85`, `all_within_90` for `WITHIN` (share of sets all of whose masks are found);
    `gap_85`, `gap_90` (largest minus smallest mean NoC of the levels); with stored masks, for `any` and each pair of
    families, `containment_first`, `containment_last`, the same `_of_truth` (divided by that of the ground truth, at
    most 1) and `_iou` (mean IoU of the two answers), and `containment_truth`.
    """
    if run.protocol.stop_at is not None:
        raise InputError(f"{run.folder}: its samples stop early; run it again without --stop-at")
    if run.archive is not None or not (run.folder / SETS).is_file():
        raise InputError(f"{run.folder}: {SETS} is missing (packed runs have none); name the run's unpacked folder")
    with fitting(run.folder):
        known = {f"{one.set}/{one.member}": one for one in _targets(run)}
        rows, cap = run.by_sample(), run.protocol.max_clicks
        if unknown := [name for name in rows if name not in known]:
            raise InputError(f"{run.place(CLICKS)}: sample {unknown[0]!r} is missing from {SETS}; run it again")
        targets = [known[name] for name in rows]
        ious = np.stack([values[:cap] for values in rows.values()])
        values = _by_groups(targets, ious) | _whole_sets(targets, ious)
        if run.record.execution.store != "none":
            values |= _containment(run, known)
        return Numbers(describe_run(run.folder, run.record), values, selection=run.protocol.selection)


def _targets(run: StoredRun) -> Iterable[_Target]:
    columns = ["sample", "category", "relations", "areas", "contained"]
    for row in read_sets_table(run.folder, columns).to_pylist():
        name, areas, part = row["sample"], row["areas"], plain(part_key(row["category"]))
        members = zip(row["relations"], areas, row["contained"], strict=True)
        for member, (relation, area, contained) in enumerate(members):
            share = min(area / areas[-1], 1.0)
            yield _Target(name, name.rpartition("/")[0], member, len(areas), family(relation), share, contained, part)


def _by_groups(targets: Sequence[_Target], ious: FloatArray) -> dict[tuple[str, str], Number]:
    images = np.array([one.image for one in targets])
    measures: dict[str, npt.NDArray[Any]] = {
        f"noc_{percent}": clicks_to_reach(ious, percent / 100, ious.shape[1]) for percent in PERCENTS
    }
    measures |= {f"iou_{click}": np.nan_to_num(ious[:, click - 1]) for click in (1, 2) if click <= ious.shape[1]}
    own = [one.part for one in targets if one.family == "self"]
    parts = [name for name, _ in sorted(Counter(own).items(), key=lambda item: (-item[1], item[0])) if name]
    bins = np.digitize([one.share for one in targets], SHARES[1:-1])
    kinds = {
        "": ([one.family for one in targets], FAMILIES),
        "_by_level": ([one.level for one in targets], SIZES),
        "_by_relative_size": ([BINS[place] for place in bins], BINS),
        "_by_part": ([one.part if one.family == "self" else "" for one in targets], parts[:MOST_PARTS]),
    }
    found: dict[tuple[str, str], Number] = {}
    for kind, (names, order) in kinds.items():
        groups = {} if kind else {"any": np.ones(len(targets), dtype=bool)}
        for name, which in {**groups, **locate_sets(np.array(names), order)}.items():
            found |= {
                (f"{measure}{kind}", name): mean_of(values[which], images[which])
                for measure, values in measures.items()
            }
    return found


def _whole_sets(targets: Sequence[_Target], ious: FloatArray) -> dict[tuple[str, str], Number]:
    """Measures of the sets all of whose masks were targets."""
    places: dict[str, list[int]] = {}
    for place, one in enumerate(targets):
        places.setdefault(one.set, []).append(place)
    whole = [own for own in places.values() if len(own) == targets[own[0]].members]
    images = np.array([targets[own[0]].image for own in whole])
    levels = np.array([SIZES.index(one.level) for one in targets])
    found = {}
    for percent in PERCENTS:
        goal, cap = percent / 100, ious.shape[1]
        for clicks in WITHIN if whole else ():
            if clicks <= cap:
                shares = [ambiguity.all_within(ious[own], clicks, goal) for own in whole]
                found[f"all_within_{percent}", str(clicks)] = mean_of(np.array(shares, dtype=np.float64), images)
        sums = np.zeros((len(targets), len(SIZES), 2))
        sums[np.arange(len(targets)), levels] = np.stack(
            [clicks_to_reach(ious, goal, cap), np.ones(len(targets))], axis=1
        )
        gap, of_images = ambiguity.granularity_gap, [one.image for one in targets]
        if len(set(levels.tolist())) > 1:
            interval = ambiguity.grouped_interval(sums, of_images, gap)
            found[f"gap_{percent}", ""] = Number(len(targets), float(gap(sums.sum(axis=0))), *interval)
    return found


def _containment(run: StoredRun, known: Mapping[str, _Target]) -> dict[tuple[str, str], Number]:
    """Containment of each mask's answers in the answers for the next mask of its set, in bounded memory."""
    names, images, values = [], [], []
    before: _Answered | None = None
    for rows in run.samples():
        ends = [rows.slice(at, 1).to_pylist()[0] for at in (0, len(rows) - 1)]
        now = _Answered(ends[0]["sample"], tuple(map(_mask, ends)), tuple(row["iou"] for row in ends))
        if before is not None:
            inner, outer = known[before.sample], known[now.sample]
            nested = inner.family in NESTED and outer.family in NESTED
            if nested and (outer.set, outer.member) == (inner.set, inner.member + 1):
                names.append(f"{inner.family} in {outer.family}")
                images.append(inner.image)
                values.append(_of_pair(before, now, inner.contained))
        before = now
    if not names:
        return {}
    labels, of_image = np.array(names), np.array(images)
    order = [f"{inner} in {outer}" for inner in NESTED for outer in NESTED]
    found = {}
    for name, which in {"any": np.ones(len(names), dtype=bool), **locate_sets(labels, order)}.items():
        for measure in values[0]:
            of_measure = np.array([one[measure] for one in values])
            found[measure, name] = mean_of(of_measure[which], of_image[which])
    return found


def _mask(row: Mapping[str, Any]) -> Rle | None:
    if row["mask"] is None:
        return None
    height, width = row["height"], row["width"]
    return from_foreign_rle({"size": [height, width], "counts": row["mask"]}, height, width)


def _of_pair(inner: _Answered, outer: _Answered, truth: float) -> dict[str, float]:
    found = {"containment_truth": truth}
    for place, name in enumerate(ANSWERED):
        one, other = inner.masks[place], outer.masks[place]
        share = 0.0 if one is None or other is None else ambiguity.containment(one, other)
        found[f"containment_{name}"] = share
        found[f"containment_{name}_of_truth"] = min(1.0, share / truth) if truth else math.nan
        found[f"containment_{name}_iou"] = (inner.ious[place] + outer.ious[place]) / 2
    return found
