"""Settings from TOML: a table's values checked against a dataclass, nested tables against its fields' dataclasses."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from disbench.core.errors import InputError, shown, unknown_name

Settings = TypeVar("Settings")
LARGEST = 1 << 53
"""Of counts: a float holds them exactly, and so does every column and library."""
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def settings_from(cls: type[Settings], content: Mapping[str, Any], where: str) -> Settings:
    """A dataclass from a table: every value of its field's kind, nothing unknown, nothing missing.

    Args:
        cls: a dataclass; its fields are of plain kinds, literals, tuples of these, optional ones, or dataclasses.
        content: field -> value. A list has one value or more, or as few as its field's default.
        where: what to name in errors.

    Raises:
        InputError: a missing or unknown field, or a value of the wrong kind.
    """
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    for key in content:
        if key not in hints:
            raise unknown_name("option", key, hints, where)
    for field in fields:
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in content:
            raise InputError(f"{where}: the option {field.name!r} is missing; add it")
    empty = {field.name for field in fields if field.default == ()}  # may stay so
    values = {
        key: () if key in empty and value in ([], ()) else checked(key, value, hints[key], where)
        for key, value in content.items()
    }
    try:
        return cls(**values)
    except InputError as error:  # of the dataclass itself: values that do not go together
        raise InputError(f"{where}: {error}") from error


def checked(key: str, value: Any, hint: Any, where: str) -> Any:
    """The value, if it is of the kind that the hint says.

    Raises:
        InputError: it is not.
    """
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:  # from JSON, where a checkpoint keeps its settings; TOML has no word for it
            return None
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: {key} is a table, not {shown(value)}")
        return settings_from(hint, value, f"{where}: {key}")  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown_name(f"value of {key}", str(value), [str(v) for v in get_args(hint)], where)
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or not value:
            raise InputError(f"{where}: {key} is a list of one value or more, not {shown(value)}")
        return tuple(checked(key, item, get_args(hint)[0], where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InputError(f"{where}: {key} is larger than any number; make it smaller") from None
    is_wrong = isinstance(value, float) and not math.isfinite(value)  # it would pass below or above every bound
    if is_wrong or not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{where}: {key} is {_KINDS[hint]}, not {shown(value)}")
    return value


def with_overrides(content: Mapping[str, Any], overrides: Iterable[str], cls: type) -> dict[str, Any]:
    """A table with `option=value` or `table.option=value` put over it.

    Args:
        content: the table; it is not changed.
        overrides: as the command line writes them; a value's kind is its field's.
        cls: the dataclass that the table is for.

    Raises:
        InputError: no `=` in it, an unknown option, a value that is not of its kind.
    """
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
                raise InputError(f"--set {override}: {table} is not a table of options; set it as a whole")
            place[table] = dict(place.get(table, {}))
            place = place[table]
        place[key] = from_text(key, text.strip(), _hint(kind, key, override))
    return result


def _hint(cls: Any, key: str, override: str) -> Any:
    hints = get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
    if key not in hints:
        raise unknown_name("option", key, hints, f"--set {override}")
    return hints[key]


def from_text(key: str, text: str, hint: Any) -> Any:
    """The value of an override, by the kind of its option.

    Raises:
        InputError: the text is not of that kind.
    """
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is tuple:
        return [from_text(key, item.strip(), get_args(hint)[0]) for item in text.split(",")]
    if get_origin(hint) is Literal:
        return next((value for value in get_args(hint) if str(value) == text), text)
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        if hint in (int, float):
            return hint(text)
    except (KeyError, ValueError):
        raise InputError(f"--set {key}={text}: {key} is {_KINDS[hint]}") from None
    return text
