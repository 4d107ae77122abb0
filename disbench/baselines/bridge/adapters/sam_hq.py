"""SAM-HQ (Ke and others 2023) in its authors' code, github.com/SysCV/sam-hq.

Of three masks its network chooses the one of the best score itself, so there is one candidate. Thresholded at logits
of 0 by its own code; the low-resolution logits go into the next call.
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
        options: `backbone` (vit_b, vit_l, vit_h or vit_tiny), `candidates` (3: it chooses among three masks at
            click 1; 1: the single mask), `later` (the same after it), `feedback` (whether logits are fed back),
            `hq_only` (the mask of the high-quality token alone, not its sum with SAM's).
        device: torch's name of it.

    Returns:
        The model.
    """
    peer = SHARED["enter"](repo, "segment_anything")("segment_anything")
    net = peer.sam_model_registry[options["backbone"]](checkpoint=checkpoint).to(device)
    net.eval()
    return SHARED["Prompted"](lambda: peer.SamPredictor(net), options, hq_token_only=bool(options["hq_only"]))
