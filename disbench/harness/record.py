"""Records of runs, `run.json`: how a run was made, and its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from disbench.baselines.cards import STANDARD_THRESHOLD
from disbench.core.choices import Store
from disbench.core.errors import InputError, quote, unknown_name
from disbench.core.limits import MAX_COUNT
from disbench.harness.protocol import Protocol, SetProtocol
from disbench.io.settings import Bounds, Count, Number, check_fields, parse_json_table, settings_from

FORMAT = 1
Task = Literal["", "diverse", "first-clicks"]  # the task of a run; "" for targets
DIVERSE: Final = "diverse"
FIRST_CLICKS: Final = "first-clicks"
UNREAD = "the sample cannot be read"  # prefix of the reason if a sample failed without the method
Positive = Annotated[int, Bounds(1, MAX_COUNT)]
Seconds = Annotated[float, Bounds(0, MAX_COUNT)]
_DECISIVE = ("task", "method", "dataset", "protocol", "versions")  # parts of `run.json` that determine the rows


@dataclass(frozen=True)
class CardFacts:
    """The parts of the method card in a run's record that reports use; other keys are ignored."""

    title: str = ""
    status: str = ""
    entry: str = ""
    citation: str = ""
    code: str = ""
    licence: str = ""
    backbone: str = ""
    input_size: str = ""
    adapter: str = ""
    threshold: Number = STANDARD_THRESHOLD
    training_data: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> CardFacts:
        """Parse a card's content, {} for a method without a card."""
        return settings_from(cls, card, "card", unknown="skip")


@dataclass(frozen=True)
class MethodRecord:
    """The method of a run: name of its card or class, entry "package.module:Name" or "file.py:Name", and card or {}.

    `source_sha256` is the hash of `file.py`; `provenance` has a bridged method's repository, adapter, checkpoint and
    their hashes.
    """

    name: str
    entry: str
    options: Mapping[str, Any]
    card: Mapping[str, Any]
    source_sha256: str | None = None
    provenance: Mapping[str, Any] | None = None

    @cached_property
    def facts(self) -> CardFacts:
        """The parts of the card that reports use."""
        return CardFacts.of(self.card)

    def __post_init__(self) -> None:
        _ = self.facts  # fail on an invalid card when the record is read


@dataclass(frozen=True)
class SplitFacts:
    """A frozen split: its name, and the SHA-256 (hex) of its list."""

    name: str
    list_sha256: str

    def __str__(self) -> str:
        return f"{self.name}, list {self.list_sha256[:8]}"


@dataclass(frozen=True)
class Choice:
    """Which sets of a folder of shards are used: `sets` random ones (None: all) with at least `min_members` masks each.

    `seed` is for the draw and for the first clicks. A `split` determines the sets.
    """

    sets: Positive | None = None
    seed: Count = 0
    min_members: Positive = 1
    split: SplitFacts | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ShardFacts:
    """Shards that sets were taken from: SHA-256 of their content, and their number of sets."""

    content_hash: str
    sets: Count


@dataclass(frozen=True)
class SetFacts:
    """Facts of a dataset of diverse sets."""

    shards: ShardFacts
    choice: Choice


@dataclass(frozen=True)
class DatasetRecord:
    """The dataset of a run: name, number of samples, SHA-256 of its content, and `SampleSource.facts`."""

    name: str
    samples: Positive
    content_hash: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.has_sets:
            _ = self.sets  # fail on invalid facts when the record is read

    @property
    def has_sets(self) -> bool:
        """True if its samples come from diverse sets."""
        return {"shards", "choice"} <= self.facts.keys()

    @cached_property
    def sets(self) -> SetFacts:
        """Facts of the sets; requires `has_sets`."""
        return settings_from(SetFacts, self.facts, "facts", unknown="skip")

    @property
    def options(self) -> Mapping[str, Any]:
        """Options by which its masks were read; {} if not recorded as a table."""
        found = self.facts.get("options")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True)
class Execution:
    """How a run is executed. Affects only the seconds, stored masks and timeouts in the rows.

    Attributes:
        workers: number of processes.
        threads: threads per worker for numeric libraries.
        batch: samples in lockstep, for methods with `predict_batch`.
        timeout: time limit in seconds of one call of the method per sample, above 0; None sets no limit.
        store: which masks are stored.
    """

    workers: Positive = 1
    threads: Positive = 1
    batch: Positive = 1
    timeout: float | None = 60.0
    store: Store = "none"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.timeout is not None and not self.timeout > 0:
            raise InputError(f"timeout = {self.timeout}: must be above 0 seconds")


@dataclass(frozen=True, slots=True)
class ExecutionRecord(Execution):
    """How a run was executed, with the engine's name and the number of lost workers."""

    engine: str = ""
    workers_lost: Count = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that a run was executed on."""

    system: str
    processor: str
    cores: Count | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample on which the method failed, or that cannot be read; the click, and why."""

    sample: str
    click: Count
    reason: str


