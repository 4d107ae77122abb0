"""The ViT backbone: MAE's weights against transformers' own ViTMAE, windows, click maps, the pyramid."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from disbench.core.errors import InputError
from disbench.disnet.options import ViTConfig
from disbench.disnet.proposal_network import SimplePyramid, ViTBackbone
from disbench.io.settings import settings_from

transformers = pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
SIDE = 64
TINY = ViTConfig(
    input_side=SIDE, hidden=32, layers=2, heads=4, window=2, global_blocks=(0, 1), channels=32, pixel_layers=1
)


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
    return ViTBackbone(dataclasses.replace(TINY, weights=folder, **changes), 1).eval()


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
        backbone = ViTBackbone(dataclasses.replace(TINY, global_blocks=global_blocks), 1).eval()
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
        ({"patch": 14}, "patch"),
        ({"layers": 2, "global_blocks": [2]}, "global_blocks"),
        ({"window": 0}, "window"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=name):
        settings_from(ViTConfig, dataclasses.asdict(TINY) | changes, "a.toml")


LOST = "vit.encoder.layer.1.intermediate.dense.bias"


@pytest.mark.parametrize(
    ("own", "weights", "changes", "words"),
    [
        (None, None, {}, "config.json and model.safetensors"),
        ({}, None, {}, "config.json and model.safetensors"),
        ({}, b"damaged", {}, "config.json and model.safetensors"),
        ({}, LOST, {}, LOST.removeprefix("vit.")),
        ({}, "", {"hidden": 64}, "hidden_size = 32, the network 64"),
        ({}, "", {"layers": 3}, "num_hidden_layers = 2, the network 3"),
        ({"model_type": "vit"}, "", {}, "a model of type 'vit', not 'vit_mae'"),
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
    with pytest.raises(InputError, match=words) as caught:
        loaded(str(tmp_path), **changes)
    assert "\n" not in str(caught.value)
