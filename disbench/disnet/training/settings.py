"""Training settings (network, shards, schedule), from `baselines/configs/` or a user's TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from disbench.core.errors import InputError
from disbench.core.limits import MAX_COUNT
from disbench.disnet.options import NetworkSettings
from disbench.io import addresses, definitions
from disbench.io.settings import Bounds, Count, settings_from, with_overrides

Selection = Literal["current", "any-gt"]
Positive = Annotated[int, Bounds(1, MAX_COUNT)]
Size = Annotated[float, Bounds(0, MAX_COUNT)]  # a learning rate, a number of epochs or a norm
Share = Annotated[float, Bounds(0, 1)]
Decay = Annotated[float, Bounds(0, 0.999999)]


@dataclass(frozen=True, slots=True)
class Shards:
    """One source of training examples.

    Attributes:
        folder: a finished folder of shards.
        images: folder of their images; "" for the embedded photos.
        only: pattern of the `file_name`s to train on, with `*`, `?` and `[...]`.
        times: repetitions of each set in an epoch.
    """

    folder: str
    images: str = ""
    only: str = "*"
    times: Positive = 1


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Distribution of the views of an image; flips are probabilities.

    Attributes:
        smallest_crop: lower bound of a crop's sides relative to the image's, drawn uniformly up to 1.
        brightness: maximum change in either direction, as a fraction of the full range.
        contrast: maximum change of the factor in either direction.
        views: number of fixed views per image, the first two being the image and its mirror image; 0 draws a view for
            each example. Only features of fixed views can be cached.
    """

    smallest_crop: Annotated[float, Bounds(0.01, 1)] = 0.5
    horizontal_flip: Share = 0.5
    vertical_flip: Share = 0.5
    brightness: Share = 0.2
    contrast: Share = 0.2
    views: Count = 0


@dataclass(frozen=True, slots=True)
class MatchWeights:
    """Weights of the proposal losses; the defaults are PiClick's.

    Attributes:
        mask: weight of the pixel loss, `mask_loss`: "bce" or "focal" (alpha 0.25, gamma 2).
        objectness: weight of the loss for whether a candidate is an object that the click may mean.
        no_object: weight of an unmatched candidate in the mean of the objectness loss; a matched one has 1.
        objectness_target: "matched" (the paper): 1 for matched candidates, 0 for others. Otherwise the candidate's IoU,
            without gradient and with weight 1 for all: "best-iou" with the best mask of the set, "own-iou" with the
            first mask, the clicked object.
        redundancy: reduces the target IoU of a candidate that duplicates a better one: by this fraction if their IoU is
            1, falling to 0 at 0.5.
        ranking: weight of the loss of pairs of a click's candidates whose scores are not in the order of their targets.
    """

    mask: float = 5.0
    dice: float = 5.0
    objectness: float = 2.0
    no_object: float = 0.1
    mask_loss: Literal["bce", "focal"] = "bce"
    objectness_target: Literal["matched", "best-iou", "own-iou"] = "matched"
    redundancy: Share = 0.0
    ranking: float = 0.0


@dataclass(frozen=True, slots=True)
class RefinementLoss:
    """Weights of stage 2's losses; the paper uses only the normalized focal loss."""

    normalized_focal: float = 1.0
    bce: float = 0.0
    dice: float = 0.0


