"""SAM (Kirillov and others 2023) in its authors' code, github.com/facebookresearch/segment-anything.

Thresholded at logits of 0 by its own code. The low-resolution logits of the mask that was kept go into the next call.
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
        checkpoint: file with the weights by name.
        options: `backbone` (vit_b, vit_l or vit_h), `candidates` (masks at click 1: 3 or 1), `later` (masks after
            it, where there are 3: 3 or 1), `feedback` (whether logits are fed back).
        device: torch's name of it.

    Returns:
        The model.
    """
    peer = SHARED["enter"](repo, "segment_anything")("segment_anything")
    net = peer.sam_model_registry[options["backbone"]](checkpoint=checkpoint).to(device)
    net.eval()
    return SHARED["Prompted"](lambda: peer.SamPredictor(net), options)
