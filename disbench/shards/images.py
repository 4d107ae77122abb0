"""Where the images of a folder of shards are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from disbench.core.errors import InputError
from disbench.datasets.images import find_image
from disbench.io import addresses
from disbench.shards.manifest import read_manifest

DEFAULT_IMAGES = {
    "lvis": ("lvis", "coco"),
    "coco": ("coco",),
    "coco+lvis": ("coco", "lvis"),
    "sbd": ("SBD",),
    "voc": ("VOC2012", "VOC2007"),
}
"""Folders under the data root in which a source's images are looked for."""


def lookup(folder: Path, images: Path | None, data: Path | None) -> Callable[[str], Path | None]:
    """A function from a scene's `file_name` to its image, None where there is none.

    Args:
        folder: the shards.
        images: the folder of images that the user named; without it, the embedded photos for their own
            shards, otherwise the usual folders under the data root.
        data: root of the datasets.

    Raises:
        InputError: `images` is not a folder.
    """
    source = read_manifest(folder).source
    if images is not None:
        if addresses.address_of(images) is None and not images.is_dir():
            raise InputError(f"{images}: not a folder; name the folder of the images")
        folders = [images]
    elif source == "photos":
        from disbench.datasets.photos import photo_path  # noqa: PLC0415

        return photo_path
    else:
        folders = image_folders(source, data)

    def find(file_name: str) -> Path | None:
        return next((path for root in folders if (path := find_image(root, file_name))), None)

    return find


def image_folders(source: str, data: Path | None) -> list[Path]:
    """Folders under the data root that may hold a source's images, as far as they exist."""
    if data is None:
        return []
    return [data / name for name in DEFAULT_IMAGES.get(source, ()) if addresses.there(data / name)]
