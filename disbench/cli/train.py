"""The commands of DISNet: train, methods profile, ablate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from disbench.cli.options import DataOption, ExistingOption, command_line, list_option, local_path, say_all

if TYPE_CHECKING:
    from disbench.disnet.training.settings import Training
    from disbench.disnet.training.train import Benchmark

_VALIDATION_CLICKS = 5


def train(
    config: Annotated[str, Argument(help="Name of a training (disbench train --list), or your own TOML file.")],
    out: Annotated[Path, Option(parser=local_path, help="Folder for the network, its checkpoint and its logs.")] = Path(
        "training"
    ),
    set_: Annotated[
        list[str] | None,
        Option("--set", help="Override an option: option=value or table.option=value; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Check data, shapes and one step, then exit.")] = False,
    until: Annotated[int, Option(min=0, help="Stop after this step, with a checkpoint; 0: train to the end.")] = 0,
    device: Annotated[str, Option(help="cpu or cuda (default: what accelerate finds).")] = "",
    threads: Annotated[int | None, Option(min=1, help="torch threads (default: torch's own).")] = None,
    existing: ExistingOption = "resume",
    data: DataOption = None,
    _list: Annotated[bool, list_option("baselines/configs", "List the trainings.")] = False,
) -> None:
    """Train a DISNet from shards; for several GPUs: `accelerate launch -m disbench train ...`."""
    from tqdm import tqdm  # noqa: PLC0415

    from disbench.disnet.training import train as training_of  # noqa: PLC0415
    from disbench.disnet.training.settings import load_training, resolved  # noqa: PLC0415
    from disbench.workers import threads as cores  # noqa: PLC0415

    if threads is not None:
        cores.limit(threads)
    training = resolved(load_training(config, set_ or []), data)
    if dry_run:
        for name, value in training_of.dry_run(training, out, device).items():
            typer.echo(f"{name:<24} {value if isinstance(value, str) else f'{value:,.6g}'}")
        return
    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that accelerate launched
    if is_first:
        training_of.begin(out, existing)
    benchmark = _benchmark(training, data) if training.validation else None
    with tqdm(unit="step", disable=None if is_first else True) as bar:

        def show(step: int, steps: int, figures: Mapping[str, float]) -> None:
            bar.total, bar.n = steps, step
            bar.set_postfix({name: f"{figures[name]:.3g}" for name in ("loss", "iou1", "iou2") if name in figures})

        result = training_of.train(training, out, benchmark=benchmark, report=show, device=device, until=until)
    place = result.checkpoint if result.checkpoint.is_file() else out
    if is_first:
        typer.echo(f"{place}: {result.steps} steps, {result.seconds:.0f} s in this call")


def _benchmark(training: Training, data: Path | None) -> Benchmark:
    """A benchmark run of the network in training, in this process, to five clicks."""
    from disbench.datasets.cards import open_dataset  # noqa: PLC0415
    from disbench.disnet.method import DisnetMethod  # noqa: PLC0415
    from disbench.harness import evaluate  # noqa: PLC0415

    source = open_dataset(training.validation, data, training.validation_options)
    every = max(1, len(source.ids) // training.validation_samples) if training.validation_samples else 1
    numbers = range(0, len(source.ids), every)[: training.validation_samples or None]

    def run(method: DisnetMethod) -> Mapping[str, float]:
        chosen = (source.read(number) for number in numbers)
        results = evaluate(method, chosen, max_clicks=_VALIDATION_CLICKS)
        curve = results.miou_curve()
        figures = {f"miou@{click}": float(value) for click, value in enumerate(curve, start=1)}
        return {**figures, **{f"noc@{t}": results.noc(t / 100) for t in (85, 90)}}

    return run


def profile(
    method: Annotated[
        str, Argument(help="disnet: the paper's ViT-B; or a training (disbench train --list, a TOML file).")
    ] = "disnet",
    clicks: Annotated[int, Option(min=2, help="Number of clicks at the later click.")] = 5,
) -> None:
    """Print parameters and FLOPs of a DISNet by part, for the first and a later click."""
    from disbench.disnet.options import NetworkSettings  # noqa: PLC0415
    from disbench.disnet.profile import profile_of  # noqa: PLC0415
    from disbench.disnet.training.settings import load_training  # noqa: PLC0415
    from disbench.reports.render.table import as_text  # noqa: PLC0415

    settings = NetworkSettings() if method == "disnet" else load_training(method).network
    typer.echo(as_text(profile_of(settings, clicks)))


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
    _list: Annotated[bool, list_option("baselines/configs/ablations", "List the ablations.", _line)] = False,
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
            command=command_line(),
        )
        done = ablation.ablate(plan, out, options, say=typer.echo)
    say_all(done.lines)
