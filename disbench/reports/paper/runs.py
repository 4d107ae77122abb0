"""Stored runs beside the paper: to which row a run belongs, and how it departs from the paper's protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError, unknown_name
from disbench.io import addresses
from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.paper.published import Dataset, bare, read_published
from disbench.reports.render.text import counted
from disbench.reports.tables import deviation_from, notes_on_dataset

_DATA = {"c": "coco", "l": "lvis", "voc": "pascalvoc"}
"""Short names of training data."""


@dataclass(frozen=True)
class Pattern:
    """Which runs belong to a row of a table. Several values mean any of them, no value means any at all.

    Attributes:
        method: names, with `*` for any letters.
        options: option of the method -> value.
        lacking: option -> its value in a run that does not have the option.
    """

    method: str | tuple[str, ...] = ()
    backbone: str | tuple[str, ...] = ()
    training_data: str | tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    lacking: Mapping[str, Any] = field(default_factory=dict)

    def beside(self, shared: Pattern, full_models: Mapping[str, Mapping[str, Any]]) -> Pattern:
        """The pattern with what all rows of its table share, and the options of its method's full model."""
        methods = _several(self.method or shared.method)
        full: dict[str, Any] = {}
        for method in methods:
            full |= full_models.get(method.lower(), {})
        return Pattern(
            methods,
            self.backbone or shared.backbone,
            self.training_data or shared.training_data,
            {**full, **shared.options, **self.options},
            {**full, **shared.lacking, **self.lacking},
        )

    def fits(self, entry: Entry) -> bool:
        """Whether a run belongs here.

        A run's backbone and training data are those of its options of these names where it has them, else its
        card's; spelling does not matter (`HRNet-18s`, `hrnet18s`; `C+L`, `COCO+LVIS`).
        """
        options = {**self.lacking, **method_options(entry)}
        backbone = bare(str(options.get("backbone", entry.backbone)))
        data = _data(options.get("training_data", entry.training_data))
        return (
            is_method(entry, _several(self.method))
            and (not self.backbone or backbone in map(bare, _several(self.backbone)))
            and (not self.training_data or data in map(_data, _several(self.training_data)))
            and all(
                any(_same(options.get(name), value) for value in _several(values))
                for name, values in self.options.items()
            )
        )


@dataclass(frozen=True)
class PaperRuns:
    """Runs, and the rows that the user named for some of them: folder of an entry -> name of its row."""

    entries: tuple[Entry, ...]
    named: Mapping[str, str]


def read_paper_runs(folders: Sequence[Path], rows: Sequence[tuple[str, Path]] = ()) -> PaperRuns:
    """The runs of folders, which may be none.

    Args:
        folders: each a run, or a folder with runs below it, at any depth.
        rows: name of a row, and a folder whose runs belong to it.

    Raises:
        InputError: no run in a folder, or one that is damaged, unfinished or named for two rows.
    """
    if not folders and not rows:
        return PaperRuns((), {})
    wanted: dict[Path, str] = {}
    for name, folder in rows:
        for run in find_runs([folder]):
            place = run.folder.resolve()
            if wanted.setdefault(place, name) != name:
                raise InputError(f"{run.folder}: named for the rows {wanted[place]!r} and {name!r}; name one")
    runs = find_runs([*folders, *(folder for _, folder in rows)])
    entries = read_entries(runs)
    named = {
        entry.folder: wanted[run.folder.resolve()]
        for run, entry in zip(runs, entries, strict=True)
        if run.folder.resolve() in wanted
    }
    return PaperRuns(tuple(entries), named)


def parse_rows(texts: Iterable[str]) -> list[tuple[str, Path]]:
    """Name of a row and folder from each `ROW=FOLDER`; `InputError` for another form."""
    found = []
    for text in texts:
        name, sign, folder = text.partition("=")
        if not (sign and name.strip() and folder.strip()):
            raise InputError(f"--map {text!r}: give the name of a row and the folder of a run as ROW=FOLDER")
        found.append((name.strip(), addresses.here(addresses.path_of(folder.strip()))))
    return found


def assign(runs: PaperRuns, patterns: Mapping[str, Pattern]) -> tuple[dict[str, list[Entry]], list[Entry]]:
    """The runs of each row (the one that the user named, else the first that fits), and those without a row.

    Raises:
        InputError: the user named an unknown row.
    """
    for name in runs.named.values():
        if name not in patterns:
            raise unknown_name("row", name, patterns)
    found: dict[str, list[Entry]] = {name: [] for name in patterns}
    rest: list[Entry] = []
    for entry in runs.entries:
        fitting = (name for name, pattern in patterns.items() if pattern.fits(entry))
        row = runs.named.get(entry.folder) or next(fitting, None)
        (rest if row is None else found[row]).append(entry)
    return found, rest


def is_method(entry: Entry, patterns: Iterable[str]) -> bool:
    """Whether a run is of a method whose name fits some pattern."""
    return any(fnmatchcase(entry.method.lower(), pattern.lower()) for pattern in patterns)


def method_options(entry: Entry) -> Mapping[str, Any]:
    """The options of a run's method."""
    return entry.record.method.options


def departures(entry: Entry) -> tuple[str, ...]:
    """How a run departs from the paper's protocol, on any dataset."""
    usual = entry.record.method.facts.threshold
    found = (
        deviation_from(entry, read_published().sources.protocol),
        f"threshold {entry.threshold:g} instead of the method's own {usual:g}" if entry.threshold != usual else "",
    )
    return tuple(filter(None, found))


def notes_on_samples(entry: Entry, dataset: Dataset, opencv: str) -> tuple[str, ...]:
    """Notes on a run's samples, version of OpenCV (`opencv` is that of most runs) and failures."""
    return tuple(filter(None, (_other_data(entry, dataset), *notes_on_dataset(entry, opencv))))


def is_comparable(entry: Entry, dataset: Dataset) -> bool:
    """Whether a run followed the paper's protocol on all samples of the dataset."""
    return entry.conditions["samples"] == "all" and not _other_data(entry, dataset) and not departures(entry)


def not_shown(entries: Sequence[Entry], why: str) -> str:
    """A sentence on runs that are left out; "" if there are none."""
    if not entries:
        return ""
    datasets: dict[str, list[str]] = {}
    for entry in entries:
        datasets.setdefault(entry.label, []).append(entry.dataset)
    names = [f"{label} on {', '.join(dict.fromkeys(where))}" for label, where in datasets.items()]
    return f"Not shown, {why}: {counted(len(entries), 'run')} ({'; '.join(names)})."


def _other_data(entry: Entry, dataset: Dataset) -> str:
    if dataset.content_hash in ("", entry.content_hash):
        return ""
    return f"another {dataset.title}: content hash {entry.short_hash} instead of the card's {dataset.content_hash[:8]}"


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _data(names: str | Sequence[str]) -> frozenset[str]:
    text = names if isinstance(names, str) else ",".join(map(str, names))
    parts = {bare(part) for part in re.split(r"[+,&/]", text)} - {""}
    return frozenset(_DATA.get(part, part) for part in parts)


def _same(one: Any, other: Any) -> bool:
    """1 differs from true, 5 equals 5.0, case does not matter."""
    if isinstance(one, str) and isinstance(other, str):
        return one.lower() == other.lower()
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
