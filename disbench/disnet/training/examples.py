"""Training examples from shards: a view of an image, its diverse set on the mask grid, and the first clicks.

Views follow section 4.2 of the paper; random clicks for stage 2 are sampled as in RITM.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from disbench.core.arrays import BoolArray, IntArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError, opencv, quote
from disbench.core.masks import decode, union
from disbench.core.prediction import RgbImage
from disbench.core.scenes import SampledScene, Scene, SetOfObjects
from disbench.disnet.batches import STRIDE, ClickBatch, Frame, click_batch
from disbench.disnet.network import NetworkInput
from disbench.disnet.training.losses import distinct, select_masks
from disbench.disnet.training.settings import Augmentation, Shards, Training
from disbench.io import definitions
from disbench.io.files import file_sha256
from disbench.shards.reader import DiverseSets, ShardReader, diverse_set, resolve_images
from disbench.shards.training_set import read_image

MOST = 24  # maximum number of random clicks of one sign
GAMMA = 0.8  # ratio of the probabilities of n + 1 and n clicks
NEGATIVE_KINDS = ("background", "other", "border")
NEGATIVE_SHARES = (0.1, 0.4, 0.5)
BORDER_SHARE = 0.1  # width of the band for border clicks, relative to the square root of the object's area


@dataclass(frozen=True, slots=True)
class View:
    """A view of an image: a crop in pixels, then flips.

    Attributes:
        brightness: offset, as a fraction of the full range.
        contrast: factor around mid-grey.
    """

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False
    upside_down: bool = False
    brightness: float = 0.0
    contrast: float = 1.0

    def planes(self, planes: BoolArray) -> BoolArray:
        """Masks in the view: bool (k, height, width), from the image's size to the crop's."""
        return np.ascontiguousarray(self._seen(planes))

    def _seen(self, planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        cut = planes[:, self.top : self.top + self.height, self.left : self.left + self.width]
        return cut[:, :: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]

    def image(self, image: RgbImage) -> RgbImage:
        """The image in the view: uint8 (height, width, 3), from the image's size to the crop's."""
        cut = self._seen(np.moveaxis(image, -1, 0)).transpose(1, 2, 0)
        if self.brightness == 0.0 and self.contrast == 1.0:
            return np.ascontiguousarray(cut)
        levels = (cut.astype(np.float32) - 127.5) * self.contrast + 127.5 + 255 * self.brightness
        return np.ascontiguousarray(levels.round().clip(0, 255).astype(np.uint8))


def draw_view(size: tuple[int, int], augmentation: Augmentation, generator: np.random.Generator) -> View:
    """A random view of an image of this size (height, width), pixels."""
    shares = generator.uniform(augmentation.smallest_crop, 1.0, size=2)
    height, width = (max(1, round(side * float(share))) for side, share in zip(size, shares, strict=True))
    return View(
        top=int(generator.integers(size[0] - height + 1)),
        left=int(generator.integers(size[1] - width + 1)),
        height=height,
        width=width,
        mirrored=bool(generator.random() < augmentation.horizontal_flip),
        upside_down=bool(generator.random() < augmentation.vertical_flip),
        brightness=float(generator.uniform(-1, 1)) * augmentation.brightness,
        contrast=1.0 + float(generator.uniform(-1, 1)) * augmentation.contrast,
    )


def fixed_view(size: tuple[int, int], augmentation: Augmentation, number: int, seed: tuple[int, ...]) -> View:
    """View `number` of an image: 0 is the image, 1 its mirror image, others are random and depend only on `seed`."""
    if number < 2:
        return View(0, 0, size[0], size[1], mirrored=number == 1)
    return draw_view(size, augmentation, np.random.default_rng([*seed, number]))


def random_clicks(
    target: BoolArray, valid: BoolArray, others: BoolArray, generator: np.random.Generator, most: int = MOST
) -> list[Click]:
    """Random positive and negative clicks, independent of any prediction (section 4.2; as in RITM).

    Draws 0 to `most` clicks per sign; the probability of n clicks is proportional to `GAMMA` ** n. Positive clicks are
    uniform over the object. A negative click is drawn from the background, from another object of the image, or from
    a band around the object, and skipped if that region is empty.

    Args:
        target: bool (h, w), the object.
        valid: bool (h, w), cells of the image that are not ignored.
        others: bool (h, w), the union of the image's other objects.
        generator: source of all random draws.
        most: maximum number of clicks of one sign.

    Returns:
        The clicks, in cells, in random order.
    """
    weights = GAMMA ** np.arange(most + 1)
    positives, negatives = generator.choice(most + 1, size=2, p=weights / weights.sum())
    clicks = [_drawn(target & valid, True, generator) for _ in range(int(positives))]
    outside = valid & ~target
    regions = {"background": outside, "other": others & outside}
    if negatives:
        regions["border"] = _band(target) & outside
    for kind in generator.choice(NEGATIVE_KINDS, size=int(negatives), p=NEGATIVE_SHARES):
        clicks.append(_drawn(regions[str(kind)], False, generator))
    found = [click for click in clicks if click is not None]
    return [found[number] for number in generator.permutation(len(found))]


def _drawn(region: BoolArray, positive: bool, generator: np.random.Generator) -> Click | None:
    places = np.flatnonzero(region)
    if not len(places):
        return None
    y, x = divmod(int(places[int(generator.integers(len(places)))]), region.shape[1])
    return Click(x, y, positive=positive)


def _band(target: BoolArray) -> BoolArray:
    cv2 = opencv()
    reach = max(1, round(BORDER_SHARE * float(np.sqrt(target.sum()))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    grown: BoolArray = cv2.dilate(target.astype(np.uint8), kernel) > 0
    return grown & ~target


_FIXED_SEED = 0  # fixed views do not depend on the training's seed, so that cached features can be shared
_COCO = re.compile(r"(?:COCO_(?:train|val)201[47]_)?(\d{12})")
_DRAWS = 8
_SMALLEST_TARGET = 16  # cells; a view with less of the supervised mask is drawn again


@dataclass(frozen=True, slots=True)
class Example:
    """One diverse set as seen by the network.

    Attributes:
        input: the network's input for the view: an encoding, or the image in its frame.
        valid: bool (grid, grid), the cells inside the image.
        masks: bool (k, grid, grid), the set, inner to outer; k is at most the number of candidates.
        target: index of the mask that supervises stage 2.
        first: the first click, (x, y) in input pixels.
        clicks: the first click and the random clicks, in cells of the grid.
    """

    input: Tensor
    valid: BoolArray
    masks: BoolArray
    target: int
    first: tuple[float, float]
    clicks: tuple[Click, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of examples; `targets`, bool (batch, grid, grid), are the masks that supervise stage 2."""

    inputs: Tensor
    valid: Tensor
    masks: list[Tensor]
    targets: Tensor
    first: ClickBatch
    clicks: list[tuple[Click, ...]]

    def signed_targets(self) -> npt.NDArray[np.int8]:
        """Targets for the click simulator: int8 (batch, grid, grid), -1 outside the image."""
        signed = self.targets.cpu().numpy().astype(np.int8)
        signed[~self.valid.cpu().numpy()] = -1
        return signed

    def rows(self, rows: Sequence[int]) -> Batch:
        """Some of the examples."""
        own, first = list(rows), self.first.rows(torch.tensor(rows))
        masks, clicks = [self.masks[row] for row in own], [self.clicks[row] for row in own]
        return Batch(self.inputs[own], self.valid[own], masks, self.targets[own], first, clicks)

    def to(self, device: torch.device | str) -> Batch:
        """Move to a device."""
        parts = [part.to(device) for part in (self.inputs, self.valid, self.targets)]
        masks, first = [masks.to(device) for masks in self.masks], self.first.to(device)
        return Batch(parts[0], parts[1], masks, parts[2], first, self.clicks)


