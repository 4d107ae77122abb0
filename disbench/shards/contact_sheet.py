"""A contact sheet: some diverse sets of a folder of shards as a picture, to see what a dataset holds.

A row is a set: the image with the region that the first click is drawn from and one such click, then the
masks that the click may mean, inner to outer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core.arrays import FloatArray
from disbench.core.clicks import Click
from disbench.core.diverse_sets import SampledScene, SetOfObjects, click_region, set_masks
from disbench.core.errors import InputError
from disbench.core.masks import Rle, areas, decode
from disbench.core.painting import BLACK, BLUE, ORANGE, WHITE, coverage, fitted, resized, tinted
from disbench.datasets.images import RgbImage, find_image, read_rgb
from disbench.io.files import whole_file
from disbench.shards.reader import ShardReader

FindImage = Callable[[str], Path | None]

WIDTH = 1600
"""Of the sheet, in pixels."""
COLUMNS = (4, 6)
"""Pictures a row, fewest and most; the click's own picture is one of them."""
TALLEST = 1.3
"""Height of a picture over the width of its place, at most: portraits may be higher than a square."""
MAX_HEIGHT = 60_000
"""Of the sheet, in pixels: beyond it few programs open a PNG."""

_YELLOW = "#F0E442"
_DARK = "#1A1A1A"
_GREY = 150

_MARGIN, _GAP = 24, 12
_HEADING, _ROW_TITLE, _LINE, _ROW_END = 80, 32, 19, 34
_TEXT, _TITLE = 15, 16
_NAME_LINES = 3
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
    layout = _lay_out(drawn)
    if layout.height > MAX_HEIGHT:
        raise InputError(f"{out}: {len(drawn)} rows would be {layout.height} pixels high; draw fewer rows")
    _write(_painted(layout, _heading(reader, drawn, seed)), out)
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
        """Categories of the objects in a mask of the set: "cup", "cup × 2 + table"."""
        objects, member = self.sampled.scene.objects, self.chosen.members[number]
        named = Counter(objects[index].category for index in (member if self.united else member[-1:]))
        return " + ".join(f"{name} × {count}" if count > 1 else name for name, count in named.items())

    def title(self) -> str:
        """Which image and which center."""
        scene, center, count = self.sampled.scene, self.chosen.center, len(self.chosen.members)
        masks = "1 mask" if count == 1 else f"{count} masks"
        return f"image {scene.image_id}, center: {scene.objects[center].category} (object {center}), {masks}"


@dataclass(frozen=True, slots=True)
class _Panel:
    """One picture of a row: a mask, its name on one line or more, and a remark below the name."""

    mask: Rle
    name: tuple[str, ...]
    remark: str


@dataclass(frozen=True, slots=True)
class _Strip:
    """A row with its measures in pixels.

    Attributes:
        row: what is drawn.
        panels: the click's picture, then the masks.
        top: where its pictures begin, from the top of the row.
        size: (width, height) of its pictures.
    """

    row: _Row
    panels: tuple[_Panel, ...]
    top: int
    size: tuple[int, int]

    @property
    def height(self) -> int:
        """Of the row, with what separates it from the next one."""
        return self.top + self.size[1] + _ROW_END


@dataclass(frozen=True, slots=True)
class _Layout:
    """All rows, and the width of a picture's place in pixels."""

    strips: tuple[_Strip, ...]
    cell: int

    @property
    def height(self) -> int:
        """Of the sheet, in pixels."""
        return _HEADING + sum(strip.height for strip in self.strips)

    def left(self, column: int) -> int:
        """Where the pictures of a column begin."""
        return _MARGIN + column * (self.cell + _GAP)


