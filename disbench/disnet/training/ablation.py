"""`disbench ablate`: train and measure the rows of a table with one budget; resumable, in any number of processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from disbench.baselines.cards import method_spec
from disbench.core.errors import InputError
from disbench.datasets.cards import open_dataset
from disbench.disnet.checkpoints import IGNORED_SETTINGS
from disbench.disnet.method import described
from disbench.disnet.training.settings import Shards, Training, load_training, resolved
from disbench.disnet.training.train import TRAINED, begin
from disbench.disnet.training.train import train as train_network
from disbench.harness.protocol import Protocol
from disbench.harness.record import Execution
from disbench.harness.run import check_same_job, run_benchmark
from disbench.io import definitions
from disbench.io.settings import overrides
from disbench.reports.ablation.plans import (
    RECORD,
    RUNS,
    AblationPlan,
    PlannedDataset,
    PlannedRow,
    RowRecord,
    RowShards,
    read_record,
    write_record,
)
from disbench.reports.ablation.report import report_ablation
from disbench.reports.render import counted
from disbench.reports.report import Report
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from disbench.shards.manifest import read_manifest
from disbench.workers import LocalEngine, threads

TRAINING = "training"
_EXECUTION_OPTIONS = ("checkpoint", "weights", "cache", "device")  # method options that do not affect results


@dataclass(frozen=True, slots=True)
class AblationOptions:
    """Options of `disbench ablate`.

    Attributes:
        config: the base training: a name, with or without `disnet-`, or a `.toml` path.
        changes: training options, `option=value` each; a row's own options override them.
        steps: training steps of each row, instead of the plan's; 0 for the base training's length.
        method: name or path of the card used to evaluate a network.
        jobs: number of parallel processes; if more than one, a script must call `ablate` under
            `if __name__ == "__main__":`.
        command: the command line, for the run records.
    """

    config: str = "small"
    changes: tuple[str, ...] = ()
    steps: int | None = None
    rows: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    datasets: tuple[PlannedDataset, ...] = ()
    data: Path | None = None
    make_shards: bool = False
    method: str = "disnet"
    stop_at: float | None = 0.9
    limit: int | None = None
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    jobs: int = 1
    existing: Literal["resume", "overwrite", "fail"] = "resume"
    progress: bool = False
    command: str = ""


Say = Callable[[str], None]
Train = Callable[[Training, Path, AblationOptions], None]
"""Trains a network in a folder or resumes it; afterwards the folder contains `disnet.safetensors`."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A row with a seed: its folder, the settings that affect its results, the card, and its options except paths."""

    folder: Path
    record: RowRecord
    card: str
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """Row and seed as text."""
        return f"{self.record.row}, seed {self.record.seed}"


@dataclass(frozen=True, slots=True)
class Job:
    """One network: trained for one row unless it exists, then measured for one or more rows."""

    training: Training
    trained: Cell
    measured: tuple[Cell, ...]
    datasets: tuple[PlannedDataset, ...]

    @property
    def checkpoint(self) -> Path:
        """Path of the trained network."""
        return self.trained.folder / TRAINING / TRAINED


def train_with_bar(training: Training, folder: Path, options: AblationOptions) -> None:
    """Train as in `disbench train`, with a progress bar if `options.progress`."""
    with tqdm(unit="step", disable=None if options.progress else True) as bar:

        def show(step: int, steps: int, figures: Mapping[str, float]) -> None:
            bar.total = steps
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{figures['loss']:.3g}")

        train_network(training, folder, report=show, device=options.device)


def ablate(
    plan: AblationPlan,
    out: Path,
    options: AblationOptions | None = None,
    *,
    train: Train = train_with_bar,
    say: Say = print,
) -> Report:
    """Train and measure the rows of an ablation, and report on all results in its folder.

    Finished networks and runs are kept. Rows and seeds are independent: any number of jobs gives the same results.

    Args:
        plan: rows, seeds and datasets.
        out: folder of ablations; results go to `PLAN/ROW/seed-S/`, the report to `PLAN/report/`.
        options: by default, the whole plan in this process.
        train: trains a network; pickled to other processes if there are several jobs.
        say: receives lines about each finished job.

    Raises:
        InputError: an unknown name, missing data or shards, earlier results with other settings, or a crashed job.
    """
    options = options or AblationOptions()
    jobs = plan_jobs(plan, out, options)
    (out / plan.name).mkdir(parents=True, exist_ok=True)
    work = _Work(replace(options, progress=options.progress and options.jobs == 1), train)
    for lines in LocalEngine(options.jobs, daemon=False).in_order(work, jobs, out / plan.name):
        for line in lines:
            say(line)
    return report_ablation(plan, out / plan.name)


def plan_jobs(plan: AblationPlan, out: Path, options: AblationOptions) -> list[Job]:
    """All jobs of an ablation; checks trainings, shards, options and datasets first."""
    chosen = [plan.row(name) for name in options.rows] or list(plan.rows)
    datasets = options.datasets or plan.datasets
    for dataset in datasets:
        open_dataset(dataset.name, options.data)
    jobs = []
    for row in [row for row in plan.rows if not row.trained_as]:
        wanted = [other for other in plan.rows if other in chosen and row.name in (other.name, other.trained_as)]
        for seed in (options.seeds or plan.seeds) if wanted else ():
            training = _training(plan, row, seed, options)
            trained, *cells = (_cell(plan, other, training, out, options) for other in (row, *wanted))
            jobs.append(Job(training, trained, tuple(cells), datasets))
    for cell in [cell for job in jobs for cell in job.measured]:
        if options.existing == "fail" and (cell.folder / RECORD).exists():
            raise InputError(f"{cell.folder}: there are results already; name another --out")
    return jobs


