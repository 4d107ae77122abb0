"""Curves of mean IoU by click, in the manner of the paper's Figure 4: a panel a dataset, a curve a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disbench.core.arrays import FloatArray
from disbench.reports.figures.drawing import fitted_lines, own_style, saved, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
"""Panels beside each other, at most."""
# Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow that white swallows.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = (("o", 4.5), ("s", 4.5), ("^", 5.0), ("D", 4.2), ("v", 5.0), ("X", 5.5), ("P", 5.5), ("*", 8.0))
"""With sizes, in points, that look alike."""
LINES = ("-", "--", ":", "-.")

# Inches.
_WIDTH, _HEIGHT = 4.4, 3.0
_LEFT, _RIGHT, _TOP, _AXIS = 0.62, 0.15, 0.12, 0.55
_SAMPLE = 0.42
_GAP = 0.12
# Points.
_TITLE, _LABEL, _LEGEND, _NOTE = 10.0, 9.0, 8.0, 7.0
_LEADING = 1.35
_DPI = 150
_CLICKS = 20
"""The axis of a panel without curves."""
_MOST_MARKERS = 25


@dataclass(frozen=True)
class Curve:
    """A curve and what the legend says of it.

    Attributes:
        label: of the run; a long one is cut.
        remark: behind the label, never cut.
        values: (clicks,) mean IoU after click 1, 2, ...
        style: number of its colour, marker and line; the same method has the same in all panels.
    """

    label: str
    remark: str
    values: FloatArray
    style: int


@dataclass(frozen=True)
class Panel:
    """The curves of one dataset.

    Attributes:
        title: above.
        curves: where there are none, the panel says `not run`.
        notes: below the legend.
    """

    title: str
    curves: tuple[Curve, ...]
    notes: tuple[str, ...] = ()


def draw_curves(panels: Sequence[Panel]) -> tuple[bytes, bytes]:
    """The figure as PNG and as SVG; the same panels give the same bytes with the same matplotlib.

    Args:
        panels: at least one.
    """
    drawn = draw_as(panels, ("png", "svg"))
    return drawn["png"], drawn["svg"]


def draw_as(panels: Sequence[Panel], forms: Iterable[str], columns: int = COLUMNS) -> dict[str, bytes]:
    """The figure in some forms; the same panels give the same bytes with the same matplotlib.

    Args:
        panels: at least one.
        forms: some of `drawing.FORMS`.
        columns: panels beside each other, at most.
    """
    with own_style():
        figure = _draw(panels, columns)
        return {form: saved(figure, form) for form in forms}


@dataclass(frozen=True)
class _Texts:
    """A panel's texts, broken into lines that fit."""

    title: list[str]
    labels: list[list[str]]
    notes: list[list[str]]

    @property
    def title_height(self) -> float:
        return len(self.title) * _line_height(_TITLE) + 2 * _TOP

    @property
    def legend_height(self) -> float:
        labels = sum(map(len, self.labels)) * _line_height(_LEGEND)
        notes = sum(map(len, self.notes)) * _line_height(_NOTE)
        return labels + notes + _GAP * (2 if self.notes else 1)


