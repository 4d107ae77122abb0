"""`run_plan`: does what is left of a plan, each run in a process of its own."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from disbench.baselines import installs, weights
from disbench.baselines.cards import method_spec
from disbench.core.choices import EngineName
from disbench.core.errors import InputError, sentence_of, told
from disbench.datasets import cards as datasets
from disbench.datasets.fetch import fetch
from disbench.harness.archive import pack
from disbench.harness.plan import WORK, Job, PlanRow
from disbench.harness.presets import load_preset
from disbench.harness.record import Execution
from disbench.harness.run import run_benchmark
from disbench.harness.store import write_json
from disbench.io.settings import parse_json_table
from disbench.workers import open_engine
from disbench.workers.processes import WorkerProcess

FAILURES = "failures.json"  # of a leaderboard: name of a run -> why it failed the last time
_LOCK = "plan.lock"
Tell = Callable[[str], object]
State = Literal["done", "failed", "cannot be run"]


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a plan's runs are carried out: options of `disbench run`; `options` are for the methods that have them."""

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


def run_plan(jobs: Sequence[Job], out: Path, data: Path | None, conduct: Conduct, tell: Tell) -> list[Outcome]:
    """Do the runs of a plan that are not done; one that fails stops no other.

    Every run happens in a process of its own, so that neither a crash nor a kill of it reaches the others. It is done
    when its packed form is in `out`, the leaderboard's folder; what an interruption left unfinished is resumed. Missing
    datasets are fetched into `data`; `tell` gets lines of progress. `read_failures` has why runs failed, too, until
    they are done. InputError if another process works on this folder.
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
                outcome = _outcome(job, out, data, conduct, lacking, tell)
                outcomes.append(outcome)
                tell(f"  {outcome.state}{f': {outcome.sentence}' if outcome.sentence else ''}")
                failures.pop(job.name, None)
                if outcome.state == "failed":
                    failures[job.name] = outcome.sentence
                with contextlib.suppress(OSError):  # a full disk: the sentence is told
                    write_json(out / FAILURES, failures)
    except Timeout:
        raise InputError(f"{out}: another process works on this leaderboard; wait for its end") from None
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
    job: Job, out: Path, data: Path | None, conduct: Conduct, lacking: dict[tuple[str, str], str], tell: Tell
) -> Outcome:
    """Do one run; `lacking` has what could not be had, and why, so that no later run asks for it again."""
    try:
        if conduct.existing == "resume" and job.record(out) is not None:
            shutil.rmtree(out / WORK / job.name, ignore_errors=True)  # left by a kill after it was packed
            return Outcome(job.name, "done", "")
        if job.obstacle:
            return Outcome(job.name, "cannot be run", job.obstacle)
    except (InputError, OSError) as error:
        return Outcome(job.name, "failed", sentence_of(error))
    keys = [("dataset", job.dataset), ("method", f"{job.row.method} {job.row.variant} {job.row.is_installed}")]
    if why := next((lacking[key] for key in keys if key in lacking), ""):
        return Outcome(job.name, "failed", why)
    process = WorkerProcess(_in_process, job, out, data, conduct, daemon=False)
    try:
        while isinstance(message := process.receive(math.inf), str):
            tell(f"  {message}")
        outcome: Outcome = message[0]
        lacking |= {key: outcome.sentence for key in keys if key[0] == message[1]}
        process.ended()
        return outcome
    except (EOFError, OSError):
        why = f"its process ended ({process.ended()}); run the same command again to resume"
        return Outcome(job.name, "failed", why)
    finally:
        process.kill()


def _in_process(job: Job, out: Path, data: Path | None, conduct: Conduct, connection: Connection) -> None:
    """Do one run in this process, and send its progress, its outcome, and what could not be had for it."""
    lacks = "dataset"
    try:
        _bring_dataset(job.dataset, data, connection.send)
        lacks = "method"
        _bring_method(job.row, connection.send)
        lacks = ""
        outcome = Outcome(job.name, "done", _carry_out(job, out, data, conduct))
    except (InputError, OSError) as error:
        outcome = Outcome(job.name, "failed", sentence_of(error))
    except (Exception, SystemExit) as error:
        outcome = Outcome(job.name, "failed", told(error))
    connection.send((outcome, lacks))


def _bring_dataset(name: str, data: Path | None, tell: Tell) -> None:
    """Fetch a dataset that is not here and whose card has addresses."""
    if data is None or datasets.is_folder(name):
        return
    card = datasets.load_card(name)
    if card.files and card.find(data, card.values()) is None:
        for line in fetch(name, data, progress=True):
            tell(line)


def _bring_method(row: PlanRow, tell: Tell) -> None:
    """Install a published system, or fetch a method's weights."""
    if row.is_installed:
        installs.install(row.method, row.variant, report=tell)
    elif row.card and (row.card.weights or row.card.hub) and "weights" not in row.options:
        weights.fetch(row.card)


def _carry_out(job: Job, out: Path, data: Path | None, conduct: Conduct) -> str:
    """Run and pack."""
    row, place = job.row, out / WORK / job.name
    options = job.options
    if row.is_installed and (installed := installs.find_installed(row.method, row.variant)):
        options = [*installs.overrides(installed), *options]
    known = method_spec(row.method, options).options
    spec = method_spec(row.method, [*options, *(text for text in conduct.options if text.split("=")[0] in known)])
    preset = load_preset(row.protocol)
    where: dict[str, Any] = {"address": conduct.address, "gpus_per_worker": conduct.gpus_per_worker}
    engine = open_engine(conduct.engine, conduct.workers, cores_per_worker=conduct.threads, **where)
    run = run_benchmark(
        spec,
        datasets.open_dataset(job.dataset, data, preset.reading(job.dataset)),
        place,
        preset.conduct(spec, selection=row.selection),
        Execution(engine.workers, conduct.threads, 1, conduct.timeout, row.store),
        engine=engine,
        every=row.every,
        limit=row.limit,
        existing=conduct.existing,
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
