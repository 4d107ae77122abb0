"""The small DISNet: both stages start from the decoder of a SAM, on the features of its frozen encoder.

Stage 1 is the decoder with N candidate tokens grown from its mask tokens. F^-1 is its upscaled embedding (32
channels), Q its tokens (256). Stage 2 is the same decoder, prompted with M_s as SAM's mask and all clicks as points.
Q_s and F^-1 are projected to d = 32 and added to its token and its embedding; DAMC blocks on a grid half as fine
correct both. Both additions have initial weight 0, so the network starts as SAM.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disbench.disnet.batches import ClickBatch, Kept, Proposals
from disbench.disnet.frames import STRIDE
from disbench.disnet.options import DisnetOptions
from disbench.disnet.refinement_network import DamcBlock
from disbench.disnet.sam_weights import SamParts, image_positions

CHANNELS = 32
"""d, the width of the upscaled embedding."""
HEADS = 4
FINE = 2
"""Cells of F^-1 along a side of a cell of the DAMC blocks: on F^-1's own 256 x 256 cells they would cost three times as
much as the rest of the decoder."""
TOKEN_NOISE = 0.1
"""Standard deviation of the noise on tokens that copy a mask token again, relative to the tokens' own."""
FIRST_ORDER = (1, 2, 3, 0)
"""SAM's mask tokens in the order in which candidates copy them: the three of several masks first."""
SCORE_SLOPE, SCORE_MIDDLE = 10.0, 0.7
"""Objectness starts as SLOPE * (the decoder's estimated IoU - MIDDLE)."""


class TwoWay(nn.Module):
    """The two-way transformer and upscaling of transformers' SamMaskDecoder, with padded points masked out."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.transformer: Any = decoder.transformer
        self.upscale_conv1, self.upscale_conv2 = decoder.upscale_conv1, decoder.upscale_conv2
        self.upscale_layer_norm = decoder.upscale_layer_norm

    def forward(self, tokens: Tensor, given: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens after the transformer, float (batch, t, 256), and the embedding upscaled, (batch, 32, 4h, 4w).

        From tokens, bool (batch, t) that is False for padding, an image (batch, 256, h, w), and its position code.
        """
        batch, channels, height, width = image.shape
        points, place = tokens[:, None], positions.flatten(2).transpose(1, 2)[:, None]
        keys = image.flatten(2).transpose(1, 2)[:, None]
        hidden = torch.zeros(given.shape, dtype=tokens.dtype, device=tokens.device)
        hidden = hidden.masked_fill(~given, torch.finfo(tokens.dtype).min)[:, None, None, :]
        queries = tokens[:, None]
        for layer in self.transformer.layers:
            queries, keys = _layer(layer, queries, keys, points, place, hidden)
        found = _attend(self.transformer.final_attn_token_to_image, queries + points, keys + place, keys, None)
        queries = self.transformer.layer_norm_final_attn(queries + found)
        image = keys[:, 0].transpose(1, 2).reshape(batch, channels, height, width)
        wide = nn.functional.gelu(self.upscale_layer_norm(self.upscale_conv1(image)))
        return queries[:, 0], nn.functional.gelu(self.upscale_conv2(wide))


