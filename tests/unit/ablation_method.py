"""What an ablation in miniature measures; apart from its training, so that a worker loads no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.core.clicks import Click
from disbench.core.prediction import Prediction


class Reads:
    """Discs whose radius is what the "network" and the options say; scores are none."""

    def __init__(self, checkpoint: str = "", refine_first: bool = False, mca: bool = True, **_: Any) -> None:
        trained = json.loads(Path(checkpoint).read_text())
        assert trained["mca"] == mca, "a run declares what its network is"
        self.radius = 4 + 4 * mca + trained["training_seed"] - 2 * refine_first

    def open(self, image: npt.NDArray[np.uint8]) -> Reads:
        self.rows, self.columns = np.mgrid[: image.shape[0], : image.shape[1]]
        return self

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        mask = np.zeros(self.rows.shape, dtype=np.bool_)
        for click in clicks:
            disc = (self.rows - click.y) ** 2 + (self.columns - click.x) ** 2 <= self.radius**2
            mask = mask | disc if click.positive else mask & ~disc
        return Prediction(mask[None])
