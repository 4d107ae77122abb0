"""The paper's numbers (`reports/published/`) and the definitions of its tables and figures (`reports/*.toml`)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from disbench.core.errors import InputError, unknown_name
from disbench.io import definitions
from disbench.io.settings import settings_from
from disbench.reports.entries import Entry

_MEASURE = re.compile(r"([a-z0-9-]+)_(noc|nof)(80|85|90|95)")
_SOURCE = "source"
Definition = TypeVar("Definition")
_DATA = {"c": "coco", "l": "lvis", "voc": "pascalvoc"}
"""Abbreviations of training datasets."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of the paper: its printed title, and the name of its card."""

    title: str
    card: str

    @property
    def content_hash(self) -> str:
        """The content hash in the card, or ""."""
        return _content_hash(self.card)


@dataclass(frozen=True, slots=True)
class Measure:
    """The measure of a column such as `sbd_noc90`: mean NoC, or NoF by RITM's rule, at an IoU of `percent`."""

    column: str
    dataset: Dataset
    kind: Literal["noc", "nof"]
    percent: int

    @property
    def title(self) -> str:
        """Such as `NoC@90`."""
        return f"{'NoC' if self.kind == 'noc' else 'NoF'}@{self.percent}"

    @property
    def name(self) -> str:
        """Key in `disbench.harness.measures.MEASURES`."""
        return f"noc_{self.percent}" if self.kind == "noc" else f"nof_{self.percent}_ritm"


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table (CSV file), with its source and its fields by column.

    `labels` are fields without numbers; `numbers` are as printed, or ""; `others` are measures that disbench lacks.
    """

    file: str
    source: str
    method: str
    labels: Mapping[str, str]
    numbers: Mapping[str, str]
    others: Mapping[str, str]

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether the row has all these labels."""
        return all(self.labels.get(key) == value for key, value in labels.items())


@dataclass(frozen=True)
class Remark:
    """A sentence on a published table, on its rows with the labels `where`, or on some columns of these rows."""

    file: str
    text: str
    where: Mapping[str, str] | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """Source and method of a file that has no columns for them, and its columns of other measures."""

    source: str = ""
    method: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """Entries (file and labels) that are shown next to each other, or if `one_way` only next to the first."""

    entries: tuple[Mapping[str, str], ...]
    one_way: bool = False


@dataclass(frozen=True)
class Sources:
    """`sources.toml`: datasets by their column names, the paper's protocol (condition of a run -> value), files.

    `full_models`: pattern of method names -> options of the paper's full model; `compared`: entries of several sources.
    """

    datasets: Mapping[str, Dataset]
    protocol: Mapping[str, str]
    full_models: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, File]
    compared: tuple[Compared, ...]
    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class Published:
    """The rows of all files, and the content of `sources.toml`."""

    rows: tuple[PublishedRow, ...]
    sources: Sources

    def measure(self, column: str) -> Measure:
        """The measure of a column; `InputError` if it is not a column of numbers."""
        found = _MEASURE.fullmatch(column)
        if found is None:
            raise InputError(f"{column!r} is not a column of numbers; name it like grabcut_noc85 or sbd_nof90")
        name, kind, percent = found.groups()
        return Measure(column, self.dataset(name), cast(Literal["noc", "nof"], kind), int(percent))

    def dataset(self, name: str) -> Dataset:
        """A dataset by its column name; `InputError` if unknown."""
        if name not in self.sources.datasets:
            raise unknown_name("dataset", name, self.sources.datasets)
        return self.sources.datasets[name]

    def title(self, column: str) -> str:
        """Dataset and measure of a column: `SBD NoC@90`."""
        measure = self.measure(column)
        return f"{measure.dataset.title} {measure.title}"

    def find(self, entry: Mapping[str, str]) -> PublishedRow:
        """The row with an entry's `file` and labels; `InputError` unless exactly one matches."""
        file = entry.get("file", "")
        labels = {key: value for key, value in entry.items() if key != "file"}
        found = [row for row in self.rows if row.file == file and row.has(labels)]
        if len(found) != 1:
            what = ", ".join(f"{key} {value!r}" for key, value in labels.items())
            raise InputError(f"{file}: {len(found)} rows with {what}; labels must pick exactly one")
        return found[0]

    @cached_property
    def compared(self) -> list[tuple[list[PublishedRow], bool]]:
        """The groups of compared rows in `sources.toml`, each with its `one_way`."""
        return [([self.find(entry) for entry in group.entries], group.one_way) for group in self.sources.compared]

    def elsewhere(self, row: PublishedRow) -> list[tuple[PublishedRow, dict[str, str]]]:
        """Rows of other sources, with their numbers that differ from this row: column -> number as printed."""
        found = []
        for entries, one_way in self.compared:
            for other in entries if row in (entries[:1] if one_way else entries) else ():
                both = {name: (number, other.numbers.get(name, "")) for name, number in row.numbers.items()}
                numbers = {
                    name: there
                    for name, (here, there) in both.items()
                    if there and not (here and Decimal(here) == Decimal(there))  # 14.3 and 14.30 are equal
                }
                if numbers:
                    found.append((other, numbers))
        return found

    def remarks_on_table(self, file: str) -> list[str]:
        """Remarks on a whole table."""
        return [remark.text for remark in self.sources.remarks if remark.file == file and not remark.where]

    def remarks_on(self, row: PublishedRow) -> list[Remark]:
        """Remarks on a row or some of its numbers."""
        remarks = self.sources.remarks
        return [remark for remark in remarks if remark.file == row.file and remark.where and row.has(remark.where)]

    def sentence(self, row: PublishedRow, other: PublishedRow, numbers: Mapping[str, str]) -> str:
        """A sentence on the differing numbers of another source."""
        differing = [text for key, text in other.labels.items() if row.labels.get(key) not in (None, text) and text]
        whose = f" for {', '.join(differing)}:" if differing else ""
        parts = [f"{self.title(column)} {number}" for column, number in numbers.items()]
        return f"{other.source} prints{whose} {', '.join(parts)}"


