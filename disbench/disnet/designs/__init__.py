"""Designs from the literature on DISNet's encoder, decoder, data and clicks, one file per paper."""

from __future__ import annotations

from collections.abc import Mapping

from disbench.core.errors import InputError
from disbench.disnet.designs.design import Design
from disbench.disnet.designs.dos import Dos
from disbench.disnet.designs.fcanet import FcaNet
from disbench.disnet.designs.itis import Itis
from disbench.disnet.designs.ld import LatentDiversity
from disbench.disnet.designs.multiseg import MultiSeg
from disbench.disnet.designs.piclick import PiClick
from disbench.disnet.designs.ritm import Ritm
from disbench.disnet.designs.sam_style import SamStyle
from disbench.disnet.options import DesignName, NetworkSettings

DESIGNS: Mapping[DesignName, type[Design]] = {
    "dos": Dos,
    "itis": Itis,
    "ritm": Ritm,
    "sam-style": SamStyle,
    "ld": LatentDiversity,
    "multiseg": MultiSeg,
    "piclick": PiClick,
    "fcanet": FcaNet,
}


def build_design(settings: NetworkSettings, channels: int) -> Design | None:
    """Build the design named in the settings, if any; `channels` is the width of F^-1.

    Raises:
        InputError: the options do not match the design's number of stages or masks.
    """
    if not settings.design:
        return None
    kind, options = DESIGNS[settings.design], settings.options
    if options.first_click or kind.single != (options.outputs == 1):
        masks = "multiple_output = false" if kind.single else "multiple_output = true and two candidates or more"
        raise InputError(f"design = {settings.design!r} needs the options first_click = false, {masks}")
    return kind(channels)
