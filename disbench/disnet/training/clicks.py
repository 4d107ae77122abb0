"""Random clicks for stage 2 in training, drawn as RITM does."""

from __future__ import annotations

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.opencv import opencv

MOST = 24
"""Random clicks of one sign, at most."""
GAMMA = 0.8
"""Each number of clicks is this much less likely than the one before."""
NEGATIVE_KINDS = ("background", "other", "border")
NEGATIVE_SHARES = (0.1, 0.4, 0.5)
BORDER_SHARE = 0.1
"""Width of the band around the object for border clicks, as a share of the square root of its area."""


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
