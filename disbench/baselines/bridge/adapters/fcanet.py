"""FCANet (Lin, Zhang, Chen, Cheng, Lu 2020), github.com/frazerlin/fcanet.

It keeps no state: every prediction is made from all clicks, and the first one weighs more. Thresholded at 0.5 by
its own code.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))


class Model:
    """A network and the function that asks it."""

    def __init__(self, core: Any, net: Any, integrity: bool, on_gpu: bool) -> None:
        self.core, self.net, self.integrity, self.on_gpu = core, net, integrity, on_gpu

    def open(self, image: Any) -> Session:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return Session(self, image)


class Session:
    """One image."""

    def __init__(self, model: Model, image: Any) -> None:
        self.model, self.image = model, image

    def predict(self, clicks: Any) -> Any:
        """The mask for all clicks so far, (x, y, positive) each: bool (1, height, width), and no scores."""
        points = np.array([(x, y, int(positive)) for x, y, positive in clicks], dtype=np.int64)
        model = self.model
        mask = model.core.predict(model.net, self.image, points, if_sis=model.integrity, if_cuda=model.on_gpu)
        return mask[None] == 1, None


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """Read a network.

    Args:
        repo: checkout of the code.
        checkpoint: file with the weights by name.
        options: `backbone` (resnet or res2net), `integrity` (its structural integrity strategy: only what is
            connected to a positive click).
        device: torch's name of it; its code knows the processor and the first GPU.

    Returns:
        The model.
    """
    core = SHARED["enter"](repo, "core")("core")
    on_gpu = device != "cpu"
    net = core.init_model("fcanet", options["backbone"], checkpoint, if_cuda=on_gpu)
    return Model(core, net, bool(options["integrity"]), on_gpu)
