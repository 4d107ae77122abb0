"""What all figures share: files of the same bytes again, and texts that fit."""

from __future__ import annotations

import bisect
import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
_MOST_LETTERS = 1000  # far more than a few lines hold
_CANVASES = {"png": ("agg", "Agg"), "svg": ("svg", "SVG"), "pdf": ("pdf", "Pdf")}
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMS = tuple(_CANVASES)
"""Forms of a figure's file."""


@contextmanager
def own_style() -> Iterator[None]:
    """Draw with matplotlib's defaults: a user's own style would change the picture."""
    import warnings  # noqa: PLC0415

    import matplotlib as mpl  # noqa: PLC0415  (heavy)

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box; the tables have the name
        mpl.rcdefaults()
        mpl.rcParams["svg.hashsalt"] = "disbench"
        mpl.rcParams["pdf.fonttype"] = 42  # letters that can be searched and edited
        mpl.rcParams["image.composite_image"] = False  # each picture at its own size
        yield


def saved(figure: Figure, form: str) -> bytes:
    """A figure as `png`, `svg` or `pdf`, without the date and the program's version, which would change the bytes."""
    from importlib import import_module  # noqa: PLC0415

    module, name = _CANVASES[form]
    canvas: Any = getattr(import_module(f"matplotlib.backends.backend_{module}"), f"FigureCanvas{name}")
    file = io.BytesIO()
    getattr(canvas(figure), f"print_{form}")(file, metadata=_METADATA[form])
    return file.getvalue()


def fitted_lines(text: str, size: float, width: float, *, most: int = 4, weight: str = "normal") -> list[str]:
    """Text in lines that fit; a word that is too wide is cut, and so are too many lines.

    Args:
        text: one line.
        size: of the letters, points.
        width: of a line, inches.
        most: lines, at least 1.
        weight: of the letters.
    """
    lines, line = [], ""
    for word in text[:_MOST_LETTERS].split():
        longer = f"{line} {word}" if line else word
        if text_width(longer, size, weight) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *full, line = _pieces(word, size, width, weight)
        lines += full
    lines.append(line)
    if len(lines) <= most:
        return lines
    last = f"{lines[most - 1]} {lines[most]}"
    return [*lines[: most - 1], f"{_pieces(last, size, width - size / 72, weight)[0]}…"]


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Of one line, inches, in the picture where it is wider: the PNG's letters stand on whole pixels."""
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415  (heavy)
    from matplotlib.textpath import text_to_path  # noqa: PLC0415  (heavy)

    font = FontProperties(size=size, weight=weight)
    pixels = _renderer().get_text_width_height_descent(text, font, ismath=False)[0]
    points = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return float(max(pixels / _DPI, points / 72))


def _pieces(word: str, size: float, width: float, weight: str) -> list[str]:
    """A word in pieces that fit, cut behind a hyphen or the like where one is near the end."""
    pieces = []
    while len(word) > 1 and text_width(word, size, weight) > width:
        ends = range(1, len(word))
        at = max(1, bisect.bisect_right(ends, width, key=lambda end: text_width(word[:end], size, weight)))
        joint = max(word.rfind(char, 0, at) for char in " -_/,=") + 1
        at = joint if joint > at / 2 else at
        pieces.append(word[:at])
        word = word[at:]
    return [*pieces, word]


@functools.cache
def _renderer() -> Any:
    from matplotlib.backends.backend_agg import RendererAgg  # noqa: PLC0415  (heavy)

    renderer: Any = RendererAgg  # matplotlib leaves this class without types
    return renderer(1, 1, _DPI)
