"""Stored runs: made of numbers without a method, of toy methods, of the embedded photos; and changed copies of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from disbench.baselines.cards import MethodSpec
from disbench.core.choices import Store
from disbench.core.samples import Sample, SampleSource
from disbench.datasets.cards import open_dataset
from disbench.harness import Protocol, evaluate
from disbench.harness.run import run_task
from disbench.harness.sample_loop import SampleLoop
from disbench.harness.set_task import SetTask, StoredAnswers, read_answers
from disbench.harness.store import (
    CLICKS,
    RUN,
    SECONDS,
    ClickRow,
    StoredRun,
    read_run,
    to_table,
    write_clicks,
    write_json,
)
from tests.toy_methods import Discs
from tests.toy_samples import ToySource

HASH = "b04d9de7f560a068cdd21f0a6af734d8cb8e297a426eff0f2d3d1ad0564d20d5"
CARD: dict[str, Any] = {
    "title": "A toy",
    "status": "native",
    "citation": "A. Author. A toy. 2024.",
    "training_data": ["SBD"],
    "backbone": "ViT-B",
    "options": {"beta": {"default": 2.0}, "max_side": {"default": 320}},
}
DESCRIPTION: dict[str, Any] = {
    "format": 1,
    "method": {
        "name": "toy",
        "entry": "toys:Toy",
        "options": {"beta": 2.0, "max_side": 320},
        "card": CARD,
        "source_sha256": None,
    },
    "dataset": {
        "name": "grabcut",
        "samples": 1,
        "content_hash": HASH,
        "facts": {"title": "GrabCut", "options": {"rule": "trimap"}},
    },
    "protocol": {
        "max_clicks": 20,
        "threshold": 0.49,
        "selection": "oracle-first",
        "policy": "center",
        "seed": 0,
        "stop_at": None,
        "initial_masks": True,
        "name": "ritm",
        "every": 1,
        "limit": None,
    },
    "versions": {"disbench": "0.1.0", "python": "3.11.7", "opencv": "4.12.0"},
    "execution": {"workers": 2, "threads": 1, "batch": 1, "timeout": 60.0, "store": "none"},
    "machine": {"system": "Linux", "processor": "A processor", "cores": 4},
    "command": "disbench run --method toy --dataset grabcut --out runs/toy",
    "result": {"samples": 1, "clicks": 1, "wall_seconds": 12.5, "model_seconds": 0.0, "harness_seconds": 0.0},
}


def draw_ious(samples: int = 12, clicks: int = 20, seed: int = 0, speed: float = 0.35) -> npt.NDArray[np.float32]:
    """IoUs (samples, clicks) that rise with the clicks, with steps back."""
    noise = np.random.default_rng(seed)
    goal = noise.uniform(0.85, 0.99, (samples, 1))
    start = noise.uniform(0.1, 0.8, (samples, 1))
    steps = np.exp(-speed * noise.uniform(0.3, 2.0, (samples, 1)) * np.arange(clicks))
    ious = goal - (goal - start) * steps + noise.normal(0, 0.02, (samples, clicks))
    return np.clip(ious, 0, 1).astype(np.float32)


def write_run(
    folder: Path,
    ious: Sequence[Sequence[float]] | npt.NDArray[Any] | None = None,
    *,
    failed: Mapping[int, str] | None = None,
    boundary: Sequence[Sequence[float]] | npt.NDArray[Any] | None = None,
    **changes: Mapping[str, Any] | str,
) -> StoredRun:
    """Write a finished run.

    Args:
        folder: for it; made if missing.
        ious: a sequence a sample; drawn if not given.
        failed: number of a sample -> why the method failed on its last click.
        boundary: boundary IoUs; nine tenths of the IoUs if not given.
        changes: by part of `run.json`, the keys that differ from `DESCRIPTION`.
    """
    values = draw_ious() if ious is None else ious
    edges = [[0.9 * float(v) for v in row] for row in values] if boundary is None else boundary
    rows = []
    for number, (row, edge) in enumerate(zip(values, edges, strict=True)):
        for click in range(len(row)):
            last = click == len(row) - 1
            reason = (failed or {}).get(number) if last else None
            rows.append(_row(number, click, float(row[click]), float(edge[click]), reason))
    return store_run(folder, to_table(rows), len(values), **changes)


def store_run(folder: Path, table: pa.Table, samples: int, **changes: Mapping[str, Any] | str) -> StoredRun:
    """A finished run of these rows, described as `DESCRIPTION` with changes."""
    folder.mkdir(parents=True)
    write_clicks(folder / CLICKS, [table])
    description = copy.deepcopy(DESCRIPTION)
    description["dataset"]["samples"] = samples
    description["result"] |= {"samples": samples, "clicks": len(table)}
    for part, keys in changes.items():
        description[part] = keys if isinstance(keys, str) else {**description[part], **keys}
    write_json(folder / RUN, description)
    return read_run(folder)


def _row(number: int, click: int, iou: float, boundary: float, reason: str | None) -> ClickRow:
    return ClickRow(
        sample=f"s{number}",
        click=click + 1,
        x=1,
        y=2,
        positive=click == 0,
        iou=0.0 if reason else iou,
        boundary_iou=0.0 if reason else boundary,
        kept=-1 if reason else 0,
        candidates=0 if reason else 1,
        candidate_ious=() if reason else (iou,),
        candidate_scores=None,
        model_seconds=0.5 if click == 0 else 0.01 * (1 + number),
        harness_seconds=0.002,
        height=9,
        width=8,
        failure=reason,
    )


def run_diverse(method: MethodSpec, source: Any, out: Path, task: SetTask, *execution: Any) -> StoredAnswers:
    """A run of the diverse task."""
    run_task(method, source, out, task, *execution)
    return read_answers(out)


Rows = list[dict[str, Any]]
Change = Callable[[Rows], object]


def toy_run(
    folder: Path, source: Any = None, method: Any = None, store: Store = "all", every: int = 1, **protocol: Any
) -> StoredRun:
    """A run as `run_benchmark` stores it, evaluated in this process."""
    samples, method = source or ToySource(), method or Discs()
    wanted = Protocol(**{"max_clicks": 5, **protocol})
    numbers = range(0, len(samples.ids), every)
    asked = {key: value for key, value in wanted.as_dict().items() if key != "name"}
    table = evaluate(method, [samples.read(number) for number in numbers], store=store, **asked).to_table()
    failed = [
        {"sample": row["sample"], "click": row["click"], "reason": row["failure"]}
        for row in table.to_pylist()
        if row["failure"] is not None
    ]
    count = {"name": samples.name, "samples": len(samples.ids), "content_hash": samples.content_hash()}
    return store_run(
        folder,
        table,
        len(numbers),
        dataset={**count, "facts": samples.facts()},
        protocol={**wanted.as_dict(), "every": every, "limit": None},
        execution={"store": store},
        result={"failed": failed, **{name: sum(table[name].to_pylist()) for name in SECONDS}},
    )


def forged(run: StoredRun, folder: Path, change: Change) -> StoredRun:
    """A copy of a run whose rows were changed, and whose `run.json` was not."""
    rows = run.rows().to_pylist()
    change(rows)
    folder.mkdir(parents=True, exist_ok=True)
    write_clicks(folder / CLICKS, [to_table([ClickRow(**row) for row in rows])])
    (folder / RUN).write_bytes((run.folder / RUN).read_bytes())
    return read_run(folder)


def redescribed(run: StoredRun, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a run whose `run.json` was changed, and whose rows were not."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLICKS).write_bytes((run.folder / CLICKS).read_bytes())
    description = json.loads((run.folder / RUN).read_text())
    change(description)
    write_json(folder / RUN, description)
    return folder


@cache
def photos() -> SampleSource:
    return open_dataset("photos", None)


@cache
def photos_hash() -> str:
    return photos().content_hash()


@cache
def sample(number: int) -> Sample:
    return photos().read(number)


def write_photo_run(
    folder: Path,
    store: str = "all",
    *,
    name: str = "discs",
    method: Any = None,
    numbers: Sequence[int] = (3, 60, 140),
    max_clicks: int = 6,
    fails: Mapping[int, int] | None = None,
    **changes: Mapping[str, Any],
) -> StoredRun:
    """A finished run; the method fails on some numbers of samples at some click."""
    rows = []
    for number in numbers:
        loop = SampleLoop(sample(number), Protocol(max_clicks=max_clicks), store)  # type: ignore[arg-type]
        session = (method or Discs(25.0, candidates=3)).open(loop.sample.image)
        while not loop.done:
            if (fails or {}).get(number) == len(loop.clicks):
                rows.append(loop.fail("a bad day"))
            else:
                rows.append(loop.take(session.predict(loop.clicks)))
    parts: dict[str, dict[str, Any]] = {
        "method": {"name": name},
        "dataset": {"name": "photos", "samples": len(photos().ids), "content_hash": photos_hash()},
        "protocol": {"max_clicks": max_clicks},
        "execution": {"store": store},
    }
    parts["dataset"]["facts"] = {"title": "Photos", "options": {}}
    merged = {part: {**parts.get(part, {}), **changes.get(part, {})} for part in {**parts, **changes}}
    return store_run(folder, to_table(rows), len(numbers), **merged)
