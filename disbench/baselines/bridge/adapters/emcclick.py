"""EMC-Click (Du, Yuan, Wang, Tai 2023), github.com/feiaxyt/EMC-Click."""

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
        options: `flip`, `short` (pixels of the network's short side).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter, _, _, make = SHARED["isegm"](repo, checkpoint, device)

    def predictor() -> Any:
        size = {"target_size": int(options["short"])}
        return make(
            "EMC-Click",
            with_flip=bool(options["flip"]),
            zoom_in_params=size,
            predictor_params={},
        )

    return SHARED["Model"](enter, predictor)
