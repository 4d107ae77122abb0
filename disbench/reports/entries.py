"""Runs as entries of a report: label, conditions and measures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from disbench.baselines.cards import execution_options
from disbench.core.choices import Granularity
from disbench.core.click_policies import BUDGETS, RANDOM_POLICIES, is_replay
from disbench.core.errors import InputError
from disbench.harness.archive import is_run, open_run
from disbench.harness.measures import MEASURES, RunRows, Value, measure_run, read_rows
from disbench.harness.presets import changed_settings
from disbench.harness.protocol import Protocol, SetProtocol
from disbench.harness.record import DIVERSE, FIRST_CLICKS, Record, RunRecord
from disbench.harness.sample_loop import StoredFirstClicks, read_first_clicks_run
from disbench.harness.set_task import StoredAnswers, read_answers
from disbench.harness.store import StoredRun, task_of
from disbench.reports.render import counted, option_value, ordinal, plain

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")
_RESOLUTIONS = ("max_side", "resolution", "input_size", "image_size", "size", "long_side", "short_side")
"""Image size options, which tables show even at their defaults."""
CONDITIONS = ("loop", "selection", "click policy", "seed", "max_clicks", "initial masks", "samples", "OpenCV")
"""Conditions that must be equal for two runs on a dataset to be comparable."""
_TOLD: Mapping[Granularity, str] = {
    "none": "",
    "truth": "told the granularity",
    "oracle": "knows the answer",
    "oracle-85": "knows the answer, by NoC@85",
}


@dataclass(frozen=True)
class Entry:
    """A run in a report. Every string is one printable line.

    Attributes:
        folder: path relative to the common folder of all runs in the report.
        label: method name with its non-default options, unique among runs on one dataset.
        build: hash of the entry point, source and weights.
        resolution: image size from the options, else from the card, or "".
        content_hash: SHA-256 of the dataset.
        conditions: each of `CONDITIONS` -> value.
        execution: machine, workers, threads and batch size, which affect timings.
        values: measure name -> value.
    """

    folder: str
    method: str
    label: str
    build: str
    resolution: str
    training_data: str
    backbone: str
    dataset: str
    content_hash: str
    conditions: Mapping[str, str]
    execution: str
    run: StoredRun
    rows: RunRows
    values: Mapping[str, Value]

    @property
    def record(self) -> RunRecord:
        """The content of `run.json`."""
        return self.run.record

    @property
    def short_hash(self) -> str:
        """The first 8 digits of the dataset's content hash."""
        return self.content_hash[:8]

    @property
    def dataset_name(self) -> str:
        """The dataset with its short content hash, and what the method knows of the ground truth (`told`)."""
        return ", ".join(filter(None, (f"{self.dataset} ({self.short_hash})", told(self.record.protocol))))

    def measured(self, name: str) -> str:
        """A measure's title and formatted value."""
        measure, number = MEASURES[name], self.values[name].number
        return f"{measure.title} {'not available' if number is None else measure.text(number)}"

    @property
    def budget(self) -> str:
        """The fixed budget of points in words; "" for the click loop."""
        name = self.record.protocol.budget
        return BUDGETS[name].title if name else ""

    @property
    def preset(self) -> str:
        """The preset and how the run deviates from it; "" for the standard protocol."""
        changed = changed_settings(self.record.protocol)
        return plain(self.record.protocol.preset + (f", but its own {' and '.join(changed)}" if changed else ""))

    @property
    def dataset_key(self) -> tuple[str, str]:
        """Key of the runs that may be ranked together."""
        return self.dataset_name, self.content_hash

    @property
    def protocol(self) -> str:
        """The protocol in words, without the choice of samples."""
        conditions, stop_at = self.conditions, self.rows.stop_at
        parts = (
            conditions["selection"],
            conditions["click policy"],
            "" if conditions["seed"] == "none" else f"seed {conditions['seed']}",
            self.budget or counted(self.rows.max_clicks, "click"),
            f"> {self.record.protocol.threshold:g}",
            "" if stop_at is None else f"stop at {stop_at:g}",
            "" if conditions["initial masks"] == "used" else "no initial masks",
            self.resolution,
            f"protocol of {self.preset}" if self.preset else "",
        )
        return ", ".join(filter(None, parts))

    @property
    def setting(self) -> tuple[str, ...]:
        """Key of the runs that share a row of the overview."""
        return self.label, self.build, self.protocol, self.conditions["loop"]