class SamStage(nn.Module):
    """What both stages have: a copy of SAM's prompt encoder and of its decoder's transformer."""

    def __init__(self, parts: SamParts) -> None:
        super().__init__()
        prompts: Any = copy.deepcopy(parts.prompt_encoder)
        prompts.point_embed = prompts.point_embed[:2]  # the others are a box's corners
        self.prompts: Any = prompts
        self.two_way = TwoWay(copy.deepcopy(parts.mask_decoder))
        self.positions: Tensor
        self.register_buffer("positions", image_positions(self.prompts).detach(), persistent=False)
        self.register_load_state_dict_post_hook(_place_again)  # type: ignore[no-untyped-call]

    def decoded(self, own: Tensor, clicks: ClickBatch, image: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, the stage's own (batch, t, 256) before the clicks', and the upscaled embedding of an image."""
        points, given = point_tokens(self.prompts, clicks)
        tokens = torch.cat([own, points.to(own.dtype)], dim=1)
        given = torch.cat([given.new_ones(own.shape[:2]), given], dim=1)
        result: tuple[Tensor, Tensor] = self.two_way(tokens, given, image, self.positions)
        return result


class SamProposalNetwork(SamStage):
    """The proposal network (paper, eq. 2) on a copy of SAM's decoder."""

    def __init__(self, parts: SamParts, options: DisnetOptions) -> None:
        super().__init__(parts)
        self.options = options
        if options.first_click:
            self.prompts.mask_embed = nn.Identity()  # unused, so neither trained nor stored
        decoder: Any = parts.mask_decoder
        again = range(
            options.outputs
        )  # more candidates copy the tokens again; a single one copies the single-mask token
        order = [0] if options.outputs == 1 else [FIRST_ORDER[n % len(FIRST_ORDER)] for n in again]
        self.iou_token = nn.Parameter(decoder.iou_token.weight.detach().clone())
        self.candidate_tokens = nn.Parameter(_grown_tokens(decoder.mask_tokens.weight.detach(), order))
        self.hypernetworks = nn.ModuleList(copy.deepcopy(decoder.output_hypernetworks_mlps[number]) for number in order)
        self.objectness = _grown_head(decoder.iou_prediction_head, order)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The rows of a profile."""
        return {
            "prompt encoder": self.prompts,
            "two-way transformer, upscaling": self.two_way,
            "hypernetworks": self.hypernetworks,
            "objectness head": self.objectness,
        }

    def forward(self, inputs: Tensor, clicks: ClickBatch, previous: Tensor | None = None) -> Proposals:
        """Candidates for the first click; with `first_click` off, for all clicks and the previous mask.

        Args:
            inputs: the encoder's features, float (batch, 256, 64, 64).
            clicks: in pixels of the input.
            previous: logits of the previous mask, float (batch, 256, 256).
        """
        if previous is None or self.options.first_click:
            mask_code = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        else:
            mask_code = self.prompts.mask_embed(previous[:, None])
        own = torch.cat([self.iou_token, self.candidate_tokens]).expand(len(inputs), -1, -1)
        seen = clicks.first if self.options.first_click else clicks
        found, features = self.decoded(own, seen, inputs + mask_code)
        queries = found[:, 1 : 1 + self.options.outputs]
        weights = torch.stack([net(queries[:, n]) for n, net in enumerate(self.hypernetworks)], dim=1)
        logits = torch.einsum("bnd,bdhw->bnhw", weights, features)
        return Proposals(logits, self.objectness(found[:, 0]), queries, features, context=inputs)


class SamRefinementNetwork(SamStage):
    """The refinement network (paper, eq. 3): a copy of SAM's decoder, followed by DAMC blocks."""

    def __init__(self, parts: SamParts, options: DisnetOptions) -> None:
        super().__init__(parts)
        self.prompts.no_mask_embed.requires_grad_(False)  # unused
        decoder: Any = parts.mask_decoder
        self.tokens = nn.Parameter(torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach().clone())
        self.hypernetwork = copy.deepcopy(decoder.output_hypernetworks_mlps[0])
        width = self.tokens.shape[1]
        self.kept_token = _zero(nn.Linear(width, width))
        self.kept_query = _zero(nn.Linear(width, CHANNELS))
        self.kept_features = _zero(nn.Linear(CHANNELS, CHANNELS))
        self.token_norm, self.features_norm = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        self.blocks = nn.ModuleList(DamcBlock(CHANNELS, HEADS, options, FINE * STRIDE) for _ in range(options.blocks))
        self.corrected_token = _zero(nn.Linear(CHANNELS, CHANNELS))
        self.corrected_features = _zero(nn.Linear(CHANNELS, CHANNELS))

    def forward(self, kept: Kept, clicks: ClickBatch) -> Tensor:
        """Logits, float (batch, 256, 256), for all clicks in pixels of the input; the context is SAM's features."""
        assert kept.context is not None
        own = self.tokens.expand(len(kept.query), -1, -1)
        mask_token = own[:, 1] + self.kept_token(kept.query)
        own = torch.cat([own[:, :1], mask_token[:, None], own[:, 2:]], dim=1)
        found, features = self.decoded(own, clicks, kept.context + self.prompts.mask_embed(kept.logits[:, None]))
        token, features = self.hypernetwork(found[:, 1]), features.permute(0, 2, 3, 1)
        features = features + self.kept_features(kept.features.permute(0, 2, 3, 1))
        token = token + self.kept_query(kept.query)
        token, change = self._corrected(token, features, kept.logits.sigmoid(), clicks)
        logits = torch.einsum("bd,bhwd->bhw", token, features)
        coarse = torch.einsum("bd,bhwd->bhw", token, change)[:, None]
        finer = nn.functional.interpolate(coarse, scale_factor=FINE, mode="bilinear", align_corners=False)[:, 0]
        return logits + finer

    def _corrected(self, token: Tensor, features: Tensor, mask: Tensor, clicks: ClickBatch) -> tuple[Tensor, Tensor]:
        """The token after the DAMC blocks, and the features' change by them, on the blocks' grid."""
        coarse = nn.functional.avg_pool2d(features.permute(0, 3, 1, 2), FINE).permute(0, 2, 3, 1)
        corrected, changed = self.token_norm(token), self.features_norm(coarse)
        mask = nn.functional.avg_pool2d(mask[:, None], FINE)[:, 0]
        for block in self.blocks:
            corrected, changed = block(corrected, changed, mask, clicks)
        return token + self.corrected_token(corrected), self.corrected_features(changed)


def point_tokens(prompts: Any, clicks: ClickBatch) -> tuple[Tensor, Tensor]:
    """SAM's codes of clicks in pixels of the input, and of the padding point that it adds without a box.

    Codes are float32 (batch, clicks + 1, 256) under autocast too, since bfloat16 resolves positions only to a few
    pixels; the second result, bool (batch, clicks + 1), is False for padding of the batch.
    """
    labels = torch.where(clicks.given, clicks.positive.long(), -1)
    with torch.autocast(labels.device.type, enabled=False):
        sparse, _ = prompts(clicks.points[:, None], labels[:, None], None, None)
    return sparse[:, 0], torch.cat([clicks.given, clicks.given.new_ones(len(labels), 1)], dim=1)


def _layer(
    layer: Any, queries: Tensor, keys: Tensor, points: Tensor, place: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """One layer of SAM's two-way transformer (transformers' SamTwoWayAttentionBlock), padding masked out."""
    if layer.skip_first_layer_pe:
        queries = _attend(layer.self_attn, queries, queries, queries, hidden)
    else:
        placed = queries + points
        queries = queries + _attend(layer.self_attn, placed, placed, queries, hidden)
    queries = layer.layer_norm1(queries)
    found = _attend(layer.cross_attn_token_to_image, queries + points, keys + place, keys, None)
    queries = layer.layer_norm2(queries + found)
    queries = layer.layer_norm3(queries + layer.mlp(queries))
    found = _attend(layer.cross_attn_image_to_token, keys + place, queries + points, queries, hidden)
    keys = layer.layer_norm4(keys + found)
    return queries, keys


def _attend(attention: nn.Module, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None) -> Tensor:
    result: Tensor = attention(query=query, key=key, value=value, attention_similarity=hidden)[0]
    return result


def _place_again(stage: SamStage, _: object) -> None:
    """Compute the position codes again from the loaded weights."""
    stage.positions = image_positions(stage.prompts).detach()


def _grown_tokens(tokens: Tensor, order: Sequence[int]) -> Tensor:
    grown = tokens[list(order)]  # a copy
    again = grown[len(FIRST_ORDER) :]
    again += torch.randn_like(again) * grown.std() * TOKEN_NOISE
    return grown


def _grown_head(head: Any, order: Sequence[int]) -> Any:
    """The decoder's IoU head with an output for each candidate, scaled to a logit."""
    grown = copy.deepcopy(head)
    last: nn.Linear = grown.proj_out
    wide = nn.Linear(last.in_features, len(order))
    with torch.no_grad():
        wide.weight.copy_(last.weight[list(order)] * SCORE_SLOPE)
        wide.bias.copy_((last.bias[list(order)] - SCORE_MIDDLE) * SCORE_SLOPE)
    grown.proj_out = wide
    return grown


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
