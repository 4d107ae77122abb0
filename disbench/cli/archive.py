"""Commands for handing results in: pack, verify."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from disbench.cli.options import DataOption, local_path, path, say
from disbench.io import addresses

_DOES_NOT_HOLD = 2


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
        str | None, Option(help="The run's dataset (card or folder), if its name alone does not find it.")
    ] = None,
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
        run = verify_run(place, data, dataset=dataset, recording=found_here, progress=True)
        lines, holds = run.lines(), run.holds
    for line in lines:
        say(line, err=not holds)
    if not holds:
        raise typer.Exit(_DOES_NOT_HOLD)
