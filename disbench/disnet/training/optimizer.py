"""Adam's parameter groups, the learning rate of a step, and averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from disbench.disnet.network import Disnet, trained_parameters
from disbench.disnet.training.settings import Training

_NEW = ("blocks", "kept_", "corrected_", "token_norm", "features_norm")
"""Prefixes of the names of stage 2's parameters that start without weights."""


def parameter_groups(network: Disnet, training: Training) -> list[dict[str, Any]]:
    """Adam's groups, each with its rate: stage 1, stage 2, and what starts without weights in stage 2."""
    groups: dict[str, tuple[float, list[nn.Parameter]]] = {
        "proposal": (training.proposal_rate, []),
        "refinement": (training.refinement_rate, []),
        "new": (training.refinement_rate * training.new_layers_factor, []),
    }
    for name, parameter in trained_parameters(network).items():
        stage, _, rest = name.partition(".")
        is_new = stage == "refinement" and rest.startswith(_NEW)
        groups["new" if is_new else stage][1].append(parameter)
    return [{"params": parameters, "lr": rate, "rate": rate} for rate, parameters in groups.values() if parameters]


def total_steps(training: Training, examples: int, processes: int = 1) -> int:
    """Optimiser steps of a training."""
    if training.steps:
        return training.steps
    return math.ceil(training.epochs * examples / (training.batch * training.accumulate * processes))


def warmup_steps(training: Training, steps: int) -> int:
    """Steps of the warm-up, of a training of `steps` steps."""
    return training.warmup_steps if training.steps else round(steps * training.warmup_epochs / training.epochs)


def learning_rate(step: int, steps: int, warmup: int, rate: float, first: float) -> float:
    """The rate of a step, from 0: a linear warm-up from `first` to `rate`, then half a cosine (paper, section 4.2)."""
    if step < warmup:
        return first + (rate - first) * step / warmup
    return rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def averaged(network: Disnet, decay: float) -> AveragedModel:
    """A copy of a network whose parameters are an exponential moving average from here on.

    Update n has the decay (1 + n) / (10 + n) if that is smaller, so that the initial weights soon lose their influence.
    """

    def average(averages: Any, current: Any, updates: Tensor | int) -> None:
        count = int(updates)
        torch._foreach_lerp_(averages, current, 1 - min(decay, count / (9 + count)))

    model = AveragedModel(network, multi_avg_fn=average)
    model.update_parameters(network)  # torch copies the weights of the first update: the initial ones
    return model
