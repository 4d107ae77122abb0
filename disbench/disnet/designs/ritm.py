"""RITM: iterative training, with the last mask as an input.

Sofiiuk, Petrov, Konushin, "Reviving Iterative Training with Mask Guidance for Interactive Segmentation", ICIP 2022,
sections 3.2 to 3.4. Simplified: a loss after each click, not only after the last; no zoom-in, no flip averaging.
"""

from __future__ import annotations

from disbench.disnet.designs.design import Design


class Ritm(Design):
    """Iterative training, with the last mask as an input."""
