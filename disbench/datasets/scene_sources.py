"""Datasets that are opened by their folder: a reader for each, from a folder and a split to scenes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from disbench.core.scenes import SceneSource

FolderName = Literal["ade20k", "panoptic-parts", "partimagenet", "pascal-part", "sa1b", "spin"]
Opener = Callable[[Path, str, Literal["fail", "drop"]], SceneSource]
"""Opens a dataset: its folder, the split ("train", "val" ...), and whether malformed records stop or are left out."""

READERS: Mapping[FolderName, str] = {
    "ade20k": "disbench.datasets.ade20k:Ade20kScenes",
    "panoptic-parts": "disbench.datasets.panoptic_parts:PanopticPartsScenes",
    "partimagenet": "disbench.datasets.partimagenet:PartImageNetScenes",
    "pascal-part": "disbench.datasets.pascal_part:PascalPartScenes",
    "sa1b": "disbench.datasets.sa1b:Sa1bScenes",
    "spin": "disbench.datasets.spin:SpinScenes",
}


def open_folder_scenes(name: FolderName, folder: Path, split: str, bad: Literal["fail", "drop"]) -> SceneSource:
    """The scenes of a dataset in a folder; `file_name` of a scene is relative to that folder.

    Raises:
        InputError: the folder is not that dataset, or has no such split.
    """
    module, _, function = READERS[name].partition(":")
    opened: Opener = getattr(importlib.import_module(module), function)
    return opened(folder, split, bad)
