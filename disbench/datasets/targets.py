"""Target rules: how a mask file becomes a target, one rule for each family of datasets.

A rule takes the path of a mask and, for instance maps, the number of the instance; it returns an int8 map of the
mask's size: 1 object, 0 background, -1 ignored. A rule's name is part of a dataset's content hash, so the meaning of
a name never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, ByteArray
from disbench.core.errors import InputError
from disbench.core.samples import Target
from disbench.datasets.label_maps import (
    HALF,
    UNDECIDED,
    VOID,
    Labels,
    brightest,
    distinct,
    on_black,
    read_instances,
    read_label_map,
    read_label_png,
    read_palette,
    read_shown,
    voc_numbers,
)

Rule = Callable[[Path, int], Target]

_GRAY_WEIGHTS = np.array([4899, 9617, 1868])
"""Red, green, blue in 1/16384: OpenCV's conversion of 8-bit colours to grey."""


def _one_number(read: Callable[[Path], tuple[Labels, BoolArray | None]], path: Path, instance: int) -> Target:
    """Instance maps: one number is the object, all other instances are background."""
    numbers, ignored = read(path)
    return _target(numbers == instance, ignored)


def instance_numbers(path: Path, rule: str) -> list[int]:
    """The numbers of the instances with a pixel in a map, ascending, by a rule of `INSTANCE_MAPS`; 0 is background."""
    numbers, ignored = INSTANCE_MAPS[rule](path)
    counted = numbers.ravel() if ignored is None else numbers[~ignored]
    return [int(number) for number in distinct(counted) if number]


def gray_of_index(path: Path) -> npt.NDArray[np.uint8]:
    """The grey value of every palette index of a PNG: uint8 (256,), as OpenCV's BGR2GRAY rounds it."""
    return np.asarray((read_palette(path) @ _GRAY_WEIGHTS + 8192) >> 14, dtype=np.uint8)


def _sbd(path: Path) -> tuple[Labels, None]:
    return read_instances(path)[0], None


def _voc(path: Path) -> tuple[Labels, BoolArray]:
    labels = read_label_png(path)
    return labels, labels == VOID


def _voc_gray(path: Path) -> tuple[Labels, BoolArray]:
    """Instances numbered by the grey value of their colour, which some share: RITM reads the maps in grey."""
    labels = read_label_png(path)
    return gray_of_index(path)[labels], labels == VOID


def _folder_map(path: Path) -> tuple[Labels, None]:
    values = read_label_map(path)
    if values.ndim == 3 and (values != values[..., :1]).any():
        return voc_numbers(values, path), None
    return brightest(values), None


def _folder_map_void(path: Path) -> tuple[Labels, BoolArray]:
    numbers, _ = _folder_map(path)
    return numbers, numbers == VOID


INSTANCE_MAPS: Mapping[str, Callable[[Path], tuple[Labels, BoolArray | None]]] = {
    "sbd-instance": _sbd,
    "voc-palette": _voc,
    "voc-gray": _voc_gray,
    "one-value": _folder_map,
    "one-value-void-255": _folder_map_void,
}
"""Rules for maps of several instances: how the numbers and the ignored pixels are read."""

RULES: Mapping[str, Rule] = {
    # GrabCut, Berkeley: 128 is ignored, more is object (channel 0 in OpenCV's order: blue).
    "trimap": lambda path, _: _above(_channel(path, 2), UNDECIDED, UNDECIDED),
    # DAVIS, COCO_MVal: any colour channel above 0; all objects are merged.
    "any-channel": lambda path, _: _above(brightest(read_shown(path)[0]), 0),
    # DAVIS-585, HQSeg-44K: the first channel above 128, nothing ignored.
    "bright": lambda path, _: _above(_channel(path, 0), UNDECIDED),
    # DAVIS as FCANet reads it: palette index, grey value or first channel above 0, nothing ignored.
    "first-value": lambda path, _: _above(_first_values(path), 0),
    # Berkeley as FCANet reads it: the same, of 128 or more.
    "first-value-128": lambda path, _: _above(_first_values(path), UNDECIDED - 1),
    # A folder's binary masks: what is not 0 (palette index, grey value, or any channel).
    "any-value": lambda path, _: _nonzero(brightest(read_label_map(path))),
    # The same, but 255 is ignored; colours are PascalVOC's numbers.
    "any-value-void-255": lambda path, _: _nonzero(*_folder_map_void(path)),
    # A folder's binary masks: what shows on black and is brighter than 127 in any channel; or all else.
    "above-half": lambda path, _: _target(on_black(*read_shown(path)) > HALF),
    "up-to-half": lambda path, _: _target(on_black(*read_shown(path)) <= HALF),
    # A folder's binary masks: an alpha channel above 127.
    "opaque": lambda path, _: _target(_alpha(path) > HALF),
    **{name: partial(_one_number, read) for name, read in INSTANCE_MAPS.items()},
}
"""Every rule by its name."""


def _alpha(path: Path) -> ByteArray:
    alpha = read_shown(path)[1]
    if alpha is None:
        raise InputError(f"{path}: all pixels are equally opaque; set mask=half or another")
    return alpha


def _channel(path: Path, number: int) -> ByteArray:
    colours, _ = read_shown(path)
    return colours if colours.ndim == 2 else np.asarray(colours[..., number])


def _first_values(path: Path) -> Labels:
    values = read_label_map(path)
    return values if values.ndim == 2 else np.asarray(values[..., 0])


def _nonzero(values: Labels, ignored: BoolArray | None = None) -> Target:
    return _target(values != 0, ignored)


def _above(values: Labels, limit: int, ignored: int | None = None) -> Target:
    return _target(values > limit, None if ignored is None else values == ignored)


def _target(is_object: BoolArray, ignored: BoolArray | None = None) -> Target:
    target = np.asarray(is_object, dtype=np.int8)
    if ignored is not None:
        target[ignored] = -1
    return target
