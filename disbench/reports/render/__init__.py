"""Text, numbers and tables, ready for Markdown, LaTeX, HTML, CSV or the terminal; templates."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jinja2 import Template

Picture = tuple[str, bytes]
"""A caption, and an image as PNG or WebP."""


def text_of(name: str) -> str:
    """The text of a file in `templates/`."""
    return resources.files("disbench.reports").joinpath("templates", name).read_text(encoding="utf-8")


def template(name: str, filters: Mapping[str, Callable[..., Any]] | None = None, **options: Any) -> Template:
    """A template in `templates/`; `options` are those of `jinja2.Environment`."""
    import jinja2  # noqa: PLC0415  (heavy)

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined, **options
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters.update(filters or {})
    return environment.from_string(text_of(name))


DASH = "–"
"""Shown in place of a missing number."""
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Characters that start a formula; some spreadsheets also accept the full-width forms."""


def plain(text: object) -> str:
    """One line of printable characters."""
    return " ".join(visible(str(text)).split())


def visible(text: str) -> str:
    """The text without invisible characters (control, bidirectional, surrogate), except spaces, tabs and newlines."""
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
    """The first texts, and the number of further ones."""
    more = len(texts) - most
    return "; ".join(texts[:most]) + (f"; and {more} more" if more > 0 else "")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a header, from rows with the same keys; strings that look like formulas get a leading apostrophe."""
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


Emphasis = Literal["", "best", "second"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and group heading; numbers are aligned right."""

    name: str
    group: str = ""
    number: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: one line of text, not escaped; `behind` follows it without emphasis.

    `value` is the sort key on a page (None sorts by text); `interval` is printed smaller, with (low, high) `ends`.
    """

    text: str
    marks: tuple[str, ...] = ()
    interval: str = ""
    emphasis: Emphasis = ""
    behind: str = ""
    value: float | None = None
    ends: tuple[float, ...] = ()


def number_cell(
    value: float, text: Callable[[float], str], ends: Sequence[float] = (), marks: tuple[str, ...] = ()
) -> Cell:
    """A number, with its interval if `ends` are given."""
    return Cell(text(value), marks, ", ".join(map(text, ends)), value=value, ends=tuple(ends))


@dataclass(frozen=True)
class Table:
    """A table; `name` has letters, digits and hyphens, `footnotes` are mark -> text, `groups` row -> heading above."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footnotes: Mapping[str, str]
    groups: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Footnotes:
    """The footnotes of a table under construction, text -> mark; equal texts share a mark."""

    texts: dict[str, str] = field(default_factory=dict)

    def marks(self, *texts: str) -> tuple[str, ...]:
        """The marks of the non-empty texts: a, b, ... z, aa, ab, ..."""
        return tuple(self.texts.setdefault(text, _letters(len(self.texts))) for text in texts if text)

    def by_mark(self) -> dict[str, str]:
        """Mark -> text, in the order of the marks."""
        return {mark: text for text, mark in self.texts.items()}


def as_text(content: Table) -> str:
    """Aligned columns and footnotes, without title and caption."""
    heads = [f"{column.group} {column.name}".strip() for column in content.columns]
    lines = [heads, *([_cell(cell) for cell in row] for row in content.rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    texts = [
        "  ".join(
            text.rjust(width) if column.number else text.ljust(width)
            for text, width, column in zip(line, widths, content.columns, strict=True)
        ).rstrip()
        for line in lines
    ]
    notes = [f"[{mark}] {plain(text)}" for mark, text in content.footnotes.items()]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:], *notes])


def _cell(cell: Cell) -> str:
    interval = f" [{plain(cell.interval)}]" if cell.interval else ""
    marks = f" [{', '.join(cell.marks)}]" if cell.marks else ""
    return plain(cell.text) + interval + marks


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    text = ""
    while number >= 0:
        number, digit = divmod(number, 26)
        text, number = chr(ord("a") + digit) + text, number - 1
    return text
