"""Samples of a dataset with a run's clicks and masks, as panels of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.samples import Sample, SampleSource, content_of
from disbench.core.sheets import Panel, Window, window_around
from disbench.datasets.tetris import PRIVATE
from disbench.harness.store import CLICKS, ClickRow, StoredRun
from disbench.harness.verification import open_run_dataset
from disbench.reports.render.table import plain

SHOWN_CLICKS = (1, 5, 20)
"""Clicks after which masks are shown, and the last one of a sample with fewer."""


@dataclass(frozen=True)
class RunSample:
    """A sample with its rows, one for each click; `place` names their file in errors."""

    sample: Sample
    rows: tuple[ClickRow, ...]
    place: str

    def clicks(self, number: int) -> tuple[Click, ...]:
        """The clicks up to a number."""
        return tuple(Click(row.x, row.y, row.positive) for row in self.rows[:number])

    def mask(self, number: int) -> BoolArray | None:
        """The mask kept after a click, boolean (height, width); None if it was not stored, `InputError` if damaged."""
        counts = self.rows[number - 1].mask
        return None if counts is None else self._decoded(counts, number)

    def candidates(self, number: int) -> tuple[BoolArray, ...] | None:
        """All candidates at a click, as `mask`."""
        every = self.rows[number - 1].candidate_masks
        return None if every is None else tuple(self._decoded(counts, number) for counts in every)

    def panel(self, title: str, remark: str = "", **more: Any) -> Panel:
        """A panel on the image; `more` are fields of `Panel`."""
        return Panel(title, self.sample.image, remark, **more)

    def target_panel(self, window: Window | None) -> Panel:
        """The image with the target."""
        return self.panel("target", target=self.sample.target, window=window)

    def first_click_panel(self, window: Window | None) -> Panel:
        """The whole image with the first click; a rectangle shows what the other panels enlarge."""
        return self.panel("image, first click", clicks=self.clicks(1), marks="first", outlined=window)

    def _decoded(self, counts: bytes, number: int) -> BoolArray:
        from disbench.core.masks import decode, from_foreign_rle  # noqa: PLC0415

        height, width = self.sample.target.shape
        try:
            return decode(from_foreign_rle({"size": [height, width], "counts": counts}, height, width))
        except ValueError as error:
            raise InputError(
                f"{self.place}: sample {plain(self.sample.id)}, click {number}: {error}; run it again with "
                "--existing overwrite"
            ) from error


def open_same_dataset(run: StoredRun, data: Path | None, dataset: str | None = None) -> SampleSource:
    """The dataset that a run was made on; `dataset` is a card.toml or folder, if the run's name for it is not a card's.

    Raises:
        InputError: it is missing, its content is not what the run was made on, or its terms allow no picture of it.
    """
    if run.record.dataset.facts.get(PRIVATE):
        raise InputError(f"no pictures of {run.folder}: the card of {plain(run.dataset)} allows none; leave them out")
    try:
        source = open_run_dataset(run, data, dataset)
    except InputError as error:
        raise InputError(f"no pictures of {run.folder}: {error}") from error
    expected, found = run.record.dataset.content_hash, content_of(source).whole
    if found != expected:
        raise InputError(
            f"{run.folder}: made on a {plain(run.dataset)} with content hash {plain(expected)[:8]}, "
            f"but the one here has {found[:8]}; name the root of the right one with --data"
        )
    return source


def read_samples(run: StoredRun, source: SampleSource, names: Sequence[str]) -> list[RunSample]:
    """Samples of a run and its dataset by their ids, in that order.

    Raises:
        InputError: the run was imported, it or the dataset does not have a sample, or a row does not fit its image.
    """
    run.require_clicks()
    wanted = set(names)
    rows: dict[str, list[ClickRow]] = {}
    for table in run.samples():
        name = table["sample"][0].as_py()
        if name in wanted:
            rows.setdefault(name, []).extend(map(_row, table.to_pylist()))
    numbers = {name: number for number, name in enumerate(source.ids)}
    found = []
    for name in names:
        if name not in rows or name not in numbers:
            where = run.folder if name not in rows else plain(run.dataset)
            raise InputError(f"{where}: there is no sample {plain(name)!r}; name one of the run's samples")
        found.append(_joined(source.read(numbers[name]), rows[name], run.place(CLICKS)))
    return found


def _row(values: Mapping[str, object]) -> ClickRow:
    lists = ("candidate_ious", "candidate_scores", "candidate_masks")
    return ClickRow(
        **{key: tuple(value) if key in lists and isinstance(value, list) else value for key, value in values.items()}  # type: ignore[arg-type]
    )


def _joined(sample: Sample, rows: Sequence[ClickRow], place: str) -> RunSample:
    height, width = sample.target.shape
    for number, row in enumerate(rows, start=1):
        if (
            (row.height, row.width) != (height, width)
            or row.click != number
            or not (0 <= row.x < width and 0 <= row.y < height)
            or not -1 <= row.kept < max(1, row.candidates)
        ):
            raise InputError(
                f"{place}: sample {plain(sample.id)}, row {number}: not a click on its image of {width} x {height} "
                "pixels; run it again with --existing overwrite"
            )
    return RunSample(sample, tuple(rows), place)


def window_of(*found: RunSample) -> Window | None:
    """The part of an image with the target and every run's clicks; None if that is most of it."""
    clicks = [click for of_run in found for click in of_run.clicks(len(of_run.rows))]
    return window_around(found[0].sample.target, clicks)


