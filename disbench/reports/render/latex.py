r"""Tables as LaTeX for `\input`, using the packages booktabs and graphicx."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby

from disbench.reports.render import DASH, Cell, Column, Table, plain

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "'": "{'}",  # two of these, or two backticks, would become a quotation mark
    "`": "{`}",
    "×": r"\(\times\)",
    "−": r"\(-\)",
    "↑": r"\(\uparrow\)",
    "↓": r"\(\downarrow\)",
    DASH: "--",
    "-": "{-}",  # two would become a dash
    "[": "{[}",  # after a row's \\ it would start an optional argument
    "]": "{]}",
    "*": "{*}",
}
_EMPHASIS = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
_ANY = re.compile("|".join(map(re.escape, _SPECIAL)))
_HEAD = r"""% {name}
\begin{{table*}}
\centering
\caption{{{title}. {caption}}}
\label{{tab:{name}}}
\footnotesize
\resizebox{{\ifdim\width>\textwidth\textwidth\else\width\fi}}{{!}}{{%
\begin{{tabular}}{{{columns}}}
\toprule"""
_TAIL = r"""\bottomrule
\end{{tabular}}%
}}{notes}
\end{{table*}}"""


def escape(text: object) -> str:
    r"""Text escaped for LaTeX.

    >>> escape("50 % of max_side")
    '50 \\% of max\\_side'
    """
    return _ANY.sub(lambda found: _SPECIAL[found.group()], plain(text))


def document(tables: Mapping[str, Table]) -> str:
    """A LaTeX file of tables, by label."""
    texts = [table(one, name) for name, one in tables.items()]
    return "% Needs the packages booktabs and graphicx.\n" + "\n\n".join(texts) + "\n"


def table(content: Table, name: str) -> str:
    """A `table*` with the label `tab:NAME`, footnotes below."""
    head = _HEAD.format(
        name=name,
        title=escape(content.title),
        caption=escape(content.caption),
        columns="".join("r" if column.number else "l" for column in content.columns),
    )
    rows: list[str] = []
    for number, row in enumerate(content.rows):
        rows += _group(content, number)
        rows.append(_row([_cell(cell) for cell in row]))
    notes = [
        f"\n\\par\\smallskip\\raggedright {_marks((mark,))} {escape(text)}\\par"
        for mark, text in content.footnotes.items()
    ]
    return "\n".join([head, *_headings(content.columns), r"\midrule", *rows, _TAIL.format(notes="".join(notes))])


def _headings(columns: tuple[Column, ...]) -> list[str]:
    names = _row([escape(column.name) for column in columns])
    if not any(column.group for column in columns):
        return [names]
    spans: list[str] = []
    rules: list[str] = []
    at = 1
    for group, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
        if group:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    return [_row(spans), "".join(rules), names]


def _group(content: Table, row: int) -> list[str]:
    """The heading of the group that starts at a row, if any."""
    if row not in content.groups:
        return []
    heading = rf"\multicolumn{{{len(content.columns)}}}{{l}}{{\emph{{{escape(content.groups[row])}}}}} \\"
    return [*([r"\midrule"] if row else []), heading, r"\addlinespace"]


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    interval = rf" {{\scriptsize {escape(f'[{cell.interval}]')}}}" if cell.interval else ""
    rest = f" {escape(cell.behind)}" if cell.behind else ""
    return _EMPHASIS[cell.emphasis].format(escape(cell.text)) + rest + interval + _marks(cell.marks)


def _marks(marks: tuple[str, ...]) -> str:
    return rf"\textsuperscript{{{', '.join(marks)}}}" if marks else ""
