"""Commands that run a method: run, predict, speed, demo."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from disbench.cli import options as common
from disbench.cli.options import Paths, Strings, arg, echo, echo_lines, in_path, opt, out_path, path
from disbench.core.choices import Granularity, Selection, Store
from disbench.core.errors import InputError, import_extra
from disbench.io import addresses

if TYPE_CHECKING:
    from disbench.core.samples import Source
    from disbench.harness.record import Record, Result
    from disbench.harness.tasks import Task

TaskName = Literal["targets", "diverse", "intents", "first-clicks"]
_TASK = (
    "targets: clicks on single targets of --dataset; diverse: how well the candidates for a first click cover all that "
    "it may mean, on --shards; intents: one first click for each mask of a set in turn; first-clicks: the standard "
    "first click and all recorded ones of --policy replay:FILE, on --dataset."
)
_MOVE = "With --task diverse: also move each click by this many pixels in 8 directions to test stability; 0: off."
_GRANULARITY = (
    "With --task intents, for methods that take the size of the wanted mask relative to its whole: pass nothing, the "
    "truth, or the one of ten values that needs the fewest clicks to an IoU of 0.90 (or 0.85)."
)
_PROTOCOL = (
    "Evaluate like the code of a paper (--list-protocols), or according to your own protocol.toml; other options "
    "override it."
)
_SELECTION = (
    "Which candidate to select: the best by IoU with the target at click 1 (then the method's own choice), the best at "
    "every click, or the method's highest score (default: the protocol's, oracle-first)."
)
_POLICY = (
    "How clicks are simulated: center (standard), random, jitter:sigma=0.3, scipy-center, removed-center, "
    "slice:group=1 (the shallowest of ten depths), worst or best (of 16 clicks, by its answers); slices:10 or "
    "extremes:16: center and all of these, each a run below --out; or recorded clicks: replay:FILE or "
    "replay:FILE,user=NAME (default: the protocol's)."
)
_MAX_CLICKS = (
    "Clicks per sample (default: the protocol's, 20; 5 with worst and best); a method with a budget of points answers "
    "once."
)
_SETS = ("--shards", "--images", "--sets", "--min-members", "--split")
_MAX_NAMES = 5  # samples listed in a message


def _show_protocols(is_set: bool) -> None:
    if is_set:
        from disbench.harness.presets import list_presets

        echo_lines(list_presets())
        raise typer.Exit


def run(
    method: common.MethodOption,
    out: Annotated[str, opt("Folder of the run: a path or an address (s3://...).", metavar="<path>")],
    dataset: Annotated[str | None, opt("Name of a card (disbench data list), your own card.toml, or a folder.")] = None,
    task: Annotated[TaskName, opt(_TASK)] = "targets",
    shards: Annotated[Path | None, in_path("Folder of shards, for --task diverse and intents.")] = None,
    images: common.ImagesOption = None,
    sets: Annotated[int | None, opt("Number of sets, drawn at random with --seed (default: all).", min=1)] = None,
    min_members: Annotated[int, opt("Only sets with at least this many masks.", min=1)] = 1,
    split: Annotated[str | None, opt("Only the sets of a frozen split, in its order: a name or NAME.jsonl.")] = None,
    clicks: Annotated[int, opt("With --task diverse: first clicks per set.", min=1)] = 1,
    move: Annotated[int, opt(_MOVE, min=0)] = 3,
    granularity: Annotated[Granularity, opt(_GRANULARITY)] = "none",
    variant: common.VariantOption = None,
    set_: common.SetOption = None,
    dataset_option: common.DatasetSetOption = None,
    protocol: Annotated[str, opt(_PROTOCOL)] = "ritm",
    selection: Annotated[Selection | None, opt(_SELECTION)] = None,
    policy: Annotated[str | None, opt(_POLICY)] = None,
    seed: Annotated[int, opt("Seed of random policies, and of the choice of sets and clicks.", min=0)] = 0,
    max_clicks: Annotated[int | None, opt(_MAX_CLICKS, min=1)] = None,
    threshold: common.ThresholdOption = None,
    stop_at: Annotated[float | None, opt("End a sample at this IoU: faster, but no curve can be drawn.")] = None,
    initial_masks: Annotated[
        Literal["use", "ignore"], opt("Start from a sample's initial mask.", "--initial-masks")
    ] = "use",
    every: Annotated[int, opt("Use every n-th sample.", min=1)] = 1,
    limit: Annotated[int | None, opt("Use only the first N samples.", min=1)] = None,
    workers: common.WorkersOption = None,
    engine: common.EngineOption = "local",
    address: common.AddressOption = None,
    gpus_per_worker: common.GpusOption = 0.0,
    threads: common.ThreadsOption = 1,
    batch: Annotated[int, opt("Samples in lockstep, for methods with predict_batch.", min=1)] = 1,
    timeout: common.TimeoutOption = 60.0,
    store: Annotated[Store, opt("Which masks to store in the rows.")] = "none",
    existing: common.ExistingOption = "resume",
    data: common.DataOption = None,
    _list: Annotated[
        bool, opt("List the protocols.", "--list-protocols", callback=_show_protocols, is_eager=True)
    ] = False,
) -> None:
    """Run a method on a dataset, resumable; then see `disbench report`.

    With --task diverse or intents: on the diverse sets of --shards; then see `disbench ambiguity`.
    """
    from disbench.core.click_policies import default_clicks, parse_series
    from disbench.datasets.cards import open_dataset
    from disbench.harness.presets import STANDARD, load_preset
    from disbench.harness.protocol import SetProtocol, with_recording
    from disbench.harness.record import Choice, Execution, parse_record
    from disbench.harness.run import JOB_FILES, run_task
    from disbench.harness.sample_loop import TRIALS, FirstClicksTask, TargetsTask
    from disbench.harness.set_source import IntentSource, SetSource
    from disbench.harness.set_task import SetTask
    from disbench.harness.store import CLICKS, RUN, read_run
    from disbench.io.outputs import open_output
    from disbench.sampling.splits import read_split
    from disbench.workers import open_engine

    spec = common.spec_from_options(method, variant, set_)
    preset = load_preset(protocol)
    given = {
        "--dataset": dataset,
        "--dataset-option": dataset_option,
        **dict(zip(_SETS, (shards, images, sets, min_members > 1, split), strict=True)),
        "--protocol": protocol != STANDARD,
        "--selection": selection,
        "--policy": policy,
        "--max-clicks": max_clicks,
        "--stop-at": stop_at is not None,
        "--granularity": granularity != "none",
    }
    _check_task(task, given, spec.budget)
    policies = tuple(str(item) for item in parse_series(policy or ""))
    conduct = preset.conduct(
        spec,
        max_clicks=max_clicks or default_clicks(policy or ""),
        threshold=threshold,
        selection=selection,
        policy=policies[0] if policies else policy,
        granularity=granularity,
        seed=seed,
        stop_at=stop_at,
        initial_masks=initial_masks == "use",
    )
    chosen_task: Task
    if task == "diverse":  # no candidate is selected, so "kept" stores all masks
        chosen_task = SetTask(SetProtocol(clicks, seed, move, conduct.threshold), "none" if store == "none" else "all")
    elif task == "first-clicks":
        chosen_task, store = FirstClicksTask.of(conduct.policy, conduct.threshold), "none"
    else:
        chosen_task = TargetsTask(with_recording(conduct), store, policies)
    source: Source
    if dataset is None:
        assert shards is not None  # checked with the task
        frozen_split, choice = None if split is None else read_split(split), Choice(sets, seed, min_members)
        set_source = SetSource(addresses.local_copy(shards), common.parse_images(images), data, choice, frozen_split)
        source = set_source if task == "diverse" else IntentSource(set_source)
    else:
        source = open_dataset(dataset, data, [*preset.reading(dataset), *(dataset_option or [])])
    pool = open_engine(engine, workers, address=address, cores_per_worker=threads, gpus_per_worker=gpus_per_worker)
    names = (*JOB_FILES, "*/" + RUN, "*/" + CLICKS, "*/" + TRIALS) if policies else JOB_FILES
    with open_output(out, names, last="" if policies else RUN, existing=existing) as destination:
        run_task(
            spec,
            source,
            destination.folder,
            chosen_task,
            Execution(pool.workers, threads, batch, timeout or None, store),
            engine=pool,
            every=every,
            limit=limit,
            existing=existing,
            command=common.command_line(),
            progress=True,
            grown=destination.save,
        )
        record_paths = {name: destination.folder / name / RUN for name in chosen_task.parts()}
        records = {name: parse_record(file.read_bytes(), str(file)) for name, file in record_paths.items()}
        has_figures = task in ("targets", "intents") and not policies and conduct.preset and not conduct.budget
        figures = preset.figures(read_run(destination.folder)) if has_figures else ""
    verify = "" if dataset is None else f" (disbench data verify {shlex.quote(dataset)} finds all)"
    _echo_results(task, {f"{out.rstrip('/')}/{name}" if name else out: item for name, item in records.items()}, figures)
    for record in records.values():
        _echo_failures(record.result, *_TASK_WORDS[task][::3], verify)


def _echo_results(task: TaskName, records: Mapping[str, Record], figures: str) -> None:
    samples, predictions, reader, _ = _TASK_WORDS[task]
    for run, record in records.items():
        result = record.result
        typer.echo(
            f"{run}: {result.samples} {samples}, {result.clicks} {predictions}; method {result.model_seconds:.1f} s, "
            f"harness {result.harness_seconds:.1f} s, wall {result.wall_seconds:.1f} s; next: disbench {reader} {run}"
        )
    common.echo_left_out(record.dataset.facts.get("left_out", {}))
    if figures:
        typer.echo(figures)


# Names of samples and predictions, the command that reports them, and how a failure counts.
_TASK_WORDS: Mapping[TaskName, tuple[str, str, str, str]] = {
    "targets": ("samples", "clicks", "report", "count with an IoU of 0"),
    "intents": ("samples", "clicks", "ambiguity", "count with an IoU of 0"),
    "first-clicks": ("samples", "first clicks", "report", "count with an IoU of 0"),
    "diverse": ("sets", "clicks (moved ones among them)", "ambiguity", "count as not covered"),
}


def _check_task(task: TaskName, given: Mapping[str, object], budget: str) -> None:
    """Raise `InputError` unless options and task fit; `given`: option -> whether it was given."""
    if task in ("targets", "first-clicks"):
        if not given["--dataset"]:
            raise InputError("--dataset is missing: name a card (disbench data list), your own card.toml, or a folder")
        if any(given[option] for option in _SETS):
            raise InputError(f"{', '.join(_SETS[:-1])} and {_SETS[-1]} go with --task diverse or --task intents")
        if given["--granularity"]:
            raise InputError("--granularity goes with --task intents, where a target has a size within its whole")
    else:
        if given["--split"] and (given["--sets"] or given["--min-members"]):
            raise InputError("--split says which sets are taken; leave out --sets and --min-members")
        if not given["--shards"] or given["--dataset"] or given["--dataset-option"]:
            raise InputError(f"--task {task}: give a folder of shards with --shards, and no --dataset")
    if budget and task != "targets":
        raise InputError(f"--task {task}: a method that gets all its points at once has no first click")
    if task == "first-clicks" and not given["--policy"]:
        raise InputError(f"--task {task}: name the recorded clicks with --policy replay:FILE")
    allowed = {"diverse": _SETS, "first-clicks": ("--dataset", "--dataset-option", "--policy")}.get(task, given)
    for option in given:
        if given[option] and option not in allowed:
            raise InputError(f"{option} belongs to loops of clicks; leave it out with --task {task}")


def _echo_failures(result: Result, samples: str, counted: str, verify: str) -> None:
    """Print failed samples and why, and exit; `counted` says how they count, `verify` how to find bad files."""
    unread = result.unread
    failed = [failure for failure in result.failed if failure not in unread]
    if failed:
        first = failed[0]
        typer.echo(
            f"the method failed on {len(failed)} of {result.samples} {samples}, which {counted} from that click on; "
            f"the first: {first.sample}, click {first.click}: {first.reason}",
            err=True,
        )
    if unread:
        names = ", ".join(failure.sample for failure in unread[:_MAX_NAMES]) + (
            ", ..." if len(unread) > _MAX_NAMES else ""
        )
        echo(
            f"{len(unread)} of {result.samples} {samples} cannot be read, which {counted}: {names}; the first: "
            f"{unread[0].reason.partition(': ')[2]}; fix the files{verify} and run the same command again, which does "
            "only these",
            err=True,
        )
    if result.failed:
        raise typer.Exit(common.FAILED_SAMPLES)


def predict(
    image: Annotated[Path, arg("The image.", parser=path)],
    method: common.MethodOption,
    out: Annotated[Path, out_path("Mask to write: a PNG with values 0 and 255.")],
    click: Annotated[
        Strings, opt("x,y,+ (object) or x,y,- (background), pixels from the top left; repeatable.")
    ] = None,
    recorded: Annotated[str | None, opt("Use recorded clicks instead: FILE.parquet or FILE.parquet,user=NAME.")] = None,
    sample: Annotated[str | None, opt("Sample whose recorded clicks to use, if the file has several.")] = None,
    variant: common.VariantOption = None,
    set_: common.SetOption = None,
    keep: Annotated[
        int | None, opt("Index of the candidate to keep after click 1, from 0 (default: highest score).", min=0)
    ] = None,
    threshold: common.ThresholdOption = None,
    every: Annotated[bool, opt("Also write every candidate and an overlay, and print scores.", "--all")] = False,
    exif: common.ExifOption = "ignore",
) -> None:
    """Segment one image by clicks."""
    from disbench.core.painting import overlay
    from disbench.datasets.images import read_rgb
    from disbench.harness.predict import parse_click, write_png
    from disbench.harness.predict import predict as predict_image
    from disbench.harness.protocol import recorded_clicks

    if (recorded is None) == (not click) or (sample is not None and recorded is None):
        raise InputError("give clicks, either with --click or with --recorded (and --sample if it has several)")
    clicks = [parse_click(text) for text in click or ()] if recorded is None else recorded_clicks(recorded, sample)
    pixels = read_rgb(addresses.local_copy(image), exif)
    (photo,) = common.local_photos([image], exif)
    if out.exists() and out.samefile(photo):
        raise InputError(f"{out}: is the image itself and would be overwritten; use another --out")
    spec = common.spec_from_options(method, variant, set_)
    threshold = spec.threshold if threshold is None else threshold
    with contextlib.chdir(os.curdir):  # the method may change folders
        result = predict_image(spec.build(), pixels, clicks, threshold=threshold, keep=keep, budget=spec.budget)
    write_png(out, result.mask)
    typer.echo(f"{out}: {int(result.mask.sum())} pixels")
    if every:
        scores = result.candidates.scores
        for number, mask in enumerate(result.candidates.masks):
            candidate_path = out.with_name(f"{out.stem}-candidate-{number}{out.suffix}")
            write_png(candidate_path, mask)
            score = "no score" if scores is None else f"score {scores[number]:.4f}"
            typer.echo(
                f"{candidate_path}: {int(mask.sum())} pixels, {score}{', kept' if number == result.kept else ''}"
            )
        overlay_path = out.with_name(f"{out.stem}-overlay{out.suffix}")
        write_png(overlay_path, overlay(pixels, [result.mask], clicks))
        typer.echo(f"{overlay_path}: the mask and the clicks on the image")


def speed(
    method: common.MethodOption,
    image: Annotated[Path | None, in_path("The image (default: the first of the embedded photos).")] = None,
    variant: common.VariantOption = None,
    set_: common.SetOption = None,
    _protocol: Annotated[
        Literal["sat"], opt("sat: open, and 256 first clicks on a grid (SegNext).", "--protocol")
    ] = "sat",
    repeats: Annotated[int, opt("Repeats, after a warm-up; the median and the range are shown.", min=1)] = 5,
    clicks: Annotated[int, opt("Clicks in the loop that is timed per click.", min=1, max=256)] = 20,
    threads: common.ThreadsOption = 1,
) -> None:
    """Time a method on one image: SAT latency, and milliseconds per click number."""
    from disbench.datasets.cards import open_dataset
    from disbench.datasets.images import read_rgb
    from disbench.harness.predict import measure_speed, pixel_hash
    from disbench.harness.run import processor, versions_of
    from disbench.workers.threads import limit

    limit(threads)
    spec = common.spec_from_options(method, variant, set_)
    if spec.budget:
        raise InputError(f"{spec.name}: gets all points at once, so it has no speed per click")
    pixels = (
        open_dataset("photos", None).read(0).image if image is None else read_rgb(addresses.local_copy(image), "ignore")
    )
    with contextlib.chdir(os.curdir):  # the method may change folders
        built_method = spec.build()
        measured = measure_speed(built_method, pixels, repeats=repeats, clicks=clicks)
    options = ", ".join(f"{name}={value}" for name, value in spec.options.items())
    echo(f"{spec.name} ({options})" if options else spec.name)
    echo_lines(measured.lines())
    versions = {**versions_of(spec), **getattr(built_method, "versions", {})}
    echo(f"image {pixels.shape[1]} x {pixels.shape[0]}, SHA-256 of its pixels {pixel_hash(pixels)}")
    echo(f"{repeats} repeats, {threads} {'thread' if threads == 1 else 'threads'}, {processor()}")
    echo(", ".join(f"{name} {version}" for name, version in versions.items()))


def demo(
    images: Annotated[Paths, arg("Photos (default: the embedded ones).", parser=path)] = None,
    method: common.MethodOption = "geodesic",
    set_: common.SetOption = None,
    port: Annotated[int, opt("Port on 127.0.0.1 (default: a free one).", min=0, max=65535)] = 0,
    browser: Annotated[bool, opt("Open the page in the browser.", "--browser/--no-browser")] = True,
    out: Annotated[Path | None, out_path("Folder for masks and clicks (default: the browser downloads them).")] = None,
    exif: common.ExifOption = "ignore",
) -> None:
    """Segment photos by clicks in a local page: choose a candidate, refine it, save mask and clicks."""
    import_extra("aiohttp", "demo", "the demo")
    from disbench.demo.server import demo as serve_demo

    def ready(address: str) -> None:
        typer.echo(f"{address} shows {method}; end it with Ctrl+C")
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve_demo(common.local_photos(images or (), exif), method, set_ or [], port=port, out=out, ready=ready, exif=exif)
    typer.echo("the demo has ended")
