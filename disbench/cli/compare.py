"""The commands that look closer at stored runs: compare, failures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from disbench.cli.options import DataOption, local_path, path, say
from disbench.io import addresses

DatasetOption = Annotated[
    str | None,
    Option("--dataset", help="The runs' dataset, if it has no card in disbench: your card.toml, or its folder."),
]


def compare(
    run_a: Annotated[Path, Argument(parser=path, help="Folder of a finished run, A.")],
    run_b: Annotated[Path, Argument(parser=path, help="Folder of another run on the same samples, B.")],
    out: Annotated[Path, Option(parser=local_path, help="Folder for the comparison.")] = Path("comparison"),
    samples: Annotated[int, Option(min=0, max=50, help="Samples to draw, those that differ most; 0: no picture.")] = 8,
    dataset: DatasetOption = None,
    data: DataOption = None,
) -> None:
    """Compare two runs on the same samples: paired differences, intervals, p-values, pictures."""
    from disbench.reports.comparison import (  # noqa: PLC0415
        compare_runs,
        draw_differences,
        lines_of,
        one_run,
        write_comparison,
    )

    comparison = compare_runs(one_run(addresses.here(run_a)), one_run(addresses.here(run_b)))
    picture = draw_differences(comparison, data, samples, dataset) if samples else None
    for line in lines_of(comparison):
        say(line)
    typer.echo("")
    for written in write_comparison(comparison, out, picture):
        typer.echo(f"look at: {written}")


def failures(
    runs: Annotated[list[Path], Argument(parser=path, help="Runs, or folders that contain them.")],
    out: Annotated[Path, Option(parser=local_path, help="Folder for the pictures.")] = Path("failures"),
    samples: Annotated[
        int, Option(min=1, max=50, help="Samples to draw that are never solved, and as many that are solved late.")
    ] = 8,
    dataset: DatasetOption = None,
    data: DataOption = None,
) -> None:
    """Draw failures: samples that never reach an IoU of 0.90, and those that take longest."""
    from disbench.reports.failures import write_failures  # noqa: PLC0415

    for line in write_failures([addresses.here(run) for run in runs], out, data, samples, dataset):
        say(line)
