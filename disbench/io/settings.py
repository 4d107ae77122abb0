"""Read TOML and JSON tables into dataclasses, checking every value against its field's type and range."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from disbench.core.errors import InputError, quote, unknown_name
from disbench.core.limits import MAX_COUNT, MAX_NESTING

Settings = TypeVar("Settings")
Unknown = Literal["refuse", "skip"]
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Range of a number or of a list's items, both ends included: `Annotated[int, Bounds(1, 20)]`."""

    low: float = -math.inf
    high: float = math.inf

    def check(self, key: str, value: Any, where: str) -> None:
        """Raise `InputError` if a number, or a number in a list, is out of range."""
        for item in value if isinstance(value, tuple) else (value,):
            if item is None or self.low <= item <= self.high:
                continue
            too = f"large; it ends at {self.high:,}" if item > self.high else f"small; it starts at {self.low:,}"
            raise InputError(f"{where}: {key} = {quote(item)} is too {too}")


Count = Annotated[int, Bounds(0, MAX_COUNT)]
Number = Annotated[float, Bounds(-MAX_COUNT, MAX_COUNT)]


def parse_json(content: bytes | str) -> Any:
    """Parse JSON; bytes are decoded as UTF-8. Memory use is a small multiple of the size of `content`.

    ValueError if it is not UTF-8, not JSON, a number of thousands of digits, or nested deeper than `MAX_NESTING`.
    """
    return _parsed(json.loads, content)


def parse_json_table(content: bytes | str) -> dict[str, Any]:
    """Parse a JSON object; ValueError as for `parse_json`, or for any other JSON value."""
    found = parse_json(content)
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, found a {type(found).__name__}")
    return found


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse TOML; ValueError as for `parse_json`."""
    found: dict[str, Any] = _parsed(tomllib.loads, content)
    return found


def _parsed(parse: Callable[[str], Any], content: bytes | str) -> Any:
    with contextlib.suppress(RecursionError):
        value = parse(content if isinstance(content, str) else content.decode("utf-8"))
        level = [value] if isinstance(value, dict | list) else []  # level by level, without recursion
        for _ in range(MAX_NESTING + 2):
            if not level:
                return value
            items = (item for part in level for item in (part.values() if isinstance(part, dict) else part))
            level = [item for item in items if isinstance(item, dict | list)]
    raise ValueError(f"it is nested more than {MAX_NESTING} deep")


def settings_from(
    cls: type[Settings], content: Mapping[str, Any], where: str, *, unknown: Unknown = "refuse"
) -> Settings:
    """Build a dataclass from a table; `InputError` for an unknown or missing key, or a value of the wrong type.

    A field's type may be plain, `Any`, a literal, another dataclass, a tuple or mapping (with string keys) of these, a
    union of plain types (`int | str`) or optional; `Annotated` with `Bounds` gives a range. A dataclass checks
    conditions between fields in its `__post_init__` and raises `InputError` without the place.

    Args:
        cls: a dataclass.
        content: field name -> value. A list may be empty only if its field's default is.
        where: prefix of error messages, starting with the file.
        unknown: `skip` ignores unknown keys, for records that a later version may have written.
    """
    hints, required, may_be_empty = _fields_of(cls)  # type: ignore[arg-type]
    for key in content:
        if key not in hints and unknown == "refuse":
            raise unknown_name("key", key, hints, where)
    for key in required:
        if key not in content:
            raise InputError(f"{where}: the key {key!r} is missing; add it")
    values = {
        key: () if key in may_be_empty and value in ([], ()) else convert(key, value, hints[key], where, unknown)
        for key, value in content.items()
        if key in hints
    }
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def table_from(record: Any) -> dict[str, Any]:
    """Inverse of `settings_from`: a record as a JSON-ready table, without fields that have their default value."""
    table = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value != default:
            table[field.name] = _to_plain(value)
    return table


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return table_from(value)
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    return [_to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def check_fields(record: Any) -> None:
    """Check a dataclass built in Python against its fields' types and ranges; raises `InputError`."""
    hints, _, _ = _fields_of(type(record))  # type: ignore[arg-type]
    for key, hint in hints.items():
        convert(key, getattr(record, key), hint, type(record).__name__)


