"""Published numbers as printed, with their sources and the differences between sources (`reports/published/`)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from disbench.core.errors import InputError, unknown_name
from disbench.io import definitions
from disbench.io.settings import settings_from

_MEASURE = re.compile(r"([a-z0-9-]+)_(noc|nof)(80|85|90|95)")
_SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of the paper: its printed title, and the name of its card."""

    title: str
    card: str

    @property
    def content_hash(self) -> str:
        """From its card, or ""."""
        return _content_hash(self.card)


@dataclass(frozen=True, slots=True)
class Measure:
    """What a column of numbers holds, such as `sbd_noc90`: mean NoC, or NoF by RITM's rule, at an IoU of `percent`."""

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
class Printed:
    """A row of a published table.

    Attributes:
        file: name of the CSV file.
        source: where it was printed.
        labels: column -> text, for all columns without numbers.
        numbers: column -> the number as printed, or "".
        others: the same, for measures that disbench does not have.
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
    """A sentence on a published table, its rows with the labels `where`, or some columns of these."""

    file: str
    text: str
    where: Mapping[str, str] | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """Source and method of a file's numbers where it has no column for them; columns of others' measures."""

    source: str = ""
    method: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """Entries (file and labels) that are shown beside each other, or if `one_way` only beside the first."""

    entries: tuple[Mapping[str, str], ...]
    one_way: bool = False


@dataclass(frozen=True)
class Sources:
    """`sources.toml`.

    Attributes:
        datasets: name in columns -> dataset.
        protocol: the paper's protocol: condition of a run -> value.
        full_models: pattern of method names -> options of the paper's full model.
        files: name of a CSV file -> what it has no column for.
        compared: entries of several sources for the same model.
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

    rows: tuple[Printed, ...]
    sources: Sources

    def measure(self, column: str) -> Measure:
        """The measure of a column; `InputError` if it is not the name of a column of numbers."""
        found = _MEASURE.fullmatch(column)
        if found is None:
            raise InputError(f"{column!r} is not a column of numbers; name it like grabcut_noc85 or sbd_nof90")
        name, kind, percent = found.groups()
        return Measure(column, self.dataset(name), "noc" if kind == "noc" else "nof", int(percent))

    def dataset(self, name: str) -> Dataset:
        """A dataset by its name in columns; `InputError` if unknown."""
        if name not in self.sources.datasets:
            raise unknown_name("dataset", name, self.sources.datasets)
        return self.sources.datasets[name]

    def title(self, column: str) -> str:
        """Dataset and measure of a column: `SBD NoC@90`."""
        measure = self.measure(column)
        return f"{measure.dataset.title} {measure.title}"

    def find(self, entry: Mapping[str, str]) -> Printed:
        """The row with an entry's `file` and labels; `InputError` if there is none or several."""
        file = entry.get("file", "")
        labels = {key: value for key, value in entry.items() if key != "file"}
        found = [row for row in self.rows if row.file == file and row.has(labels)]
        if len(found) != 1:
            what = ", ".join(f"{key} {value!r}" for key, value in labels.items())
            raise InputError(f"{file}: {len(found)} rows with {what}; labels must pick exactly one")
        return found[0]

    @cached_property
    def compared(self) -> list[tuple[list[Printed], bool]]:
        """The compared rows of `sources.toml`, and whether one way."""
        return [([self.find(entry) for entry in group.entries], group.one_way) for group in self.sources.compared]

    def elsewhere(self, row: Printed) -> list[tuple[Printed, dict[str, str]]]:
        """Rows of other sources, with their numbers that differ from this row's: column -> as printed."""
        found = []
        for entries, one_way in self.compared:
            for other in entries if row in (entries[:1] if one_way else entries) else ():
                numbers = {
                    column: other.numbers[column]
                    for column, number in row.numbers.items()
                    if other.numbers.get(column) and not _equal(number, other.numbers[column])
                }
                if numbers:
                    found.append((other, numbers))
        return found

    def remarks_on_table(self, file: str) -> list[str]:
        """Remarks on a whole table."""
        return [remark.text for remark in self.sources.remarks if remark.file == file and not remark.where]

    def remarks_on(self, row: Printed) -> list[Remark]:
        """Remarks on a row or some of its numbers."""
        remarks = [remark for remark in self.sources.remarks if remark.file == row.file]
        return [remark for remark in remarks if remark.where and row.has(remark.where)]

    def sentence(self, row: Printed, other: Printed, numbers: Mapping[str, str]) -> str:
        """A sentence on the different numbers of another source."""
        differing = [text for key, text in other.labels.items() if row.labels.get(key) not in (None, text) and text]
        whose = f" for {', '.join(differing)}:" if differing else ""
        parts = [f"{self.title(column)} {number}" for column, number in numbers.items()]
        return f"{other.source} prints{whose} {', '.join(parts)}"