def find_runs(folders: Sequence[Path]) -> list[StoredRun]:
    """The runs on single targets in folders (see `split_runs`); `InputError` if there are none."""
    found = split_runs(folders)
    if found.first_clicks and not found.targets:
        raise InputError(f"{found.first_clicks[0].folder}: a run of --task {FIRST_CLICKS}; disbench report reads it")
    return found.required()


class RunsByTask(NamedTuple):
    """Runs by task; lists may be empty."""

    targets: list[StoredRun]
    answers: list[StoredAnswers]
    first_clicks: list[StoredFirstClicks]

    def required(self) -> list[StoredRun]:
        """`targets`; `InputError` if there are neither targets nor first clicks."""
        if self.answers and not (self.targets or self.first_clicks):
            raise InputError(f"{self.answers[0].folder}: a run of --task {DIVERSE}; disbench ambiguity reads it")
        if not (self.targets or self.first_clicks):
            raise InputError("no runs to report; name folders made by disbench run")
        return self.targets


def split_runs(folders: Sequence[Path]) -> RunsByTask:
    """Find runs in folders; each is a run (packed or not) or contains runs at any depth.

    Returns:
        Each run once, in the given order, sorted by path within a folder. A run and its archive count once.

    Raises:
        InputError: a folder without runs, an unfinished or damaged run, or a folder and archive of the same name with
            different runs.
    """
    places: dict[Path, Path] = {}
    for folder in folders:
        below = [folder] if is_run(folder) else _runs_below(folder)
        if not below:
            raise InputError(f"{folder}: contains no run; name folders made by disbench run")
        for place in below:
            places.setdefault(place.resolve(), place)
    by_task = alike(places.values(), task_of)
    runs: dict[Path, StoredRun] = {}
    for run in map(open_run, by_task.get("", ())):
        there = runs.setdefault(run.folder.resolve(), run)
        if there.record != run.record:
            raise InputError(f"{run.folder}: the folder and the archive of this name are different runs; move one")
    answers, first = map(read_answers, by_task.get(DIVERSE, ())), by_task.get(FIRST_CLICKS, ())
    return RunsByTask(list(runs.values()), list(answers), list(map(read_first_clicks_run, first)))


def read_entries(runs: Sequence[StoredRun]) -> list[Entry]:
    """Read runs as entries with unique labels; `InputError` for a damaged run."""
    folders = [run.folder.resolve() for run in runs]
    root = Path(os.path.commonpath([folder.parent for folder in folders]))
    entries = [
        _read_entry(run, plain(folder.relative_to(root).as_posix())) for run, folder in zip(runs, folders, strict=True)
    ]
    builds = Counter(label for label, _ in {(entry.label, entry.build) for entry in entries})
    entries = [  # same label, different code or weights
        dataclasses.replace(entry, label=f"{entry.label} [build {entry.build[:8]}]")
        if builds[entry.label] > 1
        else entry
        for entry in entries
    ]
    labels = {}
    for same in alike(entries, lambda entry: (entry.setting, entry.dataset_key)).values():
        for number, entry in enumerate(same, start=1):
            labels[entry.run.folder] = f"{entry.label} #{number}" if len(same) > 1 else entry.label
    return [dataclasses.replace(entry, label=labels[entry.run.folder]) for entry in entries]


