"""Finished runs made of numbers, without a method: through the store, as a run leaves them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.baselines.cards import MethodSpec
from disbench.harness.run import run_task
from disbench.harness.set_task import SetTask, StoredAnswers, read_answers
from disbench.harness.store import CLICKS, RUN, ClickRow, StoredRun, read_run, to_table, write_clicks, write_json

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
    folder.mkdir(parents=True)
    write_clicks(folder / CLICKS, [to_table(rows)])
    description = copy.deepcopy(DESCRIPTION)
    description["dataset"]["samples"] = len(values)
    description["result"] |= {"samples": len(values), "clicks": len(rows)}
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
