"""A training's file: the network, the shards, the schedule; from `baselines/configs/` or the user's own TOML."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from disbench.core.errors import InputError
from disbench.disnet.network import NetworkSettings
from disbench.disnet.training.examples import Shards
from disbench.disnet.training.matching import MatchWeights
from disbench.disnet.training.views import Augmentation
from disbench.io import addresses, definitions
from disbench.io.settings import LARGEST, settings_from, with_overrides


@dataclass(frozen=True, slots=True)
class RefinementLoss:
    """Weights of stage 2's losses.

    Attributes:
        normalized_focal: of the normalized focal loss (the paper's only one).
        bce: of the binary cross-entropy.
        dice: of the Dice loss.
    """

    normalized_focal: float = 1.0
    bce: float = 0.0
    dice: float = 0.0


@dataclass(frozen=True, slots=True)
class Training:
    """A training, whole. The defaults are the paper's (section 4.2).

    Attributes:
        name: of the training.
        shards: sources of examples.
        description: one line.
        sampling: how the shards' sets were made ("hierarchy", "proximity", ...): a label of results.
        training_data: names of the datasets: a label of results.
        network: what is trained.
        start: checkpoint whose weights the training begins with, of the same network; "" begins with the network's
            own (`vit.weights`, or the SAM's decoder).
        trained: how the names of the parameters begin that are trained ("refinement", "proposal.objectness"); all
            others stay as they are, and a stage without one is not computed further than the other needs it.
            None: all.
        seed: of everything that is drawn.
        epochs: over all diverse sets; `steps` takes its place if it is given.
        steps: optimiser steps, or 0.
        batch: examples a step on each process, before accumulation.
        accumulate: batches to a step.
        proposal_rate: learning rate of stage 1.
        refinement_rate: of stage 2.
        new_layers_factor: learning rates of layers that start without weights, as a multiple.
        first_rate: at the start of the warm-up.
        warmup_epochs: of the warm-up.
        warmup_steps: takes their place where `steps` does.
        betas: Adam's.
        clip: largest norm of the gradient, 0 for none.
        matching: weights of stage 1's losses.
        refinement: weights of stage 2's.
        selection: which candidate goes on: "current" or "any-gt".
        corrective_clicks: stage 2 gets 0 to so many clicks on its own prediction.
        augmentation: views of the images.
        ema: decay of the averaged weights, 0 for none.
        precision: "no", "bf16" or "fp16" (mixed, by accelerate).
        workers: loader processes.
        features: folder that keeps a frozen encoder's features, "" for none; it needs `augmentation.views`.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between benchmark runs, 0 for none.
        validation: name or path of the dataset card of these runs.
        validation_options: options of the dataset, `option=value`.
        validation_samples: samples of these runs, spread over the dataset; 0 for all.
        log_every: steps between lines of the log.
    """

    name: str
    shards: tuple[Shards, ...] = ()
    description: str = ""
    sampling: str = "hierarchy"
    training_data: tuple[str, ...] = ("C+L",)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    start: str = ""
    trained: tuple[str, ...] = ()
    seed: int = 0
    epochs: float = 55.0
    steps: int = 0
    batch: int = 32
    accumulate: int = 1
    proposal_rate: float = 5e-5
    refinement_rate: float = 5e-6
    new_layers_factor: float = 1.0
    first_rate: float = 5e-8
    warmup_epochs: float = 2.0
    warmup_steps: int = 0
    betas: tuple[float, ...] = (0.9, 0.99)
    clip: float = 0.0
    matching: MatchWeights = field(default_factory=MatchWeights)
    refinement: RefinementLoss = field(default_factory=RefinementLoss)
    selection: Literal["current", "any-gt"] = "current"
    corrective_clicks: int = 3
    augmentation: Augmentation = field(default_factory=Augmentation)
    ema: float = 0.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    workers: int = 2
    features: str = ""
    checkpoint_every: int = 1000
    validate_every: int = 0
    validation: str = ""
    validation_options: tuple[str, ...] = ()
    validation_samples: int = 0
    log_every: int = 10

    def as_dict(self) -> dict[str, Any]:
        """All settings, for a checkpoint; `training_from` reads them again."""
        return dataclasses.asdict(self)


_AT_LEAST = {
    "epochs": 0,
    "steps": 0,
    "batch": 1,
    "accumulate": 1,
    "proposal_rate": 0,
    "refinement_rate": 0,
    "first_rate": 0,
    "warmup_epochs": 0,
    "warmup_steps": 0,
    "clip": 0,
    "corrective_clicks": 0,
    "workers": 0,
    "checkpoint_every": 1,
    "validate_every": 0,
    "validation_samples": 0,
    "log_every": 1,
    "seed": 0,
}


def load_training(name: str, overrides: Sequence[str] = ()) -> Training:
    """The training of a name in `baselines/configs/`, or of the user's own TOML file, with overrides applied.

    Args:
        name: a name, or a path that ends in `.toml`.
        overrides: `option=value`, with `table.option=value` for nested tables.

    Raises:
        InputError: unknown name or option, a value of the wrong kind or out of range, a broken file.
    """
    path = definitions.find("baselines/configs", name)
    content = dict(definitions.load(path))
    content.setdefault("name", path.stem)
    return training_from(with_overrides(content, overrides, Training), str(path))


def training_from(content: dict[str, Any], where: str) -> Training:
    """A training from the content of its file.

    Args:
        content: option -> value.
        where: what to name in errors.

    Raises:
        InputError: as `load_training`.
    """
    training = settings_from(Training, content, where)
    for option, least in _AT_LEAST.items():
        if getattr(training, option) < least:
            raise InputError(f"{where}: {option} = {getattr(training, option)} is too small; it starts at {least}")
        if option != "seed" and getattr(training, option) > LARGEST:
            raise InputError(f"{where}: {option} is more than {LARGEST:,}; make it smaller")
    if not 0 <= training.ema < 1:
        raise InputError(f"{where}: ema = {training.ema}; it lies from 0 to below 1")
    if len(training.betas) != 2 or not all(0 <= beta < 1 for beta in training.betas):
        raise InputError(f"{where}: betas = {training.betas}; they are two numbers from 0 to below 1")
    if training.features and not training.augmentation.views:
        raise InputError(
            f"{where}: features are kept for fixed views only; set augmentation.views, or leave features out"
        )
    if not training.epochs and not training.steps:
        raise InputError(f"{where}: no epochs and no steps; give one of them")
    if training.validate_every and not training.validation:
        raise InputError(f"{where}: validate_every needs validation, the name of a dataset card")
    return training


def resolved(training: Training, root: Path | None) -> Training:
    """The training with relative paths of images looked up below a root of data too, as everywhere.

    Args:
        training: as read.
        root: of the datasets, or None.

    Raises:
        InputError: a folder of shards or images is not there.
    """
    shards = tuple(
        Shards(
            _found(source.folder, root, "shards"),
            _found(source.images, root, "images") if source.images else "",
        )
        for source in training.shards
    )
    return dataclasses.replace(training, shards=shards)


def _found(folder: str, root: Path | None, what: str) -> str:
    if addresses.is_address(folder):
        return addresses.local_text(folder)
    place = Path(folder).expanduser()
    if place.is_dir():
        return str(place)
    if root is not None and addresses.here(root / folder, optional=True).is_dir():
        return str(root / folder)
    below = f" nor below {root}" if root is not None else ""
    cure = "make them with disbench sample" if what == "shards" else "name the folder, or give --data"
    raise InputError(f"{folder}: no such folder of {what} here{below}; {cure}")
