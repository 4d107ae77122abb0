"""Options of cards: defaults, `option=value`, and one sentence for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from disbench.core.errors import InputError
from disbench.io.settings import Option, checked, overrides, read_options

TABLES: dict[str, dict[str, Any]] = {
    "side": {"default": 320, "minimum": 1, "help": "pixels"},
    "share": {"default": 0.5, "minimum": 0},
    "flip": {"default": False},
    "rule": {"default": "a", "choices": ["a", "b c"]},
    "sets": {"default": ["x", "y"], "choices": ["x", "y", "z"]},
}


def values_of(tables: dict[str, dict[str, Any]], *given: str) -> dict[str, Any]:
    """As a card's options and the command line give them."""
    return read_options(checked("options", tables, Mapping[str, Option], "card"), given, "card")


def test_defaults_and_the_last_override() -> None:
    found = values_of(TABLES)
    assert found == {"side": 320, "share": 0.5, "flip": False, "rule": "a", "sets": ["x", "y"]}
    found["sets"].append("z")
    assert TABLES["sets"]["default"] == ["x", "y"]
    assert values_of({"a": {"default": ""}}, "a=1", "a=x=y") == {"a": "x=y"}
    assert values_of({}) == {}
    with pytest.raises(InputError, match="it has no options"):
        values_of({}, "a=1")


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("side=7", "side", 7),
        ("share=1e-3", "share", 0.001),
        ("flip=TRUE", "flip", True),
        ("rule=b c", "rule", "b c"),
        ("sets=z, x", "sets", ["z", "x"]),
        ("sets=", "sets", []),
    ],
)
def test_overrides_have_the_kind_of_the_default(override: str, name: str, value: object) -> None:
    found = values_of(TABLES, override)
    assert found[name] == value
    assert type(found[name]) is type(TABLES[name]["default"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("side", "card: 'side' sets no option; write it as option=value"),
        ("sied=3", "card: unknown option 'sied'; did you mean 'side'"),
        ("side=1.5", "card: side=1.5: side is a whole number"),
        ("side=0", "card: side = 0 is too small; it starts at 1"),
        ("share=-0.1", "too small"),
        ("rule=c", "card: unknown value of rule 'c'; did you mean 'b c'"),
        ("sets=x,w", "unknown value of sets 'w'; known: x, y, z"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        values_of(TABLES, override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "has no default"),
        ({"default": [1]}, "true or false, a number"),
        ({"default": 1, "minimun": 0}, "did you mean 'minimum'"),
        ({"default": "x", "choices": ["y"]}, "unknown value of a 'x'"),
        ({"default": 0, "minimum": 1}, "too small"),
        ({"default": "a", "minimum": 1}, "only a number has a minimum"),
    ],
)
def test_bad_tables_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        values_of({"a": table})
    assert message in str(caught.value)


def test_values_are_written_as_they_are_read() -> None:
    tables = {
        "yes": {"default": True},
        "share": {"default": 0.5},
        "count": {"default": 3},
        "name": {"default": "a b"},
        "names": {"default": ["a", "b"]},
        "none": {"default": []},
    }
    values = {"yes": False, "share": 0.1 + 0.2, "count": -7, "name": "", "names": ["x"], "none": []}
    assert values_of(tables, *overrides(values)) == values
