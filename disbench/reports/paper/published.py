"""Published numbers, as printed, with their sources; where two sources differ, both (`reports/published/`)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from disbench.core.errors import InputError, unknown_name
from disbench.io import definitions

_MEASURE = re.compile(r"([a-z0-9-]+)_(noc|nof)(80|85|90|95)")
_SOURCE = "source"
_SOURCES = "sources.toml"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of the paper.

    Attributes:
        name: as columns begin with it.
        title: as the paper prints it.
        card: name of its card, which runs on it bear.
        content_hash: as the card has it, or "".
    """

    name: str
    title: str
    card: str
    content_hash: str


@dataclass(frozen=True, slots=True)
class Measure:
    """What a column of numbers holds.

    Attributes:
        column: its name, e.g. `sbd_noc90`.
        dataset: on which.
        kind: number of clicks (mean over samples), or number of failures by RITM's rule.
        percent: the IoU to reach.
    """

    column: str
    dataset: Dataset
    kind: Literal["noc", "nof"]
    percent: int

    @property
    def title(self) -> str:
        """As tables head it: `NoC@90`."""
        return f"{'NoC' if self.kind == 'noc' else 'NoF'}@{self.percent}"


@dataclass(frozen=True)
class Printed:
    """A row of a published table.

    Attributes:
        file: name of the CSV file.
        source: where it was printed.
        method: whose numbers they are.
        labels: column -> text, of all columns that hold no numbers.
        numbers: column -> the number as it was printed; "" where none was.
    """

    file: str
    source: str
    method: str
    labels: Mapping[str, str]
    numbers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Numbers that another source prints for an entry, and that are not the entry's own.

    Attributes:
        entry: of the other source.
        numbers: column -> the other number as printed.
    """

    entry: Printed
    numbers: Mapping[str, str]


@dataclass(frozen=True)
class Remark:
    """What is odd in print.

    Attributes:
        file: of which table.
        where: labels of the rows that it is about; none: the whole table.
        columns: that it is about; none: whole rows.
        text: a sentence.
    """

    file: str
    where: Mapping[str, str]
    columns: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class _Compared:
    """Entries that are shown beside each other, or `one_way` beside the first alone."""

    entries: tuple[Printed, ...]
    one_way: bool


@dataclass(frozen=True)
class Published:
    """All published numbers.

    Attributes:
        datasets: name -> dataset.
        rows: of all files, in their order.
        protocol: under which the paper's numbers hold: condition of a run -> value.
        full_models: pattern of method names -> options of the paper's full model.
    """

    datasets: Mapping[str, Dataset]
    rows: tuple[Printed, ...]
    protocol: Mapping[str, str]
    full_models: Mapping[str, Mapping[str, Any]]
    _compared: tuple[_Compared, ...]
    _remarks: tuple[Remark, ...]

    def measure(self, column: str) -> Measure:
        """What a column holds.

        Raises:
            InputError: not the name of a column of numbers.
        """
        found = _MEASURE.fullmatch(column)
        if found is None:
            raise InputError(f"{column!r} is no column of numbers; name it like grabcut_noc85 or sbd_nof90")
        name, kind, percent = found.groups()
        if name not in self.datasets:
            raise unknown_name("dataset", name, self.datasets, column)
        return Measure(column, self.datasets[name], "noc" if kind == "noc" else "nof", int(percent))

    def title(self, column: str) -> str:
        """Dataset and measure of a column: `SBD NoC@90`."""
        measure = self.measure(column)
        return f"{measure.dataset.title} {measure.title}"

    def find(self, file: str, labels: Mapping[str, str]) -> Printed:
        """The row of a file that has some labels.

        Raises:
            InputError: none, or several.
        """
        found = [row for row in self.rows if row.file == file and _has(row, labels)]
        if len(found) != 1:
            what = ", ".join(f"{key} {value!r}" for key, value in labels.items())
            raise InputError(f"{file}: {len(found)} rows with {what}; labels must pick exactly one")
        return found[0]

    def elsewhere(self, row: Printed) -> list[Elsewhere]:
        """Where other sources print another number for a row, or print one where the row has none."""
        others = [
            other
            for group in self._compared
            if row in (group.entries[:1] if group.one_way else group.entries)
            for other in group.entries
            if other is not row
        ]
        found = []
        for other in others:
            numbers = {
                column: other.numbers[column]
                for column, number in row.numbers.items()
                if other.numbers.get(column) and not _equal(number, other.numbers[column])
            }
            if numbers:
                found.append(Elsewhere(other, numbers))
        return found

    def remarks_on_table(self, file: str) -> list[str]:
        """What holds for a whole table."""
        return [remark.text for remark in self._remarks if remark.file == file and not remark.where]

    def remarks_on(self, row: Printed) -> list[Remark]:
        """What holds for a row, or for some of its numbers."""
        return [
            remark for remark in self._remarks if remark.file == row.file and remark.where and _has(row, remark.where)
        ]

    def sentence(self, row: Printed, other: Elsewhere) -> str:
        """What another source prints, in words."""
        differing = [
            text for key, text in other.entry.labels.items() if row.labels.get(key) not in (None, text) and text
        ]
        whose = f" for {', '.join(differing)}:" if differing else ""
        parts = [f"{self.title(column)} {number}" for column, number in other.numbers.items()]
        return f"{other.entry.source} prints{whose} {', '.join(parts)}"


def read_published(folder: Path | None = None) -> Published:
    """All published numbers and what is known of them.

    Args:
        folder: with the CSV files and `sources.toml`; the package's own if not given.

    Raises:
        InputError: a file is missing or not as it should be.
    """
    folder = folder or definitions.folder("reports") / "published"
    path = folder / _SOURCES
    content = definitions.load(path)
    try:
        rows = tuple(row for file, facts in content["files"].items() for row in _rows(folder / file, facts))
        datasets = {name: _dataset(name, **facts) for name, facts in content["datasets"].items()}
        bare = Published(datasets, rows, content["protocol"], content["full_models"], (), ())
        compared = tuple(
            _Compared(tuple(_picked(bare, entry) for entry in group["entries"]), bool(group.get("one_way", False)))
            for group in content["compared"]
        )
        remarks = tuple(
            Remark(facts["file"], facts.get("where", {}), tuple(facts.get("columns", ())), facts["text"])
            for facts in content["remarks"]
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not as it should be ({error!r}); install disbench again") from error
    for row in rows:
        for column in row.numbers:
            bare.measure(column)
    return Published(datasets, rows, content["protocol"], content["full_models"], compared, remarks)


def published_lines(method: str) -> list[str]:
    """All numbers that are published for a method, with sources, differences between them, and remarks.

    Args:
        method: its name; case and punctuation do not matter.

    Raises:
        InputError: no such method.
    """
    published = read_published()
    rows = [row for row in published.rows if _key(row.method) == _key(method)]
    if not rows:
        raise unknown_name("method", method, published_methods(published))
    lines = []
    for row in rows:
        lines += [f"{_called(row)}: {row.source}", *_number_lines(published, row)]
        for remark in published.remarks_on(row):
            about = ", ".join(published.title(column) for column in remark.columns)
            lines.append(f"    remark{about and f' on {about}'}: {remark.text}")
        lines += [f"    differs: {published.sentence(row, other)}" for other in published.elsewhere(row)]
    for file in dict.fromkeys(row.file for row in rows):
        source = next(row.source for row in rows if row.file == file)
        lines += [f"remark on {source}: {text}" for text in published.remarks_on_table(file)]
    return lines


def published_methods(published: Published) -> list[str]:
    """The methods of which numbers are published, in the order of the tables."""
    return list(dict.fromkeys(row.method for row in published.rows))


def _rows(path: Path, facts: Mapping[str, str]) -> Iterable[Printed]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}); install disbench again") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(f"{path}: line {number} has not as many fields as the heading; mend it")
        numbers = {column: text for column, text in row.items() if _MEASURE.fullmatch(column)}
        for column, text in numbers.items():
            _check_number(path, number, column, text)
        yield Printed(
            file=path.name,
            source=row.get(_SOURCE) or facts["source"],
            method=row.get("method") or facts["method"],
            labels={key: text for key, text in row.items() if key not in (*numbers, _SOURCE)},
            numbers=numbers,
        )


def _dataset(name: str, title: str, card: str) -> Dataset:
    facts = definitions.load(definitions.find("datasets", card))
    return Dataset(name, title, card, str(facts.get("content_hash", "")))


def _check_number(path: Path, line: int, column: str, text: str) -> None:
    try:
        ok = not text or Decimal(text) >= 0
    except InvalidOperation:
        ok = False
    if not ok:
        raise InputError(f"{path}: line {line}, {column}: {text!r} is no number; mend it")


def _picked(published: Published, entry: Mapping[str, str]) -> Printed:
    return published.find(entry["file"], {key: value for key, value in entry.items() if key != "file"})


def _has(row: Printed, labels: Mapping[str, str]) -> bool:
    return all(row.labels.get(key) == value for key, value in labels.items())


def _equal(one: str, other: str) -> bool:
    """As numbers: 14.3 and 14.30 are equal."""
    return bool(one) and Decimal(one) == Decimal(other)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _called(row: Printed) -> str:
    labels = {key: text for key, text in row.labels.items() if text and key not in ("method", "citation")}
    return ", ".join([row.method, *(f"{key.replace('_', ' ')} {text}" for key, text in labels.items())])


def _number_lines(published: Published, row: Printed) -> list[str]:
    by_dataset: dict[str, list[str]] = {}
    for column, number in row.numbers.items():
        measure = published.measure(column)
        by_dataset.setdefault(measure.dataset.title, []).append(f"{measure.title} {number or 'not printed'}")
    return [f"    {title}: {', '.join(texts)}" for title, texts in by_dataset.items()]
