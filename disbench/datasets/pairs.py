"""GrabCut, Berkeley, DAVIS, COCO_MVal: images and masks in two folders, paired by the stems of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError
from disbench.core.samples import SampleSource
from disbench.datasets.records import FileSamples, Record, listed

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")
"""Formats that keep numbers as they are; JPEG does not."""


def open_pairs(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """One sample for every image of a folder.

    Args:
        name: of the card.
        folder: of the dataset.
        options: `images` and `masks`, folders in it, and `rule`, what masks mean (a name of `targets.RULES`).
        facts: to record.

    Raises:
        InputError: a folder that is missing or empty, an image without a mask or the reverse.
    """
    records = pairs(folder, options["images"], options["masks"])
    return FileSamples(name, folder, options["rule"], records, facts)


def pairs(root: Path, images: str, masks: str, prefix: str = "") -> list[Record]:
    """One record for every image of a folder, with the mask of the same stem, sorted by stem.

    Args:
        root: the dataset's folder.
        images: folder of the images, relative to it.
        masks: folder of the masks, relative to it; it may be the same.
        prefix: what stands before the stem in a sample's id.

    Raises:
        InputError: a folder that is missing or empty, an image without a mask or the reverse, or two files
            of one stem.
    """
    pictures = files_by_stem(root / images, IMAGES, "image", without=MASKS if images == masks else ())
    labels = files_by_stem(root / masks, MASKS, "mask")
    _check(pictures, labels, root / masks, "image", "mask")
    _check(labels, pictures, root / images, "mask", "image")
    return [
        Record(
            f"{prefix}{stem}",
            _relative(images, pictures[stem]),
            _relative(masks, labels[stem]),
        )
        for stem in sorted(pictures)
    ]


def files_by_stem(folder: Path, endings: Sequence[str], kind: str, without: Sequence[str] = ()) -> dict[str, str]:
    """Stem -> name of the files of a folder that have one of the endings (in any case); none is hidden.

    Raises:
        InputError: there is no such folder, no such file in it, or two of one stem.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of {kind}s; check the dataset's layout")
    wanted = set(endings) - set(without)
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in wanted:
            continue
        if path.stem in found:
            raise InputError(f"{folder}: {found[path.stem]} and {path.name} have one stem; keep one of the two")
        found[path.stem] = path.name
    if not found:
        raise InputError(f"{folder}: there is no {kind} in it ({', '.join(sorted(wanted))})")
    return found


def _check(found: dict[str, str], partners: dict[str, str], folder: Path, kind: str, partner: str) -> None:
    if alone := sorted(name for stem, name in found.items() if stem not in partners):
        raise InputError(
            f"{folder}: no {partner} for {len(alone)} of {len(found)} {kind}s ({listed(alone)}); add the "
            f"{partner}s or move these {kind}s away"
        )


def _relative(folder: str, name: str) -> str:
    return name if folder in ("", ".") else f"{folder}/{name}"
