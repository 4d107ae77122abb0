"""What a trained network's file says of its training is read as it was written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from disbench.disnet import checkpoints
from disbench.disnet.training.settings import load_training, training_from
from disbench.io import definitions


@pytest.mark.parametrize("name", definitions.names("baselines/configs"))
def test_settings_survive_json(name: str) -> None:
    """Also where a choice is left open, such as weights to begin with."""
    training = load_training(name)
    assert training_from(json.loads(json.dumps(training.as_dict())), "stored") == training


def test_a_network_is_stored_without_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "build_network", lambda settings, pretrained: torch.nn.Linear(2, 3))
    training = replace(load_training("disnet-small"), shards=())
    network = torch.nn.Linear(2, 3)
    network.fixed = ()  # type: ignore[assignment]
    checkpoints.save_network(tmp_path / "n.safetensors", network, training, {"steps": "7"}, half=False)  # type: ignore[arg-type]
    loaded = checkpoints.load_network(tmp_path / "n.safetensors")
    assert (loaded.training, loaded.facts) == (training, {"steps": "7"})
    assert torch.equal(loaded.network.weight, network.weight)  # type: ignore[arg-type]
