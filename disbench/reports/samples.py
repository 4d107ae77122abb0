"""Pictures of samples: the clicks and masks of runs, and their failures."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach
from disbench.core.samples import Sample, SampleSource, content_of
from disbench.core.sheets import LEGEND, Panel, Strip, Window, draw_sheet, make_sheet, window_around
from disbench.datasets.layouts import PRIVATE
from disbench.harness.measures import SOLVED
from disbench.harness.store import CLICKS, ClickRow, StoredRun
from disbench.harness.verification import open_run_dataset
from disbench.io.files import write_files
from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.render import Picture, counted, csv_text, plain

FAILURES_CSV = "failures.csv"
_PAGE_WIDTH = 1500
"""Maximum width of a leaderboard picture in pixels."""
SHOWN_CLICKS = (1, 5, 20)
"""Clicks after which masks are shown, or a sample's last click if it has fewer."""


@dataclass(frozen=True)
class RunSample:
    """A sample with one row per click; `place` names their file in errors."""

    sample: Sample
    rows: tuple[ClickRow, ...]
    place: str

    def clicks(self, number: int) -> tuple[Click, ...]:
        """The first `number` clicks."""
        return tuple(Click(row.x, row.y, row.positive) for row in self.rows[:number])

    def mask(self, number: int) -> BoolArray | None:
        """The mask kept after a click, bool (height, width), or None if not stored; `InputError` if damaged."""
        counts = self.rows[number - 1].mask
        return None if counts is None else self._decoded(counts, number)

    def candidates(self, number: int) -> tuple[BoolArray, ...] | None:
        """All candidate masks at a click, like `mask`."""
        every = self.rows[number - 1].candidate_masks
        return None if every is None else tuple(self._decoded(counts, number) for counts in every)

    def panel(self, title: str, remark: str = "", **more: Any) -> Panel:
        """A panel with the image; `more` sets other fields of `Panel`."""
        return Panel(title, self.sample.image, remark, **more)

    def target_panel(self, window: Window | None) -> Panel:
        """The image with the target."""
        return self.panel("target", target=self.sample.target, window=window)

    def first_click_panel(self, window: Window | None) -> Panel:
        """The whole image with the first click, and a rectangle around the window of the other panels."""
        return self.panel("image, first click", clicks=self.clicks(1), marks="first", outlined=window)

    def absent(self, number: int) -> str:
        """Why there is no mask after a click; "" if there is one."""
        row = self.rows[number - 1]
        return "the method failed" if row.failure else "" if row.mask is not None else "mask not stored"

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
    """Open a run's dataset; `dataset` is its card.toml or folder if no card has the name that the run stores.

    Raises:
        InputError: it is missing, its content hash differs from the run's, or its terms do not allow pictures.
    """
    if run.record.dataset.facts.get(PRIVATE):
        raise InputError(f"{run.folder}: the card of {plain(run.dataset)} does not allow pictures; leave them out")
    try:
        source = open_run_dataset(run, data, dataset)
    except InputError as error:
        raise InputError(f"{run.folder}: cannot draw pictures: {error}") from error
    expected, found = run.record.dataset.content_hash, content_of(source).whole
    if found != expected:
        raise InputError(
            f"{run.folder}: made on {plain(run.dataset)} with content hash {plain(expected)[:8]}, "
            f"but the dataset here has {found[:8]}; give the root of the right one with --data"
        )
    return source


