"""What the command line has for diverse sets: the options of `run` that choose them, and the command `ambiguity`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from disbench.cli.options import DataOption, local_path, path, say, say_all
from disbench.core.errors import InputError
from disbench.io import addresses

if TYPE_CHECKING:
    from disbench.harness.record import Result
    from disbench.harness.set_source import SetSource

FAILED_SAMPLES = 1
"""Exit code of a run that is finished, with samples on which the method failed or that cannot be read."""
_NAMED = 5
"""Samples that a message names."""


Task = Literal["targets", "diverse", "intents", "first-clicks"]
ImagesOption = Annotated[
    str | None, Option("--images", help="Folder of the shards' images, or: embedded (default: the usual places).")
]


@dataclass(frozen=True)
class SetOptions:
    """The options of `run` that choose diverse sets."""

    task: Task
    shards: Path | None
    images: str | None
    sets: int | None
    min_members: int
    split: str | None
    seed: int
    data: Path | None

    def check(self, dataset: bool, typed: Mapping[str, bool], budget: str) -> None:
        """`InputError` unless options and task go together; `typed`: option of click loops -> whether it was typed."""
        if self.task in ("targets", "first-clicks"):
            if not dataset:
                raise InputError(
                    "--dataset is missing: name a card (disbench data list), your own card.toml, or a folder"
                )
            if self.shards or self.images or self.sets or self.min_members > 1 or self.split:
                raise InputError(
                    "--shards, --images, --sets, --min-members and --split go with --task diverse or --task intents"
                )
            if typed["--granularity"]:
                raise InputError("--granularity goes with --task intents, where a target has a size within its whole")
            if self.task == "first-clicks":
                self._check_first_clicks(typed, budget)
            return
        if self.split and (self.sets or self.min_members > 1):
            raise InputError("--split says which sets are taken; leave out --sets and --min-members")
        if self.shards is None or dataset:
            raise InputError(f"--task {self.task}: name a folder of shards with --shards, and no --dataset")
        if budget:
            raise InputError(f"--task {self.task}: a method that gets all its points at once has no first click")
        if self.task == "diverse":
            for option in (name for name, given in typed.items() if given):
                raise InputError(f"{option} belongs to loops of clicks; leave it out with --task diverse")

    def _check_first_clicks(self, typed: Mapping[str, bool], budget: str) -> None:
        if budget:
            raise InputError(f"--task {self.task}: a method that gets all its points at once has no first click")
        if not typed["--policy"]:
            raise InputError(f"--task {self.task}: name the recorded clicks with --policy replay:FILE")
        for option in (name for name, given in typed.items() if given and name != "--policy"):
            raise InputError(f"{option} belongs to loops of clicks; leave it out with --task {self.task}")

    def sets_source(self) -> SetSource:
        """The chosen sets; `InputError` for no finished shards, or if none of their sets can be taken."""
        from disbench.harness.record import Choice  # noqa: PLC0415
        from disbench.harness.set_source import SetSource  # noqa: PLC0415
        from disbench.sampling.splits import read_split  # noqa: PLC0415

        assert self.shards is not None  # checked
        choice = Choice(self.sets, self.seed, self.min_members)
        split = None if self.split is None else read_split(self.split)
        return SetSource(addresses.here(self.shards), images_at(self.images), self.data, choice, split)


def images_at(text: str | None) -> Path | str | None:
    """What `--images` names: a folder, the embedded photos, or nothing."""
    from disbench.harness.set_source import EMBEDDED  # noqa: PLC0415

    return text if text in (None, EMBEDDED) else path(text)


def say_failed(result: Result, samples: str, counted: str, verify: str = "") -> None:
    """Print which samples failed and why; `counted` says how they count, `verify` what finds all bad files.

    Raises:
        typer.Exit: some failed.
    """
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
        names = ", ".join(failure.sample for failure in unread[:_NAMED]) + (", ..." if len(unread) > _NAMED else "")
        say(
            f"{len(unread)} of {result.samples} {samples} cannot be read, which {counted}: {names}; the first: "
            f"{unread[0].reason.partition(': ')[2]}; fix the files{verify} and run the same command again, which does "
            "only these",
            err=True,
        )
    if result.failed:
        raise typer.Exit(FAILED_SAMPLES)


def ambiguity(
    runs: Annotated[
        list[Path],
        Argument(parser=path, help="Runs of --task diverse and --task intents, or folders that contain them."),
    ],
    out: Annotated[Path, Option(parser=local_path, help="Folder for the report.")] = Path("ambiguity"),
    shards: Annotated[
        list[Path] | None, Option(parser=path, help="Shards that the runs used, to draw their sets; may be repeated.")
    ] = None,
    images: ImagesOption = None,
    pictures: Annotated[int, Option(min=1, max=50, help="With --shards: sets drawn for each dataset.")] = 4,
    seed: Annotated[int, Option(min=0, help="Seed for choosing the pictures.")] = 0,
    data: DataOption = None,
) -> None:
    """Report how well candidates cover what a first click may mean: tables, figures and pictures from stored runs."""
    from disbench.reports.ambiguity.pictures import PictureOptions  # noqa: PLC0415
    from disbench.reports.ambiguity.report import make_ambiguity_report  # noqa: PLC0415

    folders = [addresses.here(folder) for folder in shards or []]
    wanted = PictureOptions(folders, images_at(images), data, pictures, seed)
    say_all(make_ambiguity_report([addresses.here(run) for run in runs], out, wanted))
