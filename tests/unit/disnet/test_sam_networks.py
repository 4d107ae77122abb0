"""The small DISNet: it begins as the SAM that it grew from, padding changes nothing, all of it learns."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from disbench.baselines.sam.mobilesam import _decoder_graph
from disbench.disnet.batches import ClickBatch, Kept
from disbench.disnet.options import DisnetOptions
from disbench.disnet.sam_networks import (
    SCORE_MIDDLE,
    SCORE_SLOPE,
    TOKEN_ORDER,
    Comparison,
    SamProposalNetwork,
    SamRefinementNetwork,
    on_grid,
    point_tokens,
)
from disbench.disnet.sam_weights import SamParts, image_positions, sam_parts
from tests.unit.disnet_tools import without_gradient
from tests.unit.mobilesam_tools import DECODER, decoded, needs_weights

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
OPTIONS = DisnetOptions(candidates=5)
ONE_STAGE = DisnetOptions(candidates=2, first_click=False)
SAMPLES = [[(300.0, 420.0, True)], [(700.5, 90.0, True), (12.0, 1000.0, False), (512.0, 512.0, True)]]
"""x, y in pixels of the input, and the sign; each sample's clicks."""


def batch_of(samples: Any) -> ClickBatch:
    """The clicks, padded with what must not matter."""
    most = max(map(len, samples))
    padded = [[*clicks, *[(777.0, -50.0, True)] * (most - len(clicks))] for clicks in samples]
    return ClickBatch(
        torch.tensor([[click[:2] for click in clicks] for clicks in padded]),
        torch.tensor([[click[2] for click in clicks] for clicks in padded]),
        torch.tensor([[number < len(clicks) for number in range(most)] for clicks in samples]),
    )


