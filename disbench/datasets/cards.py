"""Cards of datasets: the TOML files of `datasets/`, and the samples that a name stands for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError, unknown_name
from disbench.core.samples import SampleSource
from disbench.io import addresses, definitions
from disbench.io.options import Option, read_options
from disbench.io.settings import Count, settings_from

Loader = Callable[[str, Path, Mapping[str, Any], Mapping[str, object]], SampleSource]
"""Opens a dataset: name of the card, its folder, its options, facts to record."""

LOADERS: Mapping[str, str] = {
    "pairs": "disbench.datasets.layouts:open_pairs",
    "davis585": "disbench.datasets.layouts:open_davis585",
    "sbd": "disbench.datasets.layouts:open_sbd",
    "voc": "disbench.datasets.layouts:open_voc",
    "hqseg": "disbench.datasets.layouts:open_hqseg",
    "tetris": "disbench.datasets.tetris:open_tetris",
    "folder": "disbench.datasets.layouts:open_folder",
    "coco": "disbench.datasets.annotated:open_coco",
    "lvis": "disbench.datasets.annotated:open_lvis",
    "photos": "disbench.datasets.annotated:open_photo_samples",
    "scenes": "disbench.datasets.scene_samples:open_scenes",
    "panoptic": "disbench.datasets.scene_samples:open_panoptic",
}
"""Loader of a card -> its function; a card may also name one of its own as `package.module:function`."""
ANY_FOLDER = "folder"
"""The card that a folder is opened with."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a file is: one table of `[[files.copies]]`.

    Attributes:
        url: http or https, or a file shared on Google Drive.
        holds: what is taken out of this archive, by its names there; empty if they are the file's own.
        sha256: hex; empty if unknown, or as the file's.
        bytes: size; 0 if unknown, or as the file's.
    """

    url: str
    holds: tuple[str, ...] = ()
    sha256: str = ""
    bytes: Count = 0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that a dataset is fetched from: one table of `[[files]]`.

    Attributes:
        url: as of an `Address`, the first that is tried.
        file: its name while it is downloaded, or its path in the dataset's folder if it is not unpacked.
        holds: what is taken out of an archive: names that lie together in one of its folders.
        to: subfolder of the dataset that they are put in.
        unpack: whether it is an archive (zip, tar, tar.gz, tar.bz2).
        sha256: hex; empty if unknown.
        bytes: size; 0 if unknown.
        copies: further addresses, in the order in which they are tried.
    """

    url: str
    file: str
    holds: tuple[str, ...] = ()
    to: str = ""
    unpack: bool = True
    sha256: str = ""
    bytes: Count = 0
    copies: tuple[Address, ...] = ()

    @property
    def addresses(self) -> list[Address]:
        """All addresses, with what a copy leaves out taken from the file."""
        own = Address(self.url, self.holds, self.sha256, self.bytes)
        return [
            own,
            *(
                Address(copy.url, copy.holds or own.holds, copy.sha256 or own.sha256, copy.bytes or own.bytes)
                for copy in self.copies
            ),
        ]


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """The content of a card.

    Attributes:
        name: stem of the card's file.
        loader: a name of `LOADERS`, or `package.module:function`.
        folder: the dataset's folder below the root of the datasets; None if it needs no root.
        marker: paths in the folder that show that the dataset is there; `{option}` is replaced by its value.
        layout: the folder as a small tree.
        target: how masks become targets, in a sentence.
        get: where to get the dataset.
        images: number of image files with the card's own options; None if unknown.
        samples: number of samples, likewise.
        content_hash: hash of the samples, likewise; empty if unknown.
        files: what `fetch` downloads.
    """

    name: str
    path: Path
    title: str
    loader: str
    folder: str | None = None
    marker: tuple[str, ...] = ()
    layout: str = ""
    target: str = ""
    citation: str = ""
    terms: str = ""
    homepage: str = ""
    get: str = ""
    notes: str = ""
    images: Count | None = None
    samples: Count | None = None
    content_hash: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    files: tuple[RemoteFile, ...] = ()

    def __post_init__(self) -> None:
        if self.loader not in LOADERS and ":" not in self.loader:
            raise unknown_name("loader", self.loader, LOADERS)
        options = self.values()
        for mark in self.marker:
            for option in re.findall(r"{(.*?)(?:}|$)", mark):
                if option not in options:
                    raise unknown_name("option", option, options, f"marker {mark!r}")

    def values(self, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """The value of every option, with `option=value` overrides applied.

        Raises:
            InputError: an unknown option, or a value of the wrong kind.
        """
        return read_options(self.options, overrides, f"dataset {self.name}")

    def places(self, data: Path | None) -> list[Path]:
        """Folders that the dataset is looked for in, the likeliest first."""
        if self.folder is None:
            return [self.path.parent]
        found = [] if data is None else [data / self.folder, *([data] if self.marker else [])]
        if self.path.parent != definitions.folder("datasets"):
            found.append(self.path.parent / self.folder)
        return list(dict.fromkeys(found))

    def marks(self, options: Mapping[str, Any]) -> list[str]:
        """The marker's paths with the values of options filled in."""
        return [re.sub(r"{(.*?)}", lambda found: str(options[found[1]]), mark) for mark in self.marker]

    def find(self, data: Path | None, options: Mapping[str, Any]) -> Path | None:
        """The dataset's folder, or None if it is nowhere."""
        wanted = self.marks(options)
        for place in self.places(data):
            if (place.is_dir() or addresses.address_of(place)) and all(
                addresses.there(path) for path in (place, *(place / mark for mark in wanted))
            ):
                return place
        return None


def load_card(name: str) -> DatasetCard:
    """The card of a name, or of a path to the user's own TOML file.

    Raises:
        InputError: an unknown name, a missing file, or a card with a missing, unknown or wrong key.
    """
    path = definitions.find("datasets", name)
    return settings_from(DatasetCard, {**definitions.load(path), "name": path.stem, "path": path}, str(path))


def open_dataset(name: str, data: Path | None, overrides: Sequence[str] = ()) -> SampleSource:
    """The samples of a dataset.

    Args:
        name: a card's name, a path to the user's own card (`.toml`), or a folder of images and masks.
        data: root of the datasets (`--data` or DISBENCH_DATA); the dataset is in the card's folder below it, or in
            the root itself.
        overrides: `option=value` for the card's options.

    Raises:
        InputError: an unknown or missing dataset (with where to get it), an unknown option, or files that do not
            fit the card.
    """
    name = addresses.local_text(name)
    if is_folder(name):
        card, folder = load_card(ANY_FOLDER), Path(name)
        return _open(card, folder.resolve().name, folder, card.values(overrides))
    card = load_card(name)
    options = card.values(overrides)
    place = card.find(data, options)
    if place is None:
        raise _missing(card, data, options)
    return _open(card, card.name, addresses.here(place), options)


def open_card(card: DatasetCard, folder: Path) -> SampleSource:
    """The samples of a dataset in a folder, with the card's own options; `InputError` as of `open_dataset`."""
    return _open(card, card.name, folder, card.values())


def is_folder(name: str) -> bool:
    """Whether a dataset's name is that of a folder rather than of a card (cards come first)."""
    return not name.endswith(".toml") and name not in definitions.names("datasets") and Path(name).is_dir()


def _missing(card: DatasetCard, data: Path | None, options: Mapping[str, Any]) -> InputError:
    """The error for a dataset that is not found: where it was looked for, and where to get it."""
    places = card.places(data)
    if not places:
        return InputError(f"{card.name}: the root of the datasets is unknown; name it with --data or DISBENCH_DATA")
    wanted = " and ".join(card.marks(options))
    looked = " or ".join(map(str, places))
    content = f"{wanted} in {looked}" if wanted else looked
    fix = f"get it with 'disbench data fetch {card.name}'" if card.files else card.get or "get the dataset"
    return InputError(f"{card.name}: no {content}; {fix}, or name another root with --data")


def _open(card: DatasetCard, name: str, folder: Path, options: Mapping[str, Any]) -> SampleSource:
    facts = {"title": card.title, "options": dict(options)}
    load = _loader(card)
    try:
        return load(name, folder, options, facts)
    except KeyError as error:  # an option that the card lacks, or a choice that it does not restrict
        raise InputError(
            f"{card.path}: loader {card.loader!r} stops at {error}; compare the options with a card of disbench"
        ) from error


def _loader(card: DatasetCard) -> Loader:
    module, _, function = LOADERS.get(card.loader, card.loader).partition(":")
    try:
        found: Loader = getattr(importlib.import_module(module), function)
    except Exception as error:  # the module is the user's: anything can happen in it
        raise InputError(f"{card.path}: its loader {card.loader!r} cannot be imported ({error})") from error
    return found
