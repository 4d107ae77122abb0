"""Clicks: where a person points, and what with."""

from __future__ import annotations

from typing import NamedTuple


class Click(NamedTuple):
    """One click on an image.

    Attributes:
        x: whole pixels to the right from the left edge, from 0.
        y: whole pixels down from the top edge, from 0.
        positive: True on the object, False on the background.
    """

    x: int
    y: int
    positive: bool
