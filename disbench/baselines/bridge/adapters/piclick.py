"""PiClick (Yan, Wang, Liu, Deng and others 2023), github.com/cilinyan/PiClick: seven masks a click.

Its predictor must be told which mask was kept: that one is fed back, and the zoom-in follows it.
"""

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))


def keep(session: Any, index: int) -> None:
    """Feed a mask back: at the next click it is the previous one, and the zoom-in follows it."""
    before = session.predictor.prev_prediction
    mask = session.model.torch.tensor(session.masks[index][None, None], dtype=before.dtype, device=before.device)
    session.predictor.prev_prediction = mask
    session.predictor.set_prev_for_zoom_in(index)


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Any:
    """Read a network.

    Args:
        repo: checkout of the code.
        checkpoint: file with `config` and `state_dict`.
        options: `crop` (pixels of the side of the square input), `max_score` (one mask, its own choice). Flip
            averaging cannot be switched off.
        device: torch's name of it.

    Returns:
        The model.
    """
    repo, checkpoint = str(Path(repo).resolve()), str(Path(checkpoint).resolve())
    # Every predictor makes a folder for pictures in the current one.
    folder = tempfile.TemporaryDirectory()
    os.chdir(folder.name)
    choice = bool(options["max_score"])

    def ask(session: Any) -> Any:
        return session.predictor.get_prediction(session.clicker, max_score=choice)

    model = SHARED["plain_vit"](repo, checkpoint, dict(options, flip=True), device, ask=ask, keep=keep)
    model.folder = folder
    return model
