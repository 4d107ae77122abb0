"""Commands for frozen splits: make and check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from disbench.cli.options import BAD_INPUT, command_line, local_path, path, say
from disbench.io import addresses

split_app = typer.Typer(help="Make and check frozen splits: fixed lists of diverse sets.", no_args_is_help=True)
ShardsArgument = Annotated[Path, Argument(parser=path, help="A finished folder of shards.")]


@split_app.command("make")
def split_make(
    shards: ShardsArgument,
    out: Annotated[
        Path, Option(parser=local_path, help="List to write, NAME.jsonl; NAME.toml beside it says how it was made.")
    ],
    dataset: Annotated[str, Option(help="Name of the dataset, the first part of each key.")],
    split: Annotated[str, Option(help="Split of the dataset, the second part of each key: val, test ...")],
    size: Annotated[
        int | None,
        Option(min=1, help="Sets to draw: at most 3 of an image and 5 % of a part's name (default: all candidates)."),
    ] = None,
    images: Annotated[
        str, Option(metavar="PATTERN", help="Only images whose file_name matches: 'val2017/*', '*[05].jpg'.")
    ] = "*",
) -> None:
    """Draw diverse sets of shards by the hash of their keys, and write them as a list with hashes of their masks."""
    from disbench.sampling.splits import make_split, standard_draw  # noqa: PLC0415

    draw = standard_draw(dataset, split, images, size)
    made = make_split(addresses.here(shards), out, draw, command_line(), progress=True)
    few = f", fewer than {size}: more would exceed the shares" if size and len(made.sets) < size else ""
    say(f"{out}: {len(made.sets)} sets of {made.made.candidates:,} candidates{few}; list {made.made.list_sha256}")


@split_app.command("check")
def split_check(
    split: Annotated[str, Argument(help="Name of a split, or your own NAME.jsonl.")], shards: ShardsArgument
) -> None:
    """Draw a split again from shards, and compare keys, order and masks with its list."""
    from disbench.sampling.splits import check_split, read_split  # noqa: PLC0415

    found = read_split(split)
    problem = check_split(found, addresses.here(shards), progress=True)
    if problem:
        say(f"{shards}: not split {found.name}: {problem}", err=True)
        raise typer.Exit(BAD_INPUT)
    say(f"{shards}: split {found.name} holds: {len(found.sets)} sets of {found.made.candidates:,} candidates")
