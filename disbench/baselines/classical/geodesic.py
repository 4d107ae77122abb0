"""Geodesic segmentation, with scikit-image's minimum-cost paths.

Bai and Sapiro, "A geodesic framework for fast interactive image and video segmentation and matting", ICCV 2007.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from disbench.baselines.classical.seeds import (
    Bandwidth,
    Frame,
    Radius,
    SeededMethod,
    Side,
    SignMap,
    Solver,
    colour_bins,
    lab,
    log_likelihood_ratio,
)
from disbench.core.arrays import BoolArray, FloatArray
from disbench.core.prediction import RgbImage
from disbench.io.settings import Bounds

Weight = Literal["likelihood", "colour"]


@dataclass(frozen=True)
class Geodesic(SeededMethod):
    """Assigns each pixel to the seeds with the smaller geodesic distance.

    Attributes:
        weight: edges are changes of the object likelihood under the seeds' colours (`likelihood`, as in the paper) or
            of the colour itself (`colour`).
        step: path cost of a pixel without an edge; the strongest edge costs 1.
        frame: when the image's outermost pixels are background seeds.
    """

    max_side: Side = 320
    radius: Radius = 3.0
    weight: Weight = "likelihood"
    bandwidth: Bandwidth = 10.0
    step: Annotated[float, Bounds(1e-6, 1)] = 0.001
    frame: Frame = "always"

    def prepared(self, working: RgbImage) -> Solver:  # noqa: D102
        bins = colour_bins(working)
        edges = gradient(lab(working) / 255.0) if self.weight == "colour" else None

        def compare(seeds: SignMap) -> FloatArray:
            if edges is not None:
                return nearness(edges + self.step, seeds)
            ratio = log_likelihood_ratio(bins, seeds, self.bandwidth)
            object_share = 1 / (1 + np.exp(-ratio))  # posterior of the object for equal priors
            return nearness(gradient(object_share[..., None]) + self.step, seeds)

        return compare


def gradient(values: FloatArray) -> FloatArray:
    """Gradient magnitude over all channels by central differences: (height, width) from (height, width, channels)."""
    squares = np.zeros(values.shape[:2])
    for axis in (0, 1):
        if values.shape[axis] > 1:
            squares += (np.gradient(values, axis=axis) ** 2).sum(axis=-1)
    return np.sqrt(squares)


def geodesic_distance(cost: FloatArray, sources: BoolArray) -> FloatArray:
    """Length of the cheapest 8-connected path from any source, for a cost > 0 per pixel."""
    from skimage.graph import MCP_Geometric  # noqa: PLC0415  (slow to load)

    distances: FloatArray = MCP_Geometric(cost).find_costs(np.argwhere(sources).tolist())[0]
    return distances


def nearness(cost: FloatArray, seeds: SignMap) -> FloatArray:
    """d_background / (d_object + d_background): above 0.5 where the object's seeds are nearer.

    `cost` is (height, width), > 0; `seeds` contains both signs, where the result is 1 and 0.
    """
    to_object = geodesic_distance(cost, seeds > 0)
    to_background = geodesic_distance(cost, seeds < 0)
    return to_background / (to_object + to_background)
