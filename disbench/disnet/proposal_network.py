"""The proposal network P: from an image and its first click to N candidate masks (paper, eq. 2, section 3.2).

Pixel decoder and mask decoder are transformers' Mask2Former (Cheng et al., CVPR 2022). A layer of the mask decoder
has the parts of section 3.2 in Mask2Former's order: masked cross-attention, self-attention, FFN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disbench.disnet.backbone import SimplePyramid, ViTBackbone, library
from disbench.disnet.batches import ClickBatch, Proposals
from disbench.disnet.click_encodings import disk_map
from disbench.disnet.options import DisnetOptions, ViTConfig


def click_maps(clicks: ClickBatch, previous: Tensor | None, size: tuple[int, int], first_click: bool) -> Tensor:
    """The image encoder's second input.

    Args:
        clicks: in pixels of the input.
        previous: logits of the previous mask, float (batch, h, w), resized bilinearly; None before the first answer.
        size: (height, width) of the network's input, pixels.
        first_click: S_F alone, the disk of the first click.

    Returns:
        float32 (batch, 1, height, width) with `first_click`; else (batch, 3, height, width): disks of positive
        clicks, disks of negative clicks, probabilities of the previous mask or zeros.
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
    """P: N candidates, each with the logit that it is an object which the click may mean.

    Without `first_click` in the options the network sees all clicks and the previous mask.
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
        """The rows of a profile; the decoder calls the mask head, which is part of it, between its layers."""
        return {
            "backbone": self.backbone,
            "pyramid": self.pyramid,
            "pixel decoder": self.pixel_decoder,
            "decoder layers": self.decoder,
            "mask head": self._mask_head,
            "objectness head": self.objectness,
        }

    def forward(self, images: Tensor, clicks: ClickBatch, previous: Tensor | None = None) -> Proposals:
        """The candidates, float32 under autocast too.

        Their `queries` are Mask2Former's mask embeddings, an MLP of the object queries after the last layer: the dot
        product of query s with F^-1 gives the logits of M_s. `earlier` has the predictions before the first layer
        and after each but the last.

        Args:
            images: uint8 or float (batch, 3, height, width), RGB, 0 to 255; sides multiples of 32.
            clicks: in pixels of the images.
            previous: as for `click_maps`.
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
    """The pixel decoder and the mask decoder, initialised by `post_init` as parts of a Mask2Former model."""
    mask2former = library("transformers.models.mask2former.modeling_mask2former")
    sizes = library("transformers").Mask2FormerConfig(
        feature_size=config.channels,
        mask_feature_size=config.channels,
        hidden_dim=config.channels,
        encoder_feedforward_dim=4 * config.channels,
        dim_feedforward=8 * config.channels,
        encoder_layers=config.pixel_layers,
        decoder_layers=config.decoder_layers + 1,  # the prediction before the first layer counts as one
        num_queries=outputs,
    )
    model: Any = mask2former.Mask2FormerPreTrainedModel(sizes)
    model.pixel_decoder = mask2former.Mask2FormerPixelDecoder(sizes, list(widths))
    model.decoder = mask2former.Mask2FormerTransformerModule(config.channels, sizes)
    model.post_init()
    return model.pixel_decoder, model.decoder
