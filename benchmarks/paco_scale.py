"""`disbench sample paco-parts` on a file of the size of PACO-LVIS's training split.

Makes a file of 45,790 images with 612,188 annotations (about 500 MB) from a smaller one in PACO's layout: images are
repeated with new ids, each with its object and parts, which are repeated until the total is reached. Runs the command
on it and reports wall time, CPU time and the sum of all processes' peak memory.

    python benchmarks/paco_scale.py [PACO.json] [--workers 2]

Without a file: `clothing/paco_style.json` under DISBENCH_DATA.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import orjson
from throughput import measure_command

IMAGES, ANNOTATIONS = 45_790, 612_188


def annotations(records: list[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The annotations of all images; each image's annotations are repeated with new ids."""
    written = 0
    for image, image_records in zip(range(IMAGES), cycle(records)):
        target = (image + 1) * ANNOTATIONS // IMAGES
        for number, record in islice(enumerate(cycle(image_records)), target - written):
            # The object comes first in each repetition, so that only parts are cut off.
            first = written + number - number % len(image_records) + 1
            yield {**record, "id": written + number + 1, "image_id": image + 1, "obj_ann_id": first}
        written = target


def write_scaled(source: Path, path: Path) -> None:
    """Write the large file."""
    data = orjson.loads(source.read_bytes())
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in data["images"]}
    for record in sorted(data["annotations"], key=lambda record: record["id"] != record["obj_ann_id"]):
        by_image[record["image_id"]].append(record)
    images = islice(cycle(data["images"]), IMAGES)
    with path.open("wb") as file:
        file.write(b'{"categories":%s,"images":[' % orjson.dumps(data["categories"]))
        file.write(b",".join(orjson.dumps({**image, "id": number}) for number, image in enumerate(images, 1)))
        file.write(b'],"annotations":[')
        for number, record in enumerate(annotations(list(by_image.values()))):
            file.write((b"," if number else b"") + orjson.dumps(record))
        file.write(b"]}")


def main() -> None:
    default = Path(os.environ.get("DISBENCH_DATA", "")) / "clothing" / "paco_style.json"
    parser = argparse.ArgumentParser(description="Time and memory of `disbench sample paco-parts`.")
    parser.add_argument("annotations", nargs="?", type=Path, default=default)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "paco.json", Path(folder) / "shards"
        write_scaled(arguments.annotations, path)
        command = [sys.executable, "-m", "disbench", "sample", "paco-parts", "--lvis", str(path), "--out", str(out)]
        wall, peak = measure_command([*command, "--workers", str(arguments.workers)])
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{path.stat().st_size / 1e6:,.0f} MB, {IMAGES:,} images, {ANNOTATIONS:,} annotations: {wall:.1f} s, "
            f"{usage.ru_utime + usage.ru_stime:.1f} s of processor time, {peak:.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
