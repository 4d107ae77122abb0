"""Ablations: a table's rows as trainings of one budget, which rows are compared, and what is recorded of each."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError, unknown_name
from disbench.io import definitions
from disbench.io.files import whole_file
from disbench.io.plain_data import parse_json_table
from disbench.io.settings import LARGEST, settings_from

RECORD = "row.json"
"""What a folder of a row and a seed says of itself, beside `training/` and `runs/`."""
RUNS = "runs"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_FORMAT = 1
_TRAINING: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "steps": int,
    "epochs": (int, float),
    "batch": int,
    "accumulate": int,
}
"""What a record says of its training at least."""


@dataclass(frozen=True, slots=True)
class RowShards:
    """Shards that a row is trained on in place of the base training's.

    Attributes:
        folder: of the shards.
        images: folder of their images.
        recipe: that makes the shards from `coco`, or "".
        coco: COCO instance annotations, a path below the root of the datasets.
    """

    folder: str
    images: str = ""
    recipe: str = ""
    coco: str = ""

    @property
    def command(self) -> str:
        """The command that makes them, or ""."""
        return f"disbench sample {self.recipe} --coco {self.coco} --out {self.folder}" if self.recipe else ""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of an ablation.

    Attributes:
        name: of its folder: small letters, digits, hyphens.
        paper: the row of the paper's table, by its name in `reports/`; "" if it is none of the paper's.
        set: what differs from the base training, `option=value` each.
        shards: in place of the base training's.
        trained_as: another row, whose network is measured once more with `method`; nothing is trained.
        method: options of the method, `option=value` each.
    """

    name: str
    paper: str = ""
    set: tuple[str, ...] = ()
    shards: tuple[RowShards, ...] = ()
    trained_as: str = ""
    method: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two rows that differ in one component.

    Attributes:
        name: of the component.
        before: the row without it.
        after: the row with it.
        noc: the paper's difference of NoC@90, after less before, where its text says one and its table does not.
        source: of that number.
    """

    name: str
    before: str
    after: str
    noc: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class PlannedDataset:
    """What is measured on.

    Attributes:
        name: of a dataset's card, the path of one, or a folder.
        every: only every so-many-th sample, from the first.
    """

    name: str
    every: int = 1


@dataclass(frozen=True, slots=True)
class AblationPlan:
    """A table's rows, and how long each is trained.

    Attributes:
        name: of its folder of results.
        title: one line.
        rows: in the table's order.
        contrasts: whose signs are compared with the paper's.
        steps: optimiser steps of every row.
        budget: what that costs, in words.
        datasets: that every row is measured on.
        table: the paper's table in `reports/`, or "".
        set: what differs from the base training in all rows.
        seeds: of every row.
    """

    name: str
    title: str
    rows: tuple[PlannedRow, ...]
    contrasts: tuple[Contrast, ...]
    steps: int
    budget: str
    datasets: tuple[PlannedDataset, ...]
    table: str = ""
    set: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)

    def row(self, name: str) -> PlannedRow:
        """The row of a name.

        Raises:
            InputError: there is none.
        """
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            raise unknown_name("row", name, rows, self.name)
        return rows[name]


def load_plan(name: str) -> AblationPlan:
    """The ablation of a name in `baselines/configs/ablations/`, or of the user's own TOML file.

    Raises:
        InputError: no such ablation, or one that is not as it should be.
    """
    path = definitions.find("baselines/configs/ablations", name)
    plan = settings_from(AblationPlan, {"name": path.stem, **definitions.load(path)}, str(path))
    try:
        _check(plan)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return plan


def _check(plan: AblationPlan) -> None:
    names = [row.name for row in plan.rows]
    for name in (plan.name, *names):
        if not _NAME.fullmatch(name):
            raise InputError(f"the name {name!r} is to be a folder's: use small letters, digits and hyphens")
        if names.count(name) > 1:
            raise InputError(f"two rows are called {name!r}; give them different names")
    for row in plan.rows:
        if row.trained_as and plan.row(row.trained_as).trained_as:
            raise InputError(f"row {row.name!r}: {row.trained_as!r} is not trained itself; name a row that is")
        if row.trained_as and (row.set or row.shards):
            raise InputError(f"row {row.name!r} is trained as {row.trained_as!r}; leave its set and shards out")
    for contrast in plan.contrasts:
        plan.row(contrast.before)
        plan.row(contrast.after)
    if max(plan.steps, *(dataset.every for dataset in plan.datasets)) > LARGEST:
        raise InputError(f"steps and every end at {LARGEST:,}")
    if plan.steps < 1 or min(plan.seeds) < 0 or min(dataset.every for dataset in plan.datasets) < 1:
        raise InputError("steps and every start at 1, seeds at 0")


@dataclass(frozen=True, slots=True)
class CellRecord:
    """A row with a seed: all that decides its numbers, but for what its runs say themselves.

    Attributes:
        ablation: name of the plan.
        row: name of the row.
        seed: of the training.
        training: the settings that decide the network.
        shards: name of a folder of shards -> its fingerprint.
        method: options of the method, without the places of files.
    """

    ablation: str
    row: str
    seed: int
    training: Mapping[str, Any]
    shards: Mapping[str, str]
    method: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As JSON gives it back."""
        content: dict[str, Any] = json.loads(json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}))
        return content

    @property
    def budget(self) -> str:
        """How long the row was trained, in words."""
        length = f"{self.training['steps']} steps" if self.training["steps"] else f"{self.training['epochs']:g} epochs"
        batch = int(self.training["batch"]) * int(self.training["accumulate"])
        return f"{length} of {batch} examples of the training {self.training['name']}"


