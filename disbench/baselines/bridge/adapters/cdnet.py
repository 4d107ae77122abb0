"""CDNet (Chen, Zhao, Yu and others 2021), github.com/XavierCHEN34/ClickSEG.

Its predictor thresholds at 0.5 itself, flips always, and its input is 384 x 384.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Any:
    """Read a network.

    Args:
        repo: checkout of the code.
        checkpoint: file with `config` and `state_dict`.
        options: `crop` (of the zoom-in, 0: none), `target_ratio` (by which the object's region is enlarged).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter, _, _, make = SHARED["isegm"](repo, checkpoint, device)

    def predictor() -> Any:
        zoom = SHARED["zoom"](int(options["crop"]), expansion_ratio=float(options["target_ratio"]))
        return make("CDNet", infer_size=384, zoom_in_params=zoom, predictor_params={})

    return SHARED["Model"](enter, predictor)
