"""The command line. Every command is a thin call of a library function, imported where it is used."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from disbench import __version__
from disbench.cli import (
    ablate as cli_ablate,
)
from disbench.cli import (
    ambiguity as cli_ambiguity,
)
from disbench.cli import (
    archive as cli_archive,
)
from disbench.cli import (
    benchmark as cli_benchmark,
)
from disbench.cli import (
    compare as cli_compare,
)
from disbench.cli import (
    demo as cli_demo,
)
from disbench.cli import (
    paper as cli_paper,
)
from disbench.cli import (
    train as cli_train,
)
from disbench.cli.options import (
    AddressOption,
    DataOption,
    EngineName,
    EngineOption,
    Existing,
    ExistingOption,
    WorkersOption,
    described_line,
    local_path,
    path,
    print_definitions,
)
from disbench.core.errors import InputError
from disbench.io import addresses

app = typer.Typer(
    help="Datasets of diverse ground truth, and one exact benchmark, for click-based segmentation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """Formats that shards can be exported to."""

    RITM = "ritm"
    COCO = "coco"


_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG, errno.EDQUOT), "free some space, or name another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "allow it, or name another place"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "a file stands where a folder is needed; name another place"),
}
_INTERRUPTED = 130


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"disbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback instead of a one-line error (with any command).")
    ] = False,
) -> None:
    pass


@app.command()
def sample(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (see --list), or the path of your own TOML file.")],
    out: Annotated[
        str,
        typer.Option("--out", metavar="<path>", help="Folder for the shards: a path or an address (s3://...)."),
    ],
    lvis: Annotated[
        list[Path] | None,
        typer.Option("--lvis", parser=path, help="LVIS annotations (JSON, v0.5 or v1); may be repeated."),
    ] = None,
    coco: Annotated[
        list[Path] | None,
        typer.Option("--coco", parser=path, help="COCO instance annotations (JSON); may be repeated."),
    ] = None,
    panoptic: Annotated[
        list[Path] | None,
        typer.Option("--panoptic", parser=path, help="COCO panoptic annotations (JSON), for stuff regions."),
    ] = None,
    panoptic_masks: Annotated[
        Path | None,
        typer.Option("--panoptic-masks", parser=path, help="Folder of the panoptic PNGs (default: beside the JSON)."),
    ] = None,
    sbd: Annotated[Path | None, typer.Option("--sbd", parser=path, help="Folder of SBD.")] = None,
    voc: Annotated[Path | None, typer.Option("--voc", parser=path, help="Folder of PascalVOC (VOC2012).")] = None,
    hannotation: Annotated[
        Path | None,
        typer.Option("--hannotation", parser=path, help="Folder with RITM's hannotation.pickle and masks/."),
    ] = None,
    photos: Annotated[bool, typer.Option("--photos", help="Use the embedded photos.")] = False,
    split: Annotated[str, typer.Option("--split", help="SBD's and VOC's image list.")] = "train",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override an option of the recipe: option=value.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of what is drawn at random.")] = None,
    workers: WorkersOption = None,
    engine: EngineOption = EngineName.LOCAL,
    address: AddressOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many images.")] = None,
    shard_of: Annotated[
        str | None,
        typer.Option(
            "--shard-of",
            metavar="i/n",
            help="Only the i-th of n slices of the images; disbench merge puts the n parts together.",
        ),
    ] = None,
    existing: ExistingOption = Existing.RESUME,
    data: DataOption = None,
    _list: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=print_definitions("sampling", described_line),
            is_eager=True,
            help="List the recipes.",
        ),
    ] = False,
) -> None:
    """Make shards of diverse sets from a dataset's annotations."""
    from disbench.io.outputs import output  # noqa: PLC0415
    from disbench.sampling.job import JOB_FILES, make_shards  # noqa: PLC0415
    from disbench.sampling.parts import parse_part  # noqa: PLC0415
    from disbench.sampling.recipes import load_recipe  # noqa: PLC0415
    from disbench.sampling.sources import SourcePaths, open_source  # noqa: PLC0415
    from disbench.shards.reader import MANIFEST  # noqa: PLC0415
    from disbench.workers import open_engine  # noqa: PLC0415

    part = None if shard_of is None else parse_part(shard_of)
    overrides = [*(set_ or []), *([f"seed={seed}"] if seed is not None else [])]
    chosen = load_recipe(recipe, overrides)
    paths = SourcePaths(
        lvis=lvis or (),
        coco=coco or (),
        panoptic=panoptic or (),
        panoptic_masks=panoptic_masks,
        sbd=sbd,
        voc=voc,
        hannotation=hannotation,
        photos=photos,
        split=split,
        data=data,
    )
    source = open_source(chosen, paths)
    where = open_engine(engine.value, workers, address=address)
    with output(out, JOB_FILES, last=MANIFEST, existing=existing.value) as place:
        manifest = make_shards(
            source,
            chosen,
            place.folder,
            engine=where,
            limit=limit,
            part=part,
            existing=existing.value,
            progress=True,
            finished=place.push,
        )
    _print_made(out, manifest)


def _print_made(out: Path | str, manifest: Mapping[str, Any]) -> None:
    """What a finished folder of shards holds, and what was left out."""
    typer.echo(
        f"{out}: {manifest['scenes']} scenes, {manifest['objects']} objects, {manifest['sets']} sets "
        f"in {len(manifest['files'])} shards (of {manifest['images']} images)"
    )
    for reason, count in sorted(manifest["dropped"].items(), key=lambda item: -item[1]):
        typer.echo(f"  left out: {count} x {reason}")


