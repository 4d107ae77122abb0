"""The image encoder: a plain ViT that sees clicks by a second patch embedding, and a pyramid (section 3.2).

The encoder is ViTDet's (Li et al., ECCV 2022) as transformers has it: most blocks attend within windows, a few
to the whole input; there are no relative positions, as MAE's weights have none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from disbench.baselines.sam.session import MEAN, STD
from disbench.core.errors import InputError
from disbench.disnet.mae_weights import load_mae
from disbench.disnet.options import ViTConfig

LARGEST_STRIDE = 32
"""Pixels of the input to a cell of the pyramid's coarsest level."""


def library() -> Any:
    """The module transformers.

    Raises:
        InputError: it is not installed.
    """
    try:
        import transformers  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f'DISNet needs transformers, which is not installed ({error}); run: pip install "disbench[models]"'
        ) from error
    return transformers


def _vit(config: ViTConfig) -> nn.Module:
    """A VitDetModel of transformers; its position embeddings are for inputs of the configuration's side."""
    transformers = library()
    windowed = [number for number in range(config.layers) if number not in config.global_blocks]
    vit: nn.Module = transformers.VitDetModel(
        transformers.VitDetConfig(
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.input_side,
            pretrain_image_size=config.input_side,
            patch_size=config.patch,
            window_size=config.window,
            window_block_indices=windowed,
            drop_path_rate=config.drop_path,
        )
    )
    return vit


class ViTBackbone(nn.Module):
    """Features of an image and its click maps at stride 16.

    The maps enter through a patch embedding of their own, at first zero, added to the image's: the encoder
    begins as it was pretrained.

    Args:
        config: sizes and weights.
        click_channels: how many click maps there are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViTConfig, click_channels: int) -> None:
        super().__init__()
        self.vit = _vit(config)
        if config.weights is not None:
            load_mae(self.vit, config)
        self.click_embedding = nn.Conv2d(click_channels, config.hidden, config.patch, stride=config.patch, bias=False)
        nn.init.zeros_(self.click_embedding.weight)
        for name, levels in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.from_numpy(levels.copy())[:, None, None], persistent=False)

    def forward(self, images: Tensor, click_maps: Tensor) -> Tensor:
        """Float (batch, hidden, height / 16, width / 16).

        Args:
            images: uint8 or float (batch, 3, height, width), RGB, 0 to 255; normalised here by ImageNet's
                mean and deviation.
            click_maps: float32 (batch, click_channels, height, width).

        Raises:
            ValueError: a height or width that is no multiple of 32.
        """
        if images.shape[-2] % LARGEST_STRIDE or images.shape[-1] % LARGEST_STRIDE:
            raise ValueError(f"an input of {tuple(images.shape[-2:])}: make both sides multiples of 32")
        vit: Any = self.vit
        patches = vit.embeddings((images.to(self.mean.dtype) - self.mean) / self.std)
        features: Tensor = vit.encoder(patches + self.click_embedding(click_maps)).last_hidden_state
        return features


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid: strides 4, 8, 16 and 32, each made of the last features alone.

    ViTDet projects each level to the same width; here the pixel decoder, which begins so, does it.

    Args:
        hidden: channels of the features, a multiple of 4.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        library()
        from transformers.models.vitdet import modeling_vitdet  # noqa: PLC0415

        vitdet: Any = modeling_vitdet
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
