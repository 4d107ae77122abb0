"""Pictures of failures: the samples that a run never solves, and those that it solves last."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach
from disbench.core.sheets import LEGEND, Strip, draw_sheet, sheet_of
from disbench.harness.measures import SOLVED
from disbench.io.files import write_files
from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.render.html import Picture
from disbench.reports.render.table import counted, csv_text, plain
from disbench.reports.run_samples import mask_panels, open_same_dataset, read_samples, window_of

LISTED = "failures.csv"
_PAGE_WIDTH = 1500
"""Largest width of a picture for the leaderboard, in pixels."""


@dataclass(frozen=True, slots=True)
class HardSample:
    """A hard sample of a run: clicks to an IoU of 0.90, the last IoU (nan over an empty union), whether solved."""

    sample: str
    noc: int
    final: float
    solved: bool


def hard_samples(entry: Entry) -> tuple[list[HardSample], list[HardSample]]:
    """The samples that never reach an IoU of 0.90 (lowest final IoU first), and those that do late (latest first).

    Samples that cannot be read are left out.

    Raises:
        InputError: samples of this run end below 0.90, or its method answers once.
    """
    rows = entry.rows
    if rows.budget:
        raise InputError(f"{entry.run.folder}: its method got a fixed budget of points; it has no clicks to draw")
    if not rows.reaches(SOLVED):
        raise InputError(
            f"{entry.run.folder}: its samples end at an IoU of {rows.stop_at:g}, so that those which never reach "
            f"{SOLVED / 100:.2f} are unknown; run it without --stop-at"
        )
    needed = clicks_to_reach(rows.ious, SOLVED / 100, rows.max_clicks)
    goal = np.float32(SOLVED / 100)
    found = [
        HardSample(name, int(clicks), float(ious[-1]), bool((ious >= goal).any()))
        for name, ious, clicks in zip(rows.samples, rows.ious, needed, strict=True)
    ]
    unread = set(rows.unread)
    never = sorted(
        (one for one in found if not (one.solved or one.sample in unread)), key=lambda one: np.nan_to_num(one.final)
    )
    late = sorted((one for one in found if one.solved and one.noc > 1), key=lambda one: -one.noc)
    return never, late


def draw_failures(entry: Entry, data: Path | None, samples: int = 8, dataset: str | None = None) -> bytes | None:
    """A run's hard samples as a PNG (image, target and clicks, masks after clicks 1, 5 and 20), or None if it has none.

    At most `samples` of those never solved, and of those solved late. `data` is the root of the datasets, `dataset` the
    path of the run's if its name is not a card's.

    Raises:
        InputError: as `hard_samples`, or the dataset is missing or not the one that the run was made on.
    """
    never, late = hard_samples(entry)
    chosen = [*never[:samples], *late[:samples]]
    if not chosen:
        return None
    source = open_same_dataset(entry.run, data, dataset)
    strips = []
    for place, found in enumerate(read_samples(entry.run, source, [one.sample for one in chosen])):
        one, window = chosen[place], window_of(found)
        clicks, final = found.clicks(len(found.rows)), f"final IoU {one.final:.3f}"
        if one.solved:
            solved = place - min(samples, len(never)) + 1
            heading = f"Solved late, {solved} of {len(late):,}: {plain(one.sample)}, NoC@{SOLVED} {one.noc}, {final}"
        else:
            heading = f"Never solved, {place + 1} of {len(never):,}: {plain(one.sample)}, {final}"
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
    return draw_sheet(sheet_of(f"{entry.label} on {entry.dataset_name}: what fails", texts, strips))["png"]


def write_failures(
    folders: Sequence[Path], out: Path, data: Path | None, samples: int = 8, dataset: str | None = None
) -> list[str]:
    """Write a sheet of pictures for each run, and `failures.csv` with all hard samples of all runs; lines tell of it.

    Arguments are as for `find_runs` and `draw_failures`; nothing is written if one is refused.
    """
    entries = read_entries(find_runs(folders))
    names = _file_names([entry.folder for entry in entries])
    lists = [hard_samples(entry) for entry in entries]
    pictures = {name: draw_failures(entry, data, samples, dataset) for name, entry in zip(names, entries, strict=True)}
    records = [
        {
            "run": entry.folder,
            "label": entry.label,
            "dataset": entry.dataset,
            "sample": one.sample,
            "solved": one.solved,
            f"noc_{SOLVED}": one.noc,
            "final_iou": None if np.isnan(one.final) else one.final,
        }
        for entry, (never, late) in zip(entries, lists, strict=True)
        for one in (*never, *late)
    ]
    write_files({LISTED: csv_text(records).encode(), **pictures}, out)
    return [
        *(
            f"{out / name if picture else entry.label}: {len(never):,} never solved, {len(late):,} solved after "
            "the first click"
            for (name, picture), entry, (never, late) in zip(pictures.items(), entries, lists, strict=True)
        ),
        f"{out / LISTED}: all of them",
    ]


def failure_pictures(entries: Sequence[Entry], data: Path | None, samples: int = 3) -> dict[Path, list[Picture]]:
    """Folder of a run -> a small picture (WebP) of its hard samples with a caption, for the leaderboard.

    Runs without failures to show are left out: those whose samples end below 0.90, whose method answers once, or that
    solve all samples by the first click.
    """
    found: dict[Path, list[Picture]] = {}
    for entry in entries:
        drawn = draw_failures(entry, data, samples) if entry.rows.reaches(SOLVED) else None
        if drawn is not None:
            never, late = hard_samples(entry)
            count = counted(len(entry.rows.samples), "sample")
            caption = f"{len(never):,} of {count} never solved, {len(late):,} late"
            found[entry.run.folder] = [(caption, _small(drawn))]
    return found


def _small(picture: bytes) -> bytes:
    """A PNG as WebP of limited width."""
    from PIL import Image  # noqa: PLC0415

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((_PAGE_WIDTH, 1 << 14))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80, method=4)
    return file.getvalue()


def _file_names(folders: Sequence[str]) -> list[str]:
    """A unique file name for each run, in portable characters."""
    names: list[str] = []
    for folder in folders:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-.") or "run"
        name, number = f"{stem}.png", 2
        while name in names:
            name, number = f"{stem}-{number}.png", number + 1
        names.append(name)
    return names
