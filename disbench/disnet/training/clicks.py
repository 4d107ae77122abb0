"""Clicks of stage 2 in training: random ones as RITM draws them, then corrective ones on the current prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click, next_click
from disbench.core.opencv import opencv

MOST = 24
"""Random clicks of one sign, at most."""
GAMMA = 0.8
"""Each further click is this much less likely."""
NEGATIVE_KINDS = ("background", "other", "border")
NEGATIVE_SHARES = (0.1, 0.4, 0.5)
BORDER_SHARE = 0.1
"""Width of the band around the object where border clicks fall, as a share of the square root of its area."""


def random_clicks(
    target: BoolArray,
    valid: BoolArray,
    others: BoolArray,
    generator: np.random.Generator,
    most: int = MOST,
) -> list[Click]:
    """Random positive and negative clicks, without regard to any prediction (METHOD: training clicks of stage 2).

    Of each sign 0 to `most`, each number less likely than the one before by `GAMMA`. Positive ones are uniform
    over the object. A negative one is drawn from the background, from another object of the image, or from a
    band around the object; where its kind has no pixel, it is left out.

    Args:
        target: bool (h, w), the object.
        valid: bool (h, w), cells of the image that are not ignored.
        others: bool (h, w), the union of the image's other objects.
        generator: decides the draws.
        most: clicks of one sign, at most.

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


def corrective_clicks(
    targets: npt.NDArray[np.int8], predictions: BoolArray, clicks: Sequence[Sequence[Click]]
) -> list[Click]:
    """The protocol's next click on each sample (`disbench.core.clicks.next_click`).

    Args:
        targets: int8 (batch, h, w), 1 object, 0 background, -1 ignored or beyond the image.
        predictions: bool (batch, h, w).
        clicks: of each sample so far, in cells.
    """
    return [
        next_click(target, prediction, given)
        for target, prediction, given in zip(targets, predictions, clicks, strict=True)
    ]


def _drawn(region: BoolArray, positive: bool, generator: np.random.Generator) -> Click | None:
    places = np.flatnonzero(region)
    if not len(places):
        return None
    y, x = divmod(int(places[int(generator.integers(len(places)))]), region.shape[1])
    return Click(x, y, positive=positive)


def _band(target: BoolArray) -> BoolArray:
    """The pixels near the object, outside of it."""
    cv2 = opencv()
    reach = max(1, round(BORDER_SHARE * float(np.sqrt(target.sum()))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    grown: BoolArray = cv2.dilate(target.astype(np.uint8), kernel) > 0
    return grown & ~target
