"""Recorded clicks on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from disbench.cli.options import DataOption, DatasetSetOption, local_path, path, say_all
from disbench.io import addresses

clicks_app = typer.Typer(help="Read clicks that people made.", no_args_is_help=True)


@clicks_app.callback()
def _group() -> None:
    pass


@clicks_app.command("import")
def clicks_import(
    form: Annotated[
        Literal["rclicks", "csv", "recording", "scribbles"],
        Argument(help="RClicks' clicks.csv, any CSV, a Parquet file of the demo or another tool, or scribbles."),
    ],
    file: Annotated[Path, Argument(parser=path, help="The file; of scribbles the folder.")],
    dataset: Annotated[str, Option(help="The dataset: name of a card, your own card.toml, or a folder.")],
    out: Annotated[Path, Option(parser=local_path, help="Parquet file to write.")],
    missing: Annotated[
        Literal["error", "drop"], Option(help="What to do with clicks on samples that the dataset does not have.")
    ] = "error",
    scale: Annotated[
        Literal["full", "none"],
        Option(
            help="Clicks measured on another size than the sample's: scale them, or take them as they are (as RClicks' "
            "benchmark does)."
        ),
    ] = "full",
    dataset_option: DatasetSetOption = None,
    data: DataOption = None,
) -> None:
    """Turn recorded clicks of other tools into a file for `run --policy replay:FILE` and `run --task first-clicks`."""
    from disbench.datasets.cards import open_dataset  # noqa: PLC0415
    from disbench.datasets.click_import import import_clicks  # noqa: PLC0415

    source = open_dataset(dataset, data, dataset_option or [])
    dropped, scaled = missing == "drop", scale == "full"
    say_all(import_clicks(form, addresses.here(file), source, out, drop_missing=dropped, rescale=scaled))
