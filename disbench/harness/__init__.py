"""The evaluation loop, its workers, and stored runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from disbench.core.prediction import Prediction as Prediction
    from disbench.harness.archive import open_run as open_run
    from disbench.harness.archive import pack as pack
    from disbench.harness.evaluation import Results as Results
    from disbench.harness.evaluation import evaluate as evaluate
    from disbench.harness.protocol import Protocol as Protocol
    from disbench.harness.record import Execution as Execution
    from disbench.harness.run import run_benchmark as run_benchmark
    from disbench.harness.store import StoredRun as StoredRun
    from disbench.harness.store import read_run as read_run
    from disbench.harness.verification import verify_run as verify_run

_PUBLIC = {
    "open_run": "disbench.harness.archive",
    "pack": "disbench.harness.archive",
    "Results": "disbench.harness.evaluation",
    "evaluate": "disbench.harness.evaluation",
    "Protocol": "disbench.harness.protocol",
    "Execution": "disbench.harness.record",
    "run_benchmark": "disbench.harness.run",
    "StoredRun": "disbench.harness.store",
    "read_run": "disbench.harness.store",
    "verify_run": "disbench.harness.verification",
    "Prediction": "disbench.core.prediction",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
