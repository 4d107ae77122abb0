"""Parts: contiguous slices of a dataset's images, sampled on their own and put together afterwards."""

from __future__ import annotations

from disbench.core.errors import InputError


def slice_of(images: int, part: tuple[int, int]) -> range:
    """The images of a part: the i-th of n contiguous slices, whose sizes differ by one at most.

    Args:
        images: how many there are.
        part: (i, n), i from 1 to n.

    Raises:
        InputError: i is not from 1 to n.
    """
    number, parts = part
    if not 1 <= number <= parts:
        raise InputError(f"part {number} of {parts}: there is no such part; give i from 1 to n, such as 3/16")
    return range(images * (number - 1) // parts, images * number // parts)


def parse_part(text: str) -> tuple[int, int]:
    """The part that is written as i/n.

    Raises:
        InputError: not two whole numbers with i from 1 to n.
    """
    number, slash, parts = text.partition("/")
    if not (slash and all(word.isascii() and word.isdecimal() and len(word) < 10 for word in (number, parts))):
        raise InputError(f"part {text!r}: not i/n; give whole numbers with i from 1 to n, such as 3/16")
    part = int(number), int(parts)
    slice_of(0, part)
    return part
