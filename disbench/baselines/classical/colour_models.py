"""Colour models of object and background, learned from the pixels under the seeds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from disbench.baselines.classical.seeds import SignMap
from disbench.core.arrays import BoolArray, FloatArray
from disbench.core.opencv import opencv
from disbench.core.prediction import RgbImage

BINS = 32
FLOOR = 0.05


def lab(image: RgbImage) -> npt.NDArray[np.uint8]:
    """The image in CIE L*a*b*, each channel scaled to 8 bits as OpenCV does."""
    cv2 = opencv()
    converted: npt.NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    return converted


def colour_bins(image: RgbImage) -> npt.NDArray[np.intp]:
    """The bin of each pixel's colour: L*a*b* in 32 x 32 x 32 bins; (height, width), from 0 to 32 ** 3 - 1."""
    quantised = lab(image).astype(np.intp) * BINS // 256
    return (quantised[..., 0] * BINS + quantised[..., 1]) * BINS + quantised[..., 2]


def log_likelihood(bins: npt.NDArray[np.intp], chosen: BoolArray, bandwidth: float) -> FloatArray:
    """Each pixel's log-likelihood under the colours of the chosen ones, at least one: float64 (height, width).

    The natural logarithm of the bin's probability in a kernel density estimate: the histogram, smoothed by a Gaussian
    of `bandwidth` 8-bit levels, and mixed with a uniform density (0.05), so that an unseen colour has a likelihood.
    """
    from scipy import ndimage  # noqa: PLC0415  (slow to load)

    counts = np.bincount(bins[chosen], minlength=BINS**3).reshape(BINS, BINS, BINS) / chosen.sum()
    smooth = ndimage.gaussian_filter(counts, bandwidth * BINS / 256, mode="nearest").ravel()
    density: FloatArray = np.log((1 - FLOOR) * smooth + FLOOR / BINS**3)
    found: FloatArray = density[bins]
    return found


def log_likelihood_ratio(bins: npt.NDArray[np.intp], seeds: SignMap, bandwidth: float) -> FloatArray:
    """ln(Pr(colour | object) / Pr(colour | background)) of each pixel; `seeds` has pixels of both signs."""
    return log_likelihood(bins, seeds > 0, bandwidth) - log_likelihood(bins, seeds < 0, bandwidth)