def alike(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Group items by key, in order of first occurrence."""
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_dataset(entries: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """Group runs by `Entry.dataset_key`, in order of first occurrence."""
    return alike(entries, lambda entry: entry.dataset_key)


def by_setting(entries: Sequence[Entry]) -> dict[tuple[str, ...], list[Entry]]:
    """Group runs by `Entry.setting`, in order of first occurrence."""
    return alike(entries, lambda entry: entry.setting)


def curve_styles(entries: Sequence[Entry]) -> dict[tuple[str, ...], int]:
    """Setting -> style index, the same on all datasets; settings with curves come first."""
    ordered = [entry for group in by_dataset(entries).values() for entry in group]
    ordered.sort(key=lambda entry: entry.rows.miou is None)
    return {setting: number for number, setting in enumerate(by_setting(ordered))}


def _runs_below(folder: Path) -> list[Path]:
    """Runs below a folder, sorted by unpacked path."""
    found: list[tuple[Path, Path]] = []
    for place, below, files in os.walk(folder):
        if is_run(Path(place)):
            found.append((Path(place), Path(place)))
            below.clear()  # runs do not nest
        else:
            archives = [Path(place, name) for name in files if is_run(Path(place, name))]
            found += [(archive.with_suffix(""), archive) for archive in archives]
    return [place for _, place in sorted(found)]


def _read_entry(run: StoredRun, name: str) -> Entry:
    method, dataset = run.record.method, run.record.dataset
    rows, options, execution = read_rows(run), method.options, "an unknown machine"
    if not run.record.imported:
        machine, how = run.record.machine, run.record.execution
        execution = plain(
            f"{machine.processor} with {machine.cores} cores; workers {how.workers}, threads {how.threads}, "
            f"batch {how.batch}"
        )
    bridged = [(method.provenance or {}).get(name) for name in ("checkpoint_sha256", "adapter_sha256", "repo_commit")]
    weights = [weight.get("sha256") for weight in method.facts.weights]
    build = json.dumps(
        [method.entry, method.source_sha256, weights, *(bridged if method.provenance is not None else [])]
    )
    sizes = [f"{key}={option_value(options[key])}" for key in _RESOLUTIONS if key in options]
    return Entry(
        folder=name,
        method=plain(method.name),
        label=run_label(run.record),
        build=hashlib.sha256(build.encode()).hexdigest(),
        resolution=plain(", ".join(sizes) or method.facts.input_size),
        training_data=plain(", ".join(method.facts.training_data)),
        backbone=plain(method.facts.backbone),
        dataset=plain(dataset.name),
        content_hash=plain(dataset.content_hash),
        conditions=_conditions(run.record),
        execution=execution,
        run=run,
        rows=rows,
        values=measure_run(run, rows),
    )


def told(protocol: Protocol | SetProtocol) -> str:
    """What a method knows of the ground truth, in words, or ""; such runs are not ranked with other runs."""
    return _TOLD[protocol.granularity] if isinstance(protocol, Protocol) else ""


def run_label(record: Record) -> str:
    """The method's name, its non-default options (all options without a card), and `told`."""
    name, options, card = plain(record.method.name), record.method.options, record.method.facts
    threshold = record.protocol.threshold
    defaults = {key: table.get("default") for key, table in card.options.items()}
    if card.status == "bridge" and not record.imported:
        defaults["adapter"] = card.adapter
        options = {**options, "checkpoint": Path(str(options.get("checkpoint", ""))).name}
    details = execution_options(card.options, card.status, card.entry)
    changed = [
        f"{key}={option_value(value)}"
        for key, value in options.items()
        if (key not in defaults or value != defaults[key]) and key not in details
    ]
    if threshold != card.threshold:
        changed.append(f"threshold={threshold:g}")
    remarks = (", ".join(changed), told(record.protocol))
    return plain(name + "".join(f" ({remark})" for remark in remarks if remark))


def _conditions(record: RunRecord) -> dict[str, str]:
    protocol = record.protocol
    policy = protocol.click_policy
    loop = "imported" if record.imported else protocol.name
    values = (
        f"{loop}, granularity {protocol.granularity}" if told(protocol) else loop,
        protocol.selection,
        policy.label,
        protocol.seed if policy.name in RANDOM_POLICIES else "none",
        protocol.max_clicks,
        "used" if protocol.initial_masks else "ignored",
        _samples(record),
        record.versions["opencv"],
    )
    return dict(zip(CONDITIONS, map(plain, values), strict=True))


def _samples(record: RunRecord) -> str:
    parts = [f"every {ordinal(record.every)}"] if record.every > 1 else []
    if record.limit is not None and record.limit < math.ceil(record.dataset.samples / record.every):
        parts.append(f"the first {record.limit}")
    parts = parts or ["all"]
    if is_replay(record.protocol.policy):
        parts.append(f"{record.result.samples} with recorded clicks")
    return ", of them ".join(parts)