@cache
def read_published(folder: Path | None = None) -> Published:
    """All published numbers, from a folder of CSV files and `sources.toml` (by default `reports/published/`).

    Raises:
        InputError: a file is missing or damaged.
    """
    folder = folder or definitions.folder("reports") / "published"
    path = folder / "sources.toml"
    sources = settings_from(Sources, definitions.load(path), str(path))
    rows = tuple(row for name, file in sources.files.items() for row in _rows(folder / name, file))
    published = Published(rows, sources)
    for row in rows:
        try:
            for column in row.numbers:
                published.measure(column)
        except InputError as error:
            raise InputError(f"{folder / row.file}: {error}") from error
    _ = published.compared  # each entry is found
    return published


def published_lines(method: str) -> list[str]:
    """All published numbers of a method, with sources, differences between them, and remarks.

    Case and punctuation of the name do not matter; `InputError` for an unknown one.
    """
    published = read_published()
    rows = [row for row in published.rows if bare(row.method) == bare(method)]
    if not rows:
        raise unknown_name("method", method, published_methods(published))
    lines = []
    for row in rows:
        lines += [f"{_called(row)}: {row.source}", *_number_lines(published, row)]
        for remark in published.remarks_on(row):
            about = ", ".join(published.title(column) for column in remark.columns)
            lines.append(f"    remark{about and f' on {about}'}: {remark.text}")
        lines += [f"    differs: {published.sentence(row, *other)}" for other in published.elsewhere(row)]
    sources: dict[str, str] = {}
    for row in rows:
        sources.setdefault(row.file, row.source)
    for file, source in sources.items():
        lines += [f"remark on {source}: {text}" for text in published.remarks_on_table(file)]
    return lines


def published_methods(published: Published) -> list[str]:
    """The methods with published numbers, in the order of the tables."""
    return list(dict.fromkeys(row.method for row in published.rows))


def bare(name: str) -> str:
    """A name without case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rows(path: Path, about: File) -> Iterator[Printed]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}); install disbench again") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(f"{path}: line {number} has more or fewer fields than the heading; fix it")
        numbers = {column: text for column, text in row.items() if _MEASURE.fullmatch(column)}
        for column, text in numbers.items():
            if not _is_number(text):
                raise InputError(f"{path}: line {number}, {column}: {text!r} is not a number; fix it")
        yield Printed(
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


def _is_number(text: str) -> bool:
    try:
        return not text or Decimal(text) >= 0
    except InvalidOperation:
        return False


def _equal(one: str, other: str) -> bool:
    """As numbers: 14.3 and 14.30 are equal."""
    return bool(one) and Decimal(one) == Decimal(other)


def _called(row: Printed) -> str:
    labels = {key: text for key, text in row.labels.items() if text and key not in ("method", "citation")}
    return ", ".join([row.method, *(f"{key.replace('_', ' ')} {text}" for key, text in labels.items())])


def _number_lines(published: Published, row: Printed) -> list[str]:
    by_dataset: dict[str, list[str]] = {}
    for column, number in row.numbers.items():
        measure = published.measure(column)
        by_dataset.setdefault(measure.dataset.title, []).append(f"{measure.title} {number or 'not printed'}")
    lines = [f"    {title}: {', '.join(texts)}" for title, texts in by_dataset.items()]
    others = ", ".join(f"{measure} {number}" for measure, number in row.others.items())
    return [*lines, *([f"    {others}"] if others else [])]
