"""CFR-ICL (Sun, Xian, Xu, Capriotti, Yao 2024), github.com/TitorX/CFR-ICL-Interactive-Segmentation."""

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
        options: `flip`, `crop` (pixels of the side of the square input), `cascade` (forward passes at a click
            beyond the first), `cascade_clicks` (up to which click), `adaptive` (stop when few pixels change).
        device: torch's name of it.

    Returns:
        The model.
    """
    cascade = {
        "cascade_step": int(options["cascade"]) + 1,
        "cascade_adaptive": bool(options["adaptive"]),
        "cascade_clicks": int(options["cascade_clicks"]),
    }
    return SHARED["plain_vit"](repo, checkpoint, options, device, cascade)
