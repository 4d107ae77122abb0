"""Tables and text as GitHub Markdown."""

from __future__ import annotations

import re
from typing import Any

from disbench.reports.render import Cell, Table, plain, template, visible

_ACTIVE = re.compile(r"([\\`*_\[\]<|~&$])")
_BLOCK = re.compile(r"^(?:[-+=>#]|\d+[.)](?=\s|$))")
"""Line starts that Markdown reads as a list, quotation, heading or rule."""

_EMPHASIS = {"": ("", ""), "best": ("**", "**"), "second": ("<u>", "</u>")}


def escape(text: object) -> str:
    r"""Text escaped for Markdown: one line, in a paragraph or a cell.

    >>> escape("a|b <i> max_side")
    'a\\|b \\<i> max\\_side'
    """
    escaped = _ACTIVE.sub(r"\\\1", plain(text))
    start = _BLOCK.match(escaped)
    if start is None:
        return escaped
    at = start.end() - 1
    return f"{escaped[:at]}\\{escaped[at:]}"


def code_block(text: str) -> str:
    """A fenced code block of any text."""
    shown = visible(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def table(content: Table) -> str:
    """One table per group of rows, with the caption above and the footnotes below."""
    lines = [escape(content.caption)]
    begins = sorted({0, *content.groups})
    for begin, end in zip(begins, [*begins[1:], len(content.rows)], strict=True):
        heading = content.groups.get(begin)
        lines += [
            *(["", f"**{escape(heading)}**"] if heading else []),
            "",
            _line(["<br>".join(map(escape, filter(None, (one.group, one.name)))) for one in content.columns]),
            _line(["---:" if column.number else "---" for column in content.columns]),
            *(_line([_cell(cell) for cell in row]) for row in content.rows[begin:end]),
        ]
    notes = [f"- {_marks((mark,))} {escape(text)}" for mark, text in content.footnotes.items()]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def render(name: str, **values: Any) -> str:
    """Render a Markdown template in `templates/`, with the filters `md`, `table` and `code`."""
    return template(name, {"md": escape, "table": table, "code": code_block}).render(values)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    interval = f" [{escape(cell.interval)}]" if cell.interval else ""
    before, behind = _EMPHASIS[cell.emphasis]
    rest = f" {escape(cell.behind)}" if cell.behind else ""
    text = f"{before}{escape(cell.text)}{behind}{rest}"
    return text + interval.replace("[", "\\[").replace("]", "\\]") + _marks(cell.marks)


def _marks(marks: tuple[str, ...]) -> str:
    return f"<sup>{', '.join(marks)}</sup>" if marks else ""
