"""RITM: iterative training, with the last mask among the inputs.

Sofiiuk, Petrov, Konushin, "Reviving Iterative Training with Mask Guidance for Interactive Segmentation", ICIP 2022,
sections 3.2 to 3.4. Simplified: clicks of training are those of all designs here, with a loss after each of them, not
after the last alone; the loss is that of DISNet's second stage (normalized focal, cross entropy, Dice), not the
normalized focal loss alone; no zoom-in, no averaging over flips.
"""

from __future__ import annotations

from disbench.disnet.designs.design import Design


class Ritm(Design):
    """One mask for all clicks and the last mask."""