def read_samples(run: StoredRun, source: SampleSource, names: Sequence[str]) -> list[RunSample]:
    """Read samples of a run by id, in the given order, with their images and targets from the dataset.

    Raises:
        InputError: the run was imported, the run or dataset lacks a sample, or a row does not fit its image.
    """
    run.require_clicks()
    rows: dict[str, list[ClickRow]] = {name: [] for name in names}
    for table in run.samples():
        name = table["sample"][0].as_py()
        if name in rows:
            rows[name] += [ClickRow(**{key: _frozen(value) for key, value in row.items()}) for row in table.to_pylist()]
    numbers = {name: number for number, name in enumerate(source.ids)}
    found = []
    for name in names:
        if not rows[name] or name not in numbers:
            where = plain(run.dataset) if rows[name] else run.folder
            raise InputError(f"{where}: has no sample {plain(name)!r}; name one of the run's samples")
        sample, place = source.read(numbers[name]), run.place(CLICKS)
        height, width = sample.target.shape
        for number, row in enumerate(rows[name], start=1):
            if (
                (row.height, row.width, row.click) != (height, width, number)
                or not (0 <= row.x < width and 0 <= row.y < height)
                or not -1 <= row.kept < max(1, row.candidates)
            ):
                raise InputError(
                    f"{place}: sample {plain(name)}, row {number}: not a valid click on the {width} x {height} image; "
                    "run it again with --existing overwrite"
                )
        found.append(RunSample(sample, tuple(rows[name]), place))
    return found


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def common_window(*found: RunSample) -> Window | None:
    """The window around the target and all clicks of all runs; None if it covers most of the image."""
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
        absent=found.absent(number),
        window=window,
    )


def mask_panels(found: RunSample, window: Window | None, who: str = "") -> tuple[Panel, ...]:
    """The masks after `SHOWN_CLICKS`."""
    last = len(found.rows)
    numbers = dict.fromkeys(min(number, last) for number in SHOWN_CLICKS)
    return tuple(mask_panel(found, number, window, who) for number in numbers)


def candidate_panels(found: RunSample, most: int, window: Window | None) -> list[Panel]:
    """At most `most` candidates of click 1 in the method's order, the kept one framed; `InputError` if not stored."""
    row, every = found.rows[0], found.candidates(1)
    if row.failure:
        return [found.panel("no candidates", absent=found.absent(1), window=window)]
    if every is None:
        raise InputError(
            f"{found.place}: the candidates of sample {plain(found.sample.id)} were not stored; run it again with "
            "--store all"
        )
    shown = list(range(len(every)))[:most]
    if row.kept not in shown:
        shown[-1] = row.kept
    return [_candidate(found, number, f"candidate {number + 1}", every[number], window) for number in shown]


def first_click_column(found: RunSample, label: str, most: int, window: Window | None) -> list[Panel]:
    """The kept mask of the first click, then the other candidates if stored."""
    row, every = found.rows[0], found.candidates(1)
    if row.failure or every is None:
        remark = "IoU 0" if row.failure else f"IoU {row.iou:.3f}"
        if row.candidates > 1:
            remark += f", of {row.candidates} candidates"
        absent = found.absent(1)
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


@dataclass(frozen=True, slots=True)
class HardSample:
    """A sample never solved or solved late: NoC@90, final IoU (nan over an empty union), whether solved."""

    sample: str
    noc: int
    final: float
    solved: bool


def hard_samples(entry: Entry) -> tuple[list[HardSample], list[HardSample]]:
    """Samples that never reach an IoU of 0.90 (lowest final IoU first), and those that do after click 1 (latest first).

    Unreadable samples are left out.

    Raises:
        InputError: the run stops below 0.90, or has a fixed budget of points.
    """
    rows = entry.rows
    if rows.budget:
        raise InputError(f"{entry.run.folder}: run with a fixed budget of points; there are no clicks to draw")
    if not rows.reaches(SOLVED):
        raise InputError(
            f"{entry.run.folder}: its samples stop at an IoU of {rows.stop_at:g}, so it is unknown which never reach "
            f"{SOLVED / 100:.2f}; run it without --stop-at"
        )
    needed = clicks_to_reach(rows.ious, SOLVED / 100, rows.max_clicks)
    found = [
        HardSample(name, int(clicks), float(ious[-1]), bool((ious >= np.float32(SOLVED / 100)).any()))
        for name, ious, clicks in zip(rows.samples, rows.ious, needed, strict=True)
    ]
    unread = set(rows.unread)
    never = [one for one in found if not one.solved and one.sample not in unread]
    late = [one for one in found if one.solved and one.noc > 1]
    return sorted(never, key=lambda one: np.nan_to_num(one.final)), sorted(late, key=lambda one: -one.noc)


