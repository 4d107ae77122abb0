"""Caches of image encodings: the last few in memory, and all of them in a folder if one is named."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from disbench.core.arrays import Float32Array
from disbench.core.prediction import RgbImage
from disbench.io.files import naming, whole_file

Encoding = TypeVar("Encoding")
IN_MEMORY = 4
"""Images whose encodings stay in memory: objects of one image follow each other in a dataset."""


class Encodings(Generic[Encoding]):
    """An encoder of images, uint8 (height, width, 3), RGB, that keeps the last few encodings by the images' content."""

    def __init__(self, encode: Callable[[RgbImage], Encoding]) -> None:
        self._encode = encode
        self._known: OrderedDict[str, Encoding] = OrderedDict()

    def of(self, image: RgbImage) -> Encoding:
        """The encoding of an image."""
        key = image_hash(image)
        if key not in self._known:
            self._known[key] = self._encode(image)
            while len(self._known) > IN_MEMORY:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


def image_hash(image: RgbImage) -> str:
    """SHA-256 (hex) of an image's size and pixels."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def stored(folder: Path, name: str, shape: tuple[int, ...], make: Callable[[], Float32Array]) -> Float32Array:
    """A float32 array from `NAME.npy` in a folder; made and written if it is missing or damaged.

    Several processes may do so at once: each writes under its own name and renames.
    """
    path = folder / f"{name}.npy"
    found = _read(path, shape)
    if found is not None:
        return found
    made = make()
    own = path.with_name(f"{name}.{os.getpid()}.npy")
    with naming(own):
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(own) as file:
            np.save(file, made)
        own.replace(path)
    return made


def _read(path: Path, shape: tuple[int, ...]) -> Float32Array | None:
    try:
        # Mapped: a header that announces more than the file has fails before memory is taken.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # a damaged header fails in any way: it is parsed as Python's literals
        return None
    if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.shape != shape:
        return None
    return np.array(found)
