"""`resize` and `to_pil_image` for uint8 images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


def to_pil_image(image: Any) -> Image.Image:
    """A PIL image of a uint8 array (height, width, channels)."""
    return Image.fromarray(np.asarray(image))


def resize(image: Image.Image, size: Sequence[int]) -> Image.Image:
    """Bilinear, to (height, width)."""
    return image.resize((int(size[1]), int(size[0])), Image.BILINEAR)
