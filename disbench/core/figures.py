"""Figures by matplotlib: the same bytes again for the same content, and lines of text that fit."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CANVASES: dict[str, tuple[str, str, dict[str, None]]] = {  # module, class, and the metadata that would change
    "png": ("agg", "Agg", {"Software": None}),
    "svg": ("svg", "SVG", {"Date": None, "Creator": None}),
    "pdf": ("pdf", "Pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
}
FORMS = tuple(_CANVASES)  # file formats of figures
MAX_LETTERS = 1000  # letters of a text that are drawn


@contextmanager
def own_style() -> Iterator[None]:
    """Draw with matplotlib's defaults: the user's own style would change the picture."""
    import warnings  # noqa: PLC0415

    import matplotlib as mpl  # noqa: PLC0415  (heavy)

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        mpl.rcdefaults()
        mpl.rcParams["svg.hashsalt"] = "disbench"
        mpl.rcParams["pdf.fonttype"] = 42  # letters that can be searched and edited
        mpl.rcParams["image.composite_image"] = False  # each picture at its own size
        mpl.rcParams["text.hinting"] = "none"  # a PNG's texts are as wide as an SVG's
        mpl.rcParams["text.parse_math"] = False
        yield


def saved(figure: Figure, form: str) -> bytes:
    """A figure as `png`, `svg` or `pdf`, without date and version."""
    module, name, metadata = _CANVASES[form]
    canvas: Any = getattr(import_module(f"matplotlib.backends.backend_{module}"), f"FigureCanvas{name}")
    file = io.BytesIO()
    getattr(canvas(figure), f"print_{form}")(file, metadata=metadata)
    return file.getvalue()


def fitted_lines(text: str, size: float, width: float, *, most: int = 4, weight: str = "normal") -> list[str]:
    """Text broken at spaces, hyphens and the like, a word that is too wide at any letter; an ellipsis ends a cut text.

    `size` of the letters in points, `width` of a line in inches, `most` lines; white space counts as one space.
    """
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415  (heavy)
    from matplotlib.textpath import text_to_path  # noqa: PLC0415

    font = FontProperties(size=size, weight=weight)

    def fits(line: str) -> bool:
        return bool(text_to_path.get_text_width_height_descent(line.rstrip(), font, False)[0] <= 72 * width)

    lines = [""]
    for word in re.findall(r"[^ _/,=-]*[_/,=-]* ?", " ".join(text[:MAX_LETTERS].split())):
        for part in [word] if fits(word) else word:
            if lines == [""] or fits(lines[-1] + part):
                lines[-1] += part
            else:
                lines.append(part)
    if len(lines) > most:
        last = lines[most - 1]
        while last and not fits(f"{last}…"):
            last = last[:-1]
        lines[most - 1 :] = [f"{last}…"]
    return [line.rstrip() for line in lines]
