"""Pictures of ambiguity: a click, the masks that it may mean, and the answers of methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core import ambiguity
from disbench.core.arrays import BoolArray, Float32Array
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.masks import decode, from_foreign_rle
from disbench.core.samples import Target
from disbench.core.sheets import Panel, Strip, draw_sheet, make_sheet
from disbench.harness.set_source import IntentSource, SetSource
from disbench.harness.set_task import ANSWERS, SetSample, StoredAnswers, read_sets_table
from disbench.harness.store import StoredRun
from disbench.reports.ambiguity.intents import ANSWERED
from disbench.reports.ambiguity.numbers import Numbers, Who
from disbench.reports.render import counted, plain
from disbench.reports.samples import RunSample, read_samples
from disbench.shards.manifest import read_manifest

_MOST_MEMBERS = 4
"""Maximum masks drawn per set, innermost first."""
_LEGEND = (
    "First row of a set: the click, and the masks it may mean, innermost first (dashed outline). Then one row per "
    "method: its own choice, and the candidate nearest to each mask (blue). Sets are drawn at random from those of at "
    "least two masks."
)
_ANSWERS_LEGEND = (
    "First row of a set: the click, and the masks it may mean, innermost first (dashed outline). Then, for each "
    "method and target mask, the predictions (blue) after the first and the last click. Sets are drawn at random from "
    "those of at least two masks."
)


@dataclass(frozen=True)
class PictureOptions:
    """Options of pictures: `count` sets per dataset, drawn with `seed`.

    Folders of `shards` are matched to runs by content hash; without any there are no pictures. `images` is the image
    folder, or `embedded`; None searches the default places below `data`.
    """

    shards: Sequence[Path] = ()
    images: Path | str | None = None
    data: Path | None = None
    count: int = 4
    seed: int = 0


@dataclass(frozen=True)
class _Answer:
    """A method's stored answer to the first click on a set."""

    who: Who
    row: Mapping[str, Any]
    ious: Float32Array

    @property
    def click(self) -> Click:
        return Click(self.row["x"], self.row["y"], positive=True)

    def candidates(self, sample: SetSample) -> list[BoolArray]:
        """All candidate masks; `InputError` if one is damaged."""
        height, width = sample.image.shape[:2]
        found = self.row["candidate_masks"] or ()
        try:
            if len(found) != self.row["candidates"] or self.row["members"] != len(sample.members):
                raise ValueError(f"{len(found)} masks stored of {self.row['candidates']} candidates")
            rles = [{"size": [height, width], "counts": counts} for counts in found]
            return [decode(from_foreign_rle(rle, height, width), order="C") for rle in rles]
        except ValueError as error:
            raise InputError(f"{self.who.folder / ANSWERS}: damaged mask ({error}); run it again") from error


def draw_pictures(runs: Sequence[tuple[Numbers, StoredAnswers]], options: PictureOptions) -> bytes | None:
    """Draw some sets with each method's candidates as a PNG; None if no run stored masks or no shards are given."""
    stored = [answers for numbers, run in runs if (answers := _first_answers(numbers.who, run))]
    if not stored or not options.shards:
        return None
    who = next(iter(stored[0].values())).who
    run = next(run for numbers, run in runs if numbers.who == who)
    source, relations = _source(who, run, options), _relations(run.folder)
    numbers_of = {name: number for number, name in enumerate(source.ids)}
    strips = []
    for name in _chosen([name for name in stored[0] if all(name in answers for answers in stored)], options):
        sample = source.read(numbers_of[name])
        strips.append(_strip(sample, relations[name], [answers[name] for answers in stored]))
    return _drawn(f"Masks a first click may mean, and the nearest candidates: {who.title}", _LEGEND, strips)


def draw_intents(runs: Sequence[tuple[Numbers, StoredRun]], options: PictureOptions) -> bytes | None:
    """Draw some sets with each method's answers for each mask as a PNG; None without stored masks or shards."""
    stored = [(one.who, run) for one, run in runs if run.record.execution.store != "none"]
    if not stored or not options.shards:
        return None
    who, run = stored[0]
    source, relations = _source(who, run, options), _relations(run.folder)
    asked = [Counter(name.rpartition("/")[0] for name in run.by_sample()) for _, run in stored]
    whole = [name for name, own in relations.items() if 1 < len(own) == min(counts[name] for counts in asked)]
    numbers_of = {name: number for number, name in enumerate(source.ids)}
    samples = [source.read(numbers_of[name]) for name in _chosen(whole, options)]
    ids = [f"{one.id}/{member}" for one in samples for member in range(min(len(one.members), _MOST_MEMBERS))]
    found = [(who, {one.sample.id: one for one in read_samples(run, IntentSource(source), ids)}) for who, run in stored]
    strips = [_strip_of_answers(sample, relations[sample.id], found) for sample in samples]
    return _drawn(f"Predictions for each mask a first click may mean: {who.title}", _ANSWERS_LEGEND, strips)


