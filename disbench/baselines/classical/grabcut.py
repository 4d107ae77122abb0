"""GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004), with OpenCV's `grabCut`, initialised from clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from disbench.baselines.classical.seeds import Radius, Side, SignMap, at_image_size, seed_discs, shrink
from disbench.core.arrays import BoolArray, ByteArray, FloatArray
from disbench.core.clicks import Click
from disbench.core.errors import opencv
from disbench.core.prediction import Prediction, RgbImage
from disbench.io.settings import Bounds, check_fields

Continuation = Literal["kept", "fresh"]

BACKGROUND, OBJECT, PROBABLY_BACKGROUND, PROBABLY_OBJECT = 0, 1, 2, 3  # OpenCV's pixel labels
MODEL_SIZE = 65  # numbers in one of OpenCV's models: five Gaussians with weight, mean and covariance
SEED = 0


@dataclass(frozen=True)
class GrabCut:
    """Alternates between fitting Gaussian mixtures of object and background and cutting the graph.

    Attributes:
        iterations: rounds of fitting and cutting per click.
        continuation: `kept`: a click continues from the previous labels and mixtures (the paper's user editing);
            `fresh`: every click starts over, with all clicks as seeds.
    """

    max_side: Side = 320
    radius: Radius = 3.0
    iterations: Annotated[int, Bounds(1, 1000)] = 5
    continuation: Continuation = "kept"

    def __post_init__(self) -> None:
        check_fields(self)

    def open(self, image: RgbImage) -> GrabCutSession:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return GrabCutSession(self, image)


class GrabCutSession:
    """One image being segmented; labels and mixtures carry over from click to click."""

    def __init__(self, method: GrabCut, image: RgbImage) -> None:
        self._method = method
        self._size: tuple[int, int] = image.shape[:2]
        self._image = np.ascontiguousarray(shrink(image, method.max_side)[..., ::-1])  # OpenCV's order, BGR
        self._seen: tuple[Click, ...] = ()
        self._labels: ByteArray | None = None
        self._models = _new_models()

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One candidate for all clicks so far, bool (1, height, width).

        Starts over if the clicks do not extend those of the previous call.
        """
        rows, columns = self._image.shape[:2]
        seeds = seed_discs(clicks, self._size, rows, columns, self._method.radius)
        if not (seeds > 0).any():
            self._seen, self._labels = (), None
            return Prediction(np.zeros((1, *self._size), dtype=bool))
        labels = self._update(tuple(clicks), seeds)
        return Prediction(at_image_size(_is_object(labels), *self._size)[None])

    def _update(self, clicks: tuple[Click, ...], seeds: SignMap) -> ByteArray:
        if self._labels is not None and clicks == self._seen:
            return self._labels
        follows = self._labels is not None and clicks[: len(self._seen)] == self._seen
        continues = follows and self._method.continuation == "kept"
        labels = _with_seeds(self._labels if continues else None, seeds)
        if continues and not _has_both(labels):
            continues, labels = False, _with_seeds(None, seeds)
        if not continues:
            self._models = _new_models()
        if _has_both(labels):
            cv2 = opencv()
            cv2.setRNGSeed(SEED)  # the initial k-means is random
            mode = cv2.GC_EVAL if continues else cv2.GC_INIT_WITH_MASK
            cv2.grabCut(self._image, labels, None, *self._models, self._method.iterations, mode)
        self._seen, self._labels = clicks, labels
        return labels


def _with_seeds(labels: ByteArray | None, seeds: SignMap) -> ByteArray:
    found = np.full(seeds.shape, PROBABLY_BACKGROUND, dtype=np.uint8) if labels is None else labels.copy()
    found[seeds > 0], found[seeds < 0] = OBJECT, BACKGROUND
    return found


def _is_object(labels: ByteArray) -> BoolArray:
    found: BoolArray = (labels == OBJECT) | (labels == PROBABLY_OBJECT)
    return found


def _has_both(labels: ByteArray) -> bool:
    found = _is_object(labels)
    return bool(found.any()) and not bool(found.all())


def _new_models() -> tuple[FloatArray, FloatArray]:
    """Empty mixtures of background and object, in OpenCV's order."""
    return np.zeros((1, MODEL_SIZE)), np.zeros((1, MODEL_SIZE))
