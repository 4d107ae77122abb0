"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disbench.core.errors import InputError
from disbench.io import addresses

if TYPE_CHECKING:
    from disbench.io.definitions import Kind


class Existing(StrEnum):
    """What to do with results that are there already."""

    RESUME = "resume"
    OVERWRITE = "overwrite"
    FAIL = "fail"


class EngineName(StrEnum):
    """Where the workers are."""

    LOCAL = "local"
    RAY = "ray"


def path(text: str) -> Path:
    """What an option that names an input holds: a path, or the path of the copy of an address, not made yet."""
    try:
        return addresses.path_of(text)
    except InputError as error:  # typer takes it for the error of a conversion otherwise, and rewrites it
        raise typer.BadParameter(str(error)) from error


def local_path(text: str) -> Path:
    """What an option holds that names an output of this machine alone."""
    if addresses.is_address(text):
        raise typer.BadParameter(f"{text}: written on this machine alone; name a path, and copy it there yourself")
    return Path(text)


def say(text: object, *, err: bool = False) -> None:
    """Print a line, with addresses where copies of them are named."""
    typer.echo(addresses.with_addresses(str(text)), err=err)


def print_definitions(kind: Kind, line: Callable[[str, Mapping[str, Any]], str]) -> Callable[[bool], None]:
    """The callback of an option `--list`: a line for each definition of a kind, and the end.

    Args:
        kind: which folder of definitions.
        line: what is printed of one, from its name and its content.
    """

    def show(asked: bool) -> None:
        if not asked:
            return
        from disbench.io import definitions  # noqa: PLC0415

        for name in definitions.names(kind):
            typer.echo(line(name, definitions.load(definitions.find(kind, name))))
        raise typer.Exit

    return show


def described_line(name: str, content: Mapping[str, Any]) -> str:
    """Name and description of a definition."""
    return f"{name:<22} {content.get('description', '')}"


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="DISBENCH_DATA",
        parser=path,
        help="Root of the datasets; relative paths are looked up there too.",
    ),
]
ExistingOption = Annotated[Existing, typer.Option("--existing", help="What to do with results that are there already.")]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="Name of a card (disbench methods list), your own card.toml, package.module:Name or path/to/file.py:Name.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set an option of the method: option=value; may be repeated."),
]
EngineOption = Annotated[
    EngineName,
    typer.Option("--engine", help="Where the workers are: on this machine, or on a Ray cluster (extra ray)."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Of the Ray cluster; auto: the one that this machine belongs to (default: begin one here).",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes; they do not change the result (default: one a core, or as many as the cluster has room for).",
    ),
]
