"""The commands of DISNet: train, methods profile."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from disbench.cli.options import DataOption, ExistingOption, described_line, local_path, print_definitions

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
    _list: Annotated[
        bool,
        Option(
            "--list",
            callback=print_definitions("baselines/configs", described_line),
            is_eager=True,
            help="List the trainings.",
        ),
    ] = False,
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
    from disbench.disnet.profile import profile_of, profile_table  # noqa: PLC0415
    from disbench.disnet.training.settings import load_training  # noqa: PLC0415
    from disbench.reports.render.table import as_text  # noqa: PLC0415

    settings = NetworkSettings() if method == "disnet" else load_training(method).network
    typer.echo(as_text(profile_table(profile_of(settings, clicks))))
