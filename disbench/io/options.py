"""Options of a card: a table each, and `option=value` from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from disbench.core.errors import InputError, shown, unknown_name
from disbench.core.limits import MAX_COUNT
from disbench.io.settings import Bounds, from_text

_KINDS = (bool, int, float, str, list)
Bound = Annotated[int | float, Bounds(-MAX_COUNT, MAX_COUNT)]


@dataclass(frozen=True, slots=True)
class Option:
    """An option. Its kind is that of its default: true or false, a whole number, a number, a text, a list of texts.

    Attributes:
        default: None where something else has it, as a method's class has those of its arguments.
        choices: all that the value, or each text of a list, may be; empty for anything.
        execution: it says where or how something runs, not what is computed.
    """

    default: Any = None
    help: str = ""
    choices: tuple[Any, ...] = ()
    minimum: Bound | None = None
    maximum: Bound | None = None
    execution: bool = False

    def __post_init__(self) -> None:
        texts = not isinstance(self.default, list) or all(isinstance(item, str) for item in self.default)
        if self.default is not None and (type(self.default) not in _KINDS or not texts):
            raise InputError(
                f"the default is {shown(self.default)}; make it true or false, a number, a text or a list of texts"
            )
        bounded = self.minimum is not None or self.maximum is not None
        if bounded and type(self.default) not in (int, float, type(None)):
            raise InputError("only a number has a minimum or a maximum; leave it out")


def read_options(options: Mapping[str, Option], overrides: Sequence[str], where: str) -> dict[str, Any]:
    """The value of every option of a card, in their order: its default, or what the last override of it says.

    An override is `option=value`; a list is written with commas, `true` and `false` in any case. Errors begin with
    `where` (a card's name or path).

    Raises:
        InputError: an override that is not `option=value`, an unknown option, a value that its option does not let
            pass, or an option without a default.
    """
    values = {name: _default(name, option, where) for name, option in options.items()}
    for override in overrides:
        name, equals, text = (part.strip() for part in override.partition("="))
        if not equals:
            raise InputError(f"{where}: {override!r} sets no option; write it as option=value")
        if not options:
            raise InputError(f"{where}: unknown option {shown(name)}; it has no options")
        if name not in options:
            raise unknown_name("option", name, options, where)
        kind = type(values[name])
        parts = [part.strip() for part in text.split(",") if part.strip()]
        value = parts if kind is list else from_text(name, text, kind, f"{where}:")
        values[name] = _allowed(name, value, options[name], where)
    return values


def overrides(values: Mapping[str, Any]) -> list[str]:
    """Values as the `option=value` texts that `read_options` reads."""
    return [
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}" for name, value in values.items()
    ]


def _default(name: str, option: Option, where: str) -> Any:
    if option.default is None:
        raise InputError(f"{where}: option {shown(name)} has no default; add it")
    default = option.default
    return _allowed(name, list(default) if isinstance(default, list) else default, option, where)


def _allowed(name: str, value: Any, option: Option, where: str) -> Any:
    """The value, if the option lets it pass."""
    for item in value if isinstance(value, list) else [value]:
        if option.choices and item not in option.choices:
            raise unknown_name(f"value of {name}", str(item), map(str, option.choices), where)
    if type(value) in (int, float):
        low = -MAX_COUNT if option.minimum is None else option.minimum
        high = MAX_COUNT if option.maximum is None else option.maximum
        Bounds(low, high).check(name, value, where)
    return value
