"""A PyTorch dataset over shards: image, diverse set, first click and the target mask of stage 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from disbench.core.arrays import ByteArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError, quote
from disbench.core.masks import decode
from disbench.core.scenes import draw_click
from disbench.datasets.images import ImageFinder
from disbench.shards.reader import DiverseSet, DiverseSets, FindImage, Images, read_scene_image, resolve_images


@dataclass(frozen=True, slots=True)
class TrainingItem:
    """One diverse set, ready for training.

    Attributes:
        image: uint8 tensor (3, height, width), RGB.
        masks: bool tensor (k, height, width), inner to outer, the center's first.
        click: positive first click, drawn uniformly from the click region.
        target: index of the mask that supervises stage 2, drawn uniformly from the set.
    """

    image: torch.Tensor
    masks: torch.Tensor
    click: Click
    target: int
    image_id: str
    center: int


class DiverseSetDataset(Dataset[TrainingItem]):
    """Map-style dataset: item i is the i-th diverse set of a folder of shards.

    The click and target depend only on seed, epoch and index, so any number of loader workers gives the same items.
    Call `set_epoch` before each epoch to redraw them. Items vary in size: use `list_collate`, or crop in `transform`.

    Args:
        folder: a finished folder of shards; `InputError` otherwise.
        images: folder of images, or a function from `file_name` to a path; None uses the embedded photos.
        seed: random seed for clicks and targets.
        transform: applied to each `TrainingItem`.
    """

    def __init__(
        self,
        folder: str | Path,
        images: Images = None,
        *,
        seed: int = 0,
        transform: Callable[[TrainingItem], Any] | None = None,
    ) -> None:
        self.sets = DiverseSets(folder)
        self.find_image = resolve_images(self.sets.reader, images)
        self.seed, self.epoch, self.transform = seed, 0, transform

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch before the loader starts its workers.

        With `persistent_workers=True` it has no effect: workers keep their first copy of the dataset.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sets)

    def __getitem__(self, index: int) -> Any:
        """A `TrainingItem`, or the result of `transform`; raises as `read_image`."""
        chosen: DiverseSet = self.sets[index]
        generator = np.random.default_rng([self.seed, self.epoch, index % len(self)])
        height, width = chosen.click_region["size"]
        image = read_image(self.find_image, chosen.file_name, chosen.image_id, (height, width))
        item = TrainingItem(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            masks=torch.from_numpy(np.stack([decode(rle, order="C") for rle in chosen.masks])),
            click=draw_click(chosen.click_region, generator),
            target=int(generator.integers(len(chosen.masks))),
            image_id=chosen.image_id,
            center=chosen.center,
        )
        return self.transform(item) if self.transform else item


def read_image(find: FindImage, file_name: str, image_id: str, size: tuple[int, int]) -> ByteArray:
    """Find an image with `find` and read it with `read_scene_image`; `InputError` if it is not found."""
    path = find(file_name)
    if path is None:
        where = f"in {find}" if isinstance(find, ImageFinder) else "by the given function"
        raise InputError(f"image {image_id}: {quote(file_name)} not found {where}; give the folder that has it")
    return read_scene_image(path, image_id, size)


def list_collate(items: Sequence[TrainingItem]) -> list[TrainingItem]:
    """`collate_fn` for a `DataLoader` that keeps a batch as a list of items."""
    return list(items)
