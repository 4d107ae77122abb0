"""Commands for DISNet: train, methods profile, ablate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disbench.cli import options as common
from disbench.cli.options import Strings, arg, echo_lines, opt, out_path

if TYPE_CHECKING:
    from disbench.disnet.training.settings import Training
    from disbench.disnet.training.train import Benchmark

_VALIDATION_CLICKS = 5


def train(
    config: Annotated[str, arg("Name of a training (disbench train --list), or your own TOML file.")],
    out: Annotated[Path, out_path("Folder for the network, its checkpoint and its logs.")] = Path("training"),
    set_: Annotated[
        Strings, opt("Set an option: option=value or table.option=value; may be repeated.", "--set")
    ] = None,
    dry_run: Annotated[bool, opt("Check data, shapes and one step, then exit.", "--dry-run")] = False,
    until: Annotated[int, opt("Stop after this step, with a checkpoint; 0: train to the end.", min=0)] = 0,
    device: Annotated[str, opt("cpu or cuda (default: what accelerate finds).")] = "",
    threads: Annotated[int | None, opt("torch threads (default: torch's own).", min=1)] = None,
    existing: common.ExistingOption = "resume",
    data: common.DataOption = None,
    _list: Annotated[bool, common.list_option("baselines/configs", "List the trainings.")] = False,
) -> None:
    """Train a DISNet from shards; for several GPUs: `accelerate launch -m disbench train ...`."""
    from tqdm import tqdm

    from disbench.disnet.training import train as trainer
    from disbench.disnet.training.settings import load_training, resolved
    from disbench.workers import threads as thread_limits

    if threads is not None:
        thread_limits.limit(threads)
    training = resolved(load_training(config, set_ or []), data)
    if dry_run:
        for name, value in trainer.dry_run(training, out, device).items():
            typer.echo(f"{name:<24} {value if isinstance(value, str) else f'{value:,.6g}'}")
        return
    is_first = os.environ.get("RANK", "0") == "0"  # among the processes started by accelerate
    if is_first:
        trainer.begin(out, existing)
    benchmark = _benchmark(training, data) if training.validation else None
    with tqdm(unit="step", disable=None if is_first else True) as bar:

        def show(step: int, steps: int, figures: Mapping[str, float]) -> None:
            bar.total, bar.n = steps, step
            bar.set_postfix({name: f"{figures[name]:.3g}" for name in ("loss", "iou1", "iou2") if name in figures})

        result = trainer.train(training, out, benchmark=benchmark, report=show, device=device, until=until)
    path = result.checkpoint if result.checkpoint.is_file() else out
    if is_first:
        typer.echo(f"{path}: {result.steps} steps, {result.seconds:.0f} s in this call")


def _benchmark(training: Training, data: Path | None) -> Benchmark:
    """Benchmark of the network during training, in this process, with five clicks."""
    from disbench.datasets.cards import open_dataset
    from disbench.disnet.method import DisnetMethod
    from disbench.harness import evaluate

    source = open_dataset(training.validation, data, training.validation_options)
    every = max(1, len(source.ids) // training.validation_samples) if training.validation_samples else 1
    indices = range(0, len(source.ids), every)[: training.validation_samples or None]

    def run(method: DisnetMethod) -> Mapping[str, float]:
        samples = (source.read(index) for index in indices)
        results = evaluate(method, samples, max_clicks=_VALIDATION_CLICKS)
        curve = results.miou_curve()
        figures = {f"miou@{click}": float(value) for click, value in enumerate(curve, start=1)}
        return {**figures, **{f"noc@{t}": results.noc(t / 100) for t in (85, 90)}}

    return run


def profile(
    method: Annotated[str, arg("disnet: the paper's ViT-B; or a training (train --list, a TOML file).")] = "disnet",
    clicks: Annotated[int, opt("Number of clicks at the later click.", min=2)] = 5,
) -> None:
    """Print parameters and FLOPs of a DISNet by part, for the first and a later click."""
    from disbench.disnet.options import NetworkSettings
    from disbench.disnet.profile import flop_table
    from disbench.disnet.training.settings import load_training
    from disbench.reports.render import as_text

    settings = NetworkSettings() if method == "disnet" else load_training(method).network
    typer.echo(as_text(flop_table(settings, clicks)))


def _line(name: str, content: Mapping[str, Any]) -> str:
    return f"{name:<10} {content['title']}: {content['budget']}"


def ablate(
    table: Annotated[str, arg("An ablation: table2 ... table5 (see --list), or your own TOML file.")],
    out: Annotated[Path, out_path("Output folder; gets TABLE/ROW/seed-S/ and TABLE/report/.")] = Path("ablations"),
    config: Annotated[str, opt("Base training: small, or any that disbench train takes.")] = "small",
    set_: Annotated[Strings, opt("Option of every row's training: option=value; may be repeated.", "--set")] = None,
    steps: Annotated[int | None, opt("Steps of every row (default: the ablation's; 0: the training's).", min=0)] = None,
    rows: Annotated[Strings, opt("Only this row; may be repeated (default: all).")] = None,
    seeds: Annotated[list[int] | None, opt("Only this seed; may be repeated (default: the ablation's).", min=0)] = None,
    dataset: Annotated[Strings, opt("Measure on this dataset; may be repeated (default: the ablation's).")] = None,
    every: Annotated[Strings, opt("Use every n-th sample of a dataset, e.g. davis=3; may be repeated.")] = None,
    limit: Annotated[int | None, opt("Use only the first N samples of each dataset.", min=1)] = None,
    stop_at: Annotated[float, opt("End samples at this IoU: measures up to it stay exact; 0: all clicks.")] = 0.9,
    jobs: Annotated[int, opt("Rows and seeds to run at once; results do not depend on it.", min=1)] = 1,
    workers: Annotated[int, opt("Evaluation processes of each job.", min=1)] = 1,
    threads: common.ThreadsOption = 1,
    device: Annotated[str, opt("torch device: cpu or cuda.")] = "cpu",
    make_shards: Annotated[bool, opt("Make missing shards where the ablation says how.", "--make-shards")] = False,
    report: Annotated[bool, opt("Only report on finished rows; train and measure nothing.", "--report")] = False,
    existing: common.ExistingOption = "resume",
    data: common.DataOption = None,
    _list: Annotated[bool, common.list_option("baselines/configs/ablations", "List the ablations.", _line)] = False,
) -> None:
    """Train and measure the rows of a table at one budget, and compare signs with the paper; resumable."""
    from disbench.disnet.training import ablation
    from disbench.reports.ablation.plans import chosen_datasets, load_plan
    from disbench.reports.ablation.report import report_ablation

    plan = load_plan(table)
    if report:
        done = report_ablation(plan, out / plan.name)
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
            command=common.command_line(),
        )
        done = ablation.ablate(plan, out, options, say=typer.echo)
    echo_lines(done.lines)
