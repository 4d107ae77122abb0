"""Synthetic runs of the paper's methods, of its ablations, and of others, well made and not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from disbench.reports.entries import Entry, find_runs, read_entries
from tests.unit.run_tools import CARD, draw_ious, write_run

HASHES = {
    "grabcut": "b04d9de7f560a068cdd21f0a6af734d8cb8e297a426eff0f2d3d1ad0564d20d5",
    "berkeley": "ba3fba8bf1ea362c8e8e7a7ccd96c2b71a7bbff5fedbebea7444e184698db31c",
    "davis": "f44fdb0ba6ccee39b920a0ed14e3be17d9e12d015bf388da6d14dd3d24130060",
    "sbd-val": "0" * 64,
}
NASTY = r"\end{table} & <b>|x|</b> $50 %_^~ [a](b) **c**"


def method(
    name: str, data: list[str] | None = None, backbone: str = "ViT-B", threshold: float = 0.49, **options: Any
) -> dict[str, Any]:
    """The part `method` of `run.json`."""
    card = {
        **CARD,
        "training_data": data or [],
        "backbone": backbone,
        "threshold": threshold,
        "options": {key: {"default": value} for key, value in options.items()},
    }
    return {"name": name, "options": options, "card": card}


def dataset(name: str) -> dict[str, Any]:
    """The part `dataset` of `run.json`."""
    return {"name": name, "content_hash": HASHES.get(name, "e" * 64)}


def write_pool(folder: Path) -> None:
    """Runs below a folder, each in a folder that says what it is."""
    lvis = ["COCO", "LVIS"]
    for number, name in enumerate(HASHES):
        ious = draw_ious(6, seed=number)
        place, data = folder / name, {"dataset": dataset(name)}
        write_run(place / "disnet", ious, method=method("disnet", lvis), **data)
        write_run(place / "disnet-sbd", ious, method=method("disnet", ["SBD"]), **data)
        write_run(place / "no-fcg", ious, method=method("disnet", lvis, fcg=False), **data)
        write_run(place / "no-ac", ious, method=method("disnet", lvis, click_augmented_feature=False), **data)
        write_run(place / "radius", ious, method=method("disnet", ["SBD"], first_click_radius=5), **data)
        write_run(place / "proximity", ious, method=method("disnet", lvis, sampling="proximity"), **data)
        write_run(place / "odd-radius", ious, method=method("disnet", lvis, other_click_radius=9), **data)
        write_run(place / "ritm", ious, method=method("ritm", ["COCO+LVIS"], "hrnet32"), **data)
        write_run(place / "simpleclick", draw_ious(6, seed=9), method=method("SimpleClick", ["C+L"]), **data)
        write_run(place / "nasty", ious, method=method(NASTY, [NASTY], NASTY), **data)
        write_run(place / "geodesic", ious, method=method("geodesic", None, ""), **data)
        write_run(place / "score", ious, method=method("piclick", lvis), protocol={"selection": "score"}, **data)
        short = [[0.5, 0.8], [0.9]]
        write_run(place / "stopped", short, method=method("ritm", ["SBD"]), protocol={"stop_at": 0.8}, **data)
        failing = np.full((3, 20), 0.4)
        write_run(place / "failing", [failing[0], failing[1][:2]], failed={1: NASTY}, method=method("fcfi"), **data)
        undefined = [[math.nan] * 20, [0.95] * 20]
        write_run(place / "undefined", undefined, method=method("disnet", lvis, mca=False), **data)
        write_run(
            place / "subset",
            ious,
            method=method("InterFormer", lvis),
            dataset={**dataset(name), "samples": 18},
            protocol={"every": 3},
        )
    write_run(folder / "other-hash", method=method("fcanet", ["VOC"], "ResNet-101"), dataset={"name": "grabcut"})
    write_run(folder / "photos", method=method("ritm", ["SBD"], "HRNet-18"), dataset=dataset("photos"))


def read_pool(folder: Path) -> list[Entry]:
    """The runs below a folder."""
    return read_entries(find_runs([folder]))
