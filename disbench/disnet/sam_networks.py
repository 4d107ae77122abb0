"""The small DISNet: both stages are initialised from SAM's decoder, on features of SAM's frozen encoder.

Stage 1 is the decoder with N candidate tokens copied from its mask tokens. F^-1 is its upscaled embedding (32
channels), Q its tokens (256). Stage 2 is the same decoder, prompted with M_s as SAM's mask and all clicks as points.
Q_s and F^-1 are projected to d = 32 and added to its token and its embedding; DAMC blocks at half the resolution
correct both. Both additions have initial weight 0, so the network starts as SAM.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disbench.disnet.batches import STRIDE, ClickBatch, Kept, Proposals
from disbench.disnet.options import DisnetOptions
from disbench.disnet.refinement_network import DamcBlock
from disbench.disnet.sam_weights import SamParts, image_positions

CHANNELS = 32  # d, the width of the upscaled embedding
HEADS = 4
PAIR_WIDTH = 128  # width of candidates in the comparison
FINE = 2
"""Downsampling of F^-1 for the DAMC blocks; on its 256 x 256 cells they would cost three times the decoder."""
TOKEN_NOISE = 0.1  # standard deviation of the noise on repeated copies of mask tokens, relative to the tokens' own
TOKEN_ORDER = (1, 2, 3, 0)
"""Order in which candidates copy SAM's mask tokens: the three multi-mask tokens first."""
SCORE_SLOPE, SCORE_MIDDLE = 10.0, 0.7  # objectness starts as SLOPE * (the decoder's estimated IoU - MIDDLE)


class TwoWayDecoder(nn.Module):
    """The two-way transformer and upscaling of transformers' SamMaskDecoder, with padded points masked out.

    Computes the same sums faster: projections of the 4,096 cells are applied to the few tokens instead
    (q . W x = W'q . x), and a transposed convolution whose stride equals its kernel is a linear layer.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.transformer: Any = decoder.transformer
        self.upscale_conv1, self.upscale_conv2 = decoder.upscale_conv1, decoder.upscale_conv2
        self.upscale_layer_norm = decoder.upscale_layer_norm

    def forward(
        self, tokens: Tensor, given: Tensor, image: Tensor, positions: Tensor, wanted: slice
    ) -> tuple[Tensor, Tensor]:
        """The `wanted` tokens after the transformer, float (batch, n, 256), and the upscaled embedding.

        `given`, bool (batch, t), is False for padding; `image` is (batch, 256, h, w), `positions` its position code.
        The embedding is float (batch, h, w, 2, 2, 2, 2, 32); `on_grid` puts its cells in order.
        """
        keys, place = image.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2)
        hidden = torch.zeros(given.shape, dtype=tokens.dtype, device=tokens.device).masked_fill(~given, -torch.inf)
        queries = tokens
        for layer in self.transformer.layers:
            queries, keys = _layer(layer, queries, keys, tokens, place, hidden)
        queries = queries[:, wanted]
        found = _to_tokens(self.transformer.final_attn_token_to_image, queries + tokens[:, wanted], keys + place, keys)
        queries = self.transformer.layer_norm_final_attn(queries + found)
        norm = self.upscale_layer_norm
        wide = _upscaled(self.upscale_conv1, _split(keys, 1, image.shape[2:]))
        wide = nn.functional.layer_norm(wide, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return queries, nn.functional.gelu(_upscaled(self.upscale_conv2, nn.functional.gelu(wide)))


class SamStage(nn.Module):
    """Base of both stages: copies of SAM's prompt encoder and of its decoder's transformer."""

    def __init__(self, parts: SamParts) -> None:
        super().__init__()
        prompts: Any = copy.deepcopy(parts.prompt_encoder)
        prompts.point_embed = prompts.point_embed[:2]  # the others are box corners
        self.prompts: Any = prompts
        self.two_way = TwoWayDecoder(copy.deepcopy(parts.mask_decoder))
        self.positions: Tensor
        self.register_buffer("positions", image_positions(self.prompts).detach(), persistent=False)
        self.register_load_state_dict_post_hook(_restore_positions)  # type: ignore[no-untyped-call]

    def decoded(self, own: Tensor, clicks: ClickBatch, image: Tensor, wanted: slice) -> tuple[Tensor, Tensor]:
        """The `wanted` of the stage's own tokens (batch, t, 256), decoded, and the upscaled embedding."""
        points, given = point_tokens(self.prompts, clicks)
        tokens = torch.cat([own, points.to(own.dtype)], dim=1)
        given = torch.cat([given.new_ones(own.shape[:2]), given], dim=1)
        result: tuple[Tensor, Tensor] = self.two_way(tokens, given, image, self.positions, wanted)
        return result


