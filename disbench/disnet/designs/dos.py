"""DOS (DIOS): one network from all clicks at once to one mask, trained on random clicks.

Xu, Price, Cohen, Yang, Huang, "Deep Interactive Object Selection", CVPR 2016, sections 3.1 and 3.2. What sets it
apart from ITIS is its training (`later_clicks = "random"`, no corrective ones). Simplified: random clicks are
RITM's, where the paper has three strategies for negative ones. The paper's graph cut: `dos_gc`.
"""

from __future__ import annotations

from disbench.disnet.designs.design import Design


class Dos(Design):
    """One network from all clicks at once to one mask, trained on random clicks."""

    feedback = False
