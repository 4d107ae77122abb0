"""DISNet's modules against literal restatements of equations 4 to 13, and what holds for any clicks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import disnet_restatement as literal
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from disbench.core.clicks import Click
from disbench.disnet.batches import ClickBatch, Kept, click_batch
from disbench.disnet.click_encodings import ClickVectors, decay_map, disk_map, on_grid, position_code, sample_features
from disbench.disnet.options import ClickAttentionOptions, DisnetOptions, GuidanceOptions
from disbench.disnet.refinement_network import (
    ConvFfn,
    DamcBlock,
    FirstClickGuidance,
    MaskedClickAttention,
    PlainAttention,
    PlainGuidance,
    RefinementNetwork,
)
from tests.unit.disnet_tools import without_padding

AnyClick = tuple[float, float, bool]
GRID = (6, 9)
INPUT = (24, 36)
CHANNELS = 16
HEADS = 4
SAMPLES: list[list[AnyClick]] = [
    [(14, 10, True)],
    [(20.5, 7.25, True), (3, 21, False)],
    [(9.5, 9.5, True), (11, 9, True), (30, 2, False), (0, 0, False), (35, 23, True)],
    [(17, 12, False)],
    [(1, 22, False), (33.3, 4.4, True), (34, 4, True)],
    [(5, 5, True), (6, 6, True)],
]
"""Clicks of one batch: other counts, other signs, first clicks that are negative, clicks on the border."""

RADII: list[dict[str, Any]] = [
    {"first_click_radius": 150.0, "other_click_radius": 90.0},
    {"first_click_radius": 3.0, "other_click_radius": 2.0, "radius_unit": "feature"},
    {},
]
"""The default ones are about a pixel here: an input of 36 pixels, not of 448."""
ATTENTION = [
    ClickAttentionOptions(
        modulation=modulation,
        clicks_in_mask=in_mask,
        separate_values=separate,
        gate_unclicked=gated,
        **RADII[number % len(RADII)],
    )
    for number, (modulation, in_mask, separate, gated) in enumerate(
        product(["product", "one-plus", "additive"], [False, True], [False, True], [False, True])
    )
]
NETWORKS = [
    DisnetOptions(
        mca=mca,
        fcg=fcg,
        blocks=blocks,
        attention=ClickAttentionOptions(60, 40, modulation="additive", gate_unclicked=True),
        guidance=GuidanceOptions(augmented, conv, first),
    )
    for (mca, fcg, blocks), (augmented, conv, first) in product(
        [(True, True, 2), (True, False, 1), (False, True, 1), (False, False, 2)],
        [(True, True, False), (True, False, True), (False, True, False)],
    )
]
DEFAULT = DisnetOptions()


def name(options: Any) -> str:
    """What differs from the defaults."""
    shown = dataclasses.asdict(options)
    plain = dataclasses.asdict(type(options)())
    return ",".join(f"{key}={value}" for key, value in shown.items() if value != plain[key]) or "default"


def network_name(options: DisnetOptions) -> str:
    if options == DEFAULT:
        return "default"
    guidance = dataclasses.astuple(options.guidance)
    return "-".join(str(int(part)) for part in (options.mca, options.fcg, options.blocks, *guidance))


def batch_of(samples: Sequence[Sequence[AnyClick]], kind: torch.dtype = torch.float64) -> ClickBatch:
    """The clicks padded with what must not matter."""
    most = max(len(clicks) for clicks in samples)
    padded = [[*clicks, *[(777.0, -50.0, True)] * (most - len(clicks))] for clicks in samples]
    return ClickBatch(
        torch.tensor([[(x, y) for x, y, _ in clicks] for clicks in padded], dtype=kind),
        torch.tensor([[sign for *_, sign in clicks] for clicks in padded]),
        torch.tensor([[number < len(clicks) for number in range(most)] for clicks in samples]),
    )


def random_weights(module: Any, kind: torch.dtype = torch.float64) -> Any:
    """All parameters drawn, so that none is at a value (0, 1) that hides it."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator) * 0.3
        parameter.data = drawn + (1 if parameter.ndim == 0 else 0)
    return module.to(kind)