@app.command()
def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(metavar="PART...", parser=path, help="All folders that sample --shard-of made, in any order."),
    ],
    out: Annotated[str, typer.Option("--out", help="Folder for the merged shards.")],
    existing: ExistingOption = Existing.RESUME,
) -> None:
    """Put the parts of a dataset together: the same bytes as if it had been sampled in one piece."""
    from disbench.io.outputs import output  # noqa: PLC0415
    from disbench.sampling.job import JOB_FILES  # noqa: PLC0415
    from disbench.sampling.merge_parts import merge_parts  # noqa: PLC0415
    from disbench.shards.reader import MANIFEST  # noqa: PLC0415

    folders = [addresses.here(part) for part in parts]
    with output(out, JOB_FILES, last=MANIFEST, existing=existing.value) as place:
        manifest = merge_parts(folders, place.folder, existing=existing.value, progress=True, finished=place.push)
    _print_made(out, manifest)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(parser=path, help="A finished folder of shards.")],
    images: Annotated[
        Path | None,
        typer.Option("--images", parser=path, help="Folder of the images, for the contact sheet."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            parser=local_path,
            help="Where to draw it (default: contact-sheet.png in the folder; of an address, here).",
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Sets on the contact sheet; 0 draws none.")] = 8,
    only: Annotated[
        list[str] | None, typer.Option("--image", help="Draw only sets of this image id; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw of sets.")] = 0,
    fast: Annotated[
        bool, typer.Option("--fast", help="Leave out how much masks overlap, which takes most of the time.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Statistics of the first so many scenes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the statistics as JSON.")] = False,
    data: DataOption = None,
) -> None:
    """Print statistics of shards and draw a contact sheet: image, masks inner to outer, click region."""
    import json  # noqa: PLC0415

    from disbench.shards.contact_sheet import draw_contact_sheet  # noqa: PLC0415
    from disbench.shards.images import lookup  # noqa: PLC0415
    from disbench.shards.statistics import as_dict, as_text, statistics  # noqa: PLC0415

    local = addresses.address_of(folder) is None
    found = statistics(addresses.here(folder), overlaps=not fast, limit=limit, progress=True)
    typer.echo(json.dumps(as_dict(found), indent=1) if as_json else as_text(found))
    if rows:
        drawn = draw_contact_sheet(
            folder,
            lookup(folder, images, data),
            sheet or (folder if local else Path()) / "contact-sheet.png",
            rows=rows,
            seed=seed,
            only=only,
        )
        typer.echo(f"contact sheet: {drawn.path}", err=as_json)
        if drawn.missing:
            typer.echo(
                f"  images not found: {', '.join(drawn.missing[:5])}{' ...' if drawn.missing[5:] else ''} "
                "(name their folder with --images)",
                err=as_json,
            )


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(parser=path, help="A finished folder of shards.")],
    format_: Annotated[
        Format,
        typer.Option("--format", help="ritm: a folder (put the images beside as images/ID.jpg); coco: a JSON file."),
    ],
    out: Annotated[
        str,
        typer.Option("--out", metavar="<path>", help="Folder (ritm) or file (coco) to write; a path or an address."),
    ],
) -> None:
    """Hand shards to other tools: RITM's hannotation.pickle and masks, or a COCO JSON."""
    import glob  # noqa: PLC0415

    from disbench.io.outputs import output, split_file  # noqa: PLC0415
    from disbench.shards.export import export_coco, export_ritm  # noqa: PLC0415

    addresses.here(folder)
    if format_ is Format.RITM:
        with output(out, ("*",), pull=False) as place:
            scenes = export_ritm(folder, place.folder)
    else:
        parent, name = split_file(out)
        with output(parent, (glob.escape(name),), pull=False) as place:
            scenes = export_coco(folder, place.folder / name)
    typer.echo(f"{out}: {scenes} scenes")


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option("--out", parser=local_path, help="Folder for the results.")] = Path("quickstart"),
    existing: ExistingOption = Existing.RESUME,
) -> None:
    """All of it on the embedded photos: shards, statistics, contact sheets."""
    from disbench.cli.quickstart import quickstart as run  # noqa: PLC0415

    for made in run(out, existing.value):
        typer.echo(f"look at: {made}")


cli_benchmark.register(app)
cli_ambiguity.register(app)
cli_archive.register(app)
cli_compare.register(app)
cli_demo.register(app)
cli_paper.register(app)
cli_train.register(app, cli_benchmark.methods_app)
cli_ablate.register(app)


def main() -> None:
    """Entry point: one-line errors and exit code 2 for what a user can mend."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(args=arguments)
    except (InputError, OSError) as error:
        if debug:
            raise
        print(f"error: {addresses.with_addresses(_sentence(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # typer turns Ctrl-C into this
            print("interrupted; run the same command again to resume", file=sys.stderr)  # noqa: T201
        raise


def _sentence(error: Exception) -> str:
    """One line that says what is wrong and how to mend it."""
    if not isinstance(error, OSError):
        return " ".join(str(error).split())
    place = f"{error.filename}: " if error.filename else ""
    reason = " ".join((error.strerror or str(error)).split())
    cure = _CURES.get(error.errno or 0, "mend it, or name another place")
    return f"{place}{reason}; {cure}, then run the same command again"
