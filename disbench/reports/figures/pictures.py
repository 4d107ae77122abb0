"""Sheets of pictures: photographs with a mask, a target and clicks, readable without telling colours apart.

A mask is a blue area with a white rim; the target is a dashed line, yellow and black; ignored pixels are
hatched. Positive clicks are white discs, negative ones black squares, both with their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.painting import BLUE, WHITE, RgbImage, coverage, dashed, fitted, hatched, resized, tinted
from disbench.core.samples import Target
from disbench.reports.figures.drawing import FORMS, fitted_lines, own_style, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGEND = (
    "Blue area: the method's mask. Dashed line, yellow and black: the target. Grey stripes: ignored pixels. White "
    "disc: positive click, black square: negative click, the last one larger; numbers tell their order, and 3+ stands "
    "for click 3 and later ones at the same place. A rectangle on an image: the part that the others enlarge."
)
"""What a sheet's drawing means."""
TALLEST = 1.3
"""Height of a picture over the width of its place, at most."""
MAX_HEIGHT = 60_000
"""Of a PNG, pixels: beyond it few programs open one."""
Marks = Literal["numbers", "dots", "first"]
Window = tuple[int, int, int, int]
"""Part of an image: left, top, right, bottom in pixels, right and bottom not in it."""
_DARK = "#1A1A1A"
_YELLOW = "#F0E442"
_GREY = 0.75
"""How far a photograph under a mask is turned to grey."""
_LEADING = 1.35
_RINGS, _DIRECTIONS = 6, 12
_LEAST_SHARE, _MOST_SHARE, _LEAST_PIXELS = 0.12, 0.7, 24
"""Side of an enlarged part: as a share of the image's, at least and at most; in pixels, at least."""


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: above it, one line.
        remark: a line below the title, smaller.
        image: uint8 (height, width, 3), RGB.
        target: int8 (height, width): 1 object, 0 background, -1 ignored; None: not drawn.
        mask: boolean (height, width); None: not drawn.
        clicks: in their order.
        marks: how clicks are drawn: with numbers, as small marks whose last is ringed, or the first alone as a
            yellow dot.
        absent: "" or why there is no mask where one belongs; written into its lower left corner.
        framed: whether a thick frame sets the picture off.
        window: the part of the image that is shown, enlarged, of the image's own aspect; None: all of it.
        outlined: a part that the picture gets a rectangle around, or None.
    """

    title: str
    image: RgbImage
    remark: str = ""
    target: Target | None = None
    mask: BoolArray | None = None
    clicks: tuple[Click, ...] = ()
    marks: Marks = "numbers"
    absent: str = ""
    framed: bool = False
    window: Window | None = None
    outlined: Window | None = None

    @property
    def shown(self) -> Window:
        """The part of the image that is shown."""
        return self.window or (0, 0, self.image.shape[1], self.image.shape[0])


@dataclass(frozen=True)
class Strip:
    """Pictures that belong together, all of one image.

    Attributes:
        title: above them; a long one is broken.
        rows: of pictures, at least one; None leaves a place empty.
    """

    title: str
    rows: tuple[tuple[Panel | None, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """All that is drawn, and how large.

    Attributes:
        heading: of the sheet.
        texts: paragraphs below the heading.
        strips: at least one.
        place: width of a picture's place, inches.
        dpi: pixels an inch.
        letters: size of the letters, points.
    """

    heading: str
    texts: tuple[str, ...]
    strips: tuple[Strip, ...]
    place: float = 3.0
    dpi: int = 110
    letters: float = 9.0

    @property
    def columns(self) -> int:
        """Places beside each other."""
        return max(len(row) for strip in self.strips for row in strip.rows)


def draw_sheet(sheet: Sheet, forms: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """A sheet as files: `png`, `svg`, `pdf`; the same sheet gives the same bytes with the same matplotlib.

    Raises:
        ValueError: a form that is none, no pictures, or a sheet so high that few programs could open it.
    """
    if unknown := set(forms).difference(FORMS):
        raise ValueError(f"forms of a figure are {', '.join(FORMS)}, not {', '.join(sorted(unknown))}")
    if not sheet.strips or not sheet.columns:
        raise ValueError("a sheet has at least one picture")
    with own_style():
        painter = _Painter(sheet)
        return {form: saved(painter.paint(), form) for form in forms}


def painted(panel: Panel, size: tuple[int, int], dash: int = 5) -> RgbImage:
    """A panel's picture without its clicks.

    Args:
        panel: image, target and mask of one height and width.
        size: (width, height) of the picture, pixels.
        dash: length of the target's dashes, pixels.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: a target or a mask of another size than the image's.
    """
    for drawn in (panel.target, panel.mask):
        if drawn is not None and drawn.shape != panel.image.shape[:2]:
            raise ValueError(f"a mask of {drawn.shape} on an image of {panel.image.shape[:2]}")
    left, top, right, bottom = panel.shown
    part = (slice(top, bottom), slice(left, right))
    picture = resized(panel.image[part], size)
    mask, target = (None if whole is None else whole[part] for whole in (panel.mask, panel.target))
    if mask is not None or panel.absent:
        grey = picture.mean(axis=2, keepdims=True)
        picture = np.rint(_GREY * grey + (1 - _GREY) * picture).astype(np.uint8)
    if target is not None and (target < 0).any():
        picture = hatched(picture, coverage(target < 0, size))
    if mask is not None and mask.any():
        picture = tinted(picture, coverage(mask > 0, size), BLUE, around=WHITE)
    if target is not None and (target > 0).any():
        picture = dashed(picture, coverage(target > 0, size), dash)
    return picture


def window_around(target: Target, clicks: Sequence[Click], room: float = 1.6) -> Window | None:
    """The part of an image that holds target and clicks with room around them, of the image's own aspect.

    Args:
        target: int8 (height, width), 1 object.
        clicks: any number.
        room: side of the part over that of what it holds, where it is not very small.

    Returns:
        None where that is most of the image, which is then better shown whole.
    """
    height, width = target.shape
    rows, columns = np.nonzero(target > 0)
    ys, xs = (
        [rows[0], rows[-1], *(c.y for c in clicks)],
        [columns.min(), columns.max(), *(c.x for c in clicks)],
    )
    share = max((max(xs) - min(xs) + 1) / width, (max(ys) - min(ys) + 1) / height)
    share = max(room * share, _LEAST_SHARE, _LEAST_PIXELS / min(height, width))
    if share > _MOST_SHARE:
        return None
    across, down = round(share * width), round(share * height)
    left = min(max(0, round((min(xs) + max(xs) - across) / 2)), width - across)
    top = min(max(0, round((min(ys) + max(ys) - down) / 2)), height - down)
    return left, top, left + across, top + down


def placed(
    points: Sequence[tuple[float, float]], radius: float, size: tuple[float, float]
) -> list[tuple[float, float]]:
    """Where numbers of clicks go so that they do not cover each other, as near to their clicks as can be.

    Args:
        points: (x, y) of the clicks.
        radius: of a number's badge.
        size: (width, height) of the picture; badges stay within where they can.

    Returns:
        (x, y) of each badge: on its click, or beside it.
    """
    taken: list[tuple[float, float]] = []
    for point in points:
        best, widest = point, -math.inf
        for place in _places(point, radius):
            if not (radius <= place[0] <= size[0] - radius and radius <= place[1] <= size[1] - radius):
                continue
            room = min((math.dist(place, other) - 2.1 * radius for other in taken), default=math.inf)
            if place != point:
                room = min(room, *(math.dist(place, other) - 1.3 * radius for other in points))
            if room >= 0:
                best = place
                break
            if room > widest:
                best, widest = place, room
        taken.append(best)
    return taken


def _places(point: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """The click itself, and around it, the nearest first."""
    around = [
        (
            point[0] + distance * radius * math.cos(2 * math.pi * turn / _DIRECTIONS),
            point[1] + distance * radius * math.sin(2 * math.pi * turn / _DIRECTIONS),
        )
        for distance in np.arange(1, _RINGS + 1) * 1.2 + 0.9
        for turn in range(_DIRECTIONS)
    ]
    return [point, *around]


def _by_place(clicks: Sequence[Click]) -> dict[Click, str]:
    """Each place once, with the number of its first click, and a plus if there are more."""
    numbers: dict[Click, list[int]] = {}
    for number, click in enumerate(clicks, start=1):
        numbers.setdefault(click, []).append(number)
    return {click: f"{found[0]}{'+' if len(found) > 1 else ''}" for click, found in numbers.items()}


@dataclass(frozen=True, slots=True)
class _Laid:
    """A strip with its measures, pixels: lines of its title, size of its pictures, height of one row, of all."""

    strip: Strip
    lines: list[str]
    size: tuple[int, int]
    label: int
    height: int


class _Painter:
    """A sheet on one pair of axes whose unit is the PNG's pixel, y down."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self.margin, self.gap = self._inches(0.16), self._inches(0.08)
        self.place = self._inches(sheet.place)
        self.width = 2 * self.margin + sheet.columns * self.place + (sheet.columns - 1) * self.gap
        self.heading = self._broken(sheet.heading, sheet.letters + 3, 2, "bold")
        self.texts = [line for text in sheet.texts for line in self._broken(text, sheet.letters, 6)]
        self.top = (
            self.margin
            + len(self.heading) * self._line(sheet.letters + 3)
            + len(self.texts) * self._line(sheet.letters)
            + self.gap
        )
        self.strips = [self._lay_out(strip) for strip in sheet.strips]
        self.height = self.top + sum(laid.height for laid in self.strips)
        if self.height > MAX_HEIGHT:
            raise ValueError(f"a sheet of {self.height} pixels is too high; draw fewer samples")

    def paint(self) -> Any:
        """The figure."""
        from matplotlib.figure import Figure  # noqa: PLC0415  (heavy)

        dpi = self.sheet.dpi
        figure = Figure(figsize=(self.width / dpi, self.height / dpi), dpi=dpi, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        y = self._write(axes, self.heading, self.margin, self.margin, self.sheet.letters + 3, weight="bold")
        self._write(axes, self.texts, self.margin, y, self.sheet.letters)
        y = self.top
        for laid in self.strips:
            self._paint_strip(axes, laid, y)
            y += laid.height
        axes.set(xlim=(0, self.width), ylim=(self.height, 0), aspect="auto")
        return figure

    def _lay_out(self, strip: Strip) -> _Laid:
        letters = self.sheet.letters
        panels = [panel for row in strip.rows for panel in row if panel is not None]
        height, width = panels[0].image.shape[:2]
        lines = self._broken(strip.title, letters + 1, 2, "bold") if strip.title else []
        label = self._line(letters) + (self._line(letters - 1) if any(panel.remark for panel in panels) else 0)
        size = fitted(width, height, self.place, TALLEST)
        total = (
            len(lines) * self._line(letters + 1) + len(strip.rows) * (label + size[1] + self.gap) + self._inches(0.14)
        )
        return _Laid(strip, lines, size, label, total)

    def _paint_strip(self, axes: Axes, laid: _Laid, top: float) -> None:
        y = self._write(axes, laid.lines, self.margin, top, self.sheet.letters + 1, weight="bold")
        for row in laid.strip.rows:
            for column, panel in enumerate(row):
                if panel is not None:
                    left = self.margin + column * (self.place + self.gap)
                    self._label(axes, panel, left, y)
                    self._picture(axes, panel, left, round(y) + laid.label, laid.size)
            y += laid.label + laid.size[1] + self.gap

    def _label(self, axes: Axes, panel: Panel, left: float, top: float) -> None:
        letters = self.sheet.letters
        title = self._broken(panel.title, letters, 1, width=self.sheet.place)
        top = self._write(axes, title, left, top, letters)
        remark = self._broken(panel.remark, letters - 1, 1, width=self.sheet.place)
        self._write(axes, remark, left, top, letters - 1, color="#444444")

    def _picture(self, axes: Axes, panel: Panel, left: int, top: int, size: tuple[int, int]) -> None:
        from matplotlib.patches import Rectangle  # noqa: PLC0415  (heavy)

        width, height = size
        extent = (left, left + width, top + height, top)
        dash = max(3, self._inches(0.045))
        axes.imshow(painted(panel, size, dash), extent=extent, interpolation="none", aspect="auto")
        if panel.framed:
            for line, colour in ((4.0, "black"), (2.4, _YELLOW)):
                inset = self._inches(2.0 / 72)  # half of the frame's width, so that it covers no text
                frame = Rectangle(
                    (left + inset, top + inset),
                    width - 2 * inset,
                    height - 2 * inset,
                    fill=False,
                    edgecolor=colour,
                    linewidth=line,
                )
                axes.add_patch(frame)
        scale = width / (panel.shown[2] - panel.shown[0])
        if panel.outlined is not None:
            a, b, c, d = (scale * value for value in panel.outlined)
            for line, colour in ((3.0, "black"), (1.4, "white")):
                part = Rectangle((left + a, top + b), c - a, d - b, fill=False, edgecolor=colour, linewidth=line)
                axes.add_patch(part)
        self._clicks(axes, panel, scale, (left, top), size)
        if panel.absent:
            lines = self._broken(panel.absent, self.sheet.letters, 3, width=0.8 * self.sheet.place)
            pad = self.gap
            box = {"facecolor": "white", "edgecolor": "black", "boxstyle": "square,pad=0.3"}
            self._text(
                axes,
                left + pad,
                top + height - pad,
                "\n".join(lines),
                self.sheet.letters,
                va="bottom",
                bbox=box,
            )

    def _clicks(self, axes: Axes, panel: Panel, scale: float, corner: tuple[int, int], size: tuple[int, int]) -> None:
        if not panel.clicks:
            return
        left, top, right, bottom = panel.shown
        labels = {
            Click(click.x - left, click.y - top, click.positive): label
            for click, label in _by_place(panel.clicks).items()
            if left <= click.x < right and top <= click.y < bottom
        }
        if panel.marks == "first":
            first = Click(panel.clicks[0].x - left, panel.clicks[0].y - top, True)
            self._mark(axes, *_centre(first, scale, corner), "o", 0.75 * self.sheet.letters, _YELLOW, _DARK)
            return
        if panel.marks == "dots":
            for click in labels:
                last = (click.x + left, click.y + top) == panel.clicks[-1][:2]
                self._click(axes, *_centre(click, scale, corner), click.positive, 7.0 if last else 4.0)
            return
        inner = [_centre(click, scale, (0, 0)) for click in labels]
        letters = self.sheet.letters - 2.2
        badges = placed(inner, 0.85 * letters * self.sheet.dpi / 72, size)
        for click, point, badge in zip(labels, inner, badges, strict=True):
            ends = [(corner[0] + x, corner[1] + y) for x, y in (point, badge)]
            if point != badge:
                for line, colour in ((2.4, "white"), (1.0, "black")):
                    axes.plot(*zip(*ends, strict=True), color=colour, linewidth=line, zorder=4)
                self._click(axes, *ends[0], click.positive, 3.5)
            self._click(axes, *ends[1], click.positive, 1.62 * letters, zorder=6)
            text, colour = labels[click], "black" if click.positive else "white"
            smaller = letters * (1 if len(text) < 3 else 0.8)
            self._text(axes, *ends[1], text, smaller, ha="center", va="center_baseline", color=colour, zorder=7)

    def _click(self, axes: Axes, x: float, y: float, positive: bool, diameter: float, zorder: float = 5) -> None:
        """A white disc with a black rim, or a black square with a white one."""
        if positive:
            self._mark(axes, x, y, "o", diameter, "white", "black", zorder)
        else:
            self._mark(axes, x, y, "s", 0.92 * diameter, "black", "white", zorder)

    def _mark(
        self,
        axes: Axes,
        x: float,
        y: float,
        marker: str,
        diameter: float,
        face: str,
        edge: str,
        zorder: float = 5,
    ) -> None:
        axes.plot(
            [x],
            [y],
            marker,
            markersize=diameter,
            markerfacecolor=face,
            markeredgecolor=edge,
            markeredgewidth=1,
            zorder=zorder,
        )

    def _write(self, axes: Axes, lines: Sequence[str], left: float, top: float, size: float, **how: Any) -> float:
        """Write lines downwards from the top; the place below them."""
        for line in lines:
            top += self._line(size)
            self._text(axes, left, top - 0.35 * size * self.sheet.dpi / 72, line, size, **how)
        return top

    def _text(self, axes: Axes, x: float, y: float, text: str, size: float, **how: Any) -> None:
        axes.text(x, y, text, fontsize=size, parse_math=False, **{"color": _DARK, **how})

    def _broken(
        self, text: str, size: float, most: int, weight: str = "normal", width: float | None = None
    ) -> list[str]:
        whole = (self.width - 2 * self.margin) / self.sheet.dpi
        return fitted_lines(text, size, whole if width is None else width, most=most, weight=weight)

    def _inches(self, length: float) -> int:
        """In pixels."""
        return round(length * self.sheet.dpi)

    def _line(self, size: float) -> int:
        """Height of a line, pixels."""
        return math.ceil(_LEADING * size * self.sheet.dpi / 72)


def _centre(click: Click, scale: float, corner: tuple[int, int]) -> tuple[float, float]:
    """The middle of the clicked pixel."""
    return corner[0] + (click.x + 0.5) * scale, corner[1] + (click.y + 0.5) * scale
