"""The image encoder: a plain ViT that sees clicks by a second patch embedding, and a pyramid (section 3.2).

The encoder is transformers' VitDet (Li et al., ECCV 2022): most blocks attend within windows, a few to the whole
input. It has no relative positions, as MAE's weights have none. ViTMAE's decoder and class token are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disbench.baselines.sam.session import MEAN, STD
from disbench.core.errors import InputError, extra_module
from disbench.disnet.options import ViTConfig

_FILE = "model.safetensors"
_VITMAE_NAMES = {
    "norm1": "layernorm_before",
    "attention.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""VitDet's name of a part of a block -> its name in files of ViTMAE."""
_SIZES = {"hidden_size": "hidden", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
library = partial(extra_module, extra="models", user="DISNet")
"""Imports transformers or a module of it."""


class ViTBackbone(nn.Module):
    """Features of an image and its click maps at stride 16.

    The maps have a patch embedding of their own, initially zero, which is added to the image's: training starts from
    the pretrained encoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViTConfig, click_channels: int) -> None:
        super().__init__()
        self.vit = _vit(config)
        if config.weights is not None:
            _load_mae(self.vit, config, config.weights)
        self.click_embedding = nn.Conv2d(click_channels, config.hidden, config.patch, stride=config.patch, bias=False)
        nn.init.zeros_(self.click_embedding.weight)
        for name, levels in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.from_numpy(levels.copy())[:, None, None], persistent=False)

    def forward(self, images: Tensor, click_maps: Tensor) -> Tensor:
        """Float (batch, hidden, height / 16, width / 16).

        Args:
            images: uint8 or float (batch, 3, height, width), RGB, 0 to 255, sides multiples of 32; normalised here by
                ImageNet's mean and deviation.
            click_maps: float32 (batch, click_channels, height, width).
        """
        vit: Any = self.vit
        patches = vit.embeddings((images.to(self.mean.dtype) - self.mean) / self.std)
        features: Tensor = vit.encoder(patches + self.click_embedding(click_maps)).last_hidden_state
        return features


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid: strides 4, 8, 16 and 32, each made of the last features alone.

    The pixel decoder projects each level to one width. `hidden`, the features' channels, is a multiple of 4.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        vitdet = library("transformers.models.vitdet.modeling_vitdet")
        self.widths = (hidden // 4, hidden // 2, hidden, hidden)
        self.stride_4 = nn.Sequential(
            nn.ConvTranspose2d(hidden, hidden // 2, 2, stride=2),
            vitdet.VitDetLayerNorm(hidden // 2),
            nn.GELU(),
            nn.ConvTranspose2d(hidden // 2, hidden // 4, 2, stride=2),
        )
        self.stride_8 = nn.ConvTranspose2d(hidden, hidden // 2, 2, stride=2)
        self.stride_32 = nn.MaxPool2d(2)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Levels of strides 4, 8, 16, 32, with channels as in `widths`; features: (batch, hidden, h, w)."""
        return [self.stride_4(features), self.stride_8(features), features, self.stride_32(features)]


def _vit(config: ViTConfig) -> nn.Module:
    transformers = library("transformers")
    vit: nn.Module = transformers.VitDetModel(
        transformers.VitDetConfig(
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.input_side,
            pretrain_image_size=config.input_side,
            patch_size=config.patch,
            window_size=config.window,
            window_block_indices=[number for number in range(config.layers) if number not in config.global_blocks],
            drop_path_rate=config.drop_path,
        )
    )
    return vit


def _load_mae(vit: nn.Module, config: ViTConfig, model: str) -> None:
    """Give a VitDet the MAE weights of a folder or of Hugging Face's cache; nothing is downloaded."""
    sizes, mae = _read_mae(model, config.revision)
    if sizes.get("model_type") != "vit_mae":
        raise InputError(f"{model}: a model of type {sizes.get('model_type')!r}, not 'vit_mae'; name MAE weights")
    for theirs, ours in _SIZES.items():
        if sizes.get(theirs) != getattr(config, ours):
            raise InputError(
                f"{model}: its encoder has {theirs} = {sizes.get(theirs)}, the network {getattr(config, ours)}; name "
                "weights of the same size"
            )
    try:
        converted = vitdet_weights(mae, config.layers, config.input_side // config.patch)
        if not all(torch.isfinite(tensor).all() for tensor in converted.values()):
            raise ValueError("numbers that are not finite")
        vit.load_state_dict(converted)
    except Exception as error:  # tensors of other shapes and kinds fail in many ways
        raise InputError(f"{model}: not the weights of such an encoder ({_words(error)}); name others") from error


def vitdet_weights(mae: Mapping[str, Tensor], layers: int, grid: int) -> dict[str, Tensor]:
    """ViTMAE's state dict as VitDet's: renamed, with query, key and value as one layer.

    Names may begin with "vit.". Position embeddings are resized to `grid` x `grid` patches. A missing weight raises
    KeyError.
    """
    mae = {name.removeprefix("vit."): tensor for name, tensor in mae.items()}
    found = {"embeddings.position_embeddings": _positions(mae["embeddings.position_embeddings"], grid)}
    for kind in ("weight", "bias"):
        found[f"embeddings.projection.{kind}"] = mae[f"embeddings.patch_embeddings.projection.{kind}"]
        for number in range(layers):
            own = f"encoder.layer.{number}."
            joined = [mae[f"{own}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"{own}attention.qkv.{kind}"] = torch.cat(joined)
            found |= {f"{own}{new}.{kind}": mae[f"{own}{old}.{kind}"] for new, old in _VITMAE_NAMES.items()}
    return found


def _positions(positions: Tensor, grid: int) -> Tensor:
    """Position embeddings (1, 1 + n, width) resized to another grid, bicubic; VitDet ignores the first."""
    own = round((positions.shape[1] - 1) ** 0.5)
    planes = positions[:, 1:].transpose(1, 2).reshape(1, -1, own, own)
    if own != grid:
        planes = F.interpolate(planes, (grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], planes.flatten(2).transpose(1, 2)], dim=1)


def _read_mae(model: str, revision: str) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    from safetensors.torch import load_file  # noqa: PLC0415
    from transformers import ViTMAEConfig  # noqa: PLC0415
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    folder = Path(model).expanduser()
    place = str(folder) if folder.is_dir() else model
    fetch = "" if folder.is_dir() else f"run once, with a network: hf download {model} --revision {revision}, or "
    try:
        sizes, _ = ViTMAEConfig.get_config_dict(place, revision=revision, local_files_only=True)
        return sizes, load_file(str(cached_file(place, _FILE, revision=revision, local_files_only=True)))
    except Exception as error:  # transformers, safetensors and the hub have no class in common
        raise InputError(
            f"{model}: no MAE weights here ({_words(error)}); {fetch}name a folder with config.json and {_FILE}"
        ) from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