def features(count: int) -> Tensor:
    return torch.randn(count, 256, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.1


def mask_logits(count: int) -> Tensor:
    coarse = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 8
    return torch.nn.functional.interpolate(coarse, size=(256, 256), mode="bilinear")[:, 0]


def kept(count: int, seed: int = 3) -> Kept:
    generator = torch.Generator().manual_seed(seed)
    return Kept(
        torch.randn(count, 256, generator=generator),
        torch.randn(count, 32, 256, 256, generator=generator),
        mask_logits(count),
        features(count),
    )


def noisy(module: Any) -> Any:
    """With noise on the weights: none is at an initial zero that hides what it does."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in module.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.02)
    return module.eval()


@pytest.fixture(scope="module")
def parts() -> SamParts:
    torch.manual_seed(0)
    return sam_parts(None)


@pytest.fixture(scope="module")
def refinement(parts: SamParts) -> SamRefinementNetwork:
    made: SamRefinementNetwork = noisy(SamRefinementNetwork(parts, OPTIONS))
    return made


def of_transformers(parts: SamParts, clicks: Any, mask: Tensor | None, several: bool) -> tuple[Tensor, Tensor]:
    """The library's own forward: masks (n, 256, 256) and scores (n,) of one sample."""
    prompts: Any = parts.prompt_encoder
    points = torch.tensor([[[click[:2] for click in clicks]]])
    labels = torch.tensor([[[int(click[2]) for click in clicks]]])
    sparse, dense = prompts(points, labels, None, None if mask is None else mask[None, None])
    found = parts.mask_decoder(
        image_embeddings=features(1),
        image_positional_embeddings=image_positions(prompts),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=several,
    )
    return found[0][0, 0], found[1][0, 0]


def test_stage_one_begins_as_the_decoder(parts: SamParts) -> None:
    """Candidates one to three are the multi-mask tokens', the fourth the single-mask token's, the fifth new."""
    torch.manual_seed(1)
    made = SamProposalNetwork(parts, OPTIONS).eval()
    with torch.inference_mode():
        found = made(features(1), batch_of(SAMPLES[1:]))
        masks, scores = of_transformers(parts, SAMPLES[1][:1], None, several=True)
        single, score = of_transformers(parts, SAMPLES[1][:1], None, several=False)
    assert found.logits.shape == (1, 5, 256, 256) and found.objectness.shape == (1, 5)
    assert found.queries.shape == (1, 5, 256) and found.features.shape == (1, 32, 256, 256)
    assert found.context is not None and torch.equal(found.context, features(1))
    # The fifth token takes part in the attention, so the others' answers are close to the decoder's, not equal.
    expected = torch.cat([masks, single])
    assert torch.corrcoef(torch.stack([found.logits[0, :4].flatten(), expected.flatten()]))[0, 1] > 0.9
    estimates = SCORE_SLOPE * (torch.cat([scores, score]) - SCORE_MIDDLE)
    assert torch.allclose(found.objectness[0, :4], estimates, atol=0.2 * SCORE_SLOPE)
    assert not torch.equal(found.logits[0, 4], found.logits[0, 0]), "grown from the first, but not it"
    tokens: Any = parts.mask_decoder
    assert torch.equal(made.candidate_tokens[:4], tokens.mask_tokens.weight[list(TOKEN_ORDER)])
    apart = (made.candidate_tokens[4] - made.candidate_tokens[0]).std() / tokens.mask_tokens.weight.std()
    assert 0.05 < apart < 0.2


def test_with_as_many_candidates_as_tokens_it_is_the_decoder(parts: SamParts) -> None:
    made = SamProposalNetwork(parts, dataclasses.replace(OPTIONS, candidates=4)).eval()
    with torch.inference_mode():
        found = made(features(1), batch_of(SAMPLES[1:]))
        masks, scores = of_transformers(parts, SAMPLES[1][:1], None, several=True)
        assert torch.allclose(found.logits[0, :3], masks, atol=1e-4)
        assert torch.allclose(found.objectness[0, :3], SCORE_SLOPE * (scores - SCORE_MIDDLE), atol=1e-3)


def test_stage_two_begins_as_the_decoder(parts: SamParts) -> None:
    """Told the mask and all clicks; what it is told of stage 1 besides weighs nothing yet."""
    made = SamRefinementNetwork(parts, OPTIONS).eval()
    with torch.inference_mode():
        found = made(kept(1), batch_of(SAMPLES[1:]))
        expected, _ = of_transformers(parts, SAMPLES[1], mask_logits(1)[0], several=False)
    assert torch.allclose(found, expected, atol=1e-4)


def test_gradients_are_those_of_the_library(parts: SamParts) -> None:
    """The decoder's sums in another order, against transformers' own modules, in double precision."""
    two_way = copy.deepcopy(noisy(SamRefinementNetwork(parts, OPTIONS)).two_way).double()
    generator = torch.Generator().manual_seed(6)
    tokens, image, places = (
        torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)
        for size in ((2, 7, 256), (2, 256, 4, 5), (1, 256, 4, 5))
    )
    found, cells = two_way(tokens, torch.ones(2, 7, dtype=torch.bool), image, places, slice(1, 4))
    decoded, keys, *_ = two_way.transformer(tokens[:, None], image, places.expand(2, -1, -1, -1), None)
    wide = two_way.upscale_layer_norm(two_way.upscale_conv1(keys[:, 0].mT.reshape(2, 256, 4, 5)))
    upscaled = torch.nn.functional.gelu(two_way.upscale_conv2(torch.nn.functional.gelu(wide)))
    sides = ((found, on_grid(cells)), (decoded[:, 0, 1:4], upscaled.permute(0, 2, 3, 1)))
    weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in sides[0]]
    inputs = [tokens, image, places, *two_way.parameters()]
    slopes = []
    for side in sides:
        loss = sum((part * own).sum() for part, own in zip(side, weights, strict=True))
        slopes.append(torch.autograd.grad(loss, inputs))
    torch.testing.assert_close(sides[0], sides[1])
    torch.testing.assert_close(slopes[0], slopes[1])


@needs_weights
def test_with_weights_both_stages_are_what_onnx_runtime_says() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    exported = onnxruntime.InferenceSession(_decoder_graph(DECODER))
    parts, clicks = sam_parts(DECODER), SAMPLES[1]

    def asked(own: Any, mask: Any = None) -> Any:
        points = [[*(click[:2] for click in own), (0.0, 0.0)]]
        labels = [[*(float(click[2]) for click in own), -1.0]]
        return decoded(exported, features(1).numpy(), points, labels, mask)

    proposal = SamProposalNetwork(parts, dataclasses.replace(OPTIONS, candidates=4)).eval()
    refinement = SamRefinementNetwork(parts, OPTIONS).eval()
    with torch.inference_mode():
        found = proposal(features(1), batch_of([clicks]))
        masks, scores = asked(clicks[:1])
        order = list(TOKEN_ORDER)
        assert np.abs(masks).max() > 5
        assert np.allclose(found.logits, masks[:, order], rtol=0, atol=1e-3)
        assert np.allclose(found.objectness, SCORE_SLOPE * (scores[:, order] - SCORE_MIDDLE), rtol=0, atol=1e-3)
        chosen = found.keep(torch.tensor([1]))
        refined = refinement(chosen, batch_of([clicks]))
        masks, _ = asked(clicks, chosen.logits[None].numpy())
    assert np.allclose(refined, masks[:, 0], rtol=0, atol=1e-3)


