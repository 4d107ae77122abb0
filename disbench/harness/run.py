"""Run a method on a dataset under a protocol, stored and resumable; import the results of other tools as such runs."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from disbench import __version__
from disbench.baselines.bridge.method import provenance
from disbench.baselines.cards import BRIDGE, STANDARD_THRESHOLD, MethodCard, MethodSpec
from disbench.core.clicks import opencv_version
from disbench.core.errors import InputError, quote
from disbench.core.samples import SampleSource, Source, content_of
from disbench.datasets.hannotation import load_plain_pickle
from disbench.harness.evaluation import check_ids
from disbench.harness.presets import Preset
from disbench.harness.protocol import MOST_CLICKS, Protocol, numbers_with_clicks, with_recording
from disbench.harness.record import (
    DatasetRecord,
    Execution,
    ExecutionRecord,
    Failure,
    Imported,
    Machine,
    MethodRecord,
    Record,
    RepeatedBatches,
    Result,
    RunRecord,
    parse_record,
)
from disbench.harness.sample_loop import FIRST, GRANULARITIES, TRIALS, TargetsTask
from disbench.harness.set_task import ANSWERS, SETS
from disbench.harness.store import (
    CLICKS,
    JOURNAL,
    RUN,
    SECONDS,
    ClickRow,
    Journal,
    StoredRun,
    read_run,
    to_table,
    write_clicks,
    write_json,
)
from disbench.harness.tasks import Task
from disbench.harness.workers import EvaluationWork
from disbench.io import addresses
from disbench.io.files import Existing, file_sha256
from disbench.workers import Engine, LocalEngine

JOB_FILES = (RUN, CLICKS, GRANULARITIES, TRIALS, SETS, ANSWERS, FIRST, JOURNAL)
"""All files of a run, finished or in progress."""
_logger = logging.getLogger("disbench.harness")
_PACKAGES = ("numpy", "scipy", "scikit-image")
_PACKAGES_OF_EXTRAS = {"onnx": ("onnxruntime",), "models": ("torch", "transformers"), "maxflow": ("PyMaxflow",)}
"""Extra of a card -> packages that the method may compute with; a class without a card may use all of them."""


def run_benchmark(
    method: MethodSpec,
    source: SampleSource,
    out: Path,
    protocol: Protocol,
    execution: Execution | None = None,
    **options: Any,
) -> StoredRun:
    """Run a method on a dataset and store one row per click.

    Args:
        method: how each worker creates the method.
        source: the samples; with recorded clicks, samples without any are skipped.
        out: folder of the run; created if missing.
        protocol: how to evaluate.
        execution: processes, threads, time limit, stored masks.
        **options: those of `run_task`.

    Returns:
        The finished run. Samples that cannot be read, or on which the method failed, are in its rows with the reason,
        and in `record.result.failed`.

    Raises:
        InputError: as for `run_task`, or recorded clicks that cannot be read, are on an unknown sample, or lie outside
            its image.
    """
    store = "none" if execution is None else execution.store
    run_task(method, source, out, TargetsTask(with_recording(protocol), store), execution, **options)
    return read_run(out)


def run_task(
    method: MethodSpec,
    source: Source,
    out: Path,
    task: Task,
    execution: Execution | None = None,
    *,
    engine: Engine | None = None,
    every: int = 1,
    limit: int | None = None,
    existing: Existing = "resume",
    command: str = "",
    progress: bool = False,
    grown: Callable[[], None] = lambda: None,
) -> None:
    """Run any task, usually through `run_benchmark`; its runs are then in `out` (`Task.parts`).

    Args:
        method: how each worker creates the method.
        source: what the task's loops take; for a task with recorded clicks, samples without any are skipped.
        out: folder of the run; created if missing.
        task: what to ask the method.
        execution: processes, threads, time limit; the task determines the stored masks.
        engine: runs the workers; by default `execution.workers` processes on this machine.
        every: use only every n-th sample, from the first.
        limit: use only the first n of them.
        existing: `resume` continues an unfinished run of the same job, repeats samples that could not be read or have
            changed, and leaves a finished run alone; `overwrite` starts over; `fail` refuses a folder with a run.
        command: recorded as the command line.
        progress: show a progress bar.
        grown: called whenever the journal in `out` has grown.

    Raises:
        InputError: the folder has a run of another job, the method cannot be created, no sample can be read, or samples
            changed during the run.
    """
    ids, execution = source.ids, execution or Execution()
    if every < 1 or (limit is not None and limit < 1):
        raise InputError(f"every = {every}, limit = {limit}: both must be at least 1")
    if not ids:
        raise InputError(f"{source.name}: the dataset has no samples; check its folder")
    check_ids(ids, f"{source.name}: ")
    numbers: Sequence[int] = range(0, len(ids), every)[:limit]
    if isinstance(task.protocol, Protocol):
        numbers = numbers_with_clicks(task.protocol, source, numbers)
    content = content_of(source)
    contents = {ids[number]: content.samples[number] for number in numbers}
    record = task.kind(
        protocol=task.protocol,
        method=_method_record(method),
        dataset=DatasetRecord(source.name, len(ids), content.whole, dict(source.facts())),
        every=every,
        limit=limit,
        versions=versions_of(method),
        execution=ExecutionRecord(**dataclasses.asdict(execution)),
        machine=Machine(platform.system(), processor(), os.cpu_count()),
        command=command,
        result=Result(samples=0, clicks=0, wall_seconds=0.0, model_seconds=0.0, harness_seconds=0.0),
    )
    for note in record.dataset.facts.get("notes", ()):
        _logger.warning("%s: %s", source.name, note)
    parts = task.parts()
    records = {name: dataclasses.replace(record, protocol=part.protocol) for name, part in parts.items()}
    for name in parts:
        (out / name).mkdir(parents=True, exist_ok=True)
    are_finished = [_is_finished(out / name, of_part, existing, out / JOURNAL) for name, of_part in records.items()]
    if all(are_finished):
        (out / JOURNAL).unlink(missing_ok=True)
        return
    begun = time.monotonic()
    journal = Journal(out, task.schema)
    unread = True
    try:
        job = record.job() if "" in parts else {**record.job(), "policies": [*parts]}
        _resume(journal, job, contents, out)
        work = EvaluationWork(method, source, task, execution.batch, execution.threads, execution.timeout)
        engine = engine or LocalEngine(execution.workers)
        _evaluate(journal, work, numbers, contents, engine, out, progress, grown)
        _check_unchanged(source, contents, journal, out)
        wall_seconds = journal.spend(time.monotonic() - begun)
        carried_out = dataclasses.replace(
            record.execution, engine=engine.name, workers=engine.workers, workers_lost=len(engine.lost)
        )
        for name, part in parts.items():
            result = _result(journal, _tables(journal, contents, part), len(contents), wall_seconds / len(parts))
            if len(result.unread) == len(contents):
                raise InputError(
                    f"{source.name}: none of {len(contents)} samples can be read; the first: "
                    f"{result.unread[0].sample}: {result.unread[0].reason}"
                )
            unread = bool(result.unread)
            (out / name / RUN).unlink(missing_ok=True)  # it describes the rows that are now replaced
            part.write(out / name, _tables(journal, contents, part))
            if (write_tables := getattr(source, "write_tables", None)) is not None:
                write_tables(out / name)
            finished = dataclasses.replace(records[name], execution=carried_out, result=result)
            write_json(out / name / RUN, finished.as_json())
    finally:
        nothing = not any(journal.finished().values())
        journal.close()
        if nothing:
            (out / JOURNAL).unlink()
    if not unread:
        (out / JOURNAL).unlink()


def _tables(journal: Journal, samples: Collection[str], task: Task) -> Iterator[pa.Table]:
    """Rows of finished samples that belong to a task."""
    for table in journal.tables(samples):
        if "policy" in table.schema.names:
            own = table.filter(pc.equal(table["policy"], task.protocol.policy))
            yield own.select(task.schema.names).cast(task.schema)
        else:
            yield table


def _evaluate(
    journal: Journal,
    work: EvaluationWork,
    numbers: Sequence[int],
    contents: Mapping[str, str],
    engine: Engine,
    out: Path,
    progress: bool,
    grown: Callable[[], None],
) -> None:
    finished, ids, size = journal.finished(), work.source.ids, work.batch
    left = [number for number in numbers if ids[number] not in finished]
    chunks = [tuple(left[i : i + size]) for i in range(0, len(left), size)]
    failed = 0
    with (
        tqdm(total=len(numbers), initial=len(finished), unit="sample", disable=not progress) as bar,
        contextlib.closing(engine.as_finished(work, chunks, out)) as evaluated,
    ):
        for chunk in evaluated:
            for sentence in chunk.lost:
                engine.report_lost(sentence)
            for number, rows in chunk.rows.items():
                journal.add(ids[number], contents[ids[number]], to_table(work.task.kept(rows), work.task.schema))
            journal.note(chunk.repeated, chunk.versions)
            grown()
            failed += sum(rows[-1].failure is not None for rows in chunk.rows.values())
            bar.update(len(chunk.numbers))
            if failed:
                bar.set_postfix(failed=failed)


def _resume(journal: Journal, job: Mapping[str, Any], contents: Mapping[str, str], out: Path) -> None:
    """Keep the rows of unchanged samples; InputError for the journal of another job or of other data."""
    begun, finished = journal.job(), journal.finished()
    if begun is not None:
        check_same_job(_settings(begun), _settings(job), out)
        read = {sample: content for sample, content in finished.items() if content is not None}
        changed = [sample for sample, content in read.items() if content != contents.get(sample)]
        if read and len(changed) == len(read):
            check_same_job(begun, job, out)
        if changed:
            _logger.warning("%s: %s; done again", out, _named(changed, "changed since the run began"))
        journal.drop([*changed, *(finished.keys() - read.keys())])
    journal.begin(job)


def _settings(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job without the parts that depend on the content of its samples."""
    dataset = job["dataset"]
    return {**job, "dataset": {"name": dataset["name"], "options": dataset["facts"].get("options")}}


