"""From polygons to a tree, on one core: our run-length encoding against full frames and the literal rule in NumPy.

Both sides start from the same polygons and must give the same parents. The full-frame side rasterises each mask to the
size of its image, computes all pairwise intersections with NumPy and applies the same tree rule, in two variants:
boolean frames and sums, or one float32 matrix product (the fastest way in NumPy). Ratios are medians over rounds in
which both sides run one after the other.

    python benchmarks/hierarchy.py [LVIS.json] [--rounds 5]

Without a file: `lvis/lvis_val_100.json` under DISBENCH_DATA, otherwise the embedded photos.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import statistics
import time
from collections.abc import Callable

import numpy as np
from inputs import annotations_and_rounds

from disbench.core import masks
from disbench.core.arrays import BoolArray, FloatArray
from disbench.datasets.instances import AnnotationFile
from disbench.sampling.hierarchy import BOX_SHARE, MASK_SHARE, build_forest, containment_matrix

Polygons = list[list[float]]
Image = tuple[int, int, list[Polygons]]
Parents = tuple[int, ...]


def images_of(file: AnnotationFile) -> list[Image]:
    found = []
    for image_id, image in file.images.items():
        polygons = [annotation["segmentation"] for annotation in file.annotations(image_id)]
        if polygons:
            found.append((image.height, image.width, polygons))
    return found


def ours(image: Image) -> Parents:
    height, width, objects = image
    rles = [masks.from_polygons(rings, height, width) for rings in objects]
    return build_forest(containment_matrix(rles), masks.areas(rles)).parents


def full_frames(image: Image, *, product: bool) -> Parents:
    height, width, objects = image
    frames = np.zeros((len(objects), height, width), dtype=bool)
    for frame, rings in zip(frames, objects, strict=True):
        frame[:] = masks.decode(masks.from_polygons(rings, height, width))
    area = frames.sum(axis=(1, 2))
    if product:
        flat = frames.reshape(len(frames), -1).astype(np.float32)
        shared = np.rint(flat @ flat.T)
    else:
        shared = np.stack([(frames & frame).sum(axis=(1, 2)) for frame in frames])
    contains = (
        (area[:, None] >= area[None]) & (frame_box_shares(frames) >= BOX_SHARE) & (shared / area[None] > MASK_SHARE)
    )
    np.fill_diagonal(contains, val=False)
    return build_forest(contains, area).parents


def frame_box_shares(frames: BoolArray) -> FloatArray:
    spans = []
    for axis in (1, 2):
        line = frames.any(axis=axis)
        spans.append((line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)))
    (x0, x1), (y0, y1) = spans
    inner_x = np.clip(np.minimum(x1[:, None], x1[None]) - np.maximum(x0[:, None], x0[None]), 0, None)
    inner_y = np.clip(np.minimum(y1[:, None], y1[None]) - np.maximum(y0[:, None], y0[None]), 0, None)
    return np.asarray(inner_x * inner_y / ((x1 - x0) * (y1 - y0))[None], dtype=np.float64)


def seconds(run: Callable[[Image], Parents], images: list[Image]) -> tuple[float, list[Parents]]:
    begun = time.process_time()
    result = [run(image) for image in images]
    return time.process_time() - begun, result


def main() -> None:
    file, rounds = annotations_and_rounds("From polygons to a tree, ours against full frames.")
    images = images_of(file)
    count = sum(len(objects) for *_, objects in images)
    print(f"{file.path.name}: {len(images)} images, {count} objects, {rounds} rounds, one core")
    variants: dict[str, Callable[[Image], Parents]] = {
        "boolean frames and sums": lambda image: full_frames(image, product=False),
        "float32 matrix product": lambda image: full_frames(image, product=True),
    }
    ratios: dict[str, list[float]] = {name: [] for name in variants}
    own: list[float] = []
    for _ in range(rounds):
        base, parents = seconds(ours, images)
        own.append(base)
        for name, run in variants.items():
            spent, other = seconds(run, images)
            if other != parents:
                raise SystemExit(f"{name}: other parents than ours")
            ratios[name].append(spent / base)
    print(f"{'ours (run lengths)':<28}{statistics.median(own) / len(images) * 1e3:9.2f} ms an image")
    for name, values in ratios.items():
        print(f"{name:<28}{statistics.median(values):9.1f} times slower ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
