"""DOS (DIOS): one network from all clicks at once to one mask, trained on random clicks.

Xu, Price, Cohen, Yang, Huang, "Deep Interactive Object Selection", CVPR 2016, sections 3.1 and 3.2. What sets it apart
from `itis` is in its training: clicks are drawn without regard to what the network answers (`later_clicks = "random"`,
no corrective ones). Simplified: random clicks are RITM's, where the paper has three strategies for negative ones; they
enter as clicks of the base network, not as maps of distances. The paper's graph cut: `dos_gc`.
"""

from __future__ import annotations

from disbench.disnet.designs.design import Design


class Dos(Design):
    """One mask for all clicks, without the last mask."""

    feedback = False
