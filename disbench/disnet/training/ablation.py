"""`disbench ablate`: the rows of a table trained for one budget and measured; resumable, in any number of processes."""

from __future__ import annotations

import multiprocessing
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

from disbench.baselines.cards import method_spec
from disbench.core.errors import InputError
from disbench.datasets.cards import open_dataset
from disbench.disnet.checkpoints import MAY_DIFFER
from disbench.disnet.method import described
from disbench.disnet.training.examples import Shards
from disbench.disnet.training.settings import Training, load_training, resolved
from disbench.disnet.training.train import TRAINED, begin
from disbench.disnet.training.train import train as train_network
from disbench.harness.protocol import Protocol
from disbench.harness.record import Execution
from disbench.harness.run import check_same, run_benchmark
from disbench.io import definitions
from disbench.io.options import overrides
from disbench.reports.ablation.plans import (
    RECORD,
    RUNS,
    AblationPlan,
    CellRecord,
    PlannedDataset,
    PlannedRow,
    RowShards,
    read_record,
    write_record,
)
from disbench.reports.ablation.report import report_ablation
from disbench.reports.paper.reproduce import reproduce
from disbench.reports.render.text import counted
from disbench.reports.report import Report
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from disbench.shards.reader import content_hash, read_manifest
from disbench.workers import threads
from disbench.workers.processes import die_with_parent, interrupts_held_back

REPORT, TRAINING = "report", "training"
_PLACES = ("checkpoint", "weights", "cache", "device")
"""Options of the method that say where something is, not what it does."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows are wanted, and how they are trained.

    Attributes:
        config: the base training: a name, with or without its `disnet-`, or a path that ends in `.toml`.
        changes: options of the training, `option=value` each; a row's own come after them.
        steps: of every row in place of the plan's; 0 leaves the training's own length.
        rows: names; none: all.
        seeds: in place of the plan's.
        datasets: in place of the plan's.
    """

    config: str = "small"
    changes: tuple[str, ...] = ()
    steps: int | None = None
    rows: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    datasets: tuple[PlannedDataset, ...] = ()


@dataclass(frozen=True, slots=True)
class Conduct:
    """How an ablation is carried out.

    Attributes:
        data: root of the datasets.
        build_shards: make shards that are missing, where the plan says how.
        method: name or path of the card that measures a network.
        stop_at: the IoU that ends a sample, or None. NoC and NoF up to it, and the IoU at click 1, are exact.
        limit: of each dataset only the first so many samples.
        workers: processes that evaluate, of each job.
        threads: of each process.
        device: of torch.
        existing: what to do with earlier results of the rows and seeds.
        progress: show progress bars.
        command: recorded: what a user types.
    """

    data: Path | None = None
    build_shards: bool = False
    method: str = "disnet"
    stop_at: float | None = 0.9
    limit: int | None = None
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    existing: Literal["resume", "overwrite", "fail"] = "resume"
    progress: bool = False
    command: str = ""


Say = Callable[[str], None]
Train = Callable[[Training, Path, Conduct], None]
"""Trains a network into a folder, or goes on with it; then the folder has `disnet.safetensors`."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A row with a seed.

    Attributes:
        folder: of its results.
        record: what decides its numbers.
        options: of the method, `option=value` each, but for the places of files.
    """

    folder: Path
    record: CellRecord
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """Row and seed, in words."""
        return f"{self.record.row}, seed {self.record.seed}"


@dataclass(frozen=True, slots=True)
class Task:
    """One network: trained if it is not there, then measured as one row or as several.

    Attributes:
        training: its settings, folders found.
        trained: the row that it is trained for.
        measured: the rows that are wanted, all of this network.
        datasets: to measure on.
    """

    training: Training
    trained: Cell
    measured: tuple[Cell, ...]
    datasets: tuple[PlannedDataset, ...]

    @property
    def checkpoint(self) -> Path:
        """The network's file."""
        return self.trained.folder / TRAINING / TRAINED


def train_with_bar(training: Training, folder: Path, conduct: Conduct) -> None:
    """Train with a progress bar, if one is wanted; see `disbench.disnet.training.train.train`."""
    from tqdm import tqdm  # noqa: PLC0415

    threads.limit(conduct.threads)
    with tqdm(unit="step", disable=None if conduct.progress else True) as bar:

        def show(step: int, steps: int, figures: Mapping[str, float]) -> None:
            bar.total = steps
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{figures['loss']:.3g}")

        train_network(training, folder, report=show, device=conduct.device)


