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
    enter = SHARED["enter"](repo)
    where = enter("torch").device(device)
    net = enter("isegm.inference.utils").load_is_model(checkpoint, where)
    make = enter("isegm.inference.predictors").get_predictor

    def predictor() -> Any:
        size = {"target_size": int(options["short"])}
        return make(
            net,
            "EMC-Click",
            where,
            with_flip=bool(options["flip"]),
            zoom_in_params=size,
            predictor_params={},
        )

    return SHARED["Model"](enter, predictor)