def mask_panel(found: RunSample, number: int, window: Window | None, who: str = "", *, target: bool = True) -> Panel:
    """The mask kept after click `number` (from 1) and the clicks so far; the title begins with `who`."""
    row, sample = found.rows[number - 1], found.sample
    return found.panel(
        f"{f'{who}, ' if who else ''}click {number}: IoU {row.iou:.3f}",
        target=sample.target if target else None,
        mask=found.mask(number),
        clicks=found.clicks(number),
        marks="dots",
        absent=_absent(found, number),
        window=window,
    )


def mask_panels(found: RunSample, window: Window | None, who: str = "") -> tuple[Panel, ...]:
    """The masks after `SHOWN_CLICKS`."""
    last = len(found.rows)
    numbers = dict.fromkeys(min(number, last) for number in SHOWN_CLICKS)
    return tuple(mask_panel(found, number, window, who) for number in numbers)


def candidate_panels(found: RunSample, most: int, window: Window | None) -> list[Panel]:
    """Candidates of the first click in the method's order, the kept one framed; `InputError` if not stored."""
    row, every = found.rows[0], found.candidates(1)
    if row.failure:
        return [found.panel("no candidates", absent=_absent(found, 1), window=window)]
    if every is None:
        raise InputError(
            f"{found.place}: the candidates of sample {plain(found.sample.id)} were not stored; run it again with "
            "--store all"
        )
    shown = list(range(len(every)))[:most]
    if row.kept not in shown:
        shown[-1] = row.kept
    return [_candidate(found, number, f"candidate {number + 1}", every[number], window) for number in shown]


def first_masks(found: RunSample, label: str, most: int, window: Window | None) -> list[Panel]:
    """The kept mask of the first click, then the other candidates if they were stored."""
    row, every = found.rows[0], found.candidates(1)
    if row.failure or every is None:
        remark = "IoU 0" if row.failure else f"IoU {row.iou:.3f}"
        if row.candidates > 1:
            remark += f", of {row.candidates} candidates"
        absent = _absent(found, 1)
        mask = None if absent else found.mask(1)
        clicks = () if row.failure else found.clicks(1)
        return [found.panel(label, remark, mask=mask, clicks=clicks, marks="first", absent=absent, window=window)]
    order = [row.kept, *(number for number in range(len(every)) if number != row.kept)][:most]
    titles = [label, *(f"candidate {number + 1}" for number in order[1:])]
    return [_candidate(found, *one, every[one[0]], window) for one in zip(order, titles, strict=True)]


def _candidate(found: RunSample, number: int, title: str, mask: BoolArray, window: Window | None) -> Panel:
    row = found.rows[0]
    kept = number == row.kept and row.candidates > 1
    score = "" if row.candidate_scores is None else f", score {row.candidate_scores[number]:.2f}"
    return found.panel(
        f"{title}, kept" if kept else title,
        f"IoU {row.candidate_ious[number]:.3f}{score}",
        mask=mask,
        clicks=found.clicks(1),
        marks="first",
        window=window,
        framed=kept,
    )


def _absent(found: RunSample, number: int) -> str:
    """Why there is no mask after a click."""
    row = found.rows[number - 1]
    return "the method failed" if row.failure else "" if row.mask is not None else "mask not stored"
