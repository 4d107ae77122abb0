"""The command of the ablations: ablate."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from disbench.cli.options import DataOption, ExistingOption, local_path, print_definitions


def _line(name: str, content: Mapping[str, Any]) -> str:
    return f"{name:<10} {content['title']}: {content['budget']}"


def ablate(
    table: Annotated[str, Argument(help="An ablation: table2 ... table5 (see --list), or your own TOML file.")],
    out: Annotated[
        Path, Option(parser=local_path, help="Output folder; gets TABLE/ROW/seed-S/ and TABLE/report/.")
    ] = Path("ablations"),
    config: Annotated[str, Option(help="Base training: small, or any that disbench train takes.")] = "small",
    set_: Annotated[
        list[str] | None,
        Option("--set", help="Override an option of every row's training: option=value; may be repeated."),
    ] = None,
    steps: Annotated[
        int | None, Option(min=0, help="Steps of every row (default: the ablation's; 0: the base training's length).")
    ] = None,
    rows: Annotated[list[str] | None, Option(help="Only this row; may be repeated (default: all).")] = None,
    seeds: Annotated[
        list[int] | None, Option(min=0, help="Only this seed; may be repeated (default: the ablation's).")
    ] = None,
    dataset: Annotated[
        list[str] | None, Option(help="Measure on this dataset; may be repeated (default: the ablation's).")
    ] = None,
    every: Annotated[
        list[str] | None, Option(help="Use every n-th sample of a dataset, e.g. davis=3; may be repeated.")
    ] = None,
    limit: Annotated[int | None, Option(min=1, help="Use only the first N samples of each dataset.")] = None,
    stop_at: Annotated[
        float,
        Option(
            help="End a sample at this IoU: NoC and NoF up to it, and the IoU at click 1, stay exact; 0 gives every "
            "sample all its clicks."
        ),
    ] = 0.9,
    jobs: Annotated[int, Option(min=1, help="Rows and seeds to run at once; results do not depend on it.")] = 1,
    workers: Annotated[int, Option(min=1, help="Evaluation processes of each job.")] = 1,
    threads: Annotated[int, Option(min=1, help="Threads per process.")] = 1,
    device: Annotated[str, Option(help="torch device: cpu or cuda.")] = "cpu",
    make_shards: Annotated[
        bool, Option("--make-shards", help="Make missing shards where the ablation says how.")
    ] = False,
    report: Annotated[
        bool, Option("--report", help="Only report on finished rows; train and measure nothing.")
    ] = False,
    existing: ExistingOption = "resume",
    data: DataOption = None,
    _list: Annotated[
        bool,
        Option(
            "--list",
            callback=print_definitions("baselines/configs/ablations", _line),
            is_eager=True,
            help="List the ablations.",
        ),
    ] = False,
) -> None:
    """Train and measure the rows of a table at one budget, and compare signs with the paper; resumable."""
    from disbench.disnet.training import ablation  # noqa: PLC0415
    from disbench.reports.ablation.plans import chosen_datasets, load_plan  # noqa: PLC0415

    plan = load_plan(table)
    if report:
        done = ablation.report_on(plan, out)
    else:
        options = ablation.AblationOptions(
            config=config,
            changes=tuple(set_ or ()),
            steps=steps,
            rows=tuple(rows or ()),
            seeds=tuple(seeds or ()),
            datasets=chosen_datasets(plan, dataset or (), every or ()),
            data=data,
            make_shards=make_shards,
            stop_at=stop_at or None,
            limit=limit,
            workers=workers,
            threads=threads,
            device=device,
            jobs=jobs,
            existing=existing,
            progress=True,
            command=shlex.join(["disbench", *sys.argv[1:]]),
        )
        done = ablation.ablate(plan, out, options, say=typer.echo)
    for line in done.lines:
        typer.echo(line)