def _check_unchanged(source: Source, contents: Mapping[str, str], journal: Journal, out: Path) -> None:
    """Drop the rows of samples whose files changed during the run, since they may have used either version."""
    now = dict(zip(source.ids, content_of(source).samples, strict=True))
    changed = [sample for sample, content in contents.items() if content != now[sample]]
    if changed:
        journal.drop(changed)
        raise InputError(
            f"{out}: {_named(changed, f'of {source.name} changed during the run')}; run the same command again, which "
            "does these again"
        )


def _named(samples: Sequence[str], what: str) -> str:
    few = ", ".join(map(quote, samples[:3]))
    return f"{len(samples)} samples {what} ({few}{', ...' if len(samples) > 3 else ''})"


def _method_record(method: MethodSpec) -> MethodRecord:
    module, _, name = method.entry.rpartition(":")
    file = Path(module) if module.endswith(".py") else None
    return MethodRecord(
        name=method.name,
        entry=f"{file.name}:{name}" if file else method.entry,  # no folders of this machine
        options=dict(method.options),
        card=dict(method.card),
        source_sha256=file_sha256(file) if file else None,
        provenance=provenance(addresses.localize_options(method.options)) if method.entry == BRIDGE else None,
    )


def versions_of(method: MethodSpec) -> dict[str, str]:
    """Versions of all software that may change a row; packages that the method does not use are left out."""
    found = {"disbench": __version__, "python": platform.python_version(), "opencv": opencv_version()}
    extras = str(method.card.get("extra", "")).split(",") if method.card else _PACKAGES_OF_EXTRAS
    for package in (*_PACKAGES, *(package for extra in extras for package in _PACKAGES_OF_EXTRAS.get(extra, ()))):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _is_finished(out: Path, record: Record, existing: Existing, journal: Path) -> bool:
    """Handle existing files according to `existing`; True if the folder has the finished run of this job."""
    present = [place for place in (*(out / name for name in JOB_FILES), journal) if place.exists()]
    if existing == "overwrite":
        for place in (out / RUN, *present):  # the record first: without it the run is not finished
            place.unlink(missing_ok=True)
        return False
    if existing == "fail" and present:
        raise InputError(f"{out}: there is a run already; use another folder or --existing overwrite")
    if not (out / RUN).is_file():
        return False
    before = parse_record((out / RUN).read_bytes(), str(out / RUN))
    if before.result.unread and journal.is_file():
        return False
    check_same_job(before.job(), record.job(), out)
    return True


