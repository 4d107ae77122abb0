"""Where the images of a folder of shards are, and the image of a scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from disbench.core.errors import InputError
from disbench.datasets.images import RgbImage, find_image, read_rgb
from disbench.io import addresses
from disbench.shards.manifest import read_manifest

FindImage = Callable[[str], Path | None]
"""A function from a scene's `file_name` to its image, None where there is none."""

DEFAULT_IMAGES = {
    "lvis": ("lvis", "coco"),
    "coco": ("coco",),
    "coco+lvis": ("coco", "lvis"),
    "sbd": ("SBD",),
    "voc": ("VOC2012", "VOC2007"),
}
"""Folders under the data root in which a source's images are looked for."""


def lookup(folder: Path, images: Path | None, data: Path | None) -> FindImage:
    """A function that finds the images of shards.

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
    """Existing folders under the data root that may hold a source's images."""
    if data is None:
        return []
    return [data / name for name in DEFAULT_IMAGES.get(source, ()) if addresses.there(data / name)]


def read_scene_image(path: Path, image_id: str, size: tuple[int, int]) -> RgbImage:
    """The image of a scene: uint8 (height, width, 3), RGB.

    Args:
        path: the image.
        image_id: named in errors.
        size: (height, width) of the scene's masks.

    Raises:
        InputError: the image is damaged, or not of the size of its masks.
    """
    image = read_rgb(path)
    if image.shape[:2] != size:
        raise InputError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but the masks of image {image_id} have {size[1]} x "
            f"{size[0]}; name the folder of the images that the shards were made for"
        )
    return image
