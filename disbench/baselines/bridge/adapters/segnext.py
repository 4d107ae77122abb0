"""SegNext (Liu, Cho, Bansal, Niethammer 2024), github.com/uncbiag/SegNext."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))


def ask(session: Any) -> Any:
    """Probabilities (height, width)."""
    # The network remembers the size of the image that it saw last, which may be another session's.
    session.predictor.model.orig_size = session.predictor.orig_img_shape[-2:]
    return session.predictor.predict(session.clicker)


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Any:
    """Read a network.

    Args:
        repo: checkout of the code.
        checkpoint: file with `config` and `state_dict`.
        options: none.
        device: torch's name of it.

    Returns:
        The model.
    """
    enter = SHARED["enter"](str(Path(repo) / "segnext"))
    net = enter("isegm.inference.utils").load_is_model(checkpoint, enter("torch").device(device))
    make = enter("isegm.inference.predictor").BasePredictor

    def begin(predictor: Any, image: Any) -> None:
        predictor.set_image(image)

    return SHARED["Model"](enter, lambda: make(net), begin, ask)
