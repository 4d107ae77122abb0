"""FCFI (Wei, Zhang, Yong 2023), github.com/veizgyauzgyauz/FCFI.

It is handed the previous probabilities, and a gate: 0 at the first click, 1 after it.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))


def ask(session: Any) -> Any:
    """Probabilities (height, width)."""
    if session.masks is None:
        height, width = session.predictor.original_image.shape[2:]
        return session.predictor.get_prediction(session.clicker, np.zeros((height, width), np.float32), 0.0)[0]
    return session.predictor.get_prediction(session.clicker, session.masks[0], 1.0)[0]


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Any:
    """Read a network.

    Args:
        repo: checkout of the code.
        checkpoint: file with `config` and `state_dict`.
        options: `flip`, `crop` (pixels of the zoom-in's long side; 0: none), `target_ratio` (by which the
            object's region is enlarged).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter, _, _, make = SHARED["isegm"](repo, checkpoint, device)

    def predictor() -> Any:
        zoom = SHARED["zoom"](int(options["crop"]), expansion_ratio=float(options["target_ratio"]))
        return make("NoBRS", with_flip=bool(options["flip"]), zoom_in_params=zoom, predictor_params={})

    return SHARED["Model"](enter, predictor, ask=ask)
