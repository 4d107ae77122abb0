"""The benchmark's commands: run, report, predict, data, methods."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disbench.cli.ambiguity import (
    FAILED_SAMPLES,
    ClicksOption,
    ImagesOption,
    MinMembersOption,
    MoveOption,
    SetOptions,
    SetsOption,
    ShardsOption,
    Task,
    TaskOption,
    say_answers,
    set_task,
)
from disbench.cli.options import (
    AddressOption,
    DataOption,
    EngineName,
    EngineOption,
    Existing,
    ExistingOption,
    MethodOption,
    SetOption,
    WorkersOption,
    local_path,
    path,
    say,
)
from disbench.io import addresses

if TYPE_CHECKING:
    from disbench.core.samples import SampleSource

_BAD_INPUT = 2


class Selection(StrEnum):
    """How one of several candidates is kept."""

    ORACLE_FIRST = "oracle-first"
    ORACLE_ALL = "oracle-all"
    SCORE = "score"


class Store(StrEnum):
    """Which masks a run stores."""

    NONE = "none"
    KEPT = "kept"
    ALL = "all"


class MethodStatus(StrEnum):
    """How a method can be run."""

    NATIVE = "native"
    BRIDGE = "bridge"
    PUBLISHED_ONLY = "published-only"


class InitialMasks(StrEnum):
    """What to do with initial masks."""

    USE = "use"
    IGNORE = "ignore"


def _show_protocols(asked: bool) -> None:
    if asked:
        from disbench.harness.presets import list_presets  # noqa: PLC0415

        for line in list_presets():
            typer.echo(line)
        raise typer.Exit


def run(
    method: MethodOption,
    out: Annotated[
        str,
        typer.Option("--out", metavar="<path>", help="Folder of the run: a path or an address (s3://...)."),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Name of a card (disbench data list), your own card.toml, or a folder.",
        ),
    ] = None,
    task: TaskOption = Task.TARGETS,
    shards: ShardsOption = None,
    images: ImagesOption = None,
    sets: SetsOption = None,
    min_members: MinMembersOption = 1,
    clicks: ClicksOption = 1,
    move: MoveOption = 3,
    set_: SetOption = None,
    dataset_option: Annotated[
        list[str] | None,
        typer.Option("--dataset-option", help="Set an option of the dataset: option=value; may be repeated."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="Evaluate as the code of a paper does (--list-protocols), or as your own protocol.toml says; other "
            "options come before it.",
        ),
    ] = "ritm",
    selection: Annotated[
        Selection | None,
        typer.Option(
            "--selection",
            help="Which candidate is kept: the best by IoU with the target at click 1 (then the method's own choice), "
            "the best at every click, or the method's highest score (default: the protocol's, oracle-first).",
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="How clicks are simulated: center (standard), random, jitter:sigma=0.3, scipy-center, removed-center; "
            "or recorded clicks: replay:FILE or replay:FILE,user=NAME (default: the protocol's).",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, help="Seed of the policies that draw, of the draw of sets and clicks."),
    ] = 0,
    max_clicks: Annotated[
        int | None,
        typer.Option(
            "--max-clicks",
            min=1,
            help="Clicks a sample gets; a method with a budget of points answers once (default: the protocol's, 20).",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="A pixel belongs to a mask above this probability (default: the card's)."),
    ] = None,
    stop_at: Annotated[
        float | None,
        typer.Option("--stop-at", help="End a sample at this IoU; saves time, and no curve can be drawn."),
    ] = None,
    initial_masks: Annotated[
        InitialMasks,
        typer.Option("--initial-masks", help="Begin from a sample's initial mask where it has one."),
    ] = InitialMasks.USE,
    every: Annotated[int, typer.Option("--every", min=1, help="Only every so-many-th sample.")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many samples.")] = None,
    workers: WorkersOption = None,
    engine: EngineOption = EngineName.LOCAL,
    address: AddressOption = None,
    gpus_per_worker: Annotated[
        float,
        typer.Option("--gpus-per-worker", min=0, help="GPUs that Ray keeps for each worker; 0.5 lets two share one."),
    ] = 0.0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of each process's libraries.")] = 1,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Samples in lockstep, for methods with predict_batch.")
    ] = 1,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0, help="Seconds one call of the method may take; 0 waits for ever."),
    ] = 60.0,
    store: Annotated[Store, typer.Option("--store", help="Which masks to store in the rows.")] = Store.NONE,
    existing: ExistingOption = Existing.RESUME,
    data: DataOption = None,
    _list: Annotated[
        bool,
        typer.Option("--list-protocols", callback=_show_protocols, is_eager=True, help="List the protocols."),
    ] = False,
) -> None:
    """Run a method on a dataset: one row a click, resumable; then see `disbench report`.

    With --task diverse or intents: on the diverse sets of --shards; then see `disbench ambiguity`.
    """
    from disbench.baselines.cards import method_spec  # noqa: PLC0415
    from disbench.datasets.cards import open_dataset  # noqa: PLC0415
    from disbench.harness.presets import STANDARD, load_preset  # noqa: PLC0415
    from disbench.harness.protocol import Protocol  # noqa: PLC0415
    from disbench.harness.record import Execution  # noqa: PLC0415
    from disbench.harness.run import JOB_FILES, run_benchmark, run_diverse  # noqa: PLC0415
    from disbench.harness.store import RUN  # noqa: PLC0415
    from disbench.io.outputs import output  # noqa: PLC0415
    from disbench.workers import open_engine  # noqa: PLC0415

    spec = method_spec(method, set_ or [])
    preset = load_preset(protocol)
    asked = SetOptions(task, shards, images, sets, min_members, seed, data)
    asked.check(
        dataset is not None or bool(dataset_option),
        {
            "--protocol": protocol != STANDARD,
            "--selection": selection is not None,
            "--policy": policy is not None,
            "--max-clicks": max_clicks is not None,
            "--stop-at": stop_at is not None,
        },
        spec.budget,
    )
    own = spec.threshold if preset.threshold is None else preset.threshold
    conduct = Protocol(
        max_clicks=1 if spec.budget else max_clicks or preset.max_clicks,
        budget=spec.budget,
        threshold=own if threshold is None else threshold,
        selection=selection.value if selection else preset.selection,
        policy=policy or preset.policy,
        preset="" if protocol == STANDARD else preset.name,
        preset_values={} if protocol == STANDARD else preset.as_dict(),
        seed=seed,
        stop_at=stop_at,
        initial_masks=initial_masks is InitialMasks.USE,
    )
    where = open_engine(
        engine.value, workers, address=address, cores_per_worker=threads, gpus_per_worker=gpus_per_worker
    )
    execution = Execution(where.workers, threads, batch, timeout or None, store.value)
    with output(out, JOB_FILES, last=RUN, existing=existing.value) as place:
        how: dict[str, Any] = {
            "engine": where,
            "every": every,
            "limit": limit,
            "existing": existing.value,
            "command": _command(),
            "progress": True,
            "grown": place.save,
        }
        if task is Task.DIVERSE:
            answers = set_task(clicks, seed, move, conduct.threshold, store.value)
            told = run_diverse(spec, asked.sets_source(), place.folder, answers, execution, **how)
            say_answers(out, told)
            return
        if dataset is None:  # checked with the task
            source: SampleSource = asked.intents()
        else:
            source = open_dataset(dataset, data, [*preset.reading(dataset), *(dataset_option or [])])
        finished = run_benchmark(spec, source, place.folder, conduct, execution, **how)
        figures = preset.figures(finished) if conduct.preset and not conduct.budget else ""
    result = finished.record.result
    typer.echo(
        f"{out}: {result.samples} samples, {result.clicks} clicks; method {result.model_seconds:.1f} s, "
        f"harness {result.harness_seconds:.1f} s, wall {result.wall_seconds:.1f} s; next: disbench "
        f"{'ambiguity' if task is Task.INTENTS else 'report'} {out}"
    )
    if figures:
        typer.echo(figures)
    if result.failed:
        first = result.failed[0]
        typer.echo(
            f"the method failed on {len(result.failed)} of {result.samples} samples, whose IoU counts as 0 from "
            f"that click on; the first: {first.sample}, click {first.click}: {first.reason}",
            err=True,
        )
        raise typer.Exit(FAILED_SAMPLES)


def predict(
    image: Annotated[Path, typer.Argument(parser=path, help="The image.")],
    method: MethodOption,
    out: Annotated[Path, typer.Option("--out", parser=local_path, help="The mask: a PNG of 0 and 255.")],
    click: Annotated[
        list[str] | None,
        typer.Option(
            "--click",
            help="x,y,+ (on the object) or x,y,- (background), pixels from the top left; may be repeated.",
        ),
    ] = None,
    recorded: Annotated[
        str | None,
        typer.Option("--recorded", help="Take recorded clicks instead: FILE.parquet or FILE.parquet,user=NAME."),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option("--sample", help="Whose recorded clicks, where the file has several samples."),
    ] = None,
    set_: SetOption = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", min=0, help="Candidate that the first click means, from 0 (default: the highest score)."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="A pixel belongs to a mask above this probability (default: the card's)."),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Also write every candidate and an overlay beside it, and print the scores."),
    ] = False,
) -> None:
    """Segment one image by clicks."""
    from disbench.baselines.cards import method_spec  # noqa: PLC0415
    from disbench.core.errors import InputError  # noqa: PLC0415
    from disbench.core.painting import overlay  # noqa: PLC0415
    from disbench.datasets.images import read_rgb  # noqa: PLC0415
    from disbench.harness.predict import parse_click, write_png  # noqa: PLC0415
    from disbench.harness.predict import predict as answer_to  # noqa: PLC0415
    from disbench.harness.replay import recorded_clicks  # noqa: PLC0415

    if (recorded is None) == (not click) or (sample is not None and recorded is None):
        raise InputError("give clicks, either by --click or by --recorded (with --sample where it has several)")
    clicks = [parse_click(text) for text in click or ()] if recorded is None else recorded_clicks(recorded, sample)
    photo = addresses.here(image)
    pixels = read_rgb(photo)
    if out.exists() and out.samefile(photo):
        raise InputError(f"{out}: this is the image itself, and would be lost; name another file with --out")
    spec = method_spec(method, set_ or [])
    answer = answer_to(
        spec.build(),
        pixels,
        clicks,
        threshold=spec.threshold if threshold is None else threshold,
        keep=keep,
        budget=spec.budget,
    )
    write_png(out, answer.mask)
    typer.echo(f"{out}: {int(answer.mask.sum())} pixels")
    if every:
        scores = answer.candidates.scores
        for number, mask in enumerate(answer.candidates.masks):
            beside = out.with_name(f"{out.stem}-candidate-{number}{out.suffix}")
            write_png(beside, mask)
            score = "no score" if scores is None else f"score {scores[number]:.4f}"
            typer.echo(f"{beside}: {int(mask.sum())} pixels, {score}{', kept' if number == answer.kept else ''}")
        beside = out.with_name(f"{out.stem}-overlay{out.suffix}")
        write_png(beside, overlay(pixels, [answer.mask], clicks))
        typer.echo(f"{beside}: the mask and the clicks on the image")


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            parser=path, help="Folders of finished runs, packed runs, or folders that have some below them."
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="<path>", help="Folder for the report: a path or an address.")
    ] = "report",
    page: Annotated[
        bool, typer.Option("--page", help="Also write leaderboard.html: one file, to sort, filter and hover.")
    ] = False,
    failures: Annotated[
        int,
        typer.Option(
            "--failures",
            min=0,
            max=20,
            help="With --page: show so many samples of each run that are never solved, and as many solved late.",
        ),
    ] = 0,
    data: DataOption = None,
) -> None:
    """Make tables (Markdown, CSV, LaTeX), curves (PNG, SVG) and the leaderboard (HTML) from stored runs."""
    from disbench.core.errors import InputError  # noqa: PLC0415
    from disbench.io.outputs import output  # noqa: PLC0415
    from disbench.reports.failures import failure_pictures  # noqa: PLC0415
    from disbench.reports.report import FILES, make_report  # noqa: PLC0415

    if failures and not page:
        raise InputError("--failures goes with --page: the pictures are for leaderboard.html")
    folders = [addresses.here(run) for run in runs]
    pictures = failure_pictures(folders, data, failures) if failures else None
    with output(out, FILES) as place:
        lines = make_report(folders, place.folder, page=page, pictures=pictures).lines
    for line in lines:
        say(line)


data_app = typer.Typer(help="Datasets: what is here, is it whole, get it.", no_args_is_help=True)
methods_app = typer.Typer(help="Methods: their cards and weights.", no_args_is_help=True)
DatasetArgument = Annotated[str, typer.Argument(help="Name of a card, or your own card.toml.")]
CardArgument = Annotated[str, typer.Argument(help="Name of a card, or your own card.toml.")]


@data_app.command("list")
def data_list(data: DataOption = None) -> None:
    """List every dataset that has a card, and whether it is here."""
    from disbench.datasets.verify import list_datasets  # noqa: PLC0415

    for listing in list_datasets(data):
        say(listing.line())


@data_app.command("verify")
def data_verify(
    dataset: Annotated[str, typer.Argument(help="Name of a card, your own card.toml, or a folder.")],
    dataset_option: Annotated[
        list[str] | None,
        typer.Option("--dataset-option", help="Set an option of the dataset: option=value; may be repeated."),
    ] = None,
    data: DataOption = None,
) -> None:
    """Read all of a dataset and compare it with its card: counts, sizes, content hash."""
    from disbench.datasets.verify import verify  # noqa: PLC0415

    found = verify(dataset, data, dataset_option or [], progress=True)
    for line in found.lines():
        say(line, err=not found.whole)
    if not found.whole:
        raise typer.Exit(_BAD_INPUT)


@data_app.command("fetch")
def data_fetch(
    dataset: DatasetArgument,
    no_hash: Annotated[
        bool, typer.Option("--no-hash", help="Take files that the card has no SHA-256 for; it is printed.")
    ] = False,
    existing: ExistingOption = Existing.RESUME,
    data: DataOption = None,
) -> None:
    """Download a dataset from its card's addresses, checked and resumable."""
    from disbench.datasets.fetch import fetch  # noqa: PLC0415

    for line in fetch(dataset, data, unverified=no_hash, existing=existing.value, progress=True):
        typer.echo(line)


