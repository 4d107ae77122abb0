"""Panels of curves or points, one per dataset, with legends below."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from disbench.core.arrays import FloatArray
from disbench.core.sheets import default_style, encode_figure, wrap_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
"""Maximum panels per row."""
# Okabe and Ito's palette for colour-blind readers, without yellow, which is invisible on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = (("o", 4.5), ("s", 4.5), ("^", 5.0), ("D", 4.2), ("v", 5.0), ("X", 5.5), ("P", 5.5), ("*", 8.0))
"""Markers, with the sizes in points at which they look equally large."""
LINES = ("-", "--", ":", "-.")

_WIDTH, _HEIGHT, _AXIS, _PAD = 4.4, 3.0, 0.55, 0.1  # inches: panel width, axes height, labels below the axes, padding
_LEGEND_LEFT, _SAMPLE = 0.45, 0.35  # inches: legend offset to the left of the axes, width of a curve sample
_TITLE, _LABEL, _LEGEND, _NOTE = 10.0, 9.0, 8.0, 7.0  # points
_LEADING = 1.45
_DPI = 150
_MOST_MARKERS = 25


@dataclass(frozen=True)
class Curve:
    """A curve and its legend.

    Attributes:
        label: wrapped, and truncated if very long; the remark after it is never truncated.
        values: float (n,), y at x = 1, 2, ...
        style: index of the colour, marker and line style.
        bound: a second curve, dotted with hollow markers.
        spread: (2, n) lengths of error bars below and above; draws points instead of a curve.
    """

    label: str
    remark: str
    values: FloatArray
    style: int
    bound: FloatArray | None = None
    spread: FloatArray | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Panel:
    """The curves of one dataset (none: `not run`) with notes below the legend; `names` replace the ticks 1, 2, ..."""

    title: str
    curves: tuple[Curve, ...]
    notes: tuple[str, ...] = ()
    x_label: str = "Number of clicks"
    y_label: str = "Mean IoU"
    names: tuple[str, ...] = ()


def draw_curves(
    panels: Sequence[Panel], forms: Iterable[str] = ("png", "svg"), columns: int = COLUMNS
) -> dict[str, bytes]:
    """Draw at least one panel: form (one of `disbench.core.sheets.FIGURE_FORMATS`) -> bytes, deterministic."""
    with default_style():
        figure = _draw(panels, min(columns, len(panels)))
        return {form: encode_figure(figure, form) for form in forms}


def _draw(panels: Sequence[Panel], columns: int) -> Figure:
    """Panels in a grid; the longest legend in a row sets the row's height."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (heavy)
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    figure = Figure(dpi=_DPI, facecolor="white")
    rows = -(-len(panels) // columns)
    places = [figure.add_subplot(rows, columns, number) for number in range(1, len(panels) + 1)]
    heights = list(map(_draw_panel, places, panels))
    highest = [max(heights[first : first + columns]) for first in range(0, len(heights), columns)]
    figure.set_size_inches(columns * _WIDTH, sum(highest) + rows * (_HEIGHT + _AXIS + 2 * _PAD))
    ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD, wspace=0, hspace=0).execute(figure)  # once for all forms
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> float:
    """Draw a panel; returns the height of its title and legend in inches."""
    from matplotlib.lines import Line2D  # noqa: PLC0415  (heavy)
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415

    for place, curve in enumerate(panel.curves):
        _plot(axes, curve, 0.6 * ((place + 0.5) / len(panel.curves) - 0.5))
    _format_axes(axes, panel)
    title = wrap_text(panel.title, _TITLE, _WIDTH - 1)
    axes.set_title("\n".join(title), fontsize=_TITLE)
    width = _WIDTH - 2 * _PAD - _SAMPLE - 0.25
    labels = [_label(curve, width) for curve in panel.curves]
    notes = ["\n".join(wrap_text(note, _NOTE, width)) for note in panel.notes]
    samples = [Line2D([], [], **_line_style(curve)) for curve in panel.curves]
    legend = axes.legend(
        [*samples, *(Line2D([], [], linestyle="none") for _ in notes)],
        [*labels, *notes],
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(-_LEGEND_LEFT, -_AXIS, axes.figure.dpi_scale_trans),
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.3,
        handlelength=72 * _SAMPLE / _LEGEND,
        handletextpad=0.6,
        frameon=False,
        fontsize=_LEGEND,
    )
    for text in legend.get_texts()[len(labels) :]:
        text.set(fontsize=_NOTE, color="#333333")
    lines = [text.count("\n") + 1 for text in (*labels, *notes)]
    return (len(title) * _TITLE + sum(lines) * _LEGEND) * _LEADING / 72


