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
from disbench.io.settings import Count, Option, read_options, settings_from

# Opens a dataset: name of the card, its folder, its options, facts to record.
Loader = Callable[[str, Path, Mapping[str, Any], Mapping[str, object]], SampleSource]

# Loader of a card -> its function; a card may also name one of its own as `package.module:function`.
LOADERS: Mapping[str, str] = {
    "pairs": "disbench.datasets.layouts:open_pairs",
    "davis585": "disbench.datasets.layouts:open_davis585",
    "sbd": "disbench.datasets.layouts:open_sbd",
    "voc": "disbench.datasets.layouts:open_voc",
    "hqseg": "disbench.datasets.layouts:open_hqseg",
    "tetris": "disbench.datasets.layouts:open_tetris",
    "folder": "disbench.datasets.layouts:open_folder",
    "coco": "disbench.datasets.annotated:open_coco",
    "lvis": "disbench.datasets.annotated:open_lvis",
    "photos": "disbench.datasets.annotated:open_photo_samples",
    "scenes": "disbench.datasets.annotated:open_scenes",
    "panoptic": "disbench.datasets.annotated:open_panoptic",
}
ANY_FOLDER = "folder"  # the card that a folder is opened with


@dataclass(frozen=True, slots=True)
class Address:
    """Where a file is (http, https, or shared on Google Drive): one table of `[[files.copies]]`.

    `holds` is what is taken out of this archive, by its names there, `sha256` hex, `bytes` its size; what is left out
    is as the file's.
    """

    url: str
    holds: tuple[str, ...] = ()
    sha256: str = ""
    bytes: Count = 0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that a dataset is fetched from, tried at `url` and then at `copies`: one table of `[[files]]`.

    Attributes:
        file: its name while it is downloaded, or its path in the dataset's folder if it is not unpacked.
        holds: what is taken out of an archive: names that lie together in one of its folders.
        to: subfolder of the dataset that they are put in.
        unpack: whether it is an archive (zip, tar, tar.gz, tar.bz2).
        sha256, bytes: hex and size; empty and 0 if unknown.
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
        copies = [
            Address(c.url, c.holds or own.holds, c.sha256 or own.sha256, c.bytes or own.bytes) for c in self.copies
        ]
        return [own, *copies]


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """The content of a card.

    Attributes:
        loader: a name of `LOADERS`, or `package.module:function`.
        folder: the dataset's folder below the root of the datasets; None if it needs no root.
        marker: paths in the folder that show that the dataset is there; `{option}` is replaced by its value.
        layout: the folder as a small tree.
        target: how masks become targets, in a sentence.
        images, samples, content_hash: with the card's own options; None and "" if unknown.
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
        """The value of every option, with `option=value` overrides applied (`InputError` as of `read_options`)."""
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
        for place in self.places(data):
            paths = (place, *(place / mark for mark in self.marks(options)))
            if (place.is_dir() or addresses.address_of(place)) and all(map(addresses.there, paths)):
                return place
        return None


def load_card(name: str) -> DatasetCard:
    """The card of a name, or of a path to the user's own TOML file."""
    path = definitions.find("datasets", name)
    return settings_from(DatasetCard, {**definitions.load(path), "name": path.stem, "path": path}, str(path))


def open_dataset(name: str, data: Path | None, overrides: Sequence[str] = ()) -> SampleSource:
    """The samples of a dataset.

    Args:
        name: a card's name, a path to the user's own card (`.toml`), or a folder of images and masks.
        data: root of the datasets (`--data` or DISBENCH_DATA), which has the card's folder or is it.
        overrides: `option=value` for the card's options.

    `InputError` for an unknown or missing dataset (with where to get it), an unknown option, or files that do not fit.
    """
    name = addresses.local_text(name)
    if is_folder(name):
        card, folder = load_card(ANY_FOLDER), Path(name)
        return _open(card, folder.resolve().name, folder, card.values(overrides))
    card = load_card(name)
    options = card.values(overrides)
    place = card.find(data, options)
    if place is None:
        places = card.places(data)
        if not places:
            raise InputError(f"{card.name}: the root of the datasets is unknown; name it with --data or DISBENCH_DATA")
        looked = " or ".join(map(str, places))
        content = f"{' and '.join(card.marks(options))} in {looked}" if card.marker else looked
        fix = f"get it with 'disbench data fetch {card.name}'" if card.files else card.get or "get the dataset"
        raise InputError(f"{card.name}: no {content}; {fix}, or name another root with --data")
    return _open(card, card.name, addresses.here(place), options)


def open_card(card: DatasetCard, folder: Path) -> SampleSource:
    """The samples of a dataset in a folder, with the card's own options; `InputError` as of `open_dataset`."""
    return _open(card, card.name, folder, card.values())


def is_folder(name: str) -> bool:
    """Whether a dataset's name is that of a folder rather than of a card (cards come first)."""
    return not name.endswith(".toml") and name not in definitions.names("datasets") and Path(name).is_dir()


def _open(card: DatasetCard, name: str, folder: Path, options: Mapping[str, Any]) -> SampleSource:
    module, _, function = LOADERS.get(card.loader, card.loader).partition(":")
    try:
        load: Loader = getattr(importlib.import_module(module), function)
    except Exception as error:  # the module is the user's: anything can happen in it
        raise InputError(f"{card.path}: its loader {card.loader!r} cannot be imported ({error})") from error
    try:
        return load(name, folder, options, {"title": card.title, "options": dict(options)})
    except KeyError as error:  # an option that the card lacks, or a choice that it does not restrict
        said = f"loader {card.loader!r} stops at {error}; compare the options with a card of disbench"
        raise InputError(f"{card.path}: {said}") from error
