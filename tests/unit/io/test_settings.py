"""Settings from TOML: every kind of field, tables in tables, overrides of them, and what an error says."""

from __future__ import annotations

import copy
import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from disbench.io.settings import (
    Bounds,
    Count,
    Option,
    convert,
    overrides,
    read_options,
    settings_from,
    table_from,
    with_overrides,
)
from tests.refusals import refuses


@dataclass(frozen=True)
class Wheel:
    """A table of its own, with an option that must be given."""

    size: float
    spokes: int = 36
    tyre: str | None = None


@dataclass(frozen=True)
class Bell:
    loud: bool = False


@dataclass(frozen=True)
class Bicycle:
    """Every kind of field that a table may have."""

    name: str
    gears: int = 1
    weight: float = 9.5
    lit: bool = True
    colour: Literal["red", "blue"] = "red"
    speeds: Literal[1, 3] = 1
    places: tuple[str, ...] = ()
    ratios: tuple[float, ...] = (1.0,)
    owner: str | None = None
    bell: Bell = field(default_factory=Bell)
    front: Wheel = field(default_factory=lambda: Wheel(28.0))
    wheels: tuple[Wheel, ...] = ()


@dataclass(frozen=True)
class Stored:
    """The kinds that records have besides."""

    lap: Count = 0
    share: Annotated[float, Bounds(0, 1)] = 0.5
    value: int | str | tuple[str, ...] = 1
    facts: Mapping[str, Any] = field(default_factory=dict)
    bells: Mapping[str, Bell] = field(default_factory=dict)
    best: Annotated[float | None, Bounds(0)] = None


def made(text: str, *overrides: str) -> Bicycle:
    """As a user's file and command line give it."""
    return settings_from(Bicycle, with_overrides(tomllib.loads(text), overrides, Bicycle), "bicycle.toml")


@pytest.mark.parametrize("more", ["", "\nplaces = []\nwheels = []"])
def test_what_is_left_out_has_its_default(more: str) -> None:
    """And a list may be empty where its default is."""
    assert made(f"name = 'a'{more}") == Bicycle("a")


def test_every_kind_of_field() -> None:
    found = made(
        """
        name = "a"
        gears = 3
        weight = 8
        lit = false
        colour = "blue"
        speeds = 3
        places = ["home", "town"]
        ratios = [1, 2.5]
        owner = "b"
        wheels = [{ size = 26, tyre = "wide" }, { size = 24.5, spokes = 32 }]
        bell = { loud = true }
        [front]
        size = 20
        """
    )
    assert found == Bicycle(
        **{"name": "a", "gears": 3, "weight": 8.0, "lit": False, "colour": "blue", "speeds": 3, "owner": "b"},
        places=("home", "town"),
        ratios=(1.0, 2.5),
        bell=Bell(loud=True),
        front=Wheel(20.0),
        wheels=(Wheel(26.0, tyre="wide"), Wheel(24.5, 32)),
    )
    assert isinstance(found.weight, float) and isinstance(found.ratios[0], float)


WRONG: list[tuple[str, str]] = [
    ("", r"^bicycle.toml: the key 'name' is missing; add it$"),
    ("name = 1", "name must be a string, not 1"),
    ("name = 'a'\ngear = 1", "unknown key 'gear'; did you mean 'gears'"),
    ("name = 'a'\ngears = 1.5", "gears must be a whole number, not 1.5"),
    ("name = 'a'\nweight = -inf", "weight must be a number, not -inf"),
    ("name = 'a'\nlit = 1", "lit must be true or false, not 1"),
    ("name = 'a'\ncolour = 'rot'", "unknown value of colour 'rot'.*red"),
    ("name = 'a'\nplaces = 'home'", "places must be a non-empty list, not 'home'"),
    ("name = 'a'\nratios = []", "ratios must be a non-empty list"),
    ("name = 'a'\nbell = true", "bell must be a table, not True"),
    ("name = 'a'\nwheels = [28]", r"wheels\[0\] must be a table, not 28"),
    ("name = 'a'\nwheels = [{ spokes = 2 }]", r"bicycle.toml: wheels\[0\]: the key 'size' is missing"),
    ("name = 'a'\nfront = { size = 1, spoke = 2 }", "bicycle.toml: front: unknown key 'spoke'.*spokes"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[words[-24:] for _, words in WRONG])
def test_what_a_file_gets_wrong(text: str, words: str) -> None:
    refuses(words, made, text)


def test_none_is_a_value_of_optional_fields_only() -> None:
    assert convert("owner", None, str | None, "") is None
    refuses("name must be a string, not None", settings_from, Bicycle, {"name": None}, "a")
    refuses("front is not a table", made, "name = 'a'\nfront = 28", "front.size=20")


OVERRIDES: list[tuple[str, str, Any]] = [
    ("gears=7", "gears", 7),
    ("weight=1e1", "weight", 10.0),
    ("lit=FALSE", "lit", False),
    ("colour=blue", "colour", "blue"),
    ("owner=a=b", "owner", "a=b"),
    ("places=home, town", "places", ("home", "town")),
    ("ratios=1,2.5", "ratios", (1.0, 2.5)),
    ("bell.loud=true", "bell", Bell(loud=True)),
    ("front.size=20", "front", Wheel(20.0)),
    ("front.tyre=wide", "front", Wheel(26.0, tyre="wide")),
]


@pytest.mark.parametrize(("override", "name", "value"), OVERRIDES, ids=[each[0] for each in OVERRIDES])
def test_overrides(override: str, name: str, value: Any) -> None:
    found = made("name = 'a'\nfront = { size = 26 }", override)
    assert getattr(found, name) == value and type(getattr(found, name)) is type(value)
    assert dataclasses.replace(found, **{name: value}) == found


def test_the_last_of_several_overrides_counts_and_the_table_stays_as_it_was() -> None:
    content = {"name": "a", "front": {"size": 26.0}}
    before = copy.deepcopy(content)
    changed = with_overrides(content, ["front.spokes=1", "gears=2", "front.spokes=3"], Bicycle)
    found = settings_from(Bicycle, changed, "")
    assert (found.front, found.gears) == (Wheel(26.0, 3), 2)
    assert content == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("gears", "--set gears: write it as option=value"),
        ("gear=1", "--set gear=1: unknown option 'gear'; did you mean 'gears'"),
        ("frond.spokes=1", "unknown option 'frond'; did you mean 'front'"),
        ("gears.more=1", "gears is not a table of options"),
        ("gears=many", "--set gears=many: gears must be a whole number"),
        ("lit=yes", "lit must be true or false"),
        ("colour=rot", "unknown value of colour 'rot'"),
        ("front=28", "front must be a table, not '28'"),
        ("wheels=28", r"wheels\[0\] must be a table, not '28'"),
    ],
)
def test_what_an_override_gets_wrong(override: str, words: str) -> None:
    refuses(words, made, "name = 'a'\ngears = 1\nfront = { size = 26 }", override)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"lap": 3, "share": 1.0, "value": "a", "best": 2.5},
        {"value": ["a", "b"], "facts": {"a": {"b": [1, None]}}, "bells": {"door": {"loud": True}, "bike": {}}},
    ],
)
def test_a_record_is_written_as_it_was_read(content: dict[str, Any]) -> None:
    assert table_from(settings_from(Stored, content, "")) == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"lap": -1}, "a.json: lap = -1 is too small; it starts at 0"),
        ({"lap": 1 << 60}, "lap = 1152921504606846976 is too large; it ends at 9,007,199,254,740,992"),
        ({"share": 1.5}, "share = 1.5 is too large; it ends at 1"),
        ({"best": -1}, "best = -1.0 is too small"),
        ({"value": 1.5}, "value must be a whole number or a string or a list, not 1.5"),
        ({"facts": []}, "facts must be a table"),
        ({"bells": {"door": {"loud": 1}}}, "a.json: bells.door: loud must be true or false, not 1"),
    ],
)
def test_what_a_record_gets_wrong(content: dict[str, Any], words: str) -> None:
    refuses(words, settings_from, Stored, content, "a.json")