def check_same_job(there: Mapping[str, object], job: Mapping[str, object], out: Path, what: str = "run") -> None:
    """Raise InputError if a folder's run (or other product, `what`) has another job; names the first difference."""
    for part, wanted in job.items():
        for place, before, now in _differences(part, there.get(part, {}), wanted):
            raise InputError(
                f"{out}: its {what} was made with other settings ({place}: {quote(before)}, now {quote(now)}); use "
                "another folder or --existing overwrite"
            )


def _differences(place: str, there: object, wanted: object) -> Iterator[tuple[str, object, object]]:
    """Places where two records differ, with both values."""
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*there, *wanted}):
            yield from _differences(f"{place}.{key}", there.get(key), wanted.get(key))
    elif there != wanted:
        yield place, there, wanted


def _result(journal: Journal, tables: Iterator[pa.Table], samples: int, wall_seconds: float) -> Result:
    failed: list[Failure] = []
    clicks, seconds = 0, dict.fromkeys(SECONDS, 0.0)
    for table in tables:
        (last,) = table.select(["sample", "click", "failure"]).slice(len(table) - 1).to_pylist()
        failed += [Failure(*last.values())] if last["failure"] is not None else []
        clicks += len(table)
        for name in SECONDS:
            seconds[name] += float(sum(table[name].to_pylist()))
    repeated, versions = journal.notes()
    return Result(
        samples=samples,
        clicks=clicks,
        failed=tuple(failed),
        batches_repeated=RepeatedBatches(len(repeated), repeated[0] if repeated else None),
        wall_seconds=wall_seconds,
        method_versions=tuple(versions),
        **seconds,
    )


