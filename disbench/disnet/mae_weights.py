"""Weights of MAE (He et al., CVPR 2022) for a plain ViT: found on this machine, checked, renamed.

Hugging Face's ViTMAE keeps an encoder, a decoder that only pretraining needs, and a class token; VitDet has
the encoder alone, with query, key and value as one layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disbench.core.errors import InputError
from disbench.disnet.options import ViTConfig

_FILE = "model.safetensors"
_LAYER = {
    "norm1": "layernorm_before",
    "attention.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""VitDet's name of a part of a block -> its name in files of ViTMAE."""
_SIZES = {"hidden_size": "hidden", "num_hidden_layers": "layers", "num_attention_heads": "heads"}


def load_mae(vit: nn.Module, config: ViTConfig) -> None:
    """Give a VitDet the weights that its configuration names.

    Nothing is downloaded here, and no pickle is read.

    Args:
        vit: transformers' VitDetModel of the configuration.
        config: `weights` is not None.

    Raises:
        InputError: the files are not here or cannot be read, or are those of another model.
    """
    assert config.weights is not None
    sizes, mae = _read(config.weights, config.revision)
    _check(config, sizes)
    try:
        converted = vitdet_weights(mae, config.layers, config.input_side // config.patch)
        if not all(torch.isfinite(tensor).all() for tensor in converted.values()):
            raise ValueError("numbers that are not finite")
        vit.load_state_dict(converted)
    except Exception as error:  # tensors of other shapes and kinds fail in any way
        raise InputError(
            f"{config.weights}: not the weights of such an encoder ({_words(error)}); name others"
        ) from error


def vitdet_weights(mae: Mapping[str, Tensor], layers: int, grid: int) -> dict[str, Tensor]:
    """ViTMAE's state dict as VitDet's: names, joined query, key and value, position embeddings.

    The class token, the last norm and the decoder are left out: ViTDet has none of them.

    Args:
        mae: names as in files, with or without "vit." before them.
        layers: how many blocks there are.
        grid: patches along a side of the input that the position embeddings are for.

    Raises:
        KeyError: a weight is missing.
    """
    mae = {name.removeprefix("vit."): tensor for name, tensor in mae.items()}
    found = {"embeddings.position_embeddings": _positions(mae["embeddings.position_embeddings"], grid)}
    for kind in ("weight", "bias"):
        found[f"embeddings.projection.{kind}"] = mae[f"embeddings.patch_embeddings.projection.{kind}"]
        for number in range(layers):
            own = f"encoder.layer.{number}."
            joined = [mae[f"{own}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"{own}attention.qkv.{kind}"] = torch.cat(joined)
            found |= {f"{own}{new}.{kind}": mae[f"{own}{old}.{kind}"] for new, old in _LAYER.items()}
    return found


def _positions(positions: Tensor, grid: int) -> Tensor:
    """Position embeddings (1, 1 + n, width) for a grid of another size, bicubic; VitDet ignores the first."""
    own = round((positions.shape[1] - 1) ** 0.5)
    planes = positions[:, 1:].transpose(1, 2).reshape(1, -1, own, own)
    if own != grid:
        planes = F.interpolate(planes, (grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], planes.flatten(2).transpose(1, 2)], dim=1)


def _read(model: str, revision: str) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of a folder, or of a name in Hugging Face's cache."""
    from safetensors.torch import load_file  # noqa: PLC0415
    from transformers import ViTMAEConfig  # noqa: PLC0415
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    folder = Path(model).expanduser()
    place = str(folder) if folder.is_dir() else model
    try:
        sizes, _ = ViTMAEConfig.get_config_dict(place, revision=revision, local_files_only=True)
        path = cached_file(place, _FILE, revision=revision, local_files_only=True)
        return sizes, load_file(str(path))
    except Exception as error:  # of transformers, of safetensors, of the hub: there is no common class
        raise InputError(_why_not(model, revision, folder.is_dir(), error)) from error


def _why_not(model: str, revision: str, here: bool, error: Exception) -> str:
    if here:
        return f"the folder {model} cannot be loaded as MAE weights ({_words(error)}); it needs config.json and {_FILE}"
    return (
        f"the MAE weights {model} (revision {revision}) are not on this machine; run once, with a network: "
        f"hf download {model} --revision {revision}, or name a folder that has config.json and {_FILE}"
    )


def _check(config: ViTConfig, sizes: Mapping[str, Any]) -> None:
    kind = sizes.get("model_type")
    if kind != "vit_mae":
        raise InputError(f"{config.weights}: a model of type {kind!r}, not 'vit_mae'; name MAE weights")
    for theirs, ours in _SIZES.items():
        if sizes.get(theirs) != getattr(config, ours):
            raise InputError(
                f"{config.weights}: its encoder has {theirs} = {sizes.get(theirs)}, the network "
                f"{getattr(config, ours)}; name weights of the same size"
            )


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
