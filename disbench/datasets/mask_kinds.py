"""Recognise how a folder's masks are to be read, from their pixels; refuse those without one meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    read_colours,
    read_label_map,
    read_shown,
)

WORDS = {"nonzero": "any-value", "half": "above-half", "dark": "up-to-half", "alpha": "opaque"}
"""Values of the folder's option `mask` -> rule of `targets.RULES`."""
LOSSY = (".jpg", ".jpeg", ".webp")
"""Formats that change values: what they hold is no number."""
_NUMBERS, _BRIGHT = "any-value", "above-half"
_CHOICES = "mask=nonzero (all but 0 is object), half (above 127), dark (up to 127) or alpha (opaque)"
_LOW, _HIGH = 32, 224
"""Compression turns 0 into values below the first, 255 into values from the second on."""
_VOID_COLOUR = (224, 224, 192)
_FEW = 6
"""Values that are listed; soft edges and compression make more."""
_TRIMAP = (119, 137)
"""Values between these two are meant to be 128."""
_COLOURED = 16
"""Grey pixels have channels that differ by this at most, after compression."""
_BLURRED = "soft edges or noise of compression, not numbers of instances; save it without"
_SWAPPED = "index 0 of its palette is bright and another is black; save the background as index 0"


@dataclass(frozen=True, slots=True)
class MaskKind:
    """What the pixels of a mask are.

    Attributes:
        rules: what reads it without doubt: every number but 0, brightness above half, or both, which then agree.
        values: the different values that the rules read, ascending; `words` say what is there.
        objects, pixels: number of object pixels, and of all.
        doubt: why no rule reads it, with the fix; "" if one does.
        no_map: why its numbers are not those of instances; "" if they may be.
    """

    path: Path
    rules: tuple[str, ...]
    values: Labels
    words: str
    objects: int
    pixels: int
    doubt: str
    no_map: str

    def error(self, reason: str) -> InputError:
        """The error that names file, values and reason."""
        return InputError(f"{self.path}: {self.words}: {reason}")


def recognise(kinds: Sequence[MaskKind]) -> tuple[str, str]:
    """The rule of `targets.RULES` that reads all masks of a folder, and a sentence that says what is object.

    Args:
        kinds: of the masks; of none, the rule for numbers.

    Raises:
        InputError: a mask without one meaning, or two that no one rule reads.
    """
    if unclear := [kind for kind in kinds if kind.doubt]:
        more = f" ({len(unclear)} of {len(kinds)} masks are not clear)" if len(kinds) > 1 else ""
        raise unclear[0].error(unclear[0].doubt + more)
    if not kinds:
        return _NUMBERS, ""
    rule = next((rule for rule in (_NUMBERS, _BRIGHT) if all(rule in kind.rules for kind in kinds)), None)
    if rule is None:
        number, other = (next(k for k in kinds if k.rules == (only,)) for only in (_NUMBERS, _BRIGHT))
        raise number.error(f"numbers, but {other.path.name} has {other.words}; make them alike, or set {_CHOICES}")
    bright = all(_BRIGHT in kind.rules for kind in kinds)
    share = sum(kind.objects for kind in kinds) / sum(kind.pixels for kind in kinds)
    return rule, (
        f"{_listed(np.unique(np.concatenate([kind.values for kind in kinds])))} in {len(kinds)} "
        f"mask{'s'[: len(kinds) > 1]}: object above {0 if rule == _NUMBERS else HALF}, {share:.1%} of the pixels"
        + ("; if the dark part is the object, set mask=dark" if bright and share > 1 / 2 else "")
    )


def check_numbered(kinds: Sequence[MaskKind]) -> None:
    """Raise `InputError` for a map of instances with soft edges, noise, or a palette from light to dark."""
    if wrong := next((kind for kind in kinds if kind.no_map), None):
        raise wrong.error(wrong.no_map)


def check_trimap(path: Path) -> None:
    """Raise `InputError` for a trimap with values about the middle, but none of 128."""
    values = distinct(read_colours(path)[..., 2])
    if UNDECIDED not in values and ((values > _TRIMAP[0]) & (values < _TRIMAP[1])).any():
        raise InputError(f"{path}: {_listed(values)}; a trimap is undecided where it is 128")


