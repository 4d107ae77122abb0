"""DISNet's refinement network restated from the paper's equations and their readings, number by number.

Plain loops over cells, clicks and channels in double precision. Nothing is shared with the package but the
weights, which are read out of its modules, and the options' fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

Array = npt.NDArray[np.float64]
AnyClick = tuple[float, float, bool]
"""x to the right, y down, in pixels of the input (whole numbers are pixel centers); whether it is positive."""

STRIDE = 4


def numbers(parameter: Tensor) -> Array:
    return np.asarray(parameter.detach().double().numpy())


def linear(layer: nn.Linear, vector: Array) -> Array:
    return numbers(layer.weight) @ vector + numbers(layer.bias)


def everywhere(function: Callable[[Array], Array], features: Array) -> Array:
    """The function of every cell's vector."""
    return np.array([[function(vector) for vector in row] for row in features])


def softmax(scores: Sequence[float]) -> list[float]:
    raised = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(raised) for value in raised]


def weighted_sum(weights: Sequence[float], vectors: Sequence[Array]) -> Array:
    total = np.zeros_like(vectors[0])
    for weight, vector in zip(weights, vectors, strict=True):
        total = total + weight * vector
    return total


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def center(cell: tuple[int, int], stride: int = STRIDE) -> tuple[float, float]:
    """x and y of the middle of a cell (row, column): the cell's first pixel is `stride` times its number."""
    row, column = cell
    return column * stride + (stride - 1) / 2, row * stride + (stride - 1) / 2


# Masked click attention


def decay(cell: tuple[int, int], clicks: Sequence[AnyClick], positive: bool, options: Any, side: int) -> float:
    """G_p or G_n at a cell (eq. 5)."""
    largest = 0.0
    for number, (x, y, sign) in enumerate(clicks):
        if sign != positive:
            continue
        radius = options.first_click_radius if number == 0 else options.other_click_radius
        cell_x, cell_y = center(cell)
        distance = math.sqrt((cell_x - x) ** 2 + (cell_y - y) ** 2)
        if options.radius_unit == "input":
            radius *= side / 448
        else:
            distance /= STRIDE
        largest = max(largest, 1 - min(radius, distance) / radius)
    return largest


def half_of_click_attention(
    module: Any, token: Array, features: Array, mask: Array, clicks: Sequence[AnyClick], positive: bool
) -> Array:
    """Z_p (eq. 7) or Z_n (eq. 8)."""
    options = module.options
    query = linear(module.query, token)
    value_layer = module.negative_value if options.separate_values and not positive else module.value
    scores, values = [], []
    for cell in np.ndindex(*mask.shape):
        affinity = query @ linear(module.key, features[cell]) / math.sqrt(len(token))
        near = decay(cell, clicks, positive, options, STRIDE * max(mask.shape))
        match options.modulation:
            case "product":
                affinity = affinity * near
            case "one-plus":
                affinity = affinity * (1 + near)
            case "additive":
                affinity = affinity + module.beta.item() * near
        allowed = mask[cell] if positive else 1 - mask[cell]
        if options.clicks_in_mask:
            allowed = max(allowed, near)
        scores.append(affinity + math.log(max(allowed, 1e-6)))
        values.append(linear(value_layer, features[cell]))
    return weighted_sum(softmax(scores), values)


def click_attention(module: Any, token: Array, features: Array, mask: Array, clicks: Sequence[AnyClick]) -> Array:
    """Z_MCA (eq. 6)."""
    total = np.zeros_like(token)
    for positive in (True, False):
        has_one = any(sign == positive for _, _, sign in clicks)
        if has_one or not module.options.gate_unclicked:
            total = total + half_of_click_attention(module, token, features, mask, clicks, positive)
    return total


def plain_attention(module: Any, token: Array, features: Array) -> Array:
    """Eq. 4 without M."""
    query = linear(module.query, token)
    cells = [features[cell] for cell in np.ndindex(*features.shape[:2])]
    scores = [query @ linear(module.key, vector) / math.sqrt(len(token)) for vector in cells]
    return weighted_sum(softmax(scores), [linear(module.value, vector) for vector in cells])


# Clicks as vectors


def position_code(x: float, y: float, channels: int, side: int) -> Array:
    """Sines of x, cosines of x, then of y: 1 turn to the side in the first channel, 64 in the last."""
    count = channels // 4
    turns = [64 ** (number / max(count - 1, 1)) for number in range(count)]
    code: list[float] = []
    for place in ((x + 0.5) / side, (y + 0.5) / side):
        code += [math.sin(2 * math.pi * turn * place) for turn in turns]
        code += [math.cos(2 * math.pi * turn * place) for turn in turns]
    return np.array(code)


def click_code(module: Any, click: AnyClick, is_first: bool, side: int) -> Array:
    """P^t of one click: Enc1D."""
    x, y, positive = click
    code = position_code(x, y, module.channels, side) + numbers(module.signs)[1 if positive else 0]
    return code + numbers(module.first) if is_first and module.first is not None else code


def sampled(features: Array, x: float, y: float) -> Array:
    """Features at a point, bilinear between the middles of cells, the border's beyond them."""
    height, width = features.shape[:2]
    column = min(max((x - (STRIDE - 1) / 2) / STRIDE, 0.0), width - 1.0)
    row = min(max((y - (STRIDE - 1) / 2) / STRIDE, 0.0), height - 1.0)
    total = np.zeros(features.shape[2])
    for j in range(height):
        for i in range(width):
            share = max(0.0, 1 - abs(column - i)) * max(0.0, 1 - abs(row - j))
            total = total + share * features[j, i]
    return total


