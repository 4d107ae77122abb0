"""SAM's parts in torch: the four masks and scores are those that ONNX Runtime makes of the exported decoder."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from disbench.baselines.cards import load_card
from disbench.baselines.mobilesam import MobileSam, _decoder_graph, point_coords, point_labels
from disbench.baselines.weights import is_right, weights_folder
from disbench.clicks import Click
from disbench.datasets.images import read_rgb
from disbench.datasets.photos import photo_path
from disbench.disnet.sam_weights import SamParts, image_positions, sam_parts

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("transformers")
DECODER = weights_folder("mobilesam") / "sam.onnx"
needs_weights = pytest.mark.skipif(
    not all(is_right(weights_folder("mobilesam") / w.file, w) for w in load_card("mobilesam").weights),
    reason="the weights are not here; get them with: disbench methods fetch mobilesam",
)
SIZE = (300, 451)
CLICKS = [
    Click(220, 140, True),
    Click(20, 20, False),
    Click(450, 299, True),
    Click(0, 0, False),
    Click(160, 200, True),
    Click(300, 60, False),
]


@pytest.fixture(scope="module")
def parts() -> SamParts:
    return sam_parts(DECODER)


@pytest.fixture(scope="module")
def exported() -> Any:
    return onnxruntime.InferenceSession(_decoder_graph(DECODER))


@cache
def encoding_of(kind: str) -> np.ndarray:
    if kind == "photo":
        return MobileSam().encoding(read_rgb(photo_path("chelsea.png")))
    return np.random.default_rng(int(kind)).normal(0, 0.3, (1, 256, 64, 64)).astype(np.float32)


def in_torch(
    parts: SamParts, encoding: np.ndarray, clicks: list[Click], mask: np.ndarray | None
) -> list[np.ndarray]:
    """The four masks and their scores; transformers' encoder adds half a pixel and the padding point."""
    points = torch.from_numpy(point_coords(clicks, SIZE)[:, None, :-1])
    labels = torch.tensor([[[int(click.positive) for click in clicks]]])
    with torch.inference_mode():
        sparse, dense = parts.prompt_encoder(
            points, labels, None, None if mask is None else torch.from_numpy(mask)
        )
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
    given = {
        "image_embeddings": encoding,
        "point_coords": point_coords(clicks, SIZE),
        "point_labels": np.array([point_labels(clicks)], dtype=np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32) if mask is None else mask,
        "has_mask_input": np.full((1, 1, 1, 1), mask is not None, dtype=np.float32),
    }
    return exported.run(None, given)


@needs_weights
@pytest.mark.parametrize("kind", ["photo", "1", "2"])
@pytest.mark.parametrize("number", range(1, 7))
def test_masks_and_scores_are_those_of_onnx_runtime(
    parts: SamParts, exported: Any, kind: str, number: int
) -> None:
    encoding, clicks = encoding_of(kind), CLICKS[:number] if number % 2 else CLICKS[-number:]
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
