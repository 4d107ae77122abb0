"""Definitions of the paper's tables and figures (`reports/*.toml`), as records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, TypeVar

from disbench.core.errors import InputError
from disbench.io import definitions
from disbench.io.settings import settings_from
from disbench.reports.entries import Entry
from disbench.reports.paper.published import Dataset, Measure, Printed, bare, read_published

Definition = TypeVar("Definition")
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
        options = {**self.lacking, **entry.record.method.options}
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


@dataclass(frozen=True, slots=True)
class Label:
    """A column that says what a row is.

    Attributes:
        published: column of the published table.
        run: for a run without a row: `label`, `training_data`, `backbone`, or an option of its method.
    """

    heading: str
    published: str
    run: str


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: unique, for mapping runs to it.
        entry: labels of the published row, and its `file` if it is not the table's.
        run: which runs belong to it, in addition to the table's pattern.
    """

    name: str
    entry: Mapping[str, str]
    run: Pattern


@dataclass(frozen=True)
class Group:
    """Rows with something in common: in the paper, their training data."""

    title: str
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        source: where the numbers were printed.
        published: file with the published numbers.
        columns: of numbers, as the file calls them.
        groups: the last one is for runs without a row.
        runs_without_a_row: patterns of methods whose runs are in the last group if they have no row.
        set_off_best: whether the paper highlights the best and second best of each group.
        run: pattern shared by all rows.
    """

    name: str
    title: str
    source: str
    published: str
    columns: tuple[str, ...]
    labels: tuple[Label, ...]
    groups: tuple[Group, ...]
    runs_without_a_row: tuple[str, ...]
    set_off_best: bool = False
    run: Pattern = field(default_factory=Pattern)

    def __post_init__(self) -> None:
        """Raise `InputError` for an unknown column or published row, or two rows of one name."""
        names = [row.name for group in self.groups for row in group.rows]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two rows are called {name!r}; give them different names")
            self.printed(name)
        _ = self.measures

    @cached_property
    def rows(self) -> dict[str, Row]:
        """All rows by name."""
        return {row.name: row for group in self.groups for row in group.rows}

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of the columns of numbers."""
        return tuple(map(read_published().measure, self.columns))

    def printed(self, name: str) -> Printed:
        """The published numbers of a row."""
        return read_published().find({"file": self.published, **self.rows[name].entry})

    def pattern(self, name: str) -> Pattern:
        """Which runs belong to a row."""
        return self.rows[name].run.beside(self.run, read_published().sources.full_models)


@dataclass(frozen=True)
class PaperCurves:
    """A figure of curves: a panel for each of `datasets` (as in published columns), with at most `most_methods` curves.

    `order` has patterns of methods, in the order of drawing; `remarks` are on the paper's figure.
    """

    name: str
    title: str
    source: str
    datasets: tuple[str, ...]
    most_methods: int
    order: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `InputError` for an unknown dataset."""
        _ = self.panels

    @property
    def panels(self) -> list[Dataset]:
        """The datasets of the panels."""
        return [read_published().dataset(name) for name in self.datasets]


@dataclass(frozen=True)
class PaperPictures:
    """A figure of pictures: `samples` rows, drawn at random with the seed.

    At most `candidates` of a method are shown, the kept one among them, and the masks after `refined` clicks.
    """

    name: str
    title: str
    source: str
    samples: int
    seed: int
    candidates: int
    refined: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()


def read_definition(kind: type[Definition], name: str) -> Definition:
    """A `PaperTable`, `PaperCurves` or `PaperPictures` by its name in `reports/` (`table1`) or the path of a TOML file.

    Raises:
        InputError: no such definition, or a key in it is missing, unknown or wrong.
    """
    path = definitions.find("reports", name)
    content: dict[str, Any] = {**definitions.load(path), "name": path.stem}
    return settings_from(kind, content, str(path))


def is_method(entry: Entry, patterns: Iterable[str]) -> bool:
    """Whether a run is of a method whose name fits some pattern."""
    return any(fnmatchcase(entry.method.lower(), pattern.lower()) for pattern in patterns)


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