def click_vectors(module: Any, features: Array, clicks: Sequence[AnyClick]) -> list[Array]:
    """F' (eq. 9)."""
    side = STRIDE * max(features.shape[:2])
    vectors = []
    for number, click in enumerate(clicks):
        found = sampled(features, click[0], click[1])
        if module.codes is not None:
            found = np.concatenate([found, click_code(module.codes, click, number == 0, side)])
        vectors.append(linear(module.projection, found))
    return vectors


# First-click guidance


def multi_head_attention(module: nn.MultiheadAttention, query: Array, keys: Sequence[Array]) -> Array:
    """MHA of one query over keys that are also the values."""
    channels, width = len(query), len(query) // module.num_heads
    weights = numbers(module.in_proj_weight).reshape(3, channels, channels)
    biases = numbers(module.in_proj_bias).reshape(3, channels)
    heads = []
    for head in range(module.num_heads):
        rows = slice(head * width, (head + 1) * width)
        own_query = weights[0, rows] @ query + biases[0, rows]
        own_keys = [weights[1, rows] @ key + biases[1, rows] for key in keys]
        own_values = [weights[2, rows] @ key + biases[2, rows] for key in keys]
        scores = [own_query @ key / math.sqrt(width) for key in own_keys]
        heads.append(weighted_sum(softmax(scores), own_values))
    return linear(module.out_proj, np.concatenate(heads))


def relational_vector(module: Any, vectors: Sequence[Array], clicks: Sequence[AnyClick], positive: bool) -> Array:
    """V (eq. 10): the first click's vector asks those of the other clicks of the sign."""
    others = [vector for vector, click in zip(vectors[1:], clicks[1:], strict=True) if click[2] == positive]
    return multi_head_attention(module.attention, vectors[0], others or [numbers(module.no_click)])


def gate(module: Any, vector: Array) -> Array:
    """SENet's: fully connected, ReLU, fully connected, sigmoid."""
    hidden = np.maximum(linear(module.squeeze, vector), 0)
    return np.array([sigmoid(value) for value in linear(module.excite, hidden)])


def first_click_guidance(
    module: Any, features: Array, vectors: Sequence[Array], mask: Array, clicks: Sequence[AnyClick]
) -> Array:
    """Z_FCG (eq. 11 to 13)."""
    inside = gate(module.positive_gate, relational_vector(module.positive_vector, vectors, clicks, True))
    outside = gate(module.negative_gate, relational_vector(module.negative_vector, vectors, clicks, False))
    result = np.zeros_like(features)
    for cell in np.ndindex(*mask.shape):
        z_p = inside * features[cell] * mask[cell]
        z_n = outside * features[cell] * (1 - mask[cell])
        result[cell] = z_p + z_n
    return result


# The network


def layer_norm(module: nn.LayerNorm, vector: Array) -> Array:
    deviation = vector - sum(vector) / len(vector)
    variance = sum(deviation**2) / len(vector)
    return deviation / math.sqrt(variance + 1e-5) * numbers(module.weight) + numbers(module.bias)


def depthwise(layer: nn.Conv2d, features: Array) -> Array:
    """3x3, one kernel a channel, zeros beyond the border."""
    height, width, channels = features.shape
    kernels, biases = numbers(layer.weight), numbers(layer.bias)
    result = np.zeros_like(features)
    for row, column in np.ndindex(height, width):
        total = biases.copy()
        for j in range(3):
            for i in range(3):
                y, x = row + j - 1, column + i - 1
                if 0 <= y < height and 0 <= x < width:
                    total = total + kernels[:, 0, j, i] * features[y, x]
        result[row, column] = total
    assert kernels.shape == (channels, 1, 3, 3)
    return result


def gelu(value: float) -> float:
    return value * (1 + math.erf(value / math.sqrt(2))) / 2


def conv_ffn(module: Any, features: Array) -> Array:
    wide = everywhere(lambda vector: linear(module.widen, vector), features)
    spread = depthwise(module.spread, wide)
    bent = everywhere(lambda vector: np.array([gelu(value) for value in vector]), spread)
    return everywhere(lambda vector: linear(module.narrow, vector), bent)


def damc_block(
    module: Any, token: Array, features: Array, mask: Array, clicks: Sequence[AnyClick], options: Any
) -> tuple[Array, Array]:
    """Token: attention, add and norm, FFN, add and norm. Features: guidance, add, ConvFFN, add."""
    attended = (
        click_attention(module.attention, token, features, mask, clicks)
        if options.mca
        else plain_attention(module.attention, token, features)
    )
    token = layer_norm(module.attention_norm, token + attended)
    hidden = np.maximum(linear(module.ffn[0], token), 0)
    token = layer_norm(module.ffn_norm, token + linear(module.ffn[2], hidden))
    vectors = click_vectors(module.click_vectors, features, clicks)
    features = features + (
        first_click_guidance(module.guidance, features, vectors, mask, clicks)
        if options.fcg
        else everywhere(lambda vector: multi_head_attention(module.guidance.attention, vector, vectors), features)
    )
    if options.guidance.conv_ffn:
        features = features + conv_ffn(module.conv_ffn, features)
    return token, features


def refinement(
    module: Any, token: Array, features: Array, logits: Array, clicks: Sequence[AnyClick], options: Any
) -> Array:
    """R (eq. 3): F . q after the last block."""
    mask = np.array([[sigmoid(value) for value in row] for row in logits])
    for block in module.blocks:
        token, features = damc_block(block, token, features, mask, clicks, options)
    return np.array([[vector @ token for vector in row] for row in features])
