"""SAM's prompt encoder and mask decoder in torch, with the weights of an exported decoder.

The file is `sam.onnx` of the MobileSAM-architecture weights, whose SHA-256 `disbench.baselines.weights.locate` checks.
The export kept the names of most tensors; the others are identified by the node that uses them: a linear layer's
weight by its `MatMul` (transposed), a norm's by its `Mul` and `Add`, the tokens by their `Expand`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from disbench.core.errors import import_extra

Array = npt.NDArray[Any]
_WIDTH = 256  # channels of tokens and of an image's encoding
_MASK_TOKENS = 4
_MLP, _DOWN, _UP = r"(_mlps\.\d|iou_prediction_head)\.layers\.", r"mask_downscaling\.", r"output_upscaling\."
_RENAMED = {
    r"^model\.": "",
    r"\.norm(\d|_final_attn)\.": r".layer_norm\1.",
    **{rf"{_MLP}0\.": r"\1.proj_in.", rf"{_MLP}1\.": r"\1.layers.0.", rf"{_MLP}2\.": r"\1.proj_out."},
    **{rf"{_UP}0\.": "upscale_conv1.", rf"{_UP}1\.": "upscale_layer_norm.", rf"{_UP}3\.": "upscale_conv2."},
    **{rf"{_DOWN}0\.": "mask_embed.conv1.", rf"{_DOWN}1\.": "mask_embed.layer_norm1."},
    **{rf"{_DOWN}3\.": "mask_embed.conv2.", rf"{_DOWN}4\.": "mask_embed.layer_norm2."},
    rf"{_DOWN}6\.": "mask_embed.conv3.",
    r"point_embeddings\.": "point_embed.",
    r"pe_layer\.positional_encoding_gaussian_matrix$": "shared_embedding.positional_embedding",
}
"""Patterns and replacements, applied in order, that turn SAM's weight names into transformers'."""
_NORM = re.compile(r"^/(mask_downscaling|output_upscaling)/\1\.(\d)/(Mul|Add_1)$")
_LINEAR = re.compile(r"^/(transformer/.+)/MatMul$")


@dataclass(frozen=True, slots=True)
class SamParts:
    """transformers' `SamPromptEncoder` and `SamMaskDecoder`, float32, on the CPU, in evaluation mode.

    Clicks are x, y in the 1024 x 1024 pixel frame; the encoder adds half a pixel.
    """

    prompt_encoder: nn.Module
    mask_decoder: nn.Module


def sam_parts(path: Path | None) -> SamParts:
    """SAM's prompt encoder and mask decoder; the matrix of the position code is frozen, as in SAM.

    `path` is the decoder's ONNX file, from `locate`; None gives random weights from torch's generator.
    """
    sam = import_extra("transformers.models.sam.modeling_sam", "onnx,models", "disnet")
    config = _config(sam)
    arguments: tuple[Any, ...] = (config,)
    if len(inspect.signature(sam.SamPromptEncoder).parameters) > 1:  # older releases of transformers
        arguments = config.prompt_encoder_config, sam.SamPositionalEmbedding(config.vision_config)
    prompt_encoder = sam.SamPromptEncoder(*arguments).eval()
    matrix = prompt_encoder.shared_embedding.positional_embedding.requires_grad_(False)
    nn.init.normal_(matrix)  # as in SAM; transformers' scale is 384 times larger, which makes the code noise
    parts = SamParts(prompt_encoder, sam.SamMaskDecoder(config.mask_decoder_config).eval())
    if path is not None:
        tensors = _tensors(path)
        for prefix, module in (("prompt_encoder.", parts.prompt_encoder), ("mask_decoder.", parts.mask_decoder)):
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            module.load_state_dict(own)
    return parts


def image_positions(prompt_encoder: nn.Module) -> Tensor:
    """Position code of the encoding's cell centers, float32 (1, 256, 64, 64): sines, then cosines."""
    module: Any = prompt_encoder
    height, width = module.image_embedding_size
    like = module.shared_embedding.positional_embedding
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    middles = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    code: Tensor = module.shared_embedding(middles)
    return code.permute(2, 0, 1)[None]


def _config(library: Any) -> Any:
    config = library.SamConfig()
    config.vision_config = library.SamVisionConfig(num_pos_feats=_WIDTH // 2)
    config.prompt_encoder_config = library.SamPromptEncoderConfig(
        hidden_size=_WIDTH, image_size=1024, patch_size=16, layer_norm_eps=1e-6
    )
    config.mask_decoder_config = library.SamMaskDecoderConfig(
        hidden_size=_WIDTH,
        mlp_dim=2048,
        num_hidden_layers=2,
        num_attention_heads=8,
        attention_downsample_rate=2,
        num_multimask_outputs=3,
        layer_norm_eps=1e-5,  # as in the exported decoder; transformers' default is 1e-6
        attn_implementation="sdpa",
    )
    return config


def _tensors(path: Path) -> dict[str, Tensor]:
    """A decoder's tensors by transformers' names, prefixed "prompt_encoder." or "mask_decoder."."""
    onnx = import_extra("onnx", "onnx,models", "disnet")
    graph = onnx.load(path, load_external_data=False).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    anonymous = {name for name in arrays if name.startswith("onnx::")}  # named by first use: onnx::MatMul_1926
    named = {_renamed(name): array for name, array in arrays.items() if name not in anonymous}
    for node in graph.node:
        for name in anonymous.intersection(node.input):
            named.update((_renamed(own), array) for own, array in _by_use(node, arrays[name]))
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in named.items()}


def _by_use(node: Any, array: Array) -> Iterator[tuple[str, Array]]:
    """The weights in an anonymous tensor by SAM's names, identified by the node that uses it."""
    linear, norm = _LINEAR.match(node.name), _NORM.match(node.name)
    if linear:
        yield f"mask_decoder.{linear[1].replace('/', '.')}.weight", array.T
    elif norm:
        module = "prompt_encoder" if norm[1] == "mask_downscaling" else "mask_decoder"
        yield f"{module}.{norm[1]}.{norm[2]}.{'weight' if norm[3] == 'Mul' else 'bias'}", array.ravel()
    elif node.op_type == "Expand" and array.shape == (1, 1 + _MASK_TOKENS, _WIDTH):
        yield "mask_decoder.iou_token.weight", array[0, :1]
        yield "mask_decoder.mask_tokens.weight", array[0, 1:]
    elif node.op_type == "Mul" and array.shape == (1, _WIDTH, 1, 1):
        yield "prompt_encoder.no_mask_embed.weight", array.reshape(1, _WIDTH)


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name
