"""Options of a card: a table with a default each, and `option=value` from the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from disbench.core.errors import InputError, shown, unknown_name
from disbench.io.settings import LARGEST

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list of texts, separated by commas",
}
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "default": tuple(_KINDS),
    "help": str,
    "choices": list,
    "minimum": (int, float),
    "execution": bool,
}


def read_options(tables: Mapping[str, Mapping[str, Any]], overrides: Sequence[str], where: str) -> dict[str, Any]:
    """The value of every option of a card: its default, or what an override says.

    An option's kind is that of its default: true or false, a whole number, a number, a text, or a list of
    texts. Of several overrides of one option the last one counts.

    Args:
        tables: option -> its table: `default`, and optionally `help`, `choices` (all that the value, or
            each text of a list, may be), `minimum` (of a number) and `execution` (it says where or how something
            runs, not what is computed).
        overrides: each `option=value`; a list is written with commas, `true` and `false` in any case.
        where: whose options they are, to begin errors with (a card's name or path).

    Returns:
        Option -> value, in the order of `tables`.

    Raises:
        InputError: an override that is not `option=value`, an unknown option (with the nearest names), a
            value of the wrong kind, below the minimum or not among the choices; or a table that is not as
            it should be.
    """
    values = {name: _default(name, table, where) for name, table in tables.items()}
    for override in overrides:
        name, equals, text = (part.strip() for part in override.partition("="))
        if not equals:
            raise InputError(f"{where}: {override!r} sets no option; write it as option=value")
        if not tables:
            raise InputError(f"{where}: there is no option {shown(name)}; it has no options at all")
        if name not in tables:
            raise unknown_name("option", name, tables, where)
        value = _from_text(name, text, type(values[name]), where)
        values[name] = _allowed(name, value, tables[name], where)
    return values


def overrides(values: Mapping[str, Any]) -> list[str]:
    """Values as the `option=value` texts that `read_options` reads."""
    return [f"{name}={_text(value)}" for name, value in values.items()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _default(name: str, table: object, where: str) -> Any:
    if not isinstance(table, Mapping) or "default" not in table:
        raise InputError(f"{where}: option {shown(name)} has no default; add it")
    for key, found in table.items():
        if key not in _KEYS:
            raise unknown_name("key", key, _KEYS, f"{where}: option {shown(name)}")
        is_kind = isinstance(found, _KEYS[key]) and (key == "execution" or not isinstance(found, bool))
        if key != "default" and not is_kind:
            raise InputError(f"{where}: {key} of option {shown(name)} is of the wrong kind")
    value = table["default"]
    if type(value) not in _KINDS or (isinstance(value, list) and not all(isinstance(item, str) for item in value)):
        raise InputError(
            f"{where}: the default of option {shown(name)} is {shown(value)}; make it true or false, a number, a text "
            "or a list of texts"
        )
    if "minimum" in table and type(value) not in (int, float):
        raise InputError(f"{where}: option {shown(name)} is no number; leave its minimum out")
    return _allowed(name, list(value) if isinstance(value, list) else value, table, where)


def _from_text(name: str, text: str, kind: type[Any], where: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is list:
            return [part.strip() for part in text.split(",") if part.strip()]
        value = kind(text)
    except (KeyError, ValueError):
        raise InputError(f"{where}: {name}={text}: {name} is {_KINDS[kind]}") from None
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where}: {name}={text}: {name} is a finite number")
    return value


def _allowed(name: str, value: Any, table: Mapping[str, Any], where: str) -> Any:
    """The value, if the option's table lets it pass."""
    choices, minimum = table.get("choices"), table.get("minimum")
    too_large = type(value) is int and abs(value) > LARGEST
    if too_large or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{where}: {name} is larger than any number that is computed with; make it smaller")
    for item in value if isinstance(value, list) else [value]:
        if choices is not None and item not in choices:
            raise unknown_name(f"value of {name}", str(item), map(str, choices), where)
    if minimum is not None and value < minimum:
        raise InputError(f"{where}: {name} = {value} is too small; it starts at {minimum}")
    return value
