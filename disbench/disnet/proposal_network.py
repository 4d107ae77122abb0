"""The proposal network P: from an image and its first click to N candidate masks (paper, eq. 2, section 3.2).

Encoder, pixel decoder and mask decoder come from transformers: VitDet (Li et al., ECCV 2022), with windowed attention
in most blocks and global attention in a few, without relative positions, since MAE weights have none; and Mask2Former
(Cheng et al., CVPR 2022), whose mask decoder layers have the parts of section 3.2 in another order: masked
cross-attention, self-attention, FFN.
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
from disbench.core.errors import InputError, import_extra, one_line
from disbench.disnet.batches import ClickBatch, Proposals
from disbench.disnet.click_encodings import disk_map
from disbench.disnet.options import DisnetOptions, ViTConfig

PATCH = 16  # side of a patch, pixels; the pyramid's strides depend on it
_FILE = "model.safetensors"
_VITMAE_NAMES = {
    "norm1": "layernorm_before",
    "attention.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""VitDet's name of a block's part -> its name in ViTMAE files."""
_SIZES = {"hidden_size": "hidden", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
library = partial(import_extra, extra="models", user="DISNet")


class ViTBackbone(nn.Module):
    """Features of an image and its click maps at stride 16.

    Click maps have a separate patch embedding, initially zero: training starts from the pretrained encoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViTConfig, click_channels: int) -> None:
        super().__init__()
        self.vit: nn.Module = library("transformers").VitDetModel(
            library("transformers").VitDetConfig(
                hidden_size=config.hidden,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=config.input_side,
                pretrain_image_size=config.input_side,
                patch_size=PATCH,
                window_size=config.window,
                window_block_indices=[number for number in range(config.layers) if number not in config.global_blocks],
                drop_path_rate=config.drop_path,
            )
        )
        if config.weights is not None:
            _load_mae(self.vit, config, config.weights)
        self.click_embedding = nn.Conv2d(click_channels, config.hidden, PATCH, stride=PATCH, bias=False)
        nn.init.zeros_(self.click_embedding.weight)
        for name, levels in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.from_numpy(levels.copy())[:, None, None], persistent=False)

    def forward(self, images: Tensor, click_maps: Tensor) -> Tensor:
        """Float (batch, hidden, height / 16, width / 16).

        Images are uint8 or float (batch, 3, height, width), RGB, 0 to 255 (normalised here), sides multiples of 32;
        click maps are float32 (batch, click_channels, height, width).
        """
        vit: Any = self.vit
        patches = vit.embeddings((images.to(self.mean.dtype) - self.mean) / self.std)
        features: Tensor = vit.encoder(patches + self.click_embedding(click_maps)).last_hidden_state
        return features


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid: strides 4, 8, 16 and 32, each computed from the encoder's last output."""

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


def _load_mae(vit: nn.Module, config: ViTConfig, model: str) -> None:
    """Load MAE weights into a VitDet from a folder or the Hugging Face cache; never downloads."""
    sizes, mae = _read_mae(model, config.revision)
    if sizes.get("model_type") != "vit_mae":
        raise InputError(f"{model}: model type is {sizes.get('model_type')!r}, not 'vit_mae'; name MAE weights")
    for theirs, ours in _SIZES.items():
        if sizes.get(theirs) != getattr(config, ours):
            raise InputError(
                f"{model}: its encoder has {theirs} = {sizes.get(theirs)}, the network has {getattr(config, ours)}; "
                "name weights of the same size"
            )
    try:
        converted = vitdet_weights(mae, config.layers, config.input_side // PATCH)
        if not all(torch.isfinite(tensor).all() for tensor in converted.values()):
            raise ValueError("values are not finite")
        vit.load_state_dict(converted)
    except Exception as error:  # tensors of other shapes and dtypes fail in many ways
        raise InputError(f"{model}: weights do not fit the encoder ({one_line(str(error))}); name others") from error


def vitdet_weights(mae: Mapping[str, Tensor], layers: int, grid: int) -> dict[str, Tensor]:
    """Convert a ViTMAE state dict to VitDet: names, joined query, key and value, positions resized to `grid` x `grid`.

    Names may start with "vit.". A missing weight raises KeyError.
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
    """Resize position embeddings (1, 1 + n, width) to another grid, bicubic; VitDet ignores the first."""
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
    except Exception as error:  # transformers, safetensors and the hub share no exception class
        raise InputError(
            f"{model}: no MAE weights found ({one_line(str(error))}); {fetch}name a folder with config.json and {_FILE}"
        ) from error


def click_maps(clicks: ClickBatch, previous: Tensor | None, size: tuple[int, int], first_click: bool) -> Tensor:
    """The image encoder's second input, from clicks in pixels of an input of `size` (height, width).

    With `first_click`, the disk of the first click: float32 (batch, 1, height, width). Otherwise the disks of positive
    and of negative clicks, and the probabilities of the previous mask, whose logits are float (batch, h, w), or zeros
    if None: (batch, 3, height, width).
    """
    if first_click:
        return disk_map(clicks.first, size)
    positive, negative = disk_map(clicks, size), disk_map(clicks, size, positive=False)
    if previous is None:
        mask = torch.zeros_like(positive)
    else:
        mask = F.interpolate(previous[:, None].float().sigmoid(), size, mode="bilinear", align_corners=False)
    return torch.cat([positive, negative, mask], dim=1)


class ProposalNetwork(nn.Module):
    """P: N candidates, each with the logit that it is an object that the click may mean.

    With `first_click` off, the network sees all clicks and the previous mask.
    """

    def __init__(self, config: ViTConfig, options: DisnetOptions) -> None:
        super().__init__()
        self.first_click = options.first_click
        self.backbone = ViTBackbone(config, 1 if options.first_click else 3)
        self.pyramid = SimplePyramid(config.hidden)
        self.pixel_decoder, self.decoder = _mask2former(config, self.pyramid.widths, options.outputs)
        self.objectness = nn.Linear(config.channels, 1)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The rows of a profile; the decoder contains the mask head and calls it between its layers."""
        return {
            "backbone": self.backbone,
            "pyramid": self.pyramid,
            "pixel decoder": self.pixel_decoder,
            "decoder layers": self.decoder,
            "mask head": self._mask_head,
            "objectness head": self.objectness,
        }

    def forward(self, images: Tensor, clicks: ClickBatch, previous: Tensor | None = None) -> Proposals:
        """The candidates, float32 even under autocast; arguments as for `click_maps` and `ViTBackbone`.

        `queries` are Mask2Former's mask embeddings, an MLP of the object queries after the last layer: the dot product
        of query s with F^-1 gives the logits of M_s. `earlier` contains the predictions before the first layer and
        after each layer but the last.
        """
        size = (images.shape[-2], images.shape[-1])
        maps = click_maps(clicks, previous, size, self.first_click)
        levels = self.pyramid(self.backbone(images, maps))
        with torch.autocast(images.device.type, enabled=False):  # as in Mask2Former: bfloat16 blurs sampling points
            pixels = self.pixel_decoder([level.float() for level in levels])
        decoded = self.decoder(list(pixels.multi_scale_features), pixels.mask_features)
        queries = [hidden.transpose(0, 1) for hidden in decoded.intermediate_hidden_states]
        answers = [
            (logits.float(), self.objectness(query)[..., 0].float())
            for logits, query in zip(decoded.masks_queries_logits, queries, strict=True)
        ]
        return Proposals(
            logits=answers[-1][0],
            objectness=answers[-1][1],
            queries=self._mask_head.mask_embedder(queries[-1]).float(),
            features=pixels.mask_features,
            earlier=tuple(answers[:-1]),
        )

    @property
    def _mask_head(self) -> Any:
        decoder: Any = self.decoder
        return decoder.decoder.mask_predictor


def _mask2former(config: ViTConfig, widths: tuple[int, ...], outputs: int) -> tuple[nn.Module, nn.Module]:
    """The pixel decoder and the mask decoder, initialised by `post_init` as in a Mask2Former model."""
    mask2former = library("transformers.models.mask2former.modeling_mask2former")
    sizes = library("transformers").Mask2FormerConfig(
        feature_size=config.channels,
        mask_feature_size=config.channels,
        hidden_dim=config.channels,
        encoder_feedforward_dim=4 * config.channels,
        dim_feedforward=8 * config.channels,
        encoder_layers=config.pixel_layers,
        decoder_layers=config.decoder_layers + 1,  # transformers counts the prediction before the first layer
        num_queries=outputs,
    )
    model: Any = mask2former.Mask2FormerPreTrainedModel(sizes)
    model.pixel_decoder = mask2former.Mask2FormerPixelDecoder(sizes, list(widths))
    model.decoder = mask2former.Mask2FormerTransformerModule(config.channels, sizes)
    model.post_init()
    return model.pixel_decoder, model.decoder
