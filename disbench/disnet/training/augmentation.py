"""What training draws at random: views of an image (paper, section 4.2), and clicks for stage 2, as RITM does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.opencv import opencv
from disbench.core.prediction import RgbImage
from disbench.disnet.training.settings import Augmentation

MOST = 24
"""Random clicks of one sign, at most."""
GAMMA = 0.8
"""Each number of clicks is this much less likely than the one before."""
NEGATIVE_KINDS = ("background", "other", "border")
NEGATIVE_SHARES = (0.1, 0.4, 0.5)
BORDER_SHARE = 0.1
"""Width of the band around the object for border clicks, as a share of the square root of its area."""


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


def random_clicks(
    target: BoolArray, valid: BoolArray, others: BoolArray, generator: np.random.Generator, most: int = MOST
) -> list[Click]:
    """Random positive and negative clicks, independent of any prediction (section 4.2; the rule is RITM's).

    For each sign 0 to `most` clicks, each number less likely than the one before by `GAMMA`. Positive clicks are
    uniform over the object. A negative click is drawn from the background, from another object of the image, or from
    a band around the object, and left out if there is no such pixel.

    Args:
        target: bool (h, w), the object.
        valid: bool (h, w), cells of the image that are not ignored.
        others: bool (h, w), the union of the image's other objects.
        generator: source of all draws.
        most: largest number of clicks of one sign.

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
