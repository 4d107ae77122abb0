"""The diverse task: a first click on a set, a method's candidates, and how far they cover what the click may mean."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from disbench.core import masks
from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.diverse_sets import draw_click
from disbench.core.masks import Rle, decode
from disbench.core.prediction import RgbImage, Session
from disbench.harness.answers import JOURNAL_SCHEMA, AnswerRow, to_journal, write_answers
from disbench.harness.candidates import Candidates, checked_candidates, plain_iou
from disbench.harness.protocol import SetProtocol


@dataclass(frozen=True, slots=True)
class SetSample:
    """One diverse set with its image.

    Attributes:
        id: of the set: `image/center`.
        image_id: the dataset's name for the image.
        center: number of the center object in its scene.
        image: uint8 (height, width, 3), RGB.
        members: the masks that a click may mean, inner to outer.
        click_region: where a first click may fall.
    """

    id: str
    image_id: str
    center: int
    image: RgbImage
    members: tuple[Rle, ...]
    click_region: Rle


@dataclass(frozen=True)
class SetTask:
    """How a method is asked.

    Attributes:
        protocol: how many clicks, and how they are drawn and moved.
        store: whether the candidates of clicks that were not moved are stored.
    """

    protocol: SetProtocol
    store: Literal["none", "all"] = "none"

    @property
    def schema(self) -> pa.Schema:
        """`disbench.harness.answers.JOURNAL_SCHEMA`."""
        return JOURNAL_SCHEMA

    def begin(self, sample: SetSample, harness_seconds: float) -> SetLoop:
        """The loop of a set."""
        return SetLoop(sample, self, harness_seconds)

    def table(self, rows: Sequence[AnswerRow]) -> pa.Table:
        """Rows as `disbench.harness.answers.JOURNAL_SCHEMA` says."""
        return to_journal(rows)

    def write(self, folder: Path, tables: Iterable[pa.Table]) -> None:
        """Write `answers.parquet` and `overlaps.parquet`."""
        write_answers(folder, tables)


def first_click(region: Rle, seed: int, image_id: str, center: int, number: int = 1) -> Click:
    """A first click on a set, uniform over its click region: the same in whatever order or process it is drawn.

    Args:
        region: where the click may fall, not empty.
        seed: of the draws.
        image_id: of the set.
        center: of the set.
        number: of the click, from 1.

    Raises:
        ValueError: the region is empty.
    """
    digest = hashlib.sha256(f"{seed}\n{number}\n{center}\n{image_id}".encode()).digest()
    return draw_click(region, np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big"))))


def moved_clicks(click: Click, distance: int, region: BoolArray) -> list[Click]:
    """A click moved in eight directions, by whole pixels nearest to a distance; those that stay in a region.

    Args:
        click: positive.
        distance: pixels, at least 0; of 0 there are none.
        region: boolean (height, width).

    Returns:
        From the right, clockwise as seen (y down).
    """
    diagonal = round(distance / 2**0.5)
    steps = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    height, width = region.shape
    found = []
    for right, down in steps if distance else ():
        length = diagonal if right and down else distance
        x, y = click.x + right * length, click.y + down * length
        if 0 <= x < width and 0 <= y < height and region[y, x]:
            found.append(Click(x, y, positive=True))
    return found


class SetLoop:
    """The state of one set while a method is asked: each click in a session of its own.

    First all clicks that were drawn, then, click by click, where they are moved to.

    Attributes:
        session: the method's; None before each click.
        pending: the row of the click, as it stands if the method fails on it.
        done: no click is left.

    Args:
        sample: the set.
        task: how to ask.
        harness_seconds: what was spent on the set before (reading it).
    """

    initial = None

    def __init__(self, sample: SetSample, task: SetTask, harness_seconds: float = 0.0) -> None:
        begun = time.perf_counter()
        self.sample, self.task = sample, task
        self.session: Session | None = None
        self.done = False
        self._members = [decode(rle, order="C") for rle in sample.members]
        self._unmoved: dict[int, Candidates] = {}
        self._asked = self._all_clicks()
        self._at = 0
        self._model_seconds = 0.0
        self._harness_seconds = harness_seconds + time.perf_counter() - begun

    @property
    def image(self) -> RgbImage:
        """The set's image."""
        return self.sample.image

    @property
    def clicks(self) -> list[Click]:
        """The click that is asked about, alone."""
        return [self._asked[self._at][2]]

    @property
    def pending(self) -> AnswerRow:
        """The row of the click."""
        number, unmoved, click = self._asked[self._at]
        sample = self.sample
        return AnswerRow(
            sample=sample.id,
            image_id=sample.image_id,
            center=sample.center,
            click=number,
            dx=click.x - unmoved.x,
            dy=click.y - unmoved.y,
            x=click.x,
            y=click.y,
            members=len(self._members),
        )

    def spend(self, seconds: float) -> None:
        """Account for time that the method took for the click."""
        self._model_seconds += seconds

    def take(self, prediction: object, keep: Callable[[int], None] | None = None) -> AnswerRow:
        """Check a method's candidates and measure them.

        Args:
            prediction: as the method returned it.
            keep: not called: no candidate is chosen.

        Raises:
            MethodError: the prediction is not as it should be.
        """
        begun = time.perf_counter()
        height, width = self.sample.image.shape[:2]
        found = checked_candidates(prediction, height, width, self.task.protocol.threshold)
        row = replace(
            self.pending,
            candidates=len(found.masks),
            scores=found.scores,
            ious=_overlaps(self._members, found.masks),
            agreement=tuple(_iou(a, b) for a, b in combinations(found.masks, 2)),
        )
        if row.dx or row.dy:
            row = replace(row, unmoved=_overlaps(self._unmoved[row.click].masks, found.masks))
        else:
            self._unmoved[row.click] = Candidates(found.masks.copy(), found.scores)
            if self.task.store == "all":
                encoded = tuple(masks.encode(mask)["counts"] for mask in found.masks)
                row = replace(row, candidate_masks=encoded)
        self._harness_seconds += time.perf_counter() - begun
        row = self._timed(row)
        self._at += 1
        self.session = None
        self.done = self._at == len(self._asked)
        return row

    def fail(self, reason: str) -> AnswerRow:
        """End the set: the method failed on this click."""
        self.done = True
        return self._timed(replace(self.pending, failure=reason))

    def _all_clicks(self) -> list[tuple[int, Click, Click]]:
        """Number of each click, where it was drawn, and where it is set."""
        sample, protocol = self.sample, self.task.protocol
        drawn = [
            (number, first_click(sample.click_region, protocol.seed, sample.image_id, sample.center, number))
            for number in range(1, protocol.clicks + 1)
        ]
        region = decode(sample.click_region)
        moved = [
            (number, click, there) for number, click in drawn for there in moved_clicks(click, protocol.move, region)
        ]
        return [*((number, click, click) for number, click in drawn), *moved]

    def _timed(self, row: AnswerRow) -> AnswerRow:
        row = replace(row, model_seconds=self._model_seconds, harness_seconds=self._harness_seconds)
        self._model_seconds = self._harness_seconds = 0.0
        return row


def _overlaps(first: Iterable[BoolArray], second: Sequence[BoolArray] | BoolArray) -> tuple[float, ...]:
    return tuple(_iou(a, b) for a in first for b in second)


def _iou(first: BoolArray, second: BoolArray) -> float:
    return float(np.float32(plain_iou(first, second)))