def mask_kind(path: Path) -> MaskKind:
    """What the pixels of a mask are.

    Raises:
        InputError: missing, damaged, or not a mask.
    """
    colours, alpha = read_shown(path)
    light = on_black(colours, alpha)
    try:
        numbers = brightest(read_label_map(path))
        known = path.suffix.lower() not in LOSSY or {*distinct(light)} <= {0, 255}
    except InputError:  # no whole numbers: fractions, CMYK
        numbers, known = light, False
    is_number, is_bright = numbers != 0, light > HALF
    plain = alpha is None and one_colour(colours)
    coloured = colours.ndim > 2 and bool((brightest(colours) - (255 - brightest(255 - colours)) > _COLOURED).any())
    mapped = numbers.dtype == np.uint8 and not np.array_equal(numbers, light)  # by a palette, transparency, or 1 bit
    # Numbers need a background; where they are not what is seen, it must be black.
    known = known and (plain or (not is_number.all() and (not mapped or np.array_equal(is_number, light != 0))))
    one_bright = is_bright.any() and not is_bright.all() and not (coloured and mapped)
    blurred, areas = _edges(light)
    named = colours if coloured and not mapped else None
    values, shades = distinct(numbers), distinct(light)
    doubt = _other_meaning(values, shades, named)
    rules: tuple[str, ...] = next(
        found
        for holds, found in (
            (doubt, ()),
            (known and np.array_equal(is_number, is_bright), (_NUMBERS, _BRIGHT)),
            (known and (plain or not is_bright.any()), (_NUMBERS,)),
            (one_bright and (blurred or {*shades} == {0, 255}), (_BRIGHT,)),
            (known and areas, (_NUMBERS,)),
            (True, ()),
        )
        if holds
    )
    swapped = mapped and not plain and is_bright[~is_number].any() and (light[is_number] == 0).any()
    scattered = len(shades) > _FEW and (blurred or 2 * len(distinct(numbers[_blocks(numbers)])) < len(values))
    return MaskKind(
        path,
        rules,
        values if _NUMBERS in rules else shades,
        _listed(values) if named is None else _colours_listed(named),
        objects=int((is_number if _NUMBERS in rules else is_bright).sum()),
        pixels=light.size,
        doubt=doubt or ("" if rules else f"neither numbers on a background of 0 nor a bright object; set {_CHOICES}"),
        no_map=_BLURRED if scattered else _SWAPPED if swapped else "",
    )


def _other_meaning(numbers: Labels, shades: Labels, colours: ByteArray | None) -> str:
    """What else than objects some values mean to many, with the options that decide; "" if nothing."""
    middle = [shade for shade in shades if _TRIMAP[0] < shade < _TRIMAP[1]]
    if colours is None and len(middle) == 1 and {0, 255} <= {*shades} <= {0, 64, 255, *middle}:
        return "the middle is undecided in a trimap; set mode=trimap, or mask=nonzero or half"
    if colours is None:
        small, large = (numbers > 0) & (numbers < _LOW), (numbers >= _HIGH) & (numbers < VOID)
        void = VOID in numbers and small.any() and not large.any()
    else:
        void = (colours == _VOID_COLOUR).all(axis=2).any()
    return "255 is void in PascalVOC's palette; set void_255=true, or mask=nonzero or half" if void else ""


def _edges(light: ByteArray) -> tuple[bool, bool]:
    """Whether values between 0 and 255 are soft edges or noise of compression, and whether they are areas.

    Edges and noise hardly have blocks of 2 x 2 equal pixels, areas are made of them.
    """
    counts = np.bincount(light.ravel(), minlength=256)
    low, middle, high = counts[1:_LOW].sum(), counts[_LOW:_HIGH].sum(), counts[_HIGH:255].sum()
    between, top = low + middle + high, high + counts[255]
    share = _blocks(light)[(light > 0) & (light < 255)].sum() / max(between, 1)
    noisy = low and high and 4 * middle <= between
    soft = top and share <= 1 / 4 and middle <= min(top, light.size / 5) and np.count_nonzero(counts[1:255]) > 1
    return bool(noisy or soft), bool(share > 1 / 2 and (np.count_nonzero(counts) <= _FEW or not (low and top)))


def _blocks(values: Labels) -> BoolArray:
    """The pixels in blocks of 2 x 2 equal ones."""
    equal = (
        (values[1:, 1:] == values[:-1, :-1])
        & (values[1:, :-1] == values[:-1, 1:])
        & (values[1:, :-1] == values[1:, 1:])
    )
    block = np.zeros(values.shape, dtype=bool)
    for rows in (slice(1, None), slice(-1)):
        for columns in (slice(1, None), slice(-1)):
            block[rows, columns] |= equal
    return block


def _listed(values: Labels) -> str:
    few = ", ".join(map(str, values[:_FEW]))
    return f"values {few}" if len(values) <= _FEW else f"values {values[0]} to {values[-1]} ({len(values)} different)"


def _colours_listed(colours: ByteArray) -> str:
    codes = np.zeros(colours.shape[:2], dtype=np.int32)
    for channel in np.moveaxis(colours, 2, 0):
        codes <<= 8
        codes |= channel
    found = np.unique(codes)
    few = ", ".join(f"#{code:06x}" for code in found[:_FEW])
    return f"colours {few}" if len(found) <= _FEW else f"{len(found)} colours"
