"""Sheets of pictures: photographs with a mask, a target and clicks, readable without colour vision.

At the end, helpers shared by all matplotlib figures: byte-identical output for the same content, and text that fits.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from disbench.core.arrays import BoolArray, FloatArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.painting import dash_outline, desaturate, fit_to_cell, hatch, paint_on_grey, pixel_coverage, resize
from disbench.core.prediction import RgbImage
from disbench.core.samples import Target

LEGEND = (
    "Blue area: the method's mask. Dashed line, yellow and black: the target. Grey stripes: ignored pixels. White "
    "disc: positive click, black square: negative click, the last one larger; numbers tell their order, and 3+ stands "
    "for click 3 and later ones at the same place. A rectangle on an image: the part that the others enlarge."
)
"""Explains a sheet's drawing."""
MAX_ASPECT = 1.3  # largest height of a picture relative to the width of its column
MAX_HEIGHT = 60_000  # pixels of a PNG; few programs open taller ones
Point = tuple[float, float]
Window = tuple[int, int, int, int]  # part of an image: left, top, right, bottom in pixels, the last two exclusive
_DARK, _GREY, _YELLOW = "#1A1A1A", "#444444", "#F0E442"
_LINE_SPACING = 1.35
# Side of a zoomed part: minimum and maximum relative to the image, and minimum in pixels.
_LEAST_SHARE, _MOST_SHARE, _LEAST_PIXELS = 0.12, 0.7, 24


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: shown above the picture.
        image: uint8 (height, width, 3), RGB.
        remark: a smaller line below the title.
        target: int8 (height, width): 1 object, 0 background, -1 ignored.
        mask: boolean (height, width).
        clicks: in order.
        marks: how clicks are drawn: numbered, as dots with a larger last one, or only the first as a yellow dot.
        absent: why an expected mask is missing; written into the lower left corner.
        framed: draw a thick frame around the picture.
        window: the part of the image to show, with the image's aspect ratio; None shows all of it.
        outlined: a part to draw a rectangle around.
        paint: function that paints the mask, from `disbench.core.painting`.
    """

    title: str
    image: RgbImage
    remark: str = ""
    target: Target | None = None
    mask: BoolArray | None = None
    clicks: tuple[Click, ...] = ()
    marks: Literal["numbers", "dots", "first"] = "numbers"
    absent: str = ""
    framed: bool = False
    window: Window | None = None
    outlined: Window | None = None
    paint: Callable[[RgbImage, FloatArray], RgbImage] = paint_on_grey

    @property
    def shown(self) -> Window:
        """The part of the image to show."""
        return self.window or (0, 0, self.image.shape[1], self.image.shape[0])


@dataclass(frozen=True)
class Strip:
    """Rows of pictures of one image below a title; None leaves a cell empty."""

    title: str
    rows: tuple[tuple[Panel | None, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """Contents and layout: at most `columns` pictures side by side, each `cell_width` inches wide.

    `strips` may be a generator, to save memory. `font_size` is in points, `title_lines` per picture.
    """

    heading: str
    texts: tuple[str, ...]
    strips: Iterable[Strip]
    columns: int
    cell_width: float = 3.0
    dpi: int = 110
    font_size: float = 9.0
    title_lines: int = 1


def make_sheet(heading: str, texts: Sequence[str], strips: Sequence[Strip], **size: Any) -> Sheet:
    """A sheet as wide as the longest row of its strips."""
    columns = max((len(row) for strip in strips for row in strip.rows), default=0)
    return Sheet(heading, tuple(texts), strips, columns, **size)


def draw_sheet(sheet: Sheet, formats: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """Draw a sheet in some file formats, byte-identical for the same matplotlib; InputError above `MAX_HEIGHT`."""
    with default_style():
        figure = _Painter(sheet).figure
        return {format_name: encode_figure(figure, format_name) for format_name in formats}


def paint_panel(panel: Panel, size: tuple[int, int], dash: int = 5) -> RgbImage:
    """A panel without clicks: uint8 (height, width, 3), resized to `size` (width, height); `dash` in pixels."""
    left, top, right, bottom = panel.shown
    part = (slice(top, bottom), slice(left, right))
    picture = resize(panel.image[part], size)
    if panel.target is not None and (panel.target[part] < 0).any():
        picture = hatch(picture, pixel_coverage(panel.target[part] < 0, size))
    if panel.mask is not None:
        picture = panel.paint(picture, pixel_coverage(panel.mask[part], size))
    elif panel.absent:
        picture = desaturate(picture)
    if panel.target is not None and (panel.target[part] > 0).any():
        picture = dash_outline(picture, pixel_coverage(panel.target[part] > 0, size), dash)
    return picture


def window_around(target: Target, clicks: Sequence[Click], margin: float = 1.6) -> Window | None:
    """Part of an image that contains target and clicks with some margin, with the image's aspect ratio.

    `margin` is the side of the part relative to its contents. None if the part would be most of the image.
    """
    height, width = target.shape
    rows, columns = np.nonzero(target > 0)
    ys = [rows[0], rows[-1], *(click.y for click in clicks)]
    xs = [columns.min(), columns.max(), *(click.x for click in clicks)]
    share = max((max(xs) - min(xs) + 1) / width, (max(ys) - min(ys) + 1) / height)
    share = max(margin * share, _LEAST_SHARE, _LEAST_PIXELS / min(height, width))
    if share > _MOST_SHARE:
        return None
    across, down = round(share * width), round(share * height)
    left = min(max(0, round((min(xs) + max(xs) - across) / 2)), width - across)
    top = min(max(0, round((min(ys) + max(ys) - down) / 2)), height - down)
    return left, top, left + across, top + down


def place_badges(points: Sequence[Point], radius: float, size: Point) -> list[Point]:
    """Place the numbers of clicks near their clicks without overlaps.

    `points` are the clicks (x, y), `radius` that of a badge; badges stay within (width, height) `size` if possible.
    """
    badges: list[Point] = []
    for point in points:
        best, best_clearance = point, -math.inf
        for place in _badge_positions(point, radius):
            if not (radius <= place[0] <= size[0] - radius and radius <= place[1] <= size[1] - radius):
                continue
            clearance = min((math.dist(place, other) - 2.1 * radius for other in badges), default=math.inf)
            if place != point:
                clearance = min(clearance, *(math.dist(place, other) - 1.3 * radius for other in points))
            if clearance > best_clearance:
                best, best_clearance = place, clearance
            if clearance >= 0:
                break
        badges.append(best)
    return badges


def _badge_positions(point: Point, radius: float) -> Iterator[Point]:
    """The click itself, then rings of places around it, nearest first."""
    yield point
    for distance in np.arange(1, 7) * 1.2 + 0.9:
        for angle in np.arange(12) * math.pi / 6:
            yield (point[0] + distance * radius * math.cos(angle), point[1] + distance * radius * math.sin(angle))


class _Painter:
    """Draws a sheet on one pair of axes in units of PNG pixels, y down."""

    def __init__(self, sheet: Sheet) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415  (heavy)

        self.sheet = sheet
        self.margin, self.gap, self.cell_width = map(self._pixels, (0.16, 0.08, sheet.cell_width))
        self.width = 2 * self.margin + sheet.columns * self.cell_width + (sheet.columns - 1) * self.gap
        self.figure = Figure(dpi=sheet.dpi, facecolor="white")
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        y = self._write(sheet.heading, self.margin, self.margin, size=sheet.font_size + 3, max_lines=2, weight="bold")
        for text in sheet.texts:
            y = self._write(text, self.margin, y, max_lines=6)
        y += self.gap
        for strip in sheet.strips:
            y = self._paint_strip(strip, y)
            if y > MAX_HEIGHT:
                raise InputError(f"a sheet of more than {MAX_HEIGHT:,} pixels is too tall; draw fewer samples")
        slack = 1e-6  # inches are inexact and must not lose a pixel
        self.figure.set_size_inches((self.width + slack) / sheet.dpi, (y + slack) / sheet.dpi)
        self.axes.set(xlim=(0, self.width), ylim=(y, 0), aspect="auto")

    def _paint_strip(self, strip: Strip, y: int) -> int:
        font_size = self.sheet.font_size
        y = self._write(strip.title, self.margin, y, size=font_size + 1, max_lines=2, weight="bold")
        panels = [panel for row in strip.rows for panel in row if panel is not None]
        height, width = panels[0].image.shape[:2]
        size = fit_to_cell(width, height, self.cell_width, MAX_ASPECT)
        for row in strip.rows:
            places = [self.margin + column * (self.cell_width + self.gap) for column in range(len(row))]
            labels = [
                (
                    left,
                    panel,
                    wrap_text(panel.title, font_size, self.sheet.cell_width, max_lines=self.sheet.title_lines),
                )
                for left, panel in zip(places, row, strict=True)
                if panel is not None
            ]
            lines = max((len(texts) for _, _, texts in labels), default=0)
            below = self._line(font_size - 1) if any(panel.remark for panel in panels) else 0
            top = y + lines * self._line(font_size) + below
            for left, panel, texts in labels:
                start = self._write_lines(texts, left, y + (lines - len(texts)) * self._line(font_size), font_size)
                self._write(panel.remark, left, start, self.sheet.cell_width, font_size - 1, max_lines=1, color=_GREY)
                self._paint_panel(panel, left, top, size)
            y = top + size[1] + self.gap
        return y + self._pixels(0.14)

    def _paint_panel(self, panel: Panel, left: int, top: int, size: tuple[int, int]) -> None:
        width, height = size
        picture = paint_panel(panel, size, max(3, self._pixels(0.045)))
        self.axes.imshow(picture, extent=(left, left + width, top + height, top), interpolation="none", aspect="auto")
        scale = width / (panel.shown[2] - panel.shown[0])
        if panel.framed:
            inset = self._pixels(2 / 72)  # half the frame's width, so that it covers no text
            self._rectangle((left + inset, top + inset, left + width - inset, top + height - inset), _YELLOW, 2.4, 4.0)
        if panel.outlined is not None:
            a, b, c, d = (scale * value for value in panel.outlined)
            self._rectangle((left + a, top + b, left + c, top + d), "white", 1.4, 3.0)
        if panel.clicks:
            self._paint_clicks(panel, scale, (left, top), size)
        if panel.absent:
            lines = wrap_text(panel.absent, self.sheet.font_size, 0.8 * self.sheet.cell_width, max_lines=3)
            box = {"facecolor": "white", "edgecolor": "black", "boxstyle": "square,pad=0.3"}
            at = (left + self.gap, top + height - self.gap)
            self._text(*at, "\n".join(lines), self.sheet.font_size, va="bottom", bbox=box)

    def _paint_clicks(self, panel: Panel, scale: float, corner: tuple[int, int], size: tuple[int, int]) -> None:
        left, top, right, bottom = panel.shown

        def centre(click: Click) -> Point:
            """Centre of the clicked pixel, on the sheet."""
            return corner[0] + (click.x - left + 0.5) * scale, corner[1] + (click.y - top + 0.5) * scale

        if panel.marks == "first":
            self._mark(centre(panel.clicks[0]), "o", 0.75 * self.sheet.font_size, _YELLOW, _DARK)
            return
        numbers: dict[Click, list[int]] = {}
        for number, click in enumerate(panel.clicks, start=1):
            if left <= click.x < right and top <= click.y < bottom:
                numbers.setdefault(click, []).append(number)
        if panel.marks == "dots":
            for click in numbers:
                last = click[:2] == panel.clicks[-1][:2]
                self._click(centre(click), click.positive, 7.0 if last else 4.0)
            return
        radius = 0.85 * (self.sheet.font_size - 2.2) * self.sheet.dpi / 72
        points = list(map(centre, numbers))
        inner = [(x - corner[0], y - corner[1]) for x, y in points]
        badges = [(corner[0] + x, corner[1] + y) for x, y in place_badges(inner, radius, size)]
        for (click, found), point, badge in zip(numbers.items(), points, badges, strict=True):
            self._badge(click, f"{found[0]}{'+' if len(found) > 1 else ''}", point, badge)

    def _badge(self, click: Click, text: str, point: Point, badge: Point) -> None:
        """A click's number, connected to the click by a line if it is elsewhere."""
        font_size = self.sheet.font_size - 2.2
        if math.dist(point, badge) > 1e-6:
            for width, colour in ((2.4, "white"), (1.0, "black")):
                self.axes.plot(*zip(point, badge, strict=True), color=colour, linewidth=width, zorder=4)
            self._click(point, click.positive, 3.5)
        self._click(badge, click.positive, 1.62 * font_size, zorder=6)
        size = font_size * (1 if len(text) < 3 else 0.8)
        colour = "black" if click.positive else "white"
        self._text(*badge, text, size, ha="center", va="center_baseline", color=colour, zorder=7)

    def _click(self, at: Point, positive: bool, diameter: float, zorder: float = 5) -> None:
        """A white disc with a black rim, or a black square with a white rim."""
        look = ("o", diameter, "white", "black") if positive else ("s", 0.92 * diameter, "black", "white")
        self._mark(at, *look, zorder)

    def _mark(self, at: Point, marker: str, diameter: float, face: str, edge: str, zorder: float = 5) -> None:
        look = {"markersize": diameter, "markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": 1}
        self.axes.plot([at[0]], [at[1]], marker, zorder=zorder, **look)

    def _rectangle(self, box: tuple[float, float, float, float], colour: str, inner: float, outer: float) -> None:
        """A coloured line on a wider black one."""
        from matplotlib.patches import Rectangle  # noqa: PLC0415  (heavy)

        left, top, right, bottom = box
        for line, edge in ((outer, "black"), (inner, colour)):
            frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=edge, linewidth=line)
            self.axes.add_patch(frame)

    def _write(
        self, text: str, left: int, top: int, width: float = 0.0, size: float = 0.0, *, max_lines: int, **style: Any
    ) -> int:
        """Write text in lines of a width in inches (by default the sheet's); returns the y below them."""
        if not text:
            return top
        size = size or self.sheet.font_size
        whole = (self.width - 2 * self.margin) / self.sheet.dpi
        lines = wrap_text(text, size, width or whole, max_lines=max_lines, weight=style.get("weight", "normal"))
        return self._write_lines(lines, left, top, size, **style)

    def _write_lines(self, lines: Sequence[str], left: int, top: int, size: float, **style: Any) -> int:
        for line in lines:
            top += self._line(size)
            self._text(left, top - 0.35 * size * self.sheet.dpi / 72, line, size, **style)
        return top

    def _text(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        self.axes.text(x, y, text, fontsize=size, **{"color": _DARK, **style})

    def _pixels(self, inches: float) -> int:
        return round(inches * self.sheet.dpi)

    def _line(self, size: float) -> int:
        """Height of a line, pixels."""
        return math.ceil(_LINE_SPACING * size * self.sheet.dpi / 72)


if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CANVASES: dict[str, tuple[str, str, dict[str, None]]] = {  # format -> module, class, variable metadata to remove
    "png": ("agg", "Agg", {"Software": None}),
    "svg": ("svg", "SVG", {"Date": None, "Creator": None}),
    "pdf": ("pdf", "Pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
}
FIGURE_FORMATS = tuple(_CANVASES)  # file formats of figures
MAX_TEXT_LENGTH = 1000  # characters of a text that are drawn


@contextmanager
def default_style() -> Iterator[None]:
    """Draw with matplotlib's defaults, ignoring the user's own style."""
    import warnings  # noqa: PLC0415

    import matplotlib as mpl  # noqa: PLC0415  (heavy)

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        mpl.rcdefaults()
        mpl.rcParams["svg.hashsalt"] = "disbench"
        mpl.rcParams["pdf.fonttype"] = 42  # searchable and editable text
        mpl.rcParams["image.composite_image"] = False  # each picture at its own size
        mpl.rcParams["text.hinting"] = "none"  # text as wide in a PNG as in an SVG
        mpl.rcParams["text.parse_math"] = False
        yield


def encode_figure(figure: Figure, format_name: str) -> bytes:
    """Encode a figure as `png`, `svg` or `pdf`, without date and version."""
    module, name, metadata = _CANVASES[format_name]
    canvas: Any = getattr(import_module(f"matplotlib.backends.backend_{module}"), f"FigureCanvas{name}")
    file = io.BytesIO()
    getattr(canvas(figure), f"print_{format_name}")(file, metadata=metadata)
    return file.getvalue()


def wrap_text(text: str, size: float, width: float, *, max_lines: int = 4, weight: str = "normal") -> list[str]:
    """Break text into at most `max_lines` lines, at spaces, hyphens and similar, or anywhere in a word too wide.

    `size` is the font size (points), `width` a line's width (inches); truncated text ends in an ellipsis.
    """
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415  (heavy)
    from matplotlib.textpath import text_to_path  # noqa: PLC0415

    font = FontProperties(size=size, weight=weight)

    def fits(line: str) -> bool:
        return bool(text_to_path.get_text_width_height_descent(line.rstrip(), font, False)[0] <= 72 * width)

    lines = [""]
    for word in re.findall(r"[^ _/,=-]*[_/,=-]* ?", " ".join(text[:MAX_TEXT_LENGTH].split())):
        for part in [word] if fits(word) else word:
            if lines == [""] or fits(lines[-1] + part):
                lines[-1] += part
            else:
                lines.append(part)
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and not fits(f"{last}…"):
            last = last[:-1]
        lines[max_lines - 1 :] = [f"{last}…"]
    return [line.rstrip() for line in lines]
