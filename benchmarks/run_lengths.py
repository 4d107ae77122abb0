"""pycocotools against rlemasklib for the operations used in `disbench.core.masks`, on real or embedded masks.

    python benchmarks/run_lengths.py [LVIS.json] [--rounds 5]

Without a file: `lvis/lvis_val_100.json` under DISBENCH_DATA, otherwise the embedded photos. Results must be equal. A
ratio above 1 means that rlemasklib is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import rlemasklib
from inputs import annotations_and_rounds
from pycocotools import mask as coco_mask

from disbench.core import masks

Operation = Callable[[], list[Any]]


def seconds(run: Operation) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def main() -> None:
    file, rounds = annotations_and_rounds("pycocotools against rlemasklib.")
    scenes = [
        [masks.from_polygons(a["segmentation"], image.height, image.width) for a in file.annotations(image_id)]
        for image_id, image in file.images.items()
    ]
    rles = [rle for scene in scenes for rle in scene][:1000]
    pairs = [pair for scene in scenes for pair in pairwise(scene)][:1000]
    arrays = [np.asfortranarray(coco_mask.decode(rle)) for rle in rles[:300]]
    operations: dict[str, tuple[Operation, Operation]] = {
        "decode": (
            lambda: [coco_mask.decode(rle) for rle in rles[:300]],
            lambda: [rlemasklib.decode(rle) for rle in rles[:300]],
        ),
        "encode": (
            lambda: [coco_mask.encode(array)["counts"] for array in arrays],
            lambda: [rlemasklib.encode(array)["counts"] for array in arrays],
        ),
        "area": (
            lambda: [int(coco_mask.area(rle)) for rle in rles],
            lambda: [int(rlemasklib.area(rle)) for rle in rles],
        ),
        "union of two": (
            lambda: [coco_mask.merge(list(pair))["counts"] for pair in pairs],
            lambda: [rlemasklib.union(list(pair))["counts"] for pair in pairs],
        ),
        "intersection of two": (
            lambda: [coco_mask.merge(list(pair), True)["counts"] for pair in pairs],
            lambda: [rlemasklib.intersection(list(pair))["counts"] for pair in pairs],
        ),
    }
    print(f"{file.path.name}: {len(rles)} masks, {len(pairs)} pairs, {rounds} rounds, one core")
    for name, (coco, other) in operations.items():
        if not all(np.array_equal(a, b) for a, b in zip(coco(), other(), strict=True)):
            raise SystemExit(f"{name}: the results differ")
        ratios = [seconds(coco) / seconds(other) for _ in range(rounds)]
        print(f"{name:<22}{statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
