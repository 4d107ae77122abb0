"""Parameters and FLOPs by part, against counts by hand and a network whose every product is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disbench.disnet.batches import ClickBatch, Kept, Proposals
from disbench.disnet.options import DisnetOptions
from disbench.disnet.profile import Part, flops, profile, profile_table
from disbench.disnet.proposal_network import ProposalNetwork
from disbench.disnet.refinement_network import RefinementNetwork
from disbench.reports.render import as_text
from tests.unit.disnet_tools import VIT


def counted(run: Callable[[], Any]) -> float:
    with torch.no_grad(), flops() as clock:
        before = clock()
        run()
        return clock() - before


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_multi_head_attention_is_counted_whatever_path_it_takes(training: bool, weights: bool) -> None:
    attention, tokens = nn.MultiheadAttention(32, 4, batch_first=True).train(training), torch.randn(2, 7, 32)
    projections, products = 2 * 14 * 32 * 32 * 4, 2 * 2 * 7 * 7 * 32 * 2
    assert counted(lambda: attention(tokens, tokens, tokens, need_weights=weights)) == projections + products


class Proposing(nn.Module):
    """A first stage of known cost: two parts, one of them called by the other, and a product of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"wide": nn.Linear(3, 5), "head": nn.Linear(5, 7)})
        self.token = nn.Parameter(torch.zeros(5))

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "head": self.encoder["head"]}

    def forward(self, images: Tensor, clicks: ClickBatch, previous: Tensor | None) -> Proposals:
        cells = images[:, :, ::16, ::16].permute(0, 2, 3, 1).float()
        features = self.encoder["wide"](cells)
        self.encoder["head"](features)
        logits = torch.einsum("bhwd,d->bhw", features, self.token)[:, None]
        objectness = torch.zeros(1, 1) if previous is None else previous.mean()[None, None]
        return Proposals(logits, objectness, self.token[None, None], features.permute(0, 3, 1, 2))


class Refining(nn.Module):
    """A second stage of two blocks; its cost grows with the clicks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"click_vectors": nn.Linear(2, 5)}) for _ in range(2))

    def forward(self, kept: Kept, clicks: ClickBatch) -> Tensor:
        for block in self.blocks:
            block.get_submodule("click_vectors")(clicks.points)
        return kept.logits


def row(found: list[Part], stage: str, name: str) -> Part:
    return next(part for part in found if (part.stage, part.name) == (stage, name))


def totals(found: list[Part]) -> list[float]:
    return [sum(costs) for costs in zip(*(part.costs for part in found), strict=True)]


def test_parts_pay_for_themselves_and_nothing_twice() -> None:
    found = profile(Proposing(), Refining(), side=64, later=(2, 5))
    assert row(found, "proposal", "encoder") == Part("proposal", "encoder", 20, (2 * 16 * 3 * 5, 0, 0))
    assert row(found, "proposal", "head") == Part("proposal", "head", 42, (2 * 16 * 5 * 7, 0, 0))
    assert row(found, "proposal", "rest") == Part("proposal", "rest", 5, (2 * 16 * 5, 0, 0))
    vectors = row(found, "refinement", "click vectors")
    assert vectors == Part("refinement", "click vectors", 30, (0, 2 * 2 * 2 * 10, 2 * 5 * 2 * 10))
    assert totals(found) == [480 + 1120 + 160, 80, 200]
    assert as_text(profile_table(found, (2, 5))).splitlines()[-1].split()[-6::2] == ["100.0", "4.5", "11.4"]


def test_with_one_stage_a_later_click_costs_as_much_as_the_first() -> None:
    found = profile(Proposing(), None, side=64, later=(3,))
    assert totals(found)[0] == totals(found)[1] and {part.stage for part in found} == {"proposal"}


def test_hooks_are_gone_afterwards_and_time_can_be_measured() -> None:
    ticks = iter(range(10**6))

    @contextmanager
    def turns() -> Iterator[Callable[[], float]]:
        yield lambda: next(ticks)

    proposal = Proposing()
    found = profile(proposal, None, side=64, later=(), meter=turns)
    assert row(found, "proposal", "head").costs == (1,)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in proposal.modules())


def test_a_tiny_disnet_by_hand() -> None:
    pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
    proposal = ProposalNetwork(dataclasses.replace(VIT, decoder_layers=2), DisnetOptions(candidates=3))
    refinement = RefinementNetwork(32, DisnetOptions())
    found = profile(proposal, refinement, side=64)
    patches, width, queries, cells = 16, 32, 3, 16 * 16
    embeddings = 2 * patches * 256 * (3 + 1) * width
    layers = 2 * (2 * patches * width * width * (3 + 1 + 4 + 4))
    attention = 2 * 2 * width * (patches * 4 + patches * patches)
    assert row(found, "proposal", "backbone").costs[0] == embeddings + layers + attention
    assert row(found, "proposal", "pyramid").costs[0] == 2 * patches * 4 * (32 * 16 + 4 * 16 * 8 + 32 * 16)
    embedding, product = 2 * queries * 3 * width * width, 2 * queries * width * cells
    assert row(found, "proposal", "mask head").costs[0] == 4 * embedding + 3 * product
    assert row(found, "proposal", "objectness head").costs[0] == 3 * 2 * queries * width
    assert row(found, "proposal", "rest").costs[0] == 0
    weights = (*proposal.parameters(), *refinement.parameters())
    assert sum(part.parameters for part in found) == sum(own.numel() for own in weights)
