"""Classes of methods, by `package.module:Name` or `path/to/file.py:Name`, and their arguments as options."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from disbench.core.errors import InputError, told, unknown_name
from disbench.io.options import Option
from disbench.io.settings import Bounds


def load_class(entry: str, extra: str = "") -> Any:
    """The class (or function) of a method.

    Args:
        entry: `package.module:Name`, or `path/to/file.py:Name`.
        extra: the extra of disbench that an error names.

    Raises:
        InputError: it is missing, or its module or file cannot be imported.
    """
    module_name, _, class_name = entry.rpartition(":")
    by_file = module_name.endswith(".py")
    module = _load_file(Path(module_name)) if by_file else _load_module(module_name, entry, extra)
    if not hasattr(module, class_name):
        names = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise unknown_name("class", class_name, names, module_name)
    return getattr(module, class_name)


def argument_options(loaded: Any, name: str) -> dict[str, Option]:
    """The keyword arguments of a method's class as options, with the `Literal`, `Bounds` and `Option` of their types.

    Arguments whose default is not a plain value are left out. `name` is the method's, for errors.
    """
    try:
        parameters = inspect.signature(loaded).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {type(loaded).__name__} is not a class with a signature; name the method's class"
        ) from error
    hints, options = _hints(loaded), {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            raise InputError(f"{name}: its argument {parameter.name!r} has no default; give it one")
        if isinstance(parameter.default, bool | int | float | str):
            options[parameter.name] = _option(parameter.default, hints.get(parameter.name))
    return options


def _hints(loaded: Any) -> dict[str, Any]:
    try:
        return get_type_hints(loaded.__init__ if inspect.isclass(loaded) else loaded, include_extras=True)
    except Exception:  # a user's annotations may name what only a type checker imports
        return {}


def _option(default: Any, hint: Any) -> Option:
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    option = replace(next((note for note in notes if isinstance(note, Option)), Option()), default=default)
    if get_origin(hint) is Literal:
        option = replace(option, choices=get_args(hint))
    for note in notes:
        if isinstance(note, Bounds):
            low, high = (bound if math.isfinite(bound) else None for bound in (note.low, note.high))
            option = replace(option, minimum=low, maximum=high)
    return option


def _load_module(name: str, entry: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        fix = f'pip install "disbench[{extra}]"' if extra else "check its name and where it is installed"
        raise InputError(f"{entry}: cannot be imported ({error}); {fix}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{entry}: {told(error)}; fix the module and run again") from error


def _load_file(path: Path) -> ModuleType:
    """A user's file as a module, once a process; its neighbours can be imported."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give path/to/file.py:Name")
    name = f"disbench_user_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # It stays on the path: a neighbour may be imported as late as in a call.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        words = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise InputError(f"{path}{_line(error, path)}: {words}; fix the file and run again") from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """The line of a file that an error came from, for a message; "" if it was raised elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines and lines[-1] else ""
