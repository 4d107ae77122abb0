"""DOS (DIOS): one mask from all clicks, trained on random clicks.

Xu, Price, Cohen, Yang, Huang, "Deep Interactive Object Selection", CVPR 2016, sections 3.1 and 3.2. It differs from
ITIS in its training (`later_clicks = "random"`, no corrective clicks). Simplified: random clicks are sampled as in
RITM, while the paper has three strategies for negative clicks. For the paper's graph cut see `dos_gc`.
"""

from __future__ import annotations

from disbench.disnet.designs.design import Design


class Dos(Design):
    """One mask from all clicks, trained on random clicks."""

    feedback = False
