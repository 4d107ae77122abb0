"""Ablations in miniature: a plan, a training that writes its settings, and finished rows made of numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from disbench.disnet.method import described
from disbench.disnet.training.ablation import AblationOptions
from disbench.disnet.training.settings import Training
from disbench.disnet.training.train import TRAINED
from disbench.reports.ablation.plans import RowRecord, write_record
from tests.unit.run_tools import CARD, write_run
from tests.unit.shard_tools import write_shards

BUDGET = {"name": "small", "steps": 75, "epochs": 55.0, "batch": 4, "accumulate": 1}
HASHES = {
    "grabcut": "b04d9de7f560a068cdd21f0a6af734d8cb8e297a426eff0f2d3d1ad0564d20d5",
    "berkeley": "ba3fba8bf1ea362c8e8e7a7ccd96c2b71a7bbff5fedbebea7444e184698db31c",
}
PLAN = """
title = "Two switches"
steps = 2
budget = "nothing"
set = ["warmup_steps=1"]
seeds = [0, 1]
datasets = [{ name = "DATA" }]
[[rows]]
name = "plain"
set = ["network.options.mca=false"]
[[rows]]
name = "full"
[[rows]]
name = "full-refined"
trained_as = "full"
method = ["refine_first=true"]
[[contrasts]]
name = "MCA"
before = "plain"
after = "full"
"""
OPTIONS = {"checkpoint": "", "refine_first": False, "weights": "", "cache": "", "device": "cpu"}


def fake_train(training: Training, folder: Path, options: AblationOptions) -> None:
    """Write what the network is; every call leaves a line."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "calls").open("a") as file:
        file.write(f"{training.steps} steps on {options.device}\n")
    (folder / TRAINED).write_text(json.dumps(described(training)))


def failing_train(training: Training, folder: Path, options: AblationOptions) -> None:
    """As a process that is killed for its memory."""
    os._exit(9)


def write_world(folder: Path) -> Path:
    """A plan, its base training, its card and its data, below a folder; the path of the plan."""
    (folder / "DATA" / "images").mkdir(parents=True)
    (folder / "DATA" / "masks").mkdir()
    for number in range(3):
        mask = np.zeros((30, 36), dtype=np.uint8)
        mask[5 : 20 + number, 8 : 24 + number] = 255
        Image.fromarray(mask).save(folder / "DATA" / "masks" / f"{number}.png")
        Image.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(folder / "DATA" / "images" / f"{number}.png")
    write_shards(folder / "shards", [])
    (folder / "base.toml").write_text('shards = [{ folder = "shards" }]\nsteps = 9\n[network]\narchitecture = "sam"\n')
    card = {**OPTIONS, **described(Training("base"))}
    lines = [f"[options.{name}]\ndefault = {json.dumps(value)}" for name, value in card.items()]
    entry = 'title = "Discs"\nstatus = "native"\nentry = "tests.unit.ablation_method:Reads"\n'
    (folder / "disnet.toml").write_text(entry + "\n".join(lines))
    (folder / "two.toml").write_text(PLAN)
    return folder / "two.toml"


def write_cell(
    folder: Path,
    row: str,
    runs: Mapping[str, Sequence[Sequence[float]] | npt.NDArray[Any]],
    seed: int = 0,
    *,
    training: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    **changes: Any,
) -> None:
    """A finished row and seed made of numbers: dataset -> IoUs, a sequence a sample."""
    place = folder / row / f"seed-{seed}"
    method = {"training_seed": seed, **(options or {})}
    write_record(place, RowRecord(folder.name, row, seed, {**BUDGET, **(training or {})}, {"shards": "f" * 8}, method))
    card = {**CARD, "backbone": "TinyViT", "options": {key: {"default": "another"} for key in method}}
    for dataset, ious in runs.items():
        write_run(
            place / "runs" / dataset,
            ious,
            method={"name": "disnet", "options": method, "card": card},
            dataset={"name": dataset, "content_hash": HASHES[dataset], "samples": len(ious)},
            **changes,
        )