@cache
def _fields_of(cls: type) -> tuple[dict[str, Any], list[str], set[str]]:
    """Type hints of a dataclass's fields, the required ones, and the lists that may be empty."""
    fields = dataclasses.fields(cls)
    required = [field.name for field in fields if field.default is MISSING and field.default_factory is MISSING]
    return get_type_hints(cls, include_extras=True), required, {field.name for field in fields if field.default == ()}


def convert(key: str, value: Any, hint: Any, where: str, unknown: Unknown = "refuse") -> Any:
    """Return the value converted to the type of `hint`; `InputError` if it does not match."""
    if hint is Any:
        return value
    if get_origin(hint) in _READERS:
        return _READERS[get_origin(hint)](key, value, get_args(hint), where, unknown)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        content = _mapping(key, value, where)
        return settings_from(hint, content, f"{where}: {key}", unknown=unknown)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InputError(f"{where}: {key} is larger than any number; make it smaller") from None
    is_wrong = isinstance(value, float) and not math.isfinite(value)  # nan would pass any bounds check
    if is_wrong or not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{where}: {key} must be {_KINDS[hint]}, not {quote(value)}")
    return value


def _mapping(key: str, value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {key} must be a table, not {quote(value)}")
    return value


def _bounded(key: str, value: Any, notes: Sequence[Any], where: str, unknown: Unknown) -> Any:
    found = convert(key, value, notes[0], where, unknown)
    for note in notes[1:]:
        note.check(key, found, where)
    return found


def _one_of(key: str, value: Any, hints: Sequence[Any], where: str, unknown: Unknown) -> Any:
    """A value of an optional field, or of a union, where the first matching type is used."""
    if value is None and type(None) in hints:  # from JSON; TOML has no null
        return None
    kinds = [hint for hint in hints if hint is not type(None)]
    for hint in kinds[:-1]:
        with contextlib.suppress(InputError):
            return convert(key, value, hint, where, unknown)
    try:
        return convert(key, value, kinds[-1], where, unknown)
    except InputError:
        if len(kinds) == 1:
            raise
        names = " or ".join(_KINDS.get(hint, "a list") for hint in kinds)
        raise InputError(f"{where}: {key} must be {names}, not {quote(value)}") from None


def _literal(key: str, value: Any, choices: Sequence[Any], where: str, unknown: Unknown) -> Any:
    if value not in choices:
        raise unknown_name(f"value of {key}", str(value), map(str, choices), where)
    return value


def _list(key: str, value: Any, hints: Sequence[Any], where: str, unknown: Unknown) -> Any:
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{where}: {key} must be a non-empty list, not {quote(value)}")
    names = [f"{key}[{place}]" if dataclasses.is_dataclass(hints[0]) else key for place in range(len(value))]
    return tuple(convert(name, item, hints[0], where, unknown) for name, item in zip(names, value, strict=True))


def _table(key: str, value: Any, hints: Sequence[Any], where: str, unknown: Unknown) -> Any:
    content = _mapping(key, value, where)
    return {name: convert(f"{key}.{name}", item, hints[1], where, unknown) for name, item in content.items()}


_READERS: Mapping[Any, Callable[..., Any]] = {
    Annotated: _bounded,
    **dict.fromkeys((Union, types.UnionType), _one_of),
    Literal: _literal,
    tuple: _list,
    **dict.fromkeys((Mapping, dict), _table),
}


def with_overrides(content: Mapping[str, Any], overrides: Iterable[str], cls: type) -> dict[str, Any]:
    """A copy of `content`, a table for `cls`, with command-line overrides `option=value` or `table.option=value`."""
    result: dict[str, Any] = dict(content)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"--set {override}: write it as option=value")
        *tables, key = (part.strip() for part in path.split("."))
        place, kind = result, cls
        for table in tables:
            kind = _hint(kind, table, override)
            if not dataclasses.is_dataclass(kind) or not isinstance(place.get(table, {}), Mapping):
                raise InputError(f"--set {override}: {table} is not a table of options; set its value directly")
            place[table] = dict(place.get(table, {}))
            place = place[table]
        place[key] = from_text(key, text.strip(), _hint(kind, key, override))
    return result


