"""The one type of table behind Markdown, LaTeX, HTML and the terminal, and its form as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from disbench.reports.render.text import plain

Emphasis = Literal["", "best", "second"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading: of a group of columns, and its own.

    Attributes:
        name: its own.
        group: "" or what it shares with its neighbours.
        number: set flush right.
    """

    name: str
    group: str = ""
    number: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell.

    Attributes:
        text: unescaped, one line.
        marks: of footnotes.
        interval: "" or the ends of an interval, to be set smaller where that can be done.
        emphasis: the best of its column is set bold, the second best underlined.
        behind: "" or what follows the text without its emphasis.
        value: the number itself, for sorting; None where the text is sorted.
        ends: of the interval; empty without one.
    """

    text: str
    marks: tuple[str, ...] = ()
    interval: str = ""
    emphasis: Emphasis = ""
    behind: str = ""
    value: float | None = None
    ends: tuple[float, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table that has only to be set.

    Attributes:
        name: of letters, digits and hyphens.
        title: names the dataset and its content hash.
        caption: what holds for all rows.
        columns: headings.
        rows: a cell a column.
        footnotes: mark -> text.
        groups: number of a row -> what the rows from there on have in common.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footnotes: Mapping[str, str]
    groups: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Footnotes:
    """The footnotes of a table while it grows: the same text gets the same mark.

    Attributes:
        texts: text -> mark.
    """

    texts: dict[str, str] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        """The mark of a text: a, b, ... z, aa, ab, ..."""
        return self.texts.setdefault(text, _letters(len(self.texts)))

    def marks(self, *texts: str) -> tuple[str, ...]:
        """The marks of those that are no empty text."""
        return tuple(self.mark(text) for text in texts if text)

    def by_mark(self) -> dict[str, str]:
        """Mark -> text, in the order of the marks."""
        return {mark: text for text, mark in self.texts.items()}


def as_text(content: Table) -> str:
    """A table with aligned columns, and its footnotes below.

    Args:
        content: title and caption are left out.
    """
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
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
