"""Options that several commands share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from disbench.core.choices import EngineName, Exif
from disbench.core.errors import InputError
from disbench.io import addresses
from disbench.io.files import Existing

if TYPE_CHECKING:
    from disbench.io.definitions import Kind


BAD_INPUT = 2
"""Exit code of a command that was refused, or whose check does not hold."""


def path(text: str) -> Path:
    """Parse an input: a path, or an address as the path of its local copy, which is made later."""
    try:
        return addresses.path_of(text)
    except InputError as error:  # typer takes it for the error of a conversion otherwise, and rewrites it
        raise typer.BadParameter(str(error)) from error


def local_path(text: str) -> Path:
    """Parse an output that is written to this machine only."""
    if addresses.is_address(text):
        raise typer.BadParameter(f"{text}: written on this machine alone; name a path, and copy it there yourself")
    return Path(text)


def say(text: object, *, err: bool = False) -> None:
    """Print a line, with addresses in place of the paths of their local copies."""
    typer.echo(addresses.with_addresses(str(text)), err=err)


def say_all(lines: Iterable[object], *, err: bool = False) -> None:
    """Print lines as `say` does."""
    for line in lines:
        say(line, err=err)


def command_line() -> str:
    """The command as typed, without the path of the program."""
    return shlex.join(["disbench", *sys.argv[1:]])


def described_line(name: str, content: Mapping[str, Any]) -> str:
    """Name and description of a definition."""
    return f"{name:<22} {content.get('description', '')}"


def list_option(kind: Kind, words: str, line: Callable[[str, Mapping[str, Any]], str] = described_line) -> Any:
    """An option `--list`, which prints a line for each definition of a kind and exits; `words` are its help."""

    def show(asked: bool) -> None:
        if not asked:
            return
        from disbench.io import definitions  # noqa: PLC0415

        for name in definitions.names(kind):
            typer.echo(line(name, definitions.load(definitions.find(kind, name))))
        raise typer.Exit

    return Option("--list", callback=show, is_eager=True, help=words)


DataOption = Annotated[
    Path | None,
    Option(
        "--data",
        envvar="DISBENCH_DATA",
        parser=path,
        help="Root of the datasets; relative paths are looked up there too.",
    ),
]
ExistingOption = Annotated[Existing, Option("--existing", help="What to do with existing results.")]
MethodOption = Annotated[
    str,
    Option(
        "--method",
        help="Name of a card (disbench methods list), your own card.toml, package.module:Name or path/to/file.py:Name.",
    ),
]
SetOption = Annotated[
    list[str] | None, Option("--set", help="Set an option of the method: option=value; may be repeated.")
]
VariantOption = Annotated[
    str | None,
    Option(
        "--variant",
        help="An installed variant of a published system (disbench methods install): its repository, Python and "
        "checkpoint; --set comes before it.",
    ),
]
DatasetSetOption = Annotated[
    list[str] | None, Option("--dataset-option", help="Set an option of the dataset: option=value; may be repeated.")
]
ThresholdOption = Annotated[
    float | None,
    Option("--threshold", help="Probability above which a pixel belongs to the mask (default: the card's)."),
]
ExifOption = Annotated[
    Exif,
    Option("--exif", help="A photo's EXIF orientation: ignore it (the pixels as stored), or apply it as viewers do."),
]
EngineOption = Annotated[
    EngineName, Option("--engine", help="Where workers run: on this machine, or on a Ray cluster (extra ray).")
]
AddressOption = Annotated[
    str | None,
    Option(
        "--address",
        help="Address of the Ray cluster; auto: the one that this machine belongs to (default: start one here).",
    ),
]
WorkersOption = Annotated[
    int | None,
    Option(
        "--workers",
        min=1,
        help="Worker processes; results do not depend on them (default: one per core, or what the cluster fits).",
    ),
]


def echo_left_out(counts: Mapping[str, int]) -> None:
    """Print what of a dataset was left out, and which declared links were changed, the most frequent first."""
    from disbench.core.scenes import LINK  # noqa: PLC0415

    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        if count:
            typer.echo(f"  {'' if reason.startswith(LINK) else 'left out: '}{count} x {reason}")
