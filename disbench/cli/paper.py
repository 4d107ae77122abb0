"""The paper's commands: reproduce, published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from disbench.cli.options import DataOption, local_path, path, say
from disbench.io import addresses


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
        for line in reproducible():
            typer.echo(line)
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
    for line in made.lines:
        say(line)


def published(method: Annotated[str | None, Argument(help="Name of a method (default: list all).")] = None) -> None:
    """List the published numbers of a method, with sources and remarks."""
    from disbench.reports.paper.published import (  # noqa: PLC0415
        published_lines,
        published_methods,
        read_published,
    )

    for line in published_methods(read_published()) if method is None else published_lines(method):
        typer.echo(line)
