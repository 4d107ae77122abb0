"""JSON and TOML from elsewhere: parsed in one way, with one kind of error, and never nested without end."""

from __future__ import annotations

import json
import tomllib
from typing import Any

DEEPEST = 60
"""How deep lists and tables may lie in each other: what goes through them later calls itself."""


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text.

    Memory is a small multiple of the text's size.

    Args:
        content: UTF-8 where it is bytes.

    Raises:
        ValueError: not UTF-8, not JSON, a number of thousands of digits, or nested deeper than `DEEPEST`.
    """
    try:
        return _not_too_deep(json.loads(content if isinstance(content, str) else content.decode("utf-8")))
    except RecursionError:
        raise _too_deep() from None


def parse_json_table(content: bytes | str) -> dict[str, Any]:
    """The object of a JSON text.

    Raises:
        ValueError: as `parse_json`, or it is no object.
    """
    found = parse_json(content)
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} where an object should be")
    return found


def parse_toml(content: bytes) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: not UTF-8, not TOML, a number of thousands of digits, or nested deeper than `DEEPEST`.
    """
    try:
        found: dict[str, Any] = _not_too_deep(tomllib.loads(content.decode("utf-8")))
    except RecursionError:
        raise _too_deep() from None
    return found


def _not_too_deep(value: Any) -> Any:
    """The value; looked through level by level, without a call that calls itself."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [item for part in level for item in _items(part)]
        if not level:
            return value
    raise _too_deep()


def _items(part: Any) -> list[Any]:
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [item for item in inner if isinstance(item, dict | list)]


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {DEEPEST} deep")
