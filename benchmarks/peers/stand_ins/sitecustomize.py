"""Stand-ins for packages that peers import and that may not be had: put this folder on PYTHONPATH.

A package that is installed is used, and never completed; only one that cannot be found is stood in for. What a
prediction needs is written out (`torchvision`, the parts below); of the rest every name is a class that does nothing,
as `disbench/baselines/bridge/shims/sitecustomize.py` has it, which also names again what NumPy dropped.
"""

from __future__ import annotations

import importlib.util
import os
import types
from pathlib import Path

EMPTY = ("albumentations", "matplotlib", "mmcv", "timm", "pycocotools", "skimage", "tensorboard")
EMPTY += ("thop", "fast_slic", "IPython")
SHIMS = Path(__file__).resolve().parents[3] / "disbench/baselines/bridge/shims/sitecustomize.py"

os.environ["DISBENCH_EMPTY"] = ",".join(EMPTY)
_spec = importlib.util.spec_from_file_location("disbench_shims", SHIMS)
assert _spec is not None and _spec.loader is not None
_shims = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shims)


def _fill(finder: object, module: types.ModuleType) -> None:
    """Put in what a prediction needs."""
    import stand_in_parts  # noqa: PLC0415

    module.__dict__.update(stand_in_parts.PARTS.get(module.__name__, dict)())


_shims.EmptyFinder.exec_module = _fill
