"""HQSeg-44K: the four sets that HQ-SAM measures on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disbench.core.errors import unknown_name
from disbench.core.samples import SampleSource
from disbench.datasets.pairs import pairs
from disbench.datasets.records import FileSamples

SETS = {
    "DIS": ("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
    "COIFT": ("thin_object_detection/COIFT/images", "thin_object_detection/COIFT/masks"),
    "HRSOD": ("thin_object_detection/HRSOD/images", "thin_object_detection/HRSOD/masks_max255"),
    "ThinObject": (
        "thin_object_detection/ThinObject5K/images_test",
        "thin_object_detection/ThinObject5K/masks_test",
    ),
}
"""Set -> folder of images, folder of masks."""


def open_hqseg(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """One sample for every image of the chosen sets, set by set, sorted by stem; the id is SET/STEM.

    Args:
        name: of the card.
        folder: with `DIS5K/` and `thin_object_detection/`.
        options: `sets`, a list of names of `SETS`, and `rule`, what masks mean (a name of `targets.RULES`).
        facts: to record.

    Raises:
        InputError: an unknown set, a folder that is missing or empty, an image without a mask or the reverse.
    """
    records = []
    for part in options["sets"]:
        if part not in SETS:
            raise unknown_name("set", part, SETS, name)
        records += pairs(folder, *SETS[part], prefix=f"{part}/")
    return FileSamples(name, folder, options["rule"], records, facts)
