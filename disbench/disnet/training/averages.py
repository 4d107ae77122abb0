"""Averaged weights: an exponential moving average of what training changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from disbench.disnet.network import trained_parameters


class AveragedWeights:
    """An exponential moving average of a network's trained parameters.

    Early on the decay is (1 + steps) / (10 + steps), so that the first weights are soon forgotten.

    Args:
        network: whose parameters are averaged.
        decay: from 0 to below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = {name: value.detach().clone() for name, value in trained_parameters(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the current weights in."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in trained_parameters(network).items():
            self.values[name].lerp_(value.detach().to(self.values[name].device), 1 - decay)
        self.steps += 1

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """The network has the averaged weights within the block, and its own after it."""
        own = {name: value.detach().clone() for name, value in trained_parameters(network).items()}
        _put(network, self.values)
        try:
            yield
        finally:
            _put(network, own)


@torch.no_grad()
def _put(network: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in trained_parameters(network).items():
        parameter.copy_(values[name])
