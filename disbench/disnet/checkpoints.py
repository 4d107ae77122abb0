"""Checkpoints: a training's whole state as safetensors, and the trained network alone, for use as a method."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disbench.core.errors import InputError
from disbench.disnet.network import Disnet, build_network, trained_parameters
from disbench.disnet.training.averages import AveragedWeights
from disbench.disnet.training.settings import Training, training_from
from disbench.io.files import naming, whole_file
from disbench.io.plain_data import parse_json, parse_json_table
from disbench.io.settings import LARGEST

NETWORK = "network.safetensors"
_OURS = "disbench"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ADAM = ("step", "exp_avg", "exp_avg_sq")
"""What it keeps of a parameter."""
_OPTIMIZER, _AVERAGES, _STATE = "optimizer.safetensors", "averages.safetensors", "state.json"

MAY_DIFFER = (
    "shards",
    "features",
    "workers",
    "checkpoint_every",
    "validate_every",
    "validation",
    "validation_options",
    "validation_samples",
    "log_every",
)
"""Settings that change no step."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A network from a file.

    Attributes:
        network: in float32, on the CPU, in evaluation mode.
        training: the settings that it was trained with.
        facts: what else its file says: steps, seed, versions.
    """

    network: Disnet
    training: Training
    facts: Mapping[str, str]


def save_network(path: Path, network: Disnet, training: Training, facts: Mapping[str, str], *, half: bool) -> None:
    """Write a network's weights and settings as one safetensors file, whole or not at all.

    A frozen encoder is not part of it. Parameters that never change in training (codes of positions) are, always in
    float32: phases of sines would suffer most from rounding.

    Args:
        path: of the file.
        network: on any device.
        training: its settings, without the folders of data.
        facts: text by name, kept beside the settings.
        half: store in float16; the rounding changes the network a little, so measure what was stored.

    Raises:
        OSError: it cannot be written; names the file.
    """
    trained = {*trained_parameters(network), *network.fixed}
    tensors = {
        name: _stored(value, half and name in trained)
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    metadata = {"training": json.dumps(training.as_dict(), sort_keys=True), **facts}
    _write(path, tensors, metadata)


def load_network(path: Path) -> TrainedNetwork:
    """The network of a file that `save_network` wrote.

    Raises:
        InputError: no such file, not such a file, damaged, or of another architecture.
    """
    tensors, metadata = _read(path)
    try:
        content = parse_json_table(metadata["training"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: not a DISNet checkpoint of ours (no settings in it); name one that train wrote"
        ) from error
    training = training_from(content, f"{path}: its settings")
    if training.network.architecture == "vit":
        # Its sizes are the file's to say: without memory first, so that they are those of its tensors.
        with torch.device("meta"):
            _check_tensors(build_network(training.network, pretrained=False), tensors, path)
    network = build_network(training.network, pretrained=False)
    _load(network, tensors, path)
    facts = {name: text for name, text in metadata.items() if name != "training"}
    return TrainedNetwork(network.eval(), training, facts)


def save_state(
    folder: Path,
    network: Disnet,
    optimizer: torch.optim.Optimizer,
    averages: AveragedWeights | None,
    training: Training,
    step: int,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write all that a training needs to go on exactly where it is; the folder is whole or not there.

    Args:
        folder: gets its name only at the end; an older one of the same name is replaced.
        network: on any device, in float32.
        optimizer: of its parameters.
        averages: of its weights, or None.
        training: the settings.
        step: how many steps are done.
        facts: what else decides the next steps, text by name; `check_same_training` compares it.

    Raises:
        OSError: it cannot be written.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with naming(partial):
        partial.mkdir(parents=True)
    save_network(partial / NETWORK, network, training, {"step": str(step)}, half=False)
    tensors, numbers = _flat(optimizer.state_dict())
    _write(partial / _OPTIMIZER, tensors, {"state": json.dumps(numbers)})
    if averages is not None:
        _write(partial / _AVERAGES, dict(averages.values), {"steps": str(averages.steps)})
    with whole_file(partial / _STATE) as file:
        state = {"step": step, "training": training.as_dict(), "facts": dict(facts or {})}
        file.write(json.dumps(state, indent=1).encode())
    old = _aside(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def latest_state(folder: Path) -> Path | None:
    """The checkpoint of this name, or the older one that a kill left aside before the new one took its name."""
    return next((place for place in (folder, _aside(folder)) if place.is_dir()), None)


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def check_same_training(folder: Path, training: Training, facts: Mapping[str, str] | None = None) -> None:
    """See that a checkpoint is of this training; where data lies and how it is logged may differ.

    Args:
        folder: of the checkpoint.
        training: that is to go on.
        facts: as for `save_state`.

    Raises:
        InputError: another setting or fact; the message names it.
    """
    try:
        state = parse_json_table((folder / _STATE).read_bytes())
        found = training_from(dict(state["training"]), str(folder / _STATE))
        known = dict(state.get("facts", {}))
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{folder}: not a whole checkpoint ({error}); remove it to begin anew") from error
    for field in dataclasses.fields(Training):
        here, there = getattr(training, field.name), getattr(found, field.name)
        if field.name not in MAY_DIFFER and here != there:
            raise InputError(
                f"{folder}: it is of a training with {field.name} = {there}, not {here}; name another --out, or "
                "start anew with --existing overwrite"
            )
    for name, here in (facts or {}).items():
        if known.get(name, here) != here:
            raise InputError(
                f"{folder}: it is of a training with other {name} ({known[name]}, not {here}); name another --out, or "
                "start anew with --existing overwrite"
            )


def load_state(
    folder: Path, network: Disnet, optimizer: torch.optim.Optimizer, averages: AveragedWeights | None
) -> int:
    """Take a training's state up again; how many steps were done.

    Raises:
        InputError: the folder is damaged, or of another network.
    """
    tensors, _ = _read(folder / NETWORK)
    _load(network, tensors, folder / NETWORK)
    parts, metadata = _read(folder / _OPTIMIZER)
    try:
        found = _unflat(parts, parse_json_table(metadata["state"]))
        _check_optimizer(found, optimizer)
        step = _count(parse_json_table((folder / _STATE).read_bytes())["step"])
        optimizer.load_state_dict(found)
    except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{folder}: not a whole checkpoint ({error}); remove it to begin anew") from error
    if averages is not None:
        values, more = _read(folder / _AVERAGES)
        if not all(_fits(values.get(name), old) for name, old in averages.values.items()):
            raise InputError(f"{folder / _AVERAGES}: not of this network; remove {folder} to begin anew")
        try:
            averages.steps = _count(parse_json(more.get("steps", "")))
        except ValueError as error:
            raise InputError(f"{folder / _AVERAGES}: {error}; remove {folder} to begin anew") from error
        averages.values = {name: values[name].to(old.device) for name, old in averages.values.items()}
    return step


def _fits(found: Tensor | None, own: Tensor) -> bool:
    """Whether a tensor from a file can take another's place."""
    if found is None or found.dtype not in _FLOATS or found.shape != own.shape:
        return False
    return bool(torch.isfinite(found).all())


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError(f"{value!r} steps"[:100])
    return value


