"""A contact sheet: some diverse sets of a folder of shards as a picture, to see what a dataset holds.

A row is a set: the image with the region that the first click is drawn from and one such click, then the
masks that the click may mean, inner to outer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from disbench.clicks import Click
from disbench.datasets.images import RgbImage, find_image, read_rgb
from disbench.errors import InputError
from disbench.masks import FloatArray, Rle, areas, decode
from disbench.sampling.diverse_sets import SetOfObjects, click_region, set_masks
from disbench.sampling.sampled_scene import SampledScene
from disbench.sampling.shards import ShardReader

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FindImage = Callable[[str], Path | None]
Colour = tuple[int, int, int]

WIDTH = 1600
"""Of the sheet, in pixels."""
COLUMNS = (4, 6)
"""Pictures a row, fewest and most; the click's own picture is one of them."""
TALLEST = 1.3
"""Height of a picture over the width of its place, at most: portraits may be higher than a square."""
MAX_HEIGHT = 60_000
"""Of the sheet, in pixels: beyond it few programs open a PNG."""

# Okabe and Ito's colours, which the colour-blind can tell apart.
_BLUE: Colour = (0, 114, 178)
_ORANGE: Colour = (230, 159, 0)
_YELLOW = "#F0E442"
_DARK = "#1A1A1A"
_QUIET = "#555555"
_GREY = 150

_MARGIN, _GAP = 24, 12
_HEADING, _ROW_TITLE, _LINE, _ROW_END = 84, 30, 19, 30
_LABEL_LINES = 3
_SMALL = 40
_DPI = 64  # a power of two, so that pixels over dots an inch are whole pixels again


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """What was drawn.

    Attributes:
        path: of the PNG.
        image_ids: the image of each row.
        centers: the center of each row's set, by its number in the scene.
        missing: image ids that the draw came upon, but whose file was not found.
    """

    path: Path
    image_ids: tuple[str, ...]
    centers: tuple[int, ...]
    missing: tuple[str, ...]


