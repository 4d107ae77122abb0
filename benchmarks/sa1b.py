"""Sampling SA-1B's layout at two sizes: files/s, masks/s and peak memory, which may grow only by bytes per file.

    python benchmarks/sa1b.py [--files 2000] [--times 10] [--masks 100] [--workers 1] [--folder DIR]

Files are made in a temporary folder: `sa_N.json` with small masks on images of 1500 x 2250, 1,000 files per subfolder,
and empty image files (sampling does not open them). Small masks take little disk, about 20 KB per file; real masks have
many more runs and cost more. Each size is sampled by `disbench sample sa1b-hierarchy` in a separate process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from throughput import measure_command

HEIGHT, WIDTH = 1500, 2250
SCENES = 500
"""Number of different images; making them takes longer than writing them."""


def rectangle(top: int, left: int, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of a rectangle that touches neither the upper nor the lower border."""
    gap = HEIGHT - height
    runs = [left * HEIGHT + top, *[height, gap] * (width - 1), height]
    runs.append(HEIGHT * WIDTH - sum(runs))
    rle: Any = coco_mask.frPyObjects({"size": [HEIGHT, WIDTH], "counts": runs}, HEIGHT, WIDTH)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


@cache
def annotations(masks: int, seed: int) -> str:
    """JSON of masks; every fourth is inside the one before, like a part."""
    random = np.random.default_rng(seed)
    records = []
    top = left = height = width = 0
    for number in range(masks):
        if number % 4 == 3:
            top, left, height, width = top + 2, left + 2, height - 6, width - 6
        else:
            height, width = random.integers(16, 60, 2).tolist()
            top, left = int(random.integers(1, HEIGHT - 61)), int(random.integers(1, WIDTH - 61))
        box = [float(side) for side in (left, top, width, height)]
        segmentation = rectangle(top, left, height, width)
        records.append({"id": number, "segmentation": segmentation, "bbox": box, "area": height * width})
    return json.dumps(records)


def write_files(folder: Path, begin: int, end: int, masks: int) -> None:
    """Write files `begin` to `end` - 1; numbers that are equal modulo `SCENES` have the same masks."""
    for number in range(begin, end):
        place = folder / f"sa_{number // 1000:06d}"
        place.mkdir(exist_ok=True)
        image = {"image_id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{number}.jpg"}
        content = f'{{"image": {json.dumps(image)}, "annotations": {annotations(masks, number % SCENES)}}}'
        (place / f"sa_{number}.json").write_text(content)
        (place / f"sa_{number}.jpg").touch()


def children_seconds() -> float:
    """CPU time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    arguments = parser.parse_args()
    print(
        f"{'files':>9} {'masks':>11} {'wall s':>7} {'CPU s':>7} {'files/CPU s':>12} {'masks/CPU s':>12} {'peak MiB':>9}"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        root, begin = Path(temporary), 0
        (root / "files").mkdir()
        for files in (arguments.files, arguments.times * arguments.files):
            write_files(root / "files", begin, files, arguments.masks)
            begin = files
            command = [sys.executable, "-m", "disbench", "sample", "sa1b-hierarchy", "--folder", root / "files"]
            command_line_ = [*command, "--out", root / f"out-{files}", "--workers", arguments.workers]
            before = children_seconds()
            wall, peak = measure_command(list(map(str, command_line_)))
            cpu, masks = children_seconds() - before, files * arguments.masks
            print(
                f"{files:>9,} {masks:>11,} {wall:>7.0f} {cpu:>7.0f} {files / cpu:>12.0f} {masks / cpu:>12.0f} "
                f"{peak * 1024:>9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
