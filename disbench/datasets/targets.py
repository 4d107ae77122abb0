"""Target rules: how a mask file becomes a target, one rule per family of datasets.

A rule takes a mask's path and, for instance maps, the instance number; it returns an int8 map of the mask's size: 1
object, 0 background, -1 ignored. Rule names are part of a dataset's content hash, so their meaning never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, ByteArray
from disbench.core.errors import InputError
from disbench.core.samples import Target
from disbench.datasets import label_maps as maps
from disbench.datasets.label_maps import Labels

Rule = Callable[[Path, int], Target]

_GRAY_WEIGHTS = np.array([4899, 9617, 1868])  # red, green, blue in 1/16384, from OpenCV's 8-bit conversion


def _one_number(read: Callable[[Path], tuple[Labels, BoolArray | None]], path: Path, instance: int) -> Target:
    """Instance maps: one instance is the object, all others are background."""
    numbers, ignored = read(path)
    return _target(numbers == instance, ignored)


def instance_numbers(path: Path, rule: str) -> list[int]:
    """Sorted numbers of the non-empty instances in a map, read by a rule of `INSTANCE_MAPS`; 0 is background."""
    numbers, ignored = INSTANCE_MAPS[rule](path)
    counted = numbers.ravel() if ignored is None else numbers[~ignored]
    return [int(number) for number in maps.distinct(counted) if number]


def gray_of_index(path: Path) -> npt.NDArray[np.uint8]:
    """Grey value of each palette index of a PNG, uint8 (256,), rounded as in OpenCV's BGR2GRAY."""
    return np.asarray((maps.read_palette(path) @ _GRAY_WEIGHTS + 8192) >> 14, dtype=np.uint8)


def _sbd(path: Path) -> tuple[Labels, None]:
    return maps.read_instances(path)[0], None


def _voc(path: Path) -> tuple[Labels, BoolArray]:
    labels = maps.read_label_png(path)
    return labels, labels == maps.VOID


def _voc_gray(path: Path) -> tuple[Labels, BoolArray]:
    """Instances numbered by the grey value of their colour, as in RITM; some share a value."""
    labels = maps.read_label_png(path)
    return gray_of_index(path)[labels], labels == maps.VOID


def _folder_map(path: Path) -> tuple[Labels, None]:
    values = maps.read_label_map(path)
    if values.ndim == 3 and (values != values[..., :1]).any():
        return maps.voc_numbers(values, path), None
    return maps.brightest(values), None


def _folder_map_void(path: Path) -> tuple[Labels, BoolArray]:
    numbers, _ = _folder_map(path)
    return numbers, numbers == maps.VOID


# Rules for instance maps: how to read the numbers and the ignored pixels.
INSTANCE_MAPS: Mapping[str, Callable[[Path], tuple[Labels, BoolArray | None]]] = {
    "sbd-instance": _sbd,
    "voc-palette": _voc,
    "voc-gray": _voc_gray,
    "one-value": _folder_map,
    "one-value-void-255": _folder_map_void,
}

RULES: Mapping[str, Rule] = {
    # GrabCut, Berkeley: 128 is ignored, more is object (channel 0 in OpenCV's order: blue).
    "trimap": lambda path, _: _above(_channel(path, 2), maps.UNDECIDED, maps.UNDECIDED),
    # DAVIS, COCO_MVal: any colour channel above 0; all objects merged.
    "any-channel": lambda path, _: _above(maps.brightest(maps.read_displayed(path)[0]), 0),
    # DAVIS-585, HQSeg-44K: the first channel above 128, nothing ignored.
    "bright": lambda path, _: _above(_channel(path, 0), maps.UNDECIDED),
    # DAVIS as FCANet reads it: palette index, grey value or first channel above 0, nothing ignored.
    "first-value": lambda path, _: _above(_first_values(path), 0),
    # Berkeley as FCANet reads it: the same, 128 or more.
    "first-value-128": lambda path, _: _above(_first_values(path), maps.UNDECIDED - 1),
    # A folder's binary masks: nonzero palette index, grey value, or any channel.
    "any-value": lambda path, _: _nonzero(maps.brightest(maps.read_label_map(path))),
    # The same, but 255 is ignored; colours are PascalVOC palette indices.
    "any-value-void-255": lambda path, _: _nonzero(*_folder_map_void(path)),
    # A folder's binary masks: displayed on black, above 127 in any channel; or the opposite.
    "above-half": lambda path, _: _target(maps.on_black(*maps.read_displayed(path)) > maps.HALF),
    "up-to-half": lambda path, _: _target(maps.on_black(*maps.read_displayed(path)) <= maps.HALF),
    # A folder's binary masks: an alpha channel above 127.
    "opaque": lambda path, _: _target(_alpha(path) > maps.HALF),
    **{name: partial(_one_number, read) for name, read in INSTANCE_MAPS.items()},
}


