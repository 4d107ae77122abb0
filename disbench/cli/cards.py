"""Commands for datasets, methods and recorded clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from disbench.cli import options as common
from disbench.cli.options import Strings, arg, echo, echo_lines, in_path, opt, out_path, path
from disbench.core.choices import MethodStatus
from disbench.io import addresses

data_app = typer.Typer(help="List, check and fetch datasets.", no_args_is_help=True)
methods_app = typer.Typer(help="List methods, show their cards, install and check them.", no_args_is_help=True)
clicks_app = typer.Typer(help="Import clicks recorded from people.", no_args_is_help=True)
CardArgument = Annotated[str, arg("Name of a card, or your own card.toml.")]
CardVariantOption = Annotated[
    str, opt("Trained network of the card (disbench methods show; default: its first).", "--variant")
]


@data_app.command("list")
def data_list(data: common.DataOption = None) -> None:
    """List the datasets and whether they are installed."""
    from disbench.datasets.fetch import list_datasets

    for listing in list_datasets(data):
        echo(listing.line())


@data_app.command("verify")
def data_verify(
    dataset: common.DatasetArgument, dataset_option: common.DatasetSetOption = None, data: common.DataOption = None
) -> None:
    """Check a dataset against its card: counts, sizes, content hash."""
    from disbench.datasets.fetch import verify

    verification = verify(dataset, data, dataset_option or [], progress=True)
    echo_lines(verification.lines(), err=not verification.ok)
    if not verification.ok:
        raise typer.Exit(common.BAD_INPUT)


@data_app.command("fetch")
def data_fetch(
    dataset: CardArgument,
    no_hash: Annotated[bool, opt("Accept files without a hash or with another; print it.", "--no-hash")] = False,
    existing: common.ExistingOption = "resume",
    data: common.DataOption = None,
) -> None:
    """Download a dataset from the first working address on its card, resumable and verified by hash."""
    from disbench.datasets.fetch import fetch

    echo_lines(fetch(dataset, data, unverified=no_hash, existing=existing, progress=True))


@data_app.command("check-links")
def data_check_links(dataset: Annotated[Strings, arg("Names of cards, or card.toml (default: all).")] = None) -> None:
    """Check every address on the cards without downloading; exit code 1 if a file has no working address."""
    from disbench.datasets.fetch import check_links

    alive: dict[tuple[str, str], bool] = {}
    for name, file, url, response in check_links(dataset or []):
        alive[name, file] = alive.get((name, file), False) or response.alive
        size = f"{response.bytes:,}" if response.bytes is not None else "-"
        echo(f"{name:<15} {'alive' if response.alive else 'DEAD':<5} {size:>14}  {url}  {response.status}")
    dead = [f"{file} of {name}" for (name, file), is_alive in alive.items() if not is_alive]
    if dead:
        echo(f"no living address: {', '.join(dead)}", err=True)
        raise typer.Exit(1)


@methods_app.command("list")
def methods_list(
    status: Annotated[MethodStatus | None, opt("Only methods that run natively, by the bridge, or not at all.")] = None,
) -> None:
    """List the methods as a table."""
    from disbench.baselines.listing import list_methods

    echo_lines(list_methods(status))


@methods_app.command("show")
def methods_show(method: CardArgument) -> None:
    """Show a method's card, its published numbers, and the commands that run it."""
    from disbench.baselines.cards import load_card
    from disbench.baselines.listing import show_method
    from disbench.reports.paper.definitions import published_lines

    names = load_card(method).published
    echo_lines(show_method(method, [line for name in names for line in published_lines(name)]))


@methods_app.command("fetch")
def methods_fetch(method: CardArgument) -> None:
    """Download a method's weights, checked by SHA-256."""
    from disbench.baselines.cards import load_card
    from disbench.baselines.weights import fetch

    echo_lines(fetch(load_card(method)))


@methods_app.command("install")
def methods_install(
    method: CardArgument,
    variant: CardVariantOption = "",
    checkpoint: Annotated[Path | None, in_path("Use this file of trained weights instead of downloading them.")] = None,
) -> None:
    """Install a published system: code, environment and trained weights; resumable."""
    from disbench.baselines.installs import install

    checkpoint_path = None if checkpoint is None else addresses.local_copy(checkpoint)
    installation = install(method, variant, checkpoint=checkpoint_path, report=echo)
    variant_option = f" --variant {installation.variant}" if installation.variant else ""
    echo(
        f"{installation.name} {installation.variant}: installed; next: disbench methods check {method}{variant_option}"
    )


@methods_app.command("installed")
def methods_installed() -> None:
    """List the installed systems and their sizes on disk."""
    from disbench.baselines.installs import list_installed, methods_folder

    echo(methods_folder())
    echo_lines(list_installed())


@methods_app.command("remove")
def methods_remove(method: CardArgument) -> None:
    """Remove an installed system, and environments that no other system uses."""
    from disbench.baselines.installs import remove

    remove(method, report=echo)


@methods_app.command("check")
def methods_check(method: CardArgument, variant: CardVariantOption = "", set_: common.SetOption = None) -> None:
    """Run an installed system on an embedded photo with three clicks, and print whether it works."""
    from disbench.harness.predict import check_method

    result = check_method(method, variant, set_ or [])
    echo_lines(result.lines, err=not result.works)
    if not result.works:
        raise typer.Exit(common.BAD_INPUT)


@clicks_app.callback()
def _group() -> None:
    pass


@clicks_app.command("import")
def clicks_import(
    form: Annotated[
        Literal["rclicks", "csv", "recording", "scribbles"],
        arg("RClicks' clicks.csv, any CSV, Parquet of the demo or another tool, or scribbles."),
    ],
    file: Annotated[Path, arg("The file; for scribbles, the folder.", parser=path)],
    dataset: common.NamedDatasetOption,
    out: Annotated[Path, out_path("Parquet file to write.")],
    missing: Annotated[Literal["error", "drop"], opt("What to do with clicks on unknown samples.")] = "error",
    scale: Annotated[
        Literal["full", "none"], opt("Clicks measured at another image size: scale them, or not (RClicks).")
    ] = "full",
    dataset_option: common.DatasetSetOption = None,
    data: common.DataOption = None,
) -> None:
    """Convert clicks recorded by other tools to a file for `run --policy replay:FILE` and `run --task first-clicks`."""
    from disbench.datasets.cards import open_dataset
    from disbench.datasets.click_import import import_clicks

    source = open_dataset(dataset, data, dataset_option or [])
    dropped, scaled = missing == "drop", scale == "full"
    echo_lines(import_clicks(form, addresses.local_copy(file), source, out, drop_missing=dropped, rescale=scaled))
