"""ITIS: clicks of training are placed where the network is wrong; it sees clicks alone.

Mahadevan, Voigtlaender, Leibe, "Iteratively Trained Interactive Segmentation", BMVC 2018, section 3. Simplified: no
other system's mask among the inputs; an example gets all its clicks in one step, not one more in each epoch.
"""

from __future__ import annotations

from disbench.disnet.designs.design import Design


class Itis(Design):
    """Clicks of training are placed where the network is wrong; it sees clicks alone."""

    feedback = False
