"""Options shared by several commands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from disbench.core.choices import EngineName, Exif
from disbench.core.errors import InputError
from disbench.io import addresses
from disbench.io.files import Existing

if TYPE_CHECKING:
    from disbench.baselines.cards import MethodSpec
    from disbench.io.definitions import Kind

FAILED_SAMPLES = 1  # exit code of a finished run with samples that failed or cannot be read
BAD_INPUT = 2  # exit code of a rejected command or a failed check


def path(text: str) -> Path:
    """Parse an input: a path, or an address as the path of its local copy, which is not made yet."""
    try:
        return addresses.path_of(text)
    except InputError as error:  # typer would rewrite other errors
        raise typer.BadParameter(str(error)) from error


def local_path(text: str) -> Path:
    """Parse an output that must be on this machine."""
    if addresses.is_address(text):
        raise typer.BadParameter(f"{text}: only written locally; give a path, and copy the result yourself")
    return Path(text)


def echo(text: object, *, err: bool = False) -> None:
    """Print a line, replacing paths of local copies by their addresses."""
    typer.echo(addresses.restore_addresses(str(text)), err=err)


def echo_lines(lines: Iterable[object], *, err: bool = False) -> None:
    """Print lines with `echo`."""
    for line in lines:
        echo(line, err=err)


def command_line() -> str:
    """The command as typed, without the program's path."""
    return shlex.join(["disbench", *sys.argv[1:]])


def description_line(name: str, content: Mapping[str, Any]) -> str:
    """Name and description of a definition."""
    return f"{name:<22} {content.get('description', '')}"


def list_option(kind: Kind, help_text: str, line: Callable[[str, Mapping[str, Any]], str] = description_line) -> Any:
    """An option `--list` that prints one line per definition of a kind and exits; `help_text` is its help."""

    def print_list(is_set: bool) -> None:
        if not is_set:
            return
        from disbench.io import definitions

        for name in definitions.names(kind):
            typer.echo(line(name, definitions.load(definitions.find(kind, name))))
        raise typer.Exit

    return Option("--list", callback=print_list, is_eager=True, help=help_text)


def opt(help_text: str, *names: str, **settings: Any) -> Any:
    """An option; `help_text` is its help."""
    return Option(*names, help=help_text, **settings)


def arg(help_text: str, **settings: Any) -> Any:
    """An argument; `help_text` is its help."""
    return Argument(help=help_text, **settings)


def in_path(help_text: str, *names: str, **settings: Any) -> Any:
    """An option for an input path."""
    return opt(help_text, *names, parser=path, **settings)


def out_path(help_text: str) -> Any:
    """An option for a local output path."""
    return opt(help_text, parser=local_path)


Strings = list[str] | None
Paths = list[Path] | None


_DATASETS = "Root of the datasets; relative paths are looked up there too."
_METHODS = "Name of a card (disbench methods list), your own card.toml, package.module:Name or path/to/file.py:Name."
_VARIANT = (
    "An installed variant of a published system (disbench methods install): its repository, Python and checkpoint; "
    "--set overrides them."
)
_EXIF = "EXIF orientation of photos: ignore it (pixels as stored), or apply it as image viewers do."
_ADDRESS = "Address of the Ray cluster; auto: the one this machine belongs to (default: start one here)."
_WORKERS = "Worker processes; results do not depend on them (default: one per core, or what the cluster fits)."

DataOption = Annotated[Path | None, in_path(_DATASETS, "--data", envvar="DISBENCH_DATA")]
ExistingOption = Annotated[Existing, opt("What to do with existing results.", "--existing")]
MethodOption = Annotated[str, opt(_METHODS, "--method")]
SetOption = Annotated[Strings, opt("Set an option of the method: option=value; may be repeated.", "--set")]
VariantOption = Annotated[str | None, opt(_VARIANT, "--variant")]
DatasetArgument = Annotated[str, arg("Name of a card, your own card.toml, or a folder.")]
NamedDatasetOption = Annotated[str, opt("The dataset: name of a card, your own card.toml, or a folder.")]
DatasetSetOption = Annotated[Strings, opt("Option of the dataset: option=value; may be repeated.", "--dataset-option")]
ThresholdOption = Annotated[
    float | None, opt("Probability above which a pixel is in the mask (default: the card's).", "--threshold")
]
ImagesOption = Annotated[
    str | None, opt("Folder of the shards' images, or: embedded (default: usual places).", "--images")
]
ExifOption = Annotated[Exif, opt(_EXIF, "--exif")]
EngineOption = Annotated[EngineName, opt("Where workers run: this machine, or a Ray cluster (extra ray).", "--engine")]
AddressOption = Annotated[str | None, opt(_ADDRESS, "--address")]
WorkersOption = Annotated[int | None, opt(_WORKERS, "--workers", min=1)]
GpusOption = Annotated[float, opt("GPUs per worker on Ray; with 0.5, two share one.", "--gpus-per-worker", min=0)]
ThreadsOption = Annotated[int, opt("Threads per process.", "--threads", min=1)]
TimeoutOption = Annotated[float, opt("Seconds that one call of the method may take; 0: no limit.", "--timeout", min=0)]


def spec_from_options(method: str, variant: str | None, settings: list[str] | None) -> MethodSpec:
    """The method given by `--method`, `--variant` and `--set`."""
    from disbench.baselines.cards import method_spec
    from disbench.baselines.installs import overrides, require_installed

    installed = [] if variant is None else overrides(require_installed(method, variant))
    return method_spec(method, [*installed, *(settings or [])])


def parse_images(text: str | None) -> Path | str | None:
    """Value of `--images`: a folder, the embedded photos, or None."""
    from disbench.harness.set_source import EMBEDDED

    return text if text in (None, EMBEDDED) else path(text)


def local_photos(images: Iterable[Path], exif: Exif) -> list[Path]:
    """Local paths of photos; notes any whose EXIF orientation is ignored."""
    from disbench.datasets.images import exif_note

    photos = [addresses.local_copy(image) for image in images]
    if exif == "ignore" and (note := exif_note(photos, "--exif apply turns them")):
        echo(note, err=True)
    return photos


def echo_left_out(counts: Mapping[str, int]) -> None:
    """Print what was left out of a dataset, and which declared links were changed, most frequent first."""
    from disbench.core.scenes import LINK

    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        if count:
            typer.echo(f"  {'' if reason.startswith(LINK) else 'left out: '}{count} x {reason}")