def _draw(panels: Sequence[Panel], most: int) -> Figure:
    """Panels in a grid, each with its legend below; all places are reckoned in inches."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (heavy)

    texts = [_broken(panel) for panel in panels]
    columns = min(most, len(panels))
    rows = [range(at, min(at + columns, len(panels))) for at in range(0, len(panels), columns)]
    tops = [max(texts[i].title_height for i in row) for row in rows]
    bottoms = [max(texts[i].legend_height for i in row) for row in rows]
    height = sum(tops) + sum(bottoms) + len(rows) * (_HEIGHT + _AXIS)
    figure = Figure(figsize=(columns * _WIDTH, height), dpi=_DPI, facecolor="white")
    y = height
    for row, top, bottom in zip(rows, tops, bottoms, strict=True):
        for place, number in enumerate(row):
            _draw_panel(figure, panels[number], texts[number], place * _WIDTH, y - top)
        y -= top + _HEIGHT + _AXIS + bottom
    return figure


def _draw_panel(figure: Figure, panel: Panel, texts: _Texts, left: float, top: float) -> None:
    width, height = figure.get_size_inches()
    inner = _WIDTH - _LEFT - _RIGHT
    box = ((left + _LEFT) / width, (top - _HEIGHT) / height, inner / width, _HEIGHT / height)
    axes = figure.add_axes(box)
    for curve in panel.curves:
        _plot(axes, range(1, len(curve.values) + 1), curve.values, curve.style)
    _decorate(axes, panel)
    _write(figure, texts.title, left + _LEFT + inner / 2, top + texts.title_height - _TOP, _TITLE, ha="center")
    y = top - _HEIGHT - _AXIS
    for curve, lines in zip(panel.curves, texts.labels, strict=True):
        _legend_sample(figure, left + _LEFT / 2, y - _line_height(_LEGEND) / 2, curve.style)
        y = _write(figure, lines, left + _LEFT / 2 + _SAMPLE, y, _LEGEND)
    y -= _GAP / 2
    for lines in texts.notes:
        y = _write(figure, lines, left + _LEFT / 2, y, _NOTE, color="#333333")


def _plot(axes: Axes, clicks: Sequence[int], values: FloatArray | list[float], style: int) -> None:
    every = math.ceil(len(values) / _MOST_MARKERS)
    axes.plot(clicks, values, markevery=every, clip_on=False, zorder=3, **_look(style))


def _look(style: int) -> dict[str, Any]:
    """Colour, line and marker."""
    marker, size = MARKERS[style % len(MARKERS)]
    return {
        "color": COLOURS[style % len(COLOURS)],
        "marker": marker,
        "linestyle": LINES[style // len(COLOURS) % len(LINES)],
        "linewidth": 1.3,
        "markersize": size,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def _decorate(axes: Axes, panel: Panel) -> None:
    longest = max((len(curve.values) for curve in panel.curves), default=_CLICKS)
    if not panel.curves:
        axes.text(
            *(0.5, 0.5, "not run"),
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=_TITLE,
            color="#333333",
        )
    values = [value for curve in panel.curves for value in curve.values if not math.isnan(value)]
    low = math.floor(min(values, default=0.0) * 20 - 0.2) / 20
    high = math.ceil(max(values, default=1.0) * 20 + 0.2) / 20
    axes.set_ylim(max(0.0, low), min(1.0, high))
    axes.set_xlim(0.5, longest + 0.5)
    step = 1 if longest <= 10 else 5 if longest <= 40 else 20
    axes.set_xticks(sorted({1, *range(step, longest + 1, step)}))
    axes.set_xlabel("Number of clicks", fontsize=_LABEL)
    axes.set_ylabel("Mean IoU", fontsize=_LABEL)
    axes.tick_params(labelsize=_LEGEND)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend_sample(figure: Figure, left: float, middle: float, style: int) -> None:
    """A piece of the curve before its name."""
    from matplotlib.lines import Line2D  # noqa: PLC0415  (heavy)

    width, height = figure.get_size_inches()
    ends = [left / width, (left + _SAMPLE - 0.1) / width]
    y, look = middle / height, _look(style)
    for xs, without in ((ends, {"marker": ""}), ([sum(ends) / 2], {})):
        line = Line2D(xs, [y] * len(xs), transform=figure.transFigure, **{**look, **without})
        figure.add_artist(line)


def _write(figure: Figure, lines: Sequence[str], left: float, top: float, size: float, **how: Any) -> float:
    """Write lines downwards from the top; the place below them."""
    width, height = figure.get_size_inches()
    for line in lines:
        top -= _line_height(size)
        y = (top + 0.28 * size / 72) / height
        figure.text(left / width, y, line, fontsize=size, va="baseline", parse_math=False, **how)
    return top


def _line_height(size: float) -> float:
    """Inches."""
    return _LEADING * size / 72


def _broken(panel: Panel) -> _Texts:
    inner = _WIDTH - _LEFT / 2 - _RIGHT
    return _Texts(
        fitted_lines(panel.title, _TITLE, _WIDTH - _LEFT - _RIGHT),
        [_label(curve, inner - _SAMPLE) for curve in panel.curves],
        [fitted_lines(note, _NOTE, inner) for note in panel.notes],
    )


def _label(curve: Curve, width: float) -> list[str]:
    *lines, last = fitted_lines(curve.label, _LEGEND, width)
    whole = f"{last}  {curve.remark}"
    return [*lines, whole] if text_width(whole, _LEGEND) <= width else [*lines, last, curve.remark]