def _drawn(heading: str, legend: str, strips: Sequence[Strip]) -> bytes | None:
    if not strips:
        return None
    return draw_sheet(make_sheet(heading, (legend,), strips, cell_width=2.2, dpi=100, font_size=8.0))["png"]


def _relations(folder: Path) -> dict[str, list[str]]:
    return {row["sample"]: row["relations"] for row in read_sets_table(folder, ["sample", "relations"]).to_pylist()}


def _first_answers(who: Who, run: StoredAnswers) -> dict[str, _Answer]:
    """Answers to the first click on each set of at least two masks; empty if no masks are stored."""
    table = run.answers()
    found = {
        row["sample"]: _Answer(who, row, ious)
        for row, ious in zip(table.to_pylist(), run.ious(table), strict=True)
        if row["click"] == 1 and row["members"] > 1 and not (row["dx"] or row["dy"] or row["failure"])
    }
    return found if any(answer.row["candidate_masks"] for answer in found.values()) else {}


def _source(who: Who, run: StoredAnswers | StoredRun, options: PictureOptions) -> SetSource:
    for folder in options.shards:
        if read_manifest(folder).content_hash == who.shards:
            source = SetSource(folder, options.images, options.data, run.record.dataset.sets.choice)
            hashed = source if isinstance(run, StoredAnswers) else IntentSource(source)
            if hashed.content_hash() != who.content_hash:
                raise InputError(
                    f"{folder}: its images differ from those of {run.folder}; give the right ones with --images"
                )
            return source
    raise InputError(
        f"{run.folder}: made on shards with content hash {who.shards[:8]}, which were not given; add --shards FOLDER"
    )


def _chosen(names: Sequence[str], options: PictureOptions) -> list[str]:
    """Sets drawn at random, from as many images as possible."""
    mixed = [names[i] for i in np.random.default_rng(options.seed).permutation(len(names))]
    first_of_image: dict[str, str] = {}
    for name in mixed:
        first_of_image.setdefault(name.rpartition("/")[0], name)
    return list(dict.fromkeys([*first_of_image.values(), *mixed]))[: options.count]


def _strip(sample: SetSample, relations: Sequence[str], answers: Sequence[_Answer]) -> Strip:
    """One row per method: its own choice, and the candidate nearest to each member."""
    members = _members(sample)
    rows = []
    for answer in answers:
        candidates = answer.candidates(sample)
        scores, count = answer.row["scores"], len(candidates)
        chosen = ambiguity.top1(scores, count)
        own = Panel(
            answer.who.label,
            sample.image,
            "its own choice",
            mask=None if chosen is None else candidates[chosen],
            clicks=(answer.click,),
            marks="first",
            absent="no score" if chosen is None else "",
        )
        panels = [own]
        for member, relation, ious in zip(members, relations, answer.ious, strict=False):
            nearest = int(ious.argmax())
            score = "" if scores is None else f", score {scores[nearest]:.2f}"
            title = f"candidate {nearest + 1} of {count}{score}"
            remark = f"IoU {ious[nearest]:.3f} with {plain(relation)}"
            panels.append(Panel(title, sample.image, remark, target=member, mask=candidates[nearest]))
        rows.append(panels)
    return _with_masks(sample, relations, members, answers[0].click, rows)


def _strip_of_answers(
    sample: SetSample, relations: Sequence[str], runs: Sequence[tuple[Who, Mapping[str, RunSample]]]
) -> Strip:
    """One row per method and answer (first and last)."""
    members = _members(sample)
    found = [(who, [answers[f"{sample.id}/{number}"] for number in range(len(members))]) for who, answers in runs]
    rows = []
    for who, answers in found:
        for name in ANSWERED:
            panels = [Panel(who.label, sample.image, f"after the {name} click")]
            for relation, answer in zip(relations, answers, strict=False):
                number = 1 if name == "first" else len(answer.rows)
                mask, remark = answer.mask(number), f"IoU {answer.rows[number - 1].iou:.3f}"
                shown = {"target": answer.sample.target, "mask": mask, "absent": "failed" if mask is None else ""}
                panels.append(answer.panel(plain(relation), remark, **shown))
            rows.append(panels)
    return _with_masks(sample, relations, members, found[0][1][0].clicks(1)[0], rows)


def _members(sample: SetSample) -> list[Target]:
    return [decode(rle, order="C").astype(np.int8) for rle in sample.members[:_MOST_MEMBERS]]


def _with_masks(
    sample: SetSample, relations: Sequence[str], members: Sequence[Target], click: Click, rows: Sequence[list[Panel]]
) -> Strip:
    """A strip whose first row shows the click and the set's masks."""
    first = [Panel("the click", sample.image, clicks=(click,), marks="first")]
    for name, member in zip(relations, members, strict=False):
        first.append(Panel(plain(name), sample.image, target=member, clicks=(click,), marks="first"))
    left_out = len(sample.members) - _MOST_MEMBERS
    more = f", of which the {left_out} outermost are not drawn" if left_out > 0 else ""
    title = f"{plain(sample.id)}: {counted(len(sample.members), 'mask')}{more}"
    return Strip(title, (tuple(first), *map(tuple, rows)))
