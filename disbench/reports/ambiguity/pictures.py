"""Pictures of ambiguity: a click, the masks that it may mean, and the candidates that are nearest to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core import ambiguity, masks
from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.masks import decode
from disbench.core.samples import Target
from disbench.core.sheets import Panel, Strip, draw_sheet, sheet_of
from disbench.harness.answers import ANSWERS, StoredAnswers
from disbench.harness.set_source import Choice, SetSource
from disbench.harness.set_task import SetSample
from disbench.reports.ambiguity.numbers import Numbers
from disbench.reports.render.text import counted, plain
from disbench.shards.reader import content_hash, read_manifest

_MOST_MEMBERS = 4
"""Masks of a set that have room; of a larger one the inner ones are drawn."""
_LEGEND = (
    "First row of a set: the click, and the masks that it may mean, inner to outer (dashed line). Then a row a method: "
    "the candidate that it chooses itself, and for each mask of the set the candidate that is nearest to it (blue "
    "area). The sets are drawn by lot among those of two masks or more, not chosen for their look."
)


@dataclass(frozen=True)
class PictureOptions:
    """What pictures are made of.

    Attributes:
        shards: folders, of which those that a run was made on are found by content; without them there are no
            pictures.
        images: folder of the images, or `embedded`; None looks in the usual places.
        data: root of the datasets.
        count: sets a dataset, at least 1.
        seed: of the lot.
    """

    shards: Sequence[Path] = ()
    images: Path | str | None = None
    data: Path | None = None
    count: int = 4
    seed: int = 0


@dataclass(frozen=True)
class _Offered:
    """What a method offers for the first click on a set."""

    label: str
    click: Click
    candidates: tuple[BoolArray, ...]
    ious: Any
    scores: Sequence[float] | None


def draw_pictures(runs: Sequence[tuple[Numbers, StoredAnswers]], options: PictureOptions) -> bytes | None:
    """A sheet of some sets with what each method offers, as PNG.

    Args:
        runs: on the same sets.
        options: where shards and images are.

    Returns:
        None where no run stored its candidates, or no shards are named.

    Raises:
        InputError: none of the shards is that of the runs, an image is missing, a stored mask is damaged.
    """
    stored = [(numbers, run) for numbers, run in runs if _has_masks(run)]
    if not stored or not options.shards:
        return None
    source = _source(stored[0][0], stored[0][1], options)
    chosen = _lot(stored, options)
    if not chosen:
        return None
    relations = {row["sample"]: row["relations"] for row in stored[0][1].sets().to_pylist()}
    offered: dict[str, list[_Offered]] = {name: [] for name in chosen}
    numbers_of = {name: number for number, name in enumerate(source.ids)}
    samples = {name: source.read(numbers_of[name]) for name in chosen}
    for numbers, run in stored:
        for name, found in _offers(numbers, run, samples).items():
            offered[name].append(found)
    strips = tuple(_strip(samples[name], relations[name], offered[name]) for name in chosen)
    who = stored[0][0].who
    heading = f"What a first click may mean, and what is offered: {who.dataset} ({who.content_hash[:8]})"
    return draw_sheet(sheet_of(heading, (_LEGEND,), strips, place=2.2, dpi=100, letters=8.0))["png"]


def _has_masks(run: StoredAnswers) -> bool:
    column = run.answers(["candidate_masks"])["candidate_masks"]
    return bool(len(column) > column.null_count)


def _source(numbers: Numbers, run: StoredAnswers, options: PictureOptions) -> SetSource:
    for folder in options.shards:
        if content_hash(read_manifest(folder)) == numbers.who.shards:
            try:
                choice = Choice(**run.record.dataset.facts["choice"])
            except TypeError as error:
                raise InputError(f"{run.folder}: it does not say which sets it took; run it again") from error
            source = SetSource(folder, options.images, options.data, choice)
            if source.content_hash() != numbers.who.content_hash:
                raise InputError(
                    f"{folder}: its images are not those of {run.folder}; name the right ones with --images"
                )
            return source
    raise InputError(
        f"{run.folder}: made of the shards {numbers.who.shards[:8]}, which none of the --shards is; name their folder"
    )


def _lot(runs: Sequence[tuple[Numbers, StoredAnswers]], options: PictureOptions) -> list[str]:
    """Sets of two masks or more that all runs answer for, of as many images as can be."""
    columns = ["sample", "image_id", "members", "click", "dx", "dy", "failure"]
    asked = [
        {
            row["sample"]: row["image_id"]
            for row in run.answers(columns).to_pylist()
            if row["click"] == 1 and not (row["dx"] or row["dy"] or row["failure"]) and row["members"] > 1
        }
        for _, run in runs
    ]
    names = [name for name in asked[0] if all(name in own for own in asked)]
    mixed = [names[i] for i in np.random.default_rng(options.seed).permutation(len(names))]
    first_of_image: dict[str, str] = {}
    for name in mixed:
        first_of_image.setdefault(asked[0][name], name)
    return list(dict.fromkeys([*first_of_image.values(), *mixed]))[: options.count]


def _offers(numbers: Numbers, run: StoredAnswers, samples: Mapping[str, SetSample]) -> dict[str, _Offered]:
    table = run.answers()
    found = {}
    for row, ious in zip(table.to_pylist(), run.ious(table), strict=True):
        if row["sample"] in samples and row["click"] == 1 and not (row["dx"] or row["dy"]):
            found[row["sample"]] = _Offered(
                numbers.who.label,
                Click(row["x"], row["y"], positive=True),
                _candidates(row, samples[row["sample"]], run),
                ious,
                row["scores"],
            )
    return found


def _candidates(row: Mapping[str, Any], sample: SetSample, run: StoredAnswers) -> tuple[BoolArray, ...]:
    height, width = sample.image.shape[:2]
    found = row["candidate_masks"] or ()
    try:
        if len(found) != row["candidates"] or row["members"] != len(sample.members):
            raise ValueError(f"{len(found)} masks stored of {row['candidates']} candidates")
        return tuple(
            decode(masks.from_foreign_rle({"size": [height, width], "counts": counts}, height, width), order="C")
            for counts in found
        )
    except ValueError as error:
        raise InputError(f"{run.folder / ANSWERS}: a damaged mask ({error}); run it again") from error


def _strip(sample: SetSample, relations: Sequence[str], offered: Sequence[_Offered]) -> Strip:
    members: list[Target] = [decode(rle, order="C").astype(np.int8) for rle in sample.members[:_MOST_MEMBERS]]
    click = offered[0].click
    first = (
        Panel("the click", sample.image, clicks=(click,), marks="first"),
        *(
            Panel(plain(name), sample.image, target=member, clicks=(click,), marks="first")
            for name, member in zip(relations, members, strict=False)
        ),
    )
    left_out = len(sample.members) - len(members)
    more = f", of which the {left_out} outermost are not drawn" if left_out > 0 else ""
    title = f"{plain(sample.id)}: {counted(len(sample.members), 'mask')}{more}"
    return Strip(title, (first, *(_row(sample, members, relations, one) for one in offered)))


def _row(
    sample: SetSample, members: Sequence[Target], relations: Sequence[str], offered: _Offered
) -> tuple[Panel, ...]:
    count = len(offered.candidates)
    chosen = ambiguity.top1(offered.scores, count)
    own: dict[str, Any] = {"absent": "no score"} if chosen is None else {"mask": offered.candidates[chosen]}
    panels = [
        Panel(
            offered.label,
            sample.image,
            remark="its own choice",
            clicks=(offered.click,),
            marks="first",
            **own,
        )
    ]
    for number, member in enumerate(members):
        nearest = int(offered.ious[number].argmax())
        score = "" if offered.scores is None else f", score {offered.scores[nearest]:.2f}"
        panels.append(
            Panel(
                f"candidate {nearest + 1} of {count}{score}",
                sample.image,
                remark=f"IoU {offered.ious[number][nearest]:.3f} with {plain(relations[number])}",
                target=member,
                mask=offered.candidates[nearest],
            )
        )
    return tuple(panels)


def pictures_by_name(
    groups: Sequence[Sequence[tuple[Numbers, StoredAnswers]]], options: PictureOptions
) -> Mapping[str, bytes]:
    """File name -> sheet, for each group of runs on the same sets that has one."""
    found = {}
    for number, group in enumerate(groups, start=1):
        drawn = draw_pictures(group, options)
        if drawn is not None:
            found[f"pictures-{number}.png"] = drawn
    return found
