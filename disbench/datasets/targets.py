"""What a mask file means as a target: one rule a family of datasets.

Each rule takes the path of a mask and, for maps of several instances, the number of the instance, and gives
an int8 map: 1 object, 0 background, -1 ignored. A rule's name is part of a dataset's content hash, so a rule
is never changed: another meaning is another rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray
from disbench.core.errors import InputError
from disbench.core.samples import Target
from disbench.datasets.images import read_rgb
from disbench.datasets.label_maps import read_instances, read_label_map, read_label_png, read_palette

Rule = Callable[[Path, int], Target]
ValueMap = npt.NDArray[np.integer]
Number = TypeVar("Number", bound=np.integer[Any])

UNDECIDED = 128
"""GrabCut's grey value of pixels that are neither object nor background."""
VOID = 255
"""PascalVOC's palette index of pixels that belong to nothing."""
_GRAY_WEIGHTS = np.array([4899, 9617, 1868])
"""Red, green, blue in 1/16384: OpenCV's conversion of 8-bit colours to grey."""


def trimap(path: Path, instance: int = 0) -> Target:
    """GrabCut's and Berkeley's rule: 128 is ignored, more is object (channel 0 as OpenCV counts: blue)."""
    values = read_rgb(path)[..., 2]
    return _target(values > UNDECIDED, ignored=values == UNDECIDED)


def any_channel(path: Path, instance: int = 0) -> Target:
    """DAVIS's and COCO_MVal's rule: object where any colour channel is above 0; all objects are merged."""
    return _target(_brightest(read_rgb(path)) > 0)


def bright(path: Path, instance: int = 0) -> Target:
    """DAVIS-585's and HQSeg-44K's rule: object where the first channel is above 128, nothing ignored."""
    return _target(read_rgb(path)[..., 0] > UNDECIDED)


def first_value(path: Path, instance: int = 0) -> Target:
    """FCANet's reading of DAVIS: palette index, grey value or first channel above 0, nothing ignored."""
    return _target(_first_values(path) > 0)


def first_value_128(path: Path, instance: int = 0) -> Target:
    """FCANet's reading of Berkeley: the same, at least 128."""
    return _target(_first_values(path) >= UNDECIDED)


def sbd_instance(path: Path, instance: int) -> Target:
    """SBD's rule: one number of the instance map; all other instances are background."""
    labels, _ = read_instances(path)
    return _target(labels == instance)


def voc_palette(path: Path, instance: int) -> Target:
    """PascalVOC's rule: one palette index; void is ignored, all other instances are background."""
    labels = read_label_png(path)
    return _target(labels == instance, ignored=labels == VOID)


def voc_gray(path: Path, instance: int) -> Target:
    """PascalVOC as RITM's family reads it: one grey value of the palette's colours, which some instances share."""
    labels = read_label_png(path)
    return _target((gray_of_index(path) == instance)[labels], ignored=labels == VOID)


def gray_of_index(path: Path) -> ValueMap:
    """The grey value of every palette index of a PNG: int64 (256,), as OpenCV's BGR2GRAY rounds it.

    Raises:
        InputError: the PNG has no palette.
    """
    return np.asarray((read_palette(path) @ _GRAY_WEIGHTS + 8192) >> 14, dtype=np.int64)


def any_value(path: Path, instance: int = 0) -> Target:
    """A folder's binary masks: object where the pixel is not 0 (palette index, grey value, or any channel)."""
    return _target(_values(path, merge=True) != 0)


def any_value_void(path: Path, instance: int = 0) -> Target:
    """The same with the value 255 ignored."""
    values = _values(path, merge=True)
    return _target(values != 0, ignored=values == VOID)


def one_value(path: Path, instance: int) -> Target:
    """A folder's instance maps: object where the pixel has this number, all others are background."""
    return _target(_values(path) == instance)


def one_value_void(path: Path, instance: int) -> Target:
    """The same with the number 255 ignored."""
    values = _values(path)
    return _target(values == instance, ignored=values == VOID)


def instance_numbers(path: Path, *, void: bool) -> list[int]:
    """The numbers of a folder's instance map, ascending: all but 0, and but 255 where that is void.

    Raises:
        InputError: missing, damaged, or with coloured pixels.
    """
    return [int(value) for value in np.unique(_values(path)) if value != 0 and not (void and value == VOID)]


RULES: Mapping[str, Rule] = {
    "trimap": trimap,
    "any-channel": any_channel,
    "bright": bright,
    "first-value": first_value,
    "first-value-128": first_value_128,
    "sbd-instance": sbd_instance,
    "voc-palette": voc_palette,
    "voc-gray": voc_gray,
    "any-value": any_value,
    "any-value-void-255": any_value_void,
    "one-value": one_value,
    "one-value-void-255": one_value_void,
}
"""Every rule by its name."""


def _values(path: Path, *, merge: bool = False) -> ValueMap:
    """One number a pixel; colours are merged by their maximum, or refused."""
    values = read_label_map(path)
    if values.ndim == 2:
        return values
    if not merge and (values != values[..., :1]).any():
        raise InputError(
            f"{path}: coloured pixels, where numbers are needed; write a palette or grey PNG of 8 or 16 bits, "
            "or use mode=binary"
        )
    return _brightest(values)


def _brightest(colours: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The largest channel of each pixel: (height, width, 3) to (height, width).

    Channel by channel: NumPy reduces an axis of three a hundred times more slowly.
    """
    red, green, blue = np.moveaxis(colours, 2, 0)
    brightest: npt.NDArray[Number] = np.maximum(np.maximum(red, green), blue)
    return brightest


def _first_values(path: Path) -> ValueMap:
    values = read_label_map(path)
    return values if values.ndim == 2 else np.asarray(values[..., 0])


def _target(is_object: BoolArray, ignored: BoolArray | None = None) -> Target:
    target = np.asarray(is_object, dtype=np.int8)
    if ignored is not None:
        target[ignored] = -1
    return target
