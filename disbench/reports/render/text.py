"""Words and numbers as reports print them."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

DASH = "–"
"""Where there is no number."""
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Begin a formula; some spreadsheets also read the wide forms."""


def plain(text: object) -> str:
    """One line of printable characters."""
    return " ".join(visible(str(text)).split())


def visible(text: str) -> str:
    """The text without invisible characters (controls, text directions, surrogates) except spaces and line ends."""
    return "".join(char for char in text if char in "\n\t " or unicodedata.category(char) not in _INVISIBLE)


def option_value(value: Any) -> str:
    """The value of an option as the command line takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ..."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def counted(number: int, noun: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(texts: Sequence[str], most: int = 3) -> str:
    """The first texts, and how many more there are."""
    more = len(texts) - most
    return "; ".join(texts[:most]) + (f"; and {more} more" if more > 0 else "")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys below a heading; a text that would be a formula begins with an apostrophe."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _field(value) for key, value in row.items()})
    return file.getvalue()


def _field(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
