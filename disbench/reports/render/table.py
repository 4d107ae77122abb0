"""Tables, before they become Markdown, LaTeX, HTML or plain text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from disbench.reports.render.text import plain

Emphasis = Literal["", "best", "second"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and its group's; numbers are aligned right."""

    name: str
    group: str = ""
    number: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell.

    Attributes:
        text: one line, not escaped.
        interval: the text of an interval, printed smaller where possible.
        emphasis: the best of a column is bold, the second best underlined.
        behind: follows the text without emphasis.
        value: the number by which a page sorts; None sorts by text.
        ends: low and high end of the interval.
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
    """A table.

    Attributes:
        name: letters, digits and hyphens.
        footnotes: mark -> text.
        groups: index of a row -> heading of the rows from there on.
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
    """The footnotes of a growing table, text -> mark: the same text gets the same mark."""

    texts: dict[str, str] = field(default_factory=dict)

    def marks(self, *texts: str) -> tuple[str, ...]:
        """The marks of the texts that are not empty: a, b, ... z, aa, ab, ..."""
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
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
