"""Averaged weights: the sum written out, what is averaged, and that a network gets its own back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from disbench.disnet.training.averages import AveragedWeights


def network(frozen: bool = False) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    made[1].requires_grad_(not frozen)
    return made


def step(made: nn.Module, number: int) -> None:
    with torch.no_grad():
        for weights in made.parameters():
            weights.fill_(float(number))


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.9, 0.999])
def test_the_average_written_out(decay: float) -> None:
    """Every step's weights with what the later decays leave of them; early on the decay is smaller."""
    made = network()
    step(made, 100)
    averages = AveragedWeights(made, decay)
    values, decays = [100.0], []
    for number in range(1, 9):
        step(made, number)
        averages.update(made)
        values.append(float(number))
        decays.append(min(decay, number / (9 + number)))
    expected = values[0] * torch.tensor(decays).prod()
    for place, value in enumerate(values[1:]):
        expected += value * (1 - decays[place]) * torch.tensor(decays[place + 1 :]).prod()
    assert averages.steps == 8
    for value in averages.values.values():
        assert torch.allclose(value, expected)


def test_what_is_frozen_is_not_averaged() -> None:
    averages = AveragedWeights(network(frozen=True), 0.9)
    assert set(averages.values) == {"0.weight", "0.bias"}


def test_the_network_has_the_averages_within_the_block_and_its_own_after_it() -> None:
    made = network()
    averages = AveragedWeights(made, 0.9)
    before = {name: value.clone() for name, value in averages.values.items()}
    step(made, 7)
    with averages.in_place(made):
        assert all(torch.equal(own, before[name]) for name, own in made.named_parameters())
    assert all((own == 7).all() for own in made.parameters())
    with pytest.raises(RuntimeError), averages.in_place(made):
        raise RuntimeError
    assert all((own == 7).all() for own in made.parameters()), "after an error too"
    assert all(torch.equal(averages.values[name], value) for name, value in before.items())


def test_a_step_leaves_what_was_averaged_before_as_it_was() -> None:
    """The averages are copies, and take no gradient."""
    made = network()
    averages = AveragedWeights(made, 0.9)
    kept = averages.values["0.weight"].clone()
    step(made, 3)
    assert torch.equal(averages.values["0.weight"], kept)
    assert not any(value.requires_grad for value in averages.values.values())
