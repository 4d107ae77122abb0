"""Commands on stored runs: pack, verify, compare, failures, reproduce, published."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from disbench.cli.ambiguity import ImagesOption, images_at
from disbench.cli.options import BAD_INPUT, DataOption, local_path, path, say, say_all
from disbench.io import addresses


def pack(
    run: Annotated[Path, Argument(parser=path, help="Folder of a finished run.")],
    out: Annotated[
        Path | None,
        Option(
            parser=local_path,
            help="The archive, NAME.zip (default: beside the folder; for an address, in the current folder).",
        ),
    ] = None,
    without_masks: Annotated[
        bool, Option("--without-masks", help="Leave stored masks out; verify can then check less.")
    ] = False,
) -> None:
    """Pack a finished run into one file for submission."""
    from disbench.harness.archive import ENDING  # noqa: PLC0415
    from disbench.harness.archive import pack as pack_run  # noqa: PLC0415

    if addresses.address_of(run) is not None:
        out = out or Path(f"{run.name}{ENDING}")
    packed = pack_run(addresses.here(run), out, masks=not without_masks, progress=True)
    say(f"{packed}: {packed.stat().st_size:,} bytes; next: disbench verify {packed}")


def verify(
    place: Annotated[
        Path, Argument(metavar="DIR", parser=path, help="A run's folder, a packed run, or a folder of shards.")
    ],
    dataset: Annotated[
        str | None, Option(help="The run's dataset (card, folder, or shards), if its name alone does not find it.")
    ] = None,
    images: ImagesOption = None,
    quick: Annotated[
        bool, Option("--quick", help="Shards: compare files with the manifest only; skip masks and sets.")
    ] = False,
    recording: Annotated[
        Path | None,
        Option(
            parser=path,
            help="Recorded clicks of the run, if their file is neither in the current folder nor beside the run.",
        ),
    ] = None,
    workers: Annotated[
        int, Option(min=1, help="Shards: worker processes; results do not depend on it.")
    ] = os.cpu_count() or 1,
    data: DataOption = None,
) -> None:
    """Recompute a run's numbers, clicks and IoUs, or check shards against their recipe."""
    from disbench.harness.archive import is_run  # noqa: PLC0415
    from disbench.harness.verification import verify_run  # noqa: PLC0415
    from disbench.sampling.verify import verify_shards  # noqa: PLC0415
    from disbench.shards.manifest import MANIFEST  # noqa: PLC0415

    addresses.here(place)
    if not is_run(place) and (place / MANIFEST).is_file():
        found = verify_shards(place, quick=quick, workers=workers, progress=True)
        lines, holds = found.lines(), found.holds
    else:
        found_here = None if recording is None else addresses.here(recording)
        run = verify_run(place, data, dataset=dataset, images=images_at(images), recording=found_here, progress=True)
        lines, holds = run.lines(), run.holds
    say_all(lines, err=not holds)
    if not holds:
        raise typer.Exit(BAD_INPUT)


DatasetOption = Annotated[
    str | None,
    Option("--dataset", help="The runs' dataset, if it has no card in disbench: your card.toml, or its folder."),
]


def compare(
    run_a: Annotated[Path, Argument(parser=path, help="Folder of a finished run, A.")],
    run_b: Annotated[Path, Argument(parser=path, help="Folder of another run on the same samples, B.")],
    out: Annotated[Path, Option(parser=local_path, help="Folder for the comparison.")] = Path("comparison"),
    samples: Annotated[int, Option(min=0, max=50, help="Samples to draw, those that differ most; 0: no picture.")] = 8,
    dataset: DatasetOption = None,
    data: DataOption = None,
) -> None:
    """Compare two runs on the same samples: paired differences, intervals, p-values, pictures."""
    from disbench.reports.comparison import (  # noqa: PLC0415
        compare_runs,
        draw_differences,
        lines_of,
        one_run,
        write_comparison,
    )

    comparison = compare_runs(one_run(addresses.here(run_a)), one_run(addresses.here(run_b)))
    picture = draw_differences(comparison, data, samples, dataset) if samples else None
    say_all(lines_of(comparison))
    typer.echo("")
    for written in write_comparison(comparison, out, picture):
        typer.echo(f"look at: {written}")


def failures(
    runs: Annotated[list[Path], Argument(parser=path, help="Runs, or folders that contain them.")],
    out: Annotated[Path, Option(parser=local_path, help="Folder for the pictures.")] = Path("failures"),
    samples: Annotated[
        int, Option(min=1, max=50, help="Samples to draw that are never solved, and as many that are solved late.")
    ] = 8,
    dataset: DatasetOption = None,
    data: DataOption = None,
) -> None:
    """Draw failures: samples that never reach an IoU of 0.90, and those that take longest."""
    from disbench.reports.failures import write_failures  # noqa: PLC0415

    say_all(write_failures([addresses.here(run) for run in runs], out, data, samples, dataset))


def reproduce(
    name: Annotated[str | None, Argument(help="table1 ... table5 or figure4 ... figure6 (default: list them).")] = None,
    runs: Annotated[
        list[Path] | None, Option(parser=path, help="Folder of finished runs, at any depth; may be repeated.")
    ] = None,
    out: Annotated[Path, Option(parser=local_path, help="Folder for the files.")] = Path("paper"),
    map_: Annotated[
        list[str] | None, Option("--map", help='Use this run for a row: "ROW=RUN_FOLDER"; may be repeated.')
    ] = None,
    sample: Annotated[
        list[str] | None,
        Option(help="Id of a sample that figure5 or figure6 shows; may be repeated (default: random)."),
    ] = None,
    data: DataOption = None,
    markdown: Annotated[bool, Option("--markdown", help="A table as Markdown.")] = False,
    latex: Annotated[bool, Option("--latex", help="A table for LaTeX.")] = False,
    csv: Annotated[bool, Option("--csv", help="All numbers, unrounded.")] = False,
    png: Annotated[bool, Option("--png", help="A figure as PNG.")] = False,
    svg: Annotated[bool, Option("--svg", help="A figure as SVG.")] = False,
    pdf: Annotated[bool, Option("--pdf", help="A figure as PDF.")] = False,
) -> None:
    """Make a table or figure of the paper from stored runs, beside the published numbers."""
    from disbench.reports.paper.reproduce import reproduce as make  # noqa: PLC0415
    from disbench.reports.paper.reproduce import reproducible  # noqa: PLC0415
    from disbench.reports.paper.rows import parse_rows  # noqa: PLC0415

    if name is None:
        say_all(reproducible())
        return
    asked = {"markdown": markdown, "latex": latex, "csv": csv, "png": png, "svg": svg, "pdf": pdf}
    formats = [form for form, wanted in asked.items() if wanted]
    made = make(
        name,
        [addresses.here(folder) for folder in runs or []],
        out,
        rows=parse_rows(map_ or []),
        formats=formats,
        data=data,
        samples=sample or (),
    )
    say_all(made.lines)


def published(method: Annotated[str | None, Argument(help="Name of a method (default: list all).")] = None) -> None:
    """List the published numbers of a method, with sources and remarks."""
    from disbench.reports.paper.published import (  # noqa: PLC0415
        published_lines,
        published_methods,
        read_published,
    )

    say_all(published_methods(read_published()) if method is None else published_lines(method))
