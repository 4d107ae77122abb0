"""SimpleClick (Liu, Xu, Bertasius, Niethammer 2023), github.com/uncbiag/SimpleClick.

iCMFormer (Li, Vosselman, Yang 2023), github.com/lik1996/iCMFormer, is called alike.
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
        options: `flip`, `crop` (pixels of the side of the square input).
        device: torch's name of it.

    Returns:
        The model.
    """
    return SHARED["plain_vit"](repo, checkpoint, options, device)