def _plot(axes: Axes, curve: Curve, shift: float) -> None:
    look, xs = _line_style(curve), np.arange(1, len(curve.values) + 1)
    if curve.spread is not None:
        axes.errorbar(xs + shift, curve.values, yerr=curve.spread, capsize=2, **look)
        return
    every = max(1, math.ceil(len(xs) / _MOST_MARKERS))
    axes.plot(xs, curve.values, markevery=every, clip_on=False, zorder=3, **look)
    if curve.bound is not None:
        hollow = {"markerfacecolor": "white", "markeredgecolor": look["color"], "markeredgewidth": 1.0}
        look |= {"linestyle": ":", **hollow}
        axes.plot(np.arange(1, len(curve.bound) + 1), curve.bound, clip_on=False, **look)


def _line_style(curve: Curve) -> dict[str, Any]:
    marker, size = MARKERS[curve.style % len(MARKERS)]
    colour = COLOURS[curve.style % len(COLOURS)]
    return {
        "color": colour,
        "marker": marker,
        "linestyle": LINES[curve.style // len(COLOURS) % len(LINES)] if curve.spread is None else "none",
        "linewidth": 1.3,
        "markersize": size,
        "markerfacecolor": "white" if curve.hollow else colour,
        "markeredgecolor": colour if curve.hollow else "white",
        "markeredgewidth": 1.0 if curve.hollow else 0.4,
    }


def _format_axes(axes: Axes, panel: Panel) -> None:
    drawn = [values for curve in panel.curves for values in (curve.values, curve.bound) if values is not None]
    longest = max(map(len, drawn), default=20)
    if not panel.curves:
        how = {"ha": "center", "va": "center", "fontsize": _TITLE, "color": "#333333"}
        axes.text(0.5, 0.5, "not run", transform=axes.transAxes, **how)  # type: ignore[arg-type]
    axes.set_xlim(0.5, longest + 0.5)
    if panel.names:
        axes.set_xticks(range(1, longest + 1), panel.names)
    else:
        step = 1 if longest <= 10 else 5 if longest <= 40 else 20
        axes.set_xticks(sorted({1, *range(step, longest + 1, step)}))
        axes.set_ylim(*_limits(drawn))
    axes.set_xlabel(panel.x_label, fontsize=_LABEL)
    axes.set_ylabel(panel.y_label, fontsize=_LABEL)
    axes.tick_params(labelsize=_LEGEND)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _limits(curves: Sequence[FloatArray]) -> tuple[float, float]:
    """Multiples of 0.05 in [0, 1] around all values."""
    values = [value for curve in curves for value in curve if not math.isnan(value)]
    low = math.floor(min(values, default=0.0) * 20 - 0.2) / 20
    high = math.ceil(max(values, default=1.0) * 20 + 0.2) / 20
    return max(0.0, low), min(1.0, high)


def _label(curve: Curve, width: float) -> str:
    lines = wrap_text(curve.label, _LEGEND, width)
    whole = f"{lines[-1]}  {curve.remark}"
    gap = "  " if len(wrap_text(whole, _LEGEND, width)) == 1 else "\n"
    return "\n".join(lines) + gap + curve.remark
