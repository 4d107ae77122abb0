"""`disbench quickstart`: a tour of the main features on the embedded photos."""

from __future__ import annotations

import os
from pathlib import Path

from disbench.baselines.cards import method_spec
from disbench.datasets.cards import open_dataset
from disbench.datasets.instances import AnnotatedImages
from disbench.datasets.photos import open_photos, photo_path
from disbench.harness.protocol import Protocol
from disbench.harness.record import Execution
from disbench.harness.run import run_benchmark
from disbench.io.files import Existing
from disbench.reports.report import LEADERBOARD, make_report
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.shards.contact_sheet import draw_contact_sheet
from disbench.shards.statistics import as_text, statistics

PICTURED_FAILURES = 3  # samples per run shown because they are never solved, and as many because they take long
RECIPES = ("lvis-hierarchy", "coco-lvis-proximity")
METHODS = ("disk", "geodesic", "grabcut")
EVERY = 24  # every n-th of the photos' 257 objects is segmented: enough to tell the methods apart in a minute


def quickstart(out: Path, existing: Existing = "resume") -> list[Path]:
    """Make shards of the embedded photos, with statistics and contact sheets, then a benchmark with its report.

    Each recipe and each run gets a folder in `out`. Returns the files to look at.
    """
    sheets = []
    for name in RECIPES:
        folder = out / name
        make_shards(AnnotatedImages([open_photos()]), load_recipe(name), folder, existing=existing)
        sheet = draw_contact_sheet(folder, photo_path, folder / "contact-sheet.png", rows=8)
        print(as_text(statistics(folder)))  # noqa: T201  (this is what the command is for)
        sheets.append(sheet.path)
    return [*sheets, *_benchmark(out, existing)]


def _benchmark(out: Path, existing: Existing) -> list[Path]:
    runs = []
    for name in METHODS:
        spec = method_spec(name)
        folder = out / "runs" / name
        run_benchmark(
            spec,
            open_dataset("photos", None),
            folder,
            Protocol(threshold=spec.threshold),
            Execution(workers=os.cpu_count() or 1, store="kept"),
            every=EVERY,
            existing=existing,
            command=f"disbench run --method {name} --dataset photos --every {EVERY} --store kept "
            f"--out {folder.as_posix()}",
            progress=True,
        )
        runs.append(folder)
    report = make_report(runs, out / "report", page=True, failures=PICTURED_FAILURES)
    for line in report.lines:
        print(line)  # noqa: T201
    return [path for path in report.paths if path.name in ("report.md", "curves.png", LEADERBOARD)]
