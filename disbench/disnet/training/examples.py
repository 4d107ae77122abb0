"""Training examples from shards: a view of an image, its diverse set on the masks' grid, the clicks to begin with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.diverse_sets import SampledScene, SetOfObjects
from disbench.core.errors import InputError
from disbench.core.masks import decode, union
from disbench.core.prediction import RgbImage
from disbench.datasets.images import find_image, read_rgb
from disbench.disnet.batches import ClickBatch, click_batch
from disbench.disnet.frames import STRIDE, Frame
from disbench.disnet.training.clicks import MOST, random_clicks
from disbench.disnet.training.matching import cut_set, distinct
from disbench.disnet.training.views import Augmentation, View, draw_view, fixed_view
from disbench.shards.reader import DiverseSets, diverse_set

NetworkInput = Callable[[RgbImage], npt.NDArray[np.generic]]
_FIXED_SEED = 0
"""Fixed views are the same in trainings of all seeds: features that are kept for them serve all."""
_DRAWS = 8
_SMALLEST_TARGET = 16
"""Cells: a view in which less of the supervised mask is left is drawn again."""


@dataclass(frozen=True, slots=True)
class Shards:
    """One source of training examples.

    Attributes:
        folder: a finished folder of shards.
        images: folder of their images; "" takes the embedded photos.
    """

    folder: str
    images: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One diverse set as the network sees it.

    Attributes:
        input: what the network takes of the view: an encoding, or the image in its frame.
        valid: bool (grid, grid), the cells of the image.
        masks: bool (k, grid, grid), the set, inner to outer, k at most the number of candidates.
        target: number of the mask that supervises stage 2.
        first: the first click, in pixels of the input.
        clicks: the first click and the random ones, in cells of the grid.
    """

    input: Tensor
    valid: BoolArray
    masks: BoolArray
    target: int
    first: tuple[float, float]
    clicks: tuple[Click, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples together.

    Attributes:
        inputs: of the network, stacked.
        valid: bool (batch, grid, grid).
        masks: of each example, bool (k, grid, grid).
        targets: bool (batch, grid, grid), the masks that supervise stage 2.
        first: the first clicks.
        clicks: of each example, first and random ones, in cells.
    """

    inputs: Tensor
    valid: Tensor
    masks: list[Tensor]
    targets: Tensor
    first: ClickBatch
    clicks: list[tuple[Click, ...]]

    def signed_targets(self) -> npt.NDArray[np.int8]:
        """The supervising masks as the click simulator takes them: int8, -1 beyond the image."""
        signed = self.targets.cpu().numpy().astype(np.int8)
        signed[~self.valid.cpu().numpy()] = -1
        return signed

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return Batch(
            self.inputs.to(device),
            self.valid.to(device),
            [masks.to(device) for masks in self.masks],
            self.targets.to(device),
            self.first.to(device),
            self.clicks,
        )


class Examples(Dataset[Example]):
    """Map-style dataset over several folders of shards.

    What is drawn depends on the seed, the epoch and the item alone, so any number of loader processes gives the
    same examples. An item is (epoch, number): `EpochSampler` hands them out.

    Args:
        sources: folders of shards and of images.
        frame: of the network's input.
        network_input: makes the network's input of an image, a NumPy array.
        augmentation: what views are drawn from.
        outputs: N; larger sets are cut.
        seed: of the draws.
        random: draw random clicks of stage 2 besides the first.

    Raises:
        InputError: a folder is not a finished folder of shards, or has no set.
    """

    def __init__(
        self,
        sources: Sequence[Shards],
        frame: Frame,
        network_input: NetworkInput,
        augmentation: Augmentation,
        outputs: int,
        seed: int,
        random: bool = True,
    ) -> None:
        self.sources = tuple(sources)
        self.frame, self.network_input, self.augmentation = frame, network_input, augmentation
        self.outputs, self.seed, self.random = outputs, seed, random
        self._sets = [DiverseSets(source.folder) for source in sources]
        self._starts = np.cumsum([0, *(len(sets) for sets in self._sets)])
        if not len(self):
            raise InputError("no diverse set in the shards that the training names; sample again")

    def __len__(self) -> int:
        """How many diverse sets there are."""
        return int(self._starts[-1])

    def __getitem__(self, item: tuple[int, int]) -> Example:
        """The example of an epoch and a set's number."""
        epoch, number = item
        generator = np.random.default_rng([self.seed, epoch, number])
        source = int(np.searchsorted(self._starts, number, side="right")) - 1
        sampled, place = self._sets[source].place(number - int(self._starts[source]))
        image = self._image(self.sources[source], sampled)
        return self._seen(sampled, sampled.sets[place], image, generator)

    def views(self) -> list[tuple[int, int, int]]:
        """One item for every fixed view of every image: (source, scene, view), for filling a cache."""
        return [
            (source, scene, view)
            for view in range(self.augmentation.views)
            for source, sets in enumerate(self._sets)
            for scene in range(len(sets.reader))
        ]

    def encode_view(self, source: int, scene: int, view: int) -> None:
        """Make the network's input of one fixed view, for its cache's sake."""
        sampled = self._sets[source].reader[scene]
        image = self._image(self.sources[source], sampled)
        self.network_input(self._fixed(sampled, view).image(image))

    def _seen(
        self, sampled: SampledScene, chosen: SetOfObjects, image: RgbImage, generator: np.random.Generator
    ) -> Example:
        whole = diverse_set(sampled.scene, chosen)
        planes = np.stack([decode(rle) for rle in (*whole.masks, whole.click_region)])
        supervised = int(generator.integers(len(whole.masks)))
        view, masks = self._usable_view(sampled, planes, supervised, generator)
        own, target = self._cut(masks[:-1], supervised, generator)
        click = self._first_click(view.planes(planes[-1:])[0], generator)
        scene = view.planes(decode(union([o.rle for o in sampled.scene.objects]))[None])
        return self._example(view.image(image), own, target, click, self.frame.masks(scene)[0], generator)

    def _cut(self, masks: BoolArray, supervised: int, generator: np.random.Generator) -> tuple[BoolArray, int]:
        """The distinct masks of a set, at most N, and the supervised one's number among them."""
        left = masks[distinct(masks)]
        place = next(n for n, mask in enumerate(left) if np.array_equal(mask, masks[supervised]))
        cut = cut_set(left, place, self.outputs, generator)
        return left[cut], int(np.flatnonzero(cut == place)[0])

    def _example(
        self,
        image: RgbImage,
        masks: BoolArray,
        target: int,
        click: Click,
        scene: BoolArray,
        generator: np.random.Generator,
    ) -> Example:
        size = (image.shape[0], image.shape[1])
        valid = self.frame.valid(size)
        (scale_x, scale_y), (shift_x, shift_y) = self.frame.scale(size), self.frame.offset(size)
        first = (click.x * scale_x + shift_x, click.y * scale_y + shift_y)
        own = masks[target]
        more = random_clicks(own, valid, scene & ~own, generator, MOST if self.random else 0)
        return Example(
            input=torch.from_numpy(np.ascontiguousarray(self.network_input(image))),
            valid=valid,
            masks=masks,
            target=target,
            first=first,
            clicks=(Click(*self._cell(first, size), True), *more),
        )

    def _usable_view(
        self, sampled: SampledScene, planes: BoolArray, supervised: int, generator: np.random.Generator
    ) -> tuple[View, BoolArray]:
        """A view that has the click region and enough of the supervised mask, and the masks on its grid.

        After a few draws it is the whole image, where the mask may be small, but is there.
        """
        for draw in range(_DRAWS + 1):
            view = self._view(sampled, generator) if draw < _DRAWS else self._fixed(sampled, 0)
            seen = view.planes(planes)
            masks = self.frame.masks(seen)
            if seen[-1].any() and masks[supervised].sum() >= _SMALLEST_TARGET:
                return view, masks
        masks[supervised] |= self._at_least_a_cell(seen[supervised])
        return view, masks

    def _at_least_a_cell(self, mask: BoolArray) -> BoolArray:
        """The cell that has most of a mask too small for the grid's rule."""
        y, x = np.argwhere(mask)[mask.sum() // 2]
        size = (mask.shape[0], mask.shape[1])
        scale_x, scale_y = self.frame.scale(size)
        column, row = self._cell((x * scale_x, y * scale_y), size)
        cells = np.zeros((self.frame.grid, self.frame.grid), dtype=np.bool_)
        cells[row, column] = True
        return cells

    def _cell(self, point: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
        """(column, row) of a point in pixels of the input, among the cells of an image of this size."""
        height, width = self.frame.inner(size)  # rounded: the image may end within its last cell's neighbour
        column, row = (int((place + 0.5) / STRIDE) for place in point)
        return min(column, width - 1), min(row, height - 1)

    def _view(self, sampled: SampledScene, generator: np.random.Generator) -> View:
        if self.augmentation.views:
            return self._fixed(sampled, int(generator.integers(self.augmentation.views)))
        return draw_view((sampled.scene.height, sampled.scene.width), self.augmentation, generator)

    def _fixed(self, sampled: SampledScene, view: int) -> View:
        name = hashlib.sha256(sampled.scene.image_id.encode()).digest()[:8]
        seed = (_FIXED_SEED, int.from_bytes(name, "little"))
        return fixed_view((sampled.scene.height, sampled.scene.width), self.augmentation, view, seed)

    def _image(self, source: Shards, sampled: SampledScene) -> RgbImage:
        path = _path(source, sampled.scene.file_name)
        image = read_rgb(path)
        if image.shape[:2] != (sampled.scene.height, sampled.scene.width):
            raise InputError(
                f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but the masks of image "
                f"{sampled.scene.image_id} have {sampled.scene.width} x {sampled.scene.height}; use the images "
                "that the shards were made for"
            )
        return image

    @staticmethod
    def _first_click(region: BoolArray, generator: np.random.Generator) -> Click:
        places = np.flatnonzero(region)
        y, x = divmod(int(places[int(generator.integers(len(places)))]), region.shape[1])
        return Click(x, y, True)


def _path(source: Shards, file_name: str) -> Path:
    if not source.images:
        from disbench.datasets.photos import photo_path  # noqa: PLC0415

        return photo_path(file_name)
    path = find_image(Path(source.images), file_name)
    if path is None:
        raise InputError(f"{file_name}: no such image in {source.images}; give the folder that has it")
    return path


def collate(examples: Sequence[Example]) -> Batch:
    """A batch of examples."""
    first = torch.tensor([[example.first] for example in examples], dtype=torch.float32)
    ones = torch.ones(len(examples), 1, dtype=torch.bool)
    masks = [torch.from_numpy(example.masks) for example in examples]
    return Batch(
        inputs=torch.stack([example.input for example in examples]),
        valid=torch.from_numpy(np.stack([example.valid for example in examples])),
        masks=masks,
        targets=torch.stack([own[example.target] for own, example in zip(masks, examples, strict=True)]),
        first=ClickBatch(first, ones, ones),
        clicks=[example.clicks for example in examples],
    )


def refinement_clicks(first: ClickBatch, clicks: Sequence[Sequence[Click]]) -> ClickBatch:
    """All clicks of stage 2 in pixels of the input: the first as it fell, the others at their cells' centers.

    Args:
        first: the first clicks, pixels of the input.
        clicks: of each sample in cells, the first one among them.
    """
    middle = (STRIDE - 1) / 2
    found = click_batch(clicks, [(STRIDE, STRIDE)] * len(clicks), [(middle, middle)] * len(clicks))
    points = found.points
    points[:, 0] = first.points[:, 0].to(points.device)
    return ClickBatch(points, found.positive, found.given).to(first.points.device)
