"""Commands for datasets of diverse sets: sample, merge, inspect, export; and quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from disbench.cli.options import (
    AddressOption,
    DataOption,
    EngineOption,
    ExistingOption,
    WorkersOption,
    echo_left_out,
    list_option,
    local_path,
    path,
)
from disbench.io import addresses

if TYPE_CHECKING:
    from disbench.shards.manifest import ShardManifest


def sample(
    recipe: Annotated[str, Argument(help="Name of a recipe (see --list), or the path of your own TOML file.")],
    out: Annotated[str, Option(metavar="<path>", help="Folder for the shards: a path or an address (s3://...).")],
    lvis: Annotated[
        list[Path] | None, Option(parser=path, help="LVIS annotations (JSON, v0.5 or v1); may be repeated.")
    ] = None,
    coco: Annotated[
        list[Path] | None, Option(parser=path, help="COCO instance annotations (JSON); may be repeated.")
    ] = None,
    panoptic: Annotated[
        list[Path] | None, Option(parser=path, help="COCO panoptic annotations (JSON), for stuff regions.")
    ] = None,
    panoptic_masks: Annotated[
        Path | None, Option(parser=path, help="Folder of the panoptic PNGs (default: beside the JSON).")
    ] = None,
    sbd: Annotated[Path | None, Option(parser=path, help="Folder of SBD.")] = None,
    voc: Annotated[Path | None, Option(parser=path, help="Folder of PascalVOC (VOC2012).")] = None,
    hannotation: Annotated[
        Path | None, Option(parser=path, help="Folder with RITM's hannotation.pickle and masks/.")
    ] = None,
    photos: Annotated[bool, Option("--photos", help="Use the embedded photos.")] = False,
    folder: Annotated[
        Path | None, Option(parser=path, help="Folder of the recipe's dataset (ADE20K, Pascal-Part, SA-1B ...).")
    ] = None,
    split: Annotated[str, Option(help="Image list or split of a dataset in a folder: train, val ...")] = "train",
    set_: Annotated[list[str] | None, Option("--set", help="Override an option of the recipe: option=value.")] = None,
    seed: Annotated[int | None, Option(min=0, help="Random seed.")] = None,
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    limit: Annotated[int | None, Option(min=1, help="Use only the first N images.")] = None,
    shard_of: Annotated[
        str | None, Option(metavar="i/n", help="Sample only the i-th of n slices; disbench merge joins the parts.")
    ] = None,
    existing: ExistingOption = "resume",
    data: DataOption = None,
    _list: Annotated[bool, list_option("sampling", "List the recipes.")] = False,
) -> None:
    """Make shards of diverse sets from annotations."""
    from disbench.io.outputs import output  # noqa: PLC0415
    from disbench.sampling.job import JOB_FILES, make_shards, parse_part  # noqa: PLC0415
    from disbench.sampling.recipes import load_recipe  # noqa: PLC0415
    from disbench.sampling.sources import SourcePaths, open_source  # noqa: PLC0415
    from disbench.shards.manifest import MANIFEST  # noqa: PLC0415
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
        folder=folder,
        split=split,
        data=data,
    )
    source = open_source(chosen, paths)
    where = open_engine(engine, workers, address=address)
    with output(out, JOB_FILES, last=MANIFEST, existing=existing) as place:
        manifest = make_shards(
            source,
            chosen,
            place.folder,
            engine=where,
            limit=limit,
            part=part,
            existing=existing,
            progress=True,
            finished=place.push,
        )
    _print_made(out, manifest)


def _print_made(out: Path | str, manifest: ShardManifest) -> None:
    """Print what the shards hold and what was left out."""
    typer.echo(
        f"{out}: {manifest.scenes} scenes, {manifest.objects} objects, {manifest.sets} sets "
        f"in {len(manifest.files)} shards (of {manifest.images} images)"
    )
    echo_left_out(manifest.dropped or {})


def merge(
    parts: Annotated[
        list[Path],
        Argument(metavar="PART...", parser=path, help="The folders made by sample --shard-of, in any order."),
    ],
    out: Annotated[str, Option(help="Folder for the merged shards.")],
    existing: ExistingOption = "resume",
) -> None:
    """Join the parts of a dataset; the result has the same bytes as an undivided job."""
    from disbench.io.outputs import output  # noqa: PLC0415
    from disbench.sampling.job import JOB_FILES  # noqa: PLC0415
    from disbench.sampling.merged_parts import merge_parts  # noqa: PLC0415
    from disbench.shards.manifest import MANIFEST  # noqa: PLC0415

    folders = [addresses.here(part) for part in parts]
    with output(out, JOB_FILES, last=MANIFEST, existing=existing) as place:
        manifest = merge_parts(folders, place.folder, existing=existing, progress=True, finished=place.push)
    _print_made(out, manifest)


def inspect(
    folders: Annotated[
        list[Path], Argument(metavar="DIR...", parser=path, help="Finished folders of shards; several: one table.")
    ],
    images: Annotated[Path | None, Option(parser=path, help="Folder of the images, for the contact sheet.")] = None,
    sheet: Annotated[
        Path | None,
        Option(
            parser=local_path,
            help="Contact sheet to write (default: contact-sheet.png in the folder; for an address, here).",
        ),
    ] = None,
    rows: Annotated[int, Option(min=0, help="Sets on the contact sheet; 0 draws none.")] = 8,
    only: Annotated[
        list[str] | None, Option("--image", help="Draw only sets of this image id; may be repeated.")
    ] = None,
    seed: Annotated[int, Option(min=0, help="Seed for choosing the sets.")] = 0,
    fast: Annotated[bool, Option("--fast", help="Skip mask overlaps, which take most of the time.")] = False,
    limit: Annotated[int | None, Option(min=1, help="Use only the first N scenes.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print the statistics as JSON.")] = False,
    data: DataOption = None,
) -> None:
    """Print statistics of shards and draw a contact sheet of images, masks and click regions.

    Of several folders, their statistics are one table, and no sheet is drawn.
    """
    import json  # noqa: PLC0415

    from disbench.shards.contact_sheet import draw_contact_sheet  # noqa: PLC0415
    from disbench.shards.reader import lookup  # noqa: PLC0415
    from disbench.shards.statistics import as_text, comparison, statistics  # noqa: PLC0415

    if len(folders) > 1:
        every = [
            (addresses.with_addresses(str(one)), statistics(addresses.here(one), overlaps=not fast, limit=limit))
            for one in folders
        ]
        typer.echo(json.dumps(dict(every), indent=1) if as_json else comparison(every))
        return
    (folder,) = folders
    local = addresses.address_of(folder) is None
    found = statistics(addresses.here(folder), overlaps=not fast, limit=limit, progress=True)
    typer.echo(json.dumps(found, indent=1) if as_json else as_text(found))
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


def export(
    folder: Annotated[Path, Argument(parser=path, help="A finished folder of shards.")],
    format_: Annotated[
        Literal["ritm", "coco"],
        Option("--format", help="ritm: a folder (add the images as images/ID.jpg); coco: a JSON file."),
    ],
    out: Annotated[str, Option(metavar="<path>", help="Folder (ritm) or file (coco) to write; a path or an address.")],
) -> None:
    """Export shards for other tools: RITM's hannotation.pickle and masks, or a COCO JSON."""
    import glob  # noqa: PLC0415

    from disbench.io.outputs import output, split_file  # noqa: PLC0415
    from disbench.shards.export import export_coco, export_ritm  # noqa: PLC0415

    addresses.here(folder)
    if format_ == "ritm":
        with output(out, ("*",), pull=False) as place:
            scenes = export_ritm(folder, place.folder)
    else:
        parent, name = split_file(out)
        with output(parent, (glob.escape(name),), pull=False) as place:
            scenes = export_coco(folder, place.folder / name)
    typer.echo(f"{out}: {scenes} scenes")


def quickstart(
    out: Annotated[Path, Option(parser=local_path, help="Folder for the results.")] = Path("quickstart"),
    existing: ExistingOption = "resume",
) -> None:
    """Try everything on the embedded photos: shards, contact sheets, a benchmark and its report."""
    from disbench.cli.quickstart import quickstart as run  # noqa: PLC0415

    for made in run(out, existing):
        typer.echo(f"look at: {made}")
