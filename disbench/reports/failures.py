"""Pictures of failures: the samples that a run never solves, and those that it takes longest to solve."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach
from disbench.core.sheets import LEGEND, Panel, Strip, draw_sheet, sheet_of
from disbench.harness.store import StoredRun
from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.render.html import Picture
from disbench.reports.render.text import counted, csv_text, plain
from disbench.reports.report import write_files
from disbench.reports.run_samples import (
    RunSample,
    clicks_panel,
    image_panel,
    mask_panels,
    open_same_dataset,
    read_samples,
    window_of,
)
from disbench.reports.summary import SOLVED

LISTED = "failures.csv"
_PAGE_WIDTH = 1500
"""Pixels of a picture for the leaderboard, at most."""


@dataclass(frozen=True, slots=True)
class Hard:
    """A sample that is hard for a run.

    Attributes:
        sample: its id.
        noc: clicks to reach 0.90; `max_clicks` if it never does.
        final: IoU after the last click; 0 if the method failed, nan over an empty union.
        solved: whether it ever reaches 0.90.
    """

    sample: str
    noc: int
    final: float
    solved: bool


def hard_samples(run: StoredRun) -> tuple[list[Hard], list[Hard]]:
    """The samples that never reach an IoU of 0.90, and those that do, but not at the first click.

    Returns:
        (never solved: the lowest final IoU first; late: the most clicks first); ties in the dataset's order.

    Raises:
        InputError: samples of this run end below 0.90, its method answers once, or the run is damaged.
    """
    rows, cap, goal = run.by_sample(), run.protocol.max_clicks, np.float32(SOLVED / 100)
    if run.protocol.budget:
        raise InputError(f"{run.folder}: its method gets a fixed budget of points; there are no clicks to look at")
    if _ends_early(run):
        raise InputError(
            f"{run.folder}: its samples end at an IoU of {run.protocol.stop_at:g}, so which of them never "
            f"reach {SOLVED / 100:.2f} is not known; run it without --stop-at"
        )
    needed = clicks_to_reach(list(rows.values()), SOLVED / 100, cap)
    found = [
        Hard(name, int(clicks), float(ious[-1]), bool((ious.astype(np.float32) >= goal).any()))
        for (name, ious), clicks in zip(rows.items(), needed, strict=True)
    ]
    never = sorted((one for one in found if not one.solved), key=lambda one: np.nan_to_num(one.final))
    late = sorted((one for one in found if one.solved and one.noc > 1), key=lambda one: -one.noc)
    return never, late


def draw_failures(
    run: StoredRun, entry: Entry, data: Path | None, samples: int = 8, dataset: str | None = None
) -> bytes | None:
    """A run's hard samples as a PNG: image, target and clicks, masks after clicks 1, 5 and 20.

    Args:
        run: finished.
        entry: of the same run.
        data: root of the datasets.
        samples: how many at most of those never solved, and as many of those solved late; at least 1.
        dataset: where the dataset is, if the run's own name for it is no card.

    Returns:
        None if every sample is solved by the first click.

    Raises:
        InputError: the dataset is not here or not the one that the run was made on, or the run is damaged.
    """
    never, late = hard_samples(run)
    chosen = [*never[:samples], *late[:samples]]
    if not chosen:
        return None
    source = open_same_dataset(run, data, dataset)
    found = read_samples(run, source, [one.sample for one in chosen])
    strips = tuple(
        Strip(_told(one, number, len(never), len(late), samples), (_panels(sample),))
        for number, (one, sample) in enumerate(zip(chosen, found, strict=True))
    )
    texts = (
        f"{entry.protocol}; {counted(entry.summary.samples, 'sample')}: {len(never):,} never reach an IoU of "
        f"{SOLVED / 100:.2f} (shown: {min(samples, len(never))}, the lowest final IoU first), {len(late):,} reach it "
        f"after the first click (shown: {min(samples, len(late))}, the slowest first).",
        LEGEND,
    )
    heading = f"{entry.label} on {entry.dataset} ({entry.short_hash}): what fails"
    return draw_sheet(sheet_of(heading, texts, strips))["png"]


def write_failures(
    folders: Sequence[Path], out: Path, data: Path | None, samples: int = 8, dataset: str | None = None
) -> list[str]:
    """Write a sheet of pictures for each run, and `failures.csv` with all hard samples of all runs.

    Args:
        folders: each a run, or a folder with runs below it, at any depth.
        out: folder; made if missing.
        data: root of the datasets.
        samples: as of `draw_failures`.
        dataset: as of `draw_failures`.

    Returns:
        What to tell the user, a line a file.

    Raises:
        InputError: as `draw_failures`, or no run in a folder; then nothing is written.
    """
    runs = find_runs(folders)
    entries = read_entries(runs)
    names = _file_names([entry.folder for entry in entries])
    pictures = {
        name: draw_failures(run, entry, data, samples, dataset)
        for name, run, entry in zip(names, runs, entries, strict=True)
    }
    lists = [hard_samples(run) for run in runs]
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
        for entry, parts in zip(entries, lists, strict=True)
        for part in parts
        for one in part
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


def failure_pictures(
    folders: Sequence[Path], data: Path | None, samples: int = 3, dataset: str | None = None
) -> dict[Path, list[Picture]]:
    """A run's hard samples as a small picture with a caption, for the leaderboard.

    Args:
        folders: as of `write_failures`.
        data: as of `draw_failures`.
        samples: as of `draw_failures`.
        dataset: as of `draw_failures`.

    Returns:
        The folder of each run -> its picture (WebP); none for a run whose samples end below 0.90, whose method
        answers once, or that solves all of them by the first click.

    Raises:
        InputError: as `draw_failures`.
    """
    runs = find_runs(folders)
    found: dict[Path, list[Picture]] = {}
    for run, entry in zip(runs, read_entries(runs), strict=True):
        if _ends_early(run) or run.protocol.budget:
            continue
        never, late = hard_samples(run)
        drawn = draw_failures(run, entry, data, samples, dataset)
        if drawn is not None:
            caption = f"{len(never):,} of {counted(entry.summary.samples, 'sample')} never solved, {len(late):,} late"
            found[run.folder] = [(caption, _small(drawn))]
    return found


def _small(picture: bytes) -> bytes:
    """A PNG as WebP, no wider than a page."""
    from PIL import Image  # noqa: PLC0415

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((_PAGE_WIDTH, 1 << 14))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80, method=4)
    return file.getvalue()


def _ends_early(run: StoredRun) -> bool:
    stop = run.protocol.stop_at
    return stop is not None and bool(np.float32(stop) < np.float32(SOLVED / 100))


def _panels(found: RunSample) -> tuple[Panel, ...]:
    window = window_of(found)
    return (image_panel(found, window), clicks_panel(found, window), *mask_panels(found, window))


def _told(one: Hard, number: int, never: int, late: int, samples: int) -> str:
    if not one.solved:
        return f"Never solved, {number + 1} of {never:,}: {plain(one.sample)}, final IoU {one.final:.3f}"
    place = number - min(samples, never) + 1
    return f"Solved late, {place} of {late:,}: {plain(one.sample)}, NoC@{SOLVED} {one.noc}, final IoU {one.final:.3f}"


def _file_names(folders: Sequence[str]) -> list[str]:
    """A PNG's name for each run, of letters that every system takes; no two alike."""
    names: list[str] = []
    for folder in folders:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-.") or "run"
        name, number = f"{stem}.png", 2
        while name in names:
            name, number = f"{stem}-{number}.png", number + 1
        names.append(name)
    return names
