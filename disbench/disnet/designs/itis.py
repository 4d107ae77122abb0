"""ITIS: clicks of training are placed where the network is wrong; it sees clicks alone.

Mahadevan, Voigtlaender, Leibe, "Iteratively Trained Interactive Segmentation", BMVC 2018, section 3. A mask is optional
among their inputs, to correct another system's; here there is none. Simplified: clicks enter as those of the base
network, not as Gaussians; an example gets all its clicks in one step, not one more in each epoch.
"""

from __future__ import annotations

from disbench.disnet.designs.design import Design


class Itis(Design):
    """One mask for all clicks, without the last mask."""

    feedback = False