def draw_contact_sheet(
    folder: Path,
    images: Path | FindImage | None,
    out: Path,
    *,
    rows: int = 6,
    seed: int = 0,
    only: Sequence[str] | None = None,
) -> ContactSheet:
    """Draw some diverse sets of a folder of shards, chosen by lot.

    Nothing is chosen because it looks good: scenes are drawn among those whose image is found, and from each
    one set, all alike but for one thing: a scene that has sets of two masks or more gives one of these, since a
    single mask has nothing to compare. Where there are fewer scenes than rows, the scenes give further sets.
    If not one image is found, the masks are drawn alone on grey, and the sheet says so.

    The same shards, images, seed and library versions give the same bytes.

    Args:
        folder: a finished folder of shards.
        images: the folder of images (looked through by `find_image`), a function from a scene's `file_name`
            to its image (None where there is none), or None to draw the masks alone.
        out: the PNG, 1600 pixels wide; replaced if it is there.
        rows: sets to draw, at least 1; fewer are drawn if there are no more.
        seed: decides the lot.
        only: draw only sets of these image ids.

    Raises:
        InputError: the folder is not a finished folder of shards or has no sets; an image id in `only` that
            it does not have; an image that is damaged or not of its scene's size; more rows than a picture
            can be high.
        ValueError: rows below 1, or a negative seed.
    """
    if rows < 1 or seed < 0:
        raise ValueError(f"rows ({rows}) start at 1, seeds ({seed}) at 0")
    reader = ShardReader(folder)
    find = partial(find_image, images) if isinstance(images, Path) else images
    drawn, missing = _draw_lots(reader, find, rows, seed, only)
    layout = _Layout.of(drawn)
    if layout.height > MAX_HEIGHT:
        raise InputError(f"{out}: {len(drawn)} rows would be {layout.height} pixels high; draw fewer rows")
    _write(_painted(layout, drawn, _heading(reader, drawn, seed)), out)
    return ContactSheet(
        path=out,
        image_ids=tuple(row.sampled.scene.image_id for row in drawn),
        centers=tuple(row.chosen.center for row in drawn),
        missing=tuple(missing),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A set that was drawn by lot.

    Attributes:
        sampled: its scene.
        chosen: the set.
        image: of the scene; None if there is none.
        united: whether a mask is named by all its objects, not by its outermost alone.
        noise: seeds the draw of the click.
    """

    sampled: SampledScene
    chosen: SetOfObjects
    image: Path | None
    united: bool
    noise: tuple[int, ...]

    def pixels(self) -> RgbImage:
        """The image, plain grey if there is none; checked against the scene's size."""
        scene = self.sampled.scene
        if self.image is None:
            return np.full((scene.height, scene.width, 3), _GREY, dtype=np.uint8)
        rgb = read_rgb(self.image)
        height, width = rgb.shape[:2]
        if (height, width) != (scene.height, scene.width):
            raise InputError(
                f"{self.image}: the image is {width} x {height} pixels, but the scene of image "
                f"{scene.image_id} is {scene.width} x {scene.height}; name the folder of the right images"
            )
        return rgb

    def click(self, region: Rle) -> Click | None:
        """One click, drawn evenly from the region; None from an empty one."""
        places = np.argwhere(decode(region))
        if not len(places):
            return None
        y, x = places[np.random.default_rng(self.noise).integers(len(places))].tolist()
        return Click(x, y, positive=True)

    def mask_name(self, number: int) -> str:
        """Categories of the objects in a mask of the set."""
        objects, member = self.sampled.scene.objects, self.chosen.members[number]
        named = member if self.united else member[-1:]
        return " + ".join(objects[index].category for index in named)

    def title(self) -> str:
        """Which image and which center."""
        scene, center, count = self.sampled.scene, self.chosen.center, len(self.chosen.members)
        masks = "1 mask" if count == 1 else f"{count} masks"
        return f"image {scene.image_id}, center: {scene.objects[center].category} (object {center}), {masks}"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything is, in pixels from the sheet's top left corner.

    Attributes:
        columns: pictures a row.
        cell: width of the place that a picture is fitted into; it is at most `TALLEST` times as high.
        sizes: (width, height) of each row's pictures.
        tops: where each row begins.
        height: of the sheet.
    """

    columns: int
    cell: int
    sizes: tuple[tuple[int, int], ...]
    tops: tuple[int, ...]
    height: int

    @classmethod
    def of(cls, rows: Sequence[_Row]) -> _Layout:
        """Pictures as large as the row with most of them allows; each row as high as its own pictures."""
        fewest, most = COLUMNS
        columns = min(max(fewest, 1 + max(len(row.chosen.members) for row in rows)), most)
        cell = (WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) // columns
        sizes = tuple(_fitted(row.sampled.scene.width, row.sampled.scene.height, cell) for row in rows)
        above = _ROW_TITLE + _LABEL_LINES * _LINE
        *tops, height = np.cumsum([_HEADING, *(above + high + _ROW_END for _, high in sizes)]).tolist()
        return cls(columns, cell, sizes, tuple(tops), height)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """(left, top) of a picture."""
        left = _MARGIN + column * (self.cell + _GAP)
        return left, self.tops[row] + _ROW_TITLE + _LABEL_LINES * _LINE


class _Painter:
    """A figure whose pixels are painted one by one, with texts and dots on top."""

    def __init__(self, layout: _Layout) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (heavy)
        from matplotlib.figure import Figure  # noqa: PLC0415

        self.layout = layout
        self.pixels = np.full((layout.height, WIDTH, 3), 255, dtype=np.uint8)
        self.figure = Figure(figsize=(WIDTH / _DPI, layout.height / _DPI), dpi=_DPI)
        canvas: Any = FigureCanvasAgg(self.figure)  # matplotlib leaves this class without types
        self.renderer = canvas.get_renderer()
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(layout.height, 0))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, text: str, size: float, weight: str = "normal") -> None:
        """One line from a point on its base line; `size` in pixels."""
        fitted = self._lines(text, WIDTH - _MARGIN - x, 1, size, weight)[0]
        points = size * 72 / _DPI
        self.axes.text(x, y, fitted, size=points, weight=weight, color=_DARK, parse_math=False)

    def label(self, row: int, column: int, name: str, remark: str) -> None:
        """A name on as many lines as there are, then a remark, just above a picture."""
        left, top = self.layout.corner(row, column)
        names = self._lines(name, self.layout.cell, _LABEL_LINES - 1, 15, "bold")
        for line, text in enumerate(names):
            self.text(left, top - 8 - _LINE * (len(names) - line), text, 15, "bold")
        self.text(left, top - 8, remark, 15)

    def picture(self, row: int, column: int, picture: RgbImage) -> None:
        """An image of the row's size in its place."""
        left, top = self.layout.corner(row, column)
        height, width = picture.shape[:2]
        self.pixels[top : top + height, left : left + width] = picture

    def dot(self, row: int, x: float, y: float) -> None:
        """A click in the row's first picture; x and y as shares of its width and height."""
        left, top = self.layout.corner(row, 0)
        width, height = self.layout.sizes[row]
        place = [left + x * width], [top + y * height]
        self.axes.scatter(*place, s=(13 * 72 / _DPI) ** 2, c=_YELLOW, edgecolors=_DARK, linewidths=2.2)

    def finish(self) -> Figure:
        """The figure, pixel for pixel."""
        self.figure.figimage(self.pixels, zorder=-1)
        self.axes.patch.set_visible(False)
        return self.figure

    def _lines(self, text: str, width: float, count: int, size: float, weight: str) -> list[str]:
        """Words on lines of a width in pixels; what does not fit ends in an ellipsis."""
        from matplotlib.font_manager import FontProperties  # noqa: PLC0415

        font = FontProperties(size=size * 72 / _DPI, weight=weight)

        def fits(line: str) -> bool:
            return bool(self.renderer.get_text_width_height_descent(line, font, False)[0] <= width)

        lines: list[str] = []
        words = text.split()
        while words and len(lines) < count:
            taken = len(words) if len(lines) == count - 1 else _words_that_fit(words, fits)
            lines.append(_cut(" ".join(words[:taken]), fits))
            words = words[taken:]
        return lines or [""]


def _painted(layout: _Layout, rows: Sequence[_Row], heading: tuple[str, str]) -> Figure:
    """The sheet as a figure."""
    import matplotlib as mpl  # noqa: PLC0415  (heavy)

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style would change the picture
        painter = _Painter(layout)
        painter.text(_MARGIN, 36, heading[0], 21, "bold")
        painter.text(_MARGIN, 62, heading[1], 15)
        for number, row in enumerate(rows):
            _paint_row(painter, number, row)
        return painter.finish()


def _paint_row(painter: _Painter, number: int, row: _Row) -> None:
    scene, rles = row.sampled.scene, row.sampled.scene.rles
    size = painter.layout.sizes[number]
    picture = _resized(row.pixels(), size)
    painter.text(_MARGIN, painter.layout.tops[number] + 18, row.title(), 16, "bold")
    region, masks = click_region(rles, row.chosen), set_masks(rles, row.chosen)
    covers = areas([region, *masks]) / areas([masks[0]])[0]
    painter.label(number, 0, "first click", f"from {_percent(covers[0])} of the center")
    painter.picture(number, 0, _tinted(picture, _coverage(region, size), _BLUE))
    if (click := row.click(region)) is not None:
        painter.dot(number, (click.x + 0.5) / scene.width, (click.y + 0.5) / scene.height)
    shown, hidden = _shown_masks(len(masks), painter.layout.columns - 1)
    dim = _dimmed(picture)
    for column, index in enumerate(shown, start=1):
        coverage = _coverage(masks[index], size)
        share = areas([masks[index]])[0] / (scene.width * scene.height)
        more = f", + {hidden} more before it" if hidden and index == shown[-1] else ""
        name = f"{index + 1} {row.mask_name(index)}"
        painter.label(number, column, name, f"{_percent(share)} of the image{more}")
        bright = np.where(coverage[..., None] > 0, picture, dim)
        painter.picture(number, column, _tinted(bright, coverage, _ORANGE))


def _shown_masks(count: int, places: int) -> tuple[list[int], int]:
    """Which masks of a set are drawn, and how many are not: the innermost ones and the outermost."""
    if count <= places:
        return list(range(count)), 0
    return [*range(places - 1), count - 1], count - places


def _heading(reader: ShardReader, rows: Sequence[_Row], seed: int) -> tuple[str, str]:
    name = (reader.manifest.get("recipe") or {}).get("name") or "shards"
    total = int(reader.sets_a_scene().sum())
    alone = "" if any(row.image for row in rows) else "; no image was found, so the masks are drawn alone"
    return (
        f"{name}: {len(rows)} of {total:,} sets, drawn by lot with seed {seed}{alone}",
        "Blue: where the first click is drawn from; yellow dot: one such click. "
        "Orange: the masks that it may mean, inner to outer.",
    )


def _draw_lots(
    reader: ShardReader, find: FindImage | None, rows: int, seed: int, only: Sequence[str] | None
) -> tuple[list[_Row], list[str]]:
    """The sets to draw, and the image ids whose file was not found on the way."""
    image_ids, file_names = _names(reader)
    candidates = np.flatnonzero(reader.sets_a_scene())
    if only is not None:
        _check_known(only, image_ids, reader.folder)
        candidates = candidates[[image_ids[i] in only for i in candidates]]
    if not len(candidates):
        raise InputError(f"{reader.folder}: no diverse set to draw here; look at what was dropped and why")
    lots = np.random.default_rng(seed).permutation(candidates).tolist()
    found: dict[int, Path | None] = {}
    missing = []
    for scene in lots if find else []:
        path = find(file_names[scene])
        if path is None:
            missing.append(image_ids[scene])
        else:
            found[scene] = path
        if len(found) == rows:
            break
    return _rows(reader, found or dict.fromkeys(lots[:rows]), rows, seed), missing


def _rows(reader: ShardReader, scenes: dict[int, Path | None], rows: int, seed: int) -> list[_Row]:
    """One set a scene, then a second one a scene and so on, as long as there are rows to fill."""
    recipe = reader.manifest.get("recipe") or {}
    united = recipe.get("method") != "hierarchy"  # there a union is the outermost mask with its inner ones
    sampled = {number: reader[number] for number in scenes}
    order = {number: _order_of_sets(sampled[number].sets, [seed, number]) for number in scenes}
    drawn: list[_Row] = []
    for turn in range(max(map(len, order.values()))):
        for number, image in scenes.items():
            if turn < len(order[number]) and len(drawn) < rows:
                chosen = sampled[number].sets[order[number][turn]]
                noise = (seed, number, chosen.center)
                drawn.append(_Row(sampled[number], chosen, image, united, noise))
    return drawn


def _order_of_sets(sets: Sequence[SetOfObjects], noise: Sequence[int]) -> list[int]:
    """The sets of a scene in the order of the lot, those of two masks or more first."""
    order = np.random.default_rng(noise).permutation(len(sets)).tolist()
    return sorted(order, key=lambda index: len(sets[index].members) < 2)


def _names(reader: ShardReader) -> tuple[list[str], list[str]]:
    """Image id and file name of every scene; no mask is read for it."""
    image_ids: list[str] = []
    file_names: list[str] = []
    for entry in reader.manifest["files"]:
        path = reader.folder / entry["name"]
        try:
            table = pq.read_table(path, columns=["image_id", "file_name"])
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: damaged ({error}); sample again") from error
        image_ids += table["image_id"].to_pylist()
        file_names += table["file_name"].to_pylist()
    return image_ids, file_names


def _check_known(only: Sequence[str], image_ids: Sequence[str], folder: Path) -> None:
    for image_id in sorted(set(only).difference(image_ids)):
        raise InputError(
            f"{folder}: no scene of image {image_id!r}; it has {len(image_ids):,} scenes, the first is of "
            f"image {image_ids[0]!r}"
            if image_ids
            else f"{folder}: no scene of image {image_id!r}; it has no scene at all"
        )


def _fitted(width: int, height: int, cell: int) -> tuple[int, int]:
    """(width, height) of an image that fills its cell as far as it can, nothing cut off."""
    scale = min(cell / width, TALLEST * cell / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(rgb: RgbImage, size: tuple[int, int]) -> RgbImage:
    """An image at another (width, height)."""
    from PIL import Image  # noqa: PLC0415

    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def _coverage(mask: Rle, size: tuple[int, int]) -> FloatArray:
    """Share of each picture's pixel that a mask covers, at another (width, height)."""
    from PIL import Image  # noqa: PLC0415

    whole = Image.fromarray(decode(mask).astype(np.float32))
    return np.array(whole.resize(size, Image.Resampling.BOX), dtype=np.float64)


def _dimmed(rgb: RgbImage) -> RgbImage:
    """Dark and nearly grey, so that a mask stands out on it."""
    grey = rgb.mean(axis=2, keepdims=True)
    return np.asarray(0.5 * (0.75 * grey + 0.25 * rgb), dtype=np.uint8)


def _tinted(rgb: RgbImage, coverage: FloatArray, colour: Colour) -> RgbImage:
    """A mask in colour with a solid edge, and a dark line around it that shows on bright images too."""
    from scipy import ndimage  # noqa: PLC0415

    inside = coverage >= 0.5
    if inside.sum() < _SMALL:  # a thing smaller than a few pixels of the picture must not vanish
        inside = coverage > 0
    square = np.ones((3, 3), dtype=bool)
    edge = inside & ~ndimage.binary_erosion(inside, square, iterations=2)
    around = ndimage.binary_dilation(inside, square) & ~inside
    alpha = (0.4 * coverage)[..., None]
    tinted = (1 - alpha) * rgb + alpha * np.array(colour)
    tinted[around] = 0.25 * tinted[around]
    tinted[edge] = colour
    return np.asarray(np.rint(tinted), dtype=np.uint8)


def _words_that_fit(words: Sequence[str], fits: Callable[[str], bool]) -> int:
    """How many words go on a line, at least 1."""
    count = 1
    while count < len(words) and fits(" ".join(words[: count + 1])):
        count += 1
    return count


def _cut(line: str, fits: Callable[[str], bool]) -> str:
    """The line, or as much of it as fits before an ellipsis."""
    if fits(line):
        return line
    while line and not fits(f"{line}…"):
        line = line[:-1]
    return f"{line.rstrip()}…"


def _percent(share: float) -> str:
    """Two digits that say something: 34%, 2.1%, 0.08%."""
    percent = 100 * float(share)
    if percent >= 99.5 or percent >= 10:
        return f"{percent:.0f}%"
    return f"{percent:.1f}%" if percent >= 1 else f"{percent:.2g}%"


def _write(figure: Figure, out: Path) -> None:
    """The figure as a PNG, under its name only when it is whole."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    out.parent.mkdir(parents=True, exist_ok=True)
    partial_file = out.with_name(f"{out.name}.partial")
    try:
        canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves this class without types
        canvas.print_png(str(partial_file), metadata={"Software": None})
        partial_file.replace(out)
    finally:
        partial_file.unlink(missing_ok=True)
