"""DISNet whole: two stages, the frame of their input, and what they take of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from disbench.baselines.sam.mobilesam import MobileSamEncoder
from disbench.baselines.weights import locate
from disbench.core.arrays import ByteArray, Float32Array
from disbench.core.errors import InputError
from disbench.core.opencv import opencv
from disbench.core.prediction import RgbImage
from disbench.disnet.batches import ClickBatch, Kept, Proposals
from disbench.disnet.frames import Frame
from disbench.disnet.options import DisnetOptions, ViTConfig
from disbench.disnet.proposal_network import ProposalNetwork
from disbench.disnet.refinement_network import RefinementNetwork
from disbench.disnet.sam_networks import SamProposalNetwork, SamRefinementNetwork
from disbench.disnet.sam_weights import sam_parts


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How a DISNet is built: the table `network` of a training's file.

    Attributes:
        architecture: "vit": the paper's, on a plain ViT; "sam": the small one, on the features of a frozen SAM
            encoder.
        vit: sizes and weights of the ViT.
        weights: folder of the SAM's ONNX files; "" is where `disbench methods fetch mobilesam` puts them.
        options: the paper's switches and the readings.
    """

    architecture: Literal["vit", "sam"] = "vit"
    vit: ViTConfig = field(default_factory=ViTConfig)
    weights: str = ""
    options: DisnetOptions = field(default_factory=DisnetOptions)


class EncodedInput:
    """A frozen encoder's features as the network's input; they may be kept in a folder.

    Args:
        settings: of the network.
        cache: folder of the features of images, "" keeps none.
    """

    def __init__(self, settings: NetworkSettings, cache: str = "") -> None:
        self._encoder = MobileSamEncoder(settings.weights, cache)

    def __call__(self, image: RgbImage) -> Float32Array:
        """Features, float32 (256, 64, 64), of an image, uint8 (height, width, 3)."""
        encoding: Float32Array = self._encoder(image)[0]
        return encoding


class ImageInput:
    """An image in its frame as the network's input.

    Args:
        side: of the frame, pixels.
    """

    def __init__(self, side: int) -> None:
        self._side = side

    def __call__(self, image: RgbImage) -> ByteArray:
        """The image, uint8 (height, width, 3), stretched to the frame: uint8 (3, side, side), RGB."""
        cv2, side = opencv(), self._side
        height, width = (min(own, side) for own in image.shape[:2])  # OpenCV cannot shrink one axis and widen the other
        smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        square = cv2.resize(smaller, (side, side), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(square.transpose(2, 0, 1))


class Disnet(nn.Module):
    """Both stages.

    Attributes:
        proposal: the proposal network P.
        refinement: the refinement network R, or None with `first_click` off: there is one stage then.
        frame: how an image lies in the input.
        options: the switches and readings.
        fixed: names of parameters that could be trained, but stay as they are in this training.

    Args:
        proposal: stage 1.
        refinement: stage 2, or None.
        frame: of the input.
        options: of both.
    """

    def __init__(self, proposal: nn.Module, refinement: nn.Module | None, frame: Frame, options: DisnetOptions) -> None:
        super().__init__()
        self.proposal, self.refinement = proposal, refinement
        self.frame, self.options = frame, options
        self.fixed: tuple[str, ...] = ()

    def propose(self, inputs: Tensor, clicks: ClickBatch, previous: Tensor | None = None) -> Proposals:
        """Candidates (paper, eq. 2): for the first clicks, or with `first_click` off for all and the mask before."""
        proposals: Proposals = self.proposal(inputs, clicks, previous)
        return proposals

    def refine(self, kept: Kept, clicks: ClickBatch) -> Tensor:
        """Logits of the corrected mask (paper, eq. 3): float (batch, grid, grid).

        Raises:
            ValueError: `first_click` is off, so that there is no second stage.
        """
        if self.refinement is None:
            raise ValueError("with first_click off there is no refinement network")
        logits: Tensor = self.refinement(kept, clicks)
        return logits


def build_network(settings: NetworkSettings, pretrained: bool = True) -> Disnet:
    """The network of some settings, in float32 on the CPU; what is random comes from torch's generator.

    Args:
        settings: what to build.
        pretrained: start from the weights that the settings name; False where a checkpoint follows.

    Raises:
        InputError: weights are missing.
    """
    options = settings.options
    if settings.architecture == "vit":
        config = settings.vit if pretrained else replace(settings.vit, weights=None)
        second = RefinementNetwork(config.channels, options) if options.first_click else None
        return Disnet(ProposalNetwork(config, options), second, Frame("stretched", config.input_side), options)
    parts = sam_parts(locate("mobilesam", settings.weights)["sam.onnx"] if pretrained else None)
    refinement = SamRefinementNetwork(parts, options) if options.first_click else None
    return Disnet(SamProposalNetwork(parts, options), refinement, Frame("padded", 1024), options)


def input_of(settings: NetworkSettings, cache: str = "") -> EncodedInput | ImageInput:
    """What makes the network's input of an image.

    Args:
        settings: of the network.
        cache: folder that keeps a frozen encoder's features; of no effect where there is none.

    Raises:
        InputError: a frozen encoder's weights are missing.
    """
    if settings.architecture == "vit":
        return ImageInput(settings.vit.input_side)
    return EncodedInput(settings, cache)


def trained_parameters(network: nn.Module) -> dict[str, Any]:
    """The parameters that training changes, by name."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def train_only(network: Disnet, beginnings: Sequence[str]) -> None:
    """Fix every parameter whose name has none of these beginnings; none given: fix nothing.

    Raises:
        InputError: a beginning that no trained parameter has.
    """
    names = trained_parameters(network)
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            parts = sorted({".".join(name.split(".")[:2]) for name in names})
            raise InputError(
                f"trained: no parameter's name begins with {beginning!r}; they begin with {', '.join(parts)}"
            )
    if beginnings:
        network.fixed = tuple(name for name in names if not name.startswith(tuple(beginnings)))
    for name in network.fixed:
        names[name].requires_grad_(False)