class SamProposalNetwork(SamStage):
    """The proposal network (paper, eq. 2) on a copy of SAM's decoder."""

    def __init__(self, parts: SamParts, options: DisnetOptions) -> None:
        super().__init__(parts)
        self.options = options
        if options.first_click:
            self.prompts.mask_embed = nn.Identity()  # unused: neither trained nor stored
        decoder: Any = parts.mask_decoder
        again = range(options.outputs)  # more than four candidates repeat the tokens; one copies the single-mask token
        order = [0] if options.outputs == 1 else [TOKEN_ORDER[n % len(TOKEN_ORDER)] for n in again]
        self.iou_token = nn.Parameter(decoder.iou_token.weight.detach().clone())
        self.candidate_tokens = nn.Parameter(_grown_tokens(decoder.mask_tokens.weight.detach(), order))
        self.hypernetworks = nn.ModuleList(copy.deepcopy(decoder.output_hypernetworks_mlps[number]) for number in order)
        self.objectness = _build_score_head(decoder.iou_prediction_head, order)
        self.comparison = Comparison(self.candidate_tokens.shape[1])

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The rows of a profile."""
        return {
            "prompt encoder": self.prompts,
            "two-way transformer, upscaling": self.two_way,
            "hypernetworks": self.hypernetworks,
            "objectness head, comparison": nn.ModuleList([self.objectness, self.comparison]),
        }

    def forward(self, inputs: Tensor, clicks: ClickBatch, previous: Tensor | None = None) -> Proposals:
        """Candidates for the first click; with `first_click` off, for all clicks and the previous mask.

        Args:
            inputs: the encoder's features, float (batch, 256, 64, 64).
            clicks: in input pixels.
            previous: logits of the previous mask, float (batch, 256, 256).
        """
        if previous is None or self.options.first_click:
            mask_code = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        else:
            mask_code = self.prompts.mask_embed(previous[:, None])
        own = torch.cat([self.iou_token, self.candidate_tokens]).expand(len(inputs), -1, -1)
        seen = clicks.first if self.options.first_click else clicks
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        found, cells = self.decoded(own, seen, inputs + mask_code, slice(1 + self.options.outputs))
        queries = found[:, 1:]
        weights = torch.stack([net(queries[:, n]) for n, net in enumerate(self.hypernetworks)], dim=1)
        features = on_grid(cells)
        logits = _split((features.flatten(1, 2) @ weights.mT).mT, 2, features.shape[1:3])
        features = features.permute(0, 3, 1, 2)
        objectness = self.comparison(self.objectness(found[:, 0]), queries, logits.detach(), inputs)
        return Proposals(logits, objectness, queries, features, context=inputs)


class ComparisonLayer(nn.Module):
    """Pre-norm attention among candidates, then an FFN; torch's own layer gives NaN for this bias in eval()."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.projection = nn.LayerNorm(PAIR_WIDTH), nn.Linear(PAIR_WIDTH, 3 * PAIR_WIDTH)
        self.out = nn.Linear(PAIR_WIDTH, PAIR_WIDTH)
        wide = 2 * PAIR_WIDTH
        self.ffn = nn.Sequential(
            nn.LayerNorm(PAIR_WIDTH),
            nn.Linear(PAIR_WIDTH, wide),
            nn.ReLU(),
            nn.Linear(wide, PAIR_WIDTH),
        )

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Candidates, float (batch, N, width); `bias` (batch, heads, N, N) is added to their attention."""
        queries, keys, values = self.projection(self.norm(tokens)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(queries, keys, values, bias.to(queries.dtype))
        tokens = tokens + self.out(found.transpose(1, 2).flatten(2))
        corrected: Tensor = tokens + self.ffn(tokens)
        return corrected


class Comparison(nn.Module):
    """Object scores that compare candidates: those of SAM's head plus a correction that is initially 0.

    A candidate is represented by its query, the image features in its mask, and the mask's size and certainty; two
    layers of attention among the candidates use the IoUs of their masks. `width` is the width of queries and features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.inside, self.shape = (nn.Linear(size, PAIR_WIDTH) for size in (width, width, 3))
        self.layers = nn.ModuleList(ComparisonLayer() for _ in range(2))
        self.overlap = nn.Parameter(torch.zeros(HEADS))
        self.correction = _zero(nn.Linear(PAIR_WIDTH, 1))

    def forward(self, scores: Tensor, queries: Tensor, logits: Tensor, image: Tensor) -> Tensor:
        """Logits of the object scores, float (batch, N).

        From the scores of SAM's head, queries (batch, N, width), mask logits (batch, N, 256, 256), and image features
        (batch, width, 64, 64).
        """
        size = logits.shape[-1] // image.shape[-1]
        certain = (logits.abs() / 4).tanh().flatten(2).mean(2)
        masks = nn.functional.avg_pool2d(logits.sigmoid(), size).flatten(2)
        area = masks.sum(2)
        inside = (masks @ image.flatten(2).mT) / (area[..., None] + 1)
        shape = torch.stack([(area / masks.shape[2] + 1e-4).log(), certain, scores.detach() / SCORE_SLOPE], dim=2)
        both = masks @ masks.mT
        overlaps = both / (area[:, :, None] + area[:, None] - both + 1)
        bias = overlaps[:, None] * self.overlap[:, None, None]
        found = self.query(queries) + self.inside(inside) + self.shape(shape)
        for layer in self.layers:
            found = layer(found, bias)
        corrected: Tensor = scores + self.correction(found)[..., 0]
        return corrected


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

    def forward(self, kept: Kept, clicks: ClickBatch, current: Tensor | None = None) -> Tensor:
        """Logits, float (batch, 256, 256), for all clicks in input pixels; `kept.context` is SAM's features.

        `current` logits, of the same shape, replace those of M_s as SAM's mask prompt.
        """
        assert kept.context is not None
        prompt = kept.logits if current is None else current
        own = self.tokens.expand(len(kept.query), -1, -1)
        mask_token = own[:, 1] + self.kept_token(kept.query)
        own = torch.cat([own[:, :1], mask_token[:, None], own[:, 2:]], dim=1)
        image = kept.context + self.prompts.mask_embed(prompt[:, None])
        found, cells = self.decoded(own, clicks, image, slice(1, 2))
        token = self.hypernetwork(found[:, 0]) + self.kept_query(kept.query)
        pooled = nn.functional.avg_pool2d(kept.features, FINE).permute(0, 2, 3, 1)
        coarse = on_grid(cells.mean(dim=(-3, -2))) + self.kept_features(pooled)
        token, change = self._corrected(token, coarse, kept.logits.sigmoid(), clicks)
        kept_token, shift = token @ self.kept_features.weight, token @ self.kept_features.bias
        logits = on_grid(_dot(token, cells)) + _dot(kept_token, kept.features.permute(0, 2, 3, 1))
        logits = logits[..., 0] + shift[:, None, None]
        change = _dot(token, change).permute(0, 3, 1, 2)
        finer = nn.functional.interpolate(change, scale_factor=FINE, mode="bilinear", align_corners=False)[:, 0]
        return logits + finer

    def _corrected(self, token: Tensor, features: Tensor, mask: Tensor, clicks: ClickBatch) -> tuple[Tensor, Tensor]:
        """The token after the DAMC blocks, and the change of the features on the blocks' grid."""
        corrected, changed = self.token_norm(token), self.features_norm(features)
        mask = nn.functional.avg_pool2d(mask[:, None], FINE)[:, 0]
        for block in self.blocks:
            corrected, changed = block(corrected, changed, mask, clicks)
        return token + self.corrected_token(corrected), self.corrected_features(changed)