_FIX = "name a file that scripts/evaluate_model.py wrote with --save-ious or --iou-analysis"
_UNKNOWN = "unknown"
_NAN = float("nan")


def import_ious(
    file: Path,
    method: MethodCard | str,
    source: SampleSource,
    out: Path,
    preset: Preset,
    *,
    options: Mapping[str, Any] | None = None,
    stop_at: float | None = None,
    max_clicks: int | None = None,
    existing: Existing = "fail",
    command: str = "",
) -> StoredRun:
    """Store the IoUs from a pickle as a run that is marked as `imported`.

    `file` is the output of `--save-ious` (a list of one array per sample) or `--iou-analysis` (that list as
    `all_ious`), in the order of the dataset `source`; reading it runs no code in it. `stop_at` is the IoU at which the
    tool ended a sample (`--target-iou`), `max_clicks` its cap, by default the clicks of the longest sample.

    Raises:
        InputError: any other file, a number of samples that differs from the dataset, IoUs outside [0, 1], samples that
            end neither at `max_clicks` nor at `stop_at`, or a folder that has a run.
    """
    if (out / RUN).exists() and existing != "overwrite":
        raise InputError(f"{out}: there is a run already; use another folder or --existing overwrite")
    ious = _read_ious(file)
    if len(ious) != len(source.ids):
        raise InputError(
            f"{file}: IoUs of {len(ious)} samples, but {source.name} has {len(source.ids)}; give the dataset of the "
            "file, and how it is read (--protocol, --dataset-option)"
        )
    most = max_clicks or max(map(len, ious))
    _check_ends(file, ious, most, stop_at)
    card = method if isinstance(method, MethodCard) else None
    name = card.name if card else str(method)
    spec = MethodSpec(name, "", options or {}, card.standard_threshold if card else STANDARD_THRESHOLD)
    record = RunRecord(
        method=MethodRecord(name, "", spec.options, card.table() if card else {}),
        dataset=DatasetRecord(source.name, len(source.ids), content_of(source).whole, dict(source.facts())),
        protocol=preset.conduct(spec, max_clicks=most, stop_at=stop_at),
        every=1,
        limit=None,
        versions={"disbench": __version__, "opencv": _UNKNOWN},
        execution=ExecutionRecord(),
        machine=Machine(_UNKNOWN, _UNKNOWN, None),
        command=command,
        imported=Imported(file.name, file_sha256(file)),
        result=Result(
            samples=len(ious), clicks=sum(map(len, ious)), wall_seconds=0.0, model_seconds=0.0, harness_seconds=0.0
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / RUN).unlink(missing_ok=True)
    write_clicks(out / CLICKS, (to_table(_rows(name, own)) for name, own in zip(source.ids, ious, strict=True)))
    write_json(out / RUN, record.as_json())
    return read_run(out)


def _read_ious(file: Path) -> list[npt.NDArray[np.float32]]:
    content = load_plain_pickle(file, _FIX)
    found = content.get("all_ious") if isinstance(content, dict) else content
    if not isinstance(found, list | tuple) or not found:
        raise InputError(f"{file}: no list of IoUs, and none called 'all_ious'; {_FIX}")
    ious = []
    for number, own in enumerate(found):
        try:
            row = np.asarray(own, dtype=np.float32)
        except (TypeError, ValueError):
            row = np.empty(0, dtype=np.float32)
        if row.ndim != 1 or not 0 < len(row) <= MOST_CLICKS or (row < 0).any() or (row > 1).any():
            raise InputError(f"{file}: sample {number} is not a list of IoUs from 0 to 1, one per click; {_FIX}")
        ious.append(row)
    return ious


def _check_ends(file: Path, ious: Sequence[npt.NDArray[np.float32]], most: int, stop_at: float | None) -> None:
    """Check that every sample ends at its last click, or at the first IoU that reaches `stop_at`."""
    for number, row in enumerate(ious):
        reached = [] if stop_at is None else np.flatnonzero(row >= np.float32(stop_at)).tolist()
        if len(row) != (reached[0] + 1 if reached else most):
            ends = f"{most} clicks" + ("" if stop_at is None else f" or at the first IoU of {stop_at:g}")
            raise InputError(
                f"{file}: sample {number} has {len(row)} IoUs, and does not end after {ends}; give the IoU at which "
                "the evaluation ended (its --target-iou) with --stop-at, and its cap with --max-clicks"
            )


def _rows(sample: str, ious: npt.NDArray[np.float32]) -> list[ClickRow]:
    unknown: dict[str, Any] = {"boundary_iou": _NAN, "model_seconds": _NAN, "harness_seconds": _NAN}
    return [
        ClickRow(sample, click, -1, -1, positive=False, iou=float(iou), **unknown)
        for click, iou in enumerate(ious.tolist(), start=1)
    ]
