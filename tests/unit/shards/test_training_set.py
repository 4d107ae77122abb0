"""The PyTorch dataset: items of the embedded photos, draws that depend on seed, epoch and item alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.masks import decode, encode
from disbench.datasets.instances import AnnotatedImages
from disbench.datasets.photos import open_photos, photo_path
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.shards.reader import read_scene_image, read_sets
from disbench.shards.training_set import DiverseSetDataset, TrainingItem, draw_click, list_collate
from tests.refusals import refuses


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Diverse sets of the embedded photos."""
    folder = tmp_path_factory.mktemp("photos")
    make_shards(AnnotatedImages([open_photos()]), load_recipe("coco-lvis-proximity"), folder)
    return folder


@pytest.fixture(scope="module")
def dataset(shards: Path) -> DiverseSetDataset:
    return DiverseSetDataset(shards)


def draws(dataset: DiverseSetDataset, chosen: Sequence[int] | None = None) -> list[tuple[Click, int]]:
    """What is drawn for every item, or for the chosen ones; the photos are left unread."""
    blind = DiverseSetDataset(dataset.sets.reader.folder, seed=dataset.seed)
    blind.set_epoch(dataset.epoch)
    blind._image = lambda chosen: np.zeros((*chosen.click_region["size"], 3), dtype=np.uint8)  # type: ignore[method-assign]
    items = [blind[i] for i in (range(len(blind)) if chosen is None else chosen)]
    return [(item.click, item.target) for item in items]


def same(first: TrainingItem, second: TrainingItem) -> bool:
    names = [field.name for field in dataclasses.fields(TrainingItem)]
    return all(
        torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        for one, other in zip(attrgetter(*names)(first), attrgetter(*names)(second), strict=True)
    )


def test_an_item_is_an_image_its_masks_a_click_and_a_target(dataset: DiverseSetDataset, shards: Path) -> None:
    sets = read_sets(shards)
    assert len(dataset) == len(sets) > 50
    for index in range(0, len(sets), 10):
        item, chosen = dataset[index], sets[index]
        with Image.open(photo_path(chosen.file_name)) as photo:
            pixels = np.asarray(photo.convert("RGB"))
        height, width = pixels.shape[:2]
        assert item.image.dtype == torch.uint8
        assert item.image.shape == (3, height, width)
        assert np.array_equal(item.image.numpy().transpose(1, 2, 0), pixels)
        assert item.masks.dtype == torch.bool
        assert item.masks.shape == (len(chosen.masks), height, width)
        for mask, rle in zip(item.masks.numpy(), chosen.masks, strict=True):
            assert np.array_equal(mask, decode(rle))
        assert (item.image_id, item.center) == (chosen.image_id, chosen.center)


def test_clicks_are_positive_and_in_the_click_region(photo_shards: Path) -> None:
    """With the hierarchy, where the region is the center less its children."""
    sets = read_sets(photo_shards)
    dataset = DiverseSetDataset(photo_shards)
    regions = [decode(chosen.click_region) for chosen in sets]
    smaller = [bool((decode(chosen.masks[0]) & ~region).any()) for chosen, region in zip(sets, regions, strict=True)]
    assert any(smaller)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        for (click, target), region, chosen in zip(draws(dataset), regions, sets, strict=True):
            assert click.positive is True
            assert (type(click.x), type(click.y)) == (int, int)
            assert region[click.y, click.x]
            assert 0 <= target < len(chosen.masks)


def test_draws_depend_on_seed_epoch_and_item_alone(shards: Path) -> None:
    dataset, some = DiverseSetDataset(shards, seed=3), range(60)
    first = draws(dataset, some)
    assert draws(DiverseSetDataset(shards, seed=3), some) == first
    backwards = DiverseSetDataset(shards, seed=3)
    items = [backwards[i] for i in reversed(range(10))][::-1]
    assert [(item.click, item.target) for item in items] == first[:10]
    assert len(set(first)) > len(first) // 2
    dataset.set_epoch(1)
    second = draws(dataset, some)
    other_seed = draws(DiverseSetDataset(shards, seed=4), some)
    for others in (second, other_seed):
        assert np.mean([one[0] == other[0] for one, other in zip(first, others, strict=True)]) < 0.1
    assert second != other_seed
    dataset.set_epoch(0)
    assert draws(dataset, some) == first


def test_indices(dataset: DiverseSetDataset) -> None:
    assert same(dataset[-1], dataset[len(dataset) - 1])
    for outside in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[outside]


def test_loader_processes_give_the_same_items(shards: Path) -> None:
    dataset = DiverseSetDataset(shards, seed=1)
    dataset.set_epoch(2)
    dataset[0]  # files are open and row groups decoded before the loader copies the dataset

    def load(workers: int) -> list[TrainingItem]:
        chosen = torch.utils.data.Subset(dataset, range(0, len(dataset), 9))
        batches = list(DataLoader(chosen, batch_size=3, num_workers=workers, collate_fn=list_collate))
        assert all(isinstance(batch, list) and 1 <= len(batch) <= 3 for batch in batches)
        return [item for batch in batches for item in batch]

    alone, together = load(0), load(2)
    assert len(alone) == len(together) == len(range(0, len(dataset), 9))
    assert all(map(same, alone, together))


class TestImages:
    def put(self, folder: Path, name: str, change: int = 0) -> None:
        with Image.open(photo_path(name)) as photo:
            photo.convert("RGB").resize((photo.width + change, photo.height)).save((folder / name).with_suffix(".png"))

    def test_a_folder_or_a_function_names_them(self, shards: Path, dataset: DiverseSetDataset, tmp_path: Path) -> None:
        name = dataset.sets[0].file_name
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / name).write_bytes(photo_path(name).read_bytes())
        asked: list[str] = []

        def find(file_name: str) -> Path:
            asked.append(file_name)
            return photo_path(file_name)

        for images in (tmp_path, str(tmp_path / "images"), find):
            assert same(DiverseSetDataset(shards, images)[0], dataset[0])
        assert asked == [name]

    def test_a_missing_or_damaged_image_is_named(self, shards: Path, tmp_path: Path) -> None:
        name = DiverseSetDataset(shards).sets[0].file_name
        (tmp_path / name).write_bytes(photo_path(name).read_bytes()[:500])
        for images in (tmp_path / "nowhere", lambda file_name: None, tmp_path):
            with pytest.raises(InputError, match=name):
                DiverseSetDataset(shards, images)[0]


def test_clicks_are_uniform_over_a_region_of_several_pieces() -> None:
    region = np.zeros((9, 14), dtype=bool)
    region[2:5, 3:6] = region[8, 13] = region[0, 0:7:2] = True
    generator = np.random.default_rng(5)
    counts = np.zeros(region.shape)
    for _ in range(4000):
        click = draw_click(encode(region), generator)
        counts[click.y, click.x] += 1
    assert not counts[~region].any()
    assert chisquare(counts[region]).pvalue > 0.01


def test_a_photograph_to_be_turned_is_said_once_for_its_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (4, 3)).save(tmp_path / name, exif=exif)
        assert read_scene_image(tmp_path / name, "1", (3, 4)).shape == (3, 4, 3)
    assert [record.message.count("a.jpg: 6") for record in caplog.records] == [1]
    refuses(r"a\.jpg: .*stored 4 x 3, in viewers 3 x 4", read_scene_image, tmp_path / "a.jpg", "1", (4, 3))