@cache
def read_published() -> Published:
    """All published numbers, from the CSV files and `sources.toml` in `reports/published/`."""
    folder = definitions.folder("reports") / "published"
    path = folder / "sources.toml"
    sources = settings_from(Sources, definitions.load(path), str(path))
    return Published(tuple(row for name, file in sources.files.items() for row in _rows(folder / name, file)), sources)


def _rows(path: Path, about: File) -> Iterator[PublishedRow]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            numbers = {column: text for column, text in row.items() if _MEASURE.fullmatch(column)}
            yield PublishedRow(
                file=path.name,
                source=row.get(_SOURCE) or about.source,
                method=row.get("method") or about.method,
                labels={key: text for key, text in row.items() if key not in (*numbers, *about.others, _SOURCE)},
                numbers=numbers,
                others={column: row[column] for column in about.others},
            )


@cache
def _content_hash(card: str) -> str:
    return str(definitions.load(definitions.find("datasets", card)).get("content_hash", ""))


def published_lines(method: str) -> list[str]:
    """All published numbers of a method, with sources, differences between them, and remarks.

    Case and punctuation of the name are ignored; `InputError` if it is unknown.
    """
    published = read_published()
    rows = [row for row in published.rows if bare(row.method) == bare(method)]
    if not rows:
        raise unknown_name("method", method, published_methods(published))
    lines = []
    for row in rows:
        shown = {key: text for key, text in row.labels.items() if text and key not in ("method", "citation")}
        named = [row.method, *(f"{key.replace('_', ' ')} {text}" for key, text in shown.items())]
        lines.append(f"{', '.join(named)}: {row.source}")
        by_dataset: dict[str, list[str]] = {}
        for column, number in row.numbers.items():
            measure = published.measure(column)
            by_dataset.setdefault(measure.dataset.title, []).append(f"{measure.title} {number or 'not printed'}")
        lines += [f"    {title}: {', '.join(texts)}" for title, texts in by_dataset.items()]
        if row.others:
            lines.append(f"    {', '.join(f'{measure} {number}' for measure, number in row.others.items())}")
        for remark in published.remarks_on(row):
            about = ", ".join(published.title(column) for column in remark.columns)
            lines.append(f"    remark{about and f' on {about}'}: {remark.text}")
        lines += [f"    differs: {published.sentence(row, *other)}" for other in published.elsewhere(row)]
    sources = {row.file: row.source for row in reversed(rows)}  # of the first row in each file
    for file in dict.fromkeys(row.file for row in rows):
        lines += [f"remark on {sources[file]}: {text}" for text in published.remarks_on_table(file)]
    return lines


def published_methods(published: Published) -> list[str]:
    """The methods with published numbers, in table order."""
    return list(dict.fromkeys(row.method for row in published.rows))


