"""SAM on ONNX Runtime, with MobileSAM-architecture weights.

The encoder runs once per image; the decoder maps its encoding and the clicks to four masks of 256 x 256 logits: one
from the single-mask token and three from the multi-mask tokens. `candidates=3` offers the three at every click, each
with the decoder's IoU estimate; with `later=1` only at the first click, and the single-mask token's mask afterwards.
`candidates=1` offers the choice of SAM's exported decoder: the best of the three by that estimate for one click, the
single-mask token's mask from two clicks on. With `feedback=true` the logits of the kept mask go into the next call, as
in SAM's predictors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from disbench.baselines.sam.session import (
    Candidates,
    Decoded,
    Prompt,
    SamMethod,
    best,
    image_hash,
    padded_input,
    points,
    stored,
    unpadded,
)
from disbench.baselines.weights import locate, sha256_of
from disbench.core.arrays import Float32Array
from disbench.core.clicks import Click
from disbench.core.errors import import_extra
from disbench.core.prediction import RgbImage
from disbench.workers import threads

SIDE = 1024  # pixels, side of the encoder's square input; the image's long side is resized to it
LOW = 256  # pixels, side of the decoder's square masks
ENCODING = (1, 256, 64, 64)  # shape of the encoder's output for one image
_FOUR_MASKS = "/Reshape_9_output_0"
_FOUR_SCORES = "/iou_prediction_head/layers.2/Gemm_output_0"
_EXPANDED = "/Add_7"
"""The node that adds the fed-back mask to the encoding, which the exported graph repeats for each prompt."""
_INPUTS: dict[str, list[str | int]] = {
    "image_embeddings": ["prompts", *ENCODING[1:]],
    "point_coords": ["prompts", "points", 2],
    "point_labels": ["prompts", "points"],
    "mask_input": ["prompts", 1, LOW, LOW],
    "has_mask_input": ["prompts", 1, 1, 1],
}
_OUTPUTS: dict[str, list[str | int]] = {_FOUR_MASKS: ["prompts", 4, LOW, LOW], _FOUR_SCORES: ["prompts", 4]}


class MobileSam(SamMethod):
    """MobileSAM; the card `baselines/mobilesam.toml` describes the options."""

    def __init__(
        self,
        feedback: bool = True,
        candidates: Candidates = 3,
        later: Candidates = 3,
        weights: str = "",
        cache: str = "",
    ) -> None:
        self._decoder = _session(_decoder_graph(locate("mobilesam", weights)["sam.onnx"]))
        super().__init__(MobileSamEncoder(weights, cache), feedback, candidates, later)

    def decode(self, prompts: Sequence[Prompt]) -> list[Decoded]:
        """Decode prompts with equal numbers of clicks; one or three candidates each, depending on the options."""
        no_mask = np.zeros((LOW, LOW), dtype=np.float32)
        fed_back = [prompt.previous is not None for prompt in prompts]
        given = {
            "image_embeddings": np.stack([prompt.encoding for prompt in prompts]),
            "point_coords": np.concatenate([point_coords(p.clicks, p.size) for p in prompts]),
            "point_labels": np.array([point_labels(p.clicks) for p in prompts], dtype=np.float32),
            "mask_input": np.stack([no_mask if p.previous is None else p.previous for p in prompts])[:, None],
            "has_mask_input": np.array(fed_back, dtype=np.float32)[:, None, None, None],
        }
        low, scores = self._decoder.run(list(_OUTPUTS), given)
        return [
            self._offered(masks, estimates, len(prompt.clicks))
            for masks, estimates, prompt in zip(low, scores, prompts, strict=True)
        ]

    def _offered(self, low: Float32Array, scores: Float32Array, clicks: int) -> Decoded:
        """Select the offered masks from the four; the first is the single-mask token's."""
        if clicks > 1 and not self.offers_three(clicks):
            return Decoded(low[:1], scores[:1])
        three = Decoded(low[1:], scores[1:])
        return three if self.offers_three(clicks) else best(three)

    def upsampled(self, low: Float32Array, size: tuple[int, int]) -> Float32Array:
        """Resize a mask's logits (256, 256) to the image's size (height, width)."""
        return unpadded(low, size, SIDE)


class MobileSamEncoder:
    """The encoder alone; `weights` and `cache` as in `MobileSam`.

    The ONNX session is created at the first image, so that the encoder can be pickled before.
    """

    def __init__(self, weights: str = "", cache: str = "") -> None:
        self._path = locate("mobilesam", weights)["encoder.onnx"]
        self._cache = Path(cache).expanduser() if cache else None
        self._name = sha256_of(self._path)[:16]
        self._encoder: Any = None

    def __call__(self, image: RgbImage) -> Float32Array:
        """The encoding of an image, uint8 (height, width, 3), RGB: float32 (256, 64, 64)."""
        make = partial(self._run, image)
        made = stored(self._cache, f"{image_hash(image)}-{self._name}", ENCODING, make) if self._cache else make()
        encoding: Float32Array = made[0]
        return encoding

    def _run(self, image: RgbImage) -> Float32Array:
        if self._encoder is None:
            self._encoder = _session(str(self._path))
        encoding: Float32Array = self._encoder.run(None, {"input": padded_input(image, SIDE)})[0]
        return encoding


def point_coords(clicks: Sequence[Click], size: tuple[int, int]) -> Float32Array:
    """Clicks in the encoder's frame and SAM's padding point (0, 0): float32 (1, clicks + 1, 2) of x, y."""
    scale = SIDE / max(size)
    return np.concatenate([points(clicks, (scale, scale)), np.zeros((1, 2), dtype=np.float32)])[None]


def point_labels(clicks: Sequence[Click]) -> list[float]:
    """1 for a positive click, 0 for a negative one, -1 for the padding point."""
    return [*(float(click.positive) for click in clicks), -1.0]


def _decoder_graph(path: Path) -> bytes:
    """The decoder for a batch of prompts, cut after its four masks and scores.

    As exported, it repeats one image for every prompt, then selects and upsamples one mask. Here each prompt has its
    own encoding, and the nodes after the four masks are removed.
    """
    onnx, utils = (import_extra(name, "onnx", "mobilesam") for name in ("onnx", "onnx.utils"))
    model = onnx.load(path, load_external_data=False)
    make = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    (expanded,) = (node for node in model.graph.node if node.name == _EXPANDED)
    expanded.input[0] = "image_embeddings"
    del model.graph.value_info[:]
    model.graph.value_info.extend(make(name, shape=shape) for name, shape in _OUTPUTS.items())
    del model.graph.input[:]
    model.graph.input.extend(make(name, shape=shape) for name, shape in _INPUTS.items())
    serialised: bytes = utils.Extractor(model).extract_model(list(_INPUTS), list(_OUTPUTS)).SerializeToString()
    return serialised


def _session(model: str | bytes) -> Any:
    onnxruntime = import_extra("onnxruntime", "onnx", "mobilesam")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.allowed()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
