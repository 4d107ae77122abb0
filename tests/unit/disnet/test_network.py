"""DISNet whole: how it is built, what it trains, and what its input is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from disbench.baselines.sam.mobilesam import ENCODING
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.disnet.batches import click_batch
from disbench.disnet.frames import Frame
from disbench.disnet.network import build_network, input_of, trained_parameters
from disbench.disnet.options import NetworkSettings
from tests.unit.disnet_tools import SIDE, tiny_network, tiny_settings

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
CLICKS = click_batch([[Click(20, 30, True)], [Click(40, 9, True), Click(50, 50, False)]], [(1, 1)] * 2)
IMAGES = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)).byte()


def test_both_stages_answer_and_torchs_seed_decides_the_weights() -> None:
    network, one_stage = tiny_network(), tiny_network(first_click=False)
    assert network.frame == Frame("stretched", SIDE) and one_stage.refinement is None
    with torch.inference_mode():
        proposals = network.propose(IMAGES, CLICKS.first)
        refined = network.refine(proposals.keep(torch.tensor([0, 2])), CLICKS)
        assert one_stage.propose(IMAGES, CLICKS).logits.shape == (2, 3, 16, 16)
    assert proposals.logits.shape == (2, 3, 16, 16) and refined.shape == (2, 16, 16)
    one, other, third = (tiny_network(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_the_whole_vit_is_trained_and_of_a_sam_all_but_the_positional_codes() -> None:
    vit = tiny_network()
    assert list(trained_parameters(vit)) == [name for name, _ in vit.named_parameters()]
    sam = build_network(NetworkSettings(architecture="sam"), pretrained=False)
    assert sam.frame == Frame("padded", 1024)
    frozen = {name for name, _ in sam.named_parameters()} - set(trained_parameters(sam))
    assert frozen == {
        "proposal.prompts.shared_embedding.positional_embedding",
        "refinement.prompts.shared_embedding.positional_embedding",
        "refinement.prompts.no_mask_embed.weight",
    }


def test_an_image_is_stretched_to_the_input() -> None:
    network_input = input_of(tiny_settings())
    image = np.zeros((50, 200, 3), dtype=np.uint8)
    image[:, 100:] = (10, 20, 30)
    found = network_input(image)
    assert found.shape == (3, SIDE, SIDE) and found.dtype == np.uint8 and found.flags.c_contiguous
    assert (found[:, :, : SIDE // 2 - 1] == 0).all()
    assert found[:, 0, SIDE // 2 + 1 :].T.tolist() == [[10, 20, 30]] * (SIDE // 2 - 1)
    same = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert np.array_equal(network_input(same), same.transpose(2, 0, 1)), "nothing to resize"


def test_the_frozen_encoders_features_are_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")

    class Encoder:
        def __init__(self, weights: str, cache: str) -> None:
            assert (weights, cache) == ("here", str(tmp_path))

        def __call__(self, image: np.ndarray) -> np.ndarray:
            return np.full(ENCODING[1:], image[0, 0, 0], dtype=np.float32)

    monkeypatch.setattr("disbench.disnet.network.MobileSamEncoder", Encoder)
    network_input = input_of(NetworkSettings(architecture="sam", weights="here"), str(tmp_path))
    assert (network_input(np.full((4, 4, 3), 7, dtype=np.uint8)) == 7).all()


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISBENCH_WEIGHTS", str(tmp_path))
    for build in (build_network, input_of):
        with pytest.raises(InputError, match="disbench methods fetch mobilesam"):
            build(NetworkSettings(architecture="sam"))
