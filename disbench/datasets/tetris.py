"""TETRIS: photographs of people with several objects, as RClicks reads them; its ids tell nothing of the people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from disbench.core.errors import InputError
from disbench.core.opencv import opencv
from disbench.core.samples import Sample, SampleSource
from disbench.datasets.file_samples import FileSamples, Record, check_target, in_threads
from disbench.datasets.images import read_rgb
from disbench.datasets.label_maps import Labels, distinct, read_shown
from disbench.datasets.layouts import pairs

PRIVATE = "private"
"""The fact of a dataset whose pictures no report may show."""
_DIGITS = 16


def private_id(stem: str) -> str:
    """What replaces a file's stem, which describes the person: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(stem.encode()).hexdigest()[:_DIGITS]


def open_tetris(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """`images/STEM.*` and `masks/STEM.png`: one sample for each colour but black.

    Options: `longest_side`, to which larger images are shrunk (0: as stored); `ids`, `sha256` or `stem`.
    """
    photos = pairs(folder, "images", "masks")
    codes = in_threads(lambda photo: distinct(colour_codes(folder / photo.mask)), photos)
    records = []
    for photo, of_photo in zip(photos, codes, strict=True):
        stem = private_id(photo.id) if options["ids"] == "sha256" else photo.id
        objects = [int(code) for code in of_photo if code]
        records += [
            Record(stem if len(objects) == 1 else f"{stem}/{code}", photo.image, photo.mask, code) for code in objects
        ]
    return TetrisSamples(name, folder, records, {**facts, PRIVATE: True}, options["longest_side"])


def colour_codes(path: Path) -> Labels:
    """The code of each pixel's colour, int64 (height, width): blue x 65,536 + green x 256 + red; 0 is background."""
    colours = read_shown(path)[0]
    channels = colours if colours.ndim == 3 else np.repeat(colours[..., None], 3, axis=2)
    return np.asarray(channels.astype(np.int64) @ np.array([1, 1 << 8, 1 << 16]))


class TetrisSamples(FileSamples):
    """Samples whose image and objects are shrunk as RClicks does; an error about one does not name its files."""

    def __init__(
        self, name: str, folder: Path, records: list[Record], facts: Mapping[str, object], longest_side: int
    ) -> None:
        super().__init__(name, folder, f"colour-code-{longest_side}", records, facts)
        self._longest = longest_side

    def read(self, index: int) -> Sample:
        """One sample by its index; errors as for `FileSamples.read`, with the sample's id in place of the stem."""
        record = self._records[index]
        photo, mask = self.folder / record.image, self.folder / record.mask
        try:
            image, codes = read_rgb(photo), colour_codes(mask)
            height, width = image.shape[:2]
            if codes.shape == (height, width) and 0 < self._longest < max(height, width):
                height, width = (_shrunk(side, max(height, width), self._longest) for side in (height, width))
                codes = shrunk_codes(codes, (height, width))
                image = opencv().resize(image, (width, height), interpolation=opencv().INTER_LINEAR)
            target = (codes == record.instance).astype(np.int8)
            check_target(target, image, mask, record.id, photo)
        except InputError as error:
            raise InputError(str(error).replace(PurePath(record.image).stem, record.id)) from None
        return Sample(record.id, image, target)


def shrunk_codes(codes: Labels, size: tuple[int, int]) -> Labels:
    """Codes at a smaller size (height, width), int64: each object is resized bilinearly as 8-bit zeros and ones.

    A pixel belongs to an object where the interpolated value rounds above 0; of overlapping ones the larger code wins.
    """
    found = np.zeros(size, dtype=np.int64)
    for code in distinct(codes):
        if code:
            mask = opencv().resize((codes == code).astype(np.uint8), size[::-1], interpolation=opencv().INTER_LINEAR)
            found[mask > 0] = code
    return found


def _shrunk(side: int, longest: int, to: int) -> int:
    """A side after the longest is shrunk: ratio times the new longest plus 0.5, cut to whole."""
    return to if side == longest else int(side / longest * to + 0.5)
