"""The figures that a run's rows come to: what a packed run claims, and what verifying recomputes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from disbench.core.metrics import IoUs, miou_curve, noc, nof

PERCENTS = (80, 85, 90, 95)
"""The IoUs to reach."""


@dataclass(frozen=True)
class Figures:
    """Numbers of one run.

    Attributes:
        samples: how many were run.
        clicks: how many rows.
        failed: samples on which the method failed; from that click on they count with an IoU of 0.
        noc: percent -> NoC; where samples end early, only up to the IoU that ends them.
        nof_ritm: percent -> NoF by the rule `ritm`, likewise.
        nof_strict: percent -> NoF by the rule `strict`, likewise.
        iou_at_budget: mean IoU of a run with a budget, which has neither NoC nor NoF; None for a loop of clicks.
    """

    samples: int
    clicks: int
    failed: int
    noc: Mapping[int, float]
    nof_ritm: Mapping[int, int]
    nof_strict: Mapping[int, int]
    iou_at_budget: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        own = {} if self.iou_at_budget is None else {"iou_at_budget": self.iou_at_budget}
        return {
            **own,
            "samples": self.samples,
            "clicks": self.clicks,
            "failed": self.failed,
            **{
                name: {str(percent): value for percent, value in getattr(self, name).items()}
                for name in ("noc", "nof_ritm", "nof_strict")
            },
        }

    def lines(self) -> list[str]:
        """For people to read."""
        if self.iou_at_budget is not None:
            return [
                f"{self.samples:,} samples, {self.failed:,} samples failed",
                f"mean IoU at the budget {self.iou_at_budget:.3f}",
            ]
        return [
            f"{self.samples:,} samples, {self.clicks:,} clicks, {self.failed:,} samples failed",
            ", ".join(f"NoC@{percent} {value:.2f}" for percent, value in self.noc.items()),
            ", ".join(
                f"NoF@{percent} ritm {value:,} strict {self.nof_strict[percent]:,}"
                for percent, value in self.nof_ritm.items()
            ),
        ]


def figures(ious: IoUs, clicks: int, failed: int, max_clicks: int, stop_at: float | None, budget: str = "") -> Figures:
    """The figures of a run.

    Args:
        ious: one sequence a sample, as of `disbench.core.metrics.noc`; failed samples filled up with zeros.
        clicks: how many rows.
        failed: how many samples failed.
        max_clicks: clicks that a sample gets.
        stop_at: the IoU that ends samples, or None.
        budget: of the protocol.

    Raises:
        ValueError: as `disbench.core.metrics.noc`.
    """
    reached = reached_percents(stop_at, budget)
    return Figures(
        samples=len(ious),
        clicks=clicks,
        failed=failed,
        noc={percent: noc(ious, percent / 100, max_clicks) for percent in reached},
        nof_ritm={percent: nof(ious, percent / 100, max_clicks, "ritm") for percent in reached},
        nof_strict={percent: nof(ious, percent / 100, max_clicks, "strict") for percent in reached},
        iou_at_budget=float(miou_curve(ious, max_clicks)[0]) if budget else None,
    )


def reached_percents(stop_at: float | None, budget: str = "") -> list[int]:
    """Those of `PERCENTS` until which samples go on; compared as results are, as float32. With a budget none."""
    return [
        percent
        for percent in ([] if budget else PERCENTS)
        if stop_at is None or bool(np.float32(percent / 100) <= np.float32(stop_at))
    ]
