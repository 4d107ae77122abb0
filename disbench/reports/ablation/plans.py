"""Ablations: a table's rows as trainings of one budget, the contrasts between them, and the record of a trained row."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from disbench.core.errors import InputError, unknown_name
from disbench.core.limits import MAX_COUNT
from disbench.harness.store import write_json
from disbench.io import definitions
from disbench.io.parquet import complaining
from disbench.io.settings import Bounds, parse_json_table, settings_from

RECORD = "row.json"
"""The record of a row and a seed, beside `training/` and `runs/`."""
RUNS = "runs"
Positive = Annotated[int, Bounds(1, MAX_COUNT)]
Seed = Annotated[int, Bounds(0)]
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class RowShards:
    """Shards that a row is trained on instead of the base training's: `folder`, `images` and `only` of its `shards`.

    A `recipe`, if any, makes them from `coco`, COCO instance annotations below the root of the datasets.
    """

    folder: str
    images: str = ""
    only: str = "*"
    recipe: str = ""
    coco: str = ""

    @property
    def command(self) -> str:
        """The command that makes them, or ""."""
        return f"disbench sample {self.recipe} --coco {self.coco} --out {self.folder}" if self.recipe else ""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of an ablation, named as its folder (lower-case letters, digits, hyphens); `paper`: its name in `reports/`.

    `set` are differences from the base training, `method` options of the method, `option=value` each. `trained_as`
    names another row whose network is measured, with `method`, instead of training one. `card` is the method's, instead
    of that of the command.
    """

    name: str
    paper: str = ""
    set: tuple[str, ...] = ()
    shards: tuple[RowShards, ...] = ()
    trained_as: str = ""
    method: tuple[str, ...] = ()
    card: str = ""


@dataclass(frozen=True, slots=True)
class Contrast:
    """The rows before (without) and after (with) one component, whose name it has.

    Attributes:
        noc: the paper's difference of NoC@90, after minus before, if its text prints one and its table does not.
        source: where that number is printed.
    """

    name: str
    before: str
    after: str
    noc: float | None = None
    source: str = ""

    @property
    def rows(self) -> tuple[str, str]:
        """The row without the component and the row with it."""
        return self.before, self.after


@dataclass(frozen=True, slots=True)
class PlannedDataset:
    """A dataset to measure on: name or path of its card, or a folder; only every `every`-th sample is used."""

    name: str
    every: Positive = 1


@dataclass(frozen=True, slots=True)
class AblationPlan:
    """A table's rows, how many steps each is trained, and on what it is measured; `name` is its folder's too.

    Signs of `contrasts` are compared with those of the paper's `table` in `reports/`. `budget` is the cost in words,
    `set` are differences from the base training in all rows. `InputError` for a name that repeats, cannot be a
    folder's, or refers to an unknown row.
    """

    name: str
    title: str
    rows: tuple[PlannedRow, ...]
    contrasts: tuple[Contrast, ...]
    steps: Positive
    budget: str
    datasets: tuple[PlannedDataset, ...]
    table: str = ""
    set: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = (0,)

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        for name in (self.name, *names):
            if not _NAME.fullmatch(name) or names.count(name) > 1:
                raise InputError(f"the name {name!r}: give each row its own, of lower-case letters, digits and hyphens")
        for row in self.rows:
            if row.trained_as and (row.set or row.shards or self.row(row.trained_as).trained_as):
                raise InputError(
                    f"row {row.name!r} is trained as {row.trained_as!r}: name a row that is trained itself, and "
                    "leave its set and shards out"
                )
        for contrast in self.contrasts:
            for name in contrast.rows:
                self.row(name)

    def row(self, name: str) -> PlannedRow:
        """The row of a name; `InputError` if there is none."""
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            raise unknown_name("row", name, rows, self.name)
        return rows[name]


def load_plan(name: str) -> AblationPlan:
    """The ablation of a name in `baselines/configs/ablations/` or of a TOML file; `InputError` if unknown or broken."""
    path = definitions.find("baselines/configs/ablations", name)
    return settings_from(AblationPlan, {"name": path.stem, **definitions.load(path)}, str(path))


@dataclass(frozen=True, slots=True)
class TrainingLength:
    """The length of a training, from its settings."""

    name: str = field(compare=False)
    steps: int
    epochs: float
    batch: int
    accumulate: int


@dataclass(frozen=True, slots=True)
class RowRecord:
    """A row with a seed: all that decides its numbers, except what its runs record themselves.

    Attributes:
        training: the settings that decide the network.
        shards: name of a folder of shards -> its fingerprint.
        method: options of the method, without paths of files.
    """

    ablation: str
    row: str
    seed: int
    training: Mapping[str, Any]
    shards: Mapping[str, str]
    method: Mapping[str, Any]
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        _ = self.length  # refuses settings without it

    def as_dict(self) -> dict[str, Any]:
        """The content of its JSON file."""
        content: dict[str, Any] = json.loads(json.dumps({"format": self.format, **dataclasses.asdict(self)}))
        return content

    @property
    def length(self) -> TrainingLength:
        """The length of the training."""
        return settings_from(TrainingLength, self.training, "training", unknown="skip")

    @property
    def budget(self) -> str:
        """The length of the training, in words."""
        length = self.length
        whole = f"{length.steps} steps" if length.steps else f"{length.epochs:g} epochs"
        return f"{whole} of {length.batch * length.accumulate} examples of the training {length.name}"


def write_record(folder: Path, record: RowRecord) -> None:
    """Write `row.json` atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record.as_dict())


def read_record(folder: Path) -> RowRecord:
    """The record in a folder; `InputError` if it is missing, damaged or of another version of disbench."""
    path = folder / RECORD
    with complaining(path, "not the record of an ablation's row", "run the ablation again"):
        return settings_from(RowRecord, parse_json_table(path.read_bytes()), str(path))


def recorded(folder: Path) -> list[Path]:
    """The folders with a record, one for each row and seed, below an ablation's folder."""
    return sorted(path.parent for path in folder.glob(f"*/seed-*/{RECORD}"))


def chosen_datasets(plan: AblationPlan, names: Sequence[str], every: Sequence[str]) -> tuple[PlannedDataset, ...]:
    """The datasets that a user names, or else the plan's; `every` is `DATASET=N` each: only every N-th sample.

    Raises:
        InputError: text of another form, or a dataset that is not measured.
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
