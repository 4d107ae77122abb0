"""Contact sheets: what is drawn at random, with and without images, and what the PNG looks like from afar."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from disbench.core.scenes import SampledScene, Scene, SetOfObjects
from disbench.core.sheets import MAX_HEIGHT
from disbench.datasets.images import ImageFinder
from disbench.shards.contact_sheet import WIDTH, draw_contact_sheet
from disbench.shards.manifest import MANIFEST
from tests.refusals import refuses
from tests.unit.shard_tools import SHARD, random_scene, scene_object, without_hierarchy, write_shards

Pixels = npt.NDArray[np.uint8]
ORANGE, BLUE, YELLOW = (230, 159, 0), (0, 114, 178), (240, 228, 66)


def scenes_of(count: int, size: tuple[int, int] = (24, 31)) -> list[SampledScene]:
    rng = np.random.default_rng(3)
    return [random_scene(rng, f"{i:03}", size=size) for i in range(count)]


def write_images(root: Path, scenes: Sequence[SampledScene]) -> Path:
    for sampled in scenes:
        path = root / sampled.scene.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (sampled.scene.width, sampled.scene.height)
        Image.new("RGB", size, (120, 130, 140)).save(path)
    return root


def pixels_of(path: Path) -> Pixels:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def count_of(pixels: Pixels, colour: tuple[int, int, int]) -> int:
    return int((pixels == np.array(colour)).all(axis=2).sum())


def chain_scene(sizes: Sequence[int], names: Sequence[str], side: int = 60) -> SampledScene:
    """Squares in the middle of an image, each in the next, and the set of all of them."""
    objects = []
    for size, name in zip(sizes, names, strict=True):
        mask = np.zeros((side, side), dtype=bool)
        start = (side - size) // 2
        mask[start : start + size, start : start + size] = True
        objects.append(scene_object(mask, category=name))
    scene = Scene("chain", "chain.png", side, side, "by-hand", tuple(objects))
    members = tuple((i,) for i in range(len(objects)))
    return without_hierarchy(scene, [SetOfObjects(0, members)])


def test_the_png_has_the_width_and_all_that_belongs_on_it(tmp_path: Path) -> None:
    scenes = scenes_of(5)
    folder = write_shards(tmp_path / "shards", scenes)
    sheet = draw_contact_sheet(folder, write_images(tmp_path, scenes), tmp_path / "sheet.png", rows=3)
    pixels = pixels_of(sheet.path)
    assert WIDTH - 6 < pixels.shape[1] <= WIDTH
    assert 3 * 150 < pixels.shape[0] < 3 * 600
    assert len(sheet.image_ids) == len(sheet.centers) == len(set(sheet.image_ids)) == 3
    assert sheet.missing == ()
    assert min(count_of(pixels, ORANGE), count_of(pixels, BLUE), count_of(pixels, YELLOW)) > 50
    assert list(tmp_path.glob("*.partial*")) == []


def test_a_row_shows_the_region_then_the_masks(tmp_path: Path) -> None:
    """Squares of 20, 40 and 60 of 60 pixels: measured on the sheet, in the second to fourth picture."""
    scene = chain_scene([20, 40, 60], ["pupil", "eye", "face"])
    folder = write_shards(tmp_path / "shards", [scene])
    write_images(tmp_path, [scene])
    pixels = pixels_of(draw_contact_sheet(folder, tmp_path, tmp_path / "sheet.png").path)
    cell, gap, margin = 379, 12, 24
    for column, share in enumerate((1 / 3, 1 / 3, 2 / 3, 1)):
        left = margin + column * (cell + gap)
        part = pixels[:, left : left + cell]
        where = (part == np.array(ORANGE if column else BLUE)).all(axis=2)
        assert np.ptp(np.flatnonzero(where.any(axis=0))) + 1 == pytest.approx(share * cell, abs=3)
        assert np.ptp(np.flatnonzero(where.any(axis=1))) + 1 == pytest.approx(share * cell, abs=3)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    scenes = scenes_of(6)
    folder, root = write_shards(tmp_path / "shards", scenes), write_images(tmp_path, scenes)
    first = draw_contact_sheet(folder, root, tmp_path / "a.png", rows=4, seed=5)
    with mpl.rc_context({"font.size": 30, "savefig.bbox": "tight", "text.color": "red", "figure.dpi": 50}):
        again = draw_contact_sheet(folder, root, tmp_path / "b.png", rows=4, seed=5)
        assert mpl.rcParams["font.size"] == 30
    assert replace(again, path=first.path) == first
    assert first.path.read_bytes() == again.path.read_bytes()
    assert b"Software" not in first.path.read_bytes()


def test_scenes_without_an_image_are_passed_over(tmp_path: Path) -> None:
    scenes = scenes_of(12)
    folder = write_shards(tmp_path / "shards", scenes)
    root = write_images(tmp_path / "some", scenes[:2])
    sheet = draw_contact_sheet(folder, root, tmp_path / "s.png", rows=2)
    assert set(sheet.image_ids) == {"000", "001"}
    assert not set(sheet.missing) & {"000", "001"}
    function = draw_contact_sheet(folder, ImageFinder([root]), tmp_path / "t.png", rows=2)
    assert replace(function, path=sheet.path) == sheet


def test_without_any_image_the_masks_are_drawn_alone(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", scenes_of(4))
    empty = draw_contact_sheet(folder, tmp_path / "nowhere", tmp_path / "a.png", rows=2)
    none = draw_contact_sheet(folder, None, tmp_path / "b.png", rows=2)
    assert (len(empty.image_ids), len(empty.missing), none.missing) == (2, 4, ())
    assert empty.path.read_bytes() == none.path.read_bytes()
    assert count_of(pixels_of(none.path), ORANGE) > 50


def test_few_scenes_give_further_sets(tmp_path: Path) -> None:
    scenes = scenes_of(2)
    folder = write_shards(tmp_path / "shards", scenes)
    sheet = draw_contact_sheet(folder, None, tmp_path / "a.png", rows=6)
    assert len(sheet.image_ids) == 6
    assert sheet.image_ids[0] != sheet.image_ids[1]
    assert len(set(zip(sheet.image_ids, sheet.centers, strict=True))) == 6
    everything = draw_contact_sheet(folder, None, tmp_path / "a.png", rows=99)
    assert len(everything.image_ids) == sum(len(sampled.sets) for sampled in scenes)


def test_only_restricts_the_lot(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", scenes_of(9))
    sheet = draw_contact_sheet(folder, None, tmp_path / "a.png", rows=2, only=["004", "007"])
    assert set(sheet.image_ids) == {"004", "007"}
    refuses("no scene of image '4711'", draw_contact_sheet, folder, None, tmp_path / "a.png", only=["004", "4711"])


def test_a_bad_image_is_named(tmp_path: Path) -> None:
    scenes = scenes_of(1)
    folder, root = write_shards(tmp_path / "shards", scenes), write_images(tmp_path, scenes)
    path = root / scenes[0].scene.file_name
    Image.new("RGB", (24, 31)).save(path)
    refuses(r"000\.jpg.* 24 x 31 .*000 are 31 x 24", draw_contact_sheet, folder, root, tmp_path / "a.png")
    path.write_bytes(b"no image")
    refuses(r"000\.jpg: ", draw_contact_sheet, folder, root, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    empty = write_shards(tmp_path / "shards", [])
    many = write_shards(tmp_path / "many", scenes_of(60))
    damaged = write_shards(tmp_path / "damaged", scenes_of(3))
    (damaged / SHARD).write_bytes(b"x" * (damaged / SHARD).stat().st_size)
    for folder, rows, words in (
        (empty, 5, "shards"),
        (tmp_path, 5, r"manifest\.json"),
        (many, 10_000, f"{MAX_HEIGHT:,} pixels"),
        (damaged, 5, SHARD),
    ):
        refuses(words, draw_contact_sheet, folder, None, tmp_path / "a.png", rows=rows)
    assert not (tmp_path / "a.png").exists()


def test_names_that_typesetting_could_stumble_over(tmp_path: Path) -> None:
    names = ["$x_{1$", "a_very_long_name_" * 20, "two\nlines", "", "<b> & \\frac", "é", "last"]
    scene = chain_scene([4, 10, 20, 30, 40, 50, 60], names)
    folder = write_shards(tmp_path / "shards", [scene])
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace("by-hand", "name " * 60))
    pixels = pixels_of(draw_contact_sheet(folder, None, tmp_path / "a.png").path)
    assert (pixels[:, WIDTH - 20 :] == 255).all()  # nothing runs over the margin