def ablate(
    plan: AblationPlan,
    out: Path,
    choice: Choice | None = None,
    conduct: Conduct | None = None,
    *,
    jobs: int = 1,
    train: Train = train_with_bar,
    say: Say = print,
) -> Report:
    """Train and measure the rows of an ablation, and report on all that its folder then has.

    What is finished is left as it is: networks, runs. Rows and seeds do not depend on each other, so any number of
    jobs gives the same results.

    Args:
        plan: the ablation.
        out: folder of ablations; results lie in `PLAN/ROW/seed-S/` with `training/` and `runs/DATASET/`, the report
            in `PLAN/report/`.
        choice: which rows, and how they are trained.
        conduct: how it is carried out.
        jobs: processes that work at once, at least 1; 1 works in this process. With more, a script must make this
            call under `if __name__ == "__main__":` (they are started by "spawn").
        train: what trains; with several jobs it travels to other processes.
        say: told a line for each thing that is finished.

    Raises:
        InputError: an unknown name, missing data or shards, earlier results of other settings, a job that ends.
    """
    conduct = conduct or Conduct()
    tasks = plan_tasks(plan, out, choice or Choice(), conduct)
    if jobs <= 1:
        for task in tasks:
            carry_out(task, conduct, train, say)
    else:
        quiet = replace(conduct, progress=False)
        for line in _lines_of_jobs(tasks, jobs, quiet, train):
            say(line)
    return report_on(plan, out)


def report_on(plan: AblationPlan, out: Path) -> Report:
    """Write the report on what an ablation's folder has: measured rows, signs, and the paper's table.

    Args:
        plan: the ablation.
        out: folder of ablations.

    Raises:
        InputError: nothing is finished there, or rows that cannot be compared.
    """
    folder = out / plan.name
    signs = report_ablation(plan, folder, folder / REPORT)
    if not plan.table:
        return signs
    runs = sorted(folder.glob(f"*/seed-*/{RUNS}/*/run.json"))
    table = reproduce(plan.table, [run.parent for run in runs], folder / REPORT)
    return Report((*signs.paths, *table.paths), (*map(str, table.paths), *signs.lines))


def plan_tasks(plan: AblationPlan, out: Path, choice: Choice, conduct: Conduct) -> list[Task]:
    """What is to be done, all of it checked before anything is: trainings, shards, options, datasets.

    Raises:
        InputError: an unknown row, option or dataset, shards that are missing (with the command that makes them),
            or results where there shall be none.
    """
    chosen = [plan.row(name) for name in choice.rows] or list(plan.rows)
    datasets = choice.datasets or plan.datasets
    for dataset in datasets:
        open_dataset(dataset.name, conduct.data)
    tasks = []
    for row in [row for row in plan.rows if not row.trained_as]:
        wanted = [other for other in plan.rows if other in chosen and row.name in (other.name, other.trained_as)]
        for seed in (choice.seeds or plan.seeds) if wanted else ():
            training = _training(plan, row, seed, choice, conduct)
            trained, *cells = (_cell(plan, other, training, out, conduct) for other in (row, *wanted))
            tasks.append(Task(training, trained, tuple(cells), datasets))
    for cell in [cell for task in tasks for cell in task.measured]:
        if conduct.existing == "fail" and (cell.folder / RECORD).exists():
            raise InputError(f"{cell.folder}: there are results already; name another --out")
    return tasks


def _training(plan: AblationPlan, row: PlannedRow, seed: int, choice: Choice, conduct: Conduct) -> Training:
    known = definitions.names("baselines/configs")
    name = choice.config if choice.config in known else f"disnet-{choice.config}"
    steps = plan.steps if choice.steps is None else choice.steps
    length = (f"steps={steps}",) if steps else ()
    training = load_training(
        name if name in known else choice.config,
        (*plan.set, *choice.changes, *row.set, *length, f"seed={seed}"),
    )
    if row.shards:
        for source in row.shards:
            _see_shards(source, conduct)
        training = replace(training, shards=tuple(Shards(s.folder, s.images) for s in row.shards))
    return resolved(training, conduct.data)


def _see_shards(source: RowShards, conduct: Conduct) -> None:
    """Shards are here or below the root of the datasets, or are made now."""
    places = [Path(source.folder), *([conduct.data / source.folder] if conduct.data else [])]
    if any(place.is_dir() for place in places):
        return
    if not source.command or not conduct.build_shards:
        cure = f"add --make-shards, or run: {source.command}" if source.command else "make them with disbench sample"
        raise InputError(f"{source.folder}: there are no such shards; {cure}")
    recipe = load_recipe(source.recipe)
    scenes = open_source(recipe, SourcePaths(coco=[Path(source.coco)], data=conduct.data))
    make_shards(scenes, recipe, source.folder, progress=conduct.progress)


