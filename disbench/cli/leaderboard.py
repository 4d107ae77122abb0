"""Leaderboards: run a plan, check a submission, build the report; and results of others that are imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from disbench.cli.ambiguity import FAILED_SAMPLES
from disbench.cli.options import (
    BAD_INPUT,
    AddressOption,
    DataOption,
    DatasetSetOption,
    EngineOption,
    WorkersOption,
    command_line,
    list_option,
    local_path,
    path,
    say,
    say_all,
)
from disbench.core.errors import InputError
from disbench.io import addresses

leaderboard_app = typer.Typer(
    help="Run all rows of a table, check a submission, build the leaderboard.", no_args_is_help=True
)
import_app = typer.Typer(help="Read results of other tools.", no_args_is_help=True)


@leaderboard_app.command("run")
def leaderboard_run(
    plan: Annotated[str, Argument(help="Name of a plan (--list), or your own plan.toml.")],
    out: Annotated[Path, Option(parser=local_path, help="Folder of the leaderboard.")] = Path("leaderboard"),
    only: Annotated[
        list[str] | None, Option(help="Only these rows: DATASET/NAME, with * for any letters; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print rows, downloads and hours, and do nothing.")] = False,
    set_: Annotated[
        list[str] | None,
        Option("--set", help="Set an option of all methods that have it, such as device=cuda; may be repeated."),
    ] = None,
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    gpus_per_worker: Annotated[float, Option(min=0, help="GPUs per worker on Ray; with 0.5, two share one.")] = 0.0,
    threads: Annotated[int, Option(min=1, help="Threads per process.")] = 1,
    timeout: Annotated[float, Option(min=0, help="Seconds that one call of a method may take; 0: no limit.")] = 60.0,
    existing: Annotated[
        Literal["resume", "overwrite"], Option(help="What to do with rows that are done, or under way.")
    ] = "resume",
    data: DataOption = None,
    _list: Annotated[bool, list_option("reports/plans", "List the plans.")] = False,
) -> None:
    """Do all rows of a plan: install, fetch, run, pack; then report them. The same command resumes.

    A row that fails stops no other; the exit code is then 1.
    """
    from disbench.harness.plan import RUNS, jobs_of, preview, read_plan  # noqa: PLC0415
    from disbench.harness.plan_run import Conduct, read_failures, run_plan  # noqa: PLC0415
    from disbench.reports.leaderboard import build_leaderboard  # noqa: PLC0415

    asked = read_plan(plan)
    jobs = jobs_of(asked, only or [])
    if dry_run:
        say_all(preview(asked, jobs, out, data, read_failures(out)))
        return
    conduct = Conduct(engine, workers, address, gpus_per_worker, threads, timeout or None, tuple(set_ or ()), existing)
    outcomes = run_plan(jobs, out, data, conduct, say)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        say(f"failed: {outcome.name}: {outcome.sentence}", err=True)
    if any(outcome.state == "done" for outcome in outcomes):
        say_all(build_leaderboard([out / RUNS], out, asked.reproduce))
    if failed:
        raise typer.Exit(FAILED_SAMPLES)


@leaderboard_app.command("check")
def leaderboard_check(
    submission: Annotated[Path, Argument(parser=path, help="A packed run.")],
    dataset: Annotated[str | None, Option(help="The run's dataset, if its name alone does not find it.")] = None,
    data: DataOption = None,
) -> None:
    """Say yes or no to a packed run: every number, click and IoU recomputed on the same dataset.

    The exit code is 0 for yes and 2 for no.
    """
    from disbench.harness.archive import read_packed  # noqa: PLC0415
    from disbench.harness.verification import verify_run  # noqa: PLC0415

    read_packed(addresses.here(submission))
    found = verify_run(submission, data, dataset=dataset, progress=True)
    good = found.holds and not found.unchecked
    say_all([*found.lines(), "yes" if good else "no"], err=not good)
    if not good:
        raise typer.Exit(BAD_INPUT)


@leaderboard_app.command("build")
def leaderboard_build(
    runs: Annotated[list[Path], Argument(parser=path, help="Folders of packed runs, or runs.")],
    out: Annotated[Path, Option(parser=local_path, help="Folder of the leaderboard.")] = Path("leaderboard"),
) -> None:
    """Build a leaderboard from stored runs: report, page, the paper's Table 1 and Figure 4."""
    from disbench.reports.leaderboard import build_leaderboard  # noqa: PLC0415

    say_all(build_leaderboard([addresses.here(run) for run in runs], out))


@import_app.command("ious")
def import_ious(
    file: Annotated[Path, Argument(parser=path, help="Pickle of evaluate_model.py --save-ious or --iou-analysis.")],
    method: Annotated[str, Option(help="Card of the method (disbench methods list), or any name.")],
    dataset: Annotated[str, Option(help="The dataset: name of a card, your own card.toml, or a folder.")],
    out: Annotated[Path, Option(parser=local_path, help="Folder of the run.")],
    variant: Annotated[str, Option(help="Which of the card's trained networks it is (default: not stated).")] = "",
    set_: Annotated[
        list[str] | None, Option("--set", help="Record an option of the method: option=value; may be repeated.")
    ] = None,
    dataset_option: DatasetSetOption = None,
    protocol: Annotated[str, Option(help="How its code evaluates (disbench run --list-protocols).")] = "ritm",
    stop_at: Annotated[
        float | None, Option(help="IoU at which samples ended (its --target-iou; none with --iou-analysis).")
    ] = None,
    max_clicks: Annotated[
        int | None, Option(min=1, help="Its cap on clicks (default: those of the longest sample).")
    ] = None,
    existing: Annotated[Literal["fail", "overwrite"], Option(help="What to do with a run that is there.")] = "fail",
    data: DataOption = None,
) -> None:
    """Import the IoUs that the evaluation of RITM's family saved, for tables and curves beside new runs."""
    from disbench.baselines.cards import card_names, load_card  # noqa: PLC0415
    from disbench.datasets.cards import open_dataset  # noqa: PLC0415
    from disbench.harness.imported import import_ious as make  # noqa: PLC0415
    from disbench.harness.presets import load_preset  # noqa: PLC0415

    preset = load_preset(protocol)
    card = load_card(method) if method in card_names() or method.endswith(".toml") else None
    if variant:
        if card is None:
            raise InputError(f"{method}: there is no such card, so it has no variants; leave --variant out")
        card = card.trained_as(card.variant(variant))
    run = make(
        addresses.here(file),
        card or method,
        open_dataset(dataset, data, [*preset.reading(dataset), *(dataset_option or [])]),
        out,
        preset,
        options=dict(text.partition("=")[::2] for text in set_ or ()),
        stop_at=stop_at,
        max_clicks=max_clicks,
        existing=existing,
        command=command_line(),
    )
    say(f"{out}: {run.record.imported}; {run.record.result.samples} samples; next: disbench report {out}")
