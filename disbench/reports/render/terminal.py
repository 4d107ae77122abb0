"""Tables as plain text, for a terminal."""

from __future__ import annotations

from disbench.reports.render.text import plain
from disbench.reports.table import Cell, Table


def table(content: Table) -> str:
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