def _training(plan: AblationPlan, row: PlannedRow, seed: int, options: AblationOptions) -> Training:
    known, prefixed = definitions.names("baselines/configs"), f"disnet-{options.config}"
    steps = plan.steps if options.steps is None else options.steps
    length = (f"steps={steps}",) if steps else ()
    training = load_training(
        prefixed if prefixed in known else options.config,
        (*plan.set, *options.changes, *row.set, *length, f"seed={seed}"),
    )
    if row.shards:
        for source in row.shards:
            _require_shards(source, options)
        training = replace(training, shards=tuple(Shards(s.folder, s.images, s.only) for s in row.shards))
    return resolved(training, options.data)


def _require_shards(source: RowShards, options: AblationOptions) -> None:
    places = [Path(source.folder), *([options.data / source.folder] if options.data else [])]
    if any(place.is_dir() for place in places):
        return
    if not source.command or not options.make_shards:
        fix = f"add --make-shards, or run: {source.command}" if source.command else "make them with disbench sample"
        raise InputError(f"{source.folder}: no such shards; {fix}")
    recipe = load_recipe(source.recipe)
    scenes = open_source(recipe, SourcePaths(coco=[Path(source.coco)], data=options.data))
    make_shards(scenes, recipe, source.folder, progress=options.progress)


def _cell(plan: AblationPlan, row: PlannedRow, training: Training, out: Path, options: AblationOptions) -> Cell:
    given = (*overrides(described(training)), *row.method)
    card = row.card or options.method
    values = method_spec(card, given).options
    manifests = {Path(s.folder).name: read_manifest(Path(s.folder)) for s in training.shards}
    record = RowRecord(
        ablation=plan.name,
        row=row.name,
        seed=training.seed,
        training={name: value for name, value in training.as_dict().items() if name not in IGNORED_SETTINGS},
        shards={name: manifest.content_hash for name, manifest in manifests.items()},
        method={name: value for name, value in values.items() if name not in _EXECUTION_OPTIONS},
    )
    return Cell(out / plan.name / row.name / f"seed-{training.seed}", record, card, given)


@dataclass(frozen=True)
class _Work:
    """The ablation's work for an engine: its tasks are jobs, and a job's result is lines of text."""

    options: AblationOptions
    train: Train
    own_process = False

    def make_worker(self, path: Path) -> _Work:
        threads.limit(self.options.threads)
        return self

    def describe(self, job: Job) -> str:
        return job.trained.name

    def run(self, job: Job) -> list[str]:
        """Train a job's network unless it exists, and measure its rows."""
        try:
            return list(self._lines(job))
        except (InputError, OSError) as error:
            raise InputError(f"{job.trained.name}: {error}") from error

    def _lines(self, job: Job) -> Iterator[str]:
        again = self.options.existing == "overwrite"
        for cell in (job.trained, *(cell for cell in job.measured if cell != job.trained)):
            _begin(cell, again and cell in job.measured)
        if not job.checkpoint.is_file():
            self.train(job.training, job.checkpoint.parent, self.options)
            yield f"{job.trained.name}: trained for {job.trained.record.budget}"
        for cell in job.measured:
            for dataset in job.datasets:
                yield f"{cell.name}, {_measure(cell, job, dataset, self.options)}"

    def terminate(self) -> None:
        """Do nothing."""


def _begin(cell: Cell, again: bool) -> None:
    """Remove earlier results or check that their settings are the same; write the row's record."""
    if again:
        shutil.rmtree(cell.folder / RUNS, ignore_errors=True)
        begin(cell.folder / TRAINING, "overwrite")
    elif (cell.folder / RECORD).exists():
        there, wanted = (record.as_dict() for record in (read_record(cell.folder), cell.record))
        check_same_job(there, wanted, cell.folder, "row")
        return
    write_record(cell.folder, cell.record)


def _measure(cell: Cell, job: Job, dataset: PlannedDataset, options: AblationOptions) -> str:
    places = {
        "checkpoint": job.checkpoint,
        "weights": job.training.network.weights,
        "cache": job.training.features,
        "device": options.device,
    }
    spec = method_spec(cell.card, (*cell.options, *overrides(places)))
    source = open_dataset(dataset.name, options.data)
    run = run_benchmark(
        spec,
        source,
        cell.folder / RUNS / source.name,
        Protocol(threshold=spec.threshold, stop_at=options.stop_at),
        Execution(workers=options.workers, threads=options.threads),
        every=dataset.every,
        limit=options.limit,
        command=options.command,
        progress=options.progress,
    )
    result = run.record.result
    failed = f", failed on {len(result.failed)}" if result.failed else ""
    return f"{source.name}: {counted(result.samples, 'sample')}, {counted(result.clicks, 'click')}{failed}"
