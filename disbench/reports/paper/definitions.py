"""Definitions of the paper's tables (`reports/table*.toml`): columns, groups, rows, and which runs fill them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError, unknown_name
from disbench.io import definitions
from disbench.reports.paper.published import Measure, Printed, Published
from disbench.reports.paper.runs import Pattern

_TABLE_KEYS = (
    *("title", "source", "published", "set_off_best", "runs_without_a_row"),
    *("columns", "labels", "groups", "run"),
)
_ROW_KEYS = ("name", "entry", "run")
_RUN_KEYS = ("method", "backbone", "training_data", "options", "lacking")


@dataclass(frozen=True, slots=True)
class Label:
    """A column that says what a row is.

    Attributes:
        heading: of the column.
        published: the column of the published table that has it.
        run: of a run without a row: `label`, `training_data`, `backbone`, or an option of its method.
    """

    heading: str
    published: str
    run: str


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: unique, to map runs to it.
        entry: what is printed.
        pattern: which runs belong to it.
    """

    name: str
    entry: Printed
    pattern: Pattern


@dataclass(frozen=True)
class Group:
    """Rows that have something in common: their training data, in the paper."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class TableDefinition:
    """A table of the paper.

    Attributes:
        name: short, of letters and digits.
        title: of the table.
        source: where the numbers were printed.
        file: with the published numbers.
        set_off_best: whether the paper sets off the best and the second best of each group.
        runs_without_a_row: patterns of methods whose runs stand in the last group if no row is theirs.
        columns: of numbers.
        labels: columns before them.
        groups: the last one is for what is not in the paper's table.
    """

    name: str
    title: str
    source: str
    file: str
    set_off_best: bool
    runs_without_a_row: tuple[str, ...]
    columns: tuple[Measure, ...]
    labels: tuple[Label, ...]
    groups: tuple[Group, ...]

    @property
    def patterns(self) -> dict[str, Pattern]:
        """Which runs belong to each row, by its name."""
        return {row.name: row.pattern for group in self.groups for row in group.rows}


def read_table_definition(name: str, published: Published) -> TableDefinition:
    """The definition of a table.

    Args:
        name: of the package's own (`table1`), or the path of a TOML file.
        published: the numbers that rows name.

    Raises:
        InputError: no such definition, or not as it should be.
    """
    path = definitions.find("reports", name)
    content = definitions.load(path)
    _check_keys(path, content, _TABLE_KEYS, "key")
    try:
        groups = tuple(
            Group(group["title"], tuple(_row(path, row, content, published) for row in group.get("rows", ())))
            for group in content["groups"]
        )
        definition = TableDefinition(
            name=path.stem,
            title=content["title"],
            source=content["source"],
            file=content["published"],
            set_off_best=bool(content.get("set_off_best", False)),
            runs_without_a_row=tuple(content["runs_without_a_row"]),
            columns=tuple(map(published.measure, content["columns"])),
            labels=tuple(Label(**label) for label in content["labels"]),
            groups=groups,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not as a table's definition should be ({error!r}); mend it") from error
    _check_rows(path, definition)
    return definition


def _row(path: Path, row: Mapping[str, Any], table: Mapping[str, Any], published: Published) -> Row:
    _check_keys(path, row, _ROW_KEYS, "key of a row")
    labels = {key: value for key, value in row["entry"].items() if key != "file"}
    entry = published.find(row["entry"].get("file", table["published"]), labels)
    shared = table.get("run", {})
    run = {**shared, **row["run"]}
    _check_keys(path, run, _RUN_KEYS, "key of a run")
    for key in ("options", "lacking"):
        run[key] = {**shared.get(key, {}), **row["run"].get(key, {})}
    return Row(str(row["name"]), entry, _pattern(run, published))


def _pattern(run: Mapping[str, Any], published: Published) -> Pattern:
    """What a row asks of its runs, with what the full model of its method means beside it."""
    methods = tuple(text.lower() for text in _several(run["method"]))
    full: dict[str, Any] = {}
    for method in methods:
        full |= published.full_models.get(method, {})
    return Pattern(
        methods,
        _several(run.get("backbone", ())),
        _several(run.get("training_data", ())),
        {key: _several(value) for key, value in {**full, **run["options"]}.items()},
        {**full, **run["lacking"]},
    )


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _check_keys(path: Path, content: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for key in content:
        if key not in known:
            raise unknown_name(what, key, known, str(path))


def _check_rows(path: Path, definition: TableDefinition) -> None:
    if not definition.groups:
        raise InputError(f"{path}: there are no groups; the last one is for runs without a row")
    names = [row.name for group in definition.groups for row in group.rows]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two rows are called {name!r}; give them different names")
