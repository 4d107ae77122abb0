"""Leaderboard plans: TOML files with rows, each a method on some datasets under one protocol."""

from __future__ import annotations

import contextlib
import math
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from disbench.baselines import cards as methods
from disbench.baselines import installs, weights
from disbench.baselines.cards import method_spec
from disbench.core.choices import EngineName, Selection, Store
from disbench.core.errors import InputError, describe_error, error_message, quote, unknown_name
from disbench.datasets import cards as datasets
from disbench.datasets.fetch import fetch
from disbench.harness.archive import ENDING, pack, read_packed
from disbench.harness.presets import STANDARD, load_preset
from disbench.harness.record import Execution, Positive, RunRecord
from disbench.harness.run import run_benchmark
from disbench.harness.store import write_json
from disbench.io import definitions
from disbench.io.archives import safe_path
from disbench.io.download import head
from disbench.io.settings import Number, overrides, parse_json_table, settings_from
from disbench.workers import open_engine
from disbench.workers.processes import WorkerProcess

RUNS, WORK = "runs", "work"  # folders of a leaderboard: packed runs, and runs in progress
_PATIENCE = 10.0  # timeout in seconds for asking a server for a file size


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A method on some datasets; see the options of `disbench run` for fields not described here.

    Attributes:
        variant: variant of a published system's card; "" for its first.
        name: name of its runs' files; by default method and variant.
        datasets: names of dataset cards; by default those of the plan.
        options_on: dataset -> the method's options on it.
        reason: why it cannot be run, for rows that only say so.
        seconds_per_click: assumed for the estimate if nothing is measured; 0 for the plan's value.
    """

    method: str
    variant: str = ""
    name: str = ""
    protocol: str = STANDARD
    selection: Selection | None = None
    datasets: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    options_on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    every: Positive = 1
    limit: Positive | None = None
    store: Store = "kept"
    reason: str = ""
    seconds_per_click: Number = 0.0

    @property
    def card(self) -> methods.MethodCard | None:
        """The method's card; None for a class."""
        is_class = ":" in self.method and not self.method.endswith(".toml")
        return None if is_class else methods.load_card(self.method)

    @property
    def title(self) -> str:
        """Name of its runs' files."""
        method = self.method.rpartition(":")[2] if self.card is None else Path(self.method).stem
        return self.name or "-".join(filter(None, (method, self.variant)))

    @property
    def is_installed(self) -> bool:
        """True if its code comes from a card's recipe, not from a folder given as an option."""
        card = self.card
        return bool(card and card.status == "bridge" and not {"repo", "command"} & {*self.options, *card.options})


@dataclass(frozen=True)
class Plan:
    """Contents of a plan file: rows, datasets for rows without any, and parts of the paper to reproduce at the end.

    `seconds_per_click` is assumed for the estimate if nothing is measured.
    """

    description: str
    rows: tuple[PlanRow, ...]
    datasets: tuple[str, ...] = ()
    reproduce: tuple[str, ...] = ()
    seconds_per_click: Number = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a plan: a row on one dataset."""

    row: PlanRow
    dataset: str
    seconds_per_click: float

    @property
    def name(self) -> str:
        """`DATASET/ROW`."""
        return f"{Path(self.dataset).stem}/{self.row.title}"

    @property
    def command(self) -> str:
        """The command that makes the same run on its own."""
        row = self.row
        words = {
            "--method": row.method,
            "--variant": row.variant,
            "--dataset": self.dataset,
            "--protocol": "" if row.protocol == STANDARD else row.protocol,
            "--selection": row.selection or "",
            "--every": "" if row.every == 1 else str(row.every),
            "--limit": "" if row.limit is None else str(row.limit),
            "--store": "" if row.store == "none" else row.store,
        }
        typed = [part for option, value in words.items() if value for part in (option, value)]
        typed += [part for option in self.options for part in ("--set", option)]
        return shlex.join(["disbench", "run", *typed, "--out", f"{RUNS}/{self.name}"])

    @property
    def obstacle(self) -> str:
        """Why it cannot be run; "" if it can."""
        row, card = self.row, self.row.card
        if row.reason or card is None or card.reason:
            return row.reason or (card.reason if card else "")
        if not row.is_installed:
            return ""
        if card.install is None:
            return "its card has no [install], and its options no repo, python and checkpoint"
        if "checkpoint" in row.options or card.variant(row.variant).url:
            return ""
        here = installs.find_installed(row.method, row.variant)
        why = "its authors publish no trained weights; give yours to disbench methods install with --checkpoint"
        return "" if here and here.checkpoint else why

    @property
    def options(self) -> list[str]:
        """Options of the method, `option=value` each."""
        row = self.row
        return overrides({**row.options, **row.options_on.get(self.dataset, {})})

    @property
    def clicks(self) -> int | None:
        """Maximum number of clicks; None if the dataset's size is unknown."""
        samples = None if datasets.is_folder(self.dataset) else datasets.load_card(self.dataset).samples
        if samples is None:
            return None
        card = self.row.card
        each = 1 if card and card.budget else load_preset(self.row.protocol).max_clicks
        return each * len(range(0, samples, self.row.every)[: self.row.limit])

    def packed(self, out: Path) -> Path:
        """Path of its packed run in a leaderboard's folder."""
        return out / RUNS / f"{self.name}{ENDING}"

    def record(self, out: Path) -> RunRecord | None:
        """Record of its packed run; None if it is not done, InputError if it is damaged or made by another command."""
        path = self.packed(out)
        if not path.is_file():
            return None
        record = read_packed(path).run.record
        if record.command != self.command:
            raise InputError(
                f"{path}: another run, made by {quote(record.command)}; move it, give the row another name, or use "
                "--existing overwrite"
            )
        return record