def _alpha(path: Path) -> ByteArray:
    alpha = maps.read_displayed(path)[1]
    if alpha is None:
        raise InputError(f"{path}: all pixels are equally opaque; set mask=half or another")
    return alpha


def _channel(path: Path, number: int) -> ByteArray:
    colours, _ = maps.read_displayed(path)
    return colours if colours.ndim == 2 else np.asarray(colours[..., number])


def _first_values(path: Path) -> Labels:
    values = maps.read_label_map(path)
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


MASK_RULES = {
    "nonzero": "any-value",
    "half": "above-half",
    "dark": "up-to-half",
    "alpha": "opaque",
}  # -> `targets.RULES`
LOSSY = (".jpg", ".jpeg", ".webp")  # lossy formats, whose values are not labels
_NUMBERS, _BRIGHT = "any-value", "above-half"
_LOW, _HIGH = 32, 224  # compression changes 0 to values < _LOW, and 255 to values >= _HIGH
_MIDDLE = range(120, 137)  # values that stand for 128
_VOID_COLOUR = (224, 224, 192)
_FEW = 6  # maximum number of values listed; soft edges and compression give more
_CHOICES = "mask=nonzero (all but 0 is object), half (above 127), dark (up to 127) or alpha (opaque)"
_UNCLEAR = f"neither labels on a background of 0 nor one bright object; set {_CHOICES}"
_TRIMAP = "the middle value is unlabelled in a trimap; set mode=trimap, or mask=nonzero or half"
_VOID = "255 is void in PascalVOC's palette; set void_255=true, or mask=nonzero or half"
_BLURRED = "soft edges or compression noise, not instance numbers; save it without"
_SWAPPED = "palette index 0 is bright and another is black; save the background as index 0"
_NOT_128 = "the unlabelled value of a trimap must be 128"


@dataclass(frozen=True, slots=True)
class MaskKind:
    """How the pixels of a mask can be read.

    Attributes:
        rules: the unambiguous rules: nonzero, brightness above half, or both if they agree.
        values: its distinct numbers, or distinct shades if only brightness applies.
        share: share of object pixels.
        wrong: mode (binary, instances, trimap) -> why it cannot be read in this mode, with the fix; "" if it can.
    """

    path: Path
    rules: tuple[str, ...]
    values: Labels
    share: float
    wrong: Mapping[str, str]


def check_kinds(kinds: Sequence[MaskKind], mode: str) -> None:
    """Raise `InputError` listing the values if a mask cannot be read in this mode."""
    if wrong := [kind for kind in kinds if kind.wrong[mode]]:
        more = f" ({len(wrong)} of {len(kinds)} masks)" if len(kinds) > 1 else ""
        raise InputError(f"{wrong[0].path}: {_listed(wrong[0].values)}: {wrong[0].wrong[mode]}{more}")


def detect_rule(kinds: Sequence[MaskKind]) -> tuple[str, str]:
    """Detect the rule of `RULES` that reads all binary masks of a folder, and describe it in a sentence.

    `InputError` for an ambiguous mask, or masks that need different rules.
    """
    check_kinds(kinds, "binary")
    number, bright = ([kind for kind in kinds if rule not in kind.rules] for rule in (_BRIGHT, _NUMBERS))
    if number and bright:
        other = f"{bright[0].path.name} has {_listed(bright[0].values)}; make them consistent, or set {_CHOICES}"
        raise InputError(f"{number[0].path}: {_listed(number[0].values)} are labels, but {other}")
    share = float(np.mean([kind.share for kind in kinds]))
    found = _listed(np.unique(np.concatenate([kind.values for kind in kinds])))
    dark = "; if the dark part is the object, set mask=dark" if share > 1 / 2 and not number else ""
    above = f"object above {maps.HALF if bright else 0}, {share:.1%} of the pixels{dark}"
    return (_BRIGHT if bright else _NUMBERS), f"{found} in {len(kinds)} mask{'s'[: len(kinds) > 1]}: {above}"


