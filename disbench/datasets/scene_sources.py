"""Readers for datasets opened by folder and split."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_OBJECTS, MAX_PIXELS
from disbench.core.masks import as_integer
from disbench.core.scenes import SceneSource

FolderName = Literal["ade20k", "panoptic-parts", "partimagenet", "pascal-part", "sa1b", "spin"]
BadAnnotations = Literal["fail", "drop"]  # raise on malformed records, or drop and count them
Opener = Callable[[Path, str, BadAnnotations], SceneSource]  # opens a folder and a split ("train", "val" ...)

READERS: Mapping[FolderName, str] = {
    "ade20k": "disbench.datasets.ade20k:Ade20kScenes",
    "panoptic-parts": "disbench.datasets.panoptic_parts:PanopticPartsScenes",
    "partimagenet": "disbench.datasets.partimagenet:PartImageNetScenes",
    "pascal-part": "disbench.datasets.pascal_part:PascalPartScenes",
    "sa1b": "disbench.datasets.sa1b:Sa1bScenes",
    "spin": "disbench.datasets.partimagenet:SpinScenes",
}


def open_folder_scenes(name: FolderName, folder: Path, split: str, bad: BadAnnotations) -> SceneSource:
    """The scenes of one split of a dataset in a folder; a scene's `file_name` is relative to the folder."""
    module, _, function = READERS[name].partition(":")
    opened: Opener = getattr(importlib.import_module(module), function)
    return opened(folder, split, bad)


def refuse(
    bad: BadAnnotations, problem: str, dropped: Counter[str], fix: str = "get the file again", option: str = ""
) -> None:
    """Raise `InputError` for a malformed record, or count it, depending on `bad`.

    `problem` begins with the file; `option` is how the user's command sets `bad_annotations`, if known.
    """
    if bad == "fail":
        said = f"{option} bad_annotations=drop".strip()
        raise InputError(f"{problem}; {fix}, or skip such annotations with {said}") from None
    dropped["invalid annotation"] += 1


def image_size(place: object, height: object, width: object) -> tuple[int, int]:
    """Validate an image's height and width as given in a file; `InputError` if out of range."""
    rows, columns = as_integer(height) or 0, as_integer(width) or 0
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        size = f"{quote(width)} x {quote(height)} pixels"
        raise InputError(f"{place}: its image has {size}, not 1 to {MAX_PIXELS}; fix it or leave it out")
    return rows, columns


def check_count(place: object, count: int) -> None:
    """Raise `InputError` for an image with more than `MAX_OBJECTS` objects."""
    if count > MAX_OBJECTS:
        raise InputError(f"{place}: {count:,} objects, but the maximum is {MAX_OBJECTS:,}; leave the image out")