def draw_failures(entry: Entry, data: Path | None, samples: int = 8, dataset: str | None = None) -> bytes | None:
    """Draw a run's hard samples as a PNG (image, target and clicks, masks after clicks 1, 5 and 20); None without any.

    Draws at most `samples` that are never solved, and as many that are solved late. `data` is the root of the datasets;
    `dataset` is as in `open_same_dataset`.

    Raises:
        InputError: as `hard_samples` and `open_same_dataset`.
    """
    never, late = hard_samples(entry)
    chosen = [*never[:samples], *late[:samples]]
    if not chosen:
        return None
    source = open_same_dataset(entry.run, data, dataset)
    strips = []
    for place, found in enumerate(read_samples(entry.run, source, [one.sample for one in chosen])):
        one, window = chosen[place], common_window(found)
        clicks, name, final = found.clicks(len(found.rows)), plain(one.sample), f"final IoU {one.final:.3f}"
        heading = f"Never solved, {place + 1} of {len(never):,}: {name}, {final}"
        if one.solved:
            solved = place - min(samples, len(never)) + 1
            heading = f"Solved late, {solved} of {len(late):,}: {name}, NoC@{SOLVED} {one.noc}, {final}"
        panels = (
            found.panel("image", outlined=window),
            found.panel("target and clicks", target=found.sample.target, clicks=clicks, window=window),
            *mask_panels(found, window),
        )
        strips.append(Strip(heading, (panels,)))
    texts = (
        f"{entry.protocol}; {counted(len(entry.rows.samples), 'sample')}: {len(never):,} never reach an IoU of "
        f"{SOLVED / 100:.2f} (shown: {min(samples, len(never))}, the lowest final IoU first), {len(late):,} reach it "
        f"after the first click (shown: {min(samples, len(late))}, the slowest first).",
        LEGEND,
    )
    return draw_sheet(make_sheet(f"{entry.label} on {entry.dataset_name}: what fails", texts, strips))["png"]


def write_failures(
    folders: Sequence[Path], out: Path, data: Path | None, samples: int = 8, dataset: str | None = None
) -> list[str]:
    """Write a sheet of pictures per run, and `failures.csv` with all hard samples; returns lines for the terminal.

    Arguments as in `find_runs` and `draw_failures`; nothing is written if one of these raises.
    """
    entries = read_entries(find_runs(folders))
    pictures: dict[str, bytes | None] = {}
    lines, records = [], []
    for entry in entries:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", entry.folder).strip("-.") or "run"
        names = (stem, *(f"{stem}-{number}" for number in range(2, len(entries) + 1)))
        name = next(f"{name}.png" for name in names if f"{name}.png" not in pictures)
        pictures[name] = draw_failures(entry, data, samples, dataset)
        never, late = hard_samples(entry)
        place = out / name if pictures[name] else entry.label
        lines.append(f"{place}: {len(never):,} never solved, {len(late):,} solved after the first click")
        records += [
            {
                "run": entry.folder,
                "label": entry.label,
                "dataset": entry.dataset,
                "sample": one.sample,
                "solved": one.solved,
                f"noc_{SOLVED}": one.noc,
                "final_iou": None if np.isnan(one.final) else one.final,
            }
            for one in (*never, *late)
        ]
    write_files({FAILURES_CSV: csv_text(records).encode(), **pictures}, out)
    return [*lines, f"{out / FAILURES_CSV}: all of them"]


def failure_pictures(entries: Sequence[Entry], data: Path | None, samples: int) -> dict[str, list[Picture]]:
    """Small captioned pictures (WebP) of hard samples for the leaderboard: `Entry.folder` -> pictures.

    Skips runs that stop below 0.90, have a fixed budget of points, or solve all samples at the first click.
    """
    from PIL import Image  # noqa: PLC0415

    found: dict[str, list[Picture]] = {}
    for entry in entries:
        drawn = draw_failures(entry, data, samples) if entry.rows.reaches(SOLVED) else None
        if drawn is not None:
            never, late = hard_samples(entry)
            count = counted(len(entry.rows.samples), "sample")
            image, file = Image.open(io.BytesIO(drawn)).convert("RGB"), io.BytesIO()
            image.thumbnail((_PAGE_WIDTH, 1 << 14))
            image.save(file, "WEBP", quality=80, method=4)
            caption = f"{len(never):,} of {count} never solved, {len(late):,} late"
            found[entry.folder] = [(caption, file.getvalue())]
    return found
