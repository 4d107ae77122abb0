"""Data made up by a seed: annotation files in LVIS's layout, folders of images with masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def lvis_content(images: int, objects: int = 8, seed: int = 0, size: int = 120) -> dict[str, Any]:
    """An LVIS file's content with about `objects` polygons an image, some inside each other."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, images + 1):
        for _ in range(int(rng.integers(0, 2 * objects + 1))):
            center, radius = rng.uniform(20, size - 20, 2), rng.uniform(4, 19)
            for shrink in (1.0, 0.7)[: int(rng.integers(1, 3))]:
                angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 14))))
                points = center + shrink * radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": int(rng.integers(1, 4)),
                        "segmentation": [np.round(points, 2).ravel().tolist()],
                    }
                )
    return {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "height": size, "width": size} for i in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "synset": f"{name}.n.01"}
            for number, name in enumerate(("cup", "saucer", "spoon"), start=1)
        ],
    }


def write_lvis(path: Path, images: int, objects: int = 8, seed: int = 0) -> Path:
    """Write `lvis_content` to a file."""
    path.write_text(json.dumps(lvis_content(images, objects, seed)))
    return path


def write_pairs(folder: Path, reds: tuple[int, ...] = (0, 0, 0)) -> Path:
    """A folder of images with masks; the first pixel's red tells a toy method how to misbehave."""
    noise = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number, red in enumerate(reds):
        image = noise.integers(8, 250, (48, 60, 3), dtype=np.uint8)
        image[0, 0, 0] = red
        mask = np.zeros((48, 60), dtype=np.uint8)
        mask[8 + 4 * number : 36, 10:40] = 255
        for kind, pixels in (("images", image), ("masks", mask)):
            Image.fromarray(pixels).save(folder / kind / f"i{number}.png")
    return folder
