"""The figures that a run's rows come to: what a packed run claims, and what verifying recomputes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from disbench.metrics import IoUs, noc, nof

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
    """

    samples: int
    clicks: int
    failed: int
    noc: Mapping[int, float]
    nof_ritm: Mapping[int, int]
    nof_strict: Mapping[int, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
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
        return [
            f"{self.samples:,} samples, {self.clicks:,} clicks, {self.failed:,} samples failed",
            ", ".join(f"NoC@{percent} {value:.2f}" for percent, value in self.noc.items()),
            ", ".join(
                f"NoF@{percent} ritm {value:,} strict {self.nof_strict[percent]:,}"
                for percent, value in self.nof_ritm.items()
            ),
        ]


def figures(ious: IoUs, clicks: int, failed: int, max_clicks: int, stop_at: float | None) -> Figures:
    """The figures of a run.

    Args:
        ious: one sequence a sample, as of `disbench.metrics.noc`; failed samples filled up with zeros.
        clicks: how many rows.
        failed: how many samples failed.
        max_clicks: clicks that a sample gets.
        stop_at: the IoU that ends samples, or None.

    Raises:
        ValueError: as `disbench.metrics.noc`.
    """
    reached = reached_percents(stop_at)
    return Figures(
        samples=len(ious),
        clicks=clicks,
        failed=failed,
        noc={percent: noc(ious, percent / 100, max_clicks) for percent in reached},
        nof_ritm={percent: nof(ious, percent / 100, max_clicks, "ritm") for percent in reached},
        nof_strict={percent: nof(ious, percent / 100, max_clicks, "strict") for percent in reached},
    )


def reached_percents(stop_at: float | None) -> list[int]:
    """Those of `PERCENTS` until which samples go on; compared as results are, as float32."""
    return [
        percent
        for percent in PERCENTS
        if stop_at is None or bool(np.float32(percent / 100) <= np.float32(stop_at))
    ]
