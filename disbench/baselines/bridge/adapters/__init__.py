"""Adapters of published methods: each makes a model of a peer's own code (docs/bridge.md), by the name that cards use.

They run in the peer's Python (3.7 or later, with NumPy), and import nothing of disbench. `child.py` loads the folder as
a package of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODULES = ("isegm", "sam", "points", "focuscut", "interformer")
"""Each has `LOADERS`: name -> load(repo, checkpoint, options, device), the `load` of a user's own adapter."""


def loaders() -> dict[str, Callable[..., Any]]:
    """All adapters by name."""
    found: dict[str, Callable[..., Any]] = {}
    for module in MODULES:
        found.update(importlib.import_module("." + module, __name__).LOADERS)
    return found


def enter(repo: str, package: str = "isegm") -> Callable[[str], Any]:
    """Put a checkout first on the path, and return a function that imports a module by its full name.

    Raises:
        ImportError: the package is not in the checkout.
    """
    folder = Path(repo).resolve()
    sys.path.insert(0, str(folder))
    # These checkpoints hold the classes of their options; newer torch would refuse to read them.
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"{repo} holds no {package}; name the folder of the peer's checkout")
    places = [Path(place).resolve() for place in spec.submodule_search_locations or [spec.origin or ""]]
    if not any(folder in place.parents for place in places):
        raise ImportError(f"{repo} holds no {package}; one was found in {places[0]}")
    return importlib.import_module


class Model:
    """The model of an adapter: each image gets a session, made with the same parts."""

    def __init__(self, session: Callable[..., Any], *parts: Any) -> None:
        self.session, self.parts = session, parts

    def open(self, image: Any) -> Any:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return self.session(*self.parts, image)
