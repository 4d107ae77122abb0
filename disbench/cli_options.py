"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Existing(StrEnum):
    """What to do with results that are there already."""

    RESUME = "resume"
    OVERWRITE = "overwrite"
    FAIL = "fail"


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", envvar="DISBENCH_DATA", help="Root of the datasets; relative paths are looked up there too."
    ),
]
ExistingOption = Annotated[
    Existing, typer.Option("--existing", help="What to do with results that are there already.")
]
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
