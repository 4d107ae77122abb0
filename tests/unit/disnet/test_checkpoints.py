"""Checkpoints: what is stored comes back, and what is not whole, or of another network, is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from disbench.core.clicks import Click
from disbench.disnet.batches import click_batch
from disbench.disnet.checkpoints import (
    IGNORED_SETTINGS,
    check_same_training,
    latest_state,
    load_network,
    load_state,
    read_state,
    save_network,
    save_state,
)
from disbench.disnet.network import Disnet, build_network, trained_parameters
from disbench.disnet.options import NetworkSettings
from disbench.disnet.training.settings import Training
from disbench.disnet.training.train import averaged
from tests.refusals import refuses
from tests.unit.disnet_tools import SIDE, tiny_network, tiny_settings, tiny_training

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
safetensors = pytest.importorskip("safetensors.torch")
TRAINING = tiny_training()


@pytest.fixture(scope="module")
def stored(network: Disnet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "disnet.safetensors"
    save_network(path, network, TRAINING, {"steps": "7"}, half=False)
    return path


def rewritten(stored: Path, path: Path, metadata: dict[str, str] | None = None, **tensors: Any) -> Path:
    with safetensors.safe_open(stored, framework="pt") as file:
        texts = dict(file.metadata())
    values = safetensors.load_file(stored) | tensors
    kept = {name: value for name, value in values.items() if value is not None}
    safetensors.save_file(kept, path, texts if metadata is None else {"disbench": json.dumps(metadata)})
    return path


def test_a_network_comes_back_and_is_the_same_bytes(network: Disnet, stored: Path, tmp_path: Path) -> None:
    found = load_network(stored)
    assert found.training == TRAINING and found.facts == {"steps": "7"}
    assert not found.network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, found.network.state_dict()[name])
    clicks = click_batch([[Click(20, 30, True), Click(5, 5, False)]], [(1, 1)])
    images = torch.randint(0, 256, (1, 3, SIDE, SIDE)).byte()
    with torch.inference_mode():
        answers = [made.propose(images, clicks) for made in (network, found.network)]
        kept = [own.keep(torch.tensor([1])) for own in answers]
        masks = [made.refine(own, clicks) for made, own in zip((network, found.network), kept, strict=True)]
    assert torch.equal(answers[0].logits, answers[1].logits) and torch.equal(*masks)
    # Also from another process: safetensors orders several texts by chance.
    path = tmp_path / "again.safetensors"
    save_network(path, network, TRAINING, {"steps": "7"}, half=False)
    assert path.read_bytes() == stored.read_bytes()
    with safetensors.safe_open(path, framework="pt") as file:
        assert len(file.metadata()) == 1


def test_half_is_half_but_for_what_is_never_trained(tmp_path: Path) -> None:
    """A small network on a SAM: its codes of positions stay exact, and so does what is made of them."""
    torch.manual_seed(0)
    settings = NetworkSettings(architecture="sam")
    made = build_network(settings, pretrained=False)
    path = tmp_path / "half.safetensors"
    save_network(path, made, dataclasses.replace(TRAINING, network=settings), {}, half=True)
    kinds = {name: value.dtype for name, value in safetensors.load_file(path).items()}
    assert {name for name, kind in kinds.items() if kind == torch.float16} == set(trained_parameters(made))
    found = load_network(path).network
    state = found.state_dict()
    for name, value in made.state_dict().items():
        expected = value.half().float() if kinds[name] == torch.float16 else value
        assert torch.equal(state[name], expected) and state[name].dtype == torch.float32
    assert torch.equal(found.get_submodule("proposal").positions, made.get_submodule("proposal").positions)
    assert set(trained_parameters(found)) == set(trained_parameters(made))


def test_a_file_with_a_setting_that_is_fixed_now(stored: Path, tmp_path: Path) -> None:
    path = rewritten(stored, tmp_path / "older.safetensors", OLDER)
    assert load_network(path).training == load_network(stored).training


OLDER, OTHER = ({"training": json.dumps(TRAINING.as_dict() | {"patch": side})} for side in (16, 14))
NEWER = {"training": json.dumps(TRAINING.as_dict() | {"momentum": 3})}
WIDER = {"training": json.dumps(dataclasses.replace(TRAINING, network=tiny_settings(candidates=5)).as_dict())}
BIAS = "refinement.blocks.0.ffn.0.bias"


@pytest.mark.parametrize(
    ("texts", "tensors", "words"),
    [
        ({}, {}, "not a DISNet checkpoint"),
        ({"training": "lasted long"}, {}, "not a DISNet checkpoint"),
        ({"disbench": "{}"}, {}, "not a DISNet checkpoint"),
        (OTHER, {}, "unknown key 'patch'"),
        (NEWER, {}, "unknown key 'momentum'"),
        (WIDER, {}, "another network"),
        (None, {BIAS: None}, f"{BIAS} are missing"),
        (None, {BIAS: torch.zeros(3)}, rf"{BIAS} have shape \(3,\), not \(128,\)"),
        (None, {BIAS: torch.full((128,), torch.nan)}, f"{BIAS} are not finite"),
        (None, {BIAS: torch.full((128,), torch.inf)}, f"{BIAS} are not finite"),
        (None, {BIAS: torch.zeros(128, dtype=torch.int64)}, f"{BIAS} are not finite"),
    ],
)
def test_a_file_of_another_network(
    stored: Path, tmp_path: Path, texts: dict[str, str] | None, tensors: dict[str, Any], words: str
) -> None:
    path = rewritten(stored, tmp_path / "other.safetensors", texts, **tensors)
    said = refuses(words, load_network, path)
    assert str(path) in said


def test_a_full_disk_leaves_what_was_there(network: Disnet, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_network(stored, network, TRAINING, {}, half=True)
    assert caught.value.filename == str(stored)
    assert stored.read_bytes() == before and [p.name for p in stored.parent.iterdir()] == [stored.name]


State = tuple[Disnet, torch.optim.Optimizer, AveragedModel]


def in_training(seed: int, steps: int) -> State:
    """A network with its optimiser and averages after some steps of made-up gradients."""
    made = tiny_network(seed)
    parameters = list(made.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters[:20], "lr": 0.01, "rate": 0.02}, {"params": parameters[20:]}]
    optimizer, averages = torch.optim.Adam(groups, betas=(0.9, 0.99)), averaged(made, 0.9)
    for number in range(steps):
        go_on((made, optimizer, averages), number)
    return made, optimizer, averages


def go_on(state: State, seed: int) -> None:
    made, optimizer, averages = state
    generator = torch.Generator().manual_seed(seed)
    for weights in made.parameters():
        weights.grad = torch.randn(weights.shape, generator=generator)
    optimizer.step()
    averages.update_parameters(made)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    own, folder = in_training(0, 3), tmp_path_factory.mktemp("state") / "checkpoint"
    save_state(folder, *own, TRAINING, 3)
    return own, folder


def restored(folder: Path, seed: int = 1) -> tuple[State, int]:
    """Another network in training with the state of a checkpoint, and its step."""
    taken_up, found = in_training(seed, 0), read_state(folder)
    load_state(folder, *taken_up)
    return taken_up, found.step


def test_a_training_goes_on_where_it_was(state: tuple[State, Path]) -> None:
    taken_up, step = restored(state[1])
    twin = in_training(0, 3)
    for each in (twin, taken_up):
        go_on(each, 9)
    for one, other in zip(twin[0].parameters(), taken_up[0].parameters(), strict=True):
        assert torch.equal(one, other)
    assert step == 3 and int(twin[2].n_averaged) == int(taken_up[2].n_averaged) == 5
    same = zip(twin[2].module.state_dict().values(), taken_up[2].module.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in same)
    groups = taken_up[1].param_groups
    assert (groups[0]["lr"], groups[0]["rate"]) == (0.01, 0.02)


def test_a_newer_state_takes_the_older_ones_place(tmp_path: Path) -> None:
    own, folder = in_training(0, 1), tmp_path / "checkpoint"
    (tmp_path / "checkpoint.partial").mkdir()
    (tmp_path / "checkpoint.partial" / "left.over").write_text("by a kill")
    for step in (1, 2):
        save_state(folder, *own, TRAINING, step)
        assert restored(folder)[1] == step
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert not (folder / "left.over").exists()
    save_state(folder, own[0], own[1], None, TRAINING, 3)
    load_state(folder, *in_training(1, 0)[:2], None)
    assert read_state(folder).step == 3


def test_a_kill_between_two_names_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, folder = in_training(0, 1), tmp_path / "checkpoint"
    assert latest_state(folder) is None
    save_state(folder, *own, TRAINING, 1)
    assert latest_state(folder) == folder
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name == "checkpoint.partial":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(folder, *own, TRAINING, 2)
    monkeypatch.undo()
    found = latest_state(folder)
    assert found is not None and restored(found)[1] == 1
    save_state(folder, *own, TRAINING, 2)
    assert latest_state(folder) == folder and [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


CHANGES: dict[str, Any] = {
    **{"seed": 1, "steps": 7, "batch": 1, "accumulate": 2, "proposal_rate": 2e-3, "ema": 0.5, "precision": "bf16"},
    **{"network": tiny_settings(blocks=1), "corrective_clicks": 2},
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_training_is_not_resumed(state: tuple[State, Path], name: str) -> None:
    other = dataclasses.replace(TRAINING, **{name: CHANGES[name]})
    refuses(f"{state[1]}: .*{name} = ", lambda: check_same_training(state[1], read_state(state[1]), other, {}))


def test_where_data_lies_and_what_is_logged_may_differ(state: tuple[State, Path]) -> None:
    moved = tiny_training(
        "elsewhere", workers=2, checkpoint_every=1, log_every=3, validate_every=1, validation="grabcut"
    )
    check_same_training(state[1], read_state(state[1]), dataclasses.replace(moved, validation_samples=2), {})
    assert set(IGNORED_SETTINGS) <= {field.name for field in dataclasses.fields(Training)}
