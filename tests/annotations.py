"""Small annotation files made by hand: squares in images of 40 x 60 pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HEIGHT, WIDTH = 40, 60
CATEGORIES = ({"id": 1, "name": "cup", "synset": "cup.n.01"}, {"id": 2, "name": "saucer"})


def square(left: float, top: float, side: float) -> list[list[float]]:
    """A polygon whose mask is the square of these whole pixels."""
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def image(number: int, **changes: Any) -> dict[str, Any]:
    """A record of `images`."""
    return {"id": number, "file_name": f"{number:012d}.jpg", "height": HEIGHT, "width": WIDTH, **changes}


def annotation(number: int, of: int = 1, **changes: Any) -> dict[str, Any]:
    """A record of `annotations`: a square of 10 x 10 pixels, each number at another place."""
    place = number % 20
    return {"id": number, "image_id": of, "category_id": 1, "segmentation": square(2 * place, place, 10), **changes}


def write_annotations(
    path: Path,
    annotations: Iterable[Mapping[str, Any]],
    images: Iterable[Mapping[str, Any]] = (image(1),),
    categories: Iterable[Mapping[str, Any]] = CATEGORIES,
) -> Path:
    """An annotation file; NaN and Infinity are written as Python writes them."""
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
