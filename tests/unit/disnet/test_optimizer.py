"""The learning rate, Adam's groups, and averaged weights: their sum written out, and what is averaged."""

from __future__ import annotations

import math

import pytest
import torch

from disbench.disnet.network import Disnet, build_network, trained_parameters
from disbench.disnet.options import NetworkSettings
from disbench.disnet.training.train import averaged, learning_rate, parameter_groups, total_steps, warmup_steps
from tests.unit.disnet_tools import tiny_network, tiny_training

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')


def test_rates_by_hand_and_beyond_the_end() -> None:
    """Four steps up from 1 to 5, then eight down; the cosine's quarter, half and three quarters."""
    rates = [learning_rate(step, 12, 4, 5.0, 1.0) for step in range(12)]
    assert rates[:5] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert rates[6] == pytest.approx(2.5 * (1 + math.sqrt(0.5)))
    assert rates[8] == pytest.approx(2.5)
    assert rates[10] == pytest.approx(2.5 * (1 - math.sqrt(0.5)))
    assert learning_rate(3, 3, 3, 1.0, 0.1) == 1.0
    assert learning_rate(10, 10, 0, 1.0, 0.1) == pytest.approx(0, abs=1e-12)


def test_steps_of_a_training() -> None:
    training = tiny_training(steps=0, epochs=2.5, batch=4, accumulate=2, warmup_epochs=0.5)
    assert total_steps(training, 257) == math.ceil(2.5 * 257 / 8)
    assert total_steps(training, 257, processes=4) == math.ceil(2.5 * 257 / 32)
    assert warmup_steps(training, 100) == 20
    assert (total_steps(tiny_training(), 257), warmup_steps(tiny_training(), 6)) == (6, 2)


def test_groups_and_rates() -> None:
    torch.manual_seed(0)
    training = tiny_training(proposal_rate=1.0, refinement_rate=2.0, new_layers_factor=10.0)
    vit = tiny_network()
    groups = parameter_groups(vit, training)
    assert [group["rate"] for group in groups] == [1.0, 20.0], "the ViT's whole stage 2 is new"
    sam = build_network(NetworkSettings(architecture="sam"), pretrained=False)
    groups = parameter_groups(sam, training)
    assert [group["rate"] for group in groups] == [1.0, 2.0, 20.0]
    names = {id(weights): name for name, weights in sam.named_parameters()}
    sorted_names = [[names[id(weights)] for weights in group["params"]] for group in groups]
    assert all(name.startswith("proposal.") for name in sorted_names[0])
    assert all(("block" in n or "kept_" in n or "corrected" in n or "_norm." in n) for n in sorted_names[2])
    assert any("two_way" in name for name in sorted_names[1])
    assert sum(map(len, sorted_names)) == sum(p.requires_grad for p in sam.parameters())
    one_stage = parameter_groups(tiny_network(first_click=False), training)
    assert [group["rate"] for group in one_stage] == [1.0]


def fill(network: Disnet, number: float) -> None:
    with torch.no_grad():
        for weights in trained_parameters(network).values():
            weights.fill_(number)


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.9, 0.999])
def test_the_average_written_out(decay: float) -> None:
    """Every step's weights times the later decays; early decays are smaller. Fixed weights stay as they are."""
    network = tiny_network(blocks=0)
    network.proposal.get_submodule("objectness").requires_grad_(False)
    fixed = network.proposal.get_parameter("objectness.weight").clone()
    fill(network, 100)
    averages = averaged(network, decay)
    values, decays = [100.0], []
    for number in range(1, 9):
        fill(network, number)
        averages.update_parameters(network)
        values.append(float(number))
        decays.append(min(decay, number / (9 + number)))
    expected = values[0] * torch.tensor(decays).prod()
    for place, value in enumerate(values[1:]):
        expected += value * (1 - decays[place]) * torch.tensor(decays[place + 1 :]).prod()
    module = averages.module
    assert set(trained_parameters(module)) == set(trained_parameters(network))
    for found in trained_parameters(module).values():
        assert torch.allclose(found, expected)
    assert torch.equal(module.get_parameter("proposal.objectness.weight"), fixed)
    assert all((own == 8).all() for own in trained_parameters(network).values()), "the network keeps its own"
