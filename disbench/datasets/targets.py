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
from disbench.datasets.mask_kinds import mask_kind, recognise

Rule = Callable[[Path, int], Target]

_GRAY_WEIGHTS = np.array([4899, 9617, 1868])
"""Red, green, blue in 1/16384: OpenCV's conversion of 8-bit colours to grey."""


def trimap(path: Path, instance: int = 0) -> Target:
    """GrabCut, Berkeley: 128 is ignored, more is object (channel 0 in OpenCV's order: blue)."""
    values = _channel(path, 2)
    return _target(values > UNDECIDED, ignored=values == UNDECIDED)


def any_channel(path: Path, instance: int = 0) -> Target:
    """DAVIS, COCO_MVal: object where any colour channel is above 0; all objects are merged."""
    return _target(brightest(read_shown(path)[0]) > 0)


def bright(path: Path, instance: int = 0) -> Target:
    """DAVIS-585, HQSeg-44K: object where the first channel is above 128, nothing ignored."""
    return _target(_channel(path, 0) > UNDECIDED)


def first_value(path: Path, instance: int = 0) -> Target:
    """DAVIS as FCANet reads it: palette index, grey value or first channel above 0, nothing ignored."""
    return _target(_first_values(path) > 0)


def first_value_128(path: Path, instance: int = 0) -> Target:
    """Berkeley as FCANet reads it: palette index, grey value or first channel of 128 or more, nothing ignored."""
    return _target(_first_values(path) >= UNDECIDED)


def any_value(path: Path, instance: int = 0) -> Target:
    """One binary mask by itself, by the rule that is recognised for it (`mask_kinds.recognise`)."""
    rule, _ = recognise([mask_kind(path)])
    return RULES[rule](path, instance)


def nonzero(path: Path, instance: int = 0) -> Target:
    """A folder's binary masks: object where the pixel is not 0 (palette index, grey value, or any channel)."""
    return _target(brightest(read_label_map(path)) != 0)


def any_value_void(path: Path, instance: int = 0) -> Target:
    """A folder's binary masks in which the value 255 is ignored; colours are PascalVOC's numbers."""
    values, ignored = _folder_map_void(path)
    return _target(values != 0, ignored)


def above_half(path: Path, instance: int = 0, *, dark: bool = False) -> Target:
    """A folder's binary masks: object where what shows on black is brighter than 127 in any channel, or all else."""
    return _target((on_black(*read_shown(path)) > HALF) != dark)


def opaque(path: Path, instance: int = 0) -> Target:
    """A folder's binary masks: object where the alpha channel is above 127."""
    _, alpha = read_shown(path)
    if alpha is None:
        raise InputError(f"{path}: all pixels are equally opaque; set mask=half or another")
    return _target(alpha > HALF)


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
    "trimap": trimap,
    "any-channel": any_channel,
    "bright": bright,
    "first-value": first_value,
    "first-value-128": first_value_128,
    "any-value": nonzero,
    "any-value-void-255": any_value_void,
    "above-half": above_half,
    "up-to-half": partial(above_half, dark=True),
    "opaque": opaque,
    **{name: partial(_one_number, read) for name, read in INSTANCE_MAPS.items()},
}
"""Every rule by its name."""


def _channel(path: Path, number: int) -> ByteArray:
    colours, _ = read_shown(path)
    return colours if colours.ndim == 2 else np.asarray(colours[..., number])


def _first_values(path: Path) -> Labels:
    values = read_label_map(path)
    return values if values.ndim == 2 else np.asarray(values[..., 0])


def _target(is_object: BoolArray, ignored: BoolArray | None = None) -> Target:
    target = np.asarray(is_object, dtype=np.int8)
    if ignored is not None:
        target[ignored] = -1
    return target
