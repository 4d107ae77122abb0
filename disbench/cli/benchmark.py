"""The benchmark's commands: run, report, predict, data, methods."""

from __future__ import annotations

import contextlib
import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from disbench.cli.ambiguity import ImagesOption, SetOptions, Task, say_failed
from disbench.cli.options import (
    BAD_INPUT,
    AddressOption,
    DataOption,
    DatasetSetOption,
    EngineOption,
    ExifOption,
    ExistingOption,
    MethodOption,
    SetOption,
    ThresholdOption,
    VariantOption,
    WorkersOption,
    command_line,
    echo_left_out,
    local_path,
    path,
    say,
    say_all,
)
from disbench.core.choices import Granularity, MethodStatus, Selection, Store
from disbench.io import addresses

if TYPE_CHECKING:
    from disbench.core.samples import SampleSource
    from disbench.harness.record import Result


def _show_protocols(asked: bool) -> None:
    if asked:
        from disbench.harness.presets import list_presets  # noqa: PLC0415

        say_all(list_presets())
        raise typer.Exit


def run(
    method: MethodOption,
    out: Annotated[str, Option(metavar="<path>", help="Folder of the run: a path or an address (s3://...).")],
    dataset: Annotated[
        str | None, Option(help="Name of a card (disbench data list), your own card.toml, or a folder.")
    ] = None,
    task: Annotated[
        Task,
        Option(
            help="targets: clicks on single targets of --dataset; diverse: how well the candidates for a first "
            "click cover all that it may mean, on --shards; intents: one first click for each mask of a set in turn; "
            "first-clicks: the standard first click and all recorded ones of --policy replay:FILE, on --dataset."
        ),
    ] = "targets",
    shards: Annotated[
        Path | None, Option(parser=path, help="Folder of shards, for --task diverse and intents.")
    ] = None,
    images: ImagesOption = None,
    sets: Annotated[
        int | None, Option(min=1, help="Number of sets, drawn at random with --seed (default: all).")
    ] = None,
    min_members: Annotated[int, Option(min=1, help="Only sets with at least this many masks.")] = 1,
    split: Annotated[
        str | None, Option(help="Only the sets of a frozen split, in its order: a name, or your own NAME.jsonl.")
    ] = None,
    clicks: Annotated[int, Option(min=1, help="With --task diverse: first clicks per set.")] = 1,
    move: Annotated[
        int,
        Option(
            min=0,
            help="With --task diverse: also move each click by this many pixels in 8 directions to test stability; 0: "
            "off.",
        ),
    ] = 3,
    granularity: Annotated[
        Granularity,
        Option(
            help="With --task intents, for methods that take the size of the wanted mask relative to its whole: tell "
            "them nothing, the truth, or that one of ten which needs the fewest clicks to an IoU of 0.90 (or 0.85)."
        ),
    ] = "none",
    variant: VariantOption = None,
    set_: SetOption = None,
    dataset_option: DatasetSetOption = None,
    protocol: Annotated[
        str,
        Option(
            help="Evaluate as the code of a paper does (--list-protocols), or as your own protocol.toml says; other "
            "options come before it."
        ),
    ] = "ritm",
    selection: Annotated[
        Selection | None,
        Option(
            help="Which candidate is kept: the best by IoU with the target at click 1 (then the method's own choice), "
            "the best at every click, or the method's highest score (default: the protocol's, oracle-first)."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        Option(
            help="How clicks are simulated: center (standard), random, jitter:sigma=0.3, scipy-center, removed-center, "
            "slice:group=1 (the shallowest of ten depths), worst or best (of 16 clicks, by its answers); slices:10 or "
            "extremes:16: center and all of these, each a run below --out; or recorded clicks: replay:FILE or "
            "replay:FILE,user=NAME (default: the protocol's)."
        ),
    ] = None,
    seed: Annotated[int, Option(min=0, help="Seed of random policies, and of the choice of sets and clicks.")] = 0,
    max_clicks: Annotated[
        int | None,
        Option(
            min=1,
            help="Clicks per sample (default: the protocol's, 20; 5 with worst and best); a method with a budget of "
            "points answers once.",
        ),
    ] = None,
    threshold: ThresholdOption = None,
    stop_at: Annotated[
        float | None, Option(help="End a sample at this IoU: faster, but no curve can be drawn.")
    ] = None,
    initial_masks: Annotated[
        Literal["use", "ignore"], Option("--initial-masks", help="Start from a sample's initial mask where it has one.")
    ] = "use",
    every: Annotated[int, Option(min=1, help="Use every n-th sample.")] = 1,
    limit: Annotated[int | None, Option(min=1, help="Use only the first N samples.")] = None,
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    gpus_per_worker: Annotated[float, Option(min=0, help="GPUs per worker on Ray; with 0.5, two share one.")] = 0.0,
    threads: Annotated[int, Option(min=1, help="Threads per process.")] = 1,
    batch: Annotated[int, Option(min=1, help="Samples in lockstep, for methods with predict_batch.")] = 1,
    timeout: Annotated[float, Option(min=0, help="Seconds that one call of the method may take; 0: no limit.")] = 60.0,
    store: Annotated[Store, Option(help="Which masks to store in the rows.")] = "none",
    existing: ExistingOption = "resume",
    data: DataOption = None,
    _list: Annotated[
        bool, Option("--list-protocols", callback=_show_protocols, is_eager=True, help="List the protocols.")
    ] = False,
) -> None:
    """Run a method on a dataset, resumable; then see `disbench report`.

    With --task diverse or intents: on the diverse sets of --shards; then see `disbench ambiguity`.
    """
    from disbench.baselines.cards import method_spec  # noqa: PLC0415
    from disbench.core.click_policies import series, usual_clicks  # noqa: PLC0415
    from disbench.datasets.cards import open_dataset  # noqa: PLC0415
    from disbench.harness.presets import STANDARD, load_preset  # noqa: PLC0415
    from disbench.harness.protocol import SetProtocol  # noqa: PLC0415
    from disbench.harness.record import Execution  # noqa: PLC0415
    from disbench.harness.run import JOB_FILES, run_benchmark, run_diverse, run_policies  # noqa: PLC0415
    from disbench.harness.sample_loop import TRIALS  # noqa: PLC0415
    from disbench.harness.set_source import IntentSource  # noqa: PLC0415
    from disbench.harness.set_task import SetTask  # noqa: PLC0415
    from disbench.harness.store import CLICKS, RUN  # noqa: PLC0415
    from disbench.io.outputs import output  # noqa: PLC0415
    from disbench.workers import open_engine  # noqa: PLC0415

    spec = method_spec(method, [*_of_variant(method, variant), *(set_ or [])])
    preset = load_preset(protocol)
    asked = SetOptions(task, shards, images, sets, min_members, split, seed, data)
    asked.check(
        dataset is not None or bool(dataset_option),
        {
            "--protocol": protocol != STANDARD,
            "--selection": selection is not None,
            "--policy": policy is not None,
            "--max-clicks": max_clicks is not None,
            "--stop-at": stop_at is not None,
            "--granularity": granularity != "none",
        },
        spec.budget,
    )
    policies = [str(one) for one in series(policy or "")]
    conduct = preset.conduct(
        spec,
        max_clicks=max_clicks or usual_clicks(policy or ""),
        threshold=threshold,
        selection=selection,
        policy=policies[0] if policies else policy,
        granularity=granularity,
        seed=seed,
        stop_at=stop_at,
        initial_masks=initial_masks == "use",
    )
    where = open_engine(engine, workers, address=address, cores_per_worker=threads, gpus_per_worker=gpus_per_worker)
    execution = Execution(where.workers, threads, batch, timeout or None, store)
    names = (*JOB_FILES, "*/" + RUN, "*/" + CLICKS, "*/" + TRIALS) if policies else JOB_FILES
    with output(out, names, last="" if policies else RUN, existing=existing) as place:
        how: dict[str, Any] = {
            "engine": where,
            "every": every,
            "limit": limit,
            "existing": existing,
            "command": command_line(),
            "progress": True,
            "grown": place.save,
        }
        if task == "diverse":  # no candidate is kept, so kept masks are all masks
            wanted = SetTask(SetProtocol(clicks, seed, move, conduct.threshold), "none" if store == "none" else "all")
            told = run_diverse(spec, asked.sets_source(), place.folder, wanted, execution, **how).record.result
            _say_result(out, told, "sets", "clicks (moved ones among them)", "ambiguity")
            say_failed(told, "sets", "count as not covered")
            return
        if dataset is None:  # checked with the task
            source: SampleSource = IntentSource(asked.sets_source())
        else:
            source = open_dataset(dataset, data, [*preset.reading(dataset), *(dataset_option or [])])
        if task == "first-clicks":
            _first_clicks(out, spec, source, place.folder, conduct, execution, how)
            return
        if policies:
            runs = run_policies(spec, source, place.folder, conduct, policies, execution, **how)
            for one in runs:
                _say_result(f"{out.rstrip('/')}/{one.folder.name}", one.record.result, "samples", "clicks", "report")
            echo_left_out(runs[0].record.dataset.facts.get("left_out", {}))
            for one in runs:
                say_failed(one.record.result, "samples", "count with an IoU of 0")
            return
        finished = run_benchmark(spec, source, place.folder, conduct, execution, **how)
        figures = preset.figures(finished) if conduct.preset and not conduct.budget else ""
    result = finished.record.result
    _say_result(out, result, "samples", "clicks", "ambiguity" if task == "intents" else "report")
    echo_left_out(finished.record.dataset.facts.get("left_out", {}))
    if figures:
        typer.echo(figures)
    verify = "" if dataset is None else f" (disbench data verify {shlex.quote(dataset)} finds all)"
    say_failed(result, "samples", "count with an IoU of 0", verify)


def _first_clicks(out: str, *given: Any) -> None:
    """Run the task `first-clicks` with the arguments of `run_first_clicks`."""
    from disbench.harness.run import run_first_clicks  # noqa: PLC0415

    *arguments, how = given
    told = run_first_clicks(*arguments, **how).record.result
    _say_result(out, told, "samples", "first clicks", "report")
    say_failed(told, "samples", "count with an IoU of 0")


def _of_variant(method: str, variant: str | None) -> list[str]:
    """The options of a method that `--variant` sets."""
    if variant is None:
        return []
    from disbench.baselines.installs import overrides, require_installed  # noqa: PLC0415

    return overrides(require_installed(method, variant))


def _say_result(out: str, result: Result, samples: str, clicks: str, command: str) -> None:
    typer.echo(
        f"{out}: {result.samples} {samples}, {result.clicks} {clicks}; method {result.model_seconds:.1f} s, "
        f"harness {result.harness_seconds:.1f} s, wall {result.wall_seconds:.1f} s; next: disbench {command} {out}"
    )


def predict(
    image: Annotated[Path, Argument(parser=path, help="The image.")],
    method: MethodOption,
    out: Annotated[Path, Option(parser=local_path, help="Mask to write: a PNG with values 0 and 255.")],
    click: Annotated[
        list[str] | None,
        Option(help="x,y,+ (on the object) or x,y,- (background), pixels from the top left; may be repeated."),
    ] = None,
    recorded: Annotated[
        str | None, Option(help="Use recorded clicks instead: FILE.parquet or FILE.parquet,user=NAME.")
    ] = None,
    sample: Annotated[str | None, Option(help="Sample whose recorded clicks to use, if the file has several.")] = None,
    variant: VariantOption = None,
    set_: SetOption = None,
    keep: Annotated[
        int | None,
        Option(min=0, help="Candidate to keep after the first click, counted from 0 (default: the highest score)."),
    ] = None,
    threshold: ThresholdOption = None,
    every: Annotated[
        bool, Option("--all", help="Also write every candidate and an overlay, and print scores.")
    ] = False,
    exif: ExifOption = "ignore",
) -> None:
    """Segment one image by clicks."""
    from disbench.baselines.cards import method_spec  # noqa: PLC0415
    from disbench.core.errors import InputError  # noqa: PLC0415
    from disbench.core.painting import overlay  # noqa: PLC0415
    from disbench.datasets.images import read_rgb, turned  # noqa: PLC0415
    from disbench.harness.predict import parse_click, write_png  # noqa: PLC0415
    from disbench.harness.predict import predict as answer_to  # noqa: PLC0415
    from disbench.harness.replay import recorded_clicks  # noqa: PLC0415

    if (recorded is None) == (not click) or (sample is not None and recorded is None):
        raise InputError("give clicks, either by --click or by --recorded (with --sample where it has several)")
    clicks = [parse_click(text) for text in click or ()] if recorded is None else recorded_clicks(recorded, sample)
    photo = addresses.here(image)
    pixels = read_rgb(photo, exif)
    if exif == "ignore" and (note := turned([photo], "--exif apply turns them")):
        say(note, err=True)
    if out.exists() and out.samefile(photo):
        raise InputError(f"{out}: this is the image itself, and would be lost; name another file with --out")
    spec = method_spec(method, [*_of_variant(method, variant), *(set_ or [])])
    cut = spec.threshold if threshold is None else threshold
    with contextlib.chdir(os.curdir):  # a method may go to another folder
        answer = answer_to(spec.build(), pixels, clicks, threshold=cut, keep=keep, budget=spec.budget)
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


def speed(
    method: MethodOption,
    image: Annotated[
        Path | None, Option(parser=path, help="The image (default: the first of the embedded photos).")
    ] = None,
    variant: VariantOption = None,
    set_: SetOption = None,
    _protocol: Annotated[
        Literal["sat"], Option("--protocol", help="sat: open, and 256 first clicks on a 16 x 16 grid (SegNext).")
    ] = "sat",
    repeats: Annotated[int, Option(min=1, help="Repeats, after a warm-up; the median and the range are shown.")] = 5,
    clicks: Annotated[int, Option(min=1, max=256, help="Clicks of the loop that is timed click by click.")] = 20,
    threads: Annotated[int, Option(min=1, help="Threads of this process.")] = 1,
) -> None:
    """Time a method on one image: SAT latency, and milliseconds by the number of the click."""
    from disbench.baselines.cards import method_spec  # noqa: PLC0415
    from disbench.core.errors import InputError  # noqa: PLC0415
    from disbench.datasets.cards import open_dataset  # noqa: PLC0415
    from disbench.datasets.images import read_rgb  # noqa: PLC0415
    from disbench.harness.run import processor, versions_of  # noqa: PLC0415
    from disbench.harness.speed import measure_speed, picture_hash  # noqa: PLC0415
    from disbench.workers.threads import limit  # noqa: PLC0415

    limit(threads)
    spec = method_spec(method, [*_of_variant(method, variant), *(set_ or [])])
    if spec.budget:
        raise InputError(f"{spec.name}: it gets all points at once, and a speed by clicks it does not have")
    pixels = open_dataset("photos", None).read(0).image if image is None else read_rgb(addresses.here(image), "ignore")
    with contextlib.chdir(os.curdir):  # a method may go to another folder
        made = spec.build()
        found = measure_speed(made, pixels, repeats=repeats, clicks=clicks)
    options = ", ".join(f"{name}={value}" for name, value in spec.options.items())
    say(f"{spec.name} ({options})" if options else spec.name)
    say_all(found.lines())
    versions = {**versions_of(spec), **getattr(made, "versions", {})}
    say(f"image {pixels.shape[1]} x {pixels.shape[0]}, SHA-256 of its pixels {picture_hash(pixels)}")
    say(f"{repeats} repeats, {threads} {'thread' if threads == 1 else 'threads'}, {processor()}")
    say(", ".join(f"{name} {version}" for name, version in versions.items()))


def report(
    runs: Annotated[list[Path], Argument(parser=path, help="Runs, packed runs, or folders that contain them.")],
    out: Annotated[str, Option(metavar="<path>", help="Folder for the report: a path or an address.")] = "report",
    page: Annotated[
        bool, Option("--page", help="Also write leaderboard.html: one file to sort, filter and hover.")
    ] = False,
    failures: Annotated[
        int,
        Option(
            min=0,
            max=20,
            help="With --page: show this many samples per run that are never solved, and as many that are solved late.",
        ),
    ] = 0,
    data: DataOption = None,
) -> None:
    """Make tables (Markdown, CSV, LaTeX), curves (PNG, SVG) and a leaderboard page (HTML) from stored runs."""
    from disbench.core.errors import InputError  # noqa: PLC0415
    from disbench.io.outputs import output  # noqa: PLC0415
    from disbench.reports.failures import failure_pictures  # noqa: PLC0415
    from disbench.reports.report import FILES, make_report  # noqa: PLC0415

    if failures and not page:
        raise InputError("--failures goes with --page: the pictures are for leaderboard.html")
    folders = [addresses.here(run) for run in runs]
    pictures = partial(failure_pictures, data=data, samples=failures) if failures else None
    with output(out, FILES) as place:
        lines = make_report(folders, place.folder, page=page, pictures=pictures).lines
    say_all(lines)


data_app = typer.Typer(help="List, check and fetch datasets.", no_args_is_help=True)
methods_app = typer.Typer(help="List methods, show their cards, install and check them.", no_args_is_help=True)
CardArgument = Annotated[str, Argument(help="Name of a card, or your own card.toml.")]
WhichOption = Annotated[
    str, Option("--variant", help="One of the card's trained networks (disbench methods show; default: its first).")
]


@data_app.command("list")
def data_list(data: DataOption = None) -> None:
    """List the datasets and whether they are installed."""
    from disbench.datasets.verify import list_datasets  # noqa: PLC0415

    for listing in list_datasets(data):
        say(listing.line())


@data_app.command("verify")
def data_verify(
    dataset: Annotated[str, Argument(help="Name of a card, your own card.toml, or a folder.")],
    dataset_option: DatasetSetOption = None,
    data: DataOption = None,
) -> None:
    """Check a dataset against its card: counts, sizes, content hash."""
    from disbench.datasets.verify import verify  # noqa: PLC0415

    found = verify(dataset, data, dataset_option or [], progress=True)
    say_all(found.lines(), err=not found.whole)
    if not found.whole:
        raise typer.Exit(BAD_INPUT)


@data_app.command("fetch")
def data_fetch(
    dataset: CardArgument,
    no_hash: Annotated[
        bool,
        Option("--no-hash", help="Accept files without a hash in the card, or with another content, and print it."),
    ] = False,
    existing: ExistingOption = "resume",
    data: DataOption = None,
) -> None:
    """Download a dataset, resumable and checked by its hash, from the first address on its card that serves."""
    from disbench.datasets.fetch import fetch  # noqa: PLC0415

    say_all(fetch(dataset, data, unverified=no_hash, existing=existing, progress=True))


@data_app.command("check-links")
def data_check_links(
    dataset: Annotated[
        list[str] | None, Argument(help="Names of cards, or your own card.toml; all cards without.")
    ] = None,
) -> None:
    """Ask every address of the cards whether it is alive, without fetching; exit code 1 if a file has none that is."""
    from disbench.datasets.fetch import check_links  # noqa: PLC0415

    alive: dict[tuple[str, str], bool] = {}
    for name, file, url, answer in check_links(dataset or []):
        alive[name, file] = alive.get((name, file), False) or answer.alive
        size = f"{answer.bytes:,}" if answer.bytes is not None else "-"
        say(f"{name:<15} {'alive' if answer.alive else 'DEAD':<5} {size:>14}  {url}  {answer.status}")
    dead = [f"{file} of {name}" for (name, file), lives in alive.items() if not lives]
    if dead:
        say(f"no living address: {', '.join(dead)}", err=True)
        raise typer.Exit(1)


@methods_app.command("list")
def methods_list(
    status: Annotated[
        MethodStatus | None, Option(help="Only methods that run natively, over the bridge, or not at all.")
    ] = None,
) -> None:
    """List the methods as a table."""
    from disbench.baselines.listing import list_methods  # noqa: PLC0415

    say_all(list_methods(status))


@methods_app.command("show")
def methods_show(method: CardArgument) -> None:
    """Show a method's card, its published numbers, and the commands that run it."""
    from disbench.baselines.cards import load_card  # noqa: PLC0415
    from disbench.baselines.listing import show_method  # noqa: PLC0415
    from disbench.reports.paper.published import published_lines  # noqa: PLC0415

    names = load_card(method).published
    say_all(show_method(method, [line for name in names for line in published_lines(name)]))


@methods_app.command("fetch")
def methods_fetch(method: CardArgument) -> None:
    """Download a method's weights, checked by SHA-256."""
    from disbench.baselines.cards import load_card  # noqa: PLC0415
    from disbench.baselines.weights import fetch  # noqa: PLC0415

    say_all(fetch(load_card(method)))


@methods_app.command("install")
def methods_install(
    method: CardArgument,
    variant: WhichOption = "",
    checkpoint: Annotated[
        Path | None, Option(parser=path, help="Use this file of the trained weights instead of fetching them.")
    ] = None,
) -> None:
    """Install a published system: its code, an environment, trained weights; can be interrupted and repeated."""
    from disbench.baselines.installs import install  # noqa: PLC0415

    given = None if checkpoint is None else addresses.here(checkpoint)
    found = install(method, variant, checkpoint=given, report=say)
    named = f" --variant {found.variant}" if found.variant else ""
    say(f"{found.name} {found.variant}: installed; next: disbench methods check {method}{named}")


@methods_app.command("installed")
def methods_installed() -> None:
    """List the installed systems and their sizes on disk."""
    from disbench.baselines.installs import list_installed, methods_folder  # noqa: PLC0415

    say(methods_folder())
    say_all(list_installed())


@methods_app.command("remove")
def methods_remove(method: CardArgument) -> None:
    """Remove an installed system, and the environments that no other one uses."""
    from disbench.baselines.installs import remove  # noqa: PLC0415

    remove(method, report=say)


@methods_app.command("check")
def methods_check(method: CardArgument, variant: WhichOption = "", set_: SetOption = None) -> None:
    """Try an installed system on an embedded photo with three clicks, and say whether it works."""
    from disbench.harness.method_check import check_method  # noqa: PLC0415

    verdict = check_method(method, variant, set_ or [])
    say_all(verdict.lines, err=not verdict.works)
    if not verdict.works:
        raise typer.Exit(BAD_INPUT)