class Examples(Dataset[Example]):
    """Map-style dataset over one or more folders of shards.

    Random draws depend only on the seed, the epoch and the item: any number of loader workers gives the same examples.
    An item is (epoch, number), from an `EpochSampler`. Sets with more masks than candidates are cut. Unless
    `later_clicks` is "random", `clicks` contains only the first click.
    """

    def __init__(self, training: Training, frame: Frame, network_input: NetworkInput) -> None:
        self.frame, self.network_input, self.augmentation = frame, network_input, training.augmentation
        self.outputs, self.seed = training.network.options.outputs, training.seed
        self.most = MOST if training.later_clicks == "random" else 0
        self._sets = [DiverseSets(source.folder) for source in training.shards]
        pairs = list(zip(self._sets, training.shards, strict=True))
        self._find = [resolve_images(sets.reader, source.images or None) for sets, source in pairs]
        self._numbers: list[IntArray] = []  # indices of the sets in an epoch, repeated `times`
        for sets, source in pairs:
            taken = [fnmatchcase(name, source.only) for name in sets.reader.names()[1]]
            numbers = np.flatnonzero(np.repeat(taken, sets.reader.sets_per_scene()))
            self._numbers.append(np.tile(numbers, source.times))
        self._starts = np.cumsum([0, *(len(numbers) for numbers in self._numbers)])
        if not len(self):
            raise InputError("no diverse set in the training's shards; sample again")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, item: tuple[int, int]) -> Example:
        epoch, number = item
        generator = np.random.default_rng([self.seed, epoch, number])
        source = int(np.searchsorted(self._starts, number, side="right")) - 1
        sampled, place = self._sets[source].locate(int(self._numbers[source][number - int(self._starts[source])]))
        return self._example(sampled, sampled.sets[place], self._image(source, sampled.scene), generator)

    def _image(self, source: int, scene: Scene) -> RgbImage:
        return read_image(self._find[source], scene.file_name, scene.image_id, (scene.height, scene.width))

    def _example(
        self, sampled: SampledScene, chosen: SetOfObjects, image: RgbImage, generator: np.random.Generator
    ) -> Example:
        whole = diverse_set(sampled.scene, chosen)
        planes = np.stack([decode(rle) for rle in (*whole.masks, whole.click_region)])
        supervised = int(generator.integers(len(whole.masks)))
        view, masks = self._usable_view(sampled, planes, supervised, generator)
        own, target = self._cut(masks[:-1], supervised, generator)
        seen = view.image(image)
        size = (seen.shape[0], seen.shape[1])
        valid = self.frame.valid(size)
        first = self._first_click(view.planes(planes[-1:])[0], generator)
        everything = view.planes(decode(union([item.rle for item in sampled.scene.objects]))[None])
        others = self.frame.masks(everything)[0] & ~own[target]
        more = random_clicks(own[target], valid, others, generator, self.most)
        return Example(
            input=torch.from_numpy(np.ascontiguousarray(self.network_input(seen))),
            valid=valid,
            masks=own,
            target=target,
            first=first,
            clicks=(Click(*self._cell(first, size), True), *more),
        )

    def _cut(self, masks: BoolArray, supervised: int, generator: np.random.Generator) -> tuple[BoolArray, int]:
        """The distinct masks of a set, at most N, and the index of the supervised mask among them."""
        left = masks[distinct(masks)]
        place = next(n for n, mask in enumerate(left) if np.array_equal(mask, masks[supervised]))
        cut = select_masks(left, place, self.outputs, generator)
        return left[cut], int(np.flatnonzero(cut == place)[0])

    def _usable_view(
        self, sampled: SampledScene, planes: BoolArray, supervised: int, generator: np.random.Generator
    ) -> tuple[View, BoolArray]:
        """A view with the click region and enough of the supervised mask, and the masks on its grid.

        After a few failed draws, the whole image, where the mask gets at least one cell.
        """
        size, views = (planes.shape[1], planes.shape[2]), self.augmentation.views
        drawn = (self.augmentation, generator)
        for _ in range(_DRAWS):
            view = self._fixed(sampled, int(generator.integers(views))) if views else draw_view(size, *drawn)
            seen = view.planes(planes)
            masks = self.frame.masks(seen)
            if seen[-1].any() and masks[supervised].sum() >= _SMALLEST_TARGET:
                return view, masks
        masks = self.frame.masks(planes)
        if masks[supervised].sum() < _SMALLEST_TARGET:  # the cell with the mask's middle pixel
            y, x = np.argwhere(planes[supervised])[planes[supervised].sum() // 2]
            scale_x, scale_y = self.frame.scale(size)
            column, row = self._cell((x * scale_x, y * scale_y), size)
            masks[supervised, row, column] = True
        return self._fixed(sampled, 0), masks

    def _cell(self, point: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
        """(column, row) of a point in input pixels, clamped to the cells of an image of this size."""
        height, width = self.frame.inner(size)
        column, row = (int((place + 0.5) / STRIDE) for place in point)
        return min(column, width - 1), min(row, height - 1)

    def _fixed(self, sampled: SampledScene, view: int) -> View:
        name = hashlib.sha256(sampled.scene.image_id.encode()).digest()[:8]
        seed = (_FIXED_SEED, int.from_bytes(name, "little"))
        return fixed_view((sampled.scene.height, sampled.scene.width), self.augmentation, view, seed)

    def _first_click(self, region: BoolArray, generator: np.random.Generator) -> tuple[float, float]:
        """A random pixel of a region of the view, in input pixels."""
        size = (region.shape[0], region.shape[1])
        (scale_x, scale_y), (shift_x, shift_y) = self.frame.scale(size), self.frame.offset(size)
        places = np.flatnonzero(region)
        y, x = divmod(int(places[int(generator.integers(len(places)))]), size[1])
        return x * scale_x + shift_x, y * scale_y + shift_y


class EpochSampler(Sampler[tuple[int, int]]):
    """Items `start` to `stop` - 1, (epoch, number), in an order that depends only on the seed and the epoch.

    `length` is the number of examples; `share` is (rank, number of processes), which take items in turn.
    """

    def __init__(self, length: int, seed: int, start: int, stop: int, share: tuple[int, int] = (0, 1)) -> None:
        self.length, self.seed, self.start, self.stop, self.share = length, seed, start, stop, share

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, processes = self.share
        current, order = -1, np.empty(0, dtype=np.int64)
        for place in range(self.start, self.stop):
            epoch, number = divmod(place * processes + rank, self.length)
            if epoch != current:
                current, order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.length)
            yield epoch, int(order[number])


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
    """Convert stage 2's clicks from cells to input pixels: `first` for the first click, cell centers for the others."""
    middle = (STRIDE - 1) / 2
    found = click_batch(clicks, [(STRIDE, STRIDE)] * len(clicks), [(middle, middle)] * len(clicks))
    points = found.points
    points[:, 0] = first.points[:, 0].to(points.device)
    return ClickBatch(points, found.positive, found.given).to(first.points.device)


def refuse_measured_images(sources: Sequence[Shards]) -> None:
    """Check that training shards contain no benchmark or validation image.

    These are the images of GrabCut, Berkeley, DAVIS, COCO_MVal, `instances_val.json`, and the splits clothing-parts-300
    and clothing-parts-validation. COCO images are identified by number, others by name and content.

    Raises:
        InputError: names the shards and the first such image.
    """
    lines = (definitions.folder("datasets") / "measured-images.txt").read_text(encoding="utf-8").splitlines()
    measured: dict[str, set[str]] = {}
    for name, *digest in (line.split() for line in lines if not line.startswith("#")):
        measured.setdefault(name, set()).update(digest)
    for source in sources:
        reader = ShardReader(Path(source.folder))
        find = resolve_images(reader, source.images or None)
        for file_name in dict.fromkeys(reader.names()[1]):
            if not fnmatchcase(file_name, source.only):
                continue
            stem = PurePosixPath(file_name).stem
            found = _COCO.fullmatch(stem)
            name = found[1] if found else stem
            if name not in measured:
                continue
            path = None if found else find(file_name)
            if found or (path is not None and file_sha256(path) in measured[name]):
                raise InputError(
                    f"{source.folder}: image {quote(file_name)} is a benchmark or validation image (see "
                    "datasets/measured-images.txt); exclude it from the shards or by `only`, or set allow_measured"
                )
