"""Inputs of the benchmarks: real files or embedded photos, stand-ins for predictions, and large files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from disbench.core import clicks as ours
from disbench.datasets.instances import AnnotationFile, open_annotations
from disbench.datasets.photos import open_photos

Array = npt.NDArray[Any]


def default_annotations() -> Path:
    """The real LVIS file below DISBENCH_DATA."""
    return Path(os.environ.get("DISBENCH_DATA", "")) / "lvis" / "lvis_val_100.json"


def annotations_and_rounds(description: str) -> tuple[AnnotationFile, int]:
    """The LVIS file named on the command line, the default file, or the embedded photos; and --rounds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("annotations", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    path = arguments.annotations or (default_annotations() if default_annotations().is_file() else None)
    return open_annotations(path, "lvis") if path else open_photos(), arguments.rounds


class ClickState(NamedTuple):
    """The input of a simulated user before a click."""

    target: Array
    prediction: Array
    clicks: list[ours.Click]

    def resized(self, size: tuple[int, int]) -> ClickState:
        """The state resized to `size` (transposed for portrait images); itself if it has that size already."""
        height, width = self.target.shape
        new_height, new_width = size if height <= width else size[::-1]
        if (new_height, new_width) == (height, width):
            return self
        rows = np.arange(new_height) * height // new_height
        columns = np.arange(new_width) * width // new_width
        clicks = [
            ours.Click(x * new_width // width, y * new_height // height, positive) for x, y, positive in self.clicks
        ]
        index = np.ix_(rows, columns)
        return ClickState(self.target[index], self.prediction[index], clicks)


def simulated_states(targets: Iterable[Array], seed: int = 0) -> Iterator[ClickState]:
    """Ragged predictions around targets, 20 clicks each, improving with each click."""
    generator = np.random.default_rng(seed)
    for target in targets:
        prediction, clicks = np.zeros(target.shape, dtype=bool), []
        for number in range(1, 21):
            yield ClickState(target, prediction, list(clicks))
            clicks.append(ours.next_click(target, prediction, clicks))
            prediction = perturb(target == 1, number, generator)


def perturb(mask: Array, number: int, generator: np.random.Generator) -> Array:
    """A mask with an uneven outline, and holes and islands that become fewer with the number of the click."""
    import cv2  # noqa: PLC0415  (loaded after threads are limited)

    def random_field(scale: float) -> Array:
        height, width = mask.shape
        coarse = generator.standard_normal((int(height / scale) + 2, int(width / scale) + 2)).astype(np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    depth -= cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    amount = generator.lognormal(0.5, 0.5)
    depth += amount * random_field(generator.uniform(3, 12)) + 9 * amount / number * random_field(
        generator.uniform(20, 80)
    )
    predicted = depth > 0
    for _ in range(generator.poisson(6 / number)):
        blobs = random_field(generator.uniform(30, 120)) > generator.uniform(1.3, 2.4)
        predicted = predicted & ~blobs if generator.random() < 0.6 else predicted | blobs
    return predicted


def write_scaled(source: Path, copies: int, out: Path) -> None:
    """Write an LVIS file of `copies` of another, with the memory of one copy."""
    data = orjson.loads(source.read_bytes())
    images, annotations = data["images"], data["annotations"]
    image_step = max(image["id"] for image in images) + 1
    annotation_step = max(annotation["id"] for annotation in annotations) + 1

    def copied_images() -> Iterator[bytes]:
        for copy in range(copies):
            yield from (orjson.dumps({**image, "id": image["id"] + copy * image_step}) for image in images)

    def copied_annotations() -> Iterator[bytes]:
        for copy in range(copies):
            shift = 0.01 * (copy % 100)
            for item in annotations:
                rings = [[round(value + shift, 2) for value in ring] for ring in item["segmentation"]]
                parent = item.get("parent_id")
                own = {} if parent is None else {"parent_id": parent + copy * annotation_step}
                yield orjson.dumps(
                    {
                        **item,
                        **own,
                        "id": item["id"] + copy * annotation_step,
                        "image_id": item["image_id"] + copy * image_step,
                        "segmentation": rings,
                    }
                )

    with out.open("wb") as file:
        file.write(b'{"categories": ' + orjson.dumps(data["categories"]))
        for name, records in (("images", copied_images()), ("annotations", copied_annotations())):
            file.write(b', "%s": [' % name.encode())
            for number, record in enumerate(records):
                file.write(record if number == 0 else b", " + record)
            file.write(b"]")
        file.write(b"}")
