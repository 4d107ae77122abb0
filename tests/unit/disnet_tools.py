"""A DISNet so small that it trains in a test: its settings, a training of it, clicks and batches for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from disbench.disnet.batches import ClickBatch, Frame
from disbench.disnet.network import Disnet, build_network, build_network_input
from disbench.disnet.options import DisnetOptions, NetworkSettings, ViTConfig
from disbench.disnet.training.examples import Batch, Examples, collate
from disbench.disnet.training.settings import Shards, Training

torch.set_num_threads(1)  # tests run side by side, and threads that wait for a core cost a hundred times the work
SIDE = 64
VIT = ViTConfig(
    **{"input_side": SIDE, "hidden": 32, "layers": 2, "heads": 4, "window": 2, "global_blocks": (1,)},
    **{"channels": 32, "pixel_layers": 1, "decoder_layers": 1},
)


def tiny_settings(**options: Any) -> NetworkSettings:
    """A ViT of 180,000 parameters for an input of 64 pixels; the options differ from the defaults as said."""
    return NetworkSettings(vit=VIT, options=DisnetOptions(**({"candidates": 3} | options)))


def tiny_network(seed: int = 0, **options: Any) -> Disnet:
    """It in evaluation mode, with noise on its weights: none is at an initial zero that hides what it does."""
    torch.manual_seed(seed)
    network = build_network(tiny_settings(**options)).eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.05)
    return network


def tiny_training(shards: Path | str = "", **changes: Any) -> Training:
    """A training of it on the embedded photos: six steps of two examples."""
    settings: dict[str, Any] = {
        **{"name": "tiny", "shards": (Shards(str(shards)),) if shards else (), "network": tiny_settings()},
        **{"steps": 6, "batch": 2, "warmup_steps": 2, "workers": 0, "log_every": 1, "checkpoint_every": 100},
        **{"proposal_rate": 1e-3, "refinement_rate": 1e-3, "first_rate": 1e-5, "corrective_clicks": 1},
    }
    return Training(**(settings | changes))


def photo_batch(shards: Path, numbers: Sequence[int] = (0, 40, 200), epoch: int = 0, **more: Any) -> Batch:
    """Examples of the photos as the tiny network takes them."""
    training = tiny_training(shards, **more)
    examples = Examples(training, Frame("stretched", SIDE), build_network_input(training.network))
    return collate([examples[epoch, number] for number in numbers])


def above(logits: torch.Tensor) -> Any:
    """The masks of probabilities above 0.49."""
    return (logits.detach().double().sigmoid() > 0.49).numpy()


def valid_iou(found: Any, mask: Any, valid: Any) -> float:
    """Pixel by pixel; an empty union is 0."""
    both = np.count_nonzero(found & mask & valid)
    return both / max(np.count_nonzero((found | mask) & valid), 1)


def without_padding(clicks: ClickBatch, row: int) -> ClickBatch:
    """One sample's clicks: a batch of one."""
    kept = clicks.given[row]
    return ClickBatch(*(part[row, kept][None] for part in (clicks.points, clicks.positive, clicks.given)))


def without_gradient(module: nn.Module) -> list[str]:
    """Trained parameters that a backward pass did not reach, or only with zeros or numbers that are none."""
    return [
        name
        for name, weights in module.named_parameters()
        if weights.requires_grad
        and (weights.grad is None or not weights.grad.isfinite().all() or not weights.grad.any())
    ]