def _cell(plan: AblationPlan, row: PlannedRow, training: Training, out: Path, conduct: Conduct) -> Cell:
    options = (*overrides(described(training)), *row.method)
    values = method_spec(conduct.method, options).options
    manifests = {Path(s.folder).name: read_manifest(Path(s.folder)) for s in training.shards}
    record = CellRecord(
        ablation=plan.name,
        row=row.name,
        seed=training.seed,
        training={name: value for name, value in training.as_dict().items() if name not in MAY_DIFFER},
        shards={name: content_hash(manifest) for name, manifest in manifests.items()},
        method={name: value for name, value in values.items() if name not in _PLACES},
    )
    return Cell(out / plan.name / row.name / f"seed-{training.seed}", record, options)


def carry_out(task: Task, conduct: Conduct, train: Train, say: Say) -> None:
    """Train a task's network, if it is not there, and measure its rows.

    Raises:
        InputError: as `ablate`.
    """
    again = conduct.existing == "overwrite"
    for cell in (task.trained, *(cell for cell in task.measured if cell != task.trained)):
        _begin(cell, again and cell in task.measured)
    if not task.checkpoint.is_file():
        train(task.training, task.checkpoint.parent, conduct)
        say(f"{task.trained.name}: trained for {task.trained.record.budget}")
    for cell in task.measured:
        for dataset in task.datasets:
            say(f"{cell.name}, {_measure(cell, task, dataset, conduct)}")


def _begin(cell: Cell, again: bool) -> None:
    """See that what is there is of the same settings, or remove it; then say what will be there."""
    if again:
        shutil.rmtree(cell.folder / RUNS, ignore_errors=True)
        begin(cell.folder / TRAINING, "overwrite")
    elif (cell.folder / RECORD).exists():
        there, wanted = (record.as_dict() for record in (read_record(cell.folder), cell.record))
        check_same(there, wanted, cell.folder, "row")
        return
    write_record(cell.folder, cell.record)


def _measure(cell: Cell, task: Task, dataset: PlannedDataset, conduct: Conduct) -> str:
    """Run the benchmark; what it came to, in words."""
    places = {
        "checkpoint": task.checkpoint,
        "weights": task.training.network.weights,
        "cache": task.training.features,
        "device": conduct.device,
    }
    spec = method_spec(conduct.method, (*cell.options, *overrides(places)))
    source = open_dataset(dataset.name, conduct.data)
    run = run_benchmark(
        spec,
        source,
        cell.folder / RUNS / source.name,
        Protocol(threshold=spec.threshold, stop_at=conduct.stop_at),
        Execution(workers=conduct.workers, threads=conduct.threads),
        every=dataset.every,
        limit=conduct.limit,
        command=conduct.command,
        progress=conduct.progress,
    )
    result = run.record.result
    failed = f", failed on {len(result.failed)}" if result.failed else ""
    return f"{source.name}: {counted(result.samples, 'sample')}, {counted(result.clicks, 'click')}{failed}"


def _lines_of_jobs(tasks: Sequence[Task], jobs: int, conduct: Conduct, train: Train) -> Iterator[str]:
    """Tasks in processes of their own, so many at once; their lines as they come."""
    context = multiprocessing.get_context("spawn")
    waiting = deque(tasks)
    crew: dict[Connection, tuple[Task, BaseProcess]] = {}
    try:
        while waiting or crew:
            while waiting and len(crew) < jobs:
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_work, args=(waiting[0], conduct, train, theirs))
                with interrupts_held_back():
                    process.start()
                theirs.close()
                crew[ours] = (waiting.popleft(), process)
            for ours in [each for each in wait(list(crew)) if isinstance(each, Connection)]:
                try:
                    yield _heard(ours.recv())
                except (EOFError, OSError):
                    _ended(*crew.pop(ours))
    finally:
        for _, process in crew.values():
            process.kill()
            process.join()


def _heard(said: str | InputError) -> str:
    if isinstance(said, InputError):
        raise said
    return said


def _ended(task: Task, process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        raise InputError(
            f"{task.trained.name}: its process ended (exit code {process.exitcode}; out of memory?); run the same "
            "command again to resume, with fewer jobs"
        )


def _work(task: Task, conduct: Conduct, train: Train, connection: Connection) -> None:
    """A job's whole life."""
    die_with_parent()
    threads.limit(conduct.threads)
    try:
        carry_out(task, conduct, train, connection.send)
    except (InputError, OSError) as error:
        connection.send(InputError(f"{task.trained.name}: {error}"))
