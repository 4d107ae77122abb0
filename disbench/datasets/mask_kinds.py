"""Recognise how a folder's masks are to be read, from their pixels; refuse those without one meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core.arrays import BoolArray, ByteArray
from disbench.core.errors import InputError
from disbench.datasets.label_maps import (
    HALF,
    UNDECIDED,
    VOID,
    Labels,
    brightest,
    distinct,
    on_black,
    one_colour,
    read_label_map,
    read_shown,
)

WORDS = {"nonzero": "any-value", "half": "above-half", "dark": "up-to-half", "alpha": "opaque"}
"""Values of the folder's option `mask` -> rule of `targets.RULES`."""
LOSSY = (".jpg", ".jpeg", ".webp")
"""Formats that change values: what they hold is no number."""
_NUMBERS, _BRIGHT = "any-value", "above-half"
_LOW, _HIGH = 32, 224
"""Compression turns 0 into values below the first, 255 into values from the second on."""
_MIDDLE = range(120, 137)
"""Values that are meant to be 128."""
_VOID_COLOUR = (224, 224, 192)
_FEW = 6
"""Values that are listed; soft edges and compression make more."""
_CHOICES = "mask=nonzero (all but 0 is object), half (above 127), dark (up to 127) or alpha (opaque)"
_UNCLEAR = f"neither numbers on a background of 0 nor one bright object; set {_CHOICES}"
_TRIMAP = "the middle is undecided in a trimap; set mode=trimap, or mask=nonzero or half"
_VOID = "255 is void in PascalVOC's palette; set void_255=true, or mask=nonzero or half"
_BLURRED = "soft edges or noise of compression, not numbers of instances; save it without"
_SWAPPED = "index 0 of its palette is bright and another is black; save the background as index 0"
_NOT_128 = "a trimap is undecided where it is 128"


@dataclass(frozen=True, slots=True)
class MaskKind:
    """What the pixels of a mask are.

    Attributes:
        rules: what reads it without doubt: every number but 0, brightness above half, or both, which then agree.
        values: its different numbers or, where only brightness reads it, its different shades.
        share: of the object in all pixels.
        wrong: mode (binary, instances, trimap) -> why it cannot be read so, with the fix; "" if it can.
    """

    path: Path
    rules: tuple[str, ...]
    values: Labels
    share: float
    wrong: Mapping[str, str]


def check_kinds(kinds: Sequence[MaskKind], mode: str) -> None:
    """Raise `InputError` if a mask cannot be read in this mode, with its values."""
    if wrong := [kind for kind in kinds if kind.wrong[mode]]:
        more = f" ({len(wrong)} of {len(kinds)} masks are so)" if len(kinds) > 1 else ""
        raise InputError(f"{wrong[0].path}: {_listed(wrong[0].values)}: {wrong[0].wrong[mode]}{more}")


def recognise(kinds: Sequence[MaskKind]) -> tuple[str, str]:
    """The rule of `targets.RULES` that reads all binary masks of a folder, and a sentence that says what is object.

    Raises:
        InputError: a mask without one meaning, or two that no one rule reads.
    """
    check_kinds(kinds, "binary")
    number, bright = ([kind for kind in kinds if rule not in kind.rules] for rule in (_BRIGHT, _NUMBERS))
    if number and bright:
        raise InputError(
            f"{number[0].path}: {_listed(number[0].values)} are numbers, but {bright[0].path.name} has "
            f"{_listed(bright[0].values)}; make them alike, or set {_CHOICES}"
        )
    share = float(np.mean([kind.share for kind in kinds]))
    found = _listed(np.unique(np.concatenate([kind.values for kind in kinds])))
    dark = "; if the dark part is the object, set mask=dark" if share > 1 / 2 and not number else ""
    return (_BRIGHT if bright else _NUMBERS), (
        f"{found} in {len(kinds)} mask{'s'[: len(kinds) > 1]}: object above {HALF if bright else 0}, {share:.1%} of "
        f"the pixels{dark}"
    )