@methods_app.command("list")
def methods_list(
    status: Annotated[
        MethodStatus | None,
        typer.Option("--status", help="Only the methods that run here, over the bridge, or not at all."),
    ] = None,
) -> None:
    """List every system that has a card, as a table."""
    from disbench.baselines.listing import list_methods  # noqa: PLC0415

    for line in list_methods(status.value if status else None):
        typer.echo(line)


@methods_app.command("show")
def methods_show(method: CardArgument) -> None:
    """Show all that a card knows, what is published of the method, and the commands that run it."""
    from disbench.baselines.cards import load_card  # noqa: PLC0415
    from disbench.baselines.listing import show_method  # noqa: PLC0415
    from disbench.reports.paper.published import published_lines  # noqa: PLC0415

    names = load_card(method).published
    for line in show_method(method, [line for name in names for line in published_lines(name)]):
        typer.echo(line)


@methods_app.command("fetch")
def methods_fetch(method: CardArgument) -> None:
    """Get a method's weights, checked by SHA-256."""
    from disbench.baselines.cards import load_card  # noqa: PLC0415
    from disbench.baselines.weights import fetch  # noqa: PLC0415

    for line in fetch(load_card(method)):
        typer.echo(line)


def _command() -> str:
    """What the user typed, without the folders of this machine in the program's own name."""
    return shlex.join(["disbench", *sys.argv[1:]])


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(run)
    app.command()(report)
    app.command()(predict)
    app.add_typer(data_app, name="data")
    app.add_typer(methods_app, name="methods")
