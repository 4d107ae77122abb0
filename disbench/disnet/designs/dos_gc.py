"""DOS with its graph cut: unary costs from the network's probabilities, boundary costs from colours.

Xu, Price, Cohen, Yang, Huang, "Deep Interactive Object Selection", CVPR 2016, section 3.3. Simplified: uses the graph
of the method `graph-cut` (Boykov and Jolly 2001), on an image of bounded size; clicked pixels are fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from disbench.baselines.classical.graph_cut import capacity_unit, minimum_cut, neighbour_links, terminal_links
from disbench.baselines.classical.seeds import at_image_size, seed_discs, shrink
from disbench.core.arrays import BoolArray, Float32Array
from disbench.core.clicks import Click
from disbench.core.errors import opencv
from disbench.core.prediction import Method, Prediction, RgbImage, Session
from disbench.disnet.method import Label, design

LEAST = 1e-3  # lower bound of p and 1 - p for pixels that are not clicked


def dos_gc(
    checkpoint: str = "",
    max_side: int = 512,
    gamma: float = 10.0,
    weights: str = "",
    cache: str = "",
    device: str = "cpu",
    **labels: Label,
) -> GraphCutMethod:
    """The design `dos` with a graph cut; other arguments and errors as for `design`.

    `max_side` is the long side of the working image, pixels (0: the image's own size); `gamma` is the weight of the
    boundary relative to the network's log odds.
    """
    network = design(checkpoint, weights=weights, cache=cache, device=device, **labels)
    return GraphCutMethod(network, max_side, gamma)


class GraphCutMethod:
    """A method whose mask of probabilities is turned into the final mask by a graph cut."""

    def __init__(self, inner: Method, max_side: int, gamma: float) -> None:
        self.inner, self.max_side, self.gamma = inner, max_side, gamma

    def open(self, image: RgbImage) -> GraphCutSession:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return GraphCutSession(self, image, self.inner.open(image))


class GraphCutSession:
    """One image being segmented with one sequence of clicks."""

    def __init__(self, method: GraphCutMethod, image: RgbImage, inner: Session) -> None:
        working = shrink(image, method.max_side)
        self.inner, self._gamma, self._size, self._working = inner, method.gamma, image.shape[:2], working.shape[:2]
        self._unit = capacity_unit(working.shape[0] * working.shape[1], method.gamma)
        self._links = neighbour_links(working, method.gamma)

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One mask, bool (1, height, width)."""
        probabilities = self.inner.predict(clicks).masks[0]
        cut = self.cut(probabilities.astype(np.float32), clicks)
        return Prediction(at_image_size(cut, *self._size)[None])

    def cut(self, probabilities: Float32Array, clicks: Sequence[Click]) -> BoolArray:
        """The mask on the working image, from probabilities, float32 at the image's size."""
        rows, columns = self._working
        small = opencv().resize(probabilities, (columns, rows), interpolation=opencv().INTER_AREA)
        likely = np.clip(small.astype(np.float64), LEAST, 1 - LEAST)
        seeds = seed_discs(clicks, (self._size[0], self._size[1]), rows, columns, radius=0)
        terminals = terminal_links(np.log(likely / (1 - likely)), seeds, self._gamma, self._unit)
        return minimum_cut(terminals, self._links, self._unit, "scipy")
