"""FocalClick (Chen, Zhao, Zhang and others 2022), github.com/XavierCHEN34/ClickSEG."""

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
        options: `mode` (FocalClick, or Baseline for the networks without its second stage), `flip`, `size`
            (pixels of the side of the network's square input), `crop` (of the zoom-in, 0: none), `target_ratio`
            and `focus_ratio` (by which the object's and the local region are enlarged).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter, _, _, make = SHARED["isegm"](repo, checkpoint, device)

    def predictor() -> Any:
        return make(
            options["mode"],
            infer_size=int(options["size"]),
            focus_crop_r=float(options["focus_ratio"]),
            with_flip=bool(options["flip"]),
            zoom_in_params=SHARED["zoom"](int(options["crop"]), expansion_ratio=float(options["target_ratio"])),
            predictor_params={},
        )

    return SHARED["Model"](enter, predictor)
