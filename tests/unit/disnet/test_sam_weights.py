"""SAM's parts in torch: the four masks and scores are those that ONNX Runtime makes of the exported decoder."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from disbench.baselines.sam.mobilesam import MobileSam, _decoder_graph, point_coords, point_labels
from disbench.core.clicks import Click
from disbench.datasets.images import read_rgb
from disbench.datasets.photos import photo_path
from disbench.disnet.sam_weights import SamParts, image_positions, sam_parts
from tests.unit.mobilesam_tools import DECODER, decoded, needs_weights

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("transformers")
SIZE = (300, 451)
PLACES = [(220, 140), (20, 20), (450, 299), (0, 0), (160, 200), (300, 60)]
CLICKS = [Click(*place, positive=number % 2 == 0) for number, place in enumerate(PLACES)]


@pytest.fixture(scope="module")
def parts() -> SamParts:
    return sam_parts(DECODER)


@pytest.fixture(scope="module")
def exported() -> Any:
    return onnxruntime.InferenceSession(_decoder_graph(DECODER))


@cache
def photo_encoding() -> np.ndarray:
    return MobileSam().encoding(read_rgb(photo_path("chelsea.png")))[None]


def random_encoding(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (1, 256, 64, 64)).astype(np.float32)


def in_torch(parts: SamParts, encoding: np.ndarray, clicks: list[Click], mask: np.ndarray | None) -> list[np.ndarray]:
    """The four masks and their scores; transformers' encoder adds half a pixel and the padding point."""
    points = torch.from_numpy(point_coords(clicks, SIZE)[:, None, :-1])
    labels = torch.tensor([[[int(click.positive) for click in clicks]]])
    with torch.inference_mode():
        sparse, dense = parts.prompt_encoder(points, labels, None, None if mask is None else torch.from_numpy(mask))
        answers = [
            parts.mask_decoder(
                image_embeddings=torch.from_numpy(encoding),
                image_positional_embeddings=image_positions(parts.prompt_encoder),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=several,
            )
            for several in (False, True)
        ]
    one, three = answers
    return [torch.cat([one[n], three[n]], dim=2).numpy()[:, 0] for n in (0, 1)]


def in_onnx(exported: Any, encoding: np.ndarray, clicks: list[Click], mask: np.ndarray | None) -> Any:
    return decoded(exported, encoding, point_coords(clicks, SIZE), [point_labels(clicks)], mask)


@needs_weights
@pytest.mark.parametrize(
    ("kind", "number"), [*(("photo", n) for n in range(1, 7)), ("random", 1), ("random", 2), ("random", 5)]
)
def test_masks_and_scores_are_those_of_onnx_runtime(parts: SamParts, exported: Any, kind: str, number: int) -> None:
    encoding = photo_encoding() if kind == "photo" else random_encoding(number)
    clicks = CLICKS[:number] if number % 2 else CLICKS[-number:]
    masks, scores = in_torch(parts, encoding, clicks, None)
    expected_masks, expected_scores = in_onnx(exported, encoding, clicks, None)
    assert masks.shape == (1, 4, 256, 256)
    assert np.abs(expected_masks).max() > 5
    assert np.allclose(masks, expected_masks, rtol=0, atol=1e-3)
    assert np.allclose(scores, expected_scores, rtol=0, atol=1e-4)
    fed_back = expected_masks[:, number % 4][:, None]
    with_mask, scores = in_torch(parts, encoding, clicks, fed_back)
    expected_masks, expected_scores = in_onnx(exported, encoding, clicks, fed_back)
    assert np.abs(with_mask - masks).max() > 0.1, "the mask that is fed back has an effect"
    assert np.allclose(with_mask, expected_masks, rtol=0, atol=1e-3)
    assert np.allclose(scores, expected_scores, rtol=0, atol=1e-4)


def test_the_dense_code_is_that_of_the_middles_of_cells() -> None:
    encoder = sam_parts(None).prompt_encoder
    code = image_positions(encoder)
    assert code.shape == (1, 256, 64, 64)
    assert not code.requires_grad, "SAM's matrix is fixed"
    matrix = encoder.state_dict()["shared_embedding.positional_embedding"].double().numpy()
    assert 0.8 < matrix.std() < 1.2, "SAM draws it from a standard normal distribution"
    for y, x in ((0, 0), (5, 60), (63, 1)):
        angles = 2 * np.pi * (np.array([2 * (x + 0.5) / 64 - 1, 2 * (y + 0.5) / 64 - 1]) @ matrix)
        expected = np.concatenate([np.sin(angles), np.cos(angles)])
        assert np.allclose(code[0, :, y, x].numpy(), expected, atol=1e-5)
