"""Commands for shards of diverse sets: sample, merge, inspect, export, split; and quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from disbench.cli import options as common
from disbench.cli.options import Paths, Strings, arg, echo, in_path, opt, out_path, path
from disbench.io import addresses

if TYPE_CHECKING:
    from disbench.shards.manifest import ShardManifest


def sample(
    recipe: Annotated[str, arg("Name of a recipe (see --list), or the path of your own TOML file.")],
    out: Annotated[str, opt("Folder for the shards: a path or an address (s3://...).", metavar="<path>")],
    lvis: Annotated[Paths, in_path("LVIS annotations (JSON, v0.5 or v1); may be repeated.")] = None,
    coco: Annotated[Paths, in_path("COCO instance annotations (JSON); may be repeated.")] = None,
    panoptic: Annotated[Paths, in_path("COCO panoptic annotations (JSON), for stuff regions.")] = None,
    panoptic_masks: Annotated[Path | None, in_path("Folder of the panoptic PNGs (default: beside the JSON).")] = None,
    sbd: Annotated[Path | None, in_path("Folder of SBD.")] = None,
    voc: Annotated[Path | None, in_path("Folder of PascalVOC (VOC2012).")] = None,
    hannotation: Annotated[Path | None, in_path("Folder with RITM's hannotation.pickle and masks/.")] = None,
    photos: Annotated[bool, opt("Use the embedded photos.", "--photos")] = False,
    folder: Annotated[Path | None, in_path("Folder of the recipe's dataset (ADE20K, Pascal-Part, SA-1B ...).")] = None,
    split: Annotated[str, opt("Image list or split of a dataset in a folder: train, val ...")] = "train",
    set_: Annotated[Strings, opt("Override an option of the recipe: option=value.", "--set")] = None,
    seed: Annotated[int | None, opt("Random seed.", min=0)] = None,
    workers: common.WorkersOption = None,
    engine: common.EngineOption = "local",
    address: common.AddressOption = None,
    limit: Annotated[int | None, opt("Use only the first N images.", min=1)] = None,
    shard_of: Annotated[str | None, opt("Only the i-th of n slices; disbench merge joins them.", metavar="i/n")] = None,
    existing: common.ExistingOption = "resume",
    data: common.DataOption = None,
    _list: Annotated[bool, common.list_option("sampling", "List the recipes.")] = False,
) -> None:
    """Make shards of diverse sets from annotations."""
    from disbench.io.outputs import open_output
    from disbench.sampling.job import JOB_FILES, make_shards, parse_part
    from disbench.sampling.recipes import load_recipe
    from disbench.sampling.sources import SourcePaths, open_source
    from disbench.shards.manifest import MANIFEST
    from disbench.workers import open_engine

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
    pool = open_engine(engine, workers, address=address)
    with open_output(out, JOB_FILES, last=MANIFEST, existing=existing) as destination:
        manifest = make_shards(
            source,
            chosen,
            destination.folder,
            engine=pool,
            limit=limit,
            part=part,
            existing=existing,
            progress=True,
            on_shard=destination.push,
        )
    _echo_manifest(out, manifest)


def _echo_manifest(out: Path | str, manifest: ShardManifest) -> None:
    """Print the contents of the shards and what was left out."""
    typer.echo(
        f"{out}: {manifest.scenes} scenes, {manifest.objects} objects, {manifest.sets} sets "
        f"in {len(manifest.files)} shards (of {manifest.images} images)"
    )
    common.echo_left_out(manifest.dropped or {})


def merge(
    parts: Annotated[list[Path], arg("Folders of sample --shard-of, in any order.", metavar="PART...", parser=path)],
    out: Annotated[str, opt("Folder for the merged shards.")],
    existing: common.ExistingOption = "resume",
) -> None:
    """Join the parts of a dataset; the result has the same bytes as an undivided job."""
    from disbench.io.outputs import open_output
    from disbench.sampling.job import JOB_FILES
    from disbench.sampling.merged_parts import merge_parts
    from disbench.shards.manifest import MANIFEST

    folders = [addresses.local_copy(part) for part in parts]
    with open_output(out, JOB_FILES, last=MANIFEST, existing=existing) as destination:
        manifest = merge_parts(folders, destination.folder, existing=existing, progress=True, on_shard=destination.push)
    _echo_manifest(out, manifest)


def inspect(
    folders: Annotated[list[Path], arg("Folders of shards; several give one table.", metavar="DIR...", parser=path)],
    images: Annotated[Path | None, in_path("Folder of the images, for the contact sheet.")] = None,
    sheet: Annotated[
        Path | None, out_path("Contact sheet (default: contact-sheet.png in the folder; for an address, here).")
    ] = None,
    rows: Annotated[int, opt("Sets on the contact sheet; 0 draws none.", min=0)] = 8,
    only: Annotated[Strings, opt("Draw only sets of this image id; may be repeated.", "--image")] = None,
    seed: Annotated[int, opt("Seed for choosing the sets.", min=0)] = 0,
    fast: Annotated[bool, opt("Skip mask overlaps, which take most of the time.", "--fast")] = False,
    limit: Annotated[int | None, opt("Use only the first N scenes.", min=1)] = None,
    as_json: Annotated[bool, opt("Print the statistics as JSON.", "--json")] = False,
    data: common.DataOption = None,
) -> None:
    """Print statistics of shards and draw a contact sheet of images, masks and click regions.

    Several folders give one table of statistics and no sheet.
    """
    import json

    from disbench.shards.contact_sheet import draw_contact_sheet
    from disbench.shards.reader import image_lookup
    from disbench.shards.statistics import as_text, compare_folders, statistics

    if len(folders) > 1:
        results = [
            (
                addresses.restore_addresses(str(folder)),
                statistics(addresses.local_copy(folder), overlaps=not fast, limit=limit),
            )
            for folder in folders
        ]
        typer.echo(json.dumps(dict(results), indent=1) if as_json else compare_folders(results))
        return
    (folder,) = folders
    is_local = addresses.address_of(folder) is None
    stats = statistics(addresses.local_copy(folder), overlaps=not fast, limit=limit, progress=True)
    typer.echo(json.dumps(stats, indent=1) if as_json else as_text(stats))
    if rows:
        drawn = draw_contact_sheet(
            folder,
            image_lookup(folder, images, data),
            sheet or (folder if is_local else Path()) / "contact-sheet.png",
            rows=rows,
            seed=seed,
            only=only,
        )
        typer.echo(f"contact sheet: {drawn.path}", err=as_json)
        if drawn.missing:
            typer.echo(
                f"  images not found: {', '.join(drawn.missing[:5])}{' ...' if drawn.missing[5:] else ''} "
                "(give their folder with --images)",
                err=as_json,
            )


def export(
    folder: Annotated[Path, arg("A finished folder of shards.", parser=path)],
    format_: Annotated[
        Literal["ritm", "coco"], opt("ritm: folder (add images/ID.jpg); coco: a JSON file.", "--format")
    ],
    out: Annotated[str, opt("Folder (ritm) or file (coco) to write; a path or an address.", metavar="<path>")],
) -> None:
    """Export shards for other tools: RITM's hannotation.pickle and masks, or a COCO JSON."""
    import glob

    from disbench.io.outputs import open_output, split_file
    from disbench.shards.export import export_coco, export_ritm

    addresses.local_copy(folder)
    if format_ == "ritm":
        with open_output(out, ("*",), pull=False) as destination:
            scenes = export_ritm(folder, destination.folder)
    else:
        parent, name = split_file(out)
        with open_output(parent, (glob.escape(name),), pull=False) as destination:
            scenes = export_coco(folder, destination.folder / name)
    typer.echo(f"{out}: {scenes} scenes")


