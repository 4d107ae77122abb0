"""The proposal network P: from an image and its first click to N candidate masks (paper, eq. 2, section 3.2).

Pixel decoder and mask decoder are Mask2Former's (Cheng et al., CVPR 2022) as transformers has them. A layer of
the mask decoder does what section 3.2 lists, in Mask2Former's order: masked cross-attention, self-attention, FFN.
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
    """What the image encoder sees besides the image.

    Args:
        clicks: of the batch.
        previous: float (batch, h, w), logits of the mask that was kept before; None before there is one.
        size: (height, width) of the network's input, pixels; the mask is brought to it, bilinear.
        first_click: S_F alone, the disk of the first click, whatever the other arguments are.

    Returns:
        float32 (batch, 1, height, width), or (batch, 3, height, width): disks of positive clicks, of negative
        clicks, the mask's probabilities (0 before there is one).
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

    Args:
        config: sizes and weights.
        options: `outputs` is N; without `first_click` the network sees all clicks and the previous mask.
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
        """What is counted apart: the mask head lies within the decoder, which calls it between its layers."""
        return {
            "backbone": self.backbone,
            "pyramid": self.pyramid,
            "pixel decoder": self.pixel_decoder,
            "decoder layers": self.decoder,
            "mask head": self._mask_head,
            "objectness head": self.objectness,
        }

    def forward(self, images: Tensor, clicks: ClickBatch, previous: Tensor | None = None) -> Proposals:
        """The candidates.

        Their `queries` are Mask2Former's mask embeddings, an MLP of the object queries after the last layer:
        the dot product of query s with F^-1 gives the logits of M_s. `earlier` holds what the object queries
        say before the first layer and after each but the last. All are float32, under autocast too.

        Args:
            images: uint8 or float (batch, 3, height, width), RGB, 0 to 255; sides multiples of 32.
            clicks: in pixels of the images.
            previous: float (batch, h, w), logits; see `click_maps`.
        """
        size = (images.shape[-2], images.shape[-1])
        maps = click_maps(clicks, previous, size, self.first_click)
        pixels = self._pixels(self.pyramid(self.backbone(images, maps)))
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

    def _pixels(self, levels: list[Tensor]) -> Any:
        """F_1 to F_3 and F^-1, always in float32, as Mask2Former has it: bfloat16 would blur sampling points."""
        with torch.autocast(levels[0].device.type, enabled=False):
            return self.pixel_decoder([level.float() for level in levels])


def _mask2former(config: ViTConfig, widths: tuple[int, ...], outputs: int) -> tuple[nn.Module, nn.Module]:
    """The pixel decoder and the mask decoder, with Mask2Former's initial weights.

    transformers initialises what belongs to a model of the family; so both belong to one for a moment.
    """
    transformers = library()
    from transformers.models.mask2former import modeling_mask2former as mask2former  # noqa: PLC0415

    sizes = transformers.Mask2FormerConfig(
        feature_size=config.channels,
        mask_feature_size=config.channels,
        hidden_dim=config.channels,
        encoder_feedforward_dim=4 * config.channels,
        dim_feedforward=8 * config.channels,
        encoder_layers=config.pixel_layers,
        decoder_layers=config.decoder_layers + 1,  # it counts the prediction before the first layer as one
        num_queries=outputs,
    )
    model: Any = mask2former.Mask2FormerPreTrainedModel(sizes)
    model.pixel_decoder = mask2former.Mask2FormerPixelDecoder(sizes, list(widths))
    model.decoder = mask2former.Mask2FormerTransformerModule(config.channels, sizes)
    model.post_init()
    return model.pixel_decoder, model.decoder
