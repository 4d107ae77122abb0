"""ITIS: training clicks are placed on the network's errors; the network sees only clicks.

Mahadevan, Voigtlaender, Leibe, "Iteratively Trained Interactive Segmentation", BMVC 2018, section 3. Simplified: no
mask from another system as input; an example gets all its clicks in one step, not one more per epoch.
"""

from __future__ import annotations

from disbench.disnet.designs.design import Design


class Itis(Design):
    """One mask from clicks only, trained on clicks on the network's errors."""

    feedback = False
