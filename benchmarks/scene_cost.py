"""Time to read and sample a scene by its number of objects: a + b n, by least squares over scenes.

    python benchmarks/scene_cost.py [--repeats 5]

Uses all annotated images of lvis_val_100.json and COCO's two files under DISBENCH_DATA. CPU time, best of the repeats
for each scene.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from disbench.workers import threads

threads.limit(1)

import numpy as np
import numpy.typing as npt

from disbench.core.scenes import SceneSource
from disbench.sampling.recipes import Recipe, load_recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.sampling.sources import SourcePaths, open_source

Array = npt.NDArray[Any]
RECIPES = ("coco-lvis-hierarchy", "coco-lvis-proximity")
"""Recipes, run on every image of either dataset."""


def real_source(recipe: Recipe) -> SceneSource:
    """All images of the real files under DISBENCH_DATA."""
    data = Path(os.environ["DISBENCH_DATA"])
    coco = [data / "coco" / f"instances_{part}.json" for part in ("train", "val")]
    return open_source(recipe, SourcePaths(lvis=[data / "lvis" / "lvis_val_100.json"], coco=coco))


def costs(source: SceneSource, recipe: Recipe, repeats: int) -> tuple[Array, Array]:
    """Number of objects of each non-empty scene, and CPU milliseconds to read and sample it."""
    counts, times = [], []
    for index in range(len(source)):
        best = float("inf")
        for _ in range(repeats):
            begun = time.process_time()
            scene = next(iter(source.read([index])))
            sample_scene(scene, recipe)
            best = min(best, time.process_time() - begun)
        counts.append(len(scene.objects))
        times.append(best * 1e3)
    non_empty = np.array(counts) > 0
    return np.array(counts)[non_empty], np.array(times)[non_empty]


def fit(counts: Array, values: Array, degree: int = 1) -> tuple[Array, float]:
    """Coefficients of a polynomial in the number of objects, and R2."""
    terms = np.polynomial.polynomial.polyfit(counts, values, degree)
    residuals = values - np.polynomial.polynomial.polyval(counts, terms)
    return terms, float(1 - residuals.var() / values.var())


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of a scene by its number of objects.")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for name in RECIPES:
        recipe = load_recipe(name, ["join=outer"])
        counts, times = costs(real_source(recipe), recipe, repeats)
        for degree in (1, 2):
            terms, r2 = fit(counts, times, degree)
            coefficients = ", ".join(f"{term:.4f}" for term in terms)
            print(f"{name}: {len(counts)} scenes, {coefficients} ms times 1, n, ...; R2 {r2:.2f}")


if __name__ == "__main__":
    main()