def read_plan(name: str) -> Plan:
    """Read a plan by its name in `reports/plans`, or from the path of a TOML file.

    InputError for an invalid key or value, an unknown card, variant or protocol, or two rows with one name.
    """
    path = definitions.find("reports/plans", name)
    plan = settings_from(Plan, definitions.load(path), str(path))
    try:
        names = Counter(job.name for job in jobs_of(plan))
        for row in plan.rows:
            safe_path(row.title, "a row's name")
            load_preset(row.protocol)
            if row.card:
                row.card.variant(row.variant)
            if not (known := row.datasets or plan.datasets):
                raise InputError(f"the row {row.title!r} has no datasets; name some, for it or for all rows")
            for other in row.options_on.keys() - set(known):
                raise unknown_name("dataset", other, known, f"options_on of the row {row.title!r}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    for twice in (name for name, count in names.items() if count > 1):
        raise InputError(f"{path}: two rows make the run {twice!r}; give one of them a name")
    return plan


def jobs_of(plan: Plan, only: Sequence[str] = ()) -> list[Job]:
    """Runs of a plan, row by row; `only` selects by patterns of `DATASET/ROW`; InputError if a pattern matches none."""
    jobs = [
        Job(row, dataset, row.seconds_per_click or plan.seconds_per_click)
        for row in plan.rows
        for dataset in row.datasets or plan.datasets
    ]
    for pattern in only:
        if not any(fnmatchcase(job.name, pattern) for job in jobs):
            raise unknown_name("row", pattern, (job.name for job in jobs))
    return [job for job in jobs if not only or any(fnmatchcase(job.name, pattern) for pattern in only)]


def preview(plan: Plan, jobs: Sequence[Job], out: Path, data: Path | None, told: Mapping[str, str]) -> Iterator[str]:
    """Describe what is to be done: one line per row of the plan and per download, then totals.

    Hours are estimated from the pace of the same method's finished runs in `out`, the leaderboard's folder, or else
    from the plan. Sizes missing from cards are requested from servers. `told`: name -> why the run failed last time.
    """
    yield plan.description
    records = {job.name: job.record(out) for job in jobs}
    paces = {
        (job.row.method, job.row.variant): record.result.wall_seconds / record.result.clicks
        for job in jobs
        if (record := records[job.name])
    }
    left = [job for job in jobs if not records[job.name] and not job.obstacle]
    hours: dict[str, float | None] = {}
    for job in left:
        pace = paces.get((job.row.method, job.row.variant), job.seconds_per_click)
        hours[job.name] = None if job.clicks is None else job.clicks * pace / 3600
    for row, own in ((row, [job for job in jobs if job.row is row]) for row in plan.rows):
        why = next((job.obstacle for job in own if job.obstacle), "")
        states = [f"{Path(job.dataset).stem} {_state(job.name in hours, hours.get(job.name))}" for job in own]
        if own:
            yield f"  {row.title}: {f'cannot be run: {why}' if why else ', '.join(states)}"
        yield from (f"    {Path(job.dataset).stem}, the last time: {told[job.name]}" for job in own if job.name in told)
    sizes: list[int | None] = []
    for what, size, note in _downloads(left, data):
        sizes.append(size)
        yield f"  download {what}: {'size unknown' if size is None else f'{size / 1e9:.3f} GB'}{note}"
    unknown, assumed = sizes.count(None), sum((job.row.method, job.row.variant) not in paces for job in left)
    yield (
        f"{len(left)} of {len(jobs)} runs to do; downloads: {sum(filter(None, sizes)) / 1e9:.3f} GB"
        f"{f' and {unknown} of unknown size' if unknown else ''}; about {sum(filter(None, hours.values())):.1f} h"
        f"{f' ({assumed} runs at a pace that is assumed, not measured)' if assumed else ''}"
    )


def _state(to_do: bool, hours: float | None) -> str:
    return "done" if not to_do else "of unknown size" if hours is None else f"{hours:.2f} h"


def _downloads(jobs: Sequence[Job], data: Path | None) -> Iterator[tuple[str, int | None, str]]:
    """Everything to be downloaded, its size in bytes if known, and a note."""
    for name in dict.fromkeys(job.dataset for job in jobs if not datasets.is_folder(job.dataset)):
        dataset = datasets.load_card(name)
        if dataset.folder is not None and dataset.find(data, dataset.values()) is None:
            known = bool(dataset.files) and all(file.bytes for file in dataset.files)
            yield name, sum(file.bytes for file in dataset.files) if known else None, ""
    for row in {(job.row.method, job.row.variant): job.row for job in jobs}.values():
        what, card = f"{row.method} {row.variant}".rstrip(), row.card
        if card and row.is_installed:
            if installs.find_installed(row.method, row.variant) is None:
                variant = card.variant(row.variant)
                answer = head(variant.url, _PATIENCE)
                is_file = variant.url.endswith(f"/{variant.file}")  # and not a page that leads to it
                yield what, answer.bytes if is_file else None, "" if answer.alive else f" ({answer.status})"
        elif card and "weights" not in row.options and not weights.is_fetched(card):
            yield what, sum(weight.bytes for weight in card.weights) or None, ""


FAILURES = "failures.json"  # in a leaderboard's folder: name of a run -> why it failed the last time
_LOCK = "plan.lock"
Tell = Callable[[str], object]
State = Literal["done", "failed", "cannot be run"]


@dataclass(frozen=True, slots=True)
class PlanExecution:
    """How a plan's runs are executed: options of `disbench run`; `options` are for the methods that have them."""

    engine: EngineName = "local"
    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float = 0.0
    threads: int = 1
    timeout: float | None = 60.0
    options: tuple[str, ...] = ()
    existing: Literal["resume", "overwrite"] = "resume"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of a plan ended, in a sentence."""

    name: str
    state: State
    sentence: str


def run_plan(jobs: Sequence[Job], out: Path, data: Path | None, execution: PlanExecution, tell: Tell) -> list[Outcome]:
    """Execute the runs of a plan that are not done; a failed run does not stop the others.

    Every run has its own process, so a crash or kill does not affect other runs. A run is done when its packed form is
    in `out`, the leaderboard's folder; interrupted runs are resumed. Missing datasets are downloaded into `data`;
    `tell` gets lines of progress. `read_failures` keeps why runs failed until they are done. InputError if another
    process works on this folder.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415

    (out / WORK).mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    failures = read_failures(out)
    lacking: dict[tuple[str, str], str] = {}
    try:
        with FileLock(out / WORK / _LOCK, timeout=0):
            for number, job in enumerate(jobs, start=1):
                tell(f"[{number}/{len(jobs)}] {job.name}")
                outcome = _outcome(job, out, data, execution, lacking, tell)
                outcomes.append(outcome)
                tell(f"  {outcome.state}{f': {outcome.sentence}' if outcome.sentence else ''}")
                failures.pop(job.name, None)
                if outcome.state == "failed":
                    failures[job.name] = outcome.sentence
                with contextlib.suppress(OSError):  # a full disk; the reason was reported
                    write_json(out / FAILURES, failures)
    except Timeout:
        raise InputError(f"{out}: another process works on this leaderboard; wait until it ends") from None
    if all(outcome.state != "failed" for outcome in outcomes):
        shutil.rmtree(out / WORK)
    return outcomes


def read_failures(out: Path) -> dict[str, str]:
    """Name of a run -> why it failed the last time; {} for a new leaderboard."""
    path = out / FAILURES
    try:
        return parse_json_table(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not a list of failures ({error}); remove it") from error


def _outcome(
    job: Job, out: Path, data: Path | None, execution: PlanExecution, lacking: dict[tuple[str, str], str], tell: Tell
) -> Outcome:
    """Execute one run; `lacking` keeps what could not be obtained, and why, so that later runs do not retry it."""
    try:
        if execution.existing == "resume" and job.record(out) is not None:
            shutil.rmtree(out / WORK / job.name, ignore_errors=True)  # left by a kill after it was packed
            return Outcome(job.name, "done", "")
        if job.obstacle:
            return Outcome(job.name, "cannot be run", job.obstacle)
    except (InputError, OSError) as error:
        return Outcome(job.name, "failed", error_message(error))
    keys = [("dataset", job.dataset), ("method", f"{job.row.method} {job.row.variant} {job.row.is_installed}")]
    if why := next((lacking[key] for key in keys if key in lacking), ""):
        return Outcome(job.name, "failed", why)
    process = WorkerProcess(_in_process, job, out, data, execution, daemon=False)
    try:
        while isinstance(message := process.receive(math.inf), str):
            tell(f"  {message}")
        outcome: Outcome = message[0]
        lacking |= {key: outcome.sentence for key in keys if key[0] == message[1]}
        process.exit_cause()
        return outcome
    except (EOFError, OSError):
        why = f"its process ended ({process.exit_cause()}); run the same command again to resume"
        return Outcome(job.name, "failed", why)
    finally:
        process.kill()


def _in_process(job: Job, out: Path, data: Path | None, execution: PlanExecution, connection: Connection) -> None:
    """Execute one run in this process; sends its progress, its outcome, and what could not be obtained."""
    lacks = "dataset"
    try:
        _fetch_dataset(job.dataset, data, connection.send)
        lacks = "method"
        _fetch_method(job.row, connection.send)
        lacks = ""
        outcome = Outcome(job.name, "done", _run_and_pack(job, out, data, execution))
    except (InputError, OSError) as error:
        outcome = Outcome(job.name, "failed", error_message(error))
    except (Exception, SystemExit) as error:
        outcome = Outcome(job.name, "failed", describe_error(error))
    connection.send((outcome, lacks))


def _fetch_dataset(name: str, data: Path | None, tell: Tell) -> None:
    """Download a dataset that is missing here and whose card has addresses."""
    if data is None or datasets.is_folder(name):
        return
    card = datasets.load_card(name)
    if card.files and card.find(data, card.values()) is None:
        for line in fetch(name, data, progress=True):
            tell(line)


def _fetch_method(row: PlanRow, tell: Tell) -> None:
    """Install a published system, or download a method's weights."""
    if row.is_installed:
        installs.install(row.method, row.variant, report=tell)
    elif row.card and (row.card.weights or row.card.hub) and "weights" not in row.options:
        weights.fetch(row.card)


def _run_and_pack(job: Job, out: Path, data: Path | None, execution: PlanExecution) -> str:
    """Run and pack."""
    row, place = job.row, out / WORK / job.name
    options = job.options
    if row.is_installed and (installed := installs.find_installed(row.method, row.variant)):
        options = [*installs.overrides(installed), *options]
    known = method_spec(row.method, options).options
    spec = method_spec(row.method, [*options, *(text for text in execution.options if text.split("=")[0] in known)])
    preset = load_preset(row.protocol)
    where: dict[str, Any] = {"address": execution.address, "gpus_per_worker": execution.gpus_per_worker}
    engine = open_engine(execution.engine, execution.workers, cores_per_worker=execution.threads, **where)
    run = run_benchmark(
        spec,
        datasets.open_dataset(job.dataset, data, preset.reading(job.dataset)),
        place,
        preset.conduct(spec, selection=row.selection),
        Execution(engine.workers, execution.threads, 1, execution.timeout, row.store),
        engine=engine,
        every=row.every,
        limit=row.limit,
        existing=execution.existing,
        command=job.command,
        progress=True,
    )
    result = run.record.result
    if result.unread:
        raise InputError(
            f"{len(result.unread)} of {result.samples} samples cannot be read, the first: {result.unread[0].sample}: "
            f"{result.unread[0].reason}; fix the files and run the same command again, which does only these"
        )
    failed = len(result.failed)
    why = f"the first: {result.failed[0].sample}: {result.failed[0].reason}" if failed else ""
    if failed == result.samples:
        shutil.rmtree(place)  # there is nothing to resume
        raise InputError(f"the method failed on all {failed} samples, {why}")
    job.packed(out).parent.mkdir(parents=True, exist_ok=True)
    pack(place, job.packed(out))
    shutil.rmtree(place)
    done = f"{result.samples} samples, {result.clicks} clicks, {result.wall_seconds:.1f} s"
    return f"{done}; the method failed on {failed}, {why}" if failed else done
