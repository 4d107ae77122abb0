"""The options of DISNet: the switches of the paper's ablations, one for each reading of it, the ViT's sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from disbench.core.errors import InputError

Modulation = Literal["product", "one-plus", "additive"]

MOST_CANDIDATES, MOST_LAYERS = 1024, 128
_MOST = {
    **{"input_side": 8192, "hidden": 8192, "layers": MOST_LAYERS, "heads": 512, "window": 512},
    **{"channels": 4096, "pixel_layers": MOST_LAYERS, "decoder_layers": MOST_LAYERS},
}
"""Sizes beyond any network that is trained: a file of settings cannot ask for all memory."""


@dataclass(frozen=True, slots=True)
class ClickAttentionOptions:
    """Readings of masked click attention (paper, eq. 5 to 8).

    Attributes:
        first_click_radius: r_0 of the first click, pixels of a 448 input (Table 3).
        other_click_radius: r_0 of the other clicks.
        radius_unit: "input": a radius is in pixels of a 448 input and grows with the input; "feature": in cells
            of F^-1.
        modulation: how the decay map G enters: "product", as printed (QK' * G); "one-plus" (QK' * (1 + G));
            "additive" (QK' + beta * G with a learned beta, at first 4).
        mask_floor: smallest value of M_s, and of 1 - M_s, in the logarithm.
        clicks_in_mask: take max(M_s, G_p) for M_s, and max(1 - M_s, G_n) for 1 - M_s: the clicks that correct it
            are then not masked out.
        separate_values: one value projection for each of eq. 7 and 8, not one for both.
        gate_unclicked: leave eq. 8 (eq. 7) out where no negative (positive) click is given.

    Raises:
        InputError: a radius or a floor out of its range.
    """

    first_click_radius: float = 15.0
    other_click_radius: float = 5.0
    radius_unit: Literal["input", "feature"] = "input"
    modulation: Modulation = "product"
    mask_floor: float = 1e-6
    clicks_in_mask: bool = False
    separate_values: bool = False
    gate_unclicked: bool = False

    def __post_init__(self) -> None:
        for name in ("first_click_radius", "other_click_radius"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} = {getattr(self, name)}; a radius is above 0")
        if not 0 < self.mask_floor < 1:
            raise InputError(f"mask_floor = {self.mask_floor}; it lies above 0 and below 1")


@dataclass(frozen=True, slots=True)
class GuidanceOptions:
    """Readings of first-click guidance (paper, eq. 9 to 13).

    Attributes:
        click_augmented_feature: the click vectors of eq. 9; off, F^-1 at the clicks without the click code
            (Table 2).
        conv_ffn: the depth-wise ConvFFN after it (Table 2).
        first_vector: add a learned vector to the first click's code.
    """

    click_augmented_feature: bool = True
    conv_ffn: bool = True
    first_vector: bool = False


@dataclass(frozen=True, slots=True)
class DisnetOptions:
    """All of DISNet's options.

    Attributes:
        first_click: the first click's own stage (FC of Table 5). Off, there is one stage: at every click the
            proposal network sees all clicks and the mask that was kept before, and the answer is its own.
        multiple_output: N candidates (MO of Table 5); off, one.
        candidates: N.
        mca: masked click attention; off, plain attention of the token to the features.
        fcg: first-click guidance; off, plain attention of the features to the clicks' vectors.
        blocks: how many DAMC blocks.
        attention: of masked click attention.
        guidance: of first-click guidance.
        refine_first: at the first click the answer is the refined mask, not the candidate itself.

    Raises:
        InputError: no candidates, or a negative number of blocks.
    """

    first_click: bool = True
    multiple_output: bool = True
    candidates: int = 7
    mca: bool = True
    fcg: bool = True
    blocks: int = 2
    attention: ClickAttentionOptions = field(default_factory=ClickAttentionOptions)
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    refine_first: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= MOST_CANDIDATES or not 0 <= self.blocks <= MOST_LAYERS:
            raise InputError(
                f"candidates = {self.candidates}, blocks = {self.blocks}; they start at 1 and at 0, and end at "
                f"{MOST_CANDIDATES} and at {MOST_LAYERS}"
            )

    @property
    def outputs(self) -> int:
        """How many candidates the proposal network offers."""
        return self.candidates if self.multiple_output else 1


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """Sizes of the proposal network on a plain ViT; the defaults are the paper's ViT-B (section 3.2).

    Attributes:
        input_side: of the square input, pixels, a multiple of 32.
        hidden: width of the encoder, a multiple of 4 and of `heads` (the paper prints 784; ViT-B has 768).
        layers: blocks of the encoder.
        heads: of its attention.
        patch: side of a patch, pixels: 16, from which the pyramid's strides 4, 8, 16 and 32 follow.
        window: side of an attention window, patches; 14 divides the 28 x 28 patches of a 448 input.
        global_blocks: the blocks, from 0, that attend to the whole input.
        channels: d, of F^-1 and of the object queries, a multiple of 32.
        pixel_layers: layers of deformable attention in the pixel decoder.
        decoder_layers: of the mask decoder.
        weights: MAE weights to begin with: a name on Hugging Face whose files are here already
            ("facebook/vit-mae-base"), or a folder with `config.json` and `model.safetensors`; None: random ones.
        revision: of the name: branch, tag or commit.
        drop_path: how often a training sample skips the last block; for earlier blocks less, none the first.

    Raises:
        InputError: sizes that do not go together.
    """

    input_side: int = 448
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 16
    window: int = 14
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    channels: int = 256
    pixel_layers: int = 6
    decoder_layers: int = 3
    weights: str | None = None
    revision: str = "main"
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"ViT: {name} = {getattr(self, name)}; it starts at 1 and ends at {most}")
        for name, unit in (("input_side", 32), ("channels", 32), ("hidden", 4), ("hidden", self.heads)):
            if getattr(self, name) % unit:
                raise InputError(f"ViT: {name} = {getattr(self, name)}; make it a multiple of {unit}")
        if self.patch != 16:
            raise InputError(f"ViT: patch = {self.patch}; the pyramid's strides need patches of 16 pixels")
        if not set(self.global_blocks) <= set(range(self.layers)):
            raise InputError(f"ViT: global_blocks = {self.global_blocks}; blocks go from 0 to {self.layers - 1}")
        if not 0 <= self.drop_path < 1:
            raise InputError(f"ViT: drop_path = {self.drop_path}; it is at least 0 and below 1")
