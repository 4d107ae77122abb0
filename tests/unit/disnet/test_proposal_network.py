"""The proposal network: MAE's weights against transformers' own ViTMAE, its candidates, what it looks at, gradients."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from disbench.core.clicks import Click
from disbench.disnet.batches import ClickBatch, Proposals, click_batch
from disbench.disnet.options import DisnetOptions, ViTConfig
from disbench.disnet.proposal_network import ProposalNetwork, SimplePyramid, ViTBackbone, click_maps
from disbench.disnet.refinement_network import RefinementNetwork
from disbench.io.settings import settings_from
from tests.refusals import refuses
from tests.unit.disnet_tools import SIDE, VIT, without_padding

transformers = pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
ENCODER = dataclasses.replace(VIT, global_blocks=(0, 1))


@pytest.fixture(scope="module")
def mae() -> Any:
    """A ViTMAE of two blocks, its weights and biases large enough to matter."""
    torch.manual_seed(0)
    sizes = transformers.ViTMAEConfig(
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
        **{"image_size": SIDE, "patch_size": 16, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1},
        **{"decoder_num_attention_heads": 2, "decoder_intermediate_size": 32, "layer_norm_eps": 1e-6},
    )
    model = transformers.ViTMAEForPreTraining(sizes).eval()
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    return model


@pytest.fixture(scope="module")
def folder(mae: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    place = str(tmp_path_factory.mktemp("mae"))
    mae.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def images() -> Any:
    return torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)).byte()


def loaded(folder: str, **changes: Any) -> ViTBackbone:
    return ViTBackbone(dataclasses.replace(ENCODER, weights=folder, **changes), 1).eval()


def maps(side: int = SIDE) -> Any:
    found = torch.zeros(2, 1, side, side)
    found[:, :, 20:30, 40:50] = 1
    return found


def normalised(images: Any) -> Any:
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    return (images / 255 - mean) / std


def mae_features(mae: Any, images: Any) -> Any:
    """What ViTMAE's own blocks make of all patches, without its class token and its last norm."""
    side = images.shape[-1]
    embeddings = mae.vit.embeddings
    patches = embeddings.patch_embeddings(normalised(images))
    with_class = torch.cat([torch.zeros_like(patches[:, :1]), patches], dim=1)
    hidden = patches + embeddings.interpolate_pos_encoding(with_class, side, side)[:, 1:]
    for layer in mae.vit.layers if hasattr(mae.vit, "layers") else mae.vit.encoder.layer:
        answer = layer(hidden)
        hidden = answer[0] if isinstance(answer, tuple) else answer
    return hidden.transpose(1, 2).unflatten(2, (side // 16, side // 16))


@pytest.mark.parametrize("side", [SIDE, 96])
def test_mae_weights_give_what_mae_gives(mae: Any, folder: str, side: int) -> None:
    """At the side of pretraining, and at another one, where position embeddings are interpolated."""
    images = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(2)).byte()
    with torch.inference_mode():
        found = loaded(folder, input_side=side)(images, maps(side))
        torch.testing.assert_close(found, mae_features(mae, images), atol=2e-4, rtol=1e-4)


def _stored(folder: str) -> dict[str, Any]:
    return dict(load_file(Path(folder) / "model.safetensors"))


def test_clicks_change_nothing_before_the_first_step_and_something_after(folder: str, images: Any) -> None:
    backbone = loaded(folder)
    nothing = torch.zeros_like(maps())
    assert torch.equal(backbone(images, maps()), backbone(images, nothing))
    optimiser = torch.optim.SGD(backbone.parameters(), lr=0.01)
    backbone(images, maps()).square().mean().backward()
    optimiser.step()
    assert (backbone(images, maps()) - backbone(images, nothing)).abs().max() > 1e-4


def test_windows_keep_blocks_apart_and_a_global_block_joins_them(images: Any) -> None:
    """A patch that changes reaches its own window of 2 x 2 patches, or all of the input."""
    torch.manual_seed(0)
    changed = images.clone()
    changed[:, :, :16, :16] = 255 - changed[:, :, :16, :16]
    for global_blocks, reached in (((), 4), ((1,), 16), ((0, 1), 16)):
        backbone = ViTBackbone(dataclasses.replace(ENCODER, global_blocks=global_blocks), 1).eval()
        with torch.inference_mode():
            difference = backbone(images, maps()) - backbone(changed, maps())
        assert int((difference.abs().amax(dim=(0, 1)) > 0).sum()) == reached


def test_pyramid_has_strides_4_to_32() -> None:
    torch.manual_seed(0)
    pyramid = SimplePyramid(32)
    features = torch.randn(2, 32, 4, 6)
    levels = pyramid(features)
    assert [level.shape[1:] for level in levels] == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (32, 2, 3)]
    assert tuple(level.shape[1] for level in levels) == pyramid.widths
    assert torch.equal(levels[2], features)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"input_side": 450}, "input_side"),
        ({"hidden": 36, "heads": 8}, "hidden"),
        ({"channels": 48}, "channels"),
        ({"layers": 2, "global_blocks": [2]}, "global_blocks"),
        ({"window": 0}, "window"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes: dict[str, Any], name: str) -> None:
    refuses(name, lambda: settings_from(ViTConfig, dataclasses.asdict(ENCODER) | changes, "a.toml"))


LOST = "vit.encoder.layer.1.intermediate.dense.bias"


@pytest.mark.parametrize(
    ("own", "weights", "changes", "words"),
    [
        (None, None, {}, "config.json and model.safetensors"),
        ({}, None, {}, "config.json and model.safetensors"),
        ({}, b"damaged", {}, "config.json and model.safetensors"),
        ({}, LOST, {}, LOST.removeprefix("vit.")),
        ({}, "", {"hidden": 64}, "hidden_size = 32, the network has 64"),
        ({}, "", {"layers": 3}, "num_hidden_layers = 2, the network has 3"),
        ({"model_type": "vit"}, "", {}, "model type is 'vit', not 'vit_mae'"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    folder: str, tmp_path: Path, own: dict[str, str] | None, weights: Any, changes: dict[str, Any], words: str
) -> None:
    """With keys of the configuration changed, and without the weights `LOST`; pickles are not read."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    if own is not None:
        config = json.loads((Path(folder) / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | own))
    if isinstance(weights, str):
        kept = {key: value for key, value in _stored(folder).items() if key != weights}
        save_file(kept, tmp_path / "model.safetensors")
    elif weights is not None:
        (tmp_path / "model.safetensors").write_bytes(weights)
    refuses(words, lambda: loaded(str(tmp_path), **changes))


TINY = dataclasses.replace(VIT, channels=64, decoder_layers=2)
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


@pytest.mark.parametrize("options", [OPTIONS, ONE_STAGE])
def test_a_batch_is_its_samples(options: DisnetOptions, images: Any, clicks: ClickBatch) -> None:
    made, previous = network(options), torch.randn(2, 16, 16)
    with torch.inference_mode():
        together = made(images, clicks, previous)
        for number in range(2):
            alone = made(images[number : number + 1], without_padding(clicks, number), previous[number : number + 1])
            for batch, single in zip(tensors(together), tensors(alone), strict=True):
                torch.testing.assert_close(batch[number : number + 1], single, atol=1e-5, rtol=1e-5)


def test_with_a_stage_of_its_own_the_first_click_counts(made: ProposalNetwork, images: Any, clicks: ClickBatch) -> None:
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