def quickstart(
    out: Annotated[Path, out_path("Folder for the results.")] = Path("quickstart"),
    existing: common.ExistingOption = "resume",
) -> None:
    """Try everything on the embedded photos: shards, contact sheets, a benchmark and its report."""
    from disbench.cli.quickstart import quickstart as run

    for file in run(out, existing):
        typer.echo(f"look at: {file}")


split_app = typer.Typer(help="Make and check frozen splits: fixed lists of diverse sets.", no_args_is_help=True)
ShardsArgument = Annotated[Path, arg("A finished folder of shards.", parser=path)]


@split_app.command("make")
def split_make(
    shards: ShardsArgument,
    out: Annotated[Path, out_path("List to write, NAME.jsonl; NAME.toml beside it records how it was made.")],
    dataset: Annotated[str, opt("Name of the dataset, the first part of each key.")],
    split: Annotated[str, opt("Split of the dataset, the second part of each key: val, test ...")],
    size: Annotated[int | None, opt("Sets to draw: at most 3 per image, 5 % of a part (default: all).", min=1)] = None,
    images: Annotated[str, opt("Images whose file_name matches: 'val2017/*', '*[05].jpg'.", metavar="PATTERN")] = "*",
) -> None:
    """Draw diverse sets from shards by the hash of their keys, and write them as a list with hashes of their masks."""
    from disbench.sampling.splits import make_split, standard_draw

    draw = standard_draw(dataset, split, images, size)
    drawn = make_split(addresses.local_copy(shards), out, draw, common.command_line(), progress=True)
    few = f", fewer than {size}: more would exceed the shares" if size and len(drawn.sets) < size else ""
    echo(
        f"{out}: {len(drawn.sets)} sets of {drawn.record.candidates:,} candidates{few}; list {drawn.record.list_sha256}"
    )


@split_app.command("check")
def split_check(split: Annotated[str, arg("Name of a split, or your own NAME.jsonl.")], shards: ShardsArgument) -> None:
    """Draw a split again from shards, and compare keys, order and masks with its list."""
    from disbench.sampling.splits import check_split, read_split

    frozen = read_split(split)
    problem = check_split(frozen, addresses.local_copy(shards), progress=True)
    if problem:
        echo(f"{shards}: not split {frozen.name}: {problem}", err=True)
        raise typer.Exit(common.BAD_INPUT)
    echo(f"{shards}: split {frozen.name} holds: {len(frozen.sets)} sets of {frozen.record.candidates:,} candidates")