def point_tokens(prompts: Any, clicks: ClickBatch) -> tuple[Tensor, Tensor]:
    """SAM's codes of clicks in input pixels, and of the padding point that SAM adds if there is no box.

    Codes are float32 (batch, clicks + 1, 256) even under autocast, since bfloat16 resolves positions only to a few
    pixels; the second result, bool (batch, clicks + 1), is False for padding of the batch.
    """
    labels = torch.where(clicks.given, clicks.positive.long(), -1)
    with torch.autocast(labels.device.type, enabled=False):
        sparse, _ = prompts(clicks.points[:, None], labels[:, None], None, None)
    return sparse[:, 0], torch.cat([clicks.given, clicks.given.new_ones(len(labels), 1)], dim=1)


def on_grid(cells: Tensor) -> Tensor:
    """Reorder cells split into 2 x 2 one or more times, float (batch, h, w, 2, 2, ..., d), to (batch, H, W, d)."""
    rows, columns = range(1, cells.ndim - 1, 2), range(2, cells.ndim - 1, 2)
    placed = cells.permute(0, *rows, *columns, cells.ndim - 1)
    return placed.flatten(1, len(rows)).flatten(2, 1 + len(columns))


def _split(part: Any, axis: int, sizes: Sequence[int]) -> Tensor:
    split: Tensor = part.unflatten(axis, sizes)
    return split


