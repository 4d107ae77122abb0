"""Checkpoints: the full training state, and the trained network alone, for use as a method.

Both are safetensors and JSON, which cannot execute code. A trained network may be untrusted: its settings and tensors
are checked. A training state is local: `state.json` contains the SHA-256 of its other files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from disbench.core.errors import InputError, import_extra
from disbench.disnet.network import Disnet, build_network, trained_parameters
from disbench.disnet.training.settings import Training
from disbench.io import definitions
from disbench.io.files import add_file_name, atomic_write, file_sha256
from disbench.io.settings import Count, parse_json_table, settings_from

NETWORK = "network.safetensors"
_OPTIMIZER, _AVERAGES, _STATE = "optimizer.safetensors", "averages.safetensors", "state.json"
OLD = ".old"
_METADATA_KEY = "disbench"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

IGNORED_SETTINGS = {"shards", "features", "workers", "checkpoint_every", "log_every"}
IGNORED_SETTINGS |= {"validate_every", "validation", "validation_options", "validation_samples"}
"""Settings that do not affect any training step."""

_REMOVED = {"mask_floor": 1e-6, "patch": 16}
"""Settings in older files that are now constants with these values."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A network from a file, float32, on the CPU, in evaluation mode; `facts` are other metadata: steps, versions."""

    network: Disnet
    training: Training
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The content of a checkpoint's `state.json`.

    `facts` affect the next steps in addition to the settings; `files`: name -> SHA-256.
    """

    step: Count
    training: Training
    facts: Mapping[str, str]
    files: Mapping[str, str]


def shipped_checkpoint() -> Path:
    """Checkpoint of the small network shipped with disbench."""
    return definitions.folder("baselines") / "disnet-small.safetensors"


def save_network(path: Path, network: Disnet, training: Training, facts: Mapping[str, str], *, half: bool) -> None:
    """Write a network's weights and settings as one safetensors file, atomically.

    A frozen encoder is not included. With `half`, weights are rounded to float16, which changes the network slightly,
    so evaluate the stored file. Position codes stay in float32, since rounding would shift the phases of their sines.
    """
    rounded = {*trained_parameters(network), *network.fixed} if half else set()
    tensors = {
        name: value.to(torch.float16 if name in rounded else torch.float32)
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    _write(path, tensors, {"training": json.dumps(training.as_dict(), sort_keys=True), **facts})


def load_network(path: Path) -> TrainedNetwork:
    """Load a network written by `save_network`; `InputError` if it is damaged or has another architecture."""
    tensors, metadata = _read(path)
    try:
        content = parse_json_table(metadata["training"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a DISNet checkpoint (no settings in it); name one written by train") from error
    training = settings_from(Training, _current(content), f"{path}: its settings")
    if training.network.architecture == "vit":
        with torch.device("meta"):  # otherwise wrong sizes would allocate memory before the check
            _check_tensors(build_network(training.network, pretrained=False), tensors, path)
    network = build_network(training.network, pretrained=False)
    _load(network, tensors, path)
    facts = {name: text for name, text in metadata.items() if name != "training"}
    return TrainedNetwork(network.eval(), training, facts)


def _current(content: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the settings in `_REMOVED`; one with another value stays and is rejected as unknown."""
    kept = {name: value for name, value in content.items() if name not in _REMOVED or _REMOVED[name] != value}
    return {name: _current(value) if isinstance(value, dict) else value for name, value in kept.items()}