def test_padding_never_enters(refinement: SamRefinementNetwork, parts: SamParts) -> None:
    with torch.inference_mode():
        together = refinement(kept(2), batch_of(SAMPLES))
        own = Kept(*(getattr(kept(2), name)[:1] for name in ("query", "features", "logits", "context")))
        alone = refinement(own, batch_of(SAMPLES[:1]))
    assert torch.allclose(together[:1], alone, atol=1e-4, rtol=1e-4)
    assert together.std() > 0.1
    made = noisy(SamProposalNetwork(parts, ONE_STAGE))
    with torch.inference_mode():
        together = made(features(2), batch_of(SAMPLES), mask_logits(2))
        alone = made(features(2)[:1], batch_of(SAMPLES[:1]), mask_logits(2)[:1])
        unmasked = made(features(2)[:1], batch_of(SAMPLES[:1]), None)
    assert torch.allclose(together.logits[:1], alone.logits, atol=1e-4, rtol=1e-4)
    assert torch.allclose(together.objectness[:1], alone.objectness, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(unmasked.logits, alone.logits, atol=1e-2), "the mask before has a say"


def test_gradients_reach_all_that_is_trained(parts: SamParts) -> None:
    """But the code of negative clicks in stage 1, which sees first clicks alone."""
    proposal, refinement = (noisy(stage(parts, OPTIONS)) for stage in (SamProposalNetwork, SamRefinementNetwork))
    clicks = batch_of(SAMPLES)
    found = proposal(features(2), clicks)
    refined = refinement(found.keep(torch.tensor([4, 2])).detached_mask(), clicks)
    weights = torch.randn(refined.shape, generator=torch.Generator().manual_seed(4))
    loss = (refined * weights).mean() + (found.logits * weights[:, None]).mean() + found.objectness.sum()
    loss.backward()
    assert without_gradient(proposal) == ["prompts.point_embed.0.weight"]
    assert without_gradient(refinement) == []
    assert all(weights.grad is not None for weights in proposal.parameters() if weights.requires_grad)
    assert proposal.prompts.shared_embedding.positional_embedding.grad is None


def test_positions_follow_weights_that_are_loaded(parts: SamParts, tmp_path: Path) -> None:
    torch.manual_seed(5)
    others = sam_parts(None)
    for stage in (SamProposalNetwork, SamRefinementNetwork):
        made, other = stage(parts, OPTIONS), stage(others, OPTIONS)
        assert not torch.equal(made.positions, other.positions)
        torch.save(other.state_dict(), tmp_path / "state")
        made.load_state_dict(torch.load(tmp_path / "state"))
        assert torch.equal(made.positions, other.positions)
        assert "positions" not in other.state_dict()


def test_the_last_mask_is_the_prompt_and_the_kept_one_stays_the_template(parts: SamParts) -> None:
    made = noisy(SamRefinementNetwork(parts, OPTIONS))
    with torch.inference_mode():
        own, other = kept(1), mask_logits(2)[1:]
        plain, later = made(own, batch_of(SAMPLES[:1])), made(own, batch_of(SAMPLES[:1]), other)
        assert torch.equal(plain, made(own, batch_of(SAMPLES[:1]), own.logits))
        template = made(dataclasses.replace(own, logits=other), batch_of(SAMPLES[:1]), other)
    assert not torch.allclose(plain, later, atol=1e-2) and not torch.allclose(later, template, atol=1e-3)


def test_scores_are_the_candidates_whatever_their_order() -> None:
    torch.manual_seed(7)
    made = noisy(Comparison(16))
    given = torch.randn(2, 5), torch.randn(2, 5, 16), 3 * torch.randn(2, 5, 256, 256), torch.randn(2, 16, 64, 64)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.inference_mode():
        found = made(*given)
        moved = made(*(part[:, order] for part in given[:3]), given[3])
        alone = made(*(part[:, :1] for part in given[:3]), given[3])
    assert torch.allclose(moved, found[:, order], atol=1e-5)
    assert not torch.allclose(alone, found[:, :1], atol=1e-3), "candidates see each other"


def test_with_two_stages_the_first_sees_the_first_click_alone(parts: SamParts) -> None:
    made = noisy(SamProposalNetwork(parts, OPTIONS))
    with torch.inference_mode():
        one = made(features(1), batch_of([SAMPLES[1][:1]]))
        more = made(features(1), batch_of(SAMPLES[1:]), mask_logits(1))
    assert torch.equal(one.logits, more.logits)


def test_points_are_as_exact_in_mixed_precision(parts: SamParts) -> None:
    exact, given = point_tokens(parts.prompt_encoder, batch_of(SAMPLES))
    assert given.tolist() == [[True, False, False, True], [True] * 4]
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = point_tokens(parts.prompt_encoder, batch_of(SAMPLES))
    assert torch.equal(exact, mixed)
