"""Estimate nodes, minutes and bytes for whole datasets from the cost of scenes on this machine.

    python benchmarks/plan.py [--repeats 3] [--cores 8] [--nodes 1 4 16]

Measures, on the real files under DISBENCH_DATA: reading and sampling a scene of n objects (`scene_cost.py`), the time
of the single writing process per scene, the shards' bytes (per scene and per object), and reading JSON (bytes per
second, bytes per annotation). Then computes, for each dataset and recipe: bytes of JSON and shards, core minutes of the
workers, minutes of the driver, and minutes of the whole job on a number of nodes with the given cores, with its
bottleneck: sampling (workers), writing (driver) or reading (JSON).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scene_cost import RECIPES, Array, costs, fit, real_source

# isort: split
import numpy as np
import pyarrow.compute as pc
from inputs import default_annotations, write_scaled
from tqdm import tqdm

from disbench.datasets.instances import open_annotations
from disbench.sampling.job import SamplingWork, chunks_by_cost, write_chunks
from disbench.sampling.recipes import load_recipe
from disbench.shards.rows import ShardWriter

DATASETS = (("COCO with LVIS", 100_000, 1_500_000), ("of Open Images' size", 944_000, 2_690_000))
"""Name, images, masks: the datasets' own numbers."""
COPIES = 30
"""Copies of an LVIS file to measure reading."""


@dataclass(frozen=True)
class RecipeCost:
    """Cost of a recipe on this machine.

    Attributes:
        scene: milliseconds of a worker, terms of 1 and n objects.
        writing: milliseconds of the driver per scene.
        written: bytes of shards, terms of 1 and n objects.
    """

    scene: Array
    writing: float
    written: Array


def measure_recipe(name: str, repeats: int) -> RecipeCost:
    recipe = load_recipe(name, ["join=outer"])
    source = real_source(recipe)
    counts, times = costs(source, recipe, repeats)
    work = SamplingWork(source, recipe)
    chunks = [work.run(images) for images in chunks_by_cost(source, range(len(source)))]
    best = float("inf")
    for _ in range(max(3, repeats)):
        with tempfile.TemporaryDirectory() as folder:
            writer = ShardWriter(Path(folder), recipe.shard_bytes, "plan")
            begun = time.process_time()
            write_chunks(writer, chunks, tqdm(disable=True))
            best = min(best, time.process_time() - begun)
            total_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    # Uncompressed rows give the growth with the number of objects; the shards' size gives the compression.
    sizes = np.array([size for chunk in chunks for size in chunk.sizes])
    stored = np.concatenate([pc.list_value_length(chunk.batch["objects"]).to_numpy() for chunk in chunks])
    size_terms, _ = fit(stored, sizes)
    return RecipeCost(fit(counts, times)[0], 1e3 * best / len(sizes), size_terms * (total_bytes / sizes.sum()))


def measure_reading() -> tuple[float, float]:
    """Bytes of JSON per second, and bytes per annotation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lvis.json")
        write_scaled(default_annotations(), COPIES, path)
        begun = time.perf_counter()
        annotation_file = open_annotations(path, "lvis")
        seconds = time.perf_counter() - begun
        annotations = sum(len(list(annotation_file.annotations(int(image)))) for image in annotation_file.images)
        return path.stat().st_size / seconds, path.stat().st_size / annotations


def minutes(milliseconds: float) -> float:
    return milliseconds / 60_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate the cost of whole datasets.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=8, help="cores per node")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 16])
    arguments = parser.parse_args()
    rate, annotation_bytes = measure_reading()
    print(f"JSON: {rate / 1e6:.0f} MB a second, {annotation_bytes:.0f} bytes an annotation")
    recipes = {name: measure_recipe(name, arguments.repeats) for name in RECIPES}
    for name, cost in recipes.items():
        print(
            f"{name}: {cost.scene[0]:.2f} + {cost.scene[1]:.3f} n ms a scene of n objects; written in "
            f"{cost.writing:.2f} ms, {cost.written[0]:.0f} + {cost.written[1]:.0f} n bytes"
        )
    nodes = "".join(f" minutes on {n} x {arguments.cores} cores |" for n in arguments.nodes)
    print("\n| dataset | images | masks | JSON | recipe | core minutes | driver, minutes | shards |" + nodes)
    print("| --- " * (8 + len(arguments.nodes)) + "|")
    for dataset, images, masks in DATASETS:
        read = masks * annotation_bytes / rate / 60
        for name, cost in recipes.items():
            work = minutes(images * cost.scene[0] + masks * cost.scene[1])
            writing = minutes(images * cost.writing)
            shards = images * cost.written[0] + masks * cost.written[1]
            cells: list[Any] = [
                *(dataset, f"{images:,}", f"{masks:,}", f"{masks * annotation_bytes / 1e9:.1f} GB"),
                *(f"`{name}`", f"{work:.1f}", f"{read:.1f} + {writing:.1f}", f"{shards / 1e9:.1f} GB"),
            ]
            for count in arguments.nodes:
                parts = {"reading": read, "sampling": work / (count * arguments.cores), "writing": writing}
                cells.append(
                    f"{read + max(parts['sampling'], writing):.1f} ({max(parts, key=lambda part: parts[part])})"
                )
            print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
