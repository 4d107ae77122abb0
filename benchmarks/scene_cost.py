"""How the time to read and sample a scene depends on its number of objects: a + b n, by least squares over scenes.

    python benchmarks/scene_cost.py [--repeats 5]

On all annotated images of lvis_val_100.json and COCO's two files under DISBENCH_DATA. Processor time, the best of the
repeats for each scene.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from disbench import threads

threads.limit(1)

import numpy as np

from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.sampling.sources import SourcePaths, open_source


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of a scene by its number of objects.")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    data = Path(os.environ["DISBENCH_DATA"])
    coco = [data / "coco" / f"instances_{part}.json" for part in ("train", "val")]
    paths = SourcePaths(lvis=[data / "lvis" / "lvis_val_100.json"], coco=coco)
    for name in ("coco-lvis-hierarchy", "coco-lvis-proximity"):
        recipe = load_recipe(name, ["join=outer"])
        source = open_source(recipe, paths)
        counts, costs = [], []
        for index in range(len(source)):
            best = float("inf")
            for _ in range(repeats):
                begun = time.process_time()
                scene = next(iter(source.read([index])))
                sample_scene(scene, recipe)
                best = min(best, time.process_time() - begun)
            counts.append(len(scene.objects))
            costs.append(best * 1e3)
        n, cost = np.array(counts)[np.array(counts) > 0], np.array(costs)[np.array(counts) > 0]
        for degree in (1, 2):
            terms = np.polynomial.polynomial.polyfit(n, cost, degree)
            left = cost - np.polynomial.polynomial.polyval(n, terms)
            told = ", ".join(f"{term:.4f}" for term in terms)
            print(f"{name}: {len(n)} scenes, {told} ms times 1, n, ...; R2 {1 - left.var() / cost.var():.2f}")


if __name__ == "__main__":
    main()