def _lay_out(rows: Sequence[_Row]) -> _Layout:
    """Pictures as large as the row with most of them allows; each row as high as its own texts and pictures."""
    fewest, most = COLUMNS
    columns = min(max(fewest, 1 + max(len(row.chosen.members) for row in rows)), most)
    cell = (WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    strips = []
    for row in rows:
        panels = _panels(row, columns, cell)
        lines = max(len(panel.name) for panel in panels) + 1
        scene = row.sampled.scene
        size = fitted(scene.width, scene.height, cell, TALLEST)
        strips.append(_Strip(row, panels, _ROW_TITLE + lines * _LINE, size))
    return _Layout(tuple(strips), cell)


def _panels(row: _Row, columns: int, cell: int) -> tuple[_Panel, ...]:
    """The click region, then as many masks of the set as there are columns."""
    scene, rles = row.sampled.scene, row.sampled.scene.rles
    region, masks = click_region(rles, row.chosen), set_masks(rles, row.chosen)
    area = areas([region, *masks]).tolist()
    panels = [_Panel(region, ("first click",), f"from {_percent(area[0] / area[1])} of the center")]
    shown, hidden = _shown_masks(len(masks), columns - 1)
    for number in shown:
        name = _lines(f"{number + 1}. {row.mask_name(number)}", cell, _NAME_LINES, _TEXT, "bold")
        remark = f"{_percent(area[number + 1] / (scene.width * scene.height))} of the image"
        panels.append(_Panel(masks[number], tuple(name), remark))
    if hidden:
        last = panels[-1]
        shorter = last.remark.replace("of the image", f"of image, + {hidden} more")
        panels[-1] = _Panel(last.mask, last.name, shorter)
    return tuple(panels)


class _Painter:
    """Part of the sheet, as wide as it: pictures pixel for pixel, with texts and dots on top."""

    def __init__(self, height: int) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415  (heavy)

        self.pixels = np.full((height, WIDTH, 3), 255, dtype=np.uint8)
        self.figure = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI)
        self.figure.patch.set_alpha(0)
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, text: str, size: float, weight: str = "normal") -> None:
        """One line from a point on its base line, cut at the sheet's margin; `size` in pixels."""
        fitted = _lines(text, WIDTH - _MARGIN - x, 1, size, weight)[0]
        points = size * 72 / _DPI
        self.axes.text(x, y, fitted, size=points, weight=weight, color=_DARK, parse_math=False)

    def picture(self, left: int, top: int, picture: RgbImage) -> None:
        """An image in its place."""
        height, width = picture.shape[:2]
        self.pixels[top : top + height, left : left + width] = picture

    def dot(self, x: float, y: float) -> None:
        """A click."""
        diameter = 11 * 72 / _DPI
        self.axes.scatter([x], [y], s=diameter**2, c=_YELLOW, edgecolors=_DARK, linewidths=2)

    def finish(self) -> RgbImage:
        """All of it as one image."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (heavy)

        canvas: Any = FigureCanvasAgg(self.figure)  # matplotlib leaves this class without types
        canvas.draw()
        above = np.asarray(canvas.buffer_rgba()).astype(np.float32)
        alpha = above[..., 3:] / 255
        return np.asarray(np.rint(alpha * above[..., :3] + (1 - alpha) * self.pixels), dtype=np.uint8)


def _painted(layout: _Layout, heading: tuple[str, str]) -> RgbImage:
    """The sheet: uint8 (height, WIDTH, 3). Painted row by row, so that its height costs little memory."""
    import matplotlib as mpl  # noqa: PLC0415  (heavy)

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style would change the picture
        top = _Painter(_HEADING)
        top.text(_MARGIN, 36, heading[0], 21, "bold")
        top.text(_MARGIN, 62, heading[1], _TEXT)
        return np.concatenate([top.finish(), *(_painted_strip(strip, layout) for strip in layout.strips)])


def _painted_strip(strip: _Strip, layout: _Layout) -> RgbImage:
    painter = _Painter(strip.height)
    painter.text(_MARGIN, 18, strip.row.title(), _TITLE, "bold")
    picture = resized(strip.row.pixels(), strip.size)
    for column, panel in enumerate(strip.panels):
        left = layout.left(column)
        _paint_label(painter, panel, left, strip.top - 8)
        paint = _with_mask if column else _with_click_region
        painter.picture(left, strip.top, paint(picture, coverage(decode(panel.mask), strip.size)))
    click = strip.row.click(strip.panels[0].mask)
    if click is not None:
        scale = strip.size[0] / strip.row.sampled.scene.width
        painter.dot(layout.left(0) + (click.x + 0.5) * scale, strip.top + (click.y + 0.5) * scale)
    return painter.finish()


def _paint_label(painter: _Painter, panel: _Panel, left: int, base: int) -> None:
    for line, text in enumerate(reversed(panel.name), start=1):
        painter.text(left, base - line * _LINE, text, _TEXT, "bold")
    painter.text(left, base, panel.remark, _TEXT)


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
    image_ids, file_names = reader.names()
    candidates = np.flatnonzero(reader.sets_a_scene())
    if only is not None:
        _check_known(only, image_ids, reader.folder)
        candidates = candidates[[image_ids[i] in only for i in candidates]]
    if not len(candidates):
        raise InputError(f"{reader.folder}: no diverse set to draw here; look at what was dropped and why")
    lots = np.random.default_rng(seed).permutation(candidates).tolist()
    found, missing = _look_up(lots, file_names, find, rows) if find else ({}, [])
    return (
        _rows(reader, found or dict.fromkeys(lots[:rows]), rows, seed),
        [image_ids[scene] for scene in missing],
    )


def _look_up(
    scenes: Sequence[int], file_names: Sequence[str], find: FindImage, count: int
) -> tuple[dict[int, Path | None], list[int]]:
    """The first so many scenes whose image is found, with its path, and those passed over on the way."""
    found: dict[int, Path | None] = {}
    missing = []
    for scene in scenes:
        if len(found) == count:
            break
        path = find(file_names[scene])
        if path is None:
            missing.append(scene)
        else:
            found[scene] = path
    return found, missing


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


def _check_known(only: Sequence[str], image_ids: Sequence[str], folder: Path) -> None:
    for image_id in sorted(set(only).difference(image_ids)):
        raise InputError(
            f"{folder}: no scene of image {image_id!r}; it has {len(image_ids):,} scenes, the first is of "
            f"image {image_ids[0]!r}"
            if image_ids
            else f"{folder}: no scene of image {image_id!r}; it has no scene at all"
        )


def _with_click_region(picture: RgbImage, shares: FloatArray) -> RgbImage:
    """The picture as it is, the region in blue with a white line around it."""
    return tinted(picture, shares, BLUE, around=WHITE)


def _with_mask(picture: RgbImage, shares: FloatArray) -> RgbImage:
    """The mask in orange; everything else dark and nearly grey, so that the mask stands out."""
    grey = picture.mean(axis=2, keepdims=True)
    dim = 0.5 * (0.75 * grey + 0.25 * picture)
    shown = shares[..., None]
    return tinted(shown * picture + (1 - shown) * dim, shares, ORANGE, around=BLACK)


def _lines(text: str, width: float, count: int, size: float, weight: str) -> list[str]:
    """Words on lines of a width in pixels; what does not fit on so many lines ends in an ellipsis."""
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415  (heavy)
    from matplotlib.textpath import text_to_path  # noqa: PLC0415

    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)

    def fits(line: str) -> bool:
        return bool(text_to_path.get_text_width_height_descent(line, font, False)[0] <= width)

    lines: list[str] = []
    words = text.split()
    while words and len(lines) < count:
        taken = len(words) if len(lines) == count - 1 else _words_that_fit(words, fits)
        lines.append(_cut(" ".join(words[:taken]), fits))
        words = words[taken:]
    return lines or [""]


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


def _write(sheet: RgbImage, out: Path) -> None:
    """The sheet as a PNG, under its name only when it is whole."""
    from PIL import Image  # noqa: PLC0415

    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as file:
        Image.fromarray(sheet).save(file, format="PNG")