@dataclass(frozen=True, slots=True)
class Training:
    """All settings of a training; the defaults are the paper's (section 4.2).

    Attributes:
        sampling: label for reports: how the shards' sets were sampled ("hierarchy", "proximity", ...).
        training_data: label for reports: names of the datasets.
        allow_measured: allow images also used for benchmarks or validation (`examples.refuse_measured_images`).
        start: checkpoint to start from, "disnet" for the small network shipped with disbench; "" for the network's own
            initial weights (`vit.weights`, or SAM's decoder).
        start_parts: name prefixes of the parameters to load from `start` ("proposal"), whose other parts may differ;
            empty: all parameters, of the same network.
        trained: name prefixes of the parameters to train ("refinement", "proposal.objectness"); empty: all. A stage
            without any is computed only if the other stage needs it.
        epochs: passes over all diverse sets.
        steps: optimiser steps instead of `epochs`; 0 for none.
        batch: examples per forward pass and process.
        accumulate: batches per optimiser step.
        proposal_rate: learning rate of stage 1; `refinement_rate` is that of stage 2.
        new_layers_factor: multiplies the learning rate of stage 2's layers without initial weights.
        first_rate: learning rate at the start of the warm-up.
        warmup_epochs: length of the warm-up; `warmup_steps` if `steps` is given.
        betas: the two betas of Adam.
        clip: maximum gradient norm, 0 for none.
        matching: weights of stage 1's losses; `refinement` are those of stage 2.
        selection: which candidate is passed to stage 2; see `losses.choose_candidates`.
        chosen_by_score: fraction of examples where the candidate with the best score is passed instead.
        corrective_clicks: stage 2 gets 0 to this many clicks on its own prediction.
        later_clicks: "random" (the paper): random clicks before the corrective clicks, and a loss after the last click;
            "protocol": 1 to `corrective_clicks` clicks as in the protocol, each on the largest error of the last mask
            (first of the candidate), and a loss after each.
        ema: decay of the averaged weights, 0 for none.
        workers: number of data loader workers.
        features: cache folder for a frozen encoder's features, "" for none; needs `augmentation.views`.
        validate_every: steps between benchmark runs, 0 for none, on the dataset `validation` (a card's name or path)
            with `validation_options` (`option=value`), on `validation_samples` samples spread over it, 0 for all.
    """

    name: str
    shards: tuple[Shards, ...] = ()
    description: str = ""
    sampling: str = "hierarchy"
    training_data: tuple[str, ...] = ("C+L",)
    allow_measured: bool = False
    network: NetworkSettings = field(default_factory=NetworkSettings)
    start: str = ""
    start_parts: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    seed: Annotated[int, Bounds(0)] = 0
    epochs: Size = 55.0
    steps: Count = 0
    batch: Positive = 32
    accumulate: Positive = 1
    proposal_rate: Size = 5e-5
    refinement_rate: Size = 5e-6
    new_layers_factor: float = 1.0
    first_rate: Size = 5e-8
    warmup_epochs: Size = 2.0
    warmup_steps: Count = 0
    betas: tuple[Decay, ...] = (0.9, 0.99)
    clip: Size = 0.0
    matching: MatchWeights = field(default_factory=MatchWeights)
    refinement: RefinementLoss = field(default_factory=RefinementLoss)
    selection: Selection = "current"
    chosen_by_score: Share = 0.0
    corrective_clicks: Count = 3
    later_clicks: Literal["random", "protocol"] = "random"
    augmentation: Augmentation = field(default_factory=Augmentation)
    ema: Decay = 0.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    workers: Count = 2
    features: str = ""
    checkpoint_every: Positive = 1000
    validate_every: Count = 0
    validation: str = ""
    validation_options: tuple[str, ...] = ()
    validation_samples: Count = 0
    log_every: Positive = 10

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise InputError(f"betas = {self.betas}; give two values")
        if self.features and not self.augmentation.views:
            raise InputError("features are cached only for fixed views; set augmentation.views, or remove features")
        if not self.epochs and not self.steps:
            raise InputError("epochs and steps are both 0; set one of them")
        if self.validate_every and not self.validation:
            raise InputError("validate_every needs validation, the name of a dataset card")

    def as_dict(self) -> dict[str, Any]:
        """All settings, for a checkpoint; `settings_from` reads them back."""
        return dataclasses.asdict(self)


def load_training(name: str, overrides: Sequence[str] = ()) -> Training:
    """Load a training from `baselines/configs/` or a user's TOML file, and apply overrides.

    Args:
        name: a name, or a `.toml` path. The file's key `base` names another training that it modifies.
        overrides: `option=value`, or `table.option=value` for nested tables.
    """
    path = definitions.find("baselines/configs", name)
    content = {"name": path.stem, **definitions.load(path)}
    base = content.pop("base", "")
    if base:
        content = _merge_settings(definitions.load(definitions.find("baselines/configs", str(base))), content)
    return settings_from(Training, with_overrides(content, overrides, Training), str(path))


def _merge_settings(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    nested = {key for key in base if isinstance(base[key], Mapping) and isinstance(changes.get(key), Mapping)}
    return {**base, **changes, **{key: _merge_settings(base[key], changes[key]) for key in nested}}


def resolved(training: Training, root: Path | None) -> Training:
    """Resolve relative folders against the working directory or `root`, the root of the datasets."""
    shards = tuple(
        dataclasses.replace(
            source,
            folder=_found(source.folder, root, "shards"),
            images=_found(source.images, root, "images") if source.images else "",
        )
        for source in training.shards
    )
    return dataclasses.replace(training, shards=shards)


def _found(folder: str, root: Path | None, what: str) -> str:
    if addresses.is_address(folder):
        return addresses.localize(folder)
    place = Path(folder).expanduser()
    if place.is_dir():
        return str(place)
    if root is not None and addresses.local_copy(root / folder, optional=True).is_dir():
        return str(root / folder)
    below = f" nor below {root}" if root is not None else ""
    fix = "create them with disbench sample" if what == "shards" else "name the folder, or give --data"
    raise InputError(f"{folder}: no such folder of {what} here{below}; {fix}")
