"""Plans of ablations: rows trained at one budget, contrasts between rows, and the record of a trained row."""

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
from disbench.io.parquet import as_input_error
from disbench.io.settings import Bounds, parse_json_table, settings_from

RECORD = "row.json"
"""The record of a row and seed, next to `training/` and `runs/`."""
RUNS = "runs"
Positive = Annotated[int, Bounds(1, MAX_COUNT)]
Seed = Annotated[int, Bounds(0)]
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class RowShards:
    """Shards that replace the base training's: `folder`, `images` and `only` as in its `shards`.

    An optional `recipe` makes them from `coco`, COCO instance annotations below the root of the datasets.
    """

    folder: str
    images: str = ""
    only: str = "*"
    recipe: str = ""
    coco: str = ""

    @property
    def command(self) -> str:
        """The command that makes the shards, or ""."""
        return f"disbench sample {self.recipe} --coco {self.coco} --out {self.folder}" if self.recipe else ""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of an ablation; `name` is also its folder, `paper` the row's name in `reports/`.

    `set` overrides the base training and `method` sets options of the method, each as `option=value`. `trained_as`
    names a row whose network is measured (with this `method`) instead of training one. `card` replaces the method card
    of the command.
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
    """The rows without (`before`) and with (`after`) the component `name`.

    Attributes:
        noc: the paper's difference in NoC@90, after minus before, if printed only in its text.
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
    """A dataset to measure on (name or path of its card, or a folder), using every `every`-th sample."""

    name: str
    every: Positive = 1


@dataclass(frozen=True, slots=True)
class AblationPlan:
    """An ablation: its rows, the training steps of each, and the datasets to measure on; `name` is also its folder.

    Signs of `contrasts` are compared with those in the paper's `table` in `reports/`. `budget` is the cost in words;
    `set` overrides the base training in all rows. `InputError` for a name that is repeated, invalid as a folder name,
    or of an unknown row.
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
                raise InputError(f"invalid or repeated name {name!r}; use a unique one of a-z, 0-9 and hyphens")
        for row in self.rows:
            if row.trained_as and (row.set or row.shards or self.row(row.trained_as).trained_as):
                raise InputError(
                    f"row {row.name!r} is trained as {row.trained_as!r}; name a row that is itself trained, and "
                    "leave out set and shards"
                )
        for contrast in self.contrasts:
            for name in contrast.rows:
                self.row(name)

    def row(self, name: str) -> PlannedRow:
        """The row called `name`; `InputError` if unknown."""
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            raise unknown_name("row", name, rows, self.name)
        return rows[name]


def load_plan(name: str) -> AblationPlan:
    """Load a plan by its name in `baselines/configs/ablations/` or path (TOML); `InputError` if unknown or invalid."""
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
    """The record of a row and seed: everything that determines its numbers and is not in the records of its runs.

    Attributes:
        training: the settings that determine the network.
        shards: name of a shard folder -> fingerprint.
        method: options of the method, without file paths.
    """

    ablation: str
    row: str
    seed: int
    training: Mapping[str, Any]
    shards: Mapping[str, str]
    method: Mapping[str, Any]
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        _ = self.length  # raises if the settings lack it

    def as_dict(self) -> dict[str, Any]:
        """The content of the JSON file."""
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
    """Read the record in a folder; `InputError` if missing, damaged or from another version of disbench."""
    path = folder / RECORD
    with as_input_error(path, "not the record of an ablation's row", "run the ablation again"):
        return settings_from(RowRecord, parse_json_table(path.read_bytes()), str(path))


def recorded(folder: Path) -> list[Path]:
    """The folders with a record below an ablation's folder, one per row and seed."""
    return sorted(path.parent for path in folder.glob(f"*/seed-*/{RECORD}"))


def chosen_datasets(plan: AblationPlan, names: Sequence[str], every: Sequence[str]) -> tuple[PlannedDataset, ...]:
    """The datasets that the user names, else the plan's; each `every` is `DATASET=N`, to use every N-th sample.

    Raises:
        InputError: a malformed `every`, or one for a dataset that is not measured.
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
