"""Any folder of images and masks: one's own data in the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError
from disbench.core.samples import SampleSource
from disbench.datasets.pairs import pairs
from disbench.datasets.records import FileSamples, Record, in_threads
from disbench.datasets.targets import instance_numbers

USUAL = (("images", "masks"), ("img", "gt"))
"""Subfolders of images and masks that need not be named."""


def open_folder(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """One sample for every image, or in the mode `instances` for every number of every map.

    Args:
        name: of the card, or of the folder.
        folder: with the two folders of images and masks.
        options: `images` and `masks`, the folders' names (both empty: those of `USUAL`); `mode`, what masks
            mean: `binary`, 0 is background and all else object; `trimap`, 128 is ignored and more is object;
            `instances`, each number but 0 is an object. `void_255`: 255 is ignored (binary, instances).
        facts: to record.

    Raises:
        InputError: folders that are missing or empty, an image without a mask or the reverse, a map with
            coloured pixels, or options that do not go together.
    """
    mode, void = options["mode"], options["void_255"]
    if mode == "trimap" and void:
        raise InputError(f"{name}: void_255 goes with mode=binary or mode=instances; in a trimap 128 is void")
    records = pairs(folder, *_subfolders(folder, options["images"], options["masks"]))
    if mode == "instances":
        records = _split(folder, records, void=void)
    rule = {"binary": "any-value", "trimap": "trimap", "instances": "one-value"}[mode]
    return FileSamples(name, folder, f"{rule}-void-255" if void else rule, records, facts)


def _subfolders(folder: Path, images: str, masks: str) -> tuple[str, str]:
    if images and masks:
        return images, masks
    if images or masks:
        raise InputError(f"{folder}: name both folders, images=... and masks=..., or none")
    for pair in USUAL:
        if all((folder / part).is_dir() for part in pair):
            return pair
    usual = " or ".join(f"{first}/ and {second}/" for first, second in USUAL)
    raise InputError(f"{folder}: no {usual} in it; name the two folders with images=... and masks=...")


def _split(folder: Path, records: list[Record], *, void: bool) -> list[Record]:
    """One record for every object of every map; a map of background alone gives none."""
    found = in_threads(lambda record: instance_numbers(folder / record.mask, void=void), records)
    return [
        Record(f"{record.id}/{number}", record.image, record.mask, number)
        for record, numbers in zip(records, found, strict=True)
        for number in numbers
    ]
