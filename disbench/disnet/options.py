"""DISNet's settings: switches of the paper's ablations, interpretations of its text, and network sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from disbench.core.errors import InputError
from disbench.io.settings import Bounds

Modulation = Literal["product", "one-plus", "additive"]
DesignName = Literal["", "dos", "itis", "ritm", "sam-style", "ld", "multiseg", "piclick", "fcanet"]
Radius = Annotated[float, Bounds(0.01, 8192)]
Layers = Annotated[int, Bounds(1, 128)]
"""The bounds are far beyond any trained network; they keep an untrusted checkpoint from exhausting memory."""


@dataclass(frozen=True, slots=True)
class ClickAttentionOptions:
    """Interpretations of masked click attention (paper, eq. 5 to 8).

    Attributes:
        first_click_radius: r_0 of the first click, pixels of a 448-pixel input (Table 3).
        other_click_radius: r_0 of the other clicks.
        radius_unit: "input": pixels of a 448-pixel input, scaled with the input; "feature": cells of F^-1.
        modulation: how the decay map G enters: "product", as printed (QK' * G); "one-plus" (QK' * (1 + G));
            "additive" (QK' + beta * G with a learned beta, initially 4).
        clicks_in_mask: use max(M_s, G_p) for M_s and max(1 - M_s, G_n) for 1 - M_s, so that corrective clicks are
            not masked out.
        separate_values: separate value projections in eq. 7 and 8 instead of a shared one.
        gate_unclicked: skip eq. 8 (eq. 7) for samples without a negative (positive) click.
    """

    first_click_radius: Radius = 15.0
    other_click_radius: Radius = 5.0
    radius_unit: Literal["input", "feature"] = "input"
    modulation: Modulation = "product"
    clicks_in_mask: bool = False
    separate_values: bool = False
    gate_unclicked: bool = False


@dataclass(frozen=True, slots=True)
class GuidanceOptions:
    """Interpretations of first-click guidance (paper, eq. 9 to 13), the switches of Table 2.

    Attributes:
        click_augmented_feature: AC: add the click code to F^-1 at the clicks, as in eq. 9.
        conv_ffn: the depth-wise ConvFFN.
        first_vector: add a learned vector to the first click's code.
    """

    click_augmented_feature: bool = True
    conv_ffn: bool = True
    first_vector: bool = False


@dataclass(frozen=True, slots=True)
class DisnetOptions:
    """All of DISNet's options.

    Attributes:
        first_click: a separate stage for the first click (FC of Table 5). Off, there is one stage: at every click the
            proposal network sees all clicks and the previous mask.
        multiple_output: N = `candidates` masks (MO of Table 5); off, one.
        mca: masked click attention; off, plain attention from the token to the features.
        fcg: first-click guidance; off, plain attention from the features to the click vectors.
        blocks: number of DAMC blocks.
        refine_first: return refined masks at the first click instead of the candidates.
        later_mask: the mask that stage 2 corrects: "kept", always M_s, as printed, or "last", its own last answer. On a
            plain ViT the last answer replaces M_s; on SAM's decoder it is the mask prompt, and DAMC blocks see M_s.
        suppression: multiplies the object probability of a candidate that overlaps a better one by 1 - suppression *
            IoU (linear Soft-NMS, Bodla et al. 2017); 0 disables it. Not used in training.
    """

    first_click: bool = True
    multiple_output: bool = True
    candidates: Annotated[int, Bounds(1, 1024)] = 7
    mca: bool = True
    fcg: bool = True
    blocks: Annotated[int, Bounds(0, 128)] = 2
    attention: ClickAttentionOptions = field(default_factory=ClickAttentionOptions)
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    refine_first: bool = False
    later_mask: Literal["kept", "last"] = "kept"
    suppression: Annotated[float, Bounds(0, 1)] = 0.0

    @property
    def outputs(self) -> int:
        """Number of candidates from the proposal network."""
        return self.candidates if self.multiple_output else 1


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """Sizes of the proposal network on a plain ViT; the defaults are the paper's ViT-B (section 3.2).

    Attributes:
        input_side: side of the square input, pixels, a multiple of 32.
        hidden: width of the encoder, a multiple of 4 and of `heads` (the paper prints 784; ViT-B has 768).
        layers: blocks of the encoder, of `heads` attention heads.
        window: side of an attention window, patches of 16 pixels; 14 divides the 28 x 28 patches of a 448-pixel input.
        global_blocks: indices of the blocks that attend to the whole input.
        channels: d, the width of F^-1 and of the object queries, a multiple of 32.
        pixel_layers: layers of deformable attention in the pixel decoder; `decoder_layers` are the mask decoder's.
        weights: MAE weights to start from: a Hugging Face name (at `revision`) whose files are cached, or a folder with
            `config.json` and `model.safetensors`; None for random weights.
        drop_path: probability that a training sample skips the last block, decreasing to 0 for the first block.
    """

    input_side: Annotated[int, Bounds(32, 8192)] = 448
    hidden: Annotated[int, Bounds(4, 8192)] = 768
    layers: Layers = 12
    heads: Annotated[int, Bounds(1, 512)] = 12
    window: Annotated[int, Bounds(1, 512)] = 14
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    channels: Annotated[int, Bounds(32, 4096)] = 256
    pixel_layers: Layers = 6
    decoder_layers: Layers = 3
    weights: str | None = None
    revision: str = "main"
    drop_path: Annotated[float, Bounds(0, 0.99)] = 0.0

    def __post_init__(self) -> None:
        for name, unit in (("input_side", 32), ("channels", 32), ("hidden", 4), ("hidden", self.heads)):
            if getattr(self, name) % unit:
                raise InputError(f"ViT: {name} = {getattr(self, name)} is not a multiple of {unit}")
        if not set(self.global_blocks) <= set(range(self.layers)):
            raise InputError(f"ViT: global_blocks = {self.global_blocks}; blocks are numbered 0 to {self.layers - 1}")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Architecture of a DISNet: the table `network` of a training file.

    Attributes:
        architecture: "vit": the paper's, on a plain ViT; "sam": the small one, on features of a frozen SAM encoder.
        vit: sizes and weights of the ViT.
        weights: folder of SAM's ONNX files; "" for the folder of `disbench methods fetch mobilesam`.
        design: a design from the literature (`disnet/designs/`) instead of DISNet, using only the proposal network.
    """

    architecture: Literal["vit", "sam"] = "vit"
    vit: ViTConfig = field(default_factory=ViTConfig)
    weights: str = ""
    options: DisnetOptions = field(default_factory=DisnetOptions)
    design: DesignName = ""
