"""Compatibility shims for older bridged systems on current packages (docs/bridge.md).

Python runs this file at startup if its folder is on PYTHONPATH. It restores names removed from NumPy and defaults
changed in torch, and provides empty modules for those in DISBENCH_EMPTY (comma-separated) that are not installed.
Needs Python 3.7 or later, but not disbench.
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
    """Can be instantiated, called, subclassed and used as a decorator; does nothing."""

    def __init__(self, *args: object, **options: object) -> None:
        self.arguments = args

    def __call__(self, *args: object, **options: object) -> object:
        """Return the first argument, as a decorator would."""
        return args[0] if args else self

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()


class EmptyModule(types.ModuleType):
    """A module in which every name is a class that does nothing."""

    __version__ = "999"  # passes any minimum-version check

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Nothing,), {"__module__": self.__name__})


class EmptyFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules in EMPTY and their submodules if no other finder does."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of an empty module, or None; submodules of installed packages are never added."""
        parent = sys.modules.get(name.rpartition(".")[0])
        if name in EMPTY or isinstance(parent, EmptyModule):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """An empty module."""
        return EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing."""


class AfterImport(importlib.abc.MetaPathFinder):
    """Patches `numpy` and `torch` after they are imported, without importing them itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec from the other finders, with a loader that calls our patch at the end."""
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
    """Restore names removed in NumPy 1.24 and 2.0."""
    names: dict[str, Any] = {"int": int, "float": float, "bool": bool, "object": object, "str": str, "complex": complex}
    known = vars(np)
    names.update(mat=known["asmatrix"], float_=known["float64"], Inf=known["inf"], NaN=known["nan"])
    for name in set(names) - set(known):
        setattr(np, name, names[name])


def complete_torch(torch: Any) -> None:
    """Restore defaults of older torch: `load` accepts pickled classes, `meshgrid` uses matrix ("ij") indexing."""
    for name, argument, value in (("load", "weights_only", False), ("meshgrid", "indexing", "ij")):
        function = getattr(torch, name, None)
        if function is not None and argument in inspect.signature(function).parameters:
            setattr(torch, name, partial(function, **{argument: value}))


COMPLETIONS = {"numpy": complete_numpy, "torch": complete_torch}
sys.meta_path.insert(0, AfterImport())
sys.meta_path.append(EmptyFinder())
