"""The complete DISNet: two stages, the frame of their input, and the conversion of images to inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from disbench.baselines.sam.mobilesam import SIDE, MobileSamEncoder
from disbench.baselines.weights import locate
from disbench.core.arrays import ByteArray
from disbench.core.errors import InputError, opencv
from disbench.core.prediction import RgbImage
from disbench.disnet.batches import ClickBatch, Frame, Kept, Proposals
from disbench.disnet.designs import build_design
from disbench.disnet.designs.design import Design
from disbench.disnet.options import DisnetOptions, NetworkSettings
from disbench.disnet.proposal_network import ProposalNetwork
from disbench.disnet.refinement_network import RefinementNetwork
from disbench.disnet.sam_networks import CHANNELS, SamProposalNetwork, SamRefinementNetwork
from disbench.disnet.sam_weights import sam_parts

NetworkInput = Callable[[RgbImage], npt.NDArray[Any]]
"""Converts an image, uint8 (height, width, 3), to the network's input."""


def stretched(image: RgbImage, side: int) -> ByteArray:
    """Resize an image to a square: uint8 (3, side, side), RGB."""
    cv2 = opencv()
    height, width = (min(own, side) for own in image.shape[:2])  # OpenCV cannot shrink one axis and enlarge the other
    smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    square = cv2.resize(smaller, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(square.transpose(2, 0, 1))


class Disnet(nn.Module):
    """The proposal network P and the refinement network R, which is None with `first_click` off.

    `design` is a design from the literature that replaces R. `fixed` names the parameters that are frozen in this
    training but trainable in general.
    """

    def __init__(
        self,
        proposal: nn.Module,
        refinement: nn.Module | None,
        frame: Frame,
        options: DisnetOptions,
        design: Design | None = None,
    ) -> None:
        super().__init__()
        self.proposal, self.refinement, self.design = proposal, refinement, design
        self.frame, self.options = frame, options
        self.fixed: tuple[str, ...] = ()

    def propose(self, inputs: Tensor, clicks: ClickBatch, previous: Tensor | None = None) -> Proposals:
        """Candidates (paper, eq. 2) for the first clicks; with `first_click` off, for all clicks and the previous mask.

        `inputs` are stacked results of `build_network_input`; `previous` are logits, float (batch, grid, grid).
        """
        if self.design is not None and not self.design.feedback:
            previous = None
        proposals: Proposals = self.proposal(inputs, clicks, previous)
        return proposals if self.design is None else self.design(proposals, clicks)

    def refine(self, kept: Kept, clicks: ClickBatch, last: Tensor | None = None) -> Tensor:
        """Logits of the corrected mask (paper, eq. 3): float (batch, grid, grid). Needs `first_click`.

        `last` are the logits of the last answer, of the same shape, used only with `later_mask` = "last".
        """
        assert self.refinement is not None
        current = kept.logits if last is None or self.options.later_mask == "kept" else last
        logits: Tensor = self.refinement(kept, clicks, current)
        return logits


def build_network(settings: NetworkSettings, pretrained: bool = True) -> Disnet:
    """Build a network, float32 on the CPU; random weights come from torch's generator.

    With `pretrained`, load the weights named in the settings; `InputError` if they are missing.
    """
    options = settings.options
    if settings.architecture == "vit":
        config = settings.vit if pretrained else replace(settings.vit, weights=None)
        second = RefinementNetwork(config.channels, options) if options.first_click else None
        frame, design = Frame("stretched", config.input_side), build_design(settings, config.channels)
        return _freeze_unused(Disnet(ProposalNetwork(config, options), second, frame, options, design))
    parts = sam_parts(locate("mobilesam", settings.weights)["sam.onnx"] if pretrained else None)
    last = SamRefinementNetwork(parts, options) if options.first_click else None
    frame, design = Frame("padded", SIDE), build_design(settings, CHANNELS)
    return _freeze_unused(Disnet(SamProposalNetwork(parts, options), last, frame, options, design))


def _freeze_unused(network: Disnet) -> Disnet:
    """Freeze parameters that the network's design never uses, which distributed training would reject."""
    design = network.design
    if design is not None:
        unused = {"objectness": design.single, "comparison": design.single, "prompts.mask_embed": not design.feedback}
        for name, parameter in network.proposal.named_parameters():
            if name.startswith(tuple(part for part, is_unused in unused.items() if is_unused)):
                parameter.requires_grad_(False)
    return network


def build_network_input(settings: NetworkSettings, cache: str = "") -> NetworkInput:
    """The function that converts images to a network's input; `cache` is a folder for a frozen encoder's features."""
    if settings.architecture == "vit":
        return partial(stretched, side=settings.vit.input_side)
    return MobileSamEncoder(settings.weights, cache)


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def train_only(network: Disnet, prefixes: Sequence[str]) -> None:
    """Freeze all parameters except those whose names start with one of the prefixes; without prefixes, none."""
    parameters = trained_parameters(network)
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in parameters):
            parts = sorted({".".join(name.split(".")[:2]) for name in parameters})
            raise InputError(f"trained: no parameter's name begins with {prefix!r}; they begin with {', '.join(parts)}")
    if prefixes:
        network.fixed = tuple(name for name in parameters if not name.startswith(tuple(prefixes)))
    for name in network.fixed:
        parameters[name].requires_grad_(False)