def test_keys_of_a_later_version_are_skipped_on_request() -> None:
    found = settings_from(Stored, {"lap": 1, "new": 2, "bells": {"a": {"tone": 3}}}, "", unknown="skip")
    assert found == Stored(lap=1, bells={"a": Bell()})


TABLES: dict[str, dict[str, Any]] = {
    "side": {"default": 320, "minimum": 1, "help": "pixels"},
    "share": {"default": 0.5, "minimum": 0},
    "flip": {"default": False},
    "rule": {"default": "a", "choices": ["a", "b c"]},
    "sets": {"default": ["x", "y"], "choices": ["x", "y", "z"]},
}


def options(tables: dict[str, dict[str, Any]], *given: str) -> dict[str, Any]:
    """The values of a card's options, with what the command line gives."""
    return read_options(convert("options", tables, Mapping[str, Option], "card"), given, "card")


def test_options_have_their_defaults_or_the_last_override() -> None:
    found = options(TABLES)
    assert found == {"side": 320, "share": 0.5, "flip": False, "rule": "a", "sets": ["x", "y"]}
    found["sets"].append("z")
    assert TABLES["sets"]["default"] == ["x", "y"]
    assert options({"a": {"default": ""}}, "a=1", "a=x=y") == {"a": "x=y"}
    refuses("it has no options", options, {}, "a=1")


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [("side=7", "side", 7), ("rule=b c", "rule", "b c"), ("sets=z, x", "sets", ["z", "x"]), ("sets=", "sets", [])],
)
def test_an_option_is_of_the_kind_of_its_default(override: str, name: str, value: object) -> None:
    found = options(TABLES, override)[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("side", "card: 'side' sets no option; write it as option=value"),
        ("sied=3", "card: unknown option 'sied'; did you mean 'side'"),
        ("side=1.5", "card: side=1.5: side must be a whole number"),
        ("side=0", "card: side = 0 is too small; it starts at 1"),
        ("rule=c", "card: unknown value of rule 'c'; did you mean 'b c'"),
        ("sets=x,w", "unknown value of sets 'w'; known: x, y, z"),
    ],
)
def test_what_an_options_override_gets_wrong(override: str, words: str) -> None:
    refuses(words, options, TABLES, override)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "has no default"),
        ({"default": [1]}, "true or false, a number"),
        ({"default": "x", "choices": ["y"]}, "unknown value of a 'x'"),
        ({"default": 0, "minimum": 1}, "too small"),
        ({"default": "a", "minimum": 1}, "only a number has a minimum"),
    ],
)
def test_what_a_table_of_an_option_gets_wrong(table: dict[str, Any], words: str) -> None:
    refuses(words, options, {"a": table})


def test_options_are_written_as_they_are_read() -> None:
    tables = {
        name: {"default": value} for name, value in (("yes", True), ("share", 0.5), ("count", 3), ("name", "a b"))
    }
    tables |= {"names": {"default": ["a", "b"]}, "none": {"default": []}}
    values = {"yes": False, "share": 0.1 + 0.2, "count": -7, "name": "", "names": ["x"], "none": []}
    assert options(tables, *overrides(values)) == values