def mask_kind(path: Path) -> MaskKind:
    """What the pixels of a mask are; `InputError` if it is missing, damaged, or not a mask."""
    colours, alpha = read_shown(path)
    light = on_black(colours, alpha)
    shades = distinct(light)
    try:
        numbers = brightest(read_label_map(path))
        known = path.suffix.lower() not in LOSSY or {*shades} <= {0, VOID}
    except InputError:  # no whole numbers: fractions, CMYK
        numbers, known = light, False
    same = np.array_equal(numbers, light)
    values, is_number, is_bright = shades if same else distinct(numbers), numbers != 0, light > HALF
    plain = alpha is None and one_colour(colours)
    mapped = numbers.dtype == np.uint8 and not same  # by a palette, transparency, or 1 bit
    # Numbers need a background; where they are not what is seen, it must be black.
    known = known and (plain or (not is_number.all() and (not mapped or np.array_equal(is_number, light != 0))))
    blurred, areas = _edges(light) if len(shades) > 2 else (False, False)
    bright = blurred or ({*shades} == {0, VOID} and (len(values) <= 2 or not mapped))
    middle = [shade for shade in shades if shade in _MIDDLE]
    small, large = (values > 0) & (values < _LOW), (values >= _HIGH) & (values < VOID)
    void = VOID in values and small.any() and not large.any()
    cases: tuple[tuple[Any, tuple[str, ...], str], ...] = (  # the first that holds
        (len(middle) == 1 and {0, VOID} <= {*shades} <= {0, 64, VOID, *middle}, (), _TRIMAP),
        (void or (colours.ndim > 2 and (colours == _VOID_COLOUR).all(axis=2).any()), (), _VOID),
        (known and np.array_equal(is_number, is_bright), (_NUMBERS, _BRIGHT), ""),
        (known and (plain or not is_bright.any()), (_NUMBERS,), ""),
        (bright and is_bright.any() and not is_bright.all(), (_BRIGHT,), ""),
        (known and areas, (_NUMBERS,), ""),
        (True, (), _UNCLEAR),
    )
    rules, doubt = next((rules, doubt) for holds, rules, doubt in cases if holds)
    scattered = len(shades) > _FEW and (blurred or 2 * len(distinct(numbers[_blocks(numbers)])) < len(values))
    swapped = mapped and not plain and is_bright[~is_number].any() and (light[is_number] == 0).any()
    no_map = _BLURRED if scattered else _SWAPPED if swapped else ""
    no_trimap = _NOT_128 if middle and UNDECIDED not in middle else ""
    return MaskKind(
        path,
        rules,
        shades if rules == (_BRIGHT,) else values,
        float((is_number if _NUMBERS in rules else is_bright).mean()),
        {"binary": doubt, "instances": no_map, "trimap": no_trimap},
    )


def _edges(light: ByteArray) -> tuple[bool, bool]:
    """Whether values between 0 and 255 are soft edges or noise of compression, and whether they are areas.

    Edges and noise hardly have blocks of 2 x 2 equal pixels, areas are made of them.
    """
    counts = np.bincount(light.ravel(), minlength=256)
    low, middle, high = counts[1:_LOW].sum(), counts[_LOW:_HIGH].sum(), counts[_HIGH:VOID].sum()
    between, top = low + middle + high, high + counts[VOID]
    share = _blocks(light)[(light > 0) & (light < VOID)].sum() / max(between, 1)
    noisy = low and high and 4 * middle <= between
    soft = top and share <= 1 / 4 and middle <= min(top, light.size / 5) and np.count_nonzero(counts[1:VOID]) > 1
    return bool(noisy or soft), bool(share > 1 / 2 and (np.count_nonzero(counts) <= _FEW or not (low and top)))


def _blocks(values: Labels) -> BoolArray:
    """The pixels in blocks of 2 x 2 equal ones."""
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
