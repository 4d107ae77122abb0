"""Commands for stored runs: report, ambiguity, pack, verify, compare, failures, reproduce, published."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from disbench.cli import options as common
from disbench.cli.options import Paths, Strings, arg, echo, echo_lines, in_path, opt, out_path, path
from disbench.core.errors import InputError
from disbench.io import addresses


def report(
    runs: Annotated[list[Path], arg("Runs, packed runs, or folders that contain them.", parser=path)],
    out: Annotated[str, opt("Folder for the report: a path or an address.", metavar="<path>")] = "report",
    page: Annotated[bool, opt("Also write leaderboard.html: one file to sort, filter and hover.", "--page")] = False,
    failures: Annotated[
        int, opt("With --page: pictures per run of samples never solved, and as many solved late.", min=0, max=20)
    ] = 0,
    data: common.DataOption = None,
) -> None:
    """Make tables (Markdown, CSV, LaTeX), curves (PNG, SVG) and a leaderboard page (HTML) from stored runs."""
    from disbench.io.outputs import open_output
    from disbench.reports.report import FILES, make_report

    if failures and not page:
        raise InputError("--failures goes with --page: the pictures are for leaderboard.html")
    folders = [addresses.local_copy(run) for run in runs]
    with open_output(out, FILES) as destination:
        lines = make_report(folders, destination.folder, page=page, failures=failures, data=data).lines
    echo_lines(lines)


def ambiguity(
    runs: Annotated[list[Path], arg("Runs of --task diverse and intents, or folders that contain them.", parser=path)],
    out: Annotated[Path, out_path("Folder for the report.")] = Path("ambiguity"),
    shards: Annotated[Paths, in_path("Shards that the runs used, to draw their sets; may be repeated.")] = None,
    images: common.ImagesOption = None,
    pictures: Annotated[int, opt("With --shards: number of sets drawn per dataset.", min=1, max=50)] = 4,
    seed: Annotated[int, opt("Seed for choosing the pictures.", min=0)] = 0,
    data: common.DataOption = None,
) -> None:
    """Report how well candidates cover what a first click may mean: tables, figures and pictures from stored runs."""
    from disbench.reports.ambiguity.pictures import PictureOptions
    from disbench.reports.ambiguity.report import make_ambiguity_report

    folders = [addresses.local_copy(folder) for folder in shards or []]
    picture_options = PictureOptions(folders, common.parse_images(images), data, pictures, seed)
    echo_lines(make_ambiguity_report([addresses.local_copy(run) for run in runs], out, picture_options))


def pack(
    run: Annotated[Path, arg("Folder of a finished run.", parser=path)],
    out: Annotated[
        Path | None, out_path("The archive, NAME.zip (default: beside the folder; for an address, in this folder).")
    ] = None,
    without_masks: Annotated[bool, opt("Leave masks out, so that verify checks less.", "--without-masks")] = False,
) -> None:
    """Pack a finished run into one file for submission."""
    from disbench.harness.archive import ENDING
    from disbench.harness.archive import pack as pack_run

    if addresses.address_of(run) is not None:
        out = out or Path(f"{run.name}{ENDING}")
    packed = pack_run(addresses.local_copy(run), out, masks=not without_masks, progress=True)
    echo(f"{packed}: {packed.stat().st_size:,} bytes; next: disbench verify {packed}")


def verify(
    folder: Annotated[Path, arg("A run's folder, a packed run, or a folder of shards.", metavar="DIR", parser=path)],
    dataset: Annotated[
        str | None, opt("The run's dataset (card, folder, shards), if its name does not identify it.")
    ] = None,
    images: common.ImagesOption = None,
    quick: Annotated[bool, opt("Shards: compare files with the manifest; skip masks and sets.", "--quick")] = False,
    recording: Annotated[Path | None, in_path("Recorded clicks of the run, if not here or beside the run.")] = None,
    workers: Annotated[int, opt("Shards: worker processes; results do not depend on it.", min=1)] = os.cpu_count() or 1,
    data: common.DataOption = None,
) -> None:
    """Recompute a run's numbers, clicks and IoUs, or check shards against their recipe."""
    from disbench.harness.archive import is_run
    from disbench.harness.verification import verify_run
    from disbench.sampling.verify import verify_shards
    from disbench.shards.manifest import MANIFEST

    addresses.local_copy(folder)
    if not is_run(folder) and (folder / MANIFEST).is_file():
        verification = verify_shards(folder, quick=quick, workers=workers, progress=True)
        lines, ok = verification.lines(), verification.ok
    else:
        recording_path = None if recording is None else addresses.local_copy(recording)
        run = verify_run(
            folder, data, dataset=dataset, images=common.parse_images(images), recording=recording_path, progress=True
        )
        lines, ok = run.lines(), run.holds
    echo_lines(lines, err=not ok)
    if not ok:
        raise typer.Exit(common.BAD_INPUT)


