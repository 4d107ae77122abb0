"""Pictures of ambiguity: a click, the masks that it may mean, and the candidates nearest to them."""

from __future__ import annotations

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
from disbench.core.sheets import Panel, Strip, draw_sheet, sheet_of
from disbench.harness.set_source import SetSource
from disbench.harness.set_task import ANSWERS, SetSample, StoredAnswers
from disbench.reports.ambiguity.numbers import Numbers, Who
from disbench.reports.render.table import counted, plain
from disbench.shards.manifest import read_manifest

_MOST_MEMBERS = 4
"""Masks drawn of a set: the inner ones of a larger set."""
_LEGEND = (
    "First row of a set: the click, and the masks that it may mean, inner to outer (dashed line). Then a row a method: "
    "the candidate that it chooses itself, and for each mask of the set the candidate that is nearest to it (blue "
    "area). The sets are drawn at random from those of two masks or more."
)


@dataclass(frozen=True)
class PictureOptions:
    """What pictures are made of: `count` sets for each dataset, chosen with the seed.

    The content hash tells which folder of shards a run was made on; without any there are no pictures. `images` is
    their folder, or `embedded`; None looks in the usual places below `data`.
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
        """All candidates; `InputError` if a mask is damaged."""
        height, width = sample.image.shape[:2]
        found = self.row["candidate_masks"] or ()
        try:
            if len(found) != self.row["candidates"] or self.row["members"] != len(sample.members):
                raise ValueError(f"{len(found)} masks stored of {self.row['candidates']} candidates")
            rles = [{"size": [height, width], "counts": counts} for counts in found]
            return [decode(from_foreign_rle(rle, height, width), order="C") for rle in rles]
        except ValueError as error:
            raise InputError(f"{self.who.folder / ANSWERS}: a damaged mask ({error}); run it again") from error


def pictures_by_name(
    groups: Sequence[Sequence[tuple[Numbers, StoredAnswers]]], options: PictureOptions
) -> dict[str, bytes]:
    """File name -> sheet, for each group of runs on the same sets that has one."""
    drawn = [draw_pictures(group, options) for group in groups]
    return {f"pictures-{number}.png": sheet for number, sheet in enumerate(drawn, start=1) if sheet is not None}


def draw_pictures(runs: Sequence[tuple[Numbers, StoredAnswers]], options: PictureOptions) -> bytes | None:
    """A PNG of some sets with each method's candidates; None if no run stored any or no shards are named."""
    stored = [(run, answers) for numbers, run in runs if (answers := _first_answers(numbers.who, run))]
    if not stored or not options.shards:
        return None
    run, first = stored[0]
    who = next(iter(first.values())).who
    source = _source(who, run, options)
    numbers_of = {name: number for number, name in enumerate(source.ids)}
    relations = {row["sample"]: row["relations"] for row in run.sets(["sample", "relations"]).to_pylist()}
    strips = []
    for name in _chosen([answers for _, answers in stored], options):
        sample = source.read(numbers_of[name])
        strips.append(_strip(sample, relations[name], [answers[name] for _, answers in stored]))
    if not strips:
        return None
    heading = f"What a first click may mean, and what is offered: {who.title}"
    return draw_sheet(sheet_of(heading, (_LEGEND,), strips, place=2.2, dpi=100, letters=8.0))["png"]


def _first_answers(who: Who, run: StoredAnswers) -> dict[str, _Answer]:
    """Answers to the first click on each set of two masks or more; empty if no masks are stored."""
    table = run.answers()
    found = {
        row["sample"]: _Answer(who, row, ious)
        for row, ious in zip(table.to_pylist(), run.ious(table), strict=True)
        if row["click"] == 1 and row["members"] > 1 and not (row["dx"] or row["dy"] or row["failure"])
    }
    return found if any(answer.row["candidate_masks"] for answer in found.values()) else {}


def _source(who: Who, run: StoredAnswers, options: PictureOptions) -> SetSource:
    for folder in options.shards:
        if read_manifest(folder).content_hash == who.shards:
            source = SetSource(folder, options.images, options.data, run.record.dataset.sets.choice)
            if source.content_hash() != who.content_hash:
                raise InputError(
                    f"{folder}: its images are not those of {run.folder}; name the right ones with --images"
                )
            return source
    raise InputError(
        f"{run.folder}: made of the shards {who.shards[:8]}, which are not among those named; add --shards FOLDER"
    )


def _chosen(answers: Sequence[Mapping[str, _Answer]], options: PictureOptions) -> list[str]:
    """Sets that all runs answered, drawn at random from as many images as possible."""
    names = [name for name in answers[0] if all(name in own for own in answers)]
    mixed = [names[i] for i in np.random.default_rng(options.seed).permutation(len(names))]
    first_of_image: dict[str, str] = {}
    for name in mixed:
        first_of_image.setdefault(answers[0][name].row["image_id"], name)
    return list(dict.fromkeys([*first_of_image.values(), *mixed]))[: options.count]


def _strip(sample: SetSample, relations: Sequence[str], answers: Sequence[_Answer]) -> Strip:
    members = [decode(rle, order="C").astype(np.int8) for rle in sample.members[:_MOST_MEMBERS]]
    clicks = (answers[0].click,)
    rows = [
        [
            Panel("the click", sample.image, clicks=clicks, marks="first"),
            *(
                Panel(plain(name), sample.image, target=member, clicks=clicks, marks="first")
                for name, member in zip(relations, members, strict=False)
            ),
        ]
    ]
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
    left_out = len(sample.members) - len(members)
    more = f", of which the {left_out} outermost are not drawn" if left_out > 0 else ""
    title = f"{plain(sample.id)}: {counted(len(sample.members), 'mask')}{more}"
    return Strip(title, tuple(map(tuple, rows)))