def mask_kind(path: Path) -> MaskKind:
    """Determine how a mask can be read; `InputError` if it is missing, damaged, or not a mask."""
    colours, alpha = maps.read_displayed(path)
    light = maps.on_black(colours, alpha)
    shades = maps.distinct(light)
    try:
        numbers = maps.brightest(maps.read_label_map(path))
        known = path.suffix.lower() not in LOSSY or {*shades} <= {0, maps.VOID}
    except InputError:  # not integers: fractions, CMYK
        numbers, known = light, False
    same = np.array_equal(numbers, light)
    values, is_number, is_bright = shades if same else maps.distinct(numbers), numbers != 0, light > maps.HALF
    plain = alpha is None and maps.one_colour(colours)
    mapped = numbers.dtype == np.uint8 and not same  # by a palette, transparency, or 1 bit
    # Labels need a background; if they differ from the displayed colours, it must be black.
    known = known and (plain or (not is_number.all() and (not mapped or np.array_equal(is_number, light != 0))))
    blurred, areas = _edges(light) if len(shades) > 2 else (False, False)
    bright = blurred or ({*shades} == {0, maps.VOID} and (len(values) <= 2 or not mapped))
    middle = [shade for shade in shades if shade in _MIDDLE]
    small, large = (values > 0) & (values < _LOW), (values >= _HIGH) & (values < maps.VOID)
    void = maps.VOID in values and small.any() and not large.any()
    cases: tuple[tuple[Any, tuple[str, ...], str], ...] = (  # the first match wins
        (len(middle) == 1 and {0, maps.VOID} <= {*shades} <= {0, 64, maps.VOID, *middle}, (), _TRIMAP),
        (void or (colours.ndim > 2 and (colours == _VOID_COLOUR).all(axis=2).any()), (), _VOID),
        (known and np.array_equal(is_number, is_bright), (_NUMBERS, _BRIGHT), ""),
        (known and (plain or not is_bright.any()), (_NUMBERS,), ""),
        (bright and is_bright.any() and not is_bright.all(), (_BRIGHT,), ""),
        (known and areas, (_NUMBERS,), ""),
        (True, (), _UNCLEAR),
    )
    rules, doubt = next((rules, doubt) for applies, rules, doubt in cases if applies)
    scattered = len(shades) > _FEW and (blurred or 2 * len(maps.distinct(numbers[_blocks(numbers)])) < len(values))
    swapped = mapped and not plain and is_bright[~is_number].any() and (light[is_number] == 0).any()
    no_map = _BLURRED if scattered else _SWAPPED if swapped else ""
    no_trimap = _NOT_128 if middle and maps.UNDECIDED not in middle else ""
    return MaskKind(
        path,
        rules,
        shades if rules == (_BRIGHT,) else values,
        float((is_number if _NUMBERS in rules else is_bright).mean()),
        {"binary": doubt, "instances": no_map, "trimap": no_trimap},
    )


def _edges(light: ByteArray) -> tuple[bool, bool]:
    """Whether values between 0 and 255 are soft edges or compression noise, and whether they are uniform areas.

    Edges and noise have few 2 x 2 blocks of equal pixels; areas consist of them.
    """
    counts = np.bincount(light.ravel(), minlength=256)
    low, middle, high = counts[1:_LOW].sum(), counts[_LOW:_HIGH].sum(), counts[_HIGH : maps.VOID].sum()
    between, top = low + middle + high, high + counts[maps.VOID]
    share = _blocks(light)[(light > 0) & (light < maps.VOID)].sum() / max(between, 1)
    noisy = low and high and 4 * middle <= between
    soft = top and share <= 1 / 4 and middle <= min(top, light.size / 5) and np.count_nonzero(counts[1 : maps.VOID]) > 1
    return bool(noisy or soft), bool(share > 1 / 2 and (np.count_nonzero(counts) <= _FEW or not (low and top)))


def _blocks(values: Labels) -> BoolArray:
    """Pixels inside 2 x 2 blocks of equal values."""
    equal = (values[1:, 1:] == values[:-1, :-1]) & (values[1:, :-1] == values[:-1, 1:])
    equal &= values[1:, :-1] == values[1:, 1:]
    block = np.zeros(values.shape, dtype=bool)
    for rows in (slice(1, None), slice(-1)):
        for columns in (slice(1, None), slice(-1)):
            block[rows, columns] |= equal
    return block


def _listed(values: Labels) -> str:
    few = ", ".join(map(str, values[:_FEW]))
    return f"values {few}" if len(values) <= _FEW else f"values {values[0]} to {values[-1]} ({len(values)} different)"
