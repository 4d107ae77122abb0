"""Cards of datasets: what a TOML file in `datasets/` says, and the samples behind a name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

from disbench.core.errors import InputError, shown, unknown_name
from disbench.core.samples import SampleSource
from disbench.io import addresses, definitions
from disbench.io.options import Option, read_options
from disbench.io.settings import LARGEST, checked

Loader = Callable[[str, Path, Mapping[str, Any], Mapping[str, object]], SampleSource]
"""Opens a dataset: name of the card, its folder, its options, facts to record."""

LOADERS: Mapping[str, str] = {
    "pairs": "disbench.datasets.pairs:open_pairs",
    "davis585": "disbench.datasets.davis585:open_davis585",
    "sbd": "disbench.datasets.sbd:open_sbd",
    "voc": "disbench.datasets.voc:open_voc",
    "hqseg": "disbench.datasets.hqseg:open_hqseg",
    "coco": "disbench.datasets.annotated:open_coco",
    "lvis": "disbench.datasets.annotated:open_lvis",
    "photos": "disbench.datasets.annotated:open_photo_samples",
    "folder": "disbench.datasets.folder:open_folder",
}
"""Loader of a card -> where its function is; a card may also name one as `package.module:function`."""
ANY_FOLDER = "folder"
"""The card that a folder is opened with."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that a dataset is fetched from: one table of `[[files]]`.

    Attributes:
        url: where it is, http or https.
        file: its name while it is downloaded, or its path in the dataset's folder if it is not unpacked.
        holds: what is taken out of an archive: the names that lie together in one folder of it, wherever
            in the archive that folder is. Empty: everything, as it lies in the archive.
        to: the folder below the dataset's that they are put in.
        unpack: whether it is an archive (zip, tar, tar.gz, tar.bz2).
        sha256: of the file; empty where it is not known.
        bytes: of the file; 0 where it is not known.
    """

    url: str
    file: str
    holds: tuple[str, ...] = ()
    to: str = ""
    unpack: bool = True
    sha256: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """What a card says.

    Attributes:
        name: of the card: its file's stem.
        path: of the card.
        title: one line.
        loader: a name of `LOADERS`, or `package.module:function`.
        folder: where the dataset lies below the root of the datasets; None for one that needs no root.
        marker: paths below the folder that show that the dataset lies there; `{option}` stands for the
            value of an option.
        layout: the folder as a small tree.
        target: how masks become targets, in a sentence.
        citation: one text.
        terms: licence and usage.
        homepage: address.
        get: where to get it.
        notes: what else one should know.
        images: how many image files the samples lie on, with the card's own options; None if unknown.
        samples: how many samples, likewise.
        content_hash: of the samples, likewise; empty if unknown.
        options: by name.
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
    images: int | None = None
    samples: int | None = None
    content_hash: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    files: tuple[RemoteFile, ...] = ()

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
        if not is_known(self):
            found.append(self.path.parent / self.folder)
        return list(dict.fromkeys(found))

    def marks(self, options: Mapping[str, Any]) -> list[str]:
        """The marker's paths, with the values of options in them.

        Raises:
            InputError: a path names an option that the card does not have.
        """
        try:
            return ["".join(_marked(mark, options)) for mark in self.marker]
        except (KeyError, ValueError) as error:
            raise InputError(f"{self.path}: its marker is not as it should be ({error}); mend it") from None

    def find(self, data: Path | None, options: Mapping[str, Any]) -> Path | None:
        """The dataset's folder, or None if it is nowhere."""
        wanted = self.marks(options)
        for place in self.places(data):
            if (place.is_dir() or addresses.address_of(place)) and all(
                addresses.there(path) for path in (place, *(place / mark for mark in wanted))
            ):
                return place
        return None


def _marked(mark: str, options: Mapping[str, Any]) -> Iterator[str]:
    """A marker's parts: texts and values of options. No widths and no attributes, which format would take, too."""
    for text, name, form, conversion in Formatter().parse(mark):
        yield text
        if name is not None:
            if form or conversion:
                raise ValueError(f"{{{name}}} with more than a name")
            yield str(options[name])


def load_card(name: str) -> DatasetCard:
    """The card of a name, or of a path to the user's own TOML file.

    Raises:
        InputError: no such card, or one that is not as it should be.
    """
    known = definitions.names("datasets")
    if not name.endswith(".toml") and name not in known:
        raise unknown_name("dataset", name, known)
    path = definitions.find("datasets", name)
    return parse_card(definitions.load(path), path)


