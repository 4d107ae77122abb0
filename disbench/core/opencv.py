"""OpenCV, imported where it is used, with one sentence where it cannot be."""

from __future__ import annotations

from typing import Any

from disbench.core.errors import InputError


def opencv() -> Any:
    """The module `cv2`; `InputError` if it cannot be imported, mostly for want of two system libraries."""
    try:
        import cv2  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"OpenCV cannot be imported ({error}); its package needs two system libraries, on Debian and Ubuntu: "
            "apt-get install libgl1 libglib2.0-0"
        ) from error
    return cv2
