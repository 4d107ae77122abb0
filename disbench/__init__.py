"""disbench: datasets of diverse ground truth, and one exact benchmark, for click-based segmentation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from disbench.core.clicks import Click as Click
    from disbench.core.clicks import next_click as next_click
    from disbench.core.metrics import iou as iou
    from disbench.core.metrics import miou_curve as miou_curve
    from disbench.core.metrics import noc as noc
    from disbench.core.metrics import nof as nof
    from disbench.core.prediction import Prediction as Prediction

__version__ = "0.1.0"

_PUBLIC = {
    "Click": "disbench.core.clicks",
    "next_click": "disbench.core.clicks",
    "iou": "disbench.core.metrics",
    "noc": "disbench.core.metrics",
    "nof": "disbench.core.metrics",
    "miou_curve": "disbench.core.metrics",
    "Prediction": "disbench.core.prediction",
}


def __getattr__(name: str) -> Any:
    """Load a public name where it is first used: `import disbench` alone stays light."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