def write_record(folder: Path, record: CellRecord) -> None:
    """Write `row.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / RECORD) as file:
        file.write((json.dumps(record.as_dict(), indent=1) + "\n").encode())


def read_record(folder: Path) -> CellRecord:
    """The record of a folder.

    Raises:
        InputError: none there, damaged, or of a later version's form.
    """
    path = folder / RECORD
    try:
        content = parse_json_table(path.read_bytes())
        form = content.pop("format")
        record = CellRecord(**content)
        whole = all(isinstance(record.training.get(key), kind) for key, kind in _TRAINING.items())
        whole = whole and all(isinstance(part, dict) for part in (record.shards, record.method))
        whole = whole and all(isinstance(part, str) for part in (record.ablation, record.row))
        whole = whole and type(record.seed) is int
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a record of an ablation's row ({error!r}); run the ablation again") from error
    if form != _FORMAT or not whole:
        raise InputError(
            f"{path}: not a record of form {_FORMAT} of an ablation's row; use the version of disbench that made it"
        )
    return record


def recorded(folder: Path) -> list[Path]:
    """The folders of rows and seeds, below an ablation's folder, that have a record."""
    return sorted(path.parent for path in folder.glob(f"*/seed-*/{RECORD}"))


def chosen_datasets(plan: AblationPlan, names: Sequence[str], every: Sequence[str]) -> tuple[PlannedDataset, ...]:
    """The datasets that a user names, or the plan's, each with the samples that the user or the plan says.

    Args:
        plan: the ablation.
        names: none: the plan's.
        every: `DATASET=N` each: only every N-th sample of it.

    Raises:
        InputError: a text of another form, or of a dataset that is not measured.
    """
    planned = {dataset.name: dataset.every for dataset in plan.datasets}
    chosen = {name: planned.get(name, 1) for name in names or planned}
    for text in every:
        name, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise InputError(f"--every {text}: write it as DATASET=N, such as davis=3")
        if name not in chosen:
            raise unknown_name("dataset", name, chosen, "--every")
        chosen[name] = int(number)
    return tuple(PlannedDataset(name, number) for name, number in chosen.items())
