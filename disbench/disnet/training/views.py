"""Views of an image: a crop, perhaps flipped, with changed brightness and contrast (paper, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray
from disbench.core.prediction import RgbImage
from disbench.disnet.training.settings import Augmentation


@dataclass(frozen=True, slots=True)
class View:
    """A view of an image: first a crop in pixels, then flips.

    Attributes:
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
        """Masks in the view: bool (k, height, width) of the image's size to the crop's."""
        return np.ascontiguousarray(self._seen(planes))

    def _seen(self, planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        cut = planes[:, self.top : self.top + self.height, self.left : self.left + self.width]
        return cut[:, :: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]

    def image(self, image: RgbImage) -> RgbImage:
        """The image in the view: uint8 (height, width, 3) to the crop's size."""
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
    """View `number` of an image: 0 the image itself, 1 its mirror, then random ones that depend on the seed alone."""
    if number < 2:
        return View(0, 0, size[0], size[1], mirrored=number == 1)
    return draw_view(size, augmentation, np.random.default_rng([*seed, number]))