def _dot(token: Tensor, features: Tensor) -> Tensor:
    """Dot products of a token (batch, d) with features (batch, ..., d): (batch, ..., 1)."""
    return (features.flatten(1, -2) @ token[:, :, None]).view(*features.shape[:-1], 1)


def _upscaled(conv: Any, cells: Tensor) -> Tensor:
    """A transposed convolution with kernel and stride 2, float (..., d) to (..., 2, 2, out)."""
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return _split(nn.functional.linear(cells, weight, conv.bias.repeat(4)), -1, (2, 2, -1))


def _layer(
    layer: Any, queries: Tensor, keys: Tensor, points: Tensor, place: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """One layer of SAM's two-way transformer (transformers' SamTwoWayAttentionBlock), padding masked out."""
    if layer.skip_first_layer_pe:
        queries = _to_cells(layer.self_attn, queries, queries, queries, hidden)
    else:
        placed = queries + points
        queries = queries + _to_cells(layer.self_attn, placed, placed, queries, hidden)
    queries, placed = layer.layer_norm1(queries), keys + place
    found = _to_tokens(layer.cross_attn_token_to_image, queries + points, placed, keys)
    queries = layer.layer_norm2(queries + found)
    queries = layer.layer_norm3(queries + layer.mlp(queries))
    found = _to_cells(layer.cross_attn_image_to_token, placed, queries + points, queries, hidden)
    return queries, layer.layer_norm4(keys + found)


def _to_tokens(attention: Any, queries: Tensor, placed: Tensor, cells: Tensor) -> Tensor:
    """Attention of tokens (batch, t, 256) to cells (batch, c, 256), with keys `placed`: (batch, t, 256)."""
    weights = _products(attention, attention.q_proj, queries, attention.k_proj, placed).softmax(dim=-1)
    gathered = _split(weights.flatten(1, 2) @ cells, 1, weights.shape[1:3])
    narrow = _split(attention.v_proj.weight, 0, (weights.shape[1], -1))
    found = torch.einsum("bhtc,hdc->bthd", gathered, narrow).flatten(2)
    result: Tensor = attention.out_proj(found + attention.v_proj.bias)
    return result


def _to_cells(attention: Any, placed: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    """Attention of cells (batch, c, 256) to tokens (batch, t, 256) that are not `hidden`: (batch, c, 256)."""
    weights = _products(attention, attention.k_proj, keys, attention.q_proj, placed, hidden).softmax(dim=2)
    heads = (weights.shape[1], -1)
    values, wide = _split(attention.v_proj(values), -1, heads), _split(attention.out_proj.weight, 1, heads)
    told: Tensor = torch.einsum("bthd,chd->bhtc", values, wide) + attention.out_proj.bias / weights.shape[1]
    return weights.flatten(1, 2).mT @ told.flatten(1, 2)


def _products(
    attention: Any, own: nn.Linear, tokens: Tensor, other: nn.Linear, cells: Tensor, hidden: Tensor | None = None
) -> Tensor:
    """Scaled products of projected tokens (batch, t, 256) and cells (batch, c, 256): (batch, heads, t, c)."""
    heads = (attention.num_attention_heads, -1)
    asked = _split(own(tokens), -1, heads)
    asked = asked / math.sqrt(asked.shape[-1])
    vectors = torch.einsum("bthd,hdc->bhtc", asked, _split(other.weight, 0, heads))
    shift = torch.einsum("bthd,hd->bht", asked, _split(other.bias, 0, heads))
    if hidden is not None:
        shift = shift + hidden[:, None]
    products = torch.baddbmm(shift.flatten(1)[:, None], cells, vectors.flatten(1, 2).mT)
    return _split(products.mT, 1, heads)


def _restore_positions(stage: SamStage, _: object) -> None:
    stage.positions = image_positions(stage.prompts).detach()


def _grown_tokens(tokens: Tensor, order: Sequence[int]) -> Tensor:
    grown = tokens[list(order)]  # a copy
    again = grown[len(TOKEN_ORDER) :]
    again += torch.randn_like(again) * grown.std() * TOKEN_NOISE
    return grown


def _build_score_head(head: Any, order: Sequence[int]) -> Any:
    """The decoder's IoU head with one output per candidate, scaled to a logit."""
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