def parse_card(content: Mapping[str, Any], path: Path) -> DatasetCard:
    """A card from the content of its file, its keys and kinds checked.

    Raises:
        InputError: a missing or unknown key, a value of the wrong kind, an unknown loader.
    """
    where = str(path)
    values = _checked(content, _CARD, ("title", "loader"), where)
    if values["loader"] not in LOADERS and ":" not in values["loader"]:
        raise unknown_name("loader", values["loader"], LOADERS, where)
    files = tuple(
        RemoteFile(**_checked(table, _FILE, ("url", "file"), f"{where}: [[files]]"))
        for table in values.pop("files", [])
    )
    options = checked("options", values.pop("options", {}), Mapping[str, Option], where)
    card = DatasetCard(name=path.stem, path=path, files=files, options=options, **values)
    card.values()
    return card


def open_dataset(name: str, data: Path | None, overrides: Sequence[str] = ()) -> SampleSource:
    """The samples of a dataset.

    Args:
        name: a card's name, a path to the user's own card (`.toml`), or a folder of images and masks.
        data: root of the datasets (`--data` or DISBENCH_DATA); the dataset lies in the card's folder below
            it, or in the root itself.
        overrides: `option=value` for the card's options.

    Raises:
        InputError: no such dataset, one that is not here (with where to get it), an unknown option, or
            files that are not as the card says.
    """
    name = addresses.local_text(name)
    if is_folder(name):
        card, folder = load_card(ANY_FOLDER), Path(name)
        return _open(card, folder.resolve().name, folder, card.values(overrides))
    card = load_card(name)
    options = card.values(overrides)
    place = card.find(data, options)
    if place is None:
        raise missing(card, data, options)
    return _open(card, card.name, addresses.here(place), options)


def is_folder(name: str) -> bool:
    """Whether a dataset's name is that of a folder rather than of a card (cards come first)."""
    return not name.endswith(".toml") and name not in definitions.names("datasets") and Path(name).is_dir()


def is_known(card: DatasetCard) -> bool:
    """Whether a card is one of disbench's own."""
    return card.path.parent == definitions.folder("datasets")


def missing(card: DatasetCard, data: Path | None, options: Mapping[str, Any]) -> InputError:
    """The error of a dataset that is not here: where it was looked for, and the cure."""
    places = card.places(data)
    if not places:
        return InputError(f"{card.name}: where are the datasets? give their root with --data or DISBENCH_DATA")
    wanted = " and ".join(card.marks(options))
    looked = " or ".join(map(str, places))
    content = f"{wanted} in {looked}" if wanted else looked
    cure = f"get it with 'disbench data fetch {card.name}'" if card.files else card.get or "get the dataset"
    return InputError(f"{card.name}: there is no {content}; {cure}, or name another root with --data")


def _open(card: DatasetCard, name: str, folder: Path, options: Mapping[str, Any]) -> SampleSource:
    facts = {"title": card.title, "options": dict(options)}
    return _loader(card)(name, folder, options, facts)


def _loader(card: DatasetCard) -> Loader:
    module, _, function = LOADERS.get(card.loader, card.loader).partition(":")
    try:
        found: Loader = getattr(importlib.import_module(module), function)
    except Exception as error:  # the module is the card's: anything can happen in it
        raise InputError(f"{card.path}: its loader {card.loader!r} cannot be imported ({error})") from error
    return found


_CARD: Mapping[str, type] = {
    **dict.fromkeys(("title", "loader", "folder", "layout", "target", "citation", "terms"), str),
    **dict.fromkeys(("homepage", "get", "notes", "content_hash"), str),
    **dict.fromkeys(("images", "samples"), int),
    "marker": list,
    "options": dict,
    "files": list,
}
_FILE: Mapping[str, type] = {
    **dict.fromkeys(("url", "file", "to", "sha256"), str),
    "holds": list,
    "unpack": bool,
    "bytes": int,
}
_TEXTS = ("marker", "holds")
_KINDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


def _checked(content: object, kinds: Mapping[str, type], required: Sequence[str], where: str) -> dict[str, Any]:
    """The keys of a table, if they are known and of the right kind; lists of texts become tuples."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where} is not a table")
    for key in required:
        if key not in content:
            raise InputError(f"{where}: the key {shown(key)} is missing; add it")
    for key, value in content.items():
        if key not in kinds:
            raise unknown_name("key", key, kinds, where)
        if type(value) is not kinds[key]:
            raise InputError(f"{where}: {key} is {_KINDS[kinds[key]]}, not {shown(value)}")
        if isinstance(value, int) and not 0 <= value <= LARGEST:
            raise InputError(f"{where}: {key} is a count, which starts at 0 and ends at {LARGEST:,}")
        if isinstance(value, list) and key in _TEXTS and not all(isinstance(item, str) for item in value):
            raise InputError(f"{where}: {key} is a list of texts, not {shown(value)}")
    return {key: tuple(value) if key in _TEXTS else value for key, value in content.items()}
