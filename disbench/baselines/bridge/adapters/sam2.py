"""SAM 2 (Ravi and others 2024) on images, in its authors' code, github.com/facebookresearch/sam2.

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
        checkpoint: file with the weights under `model`.
        options: `config` (one of its configurations, below its package), `candidates` (masks at click 1: 3 or 1),
            `later` (masks after it, where there are 3: 3 or 1), `feedback` (whether logits are fed back).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter = SHARED["enter"](repo, "sam2")
    net = enter("sam2.build_sam").build_sam2(options["config"], checkpoint, device=device)
    make = enter("sam2.sam2_image_predictor").SAM2ImagePredictor
    return SHARED["Prompted"](lambda: make(net), options)