def save_state(
    folder: Path,
    network: Disnet,
    optimizer: torch.optim.Optimizer,
    averages: AveragedModel | None,
    training: Training,
    step: int,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the state from which training resumes exactly; if interrupted, the previous state is kept.

    `facts` affect the next steps in addition to the settings; `check_same_training` compares both.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with add_file_name(partial):
        partial.mkdir(parents=True)
    save_network(partial / NETWORK, network, training, {"step": str(step)}, half=False)
    state = optimizer.state_dict()["state"]
    tensors = {f"{number}.{name}": value for number, own in state.items() for name, value in own.items()}
    _write(partial / _OPTIMIZER, tensors, {})
    if averages is not None:
        values: dict[str, Tensor] = dict(trained_parameters(averages.module))
        _write(partial / _AVERAGES, values, {"steps": str(int(averages.n_averaged) - 1)})
    files = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
    with atomic_write(partial / _STATE) as file:
        content = {"step": step, "training": training.as_dict(), "facts": dict(facts or {}), "files": files}
        file.write(json.dumps(content, indent=1).encode())
    old = folder.with_name(folder.name + OLD)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def latest_state(folder: Path) -> Path | None:
    """The checkpoint in `folder`, or the previous one if `save_state` was interrupted; None if there is none."""
    return next((place for place in (folder, folder.with_name(folder.name + OLD)) if place.is_dir()), None)


def read_state(folder: Path) -> TrainingState:
    """Read a checkpoint's `state.json` and check the other files against it."""
    path = folder / _STATE
    try:
        state = settings_from(TrainingState, _current(parse_json_table(path.read_bytes())), str(path))
        damaged = [name for name, digest in state.files.items() if file_sha256(folder / name) != digest]
    except (ValueError, OSError) as error:
        raise InputError(f"{folder}: damaged checkpoint ({error}); remove it to start over") from error
    if damaged:
        raise InputError(f"{folder / damaged[0]}: changed since it was written; remove {folder} to start over")
    return state


def check_same_training(folder: Path, state: TrainingState, training: Training, facts: Mapping[str, str]) -> None:
    """Check that a checkpoint belongs to this training; settings in `IGNORED_SETTINGS` are ignored."""
    here, there = (
        {name: value for name, value in own.as_dict().items() if name not in IGNORED_SETTINGS} | dict(more)
        for own, more in ((training, facts), (state.training, state.facts))
    )
    for name, value in here.items():
        if there.get(name, value) != value:
            raise InputError(
                f"{folder}: a checkpoint of a training with {name} = {there[name]}, not {value}; name another --out, "
                "or start over with --existing overwrite"
            )


def load_state(folder: Path, network: Disnet, optimizer: torch.optim.Optimizer, averages: AveragedModel | None) -> None:
    """Restore weights, optimiser and averages from a checkpoint checked by `read_state`."""
    _load(network, _read(folder / NETWORK)[0], folder / NETWORK)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _read(folder / _OPTIMIZER)[0].items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    if averages is not None:
        values, metadata = _read(folder / _AVERAGES)
        averages.module.load_state_dict(network.state_dict() | values)
        averages.n_averaged.fill_(int(metadata["steps"]) + 1)


def _load(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    _check_tensors(network, tensors, path)
    network.load_state_dict({name: tensors[name].to(value.dtype) for name, value in network.state_dict().items()})


def _check_tensors(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, value in network.state_dict().items():
        if name not in tensors:
            raise InputError(f"{path}: weights {name} are missing; the file is of another network or an older disbench")
        found = tensors[name]
        if found.shape != value.shape:
            raise InputError(
                f"{path}: weights {name} have shape {tuple(found.shape)}, not {tuple(value.shape)}; "
                "the file is of another network"
            )
        if found.dtype not in _FLOATS or not found.isfinite().all():
            raise InputError(f"{path}: weights {name} are not finite floating-point numbers; train again")


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save  # noqa: PLC0415

    # All metadata in one string: safetensors writes several entries in arbitrary order.
    texts = {_METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)}
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, texts)
    with atomic_write(path) as file:
        file.write(data)


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    safetensors = import_extra("safetensors", "models", "a checkpoint")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = parse_json_table((file.metadata() or {}).get(_METADATA_KEY, "{}"))
            if not all(isinstance(text, str) for text in metadata.values()):
                raise ValueError("metadata values are not strings")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except Exception as error:  # safetensors, torch and the system share no exception class
        raise InputError(f"{path}: not a readable safetensors file ({error}); name a checkpoint") from error
