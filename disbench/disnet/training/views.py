"""Augmentation: a crop of an image, perhaps flipped, with other brightness and contrast (paper, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray
from disbench.core.errors import InputError
from disbench.core.prediction import RgbImage


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What views are drawn from.

    Attributes:
        smallest_crop: of a crop's sides, as a share of the image's, drawn uniformly from here to 1.
        horizontal_flip: probability.
        vertical_flip: probability.
        brightness: the largest change, as a share of the full range, either way.
        contrast: the largest change of the factor, either way.
        views: how many fixed views an image has, the image itself and its mirror first; 0 draws afresh each time.
            A frozen encoder's features can be kept for fixed views alone.

    Raises:
        InputError: a value out of its range.
    """

    smallest_crop: float = 0.5
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    views: int = 0

    def __post_init__(self) -> None:
        for name in ("smallest_crop", "horizontal_flip", "vertical_flip", "brightness", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} = {getattr(self, name)}; it lies from 0 to 1")
        if not self.smallest_crop or self.views < 0:
            raise InputError("smallest_crop is above 0, and views is 0 or more")


@dataclass(frozen=True, slots=True)
class View:
    """One way to see an image.

    Attributes:
        top: first row of the crop, pixels.
        left: first column.
        height: of the crop.
        width: of the crop.
        mirrored: left and right change places.
        upside_down: top and bottom change places.
        brightness: added, as a share of the full range.
        contrast: factor about the middle grey.
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
        """Masks as the view has them: bool (k, height, width) of the image's size to the crop's."""
        return np.ascontiguousarray(self._seen(planes))

    def _seen(self, planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        cut = planes[:, self.top : self.top + self.height, self.left : self.left + self.width]
        return cut[:, :: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]

    def image(self, image: RgbImage) -> RgbImage:
        """The image as the view has it: uint8 (height, width, 3) to the crop's size."""
        cut = self._seen(np.moveaxis(image, -1, 0)).transpose(1, 2, 0)
        if self.brightness == 0.0 and self.contrast == 1.0:
            return np.ascontiguousarray(cut)
        levels = (cut.astype(np.float32) - 127.5) * self.contrast + 127.5 + 255 * self.brightness
        return np.ascontiguousarray(levels.round().clip(0, 255).astype(np.uint8))


def draw_view(size: tuple[int, int], augmentation: Augmentation, generator: np.random.Generator) -> View:
    """A view, drawn.

    Args:
        size: (height, width) of the image, pixels.
        augmentation: what it is drawn from.
        generator: decides the draws.
    """
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
    """View `number` of an image: 0 the image itself, 1 its mirror, then drawn ones that the seed decides."""
    if number < 2:
        return View(0, 0, size[0], size[1], mirrored=number == 1)
    return draw_view(size, augmentation, np.random.default_rng([*seed, number]))
