"""Dataset cards: the TOML files in `datasets/`, and opening a dataset by name."""

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

# Opens a dataset from the card's name, its folder, options, and facts to record.
Loader = Callable[[str, Path, Mapping[str, Any], Mapping[str, object]], SampleSource]

# Loader name -> function; a card may also give its own as `package.module:function`.
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
ANY_FOLDER = "folder"  # the card for opening any folder


@dataclass(frozen=True, slots=True)
class Address:
    """The URL of a copy of a file (http, https, or shared on Google Drive): one table of `[[files.copies]]`.

    `holds` are the names to extract from this archive, `sha256` is hex, `bytes` the size; omitted fields are the same
    as the file's.
    """

    url: str
    holds: tuple[str, ...] = ()
    sha256: str = ""
    bytes: Count = 0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download for a dataset, from `url` or else from `copies`: one table of `[[files]]`.

    Attributes:
        file: file name of the download, or path in the dataset's folder if it is not unpacked.
        holds: names to extract from an archive, all in one of its folders.
        to: subfolder of the dataset to put them in.
        unpack: True for an archive (zip, tar, tar.gz, tar.bz2).
        sha256, bytes: hex digest and size; "" and 0 if unknown.
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
        """All addresses; fields omitted by a copy come from the file."""
        own = Address(self.url, self.holds, self.sha256, self.bytes)
        copies = [
            Address(c.url, c.holds or own.holds, c.sha256 or own.sha256, c.bytes or own.bytes) for c in self.copies
        ]
        return [own, *copies]


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """The content of a dataset card.

    Attributes:
        loader: a key of `LOADERS`, or `package.module:function`.
        folder: the dataset's folder under the data root; None if it needs no root.
        marker: paths in the folder by which the dataset is detected; `{option}` is replaced by the option's value.
        layout: the folder as a small tree.
        target: one sentence on how masks become targets.
        images, samples, content_hash: with default options; None and "" if unknown.
        files: the files that `fetch` downloads.
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
        """All option values, with `option=value` overrides applied; raises as `read_options`."""
        return read_options(self.options, overrides, f"dataset {self.name}")

    def places(self, data: Path | None) -> list[Path]:
        """Folders to search for the dataset, most likely first."""
        if self.folder is None:
            return [self.path.parent]
        found = [] if data is None else [data / self.folder, *([data] if self.marker else [])]
        if self.path.parent != definitions.folder("datasets"):
            found.append(self.path.parent / self.folder)
        return list(dict.fromkeys(found))

    def marks(self, options: Mapping[str, Any]) -> list[str]:
        """The marker's paths with option values filled in."""
        return [re.sub(r"{(.*?)}", lambda found: str(options[found[1]]), mark) for mark in self.marker]

    def find(self, data: Path | None, options: Mapping[str, Any]) -> Path | None:
        """The dataset's folder, or None if not found."""
        for place in self.places(data):
            paths = (place, *(place / mark for mark in self.marks(options)))
            if (place.is_dir() or addresses.address_of(place)) and all(map(addresses.exists, paths)):
                return place
        return None


def load_card(name: str) -> DatasetCard:
    """Load a card by name, or from the path of the user's own TOML file."""
    path = definitions.find("datasets", name)
    return settings_from(DatasetCard, {**definitions.load(path), "name": path.stem, "path": path}, str(path))


def open_dataset(name: str, data: Path | None, overrides: Sequence[str] = ()) -> SampleSource:
    """Open the samples of a dataset.

    Args:
        name: a card's name, a path to the user's own card (`.toml`), or a folder of images and masks.
        data: data root (`--data` or DISBENCH_DATA), which contains the card's folder or is that folder.
        overrides: `option=value` for the card's options.

    `InputError` for an unknown or missing dataset (saying where to get it), an unknown option, or unsuitable files.
    """
    name = addresses.localize(name)
    if is_folder(name):
        card, folder = load_card(ANY_FOLDER), Path(name)
        return _open(card, folder.resolve().name, folder, card.values(overrides))
    card = load_card(name)
    options = card.values(overrides)
    place = card.find(data, options)
    if place is None:
        places = card.places(data)
        if not places:
            raise InputError(f"{card.name}: the root of the datasets is unknown; set it with --data or DISBENCH_DATA")
        looked = " or ".join(map(str, places))
        content = f"{' and '.join(card.marks(options))} in {looked}" if card.marker else looked
        fix = f"get it with 'disbench data fetch {card.name}'" if card.files else card.get or "get the dataset"
        raise InputError(f"{card.name}: no {content}; {fix}, or set another root with --data")
    return _open(card, card.name, addresses.local_copy(place), options)


def open_card(card: DatasetCard, folder: Path) -> SampleSource:
    """Open the samples of a dataset in a folder with the card's default options; raises as `open_dataset`."""
    return _open(card, card.name, folder, card.values())


def is_folder(name: str) -> bool:
    """True if a dataset's name is a folder, not a card (cards take precedence)."""
    return not name.endswith(".toml") and name not in definitions.names("datasets") and Path(name).is_dir()


def _open(card: DatasetCard, name: str, folder: Path, options: Mapping[str, Any]) -> SampleSource:
    module, _, function = LOADERS.get(card.loader, card.loader).partition(":")
    try:
        load: Loader = getattr(importlib.import_module(module), function)
    except Exception as error:  # user code can raise anything
        raise InputError(f"{card.path}: its loader {card.loader!r} cannot be imported ({error})") from error
    try:
        return load(name, folder, options, {"title": card.title, "options": dict(options)})
    except KeyError as error:  # an option missing from the card, or a choice it does not restrict
        said = f"loader {card.loader!r} needs {error}; compare the options with a card of disbench"
        raise InputError(f"{card.path}: {said}") from error