def bare(name: str) -> str:
    """A name in lower case, without punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class Pattern:
    """Pattern of the runs that belong to a row. Several values match any of them, no value matches everything.

    Attributes:
        method: names, with `*` as wildcard.
        options: option of the method -> value.
        lacking: option -> value assumed for a run without the option.
    """

    method: str | tuple[str, ...] = ()
    backbone: str | tuple[str, ...] = ()
    training_data: str | tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    lacking: Mapping[str, Any] = field(default_factory=dict)

    def beside(self, shared: Pattern, full_models: Mapping[str, Mapping[str, Any]]) -> Pattern:
        """The pattern combined with the one `shared` by its table and the options of its method's full model."""
        methods = _as_tuple(self.method or shared.method)
        full = {name: value for method in methods for name, value in full_models.get(method.lower(), {}).items()}
        return Pattern(
            methods,
            self.backbone or shared.backbone,
            self.training_data or shared.training_data,
            {**full, **shared.options, **self.options},
            {**full, **shared.lacking, **self.lacking},
        )

    def fits(self, entry: Entry) -> bool:
        """Whether a run matches.

        Backbone and training data come from the run's options of these names, else from its card; spelling does not
        matter (`HRNet-18s`, `hrnet18s`; `C+L`, `COCO+LVIS`).
        """
        options = {**self.lacking, **entry.record.method.options}
        backbone = bare(str(options.get("backbone", entry.backbone)))
        data = _data(options.get("training_data", entry.training_data))
        return (
            is_method(entry, _as_tuple(self.method))
            and (not self.backbone or backbone in map(bare, _as_tuple(self.backbone)))
            and (not self.training_data or data in map(_data, _as_tuple(self.training_data)))
            and all(
                any(_same(options.get(name), value) for value in _as_tuple(values))
                for name, values in self.options.items()
            )
        )


@dataclass(frozen=True, slots=True)
class Label:
    """A label column, with its name in the published table.

    For a run without a row, `run` is `label`, `training_data`, `backbone`, or an option of its method.
    """

    heading: str
    published: str
    run: str


@dataclass(frozen=True)
class Row:
    """A row of a table; `entry` has the labels of the published row, and its `file` if it is not the table's.

    `name` is unique. `run` selects the runs of the row, in addition to the table's pattern.
    """

    name: str
    entry: Mapping[str, str]
    run: Pattern


@dataclass(frozen=True)
class Group:
    """Rows with something in common (in the paper, their training data), then runs without a row.

    `runs` are method patterns of such runs; each run goes to the first group that matches.
    """

    title: str
    rows: tuple[Row, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        source: where the numbers were printed.
        published: file with the published numbers.
        columns: columns of numbers, as named in the file.
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
    set_off_best: bool = False
    run: Pattern = field(default_factory=Pattern)

    def __post_init__(self) -> None:
        """Raise `InputError` for an unknown column or published row, or a repeated row name."""
        if len(self.rows) < sum(len(group.rows) for group in self.groups):
            raise InputError("two rows have the same name; give them different names")
        for name in self.rows:
            self.printed(name)
        _ = self.measures

    @cached_property
    def rows(self) -> dict[str, Row]:
        """All rows by name."""
        return {row.name: row for group in self.groups for row in group.rows}

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of `columns`."""
        return tuple(map(read_published().measure, self.columns))

    def printed(self, name: str) -> PublishedRow:
        """The published numbers of a row."""
        return read_published().find({"file": self.published, **self.rows[name].entry})

    def pattern(self, name: str) -> Pattern:
        """The pattern of a row's runs."""
        return self.rows[name].run.beside(self.run, read_published().sources.full_models)


@dataclass(frozen=True)
class PaperCurves:
    """A figure of curves: one panel per dataset (named as in published columns), at most `most_methods` curves each.

    `order` has method patterns in drawing order; `remarks` are on the paper's figure.
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

    @cached_property
    def panels(self) -> list[Dataset]:
        """The datasets of the panels."""
        return [read_published().dataset(name) for name in self.datasets]


@dataclass(frozen=True)
class PaperPictures:
    """A figure of pictures: `samples` rows, drawn at random with `seed`.

    Shows at most `candidates` masks per method, including the kept one, and the masks after `refined` clicks.
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
    """Read a `PaperTable`, `PaperCurves` or `PaperPictures` by its name in `reports/` (`table1`) or path (TOML).

    Raises:
        InputError: no such definition, or a missing, unknown or invalid key.
    """
    path = definitions.find("reports", name)
    content: dict[str, Any] = {**definitions.load(path), "name": path.stem}
    return settings_from(kind, content, str(path))


def is_method(entry: Entry, patterns: Iterable[str]) -> bool:
    """Whether the name of a run's method matches any pattern."""
    return any(fnmatchcase(entry.method.lower(), pattern.lower()) for pattern in patterns)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _data(names: str | Sequence[str]) -> frozenset[str]:
    text = names if isinstance(names, str) else ",".join(map(str, names))
    parts = {bare(part) for part in re.split(r"[+,&/]", text)} - {""}
    return frozenset(_DATA.get(part, part) for part in parts)


def _same(one: Any, other: Any) -> bool:
    """Equality of option values: 1 differs from true, 5 equals 5.0, case is ignored."""
    if isinstance(one, str) and isinstance(other, str):
        return one.lower() == other.lower()
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
