"""What the code of its years needs from today's packages, for a bridged system's Python (docs/bridge.md).

Python runs this file at its start if its folder is on PYTHONPATH. It names again what NumPy and torch dropped, keeps
torch's former defaults, whose warnings would bury an error, and stands in for the modules in DISBENCH_EMPTY (names with
commas between) that cannot be found. Python 3.7 or later, without disbench.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Sequence
from functools import partial
from typing import Any

EMPTY = [name for name in os.environ.get("DISBENCH_EMPTY", "").split(",") if name]


class Nothing:
    """Can be made, called, subclassed and used as a decorator; does nothing."""

    def __init__(self, *args: object, **options: object) -> None:
        self.arguments = args

    def __call__(self, *args: object, **options: object) -> object:
        """What was handed in first, as a decorator would."""
        return args[0] if args else self

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()


class EmptyModule(types.ModuleType):
    """A module in which every name is a class that does nothing."""

    __version__ = "999"  # as new as anybody asks for

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Nothing,), {"__module__": self.__name__})


class EmptyFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of EMPTY, and any module below one that it found, where nothing else did."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of an empty module, or None: what is installed is never completed."""
        parent = sys.modules.get(name.rpartition(".")[0])
        if name in EMPTY or isinstance(parent, EmptyModule):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """An empty module."""
        return EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


class AfterImport(importlib.abc.MetaPathFinder):
    """Completes `numpy` and `torch` when they have been imported; nothing is imported for it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that the others find, whose loader calls our function at its end."""
        if name not in COMPLETIONS:
            return None
        complete = COMPLETIONS.pop(name)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_complete(module: types.ModuleType) -> None:
                run(module)
                complete(module)

            spec.loader.exec_module = run_and_complete  # type: ignore[method-assign]
        return spec


def complete_numpy(np: Any) -> None:
    """Names that NumPy 1.24 and 2.0 dropped."""
    names: dict[str, Any] = {"int": int, "float": float, "bool": bool, "object": object, "str": str, "complex": complex}
    known = vars(np)
    names.update(mat=known["asmatrix"], float_=known["float64"], Inf=known["inf"], NaN=known["nan"])
    for name in set(names) - set(known):
        setattr(np, name, names[name])


def complete_torch(torch: Any) -> None:
    """Its defaults before 2.6: checkpoints hold classes, and indices of meshgrid are those of matrices."""
    for name, argument, value in (("load", "weights_only", False), ("meshgrid", "indexing", "ij")):
        function = getattr(torch, name, None)
        if function is not None and argument in inspect.signature(function).parameters:
            setattr(torch, name, partial(function, **{argument: value}))


COMPLETIONS = {"numpy": complete_numpy, "torch": complete_torch}
sys.meta_path.insert(0, AfterImport())
sys.meta_path.append(EmptyFinder())