DatasetOption = Annotated[
    str | None, opt("The runs' dataset, if it has no card here: card.toml or folder.", "--dataset")
]


def compare(
    run_a: Annotated[Path, arg("Folder of a finished run, A.", parser=path)],
    run_b: Annotated[Path, arg("Folder of another run on the same samples, B.", parser=path)],
    out: Annotated[Path, out_path("Folder for the comparison.")] = Path("comparison"),
    samples: Annotated[int, opt("Samples to draw, those that differ most; 0: no picture.", min=0, max=50)] = 8,
    dataset: DatasetOption = None,
    data: common.DataOption = None,
) -> None:
    """Compare two runs on the same samples: paired differences, intervals, p-values, pictures."""
    from disbench.reports.comparison import (
        compare_runs,
        comparison_lines,
        draw_differences,
        single_run,
        write_comparison,
    )

    comparison = compare_runs(single_run(addresses.local_copy(run_a)), single_run(addresses.local_copy(run_b)))
    picture = draw_differences(comparison, data, samples, dataset) if samples else None
    echo_lines(comparison_lines(comparison))
    typer.echo("")
    for file in write_comparison(comparison, out, picture):
        typer.echo(f"look at: {file}")


def failures(
    runs: Annotated[list[Path], arg("Runs, or folders that contain them.", parser=path)],
    out: Annotated[Path, out_path("Folder for the pictures.")] = Path("failures"),
    samples: Annotated[int, opt("Samples to draw that are never solved, and as many solved late.", min=1, max=50)] = 8,
    dataset: DatasetOption = None,
    data: common.DataOption = None,
) -> None:
    """Draw failures: samples that never reach an IoU of 0.90, and those that take longest."""
    from disbench.reports.samples import write_failures

    echo_lines(write_failures([addresses.local_copy(run) for run in runs], out, data, samples, dataset))


def reproduce(
    name: Annotated[str | None, arg("table1 ... table5 or figure4 ... figure6 (default: list them).")] = None,
    runs: Annotated[Paths, in_path("Folder of finished runs, at any depth; may be repeated.")] = None,
    out: Annotated[Path, out_path("Folder for the files.")] = Path("paper"),
    map_: Annotated[Strings, opt('Use this run for a row: "ROW=RUN_FOLDER"; may be repeated.', "--map")] = None,
    sample: Annotated[Strings, opt("Id of a sample of figure5 or figure6; may be repeated (default: random).")] = None,
    data: common.DataOption = None,
    markdown: Annotated[bool, opt("A table as Markdown.", "--markdown")] = False,
    latex: Annotated[bool, opt("A table for LaTeX.", "--latex")] = False,
    csv: Annotated[bool, opt("All numbers, unrounded.", "--csv")] = False,
    png: Annotated[bool, opt("A figure as PNG.", "--png")] = False,
    svg: Annotated[bool, opt("A figure as SVG.", "--svg")] = False,
    pdf: Annotated[bool, opt("A figure as PDF.", "--pdf")] = False,
) -> None:
    """Make a table or figure of the paper from stored runs, beside the published numbers."""
    from disbench.reports.paper.figures import reproduce as reproduce_item
    from disbench.reports.paper.figures import reproducible
    from disbench.reports.paper.tables import parse_rows

    if name is None:
        echo_lines(reproducible())
        return
    requested = {"markdown": markdown, "latex": latex, "csv": csv, "png": png, "svg": svg, "pdf": pdf}
    formats = [form for form, is_requested in requested.items() if is_requested]
    result = reproduce_item(
        name,
        [addresses.local_copy(folder) for folder in runs or []],
        out,
        rows=parse_rows(map_ or []),
        formats=formats,
        data=data,
        samples=sample or (),
    )
    echo_lines(result.lines)


def published(method: Annotated[str | None, arg("Name of a method (default: list all).")] = None) -> None:
    """List the published numbers of a method, with sources and remarks."""
    from disbench.reports.paper.definitions import published_lines, published_methods, read_published

    echo_lines(published_methods(read_published()) if method is None else published_lines(method))
