"""`disbench quickstart`: the main job, on the embedded photos, for a newcomer to look at."""

from __future__ import annotations

from pathlib import Path

from disbench.datasets.instances import AnnotatedImages
from disbench.datasets.photos import open_photos, photo_path
from disbench.sampling.contact_sheet import draw_contact_sheet
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sample import Existing, make_shards
from disbench.sampling.statistics import as_text, statistics

RECIPES = ("lvis-hierarchy", "coco-lvis-proximity")


def quickstart(out: Path, existing: Existing = "resume") -> list[Path]:
    """Make shards of the embedded photos, print their statistics, draw their contact sheets.

    Args:
        out: folder for the results; each recipe gets a folder in it.
        existing: what to do with earlier results.

    Returns:
        The contact sheets.
    """
    sheets = []
    for name in RECIPES:
        folder = out / name
        make_shards(AnnotatedImages([open_photos()]), load_recipe(name), folder, existing=existing)
        sheet = draw_contact_sheet(folder, photo_path, folder / "contact-sheet.png", rows=8)
        print(as_text(statistics(folder)))  # noqa: T201  (this is what the command is for)
        sheets.append(sheet.path)
    return sheets