def _check_optimizer(found: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """See that a stored state is one of this optimiser; torch takes any, and fails at some later step.

    Raises:
        ValueError: it is not.
    """
    own = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))
    if _kinds(found["param_groups"]) != _kinds(own):
        raise ValueError("its optimiser's groups are others")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, tensors in found["state"].items():
        for name, value in tensors.items():
            like = torch.zeros(()) if name == "step" else parameters[number] if number < len(parameters) else None
            if name not in _ADAM or number < 0 or like is None or not _fits(value, like):
                raise ValueError(f"its optimiser's {number}.{name} is of another network"[:100])


def _kinds(value: Any) -> Any:
    """What must agree between two optimisers' groups: names, lengths, kinds, and which parameters."""
    if isinstance(value, dict):
        return {key: item if key == "params" else _kinds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_kinds(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number" if math.isfinite(value) else "no number"
    return type(value).__name__


def _load(network: Disnet, tensors: Mapping[str, Tensor], path: Path) -> None:
    expected = network.state_dict()
    _check_tensors(network, tensors, path)
    network.load_state_dict({name: tensors[name].to(value.dtype) for name, value in expected.items()})


def _check_tensors(network: Disnet, tensors: Mapping[str, Tensor], path: Path) -> None:
    """See that a file has a network's weights, and that they are finite numbers."""
    for name, value in network.state_dict().items():
        if name not in tensors:
            raise InputError(f"{path}: it lacks the weights {name}; it is of another network, or of an older disbench")
        if tensors[name].shape != value.shape:
            raise InputError(
                f"{path}: the weights {name} have shape {tuple(tensors[name].shape)}, not {tuple(value.shape)}; "
                "it is of another network"
            )
        if not _fits(tensors[name], value):
            raise InputError(
                f"{path}: the weights {name} hold numbers that are not finite, or of another kind; train again"
            )


def _stored(value: Tensor, half: bool) -> Tensor:
    return value.detach().to("cpu", torch.float16 if half else torch.float32).contiguous()


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save  # noqa: PLC0415

    # One text alone: safetensors writes several in any order.
    texts = {_OURS: json.dumps(dict(metadata), sort_keys=True)}
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, texts)
    with whole_file(path) as file:
        file.write(data)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        from safetensors import safe_open  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            'a checkpoint needs safetensors, which is not installed; run: pip install "disbench[models]"'
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parse_json_table((file.metadata() or {}).get(_OURS, "{}"))
            if not all(isinstance(text, str) for text in metadata.values()):
                raise ValueError("what it says of itself is not text")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except Exception as error:  # safetensors, torch and the system have no class in common
        raise InputError(f"{path}: not a readable safetensors file ({error}); name a checkpoint") from error


def _flat(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors by name, and the rest."""
    tensors = {
        f"{number}.{name}": torch.as_tensor(value)
        for number, own in state["state"].items()
        for name, value in own.items()
    }
    return tensors, {"groups": state["param_groups"]}


def _unflat(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(rest["groups"], list):
        raise ValueError("its optimiser has no groups")
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    return {"state": state, "param_groups": rest["groups"]}
