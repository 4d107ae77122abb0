"""DAVIS-585: objects of DAVIS's sequences with initial masks to correct, as FocalClick evaluates them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError
from disbench.core.samples import SampleSource
from disbench.datasets.records import FileSamples, Record

_INITIAL = "init_"


def open_davis585(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """One sample for every object mask `SEQUENCE/OBJECT_FRAME.png`, sorted by its path.

    The image of `bear/object1_00009.png` is `bear/00009.jpg`; its initial masks are
    `bear/init_sp_object1_00009.png` and `bear/init_stm_object1_00009.png`.

    Args:
        name: of the card.
        folder: with one folder a sequence.
        options: `initial`: `sp` or `stm`, which of the initial masks, or `none`.
        facts: to record.

    Raises:
        InputError: no sequence, a mask whose name is not as above, or a file that a mask needs is missing.
    """
    records = [
        _record(folder, mask, options["initial"])
        for sequence in sorted(path for path in folder.iterdir() if path.is_dir())
        for mask in _object_masks(sequence)
    ]
    return FileSamples(name, folder, "bright", records, facts)


def _object_masks(sequence: Path) -> Iterator[Path]:
    for path in sorted(sequence.glob("*.png")):
        if not path.name.startswith((_INITIAL, ".")):
            yield path


def _record(folder: Path, mask: Path, initial: str) -> Record:
    sequence = mask.parent.name
    item, underscore, frame = mask.stem.rpartition("_")
    if not (item and underscore and frame):
        raise InputError(f"{mask}: not a name such as object1_00009.png; is this the folder of DAVIS-585's sequences?")
    image = f"{sequence}/{frame}.jpg"
    first = None if initial == "none" else f"{sequence}/{_INITIAL}{initial}_{mask.name}"
    for needed in (image, first):
        if needed and not (folder / needed).is_file():
            raise InputError(
                f"{folder / needed}: there is no such file, but {sequence}/{mask.name} needs it; get it again"
            )
    return Record(f"{sequence}/{mask.stem}", image, f"{sequence}/{mask.name}", initial=first)