def drawn_inputs(kind: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (batch, d), features (batch, height, width, d) and mask logits, some of them extreme."""
    generator = torch.Generator().manual_seed(5)
    batch = len(SAMPLES)
    token = torch.randn(batch, CHANNELS, generator=generator)
    features = torch.randn(batch, *GRID, CHANNELS, generator=generator)
    logits = 3 * torch.randn(batch, *GRID, generator=generator)
    logits[:, 0], logits[:, 1, 3:] = 30, -30
    return token.to(kind), features.to(kind), logits.to(kind)


def drawn_vectors() -> Tensor:
    """F' of the samples, float64 (batch, clicks, d)."""
    generator = torch.Generator().manual_seed(6)
    most = max(len(clicks) for clicks in SAMPLES)
    return torch.randn(len(SAMPLES), most, CHANNELS, generator=generator).double()


def close(found: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(found.detach().double().numpy(), np.asarray(expected), rtol=1e-5, atol=1e-5)


# Parity


@pytest.mark.parametrize("options", ATTENTION, ids=name)
def test_masked_click_attention(options: ClickAttentionOptions) -> None:
    """Equations 5 to 8."""
    module = random_weights(MaskedClickAttention(CHANNELS, options))
    token, features, logits = drawn_inputs()
    mask = logits.sigmoid()
    found = module(token, features, mask, batch_of(SAMPLES), literal.STRIDE)
    for row, clicks in enumerate(SAMPLES):
        arrays = (value[row].numpy() for value in (token, features, mask))
        close(found[row], literal.click_attention(module, *arrays, clicks))


def test_plain_attention() -> None:
    """Equation 4 without M."""
    module = random_weights(PlainAttention(CHANNELS))
    token, features, _ = drawn_inputs()
    found = module(token, features)
    for row in range(len(SAMPLES)):
        close(found[row], literal.plain_attention(module, token[row].numpy(), features[row].numpy()))


@pytest.mark.parametrize(("augmented", "first"), [(True, False), (True, True), (False, False)])
def test_click_vectors(augmented: bool, first: bool) -> None:
    """Equation 9."""
    module = random_weights(ClickVectors(CHANNELS, augmented, first))
    _, features, _ = drawn_inputs()
    found = module(features.permute(0, 3, 1, 2), batch_of(SAMPLES), literal.STRIDE)
    for row, clicks in enumerate(SAMPLES):
        close(found[row, : len(clicks)], literal.click_vectors(module, features[row].numpy(), clicks))


def test_first_click_guidance() -> None:
    """Equations 10 to 13."""
    module = random_weights(FirstClickGuidance(CHANNELS, HEADS))
    _, features, logits = drawn_inputs()
    mask, vectors = logits.sigmoid(), drawn_vectors()
    found = module(features, vectors, mask, batch_of(SAMPLES))
    for row, clicks in enumerate(SAMPLES):
        own = list(vectors[row, : len(clicks)].numpy())
        expected = literal.first_click_guidance(module, features[row].numpy(), own, mask[row].numpy(), clicks)
        close(found[row], expected)


def test_plain_guidance() -> None:
    module = random_weights(PlainGuidance(CHANNELS, HEADS))
    _, features, _ = drawn_inputs()
    vectors = drawn_vectors()
    found = module(features, vectors, torch.empty(0), batch_of(SAMPLES))
    for row, clicks in enumerate(SAMPLES):
        own = list(vectors[row, : len(clicks)].numpy())
        for cell in np.ndindex(*GRID):
            query = features[row][cell].numpy()
            close(found[row][cell], literal.multi_head_attention(module.attention, query, own))


def test_conv_ffn() -> None:
    module = random_weights(ConvFfn(CHANNELS))
    _, features, _ = drawn_inputs()
    found = module(features)
    for row in range(len(SAMPLES)):
        close(found[row], literal.conv_ffn(module, features[row].numpy()))


@pytest.mark.parametrize("options", [DEFAULT, *NETWORKS], ids=network_name)
def test_refinement_network(options: DisnetOptions) -> None:
    """Equation 3, of all its parts."""
    network = random_weights(RefinementNetwork(CHANNELS, options, HEADS))
    compare_networks(network, options, torch.float64)


@pytest.mark.parametrize("attention", [DEFAULT.attention, ATTENTION[-1]], ids=name)
def test_refinement_network_as_it_runs(attention: ClickAttentionOptions) -> None:
    """In single precision, with the weights that a training starts from."""
    torch.manual_seed(0)
    options = DisnetOptions(attention=attention)
    compare_networks(RefinementNetwork(CHANNELS, options), options, torch.float32)


def compare_networks(network: RefinementNetwork, options: DisnetOptions, kind: torch.dtype) -> None:
    token, features, logits = drawn_inputs(kind)
    kept = Kept(token, features.permute(0, 3, 1, 2), logits)
    found = network(kept, batch_of(SAMPLES, kind))
    for row, clicks in enumerate(SAMPLES):
        arrays = (value[row].double().numpy() for value in (token, features, logits))
        close(found[row], literal.refinement(network, *arrays, clicks, options))


# Batches


@pytest.mark.parametrize("options", ATTENTION, ids=name)
def test_attention_of_a_batch_is_that_of_its_samples(options: ClickAttentionOptions) -> None:
    module = random_weights(MaskedClickAttention(CHANNELS, options), torch.float32)
    token, features, logits = drawn_inputs(torch.float32)
    mask, clicks = logits.sigmoid(), batch_of(SAMPLES, torch.float32)
    together = module(token, features, mask, clicks, literal.STRIDE)
    for row in range(len(SAMPLES)):
        one = slice(row, row + 1)
        alone = module(token[one], features[one], mask[one], without_padding(clicks, row), literal.STRIDE)
        torch.testing.assert_close(together[one], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [DEFAULT, *NETWORKS], ids=network_name)
def test_a_batch_is_its_samples(options: DisnetOptions) -> None:
    network = random_weights(RefinementNetwork(CHANNELS, options, HEADS))
    token, features, logits = drawn_inputs()
    clicks = batch_of(SAMPLES)
    together = network(Kept(token, features.permute(0, 3, 1, 2), logits), clicks)
    for row in range(len(SAMPLES)):
        one = slice(row, row + 1)
        kept = Kept(token[one], features[one].permute(0, 3, 1, 2), logits[one])
        torch.testing.assert_close(together[one], network(kept, without_padding(clicks, row)), rtol=1e-6, atol=1e-6)


def test_gradients_of_a_batch_are_those_of_its_samples() -> None:
    """What stands in for missing clicks learns from the samples without them alone."""
    network = random_weights(RefinementNetwork(CHANNELS, DEFAULT, HEADS))
    token, features, logits = drawn_inputs()
    clicks, planes = batch_of(SAMPLES), features.permute(0, 3, 1, 2)
    parameters = list(network.parameters())
    together = torch.autograd.grad(network(Kept(token, planes, logits), clicks).sum(), parameters)
    apart = [torch.zeros_like(parameter) for parameter in parameters]
    for row in range(len(SAMPLES)):
        one = slice(row, row + 1)
        answer = network(Kept(token[one], planes[one], logits[one]), without_padding(clicks, row))
        slopes = torch.autograd.grad(answer.sum(), parameters)
        apart = [total + slope for total, slope in zip(apart, slopes, strict=True)]
    torch.testing.assert_close(list(together), apart, rtol=1e-6, atol=1e-6)


# Gradients


def hold(module: nn.Module, call: Callable[..., tuple[Any, ...]], inputs: Sequence[Tensor], fast: bool = True) -> bool:
    """Whether the gradients to the inputs and to all weights are those of finite differences.

    Fast: in one drawn direction; else in each.
    """
    names, weights = zip(*module.named_parameters(), strict=True)

    def answer(*tensors: Tensor) -> Any:
        own = dict(zip(names, tensors[len(inputs) :], strict=True))
        return torch.func.functional_call(module, own, call(*tensors[: len(inputs)]))

    tensors = [tensor.detach().requires_grad_() for tensor in (*inputs, *weights)]
    return torch.autograd.gradcheck(answer, tensors, fast_mode=fast)


SMALL_CLICKS: list[list[AnyClick]] = [[(5, 3, True)], [(2.5, 6, True), (9, 1, False), (6, 2, True)]]


def small_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, features and masks of two samples: 4 channels on 2 x 3 cells."""
    generator = torch.Generator().manual_seed(7)
    token, features, mask = (torch.randn(shape, generator=generator) for shape in ((2, 4), (2, 2, 3, 4), (2, 2, 3)))
    return token.double(), features.double(), mask.double().sigmoid()


@pytest.mark.parametrize("modulation", ["product", "one-plus", "additive"])
@pytest.mark.parametrize("others", [False, True])
def test_gradients_of_masked_click_attention(modulation: Any, others: bool) -> None:
    options = ClickAttentionOptions(
        300, 200, modulation=modulation, clicks_in_mask=others, separate_values=others, gate_unclicked=others
    )
    plain = ClickAttentionOptions(300, 200)
    module = random_weights(MaskedClickAttention(4, options))
    clicks = batch_of(SMALL_CLICKS)
    assert hold(module, lambda *own: (*own, clicks, literal.STRIDE), small_inputs(), fast=options != plain)


def test_gradients_of_first_click_guidance() -> None:
    module = random_weights(FirstClickGuidance(4, 2))
    _, features, mask = small_inputs()
    vectors = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(8)).double()
    clicks = batch_of(SMALL_CLICKS)
    assert hold(module, lambda *own: (*own, clicks), (features, vectors, mask))


@pytest.mark.parametrize(("augmented", "first"), [(True, True), (False, False)])
def test_gradients_of_click_vectors(augmented: bool, first: bool) -> None:
    module = random_weights(ClickVectors(4, augmented, first))
    _, features, _ = small_inputs()
    clicks = batch_of(SMALL_CLICKS)
    assert hold(module, lambda own: (own, clicks, literal.STRIDE), (features.permute(0, 3, 1, 2),))


@pytest.mark.parametrize("options", [DEFAULT, NETWORKS[1], NETWORKS[-1]], ids=network_name)
def test_gradients_of_a_damc_block(options: DisnetOptions) -> None:
    module = random_weights(DamcBlock(4, 2, options))
    clicks = batch_of(SMALL_CLICKS)
    assert hold(module, lambda *own: (*own, clicks), small_inputs())


# Clicks, maps and codes

few = settings(max_examples=30)
clicks_on_images = st.lists(
    st.builds(Click, st.integers(0, 500), st.integers(0, 500), st.booleans()), min_size=1, max_size=5
)
places = st.tuples(st.integers(0, 35), st.integers(0, 23), st.booleans())
"""In an input of 36 x 24 pixels."""


@few
@given(st.lists(clicks_on_images, min_size=1, max_size=4))
def test_click_batches(samples: list[list[Click]]) -> None:
    found = click_batch(samples, [(1.0, 1.0)] * len(samples))
    assert found.points.shape == (len(samples), max(map(len, samples)), 2)
    for row, clicks in enumerate(samples):
        own = without_padding(found, row)
        assert found.given[row].tolist() == [number < len(clicks) for number in range(found.given.shape[1])]
        assert own.given.all()
        assert [tuple(point) for point in own.points[0].tolist()] == [(c.x, c.y) for c in clicks]
        assert own.positive[0].tolist() == [c.positive for c in clicks]
        assert found.first.points[row, 0].tolist() == [clicks[0].x, clicks[0].y]
        for positive in (True, False):
            assert int(found.signed(positive)[row].sum()) == sum(c.positive == positive for c in clicks)


@few
@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.5, 3), st.floats(0.5, 3))
def test_scaled_clicks_stay_in_their_pixels(x: int, y: int, scale_x: float, scale_y: float) -> None:
    """A pixel of the image takes a rectangle of the input, whose border may be hit."""
    found = click_batch([[Click(x, y, True)]], [(scale_x, scale_y)]).points[0, 0].tolist()
    for place, number, scale in zip(found, (x, y), (scale_x, scale_y), strict=True):
        assert scale * number - 1e-3 <= place + 0.5 <= scale * (number + 1) + 1e-3


@few
@given(st.lists(places, min_size=1, max_size=4), st.booleans())
def test_disk_maps(clicks: list[AnyClick], positive: bool) -> None:
    found = disk_map(batch_of([clicks, [(0, 0, True)] * 5]), INPUT, positive)[0, 0]
    of_sign = [(x, y) for x, y, sign in clicks if sign == positive]
    expected = [
        [float(any((x - i) ** 2 + (y - j) ** 2 <= 25 for x, y in of_sign)) for i in range(INPUT[1])]
        for j in range(INPUT[0])
    ]
    assert found.tolist() == expected
    assert disk_map(batch_of([[(12, 12, True)]]), INPUT).sum() == 81


@few
@given(st.lists(places, min_size=1, max_size=4), st.booleans())
def test_decay_maps(clicks: list[AnyClick], positive: bool) -> None:
    radii = (15.0, 5.0)
    found = decay_map(batch_of([clicks, [(0, 0, True)] * 5]), positive, INPUT, radii)[0]
    of_sign = [
        (x, y, radii[0] if number == 0 else radii[1]) for number, (x, y, sign) in enumerate(clicks) if sign == positive
    ]
    assert found.min() >= 0
    assert found.max() <= 1
    for x, y, _ in of_sign:
        assert found[int(y), int(x)] == 1
    reached = [
        [any(math.hypot(x - i, y - j) < radius for x, y, radius in of_sign) for i in range(INPUT[1])]
        for j in range(INPUT[0])
    ]
    assert (found > 0).tolist() == reached
    fewer = decay_map(batch_of([clicks[:1]]), positive, INPUT, radii)[0]
    assert (found >= fewer).all()


@few
@given(st.floats(-0.5, 447.5), st.floats(-0.5, 447.5), st.sampled_from([4, 16, 32, 256]))
def test_position_codes(x: float, y: float, channels: int) -> None:
    place = torch.tensor([x, y], dtype=torch.float64)
    code, expected = position_code(place, channels, 448), literal.position_code(x, y, channels, 448)
    np.testing.assert_allclose(code.numpy(), expected, atol=1e-9)
    # 64 turns are 400 radians: in single precision the fifth decimal is lost.
    np.testing.assert_allclose(position_code(place.float(), channels, 448).numpy(), expected, atol=1e-4)
    sine_x, cosine_x, sine_y, cosine_y = code.chunk(4)
    torch.testing.assert_close(sine_x**2 + cosine_x**2, torch.ones_like(sine_x))
    torch.testing.assert_close(sine_y**2 + cosine_y**2, torch.ones_like(sine_y))
    moved = position_code(torch.tensor([x, y + 5], dtype=torch.float64), channels, 448)
    assert torch.equal(moved[: channels // 2], code[: channels // 2])
    assert not torch.equal(moved[channels // 2 :], code[channels // 2 :])


def test_position_codes_tell_neighbours_apart() -> None:
    points = torch.stack(torch.meshgrid(torch.arange(448.0), torch.tensor([7.0]), indexing="xy"), dim=-1)[0]
    codes = position_code(points, 32, 448)
    assert torch.pdist(codes).min() > 0.1


def test_cells_and_points_agree() -> None:
    """A point in the middle of a cell has the cell's numbers and the cell's features."""
    x, y = literal.center((2, 5))
    clicks = batch_of([[(x, y, True)]])
    assert on_grid(clicks, literal.STRIDE).points.tolist() == [[[5, 2]]]
    _, features, _ = drawn_inputs()
    found = sample_features(features[:1].permute(0, 3, 1, 2), clicks.points, literal.STRIDE)
    torch.testing.assert_close(found[0, 0], features[0, 2, 5])
