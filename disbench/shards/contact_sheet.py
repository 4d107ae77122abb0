"""A contact sheet: a picture of some diverse sets from a folder of shards.

Each row is one set: the image with the click region and one first click drawn from it, then the candidate masks, inner
to outer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np

from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.masks import Rle, areas, decode
from disbench.core.painting import spotlight, tint
from disbench.core.scenes import SampledScene, SetOfObjects, click_region, set_masks
from disbench.core.sheets import Panel, Sheet, Strip, draw_sheet
from disbench.datasets.images import RgbImage
from disbench.io.files import atomic_write
from disbench.shards.reader import FindImage, ShardReader, image_finder, read_scene_image

WIDTH = 1600  # maximum width of the sheet in pixels
COLUMNS = (4, 6)  # fewest and most pictures in a row, including the one with the click
_DPI, _MARGIN, _GAP = 150, 24, 12
_GREY = 150
_LEGEND = (
    "Blue: where the first click is drawn from; yellow dot: one such click. "
    "Orange: the masks that it may mean, inner to outer."
)


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """The PNG's path, the image id and center of each row, and the ids of chosen images whose file was not found."""

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
    """Draw randomly chosen diverse sets from a folder of shards.

    Scenes are chosen uniformly among those whose image is found, then one set from each, preferring sets with at least
    two masks. If there are fewer scenes than rows, scenes contribute further sets. If no image is found, the masks are
    drawn alone on grey, and the sheet says so. Deterministic for fixed shards, images, seed and library versions.

    Args:
        folder: a finished folder of shards.
        images: as for `disbench.shards.reader.resolve_images`; None draws the masks alone.
        out: the PNG, at most 1600 pixels wide; an existing file is replaced.
        rows: sets to draw, >= 1; fewer are drawn if the shards have fewer.
        seed: random seed, >= 0.
        only: draw only sets of these image ids.

    Raises:
        InputError: the folder is unfinished, has no sets or lacks an image id in `only`; an image is damaged or does
            not match its scene's size; too many rows for one picture.
    """
    reader = ShardReader(folder)
    find = image_finder(reader, images) if isinstance(images, Path) else images
    image_ids, file_names = reader.names()
    shuffled = np.random.default_rng(seed).permutation(_scenes_with_sets(reader, image_ids, only)).tolist()
    found, missing = _find_images(shuffled, file_names, find, rows) if find else ({}, [])
    drawn = _choose_sets(reader, found or dict.fromkeys(shuffled[:rows]), rows, seed)
    fewest, most = COLUMNS
    columns = min(max(fewest, 1 + max(len(row.chosen.members) for row in drawn)), most)
    panel_inches = (WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) // columns / _DPI
    note = "" if any(row.image for row in drawn) else "; no image was found, so the masks are drawn alone"
    name, total = reader.manifest.recipe_name or "shards", int(reader.sets_per_scene().sum())
    heading = f"{name}: {len(drawn)} of {total:,} sets, drawn at random with seed {seed}{note}"
    strips = (_strip(row, columns) for row in drawn)
    sheet = Sheet(heading, (_LEGEND,), strips, columns, panel_inches, dpi=_DPI, font_size=7.2, title_lines=3)
    picture = draw_sheet(sheet)["png"]
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        file.write(picture)
    return ContactSheet(
        path=out,
        image_ids=tuple(row.sampled.scene.image_id for row in drawn),
        centers=tuple(row.chosen.center for row in drawn),
        missing=tuple(image_ids[scene] for scene in missing),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A set to draw; with `names_all_objects`, a mask's label names all its objects."""

    sampled: SampledScene
    chosen: SetOfObjects
    image: Path | None
    names_all_objects: bool
    click_seed: tuple[int, ...]

    def pixels(self) -> RgbImage:
        scene = self.sampled.scene
        if self.image is None:
            return np.full((scene.height, scene.width, 3), _GREY, dtype=np.uint8)
        return read_scene_image(self.image, scene.image_id, (scene.height, scene.width))

    def clicks(self, region: Rle) -> tuple[Click, ...]:
        """One click drawn uniformly from the region, or none if it is empty."""
        places = np.argwhere(decode(region))
        if not len(places):
            return ()
        y, x = places[np.random.default_rng(self.click_seed).integers(len(places))].tolist()
        return (Click(x, y, positive=True),)

    def mask_name(self, number: int) -> str:
        """Categories of the objects in a mask: "cup", "cup × 2 + table"."""
        objects, member = self.sampled.scene.objects, self.chosen.members[number]
        named = Counter(objects[index].category for index in (member if self.names_all_objects else member[-1:]))
        return " + ".join(f"{name} × {count}" if count > 1 else name for name, count in named.items())


def _strip(row: _Row, columns: int) -> Strip:
    """The click region with one click, then the masks; drops masks below the outermost if there are too many."""
    scene, rles = row.sampled.scene, row.sampled.scene.rles
    region, masks = click_region(rles, row.chosen), set_masks(rles, row.chosen)
    region_area, *mask_areas = areas([region, *masks]).tolist()
    image, clicks = row.pixels(), row.clicks(region)
    remark = f"from {_percent(region_area / mask_areas[0])} of the center"
    panels = [Panel("first click", image, remark, mask=decode(region), clicks=clicks, marks="first", paint=tint)]
    outermost = len(masks) - 1
    hidden = max(len(masks) - (columns - 1), 0)
    for number in [*range(outermost - hidden), outermost]:
        name = f"{number + 1}. {row.mask_name(number)}"
        more = f", + {hidden} more" if hidden and number == outermost else ""
        remark = f"{_percent(mask_areas[number] / (scene.width * scene.height))} of the image{more}"
        panels.append(Panel(name, image, remark, mask=decode(masks[number]), paint=spotlight))
    center, sizes = row.chosen.center, "1 mask" if len(masks) == 1 else f"{len(masks)} masks"
    title = f"image {scene.image_id}, center: {scene.objects[center].category} (object {center}), {sizes}"
    return Strip(title, (tuple(panels),))


def _scenes_with_sets(reader: ShardReader, image_ids: Sequence[str], only: Sequence[str] | None) -> list[int]:
    for image_id in sorted(set(only or ()).difference(image_ids)):
        first = f", the first of image {image_ids[0]!r}" if image_ids else ""
        raise InputError(f"{reader.folder}: no scene of image {image_id!r}; it has {len(image_ids):,} scenes{first}")
    scenes = [i for i in np.flatnonzero(reader.sets_per_scene()).tolist() if only is None or image_ids[i] in only]
    if not scenes:
        raise InputError(f"{reader.folder}: no diverse set to draw; check what was dropped and why")
    return scenes


def _find_images(
    scenes: Sequence[int], file_names: Sequence[str], find: FindImage, count: int
) -> tuple[dict[int, Path | None], list[int]]:
    """Map the first `count` scenes whose image is found to its path; also list the scenes skipped."""
    found: dict[int, Path | None] = {}
    missing = []
    for scene in scenes:
        if len(found) == count:
            break
        if path := find(file_names[scene]):
            found[scene] = path
        else:
            missing.append(scene)
    return found, missing


def _choose_sets(reader: ShardReader, scenes: Mapping[int, Path | None], rows: int, seed: int) -> list[_Row]:
    """Take sets from the scenes round-robin; within a scene, sets with at least two masks come first."""
    # In hierarchy sets, the outermost object contains the others and names the mask.
    names_all_objects = reader.manifest.method != "hierarchy"
    by_scene: list[list[_Row]] = []
    for number, image in scenes.items():
        sampled = reader[number]
        shuffled = np.random.default_rng([seed, number]).permutation(len(sampled.sets)).tolist()
        sets = sorted((sampled.sets[index] for index in shuffled), key=lambda chosen: len(chosen.members) < 2)
        by_scene.append([_Row(sampled, item, image, names_all_objects, (seed, number, item.center)) for item in sets])
    rounds = chain.from_iterable(zip_longest(*by_scene))
    return list(islice((row for row in rounds if row is not None), rows))


def _percent(share: float) -> str:
    """Two significant digits: 34%, 2.1%, 0.08%."""
    percent = 100 * share
    if percent >= 10:
        return f"{percent:.0f}%"
    return f"{percent:.1f}%" if percent >= 1 else f"{percent:.2g}%"
