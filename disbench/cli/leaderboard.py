"""Commands for leaderboards (run a plan, check a submission, build the report), and import of other tools' results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from disbench.cli import options as common
from disbench.cli.options import Strings, arg, echo, echo_lines, opt, out_path, path
from disbench.core.errors import InputError
from disbench.io import addresses

leaderboard_app = typer.Typer(
    help="Run a table's rows, check submissions, build the leaderboard.", no_args_is_help=True
)
import_app = typer.Typer(help="Import results of other tools.", no_args_is_help=True)


@leaderboard_app.command("run")
def leaderboard_run(
    plan: Annotated[str, arg("Name of a plan (--list), or your own plan.toml.")],
    out: Annotated[Path, out_path("Folder of the leaderboard.")] = Path("leaderboard"),
    only: Annotated[Strings, opt("Only these rows: DATASET/NAME, with * for any letters; may be repeated.")] = None,
    dry_run: Annotated[bool, opt("Only print rows, downloads and estimated hours.", "--dry-run")] = False,
    set_: Annotated[
        Strings, opt("Set an option of all methods that have it: device=cuda; may be repeated.", "--set")
    ] = None,
    workers: common.WorkersOption = None,
    engine: common.EngineOption = "local",
    address: common.AddressOption = None,
    gpus_per_worker: common.GpusOption = 0.0,
    threads: common.ThreadsOption = 1,
    timeout: common.TimeoutOption = 60.0,
    existing: Annotated[Literal["resume", "overwrite"], opt("What to do with rows done or in progress.")] = "resume",
    data: common.DataOption = None,
    _list: Annotated[bool, common.list_option("reports/plans", "List the plans.")] = False,
) -> None:
    """Execute all rows of a plan: install, download, run, pack; then report. The same command resumes.

    A failed row does not stop the others; the exit code is then 1.
    """
    from disbench.harness.plan import RUNS, PlanExecution, jobs_of, preview, read_failures, read_plan, run_plan
    from disbench.reports.paper.figures import build_leaderboard

    loaded_plan = read_plan(plan)
    jobs = jobs_of(loaded_plan, only or [])
    if dry_run:
        echo_lines(preview(loaded_plan, jobs, out, data, read_failures(out)))
        return
    execution = PlanExecution(
        engine, workers, address, gpus_per_worker, threads, timeout or None, tuple(set_ or ()), existing
    )
    outcomes = run_plan(jobs, out, data, execution, echo)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        echo(f"failed: {outcome.name}: {outcome.sentence}", err=True)
    if any(outcome.state == "done" for outcome in outcomes):
        echo_lines(build_leaderboard([out / RUNS], out, loaded_plan.reproduce))
    if failed:
        raise typer.Exit(common.FAILED_SAMPLES)


@leaderboard_app.command("check")
def leaderboard_check(
    submission: Annotated[Path, arg("A packed run.", parser=path)],
    dataset: Annotated[str | None, opt("The run's dataset, if its name alone does not identify it.")] = None,
    data: common.DataOption = None,
) -> None:
    """Accept or reject a packed run, after recomputing every number, click and IoU on the same dataset.

    Prints yes or no; the exit code is 0 for yes and 2 for no.
    """
    from disbench.harness.archive import read_packed
    from disbench.harness.verification import verify_run

    read_packed(addresses.local_copy(submission))
    verification = verify_run(submission, data, dataset=dataset, progress=True)
    accepted = verification.holds and not verification.unchecked
    echo_lines([*verification.lines(), "yes" if accepted else "no"], err=not accepted)
    if not accepted:
        raise typer.Exit(common.BAD_INPUT)


@leaderboard_app.command("build")
def leaderboard_build(
    runs: Annotated[list[Path], arg("Folders of packed runs, or runs.", parser=path)],
    out: Annotated[Path, out_path("Folder of the leaderboard.")] = Path("leaderboard"),
) -> None:
    """Build a leaderboard from stored runs: report, page, the paper's Table 1 and Figure 4."""
    from disbench.reports.paper.figures import build_leaderboard

    echo_lines(build_leaderboard([addresses.local_copy(run) for run in runs], out))


@import_app.command("ious")
def import_ious(
    file: Annotated[Path, arg("Pickle of evaluate_model.py --save-ious or --iou-analysis.", parser=path)],
    method: Annotated[str, opt("Card of the method (disbench methods list), or any name.")],
    dataset: common.NamedDatasetOption,
    out: Annotated[Path, out_path("Folder of the run.")],
    variant: Annotated[str, opt("Which of the card's trained networks was used (default: not stated).")] = "",
    set_: Annotated[Strings, opt("Record an option of the method: option=value; may be repeated.", "--set")] = None,
    dataset_option: common.DatasetSetOption = None,
    protocol: Annotated[str, opt("How its code evaluates (disbench run --list-protocols).")] = "ritm",
    stop_at: Annotated[
        float | None, opt("IoU at which samples ended (its --target-iou; --iou-analysis: none).")
    ] = None,
    max_clicks: Annotated[int | None, opt("Its cap on clicks (default: clicks of the longest sample).", min=1)] = None,
    existing: Annotated[Literal["fail", "overwrite"], opt("What to do with an existing run.")] = "fail",
    data: common.DataOption = None,
) -> None:
    """Import IoUs saved by the evaluation of RITM and its descendants, for tables and curves beside new runs."""
    from disbench.baselines.cards import card_names, load_card
    from disbench.datasets.cards import open_dataset
    from disbench.harness.presets import load_preset
    from disbench.harness.run import import_ious as import_run

    preset = load_preset(protocol)
    card = load_card(method) if method in card_names() or method.endswith(".toml") else None
    if variant:
        if card is None:
            raise InputError(f"{method}: no such card, so it has no variants; leave --variant out")
        card = card.trained_as(card.variant(variant))
    run = import_run(
        addresses.local_copy(file),
        card or method,
        open_dataset(dataset, data, [*preset.reading(dataset), *(dataset_option or [])]),
        out,
        preset,
        options=dict(text.partition("=")[::2] for text in set_ or ()),
        stop_at=stop_at,
        max_clicks=max_clicks,
        existing=existing,
        command=common.command_line(),
    )
    echo(f"{out}: {run.record.imported}; {run.record.result.samples} samples; next: disbench report {out}")