@dataclass(frozen=True, slots=True)
class RepeatedBatches:
    """Batches on which the method failed, so that their samples were evaluated one by one."""

    count: Count = 0
    first_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """The file with the IoUs of an imported run: its name and SHA-256 (hex)."""

    file: str
    sha256: str

    def __str__(self) -> str:
        file = f"{quote(self.file)} (SHA-256 {self.sha256[:8]}...)"
        return f"imported from {file}: IoUs alone, without clicks, masks and times"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Results: sums over the rows, and total wall time over interruptions.

    `method_versions` is reported by the method, with several entries if the run was resumed in another environment.
    """

    samples: Count
    clicks: Count
    failed: tuple[Failure, ...] = ()
    batches_repeated: RepeatedBatches = RepeatedBatches()
    wall_seconds: Seconds
    model_seconds: Seconds
    harness_seconds: Seconds
    method_versions: tuple[Mapping[str, str], ...] = ()

    @property
    def unread(self) -> list[Failure]:
        """Samples that cannot be read."""
        return [failure for failure in self.failed if failure.reason.startswith(UNREAD)]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Contents of `run.json` common to all tasks.

    Attributes:
        every: only every n-th sample was used, from the first.
        limit: only this many of them; None uses all.
        versions: package -> version, for software that may change a row, including `disbench` and `opencv`.
        command: command line that makes this run.
        imported: set for runs made by another tool, whose clicks, masks and seconds are unknown.
    """

    task: Task = ""
    method: MethodRecord
    dataset: DatasetRecord
    protocol: Protocol | SetProtocol
    every: Positive
    limit: Positive | None
    versions: Mapping[str, str]
    execution: ExecutionRecord
    machine: Machine
    command: str = ""
    imported: Imported | None = None
    result: Result

    def __post_init__(self) -> None:
        for name in ("disbench", "opencv"):
            if name not in self.versions:
                raise InputError(f"versions.{name} is missing")

    @property
    def numbers(self) -> range:
        """Indices of the samples selected by `every` and `limit`, in the dataset's order."""
        return range(0, self.dataset.samples, self.every)[: self.limit]

    def as_json(self) -> dict[str, Any]:
        """Contents of `run.json`, in order."""
        return {
            "format": FORMAT,
            **({"task": self.task} if self.task else {}),
            "method": _table(self.method, "provenance"),
            "dataset": _table(self.dataset),
            "protocol": {**self.protocol.as_dict(), "every": self.every, "limit": self.limit},
            "versions": self.versions,
            "execution": _table(self.execution),
            "machine": _table(self.machine),
            "command": self.command,
            **({} if self.imported is None else {"imported": _table(self.imported)}),
            "result": {
                **_table(self.result, "method_versions"),
                "failed": [_table(failure) for failure in self.result.failed],
                "batches_repeated": _table(self.result.batches_repeated),
            },
        }

    def job(self) -> dict[str, Any]:
        """The parts of `run.json` that determine the rows: runs of equal jobs have equal rows."""
        content = self.as_json()
        return {part: content[part] for part in _DECISIVE if part in content}


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """Record of a run of targets."""

    protocol: Protocol


@dataclass(frozen=True, kw_only=True)
class SetRunRecord(Record):
    """Record of a run of the diverse task."""

    task: Task = DIVERSE
    protocol: SetProtocol

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.dataset.sets


@dataclass(frozen=True, kw_only=True)
class FirstClicksRecord(Record):
    """Record of a run of the task `first-clicks`."""

    task: Task = FIRST_CLICKS
    protocol: Protocol


def parse_record(content: bytes, where: str) -> Record:
    """Parse `run.json` into the class of its task; errors name the file as `where`.

    Raises:
        InputError: not a run's record, a key that is missing, unknown or out of range, or another format version.
    """
    try:
        table = parse_json_table(content)
    except ValueError as error:
        raise InputError(f"{where}: not the record of a run ({error}); run it again") from error
    form, task = table.pop("format", None), table.get("task")
    if form != FORMAT:
        raise InputError(f"{where}: run format {quote(form)}, but this version reads {FORMAT}; use another version")
    kind = {DIVERSE: SetRunRecord, FIRST_CLICKS: FirstClicksRecord}.get(str(task), RunRecord)
    asked = SetProtocol() if task == DIVERSE else Protocol()
    for part, complete in (("protocol", asked.as_dict()), ("execution", _table(Execution()))):
        given = table.get(part)
        if not isinstance(given, dict):
            raise InputError(f"{where}: {part} must be a table, not {quote(given)}")
        for key in (key for key in complete if key not in given):  # defaults are recorded too
            raise InputError(f"{where}: {part}.{key} is missing; run it again")
    protocol = table["protocol"]
    if "recording" in protocol:
        raise unknown_name("key", "recording", asked.as_dict(), f"{where}: protocol")
    table |= {key: protocol.pop(key) for key in ("every", "limit") if key in protocol}
    return settings_from(kind, table, where)


def _table(record: Any, *optional: str) -> dict[str, Any]:
    """Fields of a record, not copied, without empty optional ones."""
    table = {found.name: getattr(record, found.name) for found in dataclasses.fields(record)}
    return {name: value for name, value in table.items() if value or name not in optional}
