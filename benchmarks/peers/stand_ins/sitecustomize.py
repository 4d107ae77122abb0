"""Stand-ins for packages that peers import and that may not be had: put this folder on PYTHONPATH.

A package that is installed is used; only one that cannot be found is stood in for. What a prediction needs is
written out (`torchvision`, the parts below); what only training needs (`albumentations`, say) is an empty
package whose every name is a class that does nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types

import numpy as np

EMPTY = ("albumentations", "matplotlib", "mmcv", "timm", "pycocotools", "skimage", "thop", "fast_slic", "IPython")


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


class EmptyPackage(types.ModuleType):
    """A package in which every name is found."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Nothing,), {"__module__": self.__name__})


class EmptyFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages of `EMPTY`, and any module in them, where nothing else did."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        """The spec of an empty package, or None."""
        if name.partition(".")[0] not in EMPTY:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """An empty package, or our own words for one."""
        return EmptyPackage(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Fill in what a prediction needs."""
        import stand_in_parts  # noqa: PLC0415

        module.__dict__.update(stand_in_parts.PARTS.get(module.__name__, dict)())


sys.meta_path.append(EmptyFinder())
# Names that NumPy dropped and that code of its time still says.
for _name, _type in {"int": int, "float": float, "object": object, "bool": bool}.items():
    if _name not in vars(np):
        setattr(np, _name, _type)
