"""Random walker (Grady, "Random walks for image segmentation", TPAMI 28(11), 2006), with scikit-image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np

from disbench.baselines.classical.seeds import Frame, Radius, SeededMethod, Side, SignMap, Solver
from disbench.core.arrays import FloatArray
from disbench.core.prediction import RgbImage
from disbench.io.settings import Bounds


@dataclass(frozen=True)
class RandomWalker(SeededMethod):
    """The probability that a random walk from a pixel reaches an object seed first.

    Attributes:
        beta: penalty of colour differences (the paper's only parameter; scikit-image divides the squared differences
            by ten times the image's standard deviation).
        frame: when the image's outermost pixels are background seeds.
    """

    max_side: Side = 256
    radius: Radius = 3.0
    beta: Annotated[float, Bounds(0)] = 130.0
    frame: Frame = "always"

    def prepared(self, working: RgbImage) -> Solver:  # noqa: D102
        scaled = working / 255.0
        if working.min() == working.max():  # scikit-image divides by the standard deviation, where 0 gives NaN
            scaled[0, 0] += 1e-6
        return partial(self.probabilities, scaled)

    def probabilities(self, image: FloatArray, seeds: SignMap) -> FloatArray:
        """The object's probability at each pixel (the paper's Dirichlet problem): (height, width) in [0, 1].

        Seeds of the object are 1, of the background 0. Uses the direct solver: conjugate gradients are slow and leave
        errors of 0.01, since weights across strong edges are as small as 1e-10.
        """
        from skimage.segmentation import random_walker  # noqa: PLC0415  (slow to load)

        if seeds.all():
            return (seeds > 0).astype(np.float64)
        labels = np.where(seeds > 0, 1, np.where(seeds < 0, 2, 0))
        both = random_walker(image, labels, beta=self.beta, mode="bf", return_full_prob=True, channel_axis=-1)
        found: FloatArray = np.clip(both[0], 0, 1)
        return found