def _hint(cls: Any, key: str, override: str) -> Any:
    hints = get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
    if key not in hints:
        raise unknown_name("option", key, hints, f"--set {override}")
    return hints[key]


def from_text(key: str, text: str, hint: Any, where: str = "--set") -> Any:
    """Parse the value of an override by its option's type; lists are comma-separated, booleans in any case."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is tuple:
        return [from_text(key, item.strip(), get_args(hint)[0], where) for item in text.split(",")]
    if get_origin(hint) is Literal:
        return next((value for value in get_args(hint) if str(value) == text), text)
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        if hint in (int, float):
            return hint(text)
    except (KeyError, ValueError):
        raise InputError(f"{where} {key}={text}: {key} must be {_KINDS[hint]}") from None
    return text


Bound = Annotated[int | float, Bounds(-MAX_COUNT, MAX_COUNT)]


@dataclass(frozen=True, slots=True)
class Option:
    """An option, whose type is that of its default: bool, int, float, str or a list of strings.

    Attributes:
        default: None if it is defined elsewhere, such as in the signature of a method's class.
        choices: allowed values, or allowed items of a list; empty allows any.
        execution: True if the option affects only where or how something runs, not the result.
    """

    default: Any = None
    help: str = ""
    choices: tuple[Any, ...] = ()
    minimum: Bound | None = None
    maximum: Bound | None = None
    execution: bool = False

    def __post_init__(self) -> None:
        texts = not isinstance(self.default, list) or all(isinstance(item, str) for item in self.default)
        if self.default is not None and (type(self.default) not in (*_KINDS, list) or not texts):
            raise InputError(
                f"the default {quote(self.default)} is not true or false, a number, a string or a list of strings"
            )
        bounded = self.minimum is not None or self.maximum is not None
        if bounded and type(self.default) not in (int, float, type(None)):
            raise InputError("only a number has a minimum or a maximum; leave it out")


def read_options(options: Mapping[str, Option], given: Sequence[str], where: str) -> dict[str, Any]:
    """Value of every option of a card, in order: its default or the last override.

    An override is `option=value`; lists are comma-separated, `true` and `false` are in any case. `InputError`, starting
    with `where` (a card's name or path), for an invalid override or an option without a default.
    """
    values = {}
    for name, option in options.items():
        if option.default is None:
            raise InputError(f"{where}: option {quote(name)} has no default; add it")
        default = list(option.default) if isinstance(option.default, list) else option.default
        values[name] = _allowed(name, default, option, where)
    for override in given:
        name, equals, text = (part.strip() for part in override.partition("="))
        if not equals:
            raise InputError(f"{where}: {override!r} sets no option; write it as option=value")
        if not options:
            raise InputError(f"{where}: unknown option {quote(name)}; it has no options")
        if name not in options:
            raise unknown_name("option", name, options, where)
        kind = type(values[name])
        parts = [part.strip() for part in text.split(",") if part.strip()]
        value = parts if kind is list else from_text(name, text, kind, f"{where}:")
        values[name] = _allowed(name, value, options[name], where)
    return values


def overrides(values: Mapping[str, Any]) -> list[str]:
    """Values as `option=value` strings, as read by `read_options`."""
    texts = {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in values.items()}
    return [f"{name}={text}" for name, text in texts.items()]


def _allowed(name: str, value: Any, option: Option, where: str) -> Any:
    for item in value if isinstance(value, list) else [value]:
        if option.choices and item not in option.choices:
            raise unknown_name(f"value of {name}", str(item), map(str, option.choices), where)
    if type(value) in (int, float):
        low = -MAX_COUNT if option.minimum is None else option.minimum
        high = MAX_COUNT if option.maximum is None else option.maximum
        Bounds(low, high).check(name, value, where)
    return value
