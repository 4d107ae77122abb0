"""The figure of ambiguity: coverage against candidates kept, and clicks to be understood by what is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from disbench.reports.ambiguity.numbers import FAMILIES, Intents, Numbers
from disbench.reports.ambiguity.tables import by_sets
from disbench.reports.figures.curves import COLOURS, LINES, MARKERS
from disbench.reports.figures.drawing import fitted_lines, own_style, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE = "Coverage against candidates kept; clicks to be understood"
"""What the figure shows."""
_WIDTH, _HEIGHT, _LEGEND_LINE = 4.6, 3.3, 0.17
_SOLVED = 90
_COLUMNS = 3


def draw_ambiguity(runs: Sequence[Numbers], intents: Sequence[Intents]) -> dict[str, bytes]:
    """The figure as `png` and `svg`: a panel for each dataset and kind of run.

    Args:
        runs: of the diverse task.
        intents: on each intent; one of the two at least has a run.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (heavy)

    labels = list(dict.fromkeys([*(run.who.label for run in runs), *(run.who.label for run in intents)]))
    styles = {label: number for number, label in enumerate(labels)}
    panels: list[tuple[Callable[..., None], Sequence[Any]]] = [
        *((_coverage, group) for group in by_sets(runs)),
        *((_clicks, group) for group in by_sets(intents)),
    ]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    below = 0.62 + _LEGEND_LINE * (2 + max(len(group) for _, group in panels))
    with own_style():
        figure = Figure(figsize=(columns * _WIDTH, rows * (_HEIGHT + below)), dpi=150, facecolor="white")
        width, height = figure.get_size_inches()
        for number, (draw, group) in enumerate(panels):
            row, column = divmod(number, columns)
            left, bottom = column * _WIDTH + 0.6, height - (row + 1) * (_HEIGHT + below) + below
            axes = figure.add_axes((left / width, bottom / height, (_WIDTH - 0.8) / width, (_HEIGHT - 0.5) / height))
            draw(axes, group, styles)
        return {form: saved(figure, form) for form in ("png", "svg")}


def _coverage(axes: Axes, runs: Sequence[Numbers], styles: Mapping[str, int]) -> None:
    longest = max(len(run.oracle) for run in runs)
    for run in runs:
        look = _look(styles[run.who.label])
        kept = range(1, len(run.oracle) + 1)
        axes.plot(kept, run.oracle, **{**look, "linestyle": ":", "markerfacecolor": "white"}, clip_on=False)
        if run.own is not None:
            axes.plot(kept, run.own, **look, label=f"{run.who.label}  {run.coverage.mean:.3f}", clip_on=False)
        else:
            axes.plot([], [], **look, label=f"{run.who.label}  {run.coverage.mean:.3f} (no score)")
    axes.set_xlim(0.7, longest + 0.3)
    axes.set_xticks(range(1, longest + 1))
    axes.set_xlabel("Candidates kept", fontsize=9)
    axes.set_ylabel("Coverage", fontsize=9)
    _finish(axes, runs[0], "solid: the method's own score; dotted: an oracle")


def _clicks(axes: Axes, runs: Sequence[Intents], styles: Mapping[str, int]) -> None:
    names = [name for name in FAMILIES if any(name in run.by_relation for run in runs)]
    for number, run in enumerate(runs):
        shift = 0.6 * ((number + 0.5) / len(runs) - 0.5)
        there = [(at, run.by_relation[name].noc[_SOLVED]) for at, name in enumerate(names) if name in run.by_relation]
        hollow = {"markerfacecolor": "white"} if run.selection == "score" else {}
        axes.errorbar(
            [at + shift for at, _ in there],
            [found.mean for _, found in there],
            yerr=[
                [max(0.0, found.mean - found.low) for _, found in there],
                [max(0.0, found.high - found.mean) for _, found in there],
            ],
            label=f"{run.who.label}, {run.selection}  {run.all.noc[_SOLVED].mean:.2f}",
            **{**_look(styles[run.who.label]), "linestyle": "", "markeredgecolor": None, **hollow},
            capsize=2,
        )
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel(f"NoC@{_SOLVED}", fontsize=9)
    axes.set_xlabel("What the first click means", fontsize=9)
    _finish(axes, runs[0], "hollow: selection by score")


def _finish(axes: Axes, run: Numbers | Intents, note: str) -> None:
    title = fitted_lines(f"{run.who.dataset} ({run.who.content_hash[:8]})", 10, _WIDTH - 0.8, most=2)
    axes.set_title("\n".join(title), fontsize=10, parse_math=False)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.12, -0.17),
        fontsize=8,
        frameon=False,
        title=note,
        title_fontsize=8,
        alignment="left",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _look(style: int) -> dict[str, Any]:
    """Colour, line and marker."""
    marker, size = MARKERS[style % len(MARKERS)]
    colour = COLOURS[style % len(COLOURS)]
    return {
        "color": colour,
        "marker": marker,
        "markersize": size,
        "linestyle": LINES[style // len(COLOURS) % len(LINES)],
        "linewidth": 1.3,
    }
