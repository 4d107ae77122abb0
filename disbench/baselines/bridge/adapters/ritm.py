"""RITM (Sofiiuk, Petrov, Konushin 2021), github.com/SamsungLabs/ritm_interactive_segmentation."""

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
        options: `mode` (NoBRS, or a kind of backpropagating refinement), `flip`, `crop` (pixels of the zoom-in's
            long side; 0: no zoom-in), `fixed` (the crop is square and begins at click 1), `clicks_limit`
            (clicks that reach the network; 0: as the mode has it).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter, _, _, make = SHARED["isegm"](repo, checkpoint, device)
    limit = int(options["clicks_limit"])
    size = int(options["crop"])
    zoom = SHARED["fixed_zoom"](size) if options["fixed"] else SHARED["zoom"](size)

    def predictor() -> Any:
        return make(
            options["mode"],
            with_flip=bool(options["flip"]),
            zoom_in_params=zoom,
            predictor_params={"net_clicks_limit": limit} if limit else {},
        )

    return SHARED["Model"](enter, predictor)
