"""The proposal network: its candidates, what it looks at, gradients, and Mask2Former's own modules beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from disbench.core.clicks import Click
from disbench.disnet.batches import ClickBatch, Proposals, click_batch
from disbench.disnet.options import DisnetOptions, ViTConfig
from disbench.disnet.proposal_network import ProposalNetwork, click_maps
from disbench.disnet.refinement_network import RefinementNetwork
from tests.unit.disnet_tools import without_padding

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
SIDE = 64
TINY = ViTConfig(
    **{"input_side": SIDE, "hidden": 32, "layers": 2, "heads": 4, "window": 2, "global_blocks": (1,)},
    **{"channels": 64, "pixel_layers": 1, "decoder_layers": 2},
)
OPTIONS = DisnetOptions(candidates=3)
ONE_STAGE = dataclasses.replace(OPTIONS, first_click=False)
CLICKS = [[Click(20, 30, True), Click(40, 9, False), Click(50, 50, True)], [Click(45, 12, True)]]


def network(options: DisnetOptions = OPTIONS, seed: int = 0) -> ProposalNetwork:
    """A tiny one, with noise on all weights: none is at an initial zero that hides what it does."""
    torch.manual_seed(seed)
    made = ProposalNetwork(TINY, options).eval()
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.1)
    return made


@pytest.fixture(scope="module")
def made() -> ProposalNetwork:
    return network()


@pytest.fixture(scope="module")
def images() -> Any:
    return torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)).byte()


@pytest.fixture(scope="module")
def clicks() -> ClickBatch:
    return click_batch(CLICKS, [(1, 1)] * 2)


def tensors(found: Proposals) -> list[Any]:
    return [
        *(found.logits, found.objectness, found.queries, found.features),
        *(tensor for pair in found.earlier for tensor in pair),
    ]


def all_close(one: Proposals, other: Proposals, tolerance: float = 1e-5) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(torch.allclose(a, b, atol=tolerance, rtol=tolerance) for a, b in pairs)


def test_a_query_times_the_features_is_its_mask(made: ProposalNetwork, images: Any, clicks: ClickBatch) -> None:
    with torch.inference_mode():
        found = made(images, clicks)
        product = (found.queries[:, :, :, None, None] * found.features[:, None]).sum(dim=2)
    torch.testing.assert_close(found.logits, product, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("options", [OPTIONS, ONE_STAGE])
def test_a_batch_is_its_samples(options: DisnetOptions, images: Any, clicks: ClickBatch) -> None:
    made, previous = network(options), torch.randn(2, 16, 16)
    with torch.inference_mode():
        together = made(images, clicks, previous)
        for number in range(2):
            alone = made(images[number : number + 1], without_padding(clicks, number), previous[number : number + 1])
            for batch, single in zip(tensors(together), tensors(alone), strict=True):
                torch.testing.assert_close(batch[number : number + 1], single, atol=1e-5, rtol=1e-5)


def test_with_a_stage_of_its_own_the_first_click_is_all_that_counts(
    made: ProposalNetwork, images: Any, clicks: ClickBatch
) -> None:
    with torch.inference_mode():
        found = made(images, clicks, torch.randn(2, 16, 16))
        assert all_close(found, made(images, clicks.first))
        moved = ClickBatch(clicks.points.flip(-1), clicks.positive, clicks.given)
        assert not all_close(found, made(images, moved))


def test_with_one_stage_all_clicks_and_the_mask_count(images: Any, clicks: ClickBatch) -> None:
    made, previous = network(ONE_STAGE), torch.randn(2, 16, 16)
    with torch.inference_mode():
        found = made(images, clicks, previous)
        turned = ClickBatch(clicks.points, torch.ones_like(clicks.positive), clicks.given)
        assert not all_close(found, made(images, clicks.first, previous))
        assert not all_close(found, made(images, turned, previous))
        assert not all_close(found, made(images, clicks))
        assert all_close(made(images, clicks), made(images, clicks, torch.full((2, 16, 16), -1e4)))


def test_click_maps_of_one_stage(clicks: ClickBatch) -> None:
    maps = click_maps(clicks, torch.full((2, 16, 16), 0.25).logit(), (SIDE, SIDE), first_click=False)
    assert maps.shape == (2, 3, SIDE, SIDE)
    assert maps[0, 0, 30, 20] == maps[0, 0, 50, 50] == maps[0, 1, 9, 40] == 1
    assert maps[0, 0, 9, 40] == maps[0, 1, 30, 20] == 0 and maps[1, 1].sum() == 0
    torch.testing.assert_close(maps[:, 2], torch.full((2, SIDE, SIDE), 0.25))


def loss(found: Proposals) -> Any:
    answers = [(found.logits, found.objectness), *found.earlier]
    return sum(logits.square().mean() + scores.square().mean() for logits, scores in answers)


@pytest.mark.parametrize("options", [OPTIONS, ONE_STAGE])
def test_gradients_reach_every_parameter(options: DisnetOptions, images: Any, clicks: ClickBatch) -> None:
    made = network(options).train()
    loss(made(images, clicks, torch.randn(2, 16, 16))).backward()
    for name, weights in made.named_parameters():
        assert weights.grad is not None and bool(weights.grad.isfinite().all()), name
        if not name.endswith("k_proj.bias"):  # softmax cancels it
            assert weights.grad.abs().max() > 1e-8, name


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_bfloat16_is_close_and_answers_are_float32(device: str, images: Any, clicks: ClickBatch) -> None:
    torch.manual_seed(0)
    made = ProposalNetwork(TINY, OPTIONS).to(device)
    refinement = RefinementNetwork(64, OPTIONS).to(device)
    images, clicks = images.to(device), clicks.to(device)
    exact = made(images, clicks)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = made(images, clicks)
        refined = refinement(found.keep(torch.tensor([2, 0], device=device)), clicks)
    assert {tensor.dtype for tensor in tensors(found)} == {torch.float32}
    assert (found.features - exact.features).abs().max() < 0.05 * exact.features.abs().max()
    (loss(found) + refined.float().square().mean()).backward()
    assert all(bool(weights.grad.isfinite().all()) for weights in made.parameters())
