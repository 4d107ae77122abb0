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

import numpy as np

from disbench.core.clicks import Click
from disbench.core.diverse_sets import SampledScene, SetOfObjects, click_region, set_masks
from disbench.core.errors import InputError
from disbench.core.masks import Rle, areas, decode
from disbench.core.painting import spotlit, tinted
from disbench.core.sheets import Panel, Sheet, Strip, draw_sheet
from disbench.datasets.images import RgbImage, find_image, read_rgb
from disbench.io.files import whole_file
from disbench.shards.reader import ShardReader

FindImage = Callable[[str], Path | None]

WIDTH = 1600
"""Of the sheet, in pixels, or a few less."""
COLUMNS = (4, 6)
"""Pictures a row, fewest and most; the click's own picture is one of them."""
_DPI, _MARGIN, _GAP = 150, 24, 12
_GREY = 150


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
        out: the PNG, at most 1600 pixels wide; replaced if it is there.
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
    fewest, most = COLUMNS
    columns = min(max(fewest, 1 + max(len(row.chosen.members) for row in drawn)), most)
    place = (WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) // columns / _DPI
    heading, text = _heading(reader, drawn, seed)
    strips = (_strip(row, columns) for row in drawn)
    sheet = Sheet(heading, (text,), strips, columns, place, dpi=_DPI, letters=7.2, title_lines=3)
    picture = draw_sheet(sheet)["png"]
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as file:
        file.write(picture)
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


def _strip(row: _Row, columns: int) -> Strip:
    """The click region with one click, then as many masks of the set as there are columns."""
    scene, rles = row.sampled.scene, row.sampled.scene.rles
    region, masks = click_region(rles, row.chosen), set_masks(rles, row.chosen)
    area = areas([region, *masks]).tolist()
    image, click = row.pixels(), row.click(region)
    panels = [
        Panel(
            "first click",
            image,
            f"from {_percent(area[0] / area[1])} of the center",
            mask=decode(region),
            clicks=() if click is None else (click,),
            marks="first",
            paint=tinted,
        )
    ]
    shown, hidden = _shown_masks(len(masks), columns - 1)
    for number in shown:
        share = _percent(area[number + 1] / (scene.width * scene.height))
        more = f", + {hidden} more" if hidden and number == shown[-1] else ""
        remark = f"{share} of the image{more}"
        name = f"{number + 1}. {row.mask_name(number)}"
        panels.append(Panel(name, image, remark, mask=decode(masks[number]), paint=spotlit))
    return Strip(row.title(), (tuple(panels),))


def _shown_masks(count: int, places: int) -> tuple[list[int], int]:
    """Which masks of a set are drawn, and how many are not: the innermost ones and the outermost."""
    if count <= places:
        return list(range(count)), 0
    return [*range(places - 1), count - 1], count - places


def _heading(reader: ShardReader, rows: Sequence[_Row], seed: int) -> tuple[str, str]:
    name = reader.manifest.recipe_name or "shards"
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
    united = reader.manifest.method != "hierarchy"  # there a union is the outermost mask with its inner ones
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


def _percent(share: float) -> str:
    """Two digits that say something: 34%, 2.1%, 0.08%."""
    percent = 100 * float(share)
    if percent >= 99.5 or percent >= 10:
        return f"{percent:.0f}%"
    return f"{percent:.1f}%" if percent >= 1 else f"{percent:.2g}%"
